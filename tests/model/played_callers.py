"""The callers of the model test: who asked for what, on which loop, and what each has got."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from anyload._load.requests import BulkRequests, NameSeat
from anyload._load.waiters import Cohort, ThreadSeat

if TYPE_CHECKING:
    from home import Home

Ended = Literal["value", "error", "cancelled", "lost"]


class Event:
    """What a cohort waits for; the loop sets it."""

    def set(self) -> None:
        raise AssertionError("the loop of the model wakes its callers itself")


class Loop:
    """Stands in for the bell of an event loop, and for the loop."""

    new_event = Event

    def __init__(self) -> None:
        self.ended = False
        self.rung: set[Any] = set()

    def ring(self, cohort: Cohort) -> bool:
        if self.ended:
            return False
        self.rung.add(cohort)
        return True


@dataclass(eq=False, slots=True)
class Caller:
    """One who waits for a model.

    Args:
        home: the initializer that was asked.
        identity: what was asked for; those with equal ones may share a load.
        seat: where it waits.
        loop: its loop; None for a plain thread, or a load inside a load.
        bulk: the bulk that it is a name of.
        nested: whether it is a load inside a load.
        plans: whether it asks for the plan only.
        priority: how urgent it is.
        ended: what it has ended in, once.
    """

    home: Home
    identity: Hashable
    seat: Any
    loop: Loop | None = None
    bulk: Bulk | None = None
    nested: bool = False
    plans: bool = False
    priority: int = 0
    ended: Ended | None = None
    value: Any = None
    error: Exception | None = None

    @property
    def waits(self) -> bool:
        """Whether it is neither gone nor has taken what it got."""
        return self.ended is None

    @property
    def woken(self) -> bool:
        if isinstance(self.seat, ThreadSeat):
            return not self.seat._parked._asleep.locked()
        if self.bulk is not None:
            return self.seat in self.bulk.landed
        assert self.loop is not None
        return self.seat in self.loop.rung

    def end(self, ended: Ended) -> None:
        """End, once."""
        assert self.ended is None, f"a caller has ended in {self.ended}, and now in {ended}"
        self.ended = ended


class BulkSeat(NameSeat):
    """The seat of one name of a bulk."""

    __slots__ = ("bulk",)

    def __init__(self, requests: BulkRequests, bulk: Bulk) -> None:
        super().__init__(requests)
        self.bulk = bulk

    def wake(self) -> bool:
        self.requests.landed(self)
        if self.bulk.loop.ended:
            return False
        self.bulk.landed.append(self)
        return True


@dataclass(eq=False, slots=True)
class Bulk:
    """Some models that one caller has asked for together."""

    requests: BulkRequests
    loop: Loop
    callers: list[Caller] = field(default_factory=list)
    landed: list[Any] = field(default_factory=list)
    left: bool = False
