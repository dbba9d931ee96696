"""How fast a bulk could be at best, and how many loads at once are recommended. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from ..reports import seconds
from .statistics import Figure

AS_GOOD = 0.03
"""What is slower by no more than this part is as fast, for whoever waits for it."""
MOST_NOISE = 0.1
"""What is slower by more than this part is slower, however noisy it was."""


@dataclass(frozen=True, slots=True)
class Ideal:
    """What no order and no number of slots can beat: the greatest of three.

    Args:
        longest: the longest model, load and warm-up, in seconds.
        cpu: the processor time of all, over the cores.
        disk: how long it takes to read all files, one after another; None where they are warm.
    """

    longest: float
    cpu: float
    disk: float | None = None

    @property
    def seconds(self) -> float:
        """The greatest of them."""
        return max(self.longest, self.cpu, self.disk or 0.0)

    @property
    def reason(self) -> str:
        """Which one that is."""
        named = {"longest model": self.longest, "processor": self.cpu, "disk": self.disk or 0.0}
        return max(named, key=lambda name: named[name])


@dataclass(frozen=True, slots=True)
class Recommendation:
    """How many loads at once.

    Args:
        at_once: that many.
        reason: a sentence or two for a person.
    """

    at_once: int
    reason: str


def recommended(
    makespans: Mapping[str, Mapping[int, Figure]],
    configured: int,
    steady: Mapping[str, Mapping[int, Figure]] | None = None,
    *,
    complete: bool = True,
) -> Recommendation:
    """Return how many loads at once are best: the fewest that none is faster than.

    Fewer at once need less memory and leave more of the machine to what it serves. A number is as
    good as the fastest if its median is no further from that than the noise, 3 % at least.

    Args:
        makespans: for cold and for warm files, how long all took with each number of slots.
        configured: how many it is now.
        steady: the same, as if the machine had always been equally fast; it is what decides.
        complete: whether all models load.
    """
    tried = [by_slots for by_slots in (steady or makespans).values() if by_slots]
    slots = sorted(set.intersection(*(set(by_slots) for by_slots in tried))) if tried else []
    if not slots:
        return Recommendation(configured, "There was no time to try another number of slots.")
    behind = {number: [_behind(by_slots, number) for by_slots in tried] for number in slots}
    good = [number for number in slots if all(over <= 0 for over in behind[number])]
    best = good[0] if good else min(slots, key=lambda number: max(behind[number]))
    what = "All models load" if complete else "All loads end"
    reasons = _reasons(makespans, best, configured, agreed=bool(good))
    return Recommendation(best, f"{what} in {' '.join(reasons)}")


def _reasons(
    makespans: Mapping[str, Mapping[int, Figure]], best: int, configured: int, *, agreed: bool
) -> Iterator[str]:
    tried = {cache: by_slots for cache, by_slots in makespans.items() if by_slots}
    told = [f"{seconds(by_slots[best].median)} ({cache})" for cache, by_slots in tried.items()]
    yield f"{' and '.join(told)}."
    if configured != best and all(configured in by_slots for by_slots in tried.values()):
        now = [f"{seconds(one[configured].median)} ({cache})" for cache, one in tried.items()]
        yield f"With {configured}, as configured, it is {' and '.join(now)}."
    if not agreed:
        yield "Cold and warm files want different numbers; this one is behind the least."
    elif any(len(by_slots) > 1 for by_slots in tried.values()):
        yield "No other number that was tried is faster by more than the noise."


def steadied(turns: Sequence[Mapping[int, float]]) -> dict[int, Figure]:
    """Return makespans as if the machine had been equally fast in all turns.

    Each turn tries every number of slots, one soon after the other, so a busy neighbour slows
    them alike: each is taken in units of its turn's median, and that of all turns is given back.

    Args:
        turns: of each turn, how long all took with each number of slots.
    """
    everywhere = set.intersection(*(set(turn) for turn in turns)) if turns else set[int]()
    paces = [median(turn[slots] for slots in everywhere) for turn in turns] if everywhere else []
    return {
        slots: Figure(
            tuple(
                turn[slots] / pace * median(paces) for turn, pace in zip(turns, paces, strict=True)
            )
        )
        for slots in sorted(everywhere)
    }


def _behind(by_slots: Mapping[int, Figure], slots: int) -> float:
    """Return by what part a number of slots is slower than the fastest, beyond the noise."""
    fastest = min(by_slots.values(), key=lambda figure: figure.median)
    noise = min(max(AS_GOOD, fastest.noise), MOST_NOISE)
    middle = fastest.median
    return (by_slots[slots].median / middle - 1 if middle else 0.0) - noise
