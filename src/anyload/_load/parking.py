"""A thread of ours that sleeps until it is called."""

from __future__ import annotations

import contextlib
import threading


class Parked:
    """One thread, parked on a lock of its own while it has nothing to do.

    A call that comes before the thread is asleep is kept, so whoever calls needs no lock: a
    finalizer may do so on that very thread, at any moment.
    """

    __slots__ = ("_asleep",)

    def __init__(self) -> None:
        self._asleep = threading.Lock()
        self._asleep.acquire()

    def park(self, seconds: float) -> bool:
        """Sleep until called, for ever if negative; return False if nobody called in time."""
        return self._asleep.acquire(timeout=seconds)

    def call(self) -> None:
        """Wake it up."""
        with contextlib.suppress(RuntimeError):  # it was called, and has yet to come
            self._asleep.release()

    def forget(self) -> None:
        """Take back a call that has not woken it yet."""
        self._asleep.acquire(blocking=False)
