"""Medians, how far samples are spread, and whether two sets of them differ. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import comb, erfc, sqrt
from statistics import median

MOST_EXACT = 400
"""Up to so many pairs of samples all ways to split them are counted; that takes 30 ms."""


@dataclass(frozen=True, slots=True)
class Figure:
    """One thing, measured several times.

    Args:
        samples: what it was, in the order in which it was measured.
    """

    samples: tuple[float, ...]

    @property
    def median(self) -> float:
        """The middle one."""
        return median(self.samples)

    @property
    def low(self) -> float:
        """The least of them."""
        return min(self.samples)

    @property
    def high(self) -> float:
        """The greatest of them."""
        return max(self.samples)

    @property
    def noise(self) -> float:
        """How far a sample is from the median, as a part of that: the median of it."""
        middle = self.median
        if middle == 0:
            return 0.0
        return median(abs(sample - middle) for sample in self.samples) / middle

    def document(self) -> dict[str, object]:
        """Return it for JSON."""
        return {
            "median": self.median,
            "low": self.low,
            "high": self.high,
            "samples": list(self.samples),
        }


def chance(one: Sequence[float], other: Sequence[float]) -> float:
    """Return how likely it is that samples of one thing fall as far apart as these by chance.

    It is the two-sided test of Mann and Whitney, ties included: it asks only how many of the
    samples of one are above those of the other, so that a single outlier does not sway it. It is
    exact, but for so many samples that the normal distribution is as good.

    Args:
        one: the samples of one.
        other: the samples of the other.
    """
    joined = sorted([*one, *other])
    # Twice the mean of the places that equal values share, to stay with whole numbers.
    ranks = {value: 2 * joined.index(value) + joined.count(value) + 1 for value in set(joined)}
    size, expected = len(one), len(one) * (len(joined) + 1)
    seen = abs(sum(ranks[value] for value in one) - expected)
    if size * len(other) > MOST_EXACT:
        return _chance_of_many(seen, size, len(other), Counter(joined).values())
    # How many ways there are to choose so many samples with such a sum of ranks.
    ways: list[Counter[int]] = [Counter({0: 1}), *(Counter() for _ in range(size))]
    for value in joined:
        for chosen in range(size, 0, -1):
            for total, number in ways[chosen - 1].items():
                ways[chosen][total + ranks[value]] += number
    extreme = sum(number for total, number in ways[size].items() if abs(total - expected) >= seen)
    return extreme / comb(len(joined), size)


def _chance_of_many(seen: float, one: int, other: int, ties: Iterable[int]) -> float:
    """Return the same by the normal distribution, which so many samples follow.

    Args:
        seen: how far the sum of ranks, which are doubled, is from what is to be expected.
        one: how many samples there are of one.
        other: how many of the other.
        ties: how many samples each value has.
    """
    number = one + other
    tied = sum(count**3 - count for count in ties) / (number * (number - 1))
    spread = sqrt(one * other * (number + 1 - tied) / 3)
    # Sums are whole numbers: half a step of them belongs to this one.
    return erfc(max(0.0, seen - 1) / spread / sqrt(2)) if spread else 1.0
