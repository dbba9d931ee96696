"""Events on their way to the hooks: put under the lock, delivered outside of it, in one order."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections import deque
from collections.abc import Sequence

from .._text import one_line
from ..errors import LoadCancelled
from ..events import (
    Abandoned,
    AttemptEnded,
    Cancelled,
    Discarded,
    Event,
    Failed,
    GlobalsChanged,
    Hook,
    Loaded,
    ThreadEnded,
)

logger = logging.getLogger("anyload.loads")
hook_logger = logging.getLogger("anyload.hooks")

OUT_OF_HAND = (Abandoned, ThreadEnded, GlobalsChanged)
"""Events that are logged at any level: a load is past its limit, or left something behind."""


class Outbox:
    """The events of one initializer.

    Args:
        hooks: what receives them.
    """

    def __init__(self, hooks: Sequence[Hook]) -> None:
        self._hooks = tuple(hooks)
        self._events: deque[Event | str] = deque()
        self._delivering = threading.Lock()

    @property
    def wanted(self) -> bool:
        """Whether anybody would see the ordinary events; the others are put in any case."""
        return bool(self._hooks) or logger.isEnabledFor(logging.INFO)

    def put(self, event: Event) -> None:
        """Add an event; the order of calls is the order of delivery."""
        self._events.append(event)

    def warn(self, text: str) -> None:
        """Add a line for the log: nothing is logged under the lock, as a handler is user code."""
        self._events.append(text)

    def deliver(self) -> None:
        """Hand out what is there, unless another thread is at it: then that one does it all."""
        while self._events and self._delivering.acquire(blocking=False):
            try:
                while self._events:
                    self._hand_out(self._events.popleft())
            finally:
                self._delivering.release()
            # An event that came between the last look and the release has its own thread's call
            # fail to acquire: so look once more.

    def _hand_out(self, event: Event | str) -> None:
        # Whoever delivers has a load to run or a deadline to keep: nothing may get out of here,
        # not even what a log handler raises on a full disk.
        if isinstance(event, str):
            with contextlib.suppress(Exception):
                logger.warning("%s", one_line(event))
            return
        if isinstance(event, OUT_OF_HAND) or logger.isEnabledFor(logging.INFO):
            with contextlib.suppress(Exception):
                log_event(event)
        for hook in self._hooks:
            try:
                hook(event)
            except BaseException:
                with contextlib.suppress(BaseException):  # the repr of a hook is its own code too
                    hook_logger.exception("the hook %r raised on %r", hook, type(event).__name__)


def log_event(event: Event) -> None:
    """Write an event to the log: a warning where a thread is out of hand, else for information."""
    model = event.model
    match event:
        case Abandoned():
            logger.warning("the load of %r on %s is abandoned", model, event.backend)
        # That it stopped because it was told to is no news.
        case ThreadEnded(error=error) if not error or error.startswith(LoadCancelled.__name__):
            logger.info("the late load of %r on %s has ended", model, event.backend)
        case ThreadEnded():
            text = one_line(event.error)
            logger.warning("the late load of %r on %s: %s", model, event.backend, text)
        case GlobalsChanged(overlapped=overlapped):
            whose = ", or another that ran meanwhile," if overlapped else ""
            changes = "; ".join(map(str, event.changes))
            logger.warning("the load of %r on %s%s left %s", model, event.backend, whose, changes)
        case Discarded():
            logger.info("a loaded %r is discarded: %s", model, event.reason)
        case AttemptEnded():
            logger.info("loading %r: %s", model, event.attempt)
        case Loaded():
            logger.info("loaded %r on %s", model, event.report.backend)
        case Failed():
            logger.info("could not load %r: %s", model, event.error)
        case Cancelled():
            logger.info("nobody waits for %r any more", model)
