"""What a worker does next: the order in which different kinds of work are handed out."""

from __future__ import annotations

from .flights import Flights
from .queue import Lane
from .result import Result
from .tasks import LoadTask, PrefetchTask, PrepareTask, ReadTask, ReleaseTask, StopTask, Task
from .todo import Todo
from .turns import Turns


class Dispatch:
    """Hands out the work of one initializer.

    Loads need a slot. Imports, reading, releasing and stopping do not: they must get on when
    every slot is stuck, and each has a limit of its own. Reading ahead comes last.
    """

    def __init__(self, flights: Flights, turns: Turns) -> None:
        self._flights = flights
        self._turns = turns
        self._process = flights.process

    @property
    def useful(self) -> bool:
        """Whether a worker might find something to do now; False only if it would not."""
        flights = self._flights
        return (
            self._errands
            or (flights.slots.free > 0 and len(flights.queue) > 0)
            or flights.prefetching.useful
        )

    @property
    def _errands(self) -> bool:
        """Whether there may be anything to do but loads from the queue: mostly there is not."""
        flights = self._flights
        return bool(
            self._turns.handed_over
            or flights.lookups.queued
            or flights.preparations.queued
            or flights.preparations.to_stop
            or flights.releases.waiting
        )

    def take(self, thread_id: int, todo: Todo) -> Task | None:
        """Return the next piece of work for this thread, or None if there is nothing to do."""
        assert self._process.lock.mine()
        if self._flights.slots.overdue:
            # This thread may just have come back from beyond a limit.
            self._turns.promote(todo)
        if self._process.restoring is not None:
            # Nobody's code begins until things are put back.
            return self._read(todo)
        task = self._errand(thread_id, todo) if self._errands else None
        return task or self._load(thread_id) or self._prefetch()

    def _errand(self, thread_id: int, todo: Todo) -> Task | None:
        return (
            self._handed_over(thread_id, todo)
            or self._prepare(thread_id)
            or self._release(thread_id)
            or self._read(todo)
            or self._stop()
        )

    def _handed_over(self, thread_id: int, todo: Todo) -> Task | None:
        while self._turns.handed_over:
            turn = self._turns.handed_over.pop(0)
            if turn.phase == "running" and turn.flight.waiting and not self._flights.closed:
                self._turns.entered(turn, thread_id)
                return LoadTask(turn, self._turns, self._flights.limits.warmup)
            # All callers left, or a limit passed, or the initializer was closed, before a thread
            # came to it: it never starts.
            self._turns.ended(turn, Result("cancelled", reason="nobody waits for it"), todo)
            todo.dropped.append(turn)
        return None

    def _prepare(self, thread_id: int) -> Task | None:
        preparations = self._flights.preparations
        for preparation in preparations.queued:
            if preparations.may_begin(preparation):
                preparations.began(preparation, thread_id)
                return PrepareTask(preparation, preparations)
        return None

    def _release(self, thread_id: int) -> Task | None:
        releases = self._flights.releases
        release = releases.first()
        if release is None:
            return None
        releases.began(release, thread_id)
        return ReleaseTask(release, releases)

    def _read(self, todo: Todo) -> Task | None:
        flight = self._flights.lookups.take(todo)
        return None if flight is None else ReadTask(flight, self._flights)

    def _stop(self) -> Task | None:
        preparations = self._flights.preparations
        if not preparations.to_stop:
            return None
        return StopTask(preparations.to_stop.pop(), preparations)

    def _load(self, thread_id: int) -> Task | None:
        flights = self._flights
        if flights.slots.free <= 0:
            return None
        flight = flights.queue.first(self._is_free, self._turns.may_start)
        if flight is None:
            return None
        turn = self._turns.begin(flight, None)
        self._turns.entered(turn, thread_id)
        return LoadTask(turn, self._turns, flights.limits.warmup)

    def _prefetch(self) -> Task | None:
        prefetching = self._flights.prefetching
        found = prefetching.take() if prefetching.useful else None
        return None if found is None else PrefetchTask(*found, prefetching)

    def _is_free(self, lane: Lane) -> bool:
        return self._process.obstacle(lane.resources) is None
