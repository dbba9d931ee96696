"""Which backends are left out of the loads of one model, because they failed it at run time."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from ..reports import seconds
from .cool_down import CoolDown


class Failing:
    """One backend that has failed at run time: why, and until when it is left out."""

    __slots__ = ("cool_down", "until", "why")

    def __init__(self, cool_down: CoolDown, until: float, why: str) -> None:
        self.cool_down = cool_down
        self.until = until
        self.why = why


class LeftOut:
    """The backends that one model does without for a while, by their place in the priority.

    A backend that loads a model well and then fails it again and again is left out for longer each
    time: that it has loaded says nothing. The row is over once it has not failed for ``most``.

    Args:
        first: how long one is left out after its first failure, in seconds.
        most: how long any is at most.
        jitter: returns a number between 0 and 1, another each time.
    """

    __slots__ = ("_failing", "_first", "_jitter", "_most")

    def __init__(self, first: float, most: float, jitter: Callable[[], float]) -> None:
        self._first = first
        self._most = most
        self._jitter = jitter
        self._failing: dict[int, Failing] = {}

    def leave_out(self, place: int, why: str, now: float) -> None:
        """Take note that a backend has failed."""
        known = self._failing.get(place)
        if known is None or now > known.until + self._most:
            cool_down = CoolDown(self._first, self._most, self._jitter)
        else:
            cool_down = known.cool_down
        self._failing[place] = Failing(cool_down, cool_down.begin(now), why)

    def at(self, now: float) -> Mapping[int, str]:
        """Return the places that are left out now, and why."""
        return {
            place: f"{one.why}; left out for {seconds(one.until - now)}"
            for place, one in self._failing.items()
            if one.until > now
        }

    def back_at(self, now: float) -> float | None:
        """Return when the first of them is back; None if none is left out."""
        return min((one.until for one in self._failing.values() if one.until > now), default=None)

    def forget(self) -> None:
        """Leave none out any more."""
        self._failing.clear()
