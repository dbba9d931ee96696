"""Loading from inside a load: on the thread at hand, or by waiting for the one that is at it."""

from __future__ import annotations

import threading
from collections.abc import Hashable
from typing import Any

from ..errors import LoadCancelled
from .callers import Callers
from .core import Core
from .flight import Flight, Turn
from .nested import claim
from .tasks import LoadTask
from .waiters import ThreadSeat


class Inside:
    """The loads of one initializer that are asked for inside a load, its own or another's.

    Args:
        core: the core of the initializer.
        callers: its callers.
    """

    def __init__(self, core: Core, callers: Callers) -> None:
        self._core = core
        self._callers = callers

    def load(
        self,
        parent: Turn,
        key: Hashable | None,
        begun: Flight,
        timeout: float | None,
        priority: int,
    ) -> ThreadSeat:
        """Load for code that is inside a load: on this thread if possible, else by waiting.

        Args:
            parent: the turn of the load that this thread is in.
            key: the key; None for a flight that is not shared.
            begun: the flight to begin if the key has none.
            timeout: how long to wait, in seconds; None means as long as it takes.
            priority: higher goes first.

        Returns:
            A seat in a settled flight, its result not taken yet.

        Raises:
            ReentrantLoadError: the load would wait for itself.
            LoadCancelled: the load that this one is inside of is no longer wanted.
            TimeoutError: ``timeout`` seconds have passed.
            ClosedError: the initializer is closed.
        """
        core = self._core
        until = None if timeout is None else core.clock() + timeout
        seat = self.sit(parent, key, begun, priority)
        try:
            while not self._load_inline(seat, parent):
                wait = None if until is None else until - core.clock()
                if wait is not None and wait <= 0:
                    raise TimeoutError(f"loading {seat.flight.model!r} took over {timeout} s")
                seat.wait(wait)
        except BaseException:
            self.rise(seat, parent)
            raise
        return seat

    def call(
        self,
        parent: Turn,
        key: Hashable | None,
        begun: Flight,
        timeout: float | None,
        priority: int,
    ) -> Any:
        """Load likewise, and return or raise what came of it."""
        return self._callers.take(self.load(parent, key, begun, timeout, priority))

    def _load_inline(self, seat: ThreadSeat, parent: Turn) -> bool:
        """Run the next attempt here, if that is possible; return whether the flight has ended."""
        ended, task = self.look(seat, parent)
        if task is not None:
            task.run()
            self.hand_in(task, seat)
        return ended

    # Its steps: each is one transition, and what is between them is up to the thread.

    def sit(self, parent: Turn, key: Hashable | None, begun: Flight, priority: int) -> ThreadSeat:
        """Take a seat in the flight of a key, for code inside a load; see `load`."""
        core, seat = self._core, self._callers.thread_seat()
        with core.transition() as todo, core.lock:
            self._callers.sit(key, begun, seat, priority, todo)
            core.process.nested_seats[seat] = None
            parent.nested_seats.append(seat)
        return seat

    def look(self, seat: ThreadSeat, parent: Turn) -> tuple[bool, LoadTask | None]:
        """Return whether the flight has ended, and if not, its next attempt, if it can run here.

        One that has ended has the seat wait no more, in this very step: in the next the load
        around it may be past its limit, and what waits in that leaves without its result.

        Raises:
            ReentrantLoadError: the load would wait for itself.
            LoadCancelled: the load that this one is inside of is no longer wanted.
        """
        core = self._core
        with core.transition(), core.lock:
            if parent.stuck or seat not in core.process.nested_seats or parent.cancelled:
                raise LoadCancelled(f"the load of {parent.flight.model!r} is no longer wanted")
            if seat.flight.phase == "settled":
                self._unseat(seat, parent)
                return True, None
            turn = claim(seat.flight, parent, core.flights, core.turns)
            if turn is None:
                return False, None
            core.turns.entered(turn, threading.get_ident())
            return False, LoadTask(turn, core.turns, core.limits.warmup)

    def hand_in(self, task: LoadTask, seat: ThreadSeat) -> None:
        """Take in the end of an attempt that has run here."""
        with self._core.transition() as todo, self._core.lock:
            task.finish(todo)
            todo.closers = True
        seat.wake()

    def rise(self, seat: ThreadSeat, parent: Turn) -> None:
        """Wait no more, and leave the flight, which may go on without this load."""
        with self._core.transition() as todo, self._core.lock:
            if self._unseat(seat, parent):
                self._core.flights.leave_nested(seat.flight, todo)

    def _unseat(self, seat: ThreadSeat, parent: Turn) -> bool:
        """Have a seat wait no more; return whether it did."""
        if seat in parent.nested_seats:
            parent.nested_seats.remove(seat)
        return self._core.process.nested_seats.pop(seat, False) is None
