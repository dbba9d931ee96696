"""Daemon threads that take what there is to do, one thing after another, and end when idle."""

from __future__ import annotations

import threading
import weakref
from typing import Protocol

from .own_threads import enter_own_thread, starts_own_thread
from .parking import Parked

IDLE_SECONDS = 5.0


class WorkSource(Protocol):
    """Where workers get what they do. It is held weakly while a worker is idle."""

    def work(self) -> None:
        """Do what there is to do, and return when there is nothing left."""
        ...

    def thread_left(self) -> None:
        """Hear that a thread is about to end."""
        ...


class Workers:
    """The worker threads of one initializer.

    Who is alive and who has been called are sets, not counts: an interrupt in the middle of a
    call, which may or may not have started its thread, can then not count one twice.

    Args:
        source: what gives them work.
        name: what their names begin with.
    """

    def __init__(self, source: WorkSource, name: str) -> None:
        self._source = weakref.ref(source)
        self._name = name
        # The garbage collector may run inside, and close a coroutine that calls a worker: so the
        # same thread can come in again, and every step leaves things in order.
        self._lock = threading.RLock()
        self._idle: list[Parked] = []
        self._alive: set[Parked] = set()
        self._called: set[Parked] = set()
        self._dismissed = False
        self._number = 0
        # An initializer that is dropped without a close leaves no thread behind for long.
        weakref.finalize(source, self.dismiss)

    @property
    def count(self) -> int:
        """How many threads there are."""
        return len(self._alive)

    @property
    def coming(self) -> bool:
        """Whether a worker was called that has yet to look for work."""
        return bool(self._called)

    @starts_own_thread
    def call(self) -> None:
        """Have one more worker look for work, an idle one if there is any.

        Raises:
            RuntimeError: a thread was needed and could not be started.
            MemoryError: likewise.
        """
        worker: Parked | None = None
        new = False
        try:
            with self._lock:
                if self._idle:
                    worker = self._idle[-1]  # not by pop(): it would go with an interrupt there
                    del self._idle[-1]
                else:
                    worker, new = Parked(), True
                    self._number += 1
                self._called.add(worker)
                self._alive.add(worker)
            if new:
                name = f"{self._name}-{self._number}"
                threading.Thread(target=_live, args=(self, worker), name=name, daemon=True).start()
            else:
                worker.call()
        except BaseException:
            # The thread may have been started all the same: it then enters itself again.
            with self._lock:
                if worker in self._called:
                    self._called.discard(worker)
                    self._alive.discard(worker)
            if worker is not None and not new:
                worker.call()  # nobody else may: it is among the idle no more
            raise

    def dismiss(self) -> None:
        """End the idle workers now, and the others when they have nothing left to do."""
        with self._lock:
            self._dismissed = True
            for worker in self._idle:
                # A call is all it takes: it finds nothing to do, may not rest, and ends.
                worker.call()
            self._idle.clear()

    def arrived(self, worker: Parked) -> None:
        """A worker that was called is there."""
        with self._lock:
            self._alive.add(worker)
            self._called.discard(worker)
            if worker in self._idle:  # what has called it was interrupted
                self._idle.remove(worker)

    def rest(self, worker: Parked) -> bool:
        """Put a worker among the idle; return False if it is not needed any more."""
        with self._lock:
            if self._dismissed:
                return False
            self._idle.append(worker)
            return True

    def retire(self, worker: Parked) -> bool:
        """Take an idle worker out; return False if it has been called in this very moment."""
        with self._lock:
            try:
                self._idle.remove(worker)
            except ValueError:
                return False
            return True

    def left(self, worker: Parked) -> None:
        """A worker thread is about to end."""
        with self._lock:
            self._alive.discard(worker)
            self._called.discard(worker)
        source = self._source()
        if source is not None:
            source.thread_left()


def _live(workers: Workers, worker: Parked) -> None:
    enter_own_thread()
    try:
        while _work(workers, worker) and workers.rest(worker):
            called = worker.park(IDLE_SECONDS)
            # Called while it was giving up: then the call is in the lock already.
            if not called and (workers.retire(worker) or not worker.park(None)):
                return
    finally:
        workers.left(worker)


def _work(workers: Workers, worker: Parked) -> bool:
    """Work until there is nothing to do; in a frame of its own, so as to hold nothing after."""
    source = workers._source()
    workers.arrived(worker)
    if source is None:
        return False
    source.work()
    return True
