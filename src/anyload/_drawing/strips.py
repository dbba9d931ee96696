"""Samples as dots on one line each, with their medians: the picture of how they spread. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

from .words import duration, marks, safe


class Dots(NamedTuple):
    """Samples of one kind.

    Args:
        kind: the colour, as a class of the page's style.
        said: what they are, for the legend.
        samples: in seconds.
        median: where their mark is.
    """

    kind: str
    said: str
    samples: Sequence[float]
    median: float


class Strip(NamedTuple):
    """One line of dots.

    Args:
        name: what is left of it.
        dots: what is on it.
        ideals: what it could be at best, in seconds, for some of the kinds.
        chosen: whether it is the one that is recommended.
    """

    name: str
    dots: Sequence[Dots]
    ideals: Mapping[str, float] = MappingProxyType({})
    chosen: bool = False


def strips_figure(strips: Sequence[Strip], caption: str) -> str:
    """Return the chart of some strips, on one axis from 0 on."""
    ends = [max(dots.samples) for strip in strips for dots in strip.dots]
    ends += [at for strip in strips for at in strip.ideals.values()]
    end = 1.04 * max(ends, default=0.0)
    if end <= 0:
        return ""
    rows = "".join(_strip(strip, end) for strip in strips)
    grid = "".join(
        f'<i style="left:{_place(mark, end)}%"><b>{safe(duration(mark))}</b></i>'
        for mark in marks(end)
    )
    said = {dots.kind: dots.said for strip in strips for dots in strip.dots}
    if any(strip.ideals for strip in strips):
        said["ideal"] = "ideal"
    items = "".join(f'<li><i class="{kind}"></i>{safe(text)}</li>' for kind, text in said.items())
    return (
        f'<figure class="strip"><figcaption>{safe(caption)}</figcaption><div class="scroll">'
        f'<div class="chart" role="img" aria-label="{safe(caption)}"><div class="grid"><div>'
        f'{grid}</div></div>{rows}</div></div><ul class="legend" aria-label="colours">{items}'
        "</ul></figure>"
    )


def _strip(strip: Strip, end: float) -> str:
    ideals = "".join(
        f'<s class="ideal {kind}" style="left:{_place(at, end)}%" title="ideal:'
        f' {safe(duration(at))}"></s>'
        for kind, at in strip.ideals.items()
    )
    dots = "".join(_dots(dots, end) for dots in strip.dots)
    chosen = " chosen" if strip.chosen else ""
    return (
        f'<div class="lane{chosen}"><span class="name" title="{safe(strip.name)}">'
        f'{safe(strip.name)}</span><div class="track">{ideals}{dots}</div></div>'
    )


def _dots(dots: Dots, end: float) -> str:
    single = "".join(
        f'<u class="{dots.kind}" style="left:{_place(sample, end)}%"></u>'
        for sample in dots.samples
    )
    told = f"{dots.said}: median {duration(dots.median)} of {len(dots.samples)}"
    return (
        f'{single}<s class="{dots.kind}" style="left:{_place(dots.median, end)}%"'
        f' title="{safe(told)}"></s>'
    )


def _place(value: float, end: float) -> float:
    return round(100 * value / end, 3)
