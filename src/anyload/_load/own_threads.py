"""Whether code runs on a thread of ours, a worker or a watchdog, which every close waits for."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from functools import wraps
from typing import ParamSpec

P = ParamSpec("P")

_own: ContextVar[bool] = ContextVar("anyload.own_thread", default=False)


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
        before = _own.get()
        try:
            _own.set(True)
            start(*args, **kwargs)
        finally:
            _own.set(before)

    return marked


def on_own_thread() -> bool:
    """Return whether this code runs on such a thread, outside of any load, or as if it did."""
    return _own.get()
