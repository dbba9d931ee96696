"""Rewrites the generated parts of docs/benchmarks.md, and its charts, from the results."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.chart import Group, chart
from benchmarks.results import WITHOUT_A_LOOP, Cell, Comparison, Results, Row, number
from benchmarks.table import by_topic, by_way

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results.json"
PAGE = ROOT / "docs" / "benchmarks.md"
CHARTS = PAGE.parent / "charts"

PART = re.compile(
    r"(?P<begin><!-- generated: (?P<name>\w+) -->\n).*?(?P<end><!-- end of what is generated -->)",
    re.DOTALL,
)
UNITS = {"us": "µs"}


@dataclass(frozen=True)
class Picture:
    """Which comparisons a chart shows, and how.

    Args:
        title: what it shows.
        topics: of the comparisons.
        cases: those of them that are shown; all where it is empty.
        loops: on which they were made.
        unit: at the axis.
        use_ratio: see `chart`.
        log: see `chart`.
    """

    title: str
    topics: tuple[str, ...]
    unit: str
    cases: tuple[str, ...] = ()
    loops: tuple[str, ...] = ("asyncio", "trio")
    use_ratio: bool = False
    log: bool = False


PICTURES = {
    "overhead": Picture(
        "What a load costs that does nothing",
        ("overhead",),
        "µs per load",
        ("1 at once", "64 at once"),
    ),
    "sharing": Picture(
        "What a caller costs that shares a load with others",
        ("sharing",),
        "µs per caller",
        ("100 callers", "10,000 callers"),
        log=True,
    ),
    "gaps": Picture(
        "How long the loop stands still while 4 models load: 99 of 100 gaps are shorter",
        ("gaps",),
        "ms",
        loops=("asyncio",),
        log=True,
    ),
    "boot": Picture(
        "How long it takes until all models are loaded",
        ("real", "synthetic", "cold"),
        "times the ideal",
        loops=("asyncio", WITHOUT_A_LOOP),
        use_ratio=True,
    ),
    "growth": Picture(
        "What one more model costs",
        ("growth",),
        "µs per model",
        loops=(WITHOUT_A_LOOP,),
        log=True,
    ),
}


def rewrite(results: Results) -> None:
    """Write the page and the charts."""
    CHARTS.mkdir(exist_ok=True)
    for path, text in rendered(results, PAGE.read_text(encoding="utf-8")).items():
        path.write_text(text, encoding="utf-8")


def rendered(results: Results, page: str) -> dict[Path, str]:
    """Return what the page and the charts say of these results, by file."""
    files = {
        CHARTS / f"{name}.svg": drawn(picture, groups)
        for name, picture in PICTURES.items()
        if (groups := list(groups_of(picture, results)))
    }
    topics = {
        topic: "".join(tables(topic, results))
        for found in results.found.values()
        for topic in by_topic(found.comparisons)
    }
    parts = {"run": run(results), "targets": targets(results), **topics}

    def part(match: re.Match[str]) -> str:
        text = parts.get(match["name"], "Not measured in this run.\n")
        return f"{match['begin']}\n{text.strip()}\n\n{match['end']}"

    files[PAGE] = PART.sub(part, page)
    return files


def drawn(picture: Picture, groups: list[Group]) -> str:
    return chart(picture.title, groups, picture.unit, use_ratio=picture.use_ratio, log=picture.log)


def groups_of(picture: Picture, results: Results) -> Iterator[Group]:
    for topic in picture.topics:
        for loop in picture.loops:
            found = results.found.get(loop)
            comparisons = by_topic(found.comparisons).get(topic, []) if found else []
            for each in comparisons:
                if not picture.cases or each.case in picture.cases:
                    where = "" if loop == WITHOUT_A_LOOP else f", {loop}"
                    yield Group(f"{each.case}{where}", each.floor, each.cells)


def run(results: Results) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in results.versions.items())
    return f"Measured on {results.date} with {results.where}: {versions}.\n"


def targets(results: Results) -> str:
    """Return the table of all figures, a column for each loop, and one for what has none."""
    loops = [loop for loop, found in results.found.items() if found.rows]
    columns = {loop: {row.figure: row for row in results.on(loop).rows} for loop in loops}
    figures = dict.fromkeys(figure for column in columns.values() for figure in column)
    numbered = sorted(figures, key=_target_number)
    lines = [
        f"| figure | at most | {' | '.join(loops)} |",
        f"|---|---|{'---|' * len(loops)}",
    ]
    for figure in numbered:
        rows = [columns[loop].get(figure) for loop in loops]
        known = next(row for row in rows if row is not None)
        target = "" if known.target is None else f"{known.target:g}{_unit(known.unit)}"
        lines.append(f"| {figure} | {target} | {' | '.join(map(_figure, rows))} |")
    return "\n".join(lines) + "\n"


def _target_number(figure: str) -> int:
    found = re.match(r"P(\d+) ", figure)
    return int(found[1]) if found else 1000


def _figure(row: Row | None) -> str:
    if row is None:
        return ""
    if row.value is None:
        return row.absolute
    value = number(row.value) + _unit(row.unit)
    spread = "" if row.rounds is None else f" ({_range(row.rounds.low, row.rounds.high)})"
    return f"**{value}, missed**{spread}" if row.missed else f"{value}{spread}"


def tables(topic: str, results: Results) -> Iterator[str]:
    """Yield a topic's table for each loop."""
    for loop, found in results.found.items():
        comparisons = by_topic(found.comparisons).get(topic, [])
        if comparisons:
            if loop != WITHOUT_A_LOOP:
                yield f"\n**{loop}**\n"
            yield "\n" + table(comparisons)


def table(comparisons: list[Comparison]) -> str:
    first = comparisons[0]
    unit = UNITS.get(first.unit, first.unit)
    cases = [f"{each.case}, {unit}" for each in comparisons]
    lines = [f"| | {' | '.join(cases)} |", f"|---|{'---|' * len(cases)}"]
    for way, cells in by_way(comparisons):
        lines.append(f"| {way} | {' | '.join(map(_shown, cells))} |")
    return "\n".join(lines) + "\n"


def _shown(cell: Cell | None) -> str:
    if cell is None:
        return ""
    if cell.value is None:
        return f"*{cell.instead}*"
    value = number(cell.value.median)
    if cell.ratio is None:
        return value
    ratio = cell.ratio
    spread = "" if ratio.low == ratio.high else f" ({_range(ratio.low, ratio.high)})"
    return f"{value}; {number(ratio.median)}x{spread}"


def _range(low: float, high: float) -> str:
    return f"{number(low)} to {number(high)}"


def _unit(unit: str) -> str:
    return f" {UNITS.get(unit, unit)}" if unit else ""


def names_of_parts(page: str) -> Iterable[str]:
    """Return the names of the generated parts of a page."""
    return [match["name"] for match in PART.finditer(page)]
