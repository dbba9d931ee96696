"""Waking those who wait: tasks on any event loop, many at a time, and plain threads."""

from __future__ import annotations

import weakref
from collections import deque
from collections.abc import Callable
from typing import Any, TypeVar

import anyio
from anyio.lowlevel import RunVar, current_token

from .flight import Flight
from .flights import Flights
from .parking import Parked

F = TypeVar("F", bound=Callable[..., Any])

PER_EVENT = 64
"""How many callers share one event, and are woken in one tick of their loop. Setting one event
for 10,000 tasks stalls a loop for 55 ms; in portions of 64 the longest gap is about 1 ms."""


class Bell:
    """Wakes the waiters of one event loop, from any thread and without ever blocking.

    Args:
        loop: an asyncio event loop or a trio token. It is held weakly: the bell lives as long as
            the loop does, and must not be what keeps it alive.
    """

    __slots__ = ("_armed", "_asyncio", "_due", "_loop", "new_event", "protected")

    def __init__(self, loop: Any) -> None:
        self._loop = weakref.ref(loop)
        self._asyncio = hasattr(loop, "call_soon_threadsafe")
        self._due: deque[Cohort] = deque()
        self._armed = False
        # anyio looks up which loop is running for each new event, which takes longer than to make
        # one. The class that it chooses is the same for all of one loop, and takes no arguments.
        self.new_event = type(anyio.Event())
        self.protected = _as_it_is if self._asyncio else _trio_protection()

    @property
    def ended(self) -> bool:
        """Whether its loop is known to have ended; that of a trio run is known when it is gone."""
        loop = self._loop()
        return loop is None or (self._asyncio and loop.is_closed())

    def ring(self, cohort: Cohort) -> bool:
        """Have a cohort woken; return False if its loop has ended."""
        self._due.append(cohort)
        loop = self._loop()
        try:
            if loop is None:
                raise RuntimeError("the loop is gone")
            if not self._asyncio:
                loop.run_sync_soon(self._wake_some, idempotent=True)
            elif not self._armed:
                # No lock: what is appended before the loop's thread clears the flag is in its
                # next round, and what is appended after that finds the flag cleared and calls
                # again. A call too many finds nothing to do.
                self._armed = True
                loop.call_soon_threadsafe(self._wake_some)
            elif self.ended:
                raise RuntimeError("the loop was closed before it woke anybody")
        except RuntimeError:  # asyncio: "loop is closed"; trio: RunFinishedError
            self._armed = False
            self._lose_others(cohort)
            return False
        return True

    def _lose_others(self, cohort: Cohort) -> None:
        """Tell of those who were to be woken before, and whom nobody will wake any more."""
        while self._due:
            other = self._due.popleft()
            if other is not cohort:
                other.lose()

    def _wake_some(self) -> None:
        """Set the events of as many callers as one tick should wake, and come back for the rest."""
        self._armed = False
        woken = 0
        while self._due and woken < PER_EVENT:
            cohort = self._due.popleft()
            woken += cohort.count
            cohort.event.set()
        loop = self._loop()
        if self._due and not self._armed and loop is not None:
            if self._asyncio:
                self._armed = True
                loop.call_soon(self._wake_some)
            else:
                loop.run_sync_soon(self._wake_some, idempotent=True)


def _as_it_is(function: F) -> F:
    return function


def _trio_protection() -> Callable[[F], F]:
    """Return what protects a function from Ctrl-C: trio's main task hears it where it sleeps next.

    trio raises KeyboardInterrupt between any two steps of a task, those of its own `Event.wait`
    included. The event then has the task still, and trio breaks as it wakes one that does not
    wait. asyncio and uvloop cancel the main task instead. What callers give and is called in
    there, a hook say, is protected too: one that hangs on trio's thread is not interrupted.
    """
    import trio

    return trio.lowlevel.enable_ki_protection


_bell: RunVar[Bell] = RunVar("anyload.bell")


def current_bell() -> Bell:
    """Return the bell of the running event loop."""
    bell = _bell.get(None)
    if bell is None:
        bell = Bell(current_token().native_token)
        _bell.set(bell)
    return bell


class Cohort:
    """Up to 64 callers on one loop who wait for one flight, on one event.

    Args:
        flight: the flight.
        bell: the bell of their loop.
        loser: is told when their loop has ended without waking them.
    """

    __slots__ = ("_loser", "bell", "count", "event", "flight", "joined", "lost")

    def __init__(self, flight: Flight, bell: Bell, loser: Callable[[Cohort], None]) -> None:
        self._loser = loser
        self.flight = flight
        self.bell = bell
        self.event = bell.new_event()
        self.count = 0
        self.joined = 0
        self.lost = False

    def wake(self) -> bool:
        """Wake them all; return False if their loop has ended."""
        return self.bell.ring(self)

    def lose(self) -> None:
        """Their loop has ended without waking them."""
        self._loser(self)


class ThreadSeat:
    """One thread that waits for a flight; it gets its flight when it takes its seat.

    Args:
        flights: whose flight it is.
    """

    __slots__ = ("_parked", "count", "flight", "flights", "lost")

    flight: Flight

    def __init__(self, flights: Flights) -> None:
        self.flights = flights
        self.count = 1
        self.lost = False
        self._parked = Parked()

    @property
    def seated(self) -> bool:
        """Whether it has a flight."""
        return hasattr(self, "flight")

    def wake(self) -> bool:
        """Wake the thread."""
        self._parked.call()
        return True

    def wait(self, timeout: float | None) -> bool:
        """Wait to be woken; return False once ``timeout`` seconds have passed."""
        return self._parked.park(timeout)


class AsyncSeat(Cohort):
    """One task that can be woken again and again; it waits for no flight in particular."""

    __slots__ = ()

    def __init__(self, bell: Bell) -> None:
        self.bell = bell
        self.event = bell.new_event()
        self.count = 1
        self.lost = False

    def lose(self) -> None:
        """Nothing was kept for it."""

    async def wait(self) -> None:
        """Wait to be woken; one that was cancelled can be waited on again."""
        await self.bell.protected(AsyncSeat._wait)(self)

    async def _wait(self) -> None:
        await self.event.wait()
        self.event = self.bell.new_event()
