"""One initializer's core: the lock around every transition, and doing what follows from each.

The state machine (`flights`, `turns`, `dispatch`, `closing`) decides, under the lock, and
says in a `Todo` what is to be done; the core does it once the lock is free. Callers, workers and
the watchdog all come through here.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from ..contracts import Admission
from ..events import Hook
from .closing import Closers, Closing
from .dispatch import Dispatch
from .flight import Stage, Turn
from .flights import Flights
from .outbox import Outbox
from .process import Process
from .slots import Limits
from .tasks import Task
from .todo import Todo
from .turns import Turns
from .watchdog import Watchdog
from .workers import Workers


class Transition(Todo):
    """Collects, under the lock, what is to be done, and does it when the lock is free again.

    ``with core.transition() as todo, core.lock:``, in this order. What was decided before
    something raised is done too: those who were settled must be woken.
    """

    __slots__ = ("_core",)

    def __init__(self, core: Core) -> None:
        super().__init__()
        self._core = core

    def __enter__(self) -> Todo:
        return self

    def __exit__(self, *_: object) -> None:
        self._core.perform(self)


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
        self.process = process
        self.limits = limits
        self._hooks = tuple(hooks)
        self._admission = admission
        self.clock = clock
        self._start_afresh()
        process.add(self)

    def _start_afresh(self) -> None:
        self.lock = self.process.lock  # a forked child has another
        self._outbox = Outbox(self._hooks)
        self.flights = Flights(self.process, self.limits, self.clock, self._outbox)
        self.turns = Turns(self.flights, self._admission, self)
        self._dispatch = Dispatch(self.flights, self.turns)
        self.workers = Workers(self, "anyload-worker")
        self.watchdog = Watchdog(self, "anyload-watchdog", self.clock)
        self.closing = Closing(self.flights, self.turns, self._dispatch)
        self.closers = Closers(self.lock)

    def after_fork(self) -> None:
        """Start empty in a forked child: the threads of the parent are not in it."""
        closed = self.flights.closed
        self.turns.after_fork()
        self._start_afresh()
        self.flights.closed = closed

    def transition(self) -> Transition:
        """Return what does what follows: ``with core.transition() as todo, core.lock:``."""
        return Transition(self)

    # Threads

    def work(self) -> None:
        """Do what there is to do, in a worker thread, until there is nothing left."""
        thread_id = threading.get_ident()
        task = self.next_task(None, thread_id)
        while task is not None:
            task.run()
            task = self.next_task(task, thread_id)

    def next_task(self, done: Task | None, thread_id: int) -> Task | None:
        """Take in what a worker has done, and return what it does next; None if that is nothing."""
        with self.transition() as todo, self.lock:
            if done is not None:
                done.finish(todo)
                todo.closers = True
            task = self._dispatch.take(thread_id, todo)
            todo.worker = todo.worker or task is not None
        return task

    def ring(self) -> float | None:
        """Act on every deadline that has passed; return when the next one is."""
        with self.transition() as todo, self.lock:
            now = self.clock()
            while (due := self.flights.alarms.due(now)) is not None:
                act, subject = due
                act(subject, todo)
                todo.closers = True
            return self.flights.alarms.next_at

    def reconsider(self) -> None:
        """Look again at what is queued: something outside of this core has changed."""
        with self.transition() as todo, self.lock:
            self.flights.review(todo)
            todo.closers = True

    def perform(self, todo: Todo) -> None:
        """Do what a transition decided; the lock is free."""
        self.lock.catch_up()
        for seat in todo.wakes:
            if not seat.wake():
                self.lose(seat)
        if todo.worker:
            self._call_worker()
        next_at = self.flights.alarms.soonest
        if next_at is not None:
            self.watchdog.expect(next_at)
        if todo.elsewhere:
            for core in self.process.others(self):
                core.reconsider()
        if todo.closers and self.flights.closed:
            self.closers.wake()
            if self.closing.unattended:
                self.close_further()
        todo.dropped.clear()  # after the wakes: what goes may take its time
        self._outbox.deliver()

    def close_further(self) -> None:
        """Go to the next stage of a close that nobody waits for, where this one is over."""
        with self.transition() as todo, self.lock:
            todo.closers = self.closing.advance(todo)
            leaving = self.closing.stage == "leaving"
        if leaving:
            self.dismiss()

    def dismiss(self) -> None:
        """Send the threads home."""
        self.workers.dismiss()
        self.watchdog.dismiss()

    def lose(self, seat: Any) -> None:
        """The loop of these callers has ended: they will never take what they waited for."""
        with self.transition() as todo, self.lock:
            callers, seat.count, seat.lost = seat.count, 0, True
            if callers:
                self.flights.leave(seat.flight, callers, todo)

    def _call_worker(self) -> None:
        # One at a time: a worker that is coming has yet to take the lock, so it will see what
        # was put there before this line, and one that finds something to do calls the next.
        # Read without the lock: a worker too many finds nothing and rests.
        if self.workers.coming or not self._dispatch.useful:
            return
        try:
            self.workers.call()
        except (RuntimeError, MemoryError) as error:
            self._cannot_start(error)

    def _cannot_start(self, error: Exception) -> None:
        """No thread could be started: end what no other thread will come to."""
        with self.transition() as todo, self.lock:
            # A thread that reads or prepares is not stuck, so then there is none.
            if self.workers.count <= self._stuck_threads:
                self.turns.cannot_start(error, todo)

    def thread_left(self) -> None:
        """A worker or the watchdog is about to end."""
        if self.flights.closed:
            self.closers.wake()

    # What a load can ask

    def told_to_stop(self, turn: Turn) -> bool:
        """Return whether a load has to stop, and remember that it was told."""
        with self.transition(), self.lock:
            return self.turns.seen(turn)

    def report(self, turn: Turn, fraction: float | None, stage: str | None) -> None:
        """Take a load's word that it gets on."""
        with self.transition(), self.lock:
            self.turns.progressed(turn, fraction, stage)

    def reached(self, turn: Turn, stage: Stage) -> None:
        """Take note of what a load is at."""
        with self.transition(), self.lock:
            self.turns.reached(turn, stage)

    def may_restore(self, turn: Turn) -> bool:
        """Return whether a load may put back what it has changed process-wide."""
        with self.transition(), self.lock:
            return self.turns.restoring.may_begin(turn)

    # What the process asks

    @property
    def has_stuck_threads(self) -> bool:
        """Whether a thread is in code that is past its limit, or that a close did not wait for."""
        return bool(self._stuck_threads) or (
            self.closing.stage == "leaving" and self.closing.left_behind > 0
        )

    @property
    def _stuck_threads(self) -> int:
        flights = self.flights
        overdue, abandoned = flights.slots.overdue, flights.slots.abandoned
        hung = flights.preparations.hung + flights.lookups.stuck
        return len(overdue) + len(abandoned) + hung
