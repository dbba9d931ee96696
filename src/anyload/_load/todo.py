"""What a transition decided and has yet to be done, once the lock is free."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .flight import Sleeper


class Todo:
    """The effects of one transition of the state machine.

    Args:
        wakes: the callers to wake.
        worker: whether a worker thread should look for something to do.
        closers: whether a close may go on, because a thread has left something.
        elsewhere: whether other initializers may go on, because a group or an import ended.
        dropped: what to let go of: what it does when it goes must not happen under the lock.
    """

    __slots__ = ("closers", "dropped", "elsewhere", "wakes", "worker")

    def __init__(self) -> None:
        self.wakes: list[Sleeper] = []
        self.worker = False
        self.closers = False
        self.elsewhere = False
        self.dropped: list[Any] = []
