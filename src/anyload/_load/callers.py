"""The callers of one initializer: they take a seat in a flight, wait, leave, or take the result."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from functools import partial
from typing import Any

from .core import Core
from .flight import Flight
from .todo import Todo
from .waiters import PER_EVENT, Bell, Cohort, ThreadSeat, current_bell


class Callers:
    """What those who ask for a model can do.

    Args:
        core: the core of the initializer.
    """

    def __init__(self, core: Core) -> None:
        self._core = core

    async def call(self, key: Hashable | None, begin: Callable[[], Flight], priority: int) -> Any:
        """Wait for the flight of a key in a task, and return or raise what came of it.

        Cancelling leaves the flight, which ends if nobody else waits for it.
        """
        bell = current_bell()
        return await bell.protected(Callers._call)(self, key, begin, bell, priority)

    async def _call(
        self, key: Hashable | None, begin: Callable[[], Flight], bell: Bell, priority: int
    ) -> Any:
        cohort = self.join(key, begin, bell, priority)
        try:
            await cohort.event.wait()
        except BaseException:
            self.leave(cohort)
            raise
        return self.take(cohort)

    def call_sync(
        self,
        key: Hashable | None,
        begin: Callable[[], Flight],
        priority: int,
        timeout: float | None = None,
    ) -> Any:
        """Wait for the flight of a key in a plain thread, and return or raise what came of it.

        Raises:
            TimeoutError: ``timeout`` seconds have passed; the caller has left.
        """
        begun, seat = begin(), self.thread_seat()
        try:
            self.join_all([(key, begun, seat)], priority)
            if not seat.wait(timeout):
                raise TimeoutError(f"loading {begun.model!r} took over {timeout} s")
        except BaseException:
            if seat.seated:
                self.leave(seat)
            raise
        return self.take(seat)

    def join(
        self, key: Hashable | None, begin: Callable[[], Flight], bell: Bell, priority: int
    ) -> Cohort:
        """Take a seat in the flight of a key, beginning it if there is none.

        Args:
            key: the key; None for a flight that is not shared.
            begin: makes the flight.
            bell: the bell of the caller's loop.
            priority: higher goes first.

        Raises:
            ClosedError: the initializer is closed.
        """
        cohort: Cohort | None = None
        if key is not None:
            with self._core.transition(), self._core.lock:
                flight = self._find(key, priority)
                cohort = self._seated(flight, bell) if flight is not None else None
        if cohort is None:
            begun = begin()
            with self._core.transition() as todo, self._core.lock:
                # Another thread may have begun one meanwhile.
                flight = self._find(key, priority)
                cohort = self._seated(flight or begun, bell)
                if flight is None:
                    self._open(begun, key, todo)
        return cohort

    def _find(self, key: Hashable | None, priority: int) -> Flight | None:
        """Return the flight of a key, which a closed initializer lets nobody join."""
        if key is None or self._core.flights.closed:
            return None
        flight = self._core.flights.keys.find(key)
        if flight is not None:
            self._core.flights.raise_priority(flight, priority)
        return flight

    def join_all(
        self, requests: Iterable[tuple[Hashable | None, Flight, Any]], priority: int
    ) -> None:
        """Take a seat of the caller's own making in each of some flights; as `join` otherwise.

        Args:
            requests: for each, the key, the flight to begin if the key has none, and the seat.
            priority: higher goes first.
        """
        with self._core.transition() as todo, self._core.lock:
            for key, begun, seat in requests:
                self.sit(key, begun, seat, priority, todo)

    def sit(
        self, key: Hashable | None, begun: Flight, seat: Any, priority: int, todo: Todo
    ) -> None:
        """Take a seat in one flight, under the lock; see `join_all`."""
        found = self._find(key, priority)
        flight = found or begun
        flight.seats = (*flight.seats, seat)
        flight.waiting += 1
        seat.flight = flight  # last: from here on it can leave
        if found is None:
            self._open(begun, key, todo)

    def _open(self, flight: Flight, key: Hashable | None, todo: Todo) -> None:
        self._core.flights.open(flight, key, self._core.turns.flight_late, todo)

    def leave(self, seat: Cohort | Any) -> None:
        """Go without the result. Synchronous, so that it is safe under any kind of cancelling."""
        if self._core.lock.mine():
            # The garbage collector, run by an allocation under the lock, has closed a coroutine
            # that was waiting here. This very thread comes by again when it has let go.
            self._core.lock.put_off(partial(self.leave, seat))
            return
        with self._core.transition() as todo, self._core.lock:
            if not seat.lost:
                seat.count -= 1
                self._core.flights.leave(seat.flight, 1, todo)

    def take_all(self, seats: Sequence[Any]) -> list[tuple[Any, Exception | None]]:
        """Return for each seat its model, or what its flight ended with, as a fresh instance."""
        with self._core.transition(), self._core.lock:
            results = [_take(seat) for seat in seats]
        return [(value, failure() if failure else None) for value, failure in results]

    def take(self, seat: Cohort | Any) -> Any:
        """Return the model, or raise, once the flight is settled.

        Raises:
            AnyloadError: what the flight ended with, a fresh instance.
        """
        with self._core.transition(), self._core.lock:
            value, failure = _take(seat)
        if failure is not None:
            raise failure()
        return value

    def _seated(self, flight: Flight, bell: Bell) -> Cohort:
        """Return a cohort of a flight with one more caller of this loop in it."""
        last = flight.seats[-1] if flight.seats else None
        if isinstance(last, Cohort) and last.bell is bell and last.joined < PER_EVENT:
            cohort = last
        else:
            cohort = Cohort(flight, bell, self._core.lose)
            flight.seats = (*flight.seats, cohort)
        cohort.joined += 1
        cohort.count += 1
        flight.waiting += 1
        return cohort

    def thread_seat(self) -> ThreadSeat:
        """Return a seat for a plain thread, or for a load inside a load."""
        return ThreadSeat(self._core.flights)


def _take(seat: Any) -> tuple[Any, Callable[[], Exception] | None]:
    seat.count -= 1
    flight: Flight = seat.flight
    flight.waiting -= 1
    value = flight.value
    if flight.failure is None:
        flight.taken = True
        if flight.waiting == 0:
            flight.value = None
    return value, flight.failure
