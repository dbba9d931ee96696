"""Whether code runs on a thread of ours, a worker or a watchdog, which every close waits for."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from functools import wraps
from typing import ParamSpec

P = ParamSpec("P")

_own: ContextVar[bool] = ContextVar("anyload.own_thread", default=False)


class _Start:
    """The start of such a thread; a task that a handler makes in the middle outlives it."""

    __slots__ = ("over",)

    def __init__(self) -> None:
        self.over = False


_start: ContextVar[_Start | None] = ContextVar("anyload.start", default=None)


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
        before, this = _start.get(), _Start()
        try:
            _start.set(this)
            start(*args, **kwargs)
        finally:
            this.over = True
            _start.set(before)

    return marked


def on_own_thread() -> bool:
    """Return whether this code runs on such a thread, outside of any load, or as if it did."""
    start = _start.get()
    return _own.get() or (start is not None and not start.over)
