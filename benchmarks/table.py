"""What was found, as a terminal shows it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from benchmarks.results import Cell, Comparison, Found, Row, number


def show(title: str, found: Found) -> None:
    print(f"\n{title}")
    if found.rows:
        show_rows(found.rows)
    for topic, comparisons in by_topic(found.comparisons).items():
        show_comparisons(topic, comparisons)


def show_rows(rows: Iterable[Row]) -> None:
    print(f"  {'figure':<52} {'target':>9} {'measured':<9}  middle half    absolute")
    for row in rows:
        target = "" if row.target is None else f"<= {row.target:g}{row.unit}"
        value = "-" if row.value is None else number(row.value)
        rounds = "" if row.rounds is None else f"{number(row.rounds.low)} to "
        rounds += "" if row.rounds is None else number(row.rounds.high)
        mark = "MISSED  " if row.missed else ""
        figures = f"{target:>9} {value:>7}{row.unit:<2}  {rounds:<14}"
        print(f"  {row.figure:<52} {figures} {mark}{row.absolute}", flush=True)


def show_comparisons(topic: str, comparisons: list[Comparison]) -> None:
    """Print a table of a topic: a line for each way, a column for each case."""
    first = comparisons[0]
    unit = f", {first.unit}" if first.unit else ""
    measured_in = f", and in {first.floor}" if first.floor else ""
    print(f"\n  {topic}{unit}{measured_in}")
    print(f"    {'':<56}" + "".join(f"{each.case:<28}" for each in comparisons))
    for way, cells in by_way(comparisons):
        print(f"    {way:<56}" + "".join(f"{shown(cell):<28}" for cell in cells), flush=True)


def by_topic(comparisons: Iterable[Comparison]) -> dict[str, list[Comparison]]:
    topics: dict[str, list[Comparison]] = {}
    for comparison in comparisons:
        topics.setdefault(comparison.topic, []).append(comparison)
    return topics


def by_way(comparisons: list[Comparison]) -> Iterator[tuple[str, list[Cell | None]]]:
    """Yield each way with its cell in each comparison."""
    columns = [{cell.way: cell for cell in each.cells} for each in comparisons]
    for way in dict.fromkeys(way for column in columns for way in column):
        yield way, [column.get(way) for column in columns]


def shown(cell: Cell | None) -> str:
    if cell is None:
        return ""
    if cell.value is None:
        return cell.instead
    if cell.ratio is None:
        return number(cell.value.median)
    ratio = cell.ratio
    spread = f" ({number(ratio.low)} to {number(ratio.high)})" if ratio.low != ratio.high else ""
    return f"{number(cell.value.median)}  {number(ratio.median)}{spread}"
