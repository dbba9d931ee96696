"""Whether code runs on a thread of ours, a worker or a watchdog, which every close waits for."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextvars import ContextVar
from functools import wraps
from typing import ParamSpec

P = ParamSpec("P")

_own: ContextVar[bool] = ContextVar("anyload.own_thread", default=False)


class _Starting(threading.local):
    """Whether a thread is in the middle of a start; a task that a handler makes there is not."""

    yes = False


_starting = _Starting()


def enter_own_thread() -> None:
    """Mark this thread, which has been started for us."""
    _own.set(True)


def leave_own_thread() -> None:
    """Take the mark off: for a load, and in a child that was forked from such a thread."""
    _own.set(False)


def starts_own_thread(start: Callable[P, None]) -> Callable[P, None]:
    """Have what runs in the middle of a start, a signal's handler say, pass for such a thread.

    A close in there must not wait either: the thread that it would wait for is started by a frame
    below its own.
    """

    @wraps(start)
    def marked(*args: P.args, **kwargs: P.kwargs) -> None:
        before = _starting.yes
        try:
            _starting.yes = True
            start(*args, **kwargs)
        finally:
            _starting.yes = before

    return marked


def on_own_thread() -> bool:
    """Return whether this code runs on such a thread, outside of any load, or as if it did."""
    return _own.get() or _starting.yes
