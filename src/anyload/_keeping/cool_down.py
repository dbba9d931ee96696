"""For how long something that failed is let be."""

from __future__ import annotations

from collections.abc import Callable

JITTER = 0.2
MOST_DOUBLINGS = 32


class CoolDown:
    """A time that doubles with each failure in a row.

    It is spread by some jitter, so that what failed together does not come back together.

    Args:
        first: how long it is after the first failure, in seconds.
        most: how long it is at most.
        jitter: returns a number between 0 and 1, another each time.
    """

    __slots__ = ("_first", "_in_a_row", "_jitter", "_most")

    def __init__(self, first: float, most: float, jitter: Callable[[], float]) -> None:
        self._first = first
        self._most = most
        self._jitter = jitter
        self._in_a_row = 0

    def begin(self, now: float) -> float:
        """Take note of a failure, and return until when it is not to be tried again."""
        seconds = min(self._most, self._first * 2.0 ** min(self._in_a_row, MOST_DOUBLINGS))
        self._in_a_row += 1
        return now + spread(seconds, self._jitter)

    def start_over(self) -> None:
        """The next failure is the first in a row."""
        self._in_a_row = 0


def spread(seconds: float, jitter: Callable[[], float]) -> float:
    """Return a time, less some of it by chance."""
    return seconds * (1 - JITTER * jitter())
