"""A thread that sleeps until it is called."""

from __future__ import annotations

import contextlib
import threading


class Parked:
    """One thread, parked on a lock of its own while it has nothing to do.

    A call that comes before the thread is asleep is kept. A `threading.Event` would do that too,
    but it has a lock inside, and a finalizer, run on this very thread, may be who calls.
    """

    __slots__ = ("_asleep",)

    def __init__(self) -> None:
        self._asleep = threading.Lock()
        self._asleep.acquire()

    def park(self, seconds: float | None) -> bool:
        """Sleep until called; return False if nobody called within so many seconds, if any."""
        if seconds is None:
            return self._asleep.acquire()
        return self._asleep.acquire(timeout=min(max(seconds, 0), threading.TIMEOUT_MAX))

    def call(self) -> None:
        """Wake it up."""
        with contextlib.suppress(RuntimeError):  # it was called, and has yet to come
            self._asleep.release()

    def forget(self) -> None:
        """Take back a call that has not woken it yet."""
        self._asleep.acquire(blocking=False)
