"""How many loads run, how many are past their limit, and how many more may be."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from .flight import Holder, Turn

Guard = Literal["groups", "all", "off"]
"""Which loads are watched for process-wide state that they change."""


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of one initializer; durations in seconds, None means off."""

    max_concurrent_loads: int = 4
    max_abandoned_loads: int = 4
    load_timeout: float | None = None
    prepare_timeout: float | None = None
    release_timeout: float | None = None
    next_on_error: bool = True
    warmup: bool = True
    guard: Guard = "groups"
    prefetch_streams: int = 0
    gil_switch_interval: float | None = None


class Slots:
    """Who is on a slot, who is overdue on one, and whom nobody waits for any more.

    Args:
        total: how many loads may run at once.
        most_abandoned: how many threads may be left running on their own.
    """

    def __init__(self, total: int, most_abandoned: int) -> None:
        self.total = total
        self.most_abandoned = most_abandoned
        self.taken: dict[Turn, None] = {}
        self.overdue: dict[Turn, None] = {}
        # A release that is past its limit counts here too, though it never had a slot.
        self.abandoned: dict[Holder, None] = {}

    @property
    def free(self) -> int:
        """Slots that a load may take."""
        return self.total - len(self.taken)

    @property
    def saturated(self) -> bool:
        """Whether no load can start before a thread ends: every slot is overdue."""
        return len(self.overdue) >= self.total

    @property
    def may_abandon(self) -> bool:
        """Whether one more thread may be left running on its own."""
        return len(self.abandoned) < self.most_abandoned

    def abandon(self, turn: Turn) -> None:
        """Free its slot and leave its thread running."""
        self.taken.pop(turn, None)
        self.overdue.pop(turn, None)
        self.abandoned[turn] = None

    def leave(self, turn: Turn) -> None:
        """Its thread is out of the load."""
        self.taken.pop(turn, None)
        self.overdue.pop(turn, None)
        self.abandoned.pop(turn, None)
