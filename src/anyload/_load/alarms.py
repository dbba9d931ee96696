"""Deadlines in one heap: set, cancel, and hand out those that are due."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from itertools import count
from typing import Any


class Alarm:
    """One deadline; ``ring`` is called with ``subject`` once it has passed."""

    __slots__ = ("at", "ring", "subject")

    def __init__(self, at: float, ring: Callable[..., None], subject: Any) -> None:
        self.at = at
        self.ring: Callable[..., None] | None = ring
        self.subject = subject


class Alarms:
    """The deadlines of one initializer.

    A cancelled alarm stays in the heap, emptied, until its time comes or until most of the heap
    is such entries; so setting and cancelling cost little, and memory stays in proportion.
    """

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Alarm]] = []
        self._order = count()
        self._cancelled = 0
        self.soonest: float | None = None
        """No alarm rings before this. It may be too early, and can be read without the lock."""

    @property
    def next_at(self) -> float | None:
        """When the next alarm rings, on the monotonic clock."""
        self._drop_cancelled()
        self.soonest = self._heap[0][0] if self._heap else None
        return self.soonest

    def set(self, at: float, ring: Callable[..., None], subject: Any) -> Alarm:
        """Set an alarm."""
        alarm = Alarm(at, ring, subject)
        heapq.heappush(self._heap, (at, next(self._order), alarm))
        if self.soonest is None or at < self.soonest:
            self.soonest = at
        return alarm

    def cancel(self, alarm: Alarm | None) -> None:
        """Cancel an alarm; one that has rung or was cancelled is left alone."""
        if alarm is None or alarm.ring is None:
            return
        alarm.ring = alarm.subject = None
        self._cancelled += 1
        if self._cancelled > 64 and self._cancelled * 2 > len(self._heap):
            self._heap = [entry for entry in self._heap if entry[2].ring is not None]
            heapq.heapify(self._heap)
            self._cancelled = 0

    def due(self, now: float) -> tuple[Callable[..., None], Any] | None:
        """Take one alarm whose time has come, as what to call and with what."""
        self._drop_cancelled()
        if not self._heap or self._heap[0][0] > now:
            return None
        alarm = heapq.heappop(self._heap)[2]
        ring, subject = alarm.ring, alarm.subject
        alarm.ring = alarm.subject = None
        assert ring is not None
        return ring, subject

    def _drop_cancelled(self) -> None:
        while self._heap and self._heap[0][2].ring is None:
            heapq.heappop(self._heap)
            self._cancelled -= 1
