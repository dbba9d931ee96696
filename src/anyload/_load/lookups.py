"""Which models are looked up next, and how many at once: one may hang, as a dead disk does."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from .alarms import Alarms
from .flight import Flight
from .process import Process
from .todo import Todo

SLOW_SECONDS = 0.05
MOST_READERS = 8
MOST_STUCK = 64


class Lookups:
    """The look-ups of one initializer.

    One reader is fastest; another is let in only while the ones at work do not come back. Once
    nobody waits for a look-up, its thread is left to itself and is no reader any more. The next one
    of the same path begins when it is back, so that a model whose look-up hangs takes one thread,
    however often, and by whomever, it is asked for.

    Args:
        process: whose lock is held.
        alarms: the deadlines.
        clock: the monotonic clock.
    """

    def __init__(self, process: Process, alarms: Alarms, clock: Callable[[], float]) -> None:
        self._process = process
        self._alarms = alarms
        self._clock = clock
        self._most = 1
        self.watched = False
        self.queued: deque[Flight] = deque()
        self.running: dict[Flight, None] = {}

    @property
    def readers(self) -> list[Flight]:
        """The look-ups in a thread that somebody waits for."""
        return [flight for flight in self.running if flight.phase != "settled"]

    @property
    def stuck(self) -> int:
        """How many threads are in a look-up that nobody waits for; asked without the lock, too."""
        return sum(flight.phase == "settled" for flight in list(self.running))

    def add(self, flight: Flight, todo: Todo) -> None:
        """Have a model looked up."""
        assert self._process.lock.mine()
        self.queued.append(flight)
        todo.worker = True

    def left(self, flight: Flight, todo: Todo) -> None:
        """Nobody waits for a look-up any more: where it runs, another may."""
        assert self._process.lock.mine()
        if flight in self.running and self.queued:
            todo.worker = True

    def take(self, todo: Todo) -> Flight | None:
        """Return a model to be looked up by this thread, None if there is nothing to do for it."""
        assert self._process.lock.mine()
        flight = self._first(todo)
        if flight is None:
            self._most = 1
            return None
        readers = self.readers
        if len(readers) >= self._most:
            if not self.watched and self._most < MOST_READERS:
                self._watch(readers)
            return None
        if self.stuck >= MOST_STUCK:
            return None
        self.queued.remove(flight)
        if not self.queued:
            self._most = 1
        self.running[flight] = None
        return flight

    def ended(self, flight: Flight) -> None:
        """A thread is back from a look-up."""
        assert self._process.lock.mine()
        self.running.pop(flight, None)

    def _first(self, todo: Todo) -> Flight | None:
        while self.queued and self.queued[0].phase == "settled":
            todo.dropped.append(self.queued.popleft())
        taken = {flight.reads for flight in self.running if flight.phase == "settled"} - {None}
        if not taken:
            return self.queued[0] if self.queued else None
        # The first may stay there for long, and those behind it that have ended are not to.
        todo.dropped += self.queued
        self.queued = deque(flight for flight in self.queued if flight.phase != "settled")
        return next((flight for flight in self.queued if flight.reads not in taken), None)

    def _watch(self, readers: list[Flight]) -> None:
        self.watched = True
        self._alarms.set(self._clock() + SLOW_SECONDS, self._looked_at, frozenset(readers))

    def _looked_at(self, before: frozenset[Flight], todo: Todo) -> None:
        self.watched = False
        readers = self.readers
        if self._first(todo) is None:
            return  # whoever comes back takes what is left
        if readers and before.isdisjoint(readers):
            # Those have come back, but one of the others may not.
            self._watch(readers)
        else:
            self._most = min(len(readers) + 1, MOST_READERS)
            todo.worker = True
