"""Waking those who wait: tasks on any event loop, many at a time, and plain threads."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Any

import anyio
from anyio.lowlevel import RunVar, current_token

from .flight import Flight
from .flights import Flights

PER_EVENT = 64
"""How many callers share one event, and are woken in one tick of their loop. Setting one event
for 10,000 tasks stalls a loop for 55 ms; in portions of 64 the longest gap is about 1 ms."""


class Bell:
    """Wakes the waiters of one event loop, from any thread and without ever blocking.

    Args:
        loop: an asyncio event loop or a trio token.
    """

    __slots__ = ("_armed", "_due", "_later", "_loop_later")

    def __init__(self, loop: Any) -> None:
        self._due: deque[Cohort] = deque()
        self._armed = False
        self._later: Callable[[Callable[[], None]], object]
        self._loop_later: Callable[[Callable[[], None]], object]
        if hasattr(loop, "call_soon_threadsafe"):
            self._later, self._loop_later = loop.call_soon_threadsafe, loop.call_soon
        else:
            self._later = self._loop_later = loop.run_sync_soon

    def ring(self, cohort: Cohort) -> bool:
        """Have a cohort woken; return False if its loop has ended."""
        self._due.append(cohort)
        # No lock: what is appended before the loop's thread clears the flag is in its next
        # round, and what is appended after that finds the flag cleared and calls again. A call
        # too many finds nothing to do.
        if self._armed:
            return True
        self._armed = True
        try:
            self._later(self._wake_some)
        except RuntimeError:  # asyncio: "loop is closed"; trio: RunFinishedError
            self._due.clear()
            return False
        return True

    def _wake_some(self) -> None:
        """Set the events of as many callers as one tick should wake, and come back for the rest."""
        self._armed = False
        woken = 0
        while self._due and woken < PER_EVENT:
            cohort = self._due.popleft()
            woken += cohort.count
            cohort.event.set()
        if self._due and not self._armed:
            self._armed = True
            self._loop_later(self._wake_some)


_bell: RunVar[Bell] = RunVar("anyload.bell")


def current_bell() -> Bell:
    """Return the bell of the running event loop."""
    bell = _bell.get(None)
    if bell is None:
        bell = Bell(current_token().native_token)
        _bell.set(bell)
    return bell


class Cohort:
    """Up to 64 callers on one loop who wait for one flight, on one event."""

    __slots__ = ("bell", "count", "event", "flight", "joined", "lost")

    def __init__(self, flight: Flight, bell: Bell) -> None:
        self.flight = flight
        self.bell = bell
        self.event = anyio.Event()
        self.count = 0
        self.joined = 0
        self.lost = False

    def wake(self) -> bool:
        """Wake them all; return False if their loop has ended."""
        return self.bell.ring(self)


class ThreadSeat:
    """One thread that waits for a flight; it gets its flight when it takes its seat.

    Args:
        flights: whose flight it is.
    """

    __slots__ = ("_woken", "count", "flight", "flights", "lost")

    flight: Flight

    def __init__(self, flights: Flights) -> None:
        self.flights = flights
        self.count = 1
        self.lost = False
        self._woken = threading.Event()

    def wake(self) -> bool:
        """Wake the thread."""
        self._woken.set()
        return True

    def wait(self, timeout: float | None) -> bool:
        """Wait to be woken; return False once ``timeout`` seconds have passed."""
        woken = self._woken.wait(timeout)
        self._woken.clear()
        return woken


class AsyncSeat(Cohort):
    """One task that can be woken again and again; it waits for no flight in particular."""

    __slots__ = ()

    def __init__(self, bell: Bell) -> None:
        self.bell = bell
        self.event = anyio.Event()
        self.count = 1
        self.lost = False

    async def wait(self) -> None:
        """Wait to be woken."""
        await self.event.wait()
        self.event = anyio.Event()
