"""One thread that rings alarms on time, started with the first and ended when idle."""

from __future__ import annotations

import logging
import math
import threading
import time
import weakref
from collections.abc import Callable
from typing import Protocol

from .own_threads import enter_own_thread, starts_own_thread

IDLE_SECONDS = 5.0

logger = logging.getLogger("anyload.loads")


class Ringer(Protocol):
    """Whose alarms they are. It is held weakly while the watchdog sleeps."""

    def ring(self) -> float | None:
        """Act on every deadline that has passed; return when the next one is."""
        ...

    def thread_left(self) -> None:
        """Hear that the watchdog is about to end."""
        ...


class Watchdog:
    """Wakes up at every deadline, so that one is acted on even when nobody waits for it.

    Args:
        ringer: whose deadlines they are.
        name: the name of the thread.
        clock: the monotonic clock that the deadlines are on.
    """

    def __init__(
        self, ringer: Ringer, name: str, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._ringer = weakref.ref(ringer)
        self._name = name
        self._clock = clock
        # Taken by itself: the condition takes it in Python, and an interrupt in the middle of that
        # would leave it locked for ever.
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)
        self._dismissed = False
        # The thread that watches; one whose start was interrupted may come too, and leaves.
        self._watching: object = None
        self.wakes_at = math.inf
        weakref.finalize(ringer, self.dismiss)

    def expect(self, at: float) -> None:
        """See to it that the watchdog is awake at this time, on the monotonic clock."""
        # Read without the lock first. A value that is out of date means that the thread is on
        # its way to look at the alarms, and ours was there before we asked.
        if at < self.wakes_at:
            self._wake_or_start(at)

    @starts_own_thread
    def _wake_or_start(self, at: float) -> None:
        new = object()
        try:
            with self._lock:
                if at >= self.wakes_at or self._dismissed:
                    return
                if self.running:
                    # First: interrupted after this, it looks for nothing. And all, as a notify that
                    # is interrupted may leave somebody who would use up the next one.
                    self._changed.notify_all()
                    self.wakes_at = at
                    return
                self._watching, self.wakes_at = new, at
            threading.Thread(target=_watch, args=(self, new), name=self._name, daemon=True).start()
        except BaseException as error:
            with self._lock:
                if self._watching is new:
                    self._watching, self.wakes_at = None, math.inf
                    self._changed.notify_all()
            if not isinstance(error, RuntimeError | MemoryError):
                raise
            logger.warning("timeouts are late: the watchdog cannot start: %s", error)

    @property
    def running(self) -> bool:
        """Whether there is a thread, or one is to come."""
        return self._watching is not None

    def dismiss(self) -> None:
        """End the thread."""
        with self._lock:
            self._dismissed = True
            self._changed.notify_all()

    def sleep(self, until: float | None, me: object) -> bool:
        """Sleep until a deadline may have passed; return False when there are none to come."""
        with self._lock:
            if self._watching is me:
                self._sleep(until)
            if self._watching is not me:
                return False
            if self._dismissed or math.isinf(self.wakes_at):
                self._watching = None
                return False
            # From here on, whoever sets an alarm must call again: this thread is about to look,
            # and will not see what is set after that.
            self.wakes_at = math.inf
            return True

    def _sleep(self, until: float | None) -> None:
        if until is not None:
            self.wakes_at = min(self.wakes_at, until)
        wait = self.wakes_at - self._clock()
        if wait > 0 and not self._dismissed:
            self._changed.wait(
                IDLE_SECONDS if math.isinf(wait) else min(wait, threading.TIMEOUT_MAX)
            )


def _watch(watchdog: Watchdog, me: object) -> None:
    enter_own_thread()
    next_at: float | None = None
    while watchdog.sleep(next_at, me):
        next_at = _ring(watchdog)
    ringer = watchdog._ringer()
    if ringer is not None:
        ringer.thread_left()


def _ring(watchdog: Watchdog) -> float | None:
    """Ring; in a frame of its own, so as to hold nothing while asleep."""
    ringer = watchdog._ringer()
    try:
        return None if ringer is None else ringer.ring()
    except Exception:
        # A bug; the other deadlines are to be kept all the same.
        logger.exception("the watchdog goes on after an error")
        return watchdog._clock()
