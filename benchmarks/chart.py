"""Charts of ways side by side, as SVG that is legible on light and on dark pages."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from html import escape
from math import ceil, floor, log10

from benchmarks.results import Cell, Spread, number

WIDTH = 760
LABELS = 250
RIGHT = 110
LINE = 22
HEAD = 30
TOP = 46
BOTTOM = 30
BAR = 12
CHARACTER = 6.6

STYLE = """\
text { font: 13px system-ui, -apple-system, "Segoe UI", sans-serif; fill: #1f2328; }
.title { font-size: 15px; font-weight: 600; }
.group { font-weight: 600; }
.quiet { fill: #59636e; }
.grid { stroke: #d1d9e0; }
.ours { fill: #4051b5; } .other { fill: #9aa4b0; } .floor { fill: #c9d1d9; }
.spread { stroke: #1f2328; stroke-width: 1.5; }
@media (prefers-color-scheme: dark) {
text { fill: #e6edf3; }
.quiet { fill: #9198a1; }
.grid { stroke: #3d444d; }
.ours { fill: #8c9eff; } .other { fill: #6e7781; } .floor { fill: #454c55; }
.spread { stroke: #e6edf3; }
}"""


@dataclass(frozen=True)
class Group:
    """Bars under one heading.

    Args:
        title: the heading.
        floor: the way that the others are measured in.
        cells: a bar each.
    """

    title: str
    floor: str
    cells: Sequence[Cell]


class Scale:
    """Turns a value into a place: from zero, or by its logarithm where values lie far apart."""

    def __init__(self, values: Iterable[float], *, log: bool) -> None:
        values = list(values)
        self.log = log
        if log:
            self.ticks = _decades(min(values), max(values))
        else:
            self.ticks = _steps(max(values))
        self.low, self.high = self.ticks[0], self.ticks[-1]

    def __call__(self, value: float) -> float:
        if self.log:
            share = log10(max(value, self.low) / self.low) / log10(self.high / self.low)
        else:
            share = value / self.high
        return LABELS + share * (WIDTH - LABELS - RIGHT)


def _decades(low: float, high: float) -> list[float]:
    first, last = floor(log10(low)), ceil(log10(high))
    return [10.0**power for power in range(first, max(last, first + 1) + 1)]


def _steps(high: float) -> list[float]:
    step = 10.0 ** floor(log10(high))
    for factor in (5, 2, 1, 0.5, 0.2):
        if high / (step * factor) >= 3:
            step *= factor
            break
    return [step * place for place in range(ceil(high / step) + 1)]


def chart(
    title: str, groups: Sequence[Group], unit: str, *, use_ratio: bool = False, log: bool = False
) -> str:
    """Return the SVG: a bar for each way, a line over the middle half of its rounds.

    Args:
        unit: what stands at the axis.
        use_ratio: whether the bars show the ratios to the floor, not the values.
        log: whether the axis is logarithmic; then there are dots in place of bars.
    """
    spreads = [
        spread for group in groups for cell in group.cells if (spread := of(cell, use_ratio))
    ]
    scale = Scale([part for one in spreads for part in (one.median, one.high)], log=log)
    body: list[str] = []
    y = TOP
    for group in groups:
        body.append(f'<text class="group" x="0" y="{y + 18}">{escape(group.title)}</text>')
        y += HEAD
        for cell in group.cells:
            body.extend(_line(cell, of(cell, use_ratio), kind(cell, group), scale, y))
            y += LINE
        y += 8
    return "\n".join([*_frame(title, unit, scale, y), *body, "</svg>", ""])


def of(cell: Cell, use_ratio: bool) -> Spread | None:
    return cell.ratio if use_ratio else cell.value


def kind(cell: Cell, group: Group) -> str:
    if "anyload" in cell.way or cell.way.startswith("init"):
        return "ours"
    return "floor" if cell.way == group.floor else "other"


def _frame(title: str, unit: str, scale: Scale, bottom: float) -> Iterator[str]:
    height = bottom + BOTTOM
    yield (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:g}" role="img" '
        f'width="{WIDTH}" height="{height:g}">'
    )
    yield f"<title>{escape(title)}</title>"
    yield f"<style>\n{STYLE}\n</style>"
    yield f'<text class="title" x="0" y="18">{escape(title)}</text>'
    for tick in scale.ticks:
        x = scale(tick)
        yield f'<line class="grid" x1="{x:.1f}" y1="{TOP}" x2="{x:.1f}" y2="{bottom:g}"/>'
        yield (
            f'<text class="quiet" text-anchor="middle" x="{x:.1f}" y="{bottom + 16:g}">'
            f"{tick:,.10g}</text>"
        )
    yield (
        f'<text class="quiet" text-anchor="end" x="{WIDTH}" y="{bottom + 16:g}">'
        f"{escape(unit)}</text>"
    )


def _line(cell: Cell, spread: Spread | None, css: str, scale: Scale, y: float) -> Iterator[str]:
    middle = y + LINE / 2
    yield (
        f'<text text-anchor="end" x="{LABELS - 10}" y="{middle + 4:g}">{escape(cell.way)}</text>'
    )
    if spread is None:
        text = escape(cell.instead)
        yield f'<text class="quiet" x="{LABELS + 6}" y="{middle + 4:g}">{text}</text>'
        return
    x, low, high = scale(spread.median), scale(spread.low), scale(spread.high)
    if scale.log:
        yield f'<circle class="{css}" cx="{x:.1f}" cy="{middle:g}" r="{BAR / 2:g}"/>'
    else:
        top = middle - BAR / 2
        yield (
            f'<rect class="{css}" x="{LABELS}" y="{top:g}" width="{x - LABELS:.1f}" '
            f'height="{BAR}" rx="2"/>'
        )
    if high - low > 1:
        yield (
            f'<line class="spread" x1="{low:.1f}" y1="{middle:g}" x2="{high:.1f}" y2="{middle:g}"/>'
        )
    end = max(x + BAR / 2, high) + 6
    yield f'<text x="{end:.1f}" y="{middle + 4:g}">{number(spread.median)}</text>'
