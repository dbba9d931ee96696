"""What a transition decided and has yet to be done, once the lock is free."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .flight import Seat


class Todo:
    """The effects of one transition of the state machine.

    Args:
        wakes: the callers to wake.
        worker: whether a worker thread should look for something to do.
        elsewhere: whether other initializers may go on, because a group or an import ended.
    """

    __slots__ = ("elsewhere", "wakes", "worker")

    def __init__(self) -> None:
        self.wakes: list[Seat] = []
        self.worker = False
        self.elsewhere = False
