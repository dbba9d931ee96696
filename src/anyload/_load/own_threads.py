"""Whether code runs on a thread of ours, a worker or a watchdog, which every close waits for."""

from __future__ import annotations

from contextvars import ContextVar

_own: ContextVar[bool] = ContextVar("anyload.own_thread", default=False)


def enter_own_thread() -> None:
    """Mark this thread, which has been started for us."""
    _own.set(True)


def leave_own_thread() -> None:
    """Take the mark off: for a load, and in a child that was forked from such a thread."""
    _own.set(False)


def on_own_thread() -> bool:
    """Return whether this code runs on such a thread, outside of any load."""
    return _own.get()
