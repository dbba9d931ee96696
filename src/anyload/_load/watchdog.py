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
from .parking import Parked

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
        # The garbage collector may run inside, and set a deadline: so the same thread can come in
        # again, the watchdog's own too, and every step leaves things in order.
        self._lock = threading.RLock()
        self._dismissed = False
        # The thread that watches; one whose start was interrupted may come too, and leaves.
        self._watching: Parked | None = None
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
        new = Parked()
        try:
            with self._lock:
                if at >= self.wakes_at or self._dismissed:
                    return
                if self._watching is not None:
                    self._watching.call()  # first: interrupted after this, it looks for nothing
                    # A finalizer may have set a nearer one in there; in `min` it could again.
                    if at < self.wakes_at:  # noqa: PLR1730
                        self.wakes_at = at
                    return
                self._watching, self.wakes_at = new, at
            threading.Thread(target=_watch, args=(self, new), name=self._name, daemon=True).start()
        except BaseException as error:
            with self._lock:
                if self._watching is new:
                    self._watching, self.wakes_at = None, math.inf
                    new.call()  # it may have been started all the same
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
            if self._watching is not None:
                self._watching.call()

    def sleep(self, until: float | None, me: Parked) -> bool:
        """Sleep until a deadline may have passed; return False when there are none to come."""
        me.park(self._seconds_left(until, me))
        with self._lock:
            if self._watching is not me:
                return False
            # No call from here to the end: nothing of this thread's own comes in between.
            if self._dismissed or self.wakes_at == math.inf:
                self._watching = None
                return False
            # From here on, whoever sets an alarm must call again: this thread is about to look,
            # and will not see what is set after that.
            self.wakes_at = math.inf
            return True

    def _seconds_left(self, until: float | None, me: Parked) -> float:
        """Return for how long the thread may sleep if nobody calls it."""
        with self._lock:
            me.forget()  # what it was called for is in `wakes_at`
            if self._dismissed or self._watching is not me:
                return 0
            if until is not None:
                self.wakes_at = min(self.wakes_at, until)
            left = self.wakes_at - self._clock()
            return IDLE_SECONDS if math.isinf(left) else left


def _watch(watchdog: Watchdog, me: Parked) -> None:
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
