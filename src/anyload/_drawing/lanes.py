"""Which lane of a timeline each span is drawn in. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from heapq import heappop, heappush
from itertools import groupby
from typing import NamedTuple

from ..timeline import Span, Timeline


class Lane(NamedTuple):
    """A row of the picture, in which nothing overlaps but loads inside others."""

    name: str
    spans: tuple[Span, ...]


def lanes_of(timeline: Timeline) -> list[Lane]:
    """Return the lanes from top to bottom: imports, a lane for each slot, abandoned threads.

    The events do not number the slots. A load is in the first lane that is free, so there are as
    many lanes as loads ran at once.
    """
    in_threads = timeline.of("load", "warm-up", "failed", "overdue", "abandoned")
    # What belongs to one stay of a thread stays together.
    in_threads.sort(key=lambda span: (span.run or 0, span.start, span.depth))
    on_slots, off_slots = [], []
    for _, run in groupby(in_threads, key=lambda span: span.run):
        stays = list(_stays(run))
        on_slots.append([one for stay in stays if stay[0].kind != "abandoned" for one in stay])
        off_slots += [stay for stay in stays if stay[0].kind == "abandoned"]
    return [
        *_named("imports", _packed([span] for span in timeline.of("prepare"))),
        *_named("slot", _packed(filter(None, on_slots)), numbered=True),
        *_named("abandoned", _packed(off_slots)),
    ]


def _stays(run: Iterable[Span]) -> Iterator[list[Span]]:
    """Yield each span of a thread that is in no other, with those inside of it.

    One that goes on when the one around it is over is cut there: a load inside another may be
    the longer one, where a limit has cut the other short.
    """
    stay: list[Span] = []
    around: list[Span] = []
    for span in run:
        while around and (around[-1].end <= span.start or around[-1].depth >= span.depth):
            around.pop()
        if around:
            around.append(replace(span, end=min(span.end, around[-1].end)))
        else:
            if stay:
                yield stay
            stay, around = [], [span]
        stay.append(around[-1])
    yield stay


def _named(
    name: str, rows: Sequence[tuple[Span, ...]], *, numbered: bool = False
) -> Iterator[Lane]:
    for number, row in enumerate(rows, 1):
        yield Lane(f"{name} {number}" if numbered or len(rows) > 1 else name, row)


def _packed(groups: Iterable[Sequence[Span]]) -> list[tuple[Span, ...]]:
    """Return rows of groups that do not overlap, each in the first row that is free."""
    rows: list[list[Span]] = []
    free: list[int] = []
    busy: list[tuple[float, int]] = []
    for group in sorted(groups, key=lambda group: min(span.start for span in group)):
        start = min(span.start for span in group)
        while busy and busy[0][0] <= start:
            heappush(free, heappop(busy)[1])
        if free:
            row = heappop(free)
        else:
            row = len(rows)
            rows.append([])
        rows[row] += group
        heappush(busy, (max(span.end for span in group), row))
    return [tuple(row) for row in rows]


def depth_of_queue(spans: Iterable[Span]) -> list[tuple[float, int]]:
    """Return how many of some spans go on, as steps: from when on, and how many."""
    changes: dict[float, int] = {}
    for span in spans:
        changes[span.start] = changes.get(span.start, 0) + 1
        changes[span.end] = changes.get(span.end, 0) - 1
    steps, number = [], 0
    for at, change in sorted(changes.items()):
        if change:
            number += change
            steps.append((at, number))
    return steps
