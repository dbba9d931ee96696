"""One initializer's core: the lock around every transition, and doing what follows from each.

The state machine (`_flights`, `_turns`, `_dispatch`) decides, under the lock, and says in a
`Todo` what is to be done; the core does it once the lock is free. Callers, workers and the
watchdog all come through here.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Hashable, Iterable, Sequence
from functools import partial
from typing import Any

from ._closing import Closing
from ._dispatch import Dispatch
from ._flight import Flight, Seat, Turn
from ._flights import Flights
from ._nested import claim
from ._outbox import Outbox
from ._process import Process
from ._slots import Limits
from ._tasks import LoadTask, Task
from ._todo import Todo
from ._turns import Turns
from ._waiters import PER_EVENT, Bell, Cohort, ThreadSeat
from ._watchdog import Watchdog
from ._workers import Workers
from .contracts import Admission
from .errors import LoadCancelled
from .events import Hook
from .reports import Statistics, StuckLoad

logger = logging.getLogger("anyload.loads")


class Core:
    """The core of one initializer.

    Args:
        process: what is shared with the other initializers.
        limits: the configured limits.
        hooks: what receives events.
        admission: who else decides which loads may start.
        clock: the monotonic clock.
    """

    def __init__(
        self,
        process: Process,
        limits: Limits,
        hooks: Sequence[Hook] = (),
        admission: Admission | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._process = process
        self._limits = limits
        self._hooks = tuple(hooks)
        self._admission = admission
        self.clock = clock
        self._start_afresh()
        process.add(self)

    def _start_afresh(self) -> None:
        self._outbox = Outbox(self._hooks)
        self._flights = Flights(self._process, self._limits, self.clock, self._outbox)
        self._turns = Turns(self._flights, self._admission, self)
        self._dispatch = Dispatch(self._flights, self._turns)
        self._workers = Workers(self, "anyload-worker")
        self._watchdog = Watchdog(self, "anyload-watchdog")
        self._closing = Closing(self._flights, self._turns, self._dispatch)
        self._closers: list[Seat] = []
        self._closer_wakes = 0

    def after_fork(self) -> None:
        """Start empty in a forked child: the threads of the parent are not in it."""
        self._turns.after_fork()
        self._start_afresh()

    # Callers

    @property
    def closed(self) -> bool:
        """Whether no load can begin any more."""
        return self._flights.closed

    def new_batch(self) -> int:
        """Return the next place in the order of arrival."""
        return self._flights.new_batch()

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
        todo = Todo()
        with self._process.lock:
            flight = self._find(key, priority)
            cohort = _seated(flight, bell) if flight is not None else None
        if cohort is None:
            begun = begin()
            with self._process.lock:
                # Another thread may have begun one meanwhile.
                flight = self._find(key, priority)
                cohort = _seated(flight or begun, bell)
                if flight is None:
                    self._open(begun, key, todo)
        self._do(todo)
        return cohort

    def _find(self, key: Hashable | None, priority: int) -> Flight | None:
        """Return the flight of a key, which a closed initializer lets nobody join."""
        if key is None or self._flights.closed:
            return None
        flight = self._flights.find(key)
        if flight is not None:
            self._flights.raise_priority(flight, priority)
        return flight

    def join_all(
        self, requests: Iterable[tuple[Hashable | None, Flight, Any]], priority: int
    ) -> None:
        """Take a seat of the caller's own making in each of some flights; as `join` otherwise.

        Args:
            requests: for each, the key, the flight to begin if the key has none, and the seat.
            priority: higher goes first.
        """
        todo = Todo()
        with self._process.lock:
            for key, begun, seat in requests:
                self._sit(key, begun, seat, priority, todo)
        self._do(todo)

    def _sit(
        self, key: Hashable | None, begun: Flight, seat: Any, priority: int, todo: Todo
    ) -> None:
        found = self._find(key, priority)
        flight = seat.flight = found or begun
        flight.seats = (*flight.seats, seat)
        flight.waiting += 1
        if found is None:
            self._open(begun, key, todo)

    def _open(self, flight: Flight, key: Hashable | None, todo: Todo) -> None:
        self._flights.open(flight, key, self._turns.flight_late, todo)

    def leave(self, seat: Cohort | Any) -> None:
        """Go without the result. Synchronous, so that it is safe under any kind of cancelling."""
        if self._process.lock.mine():
            # The garbage collector, run by an allocation under the lock, has closed a coroutine
            # that was waiting here. This very thread comes by again when it has let go.
            self._process.lock.put_off(partial(self.leave, seat))
            return
        todo = Todo()
        with self._process.lock:
            self._leave(seat, todo)
        self._do(todo)

    def _leave(self, seat: Any, todo: Todo) -> None:
        if not seat.lost:
            seat.count -= 1
            self._flights.leave(seat.flight, 1, todo)

    def take_all(self, seats: Sequence[Any]) -> list[tuple[Any, Exception | None]]:
        """Return for each seat its model, or what its flight ended with, as a fresh instance."""
        with self._process.lock:
            results = [self._take(seat) for seat in seats]
        return [(value, failure() if failure else None) for value, failure in results]

    def take(self, seat: Cohort | Any) -> Any:
        """Return the model, or raise, once the flight is settled.

        Raises:
            AnyloadError: what the flight ended with, a fresh instance.
        """
        with self._process.lock:
            value, failure = self._take(seat)
        if failure is not None:
            raise failure()
        return value

    def _take(self, seat: Any) -> tuple[Any, Callable[[], Exception] | None]:
        seat.count -= 1
        flight: Flight = seat.flight
        flight.waiting -= 1
        value = flight.value
        if flight.failure is None:
            flight.taken = True
            if flight.waiting == 0:
                flight.value = None
        return value, flight.failure

    def thread_seat(self) -> ThreadSeat:
        """Return a seat for a plain thread, or for a load inside a load."""
        return ThreadSeat(self._flights)

    # Loads inside loads

    def load_inside(
        self,
        parent: Turn,
        key: Hashable | None,
        begun: Flight,
        timeout: float | None,
        priority: int,
    ) -> ThreadSeat:
        """Load for code that is inside a load: on this thread if possible, else by waiting.

        Returns:
            A seat in a settled flight, its result not taken yet.

        Raises:
            ReentrantLoadError: the load would wait for itself.
            LoadCancelled: the load that this one is inside of is no longer wanted.
            TimeoutError: ``timeout`` seconds have passed.
            ClosedError: the initializer is closed.
        """
        seat = self.thread_seat()
        until = None if timeout is None else self.clock() + timeout
        todo = Todo()
        with self._process.lock:
            self._sit(key, begun, seat, priority, todo)
            self._process.nested_seats[seat] = None
            parent.nested_seats.append(seat)
        self._do(todo)
        try:
            while not self._load_inline(seat, parent):
                wait = None if until is None else until - self.clock()
                if wait is not None and wait <= 0:
                    raise TimeoutError(f"loading {seat.flight.model!r} took over {timeout} s")
                seat.wait(wait)
        except BaseException:
            self._rise(seat, parent, leave=True)
            raise
        self._rise(seat, parent, leave=False)
        return seat

    def _load_inline(self, seat: ThreadSeat, parent: Turn) -> bool:
        """Run the next attempt here, if that is possible; return whether the flight has ended."""
        todo = Todo()
        task = None
        with self._process.lock:
            if parent.stuck or seat not in self._process.nested_seats or parent.cancelled:
                raise LoadCancelled(f"the load of {parent.flight.model!r} is no longer wanted")
            if seat.flight.phase == "settled":
                return True
            turn = claim(seat.flight, parent, self._flights, self._turns)
            if turn is not None:
                self._turns.entered(turn, threading.get_ident())
                task = LoadTask(turn, self._turns, self._limits.warmup)
        if task is not None:
            self._do(todo)
            task.run()
            with self._process.lock:
                task.finish(todo)
            self._do(todo)
            seat.wake()
        return False

    def _rise(self, seat: ThreadSeat, parent: Turn, *, leave: bool) -> None:
        todo = Todo()
        with self._process.lock:
            if seat in parent.nested_seats:
                parent.nested_seats.remove(seat)
            if seat in self._process.nested_seats:
                del self._process.nested_seats[seat]
                if leave:
                    self._flights.leave_nested(seat.flight, todo)
        self._do(todo)

    # What a load can ask

    def told_to_stop(self, turn: Turn) -> bool:
        """Return whether a load has to stop, and remember that it was told."""
        with self._process.lock:
            return self._turns.seen(turn)

    def report(self, turn: Turn, fraction: float | None, stage: str | None) -> None:
        """Take a load's word that it gets on."""
        todo = Todo()
        with self._process.lock:
            self._turns.progressed(turn, fraction, stage)
        self._do(todo)

    # Threads

    def work(self) -> None:
        """Do what there is to do, in a worker thread, until there is nothing left."""
        thread_id = threading.get_ident()
        task: Task | None = None
        while True:
            todo = Todo()
            with self._process.lock:
                if task is not None:
                    task.finish(todo)
                task = self._dispatch.take(thread_id, todo)
                todo.worker = todo.worker or task is not None
            self._do(todo)
            if task is None:
                return
            del todo  # it leads to the callers, and so to the model, of the last load
            task.run()

    def ring(self) -> float | None:
        """Act on every deadline that has passed; return when the next one is."""
        todo = Todo()
        with self._process.lock:
            now = self.clock()
            while (due := self._flights.alarms.due(now)) is not None:
                act, subject = due
                act(subject, todo)
            next_at = self._flights.alarms.next_at
        self._do(todo)
        return next_at

    def reconsider(self) -> None:
        """Look again at what is queued: something outside of this core has changed."""
        todo = Todo()
        with self._process.lock:
            self._flights.review(todo)
        self._do(todo)

    def _do(self, todo: Todo) -> None:
        """Do what a transition decided."""
        for seat in todo.wakes:
            if not seat.wake():
                self._lose(seat)
        if todo.worker:
            self._call_worker()
        next_at = self._flights.alarms.soonest
        if next_at is not None:
            self._watchdog.expect(next_at)
        if todo.elsewhere:
            for core in self._process.others(self):
                core.reconsider()
        if self._flights.closed:
            self._wake_closers()
        self._outbox.deliver()

    def _lose(self, seat: Any) -> None:
        """The loop of these callers has ended: they will never take what they waited for."""
        todo = Todo()
        with self._process.lock:
            callers, seat.count, seat.lost = seat.count, 0, True
            self._flights.leave(seat.flight, callers, todo)
        self._do(todo)

    def _call_worker(self) -> None:
        # One at a time: a worker that is coming has yet to take the lock, so it will see what
        # was put there before this line, and one that finds something to do calls the next.
        # Read without the lock: a worker too many finds nothing and rests.
        if self._workers.coming or not self._dispatch.useful:
            return
        try:
            self._workers.call()
        except (RuntimeError, MemoryError) as error:
            self._cannot_start(error)

    def _cannot_start(self, error: Exception) -> None:
        """No thread could be started: end what no other thread will come to."""
        todo = Todo()
        with self._process.lock:
            stuck = len(self._flights.slots.overdue) + len(self._flights.slots.abandoned)
            if self._workers.count > stuck:
                return
            self._turns.cannot_start(error, todo)
        self._do(todo)

    # The end

    def close(self, grace: float) -> None:
        """Begin to close; see `close_step` for the rest."""
        todo = Todo()
        with self._process.lock:
            self._closing.begin(grace, todo)
        self._do(todo)

    def close_step(self, seat: Seat) -> bool:
        """Go on with a close as far as possible; return whether that was all.

        Args:
            seat: is woken once, when it is worth trying again.
        """
        todo = Todo()
        with self._process.lock:
            self._closing.advance(todo)
            leaving = self._closing.stage == "leaving"
            wakes = self._closer_wakes
        self._do(todo)
        with self._process.lock:
            # Only now, so that this very step does not wake its own seat.
            self._closers.append(seat)
            missed = self._closer_wakes != wakes + 1
        if missed:
            seat.wake()
        if leaving:
            self._workers.dismiss()
            self._watchdog.dismiss()
            threads = self._workers.count + self._watchdog.running
            if threads <= self._closing.left_behind:
                self._closers.clear()
                return True
        return False

    def close_at_once(self) -> None:
        """Give up on a close: leave everything that still runs, and wait for nothing."""
        self.close(0.0)
        todo = Todo()
        with self._process.lock:
            self._closing.advance(todo)
        self._do(todo)
        self._workers.dismiss()
        self._watchdog.dismiss()

    def _wake_closers(self) -> None:
        with self._process.lock:
            self._closer_wakes += 1
            closers, self._closers = self._closers, []
        for seat in closers:
            seat.wake()

    def thread_left(self) -> None:
        """A worker or the watchdog is about to end."""
        if self._flights.closed:
            self._wake_closers()

    # Figures

    def statistics(self) -> Statistics:
        """Return what is going on."""
        with self._process.lock:
            flights, slots = self._flights, self._flights.slots
            phases = [flight.phase for flight in flights.live]
            return Statistics(
                slots=slots.total,
                free_slots=max(slots.free, 0),
                waiters=sum(flight.waiting for flight in flights.live),
                flights=len(flights.live),
                resolving=phases.count("resolving"),
                preparing=phases.count("preparing"),
                queued=phases.count("queued"),
                running=len(slots.taken) - len(slots.overdue),
                overdue=len(slots.overdue),
                abandoned=len(slots.abandoned),
                releasing=len(flights.releases.running) + len(flights.releases.queued),
                threads=self._workers.count,
                loaded=flights.loaded,
                failed=flights.failed,
                cancelled=flights.cancelled,
                discarded=flights.releases.discarded,
            )

    @property
    def has_stuck_threads(self) -> bool:
        """Whether a thread is in code that is past its limit."""
        slots = self._flights.slots
        return bool(slots.overdue or slots.abandoned)

    def abandoned(self) -> tuple[StuckLoad, ...]:
        """Describe the loads whose threads nobody waits for."""
        with self._process.lock:
            turns = [turn for turn in self._turns.live if turn.phase == "abandoned"]
            return self._flights.stuck_loads(turn for turn in turns if turn.parent is None)


def _seated(flight: Flight, bell: Bell) -> Cohort:
    """Return a cohort of a flight with one more caller of this loop in it."""
    last = flight.seats[-1] if flight.seats else None
    if isinstance(last, Cohort) and last.bell is bell and last.joined < PER_EVENT:
        cohort = last
    else:
        cohort = Cohort(flight, bell)
        flight.seats = (*flight.seats, cohort)
    cohort.joined += 1
    cohort.count += 1
    flight.waiting += 1
    return cohort
