"""Daemon threads that take what there is to do, one thing after another, and end when idle."""

from __future__ import annotations

import threading
import weakref
from typing import Protocol

IDLE_SECONDS = 5.0


class Source(Protocol):
    """Where workers get what they do. It is held weakly while a worker is idle."""

    def work(self) -> None:
        """Do what there is to do, and return when there is nothing left."""
        ...

    def thread_left(self) -> None:
        """Hear that a thread is about to end."""
        ...


class Worker:
    """One thread, parked on a lock of its own while it is idle."""

    __slots__ = ("_parked", "dismissed")

    def __init__(self) -> None:
        self._parked = threading.Lock()
        self._parked.acquire()
        self.dismissed = False

    def park(self, seconds: float) -> bool:
        """Sleep until called; return False if nobody did in time."""
        return self._parked.acquire(timeout=seconds)

    def call(self) -> None:
        """Wake it up."""
        self._parked.release()


class Workers:
    """The worker threads of one initializer.

    Args:
        source: what gives them work.
        name: what their names begin with.
    """

    def __init__(self, source: Source, name: str) -> None:
        self._source = weakref.ref(source)
        self._name = name
        self._lock = threading.Lock()
        self._idle: list[Worker] = []
        self._dismissed = False
        self._number = 0
        self.count = 0
        self.coming = 0
        # An initializer that is dropped without a close leaves no thread behind for long.
        weakref.finalize(source, self.dismiss)

    def call(self) -> None:
        """Have one more worker look for work, an idle one if there is any.

        Raises:
            RuntimeError: a thread was needed and could not be started.
            MemoryError: likewise.
        """
        with self._lock:
            worker = self._idle.pop() if self._idle else None
            self.coming += 1
            if worker is None:
                self.count += 1
                self._number += 1
        if worker is not None:
            worker.call()
            return
        thread = threading.Thread(
            target=_live, args=(self,), name=f"{self._name}-{self._number}", daemon=True
        )
        try:
            thread.start()
        except BaseException:
            with self._lock:
                self.count -= 1
                self.coming -= 1
            raise

    def dismiss(self) -> None:
        """End the idle workers now, and the others when they have nothing left to do."""
        with self._lock:
            self._dismissed = True
            idle, self._idle = self._idle, []
        for worker in idle:
            worker.dismissed = True
            worker.call()

    def arrived(self) -> None:
        """A worker that was called is there."""
        with self._lock:
            self.coming -= 1

    def rest(self, worker: Worker) -> bool:
        """Put a worker among the idle; return False if it is not needed any more."""
        with self._lock:
            if self._dismissed:
                return False
            self._idle.append(worker)
            return True

    def retire(self, worker: Worker) -> bool:
        """Take an idle worker out; return False if it has been called in this very moment."""
        with self._lock:
            if worker not in self._idle:
                return False
            self._idle.remove(worker)
            return True

    def left(self) -> None:
        """A worker thread is about to end."""
        with self._lock:
            self.count -= 1
        source = self._source()
        if source is not None:
            source.thread_left()


def _live(workers: Workers) -> None:
    worker = Worker()
    try:
        while _work(workers) and workers.rest(worker):
            called = worker.park(IDLE_SECONDS)
            # Called while it was giving up: then the call is in the lock already.
            if not called and (workers.retire(worker) or not worker.park(-1)):
                return
            if worker.dismissed:
                return
    finally:
        workers.left()


def _work(workers: Workers) -> bool:
    """Work until there is nothing to do; in a frame of its own, so as to hold nothing after."""
    source = workers._source()
    workers.arrived()
    if source is None:
        return False
    source.work()
    return True
