"""The records of one load: the flight, its turns, and who waits for it. No behaviour but sums.

Everything here is changed under the process lock only, by `flights.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import AbstractContextManager
from contextvars import Context
from typing import TYPE_CHECKING, Any, Literal, Protocol

from ..reports import NOTHING_OBSERVED, Attempt, LoadReport, Observed, Outcome

if TYPE_CHECKING:
    from ..model_config import ModelConfig
    from .alarms import Alarm
    from .flights import Flights
    from .plan import Candidate, Plan
    from .queue import Lane, Ticket
    from .turns import Turns

Phase = Literal["resolving", "preparing", "queued", "running", "settled"]
TurnPhase = Literal["running", "overdue", "abandoned", "ended"]
Stage = Literal["loading", "warming"]


class Sleeper(Protocol):
    """One or more callers who are woken together."""

    def wake(self) -> bool:
        """Wake them, from any thread, without waiting; return False if they are gone for good."""
        ...


class Seat(Sleeper, Protocol):
    """One or more callers who wait for a flight together."""

    flight: Flight


class NestedSeat(Seat, Protocol):
    """A load that waits for another flight inside its own thread."""

    @property
    def flights(self) -> Flights: ...


class Holder(Protocol):
    """What holds exclusive resources: a turn, or a release."""

    holds: list[str]

    @property
    def root(self) -> Holder: ...

    @property
    def stuck(self) -> bool: ...

    @property
    def label(self) -> str: ...

    def awaited(self) -> Iterator[Flight]:
        """Yield the flights of other threads that this thread waits for."""
        ...


class Files(Protocol):
    """A model's files, where something has to be done before its module may see them."""

    in_place: bool
    """Whether the module sees them where they are."""

    def opened(self, config: ModelConfig) -> AbstractContextManager[ModelConfig]:
        """Yield the config to load by, for the time of the load.

        Raises:
            AnyloadError: they are not fit to be loaded, by any backend.
        """
        ...


class Flight:
    """The one running load of a key.

    Args:
        model: what was asked for, as its callers spell it.
        kwargs: the load kwargs.
        context: the first caller's context; every attempt runs in a copy.
        created: when the first caller came, on the monotonic clock.
        priority: higher goes first.
        batch: its place in the order of arrival; the flights of one bulk share a place.
    """

    __slots__ = (
        "__weakref__",
        "alarm",
        "announced",
        "at",
        "attempts",
        "batch",
        "blocked_seconds",
        "blocked_since",
        "candidate",
        "clock_from_dispatch",
        "config",
        "context",
        "created",
        "discarded",
        "failure",
        "files",
        "kwargs",
        "keys",
        "landed",
        "lane",
        "load_seconds",
        "loads_nothing",
        "model",
        "phase",
        "plan",
        "position",
        "predecessors",
        "priority",
        "queue_alarm",
        "queue_seconds",
        "read_key",
        "reads",
        "ready_at",
        "requeued",
        "resolve",
        "seats",
        "settled_at",
        "size",
        "taken",
        "ticket",
        "turn",
        "value",
        "waiting",
    )

    # Both are set when they are first known: the step of the plan whose turn it is, or was last,
    # and the lane of the queue that it belongs in.
    candidate: Candidate
    lane: Lane

    def __init__(
        self,
        model: str,
        kwargs: Mapping[str, Any],
        context: Context,
        created: float,
        priority: int = 0,
        batch: int = 0,
    ) -> None:
        self.model = model
        self.kwargs = kwargs
        self.context: Context | None = context
        self.created = created
        self.priority = priority
        self.batch = batch
        self.phase: Phase = "resolving"
        self.resolve: Callable[[], Resolved | Known] | None = None
        self.config: ModelConfig | None = None
        self.files: Files | None = None
        self.plan: Plan | None = None
        self.position = 0
        self.size = 0
        self.keys: tuple[Hashable, ...] = ()
        # The path that looking it up reads, where it reads one.
        self.reads: str | None = None
        # What a reader has found to be its key, a moment before it claims that.
        self.read_key: Hashable | None = None
        self.attempts: tuple[Attempt, ...] = ()
        self.seats: tuple[Seat, ...] = ()
        self.waiting = 0
        self.taken = False
        # Whether anybody hears of its events.
        self.announced = False
        self.value: Any = None
        self.failure: Callable[[], Exception] | None = None
        # Told of the model under the lock, before its key is free; a line that waits for nothing.
        self.landed: Callable[[Any], object] | None = None
        # Told likewise, by a thread that is within its limits, what it is at from now on.
        self.at: Callable[[Stage], object] | None = None
        # Told likewise that a model of it is discarded; returns what is told when that is released.
        self.discarded: Callable[[], Callable[[], object]] | None = None
        self.turn: Turn | None = None
        # Turns of the same keys that are still on their slots: nobody waits for them any more,
        # and they must leave before this flight may start.
        self.predecessors: tuple[Turn, ...] = ()
        self.alarm: Alarm | None = None
        self.queue_alarm: Alarm | None = None
        self.blocked_since: float | None = None
        self.blocked_seconds = 0.0
        self.ready_at = created
        self.requeued = False
        self.loads_nothing = False
        self.settled_at = 0.0
        self.clock_from_dispatch = False
        self.ticket: Ticket | None = None
        self.queue_seconds = 0.0
        self.load_seconds = 0.0

    def report(self) -> LoadReport:
        """Return what has happened, once it is settled."""
        last = self.attempts[-1] if self.attempts else None
        return LoadReport(
            self.model,
            self.plan.module_id if self.plan else None,
            last.backend if last and last.outcome == "loaded" else None,
            self.attempts,
            self.queue_seconds,
            self.load_seconds,
            self.settled_at - self.created,
        )


class Resolved:
    """What reading a model from disk came to.

    Args:
        config: its config.
        plan: its plan.
        key: its key; None where it is not shared.
        size: its size on disk, in bytes.
        files: what has to be done with its files; None for nothing.
        known: asked again under the lock whether it need not be loaded, as another flight may have
            landed meanwhile; a line that waits for nothing.
    """

    __slots__ = ("config", "files", "key", "known", "plan", "size")

    def __init__(
        self,
        config: ModelConfig,
        plan: Plan,
        key: Hashable | None,
        size: int,
        known: Callable[[], Known | None] | None = None,
        files: Files | None = None,
    ) -> None:
        self.config = config
        self.files = files
        self.plan = plan
        self.key = key
        self.size = size
        self.known = known


class Known:
    """What a flight ends with at once, because it need not be loaded."""

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value


class Turn:
    """One backend's turn at one flight, while its thread is in it.

    Args:
        turns: the turns of its initializer.
        flight: what it loads.
        parent: the turn on whose thread it runs inline, for a nested load.
    """

    __slots__ = (
        "__weakref__",
        "_root",
        "alarm",
        "candidate",
        "children",
        "flight",
        "holds",
        "last_report",
        "nested_seats",
        "parent",
        "phase",
        "queue_seconds",
        "seen",
        "stall_alarm",
        "started",
        "successors",
        "thread_id",
        "turns",
        "warmup_seconds",
        "warnings",
    )

    def __init__(self, turns: Turns, flight: Flight, parent: Turn | None) -> None:
        self.turns = turns
        self.flight = flight
        self.candidate = flight.candidate
        self.parent = parent
        self._root = parent.root if parent else None  # itself would be a cycle
        self.children: list[Turn] = []
        self.nested_seats: list[NestedSeat] = []
        self.phase: TurnPhase = "running"
        # Both are known once a thread has entered it.
        self.started = flight.ready_at
        self.queue_seconds = 0.0
        self.thread_id = 0
        self.holds: list[str] = []
        self.seen = False
        self.last_report: float | None = None
        self.alarm: Alarm | None = None
        self.stall_alarm: Alarm | None = None
        self.successors: list[Flight] = []
        self.warnings: tuple[str, ...] = ()
        self.warmup_seconds: float | None = None

    @property
    def root(self) -> Turn:
        """The outermost turn of its thread."""
        return self._root or self

    @property
    def cancelled(self) -> bool:
        """Whether this load is no longer wanted."""
        if self.phase == "abandoned" or self.turns.out_of_grace:
            return True
        waiting = self.flight.waiting
        if waiting == 0:
            return True
        # A nested load that only its own parent waits for is wanted as long as the parent is.
        return self.parent is not None and waiting == 1 and self.parent.cancelled

    def attempt(
        self,
        outcome: Outcome,
        reason: str,
        stack: str | None,
        error: BaseException | None = None,
        observed: Observed = NOTHING_OBSERVED,
    ) -> Attempt:
        """Return what the report says of it, now that it is over."""
        candidate = self.candidate
        return Attempt(
            candidate.backend_type,
            outcome,
            reason,
            candidate.implementation.name,
            self.queue_seconds,
            self.turns.now() - self.started,
            stack,
            error,
            observed,
        )

    @property
    def stuck(self) -> bool:
        """Whether it is past its limit and its thread still runs."""
        return self.phase in ("overdue", "abandoned")

    @property
    def label(self) -> str:
        """What it is, for the error of somebody it stands in the way of."""
        return f"the load of {self.flight.model!r} on {self.candidate.backend_type}"

    def awaited(self) -> Iterator[Flight]:
        """Yield the flights that the loads of this thread wait for, inside it."""
        for turn in self.family():
            for seat in turn.nested_seats:
                yield seat.flight

    def family(self) -> Iterator[Turn]:
        """Yield the turns that run inside the outermost one, from the outside in."""
        pending = [self.root]
        while pending:
            turn = pending.pop()
            yield turn
            pending += turn.children
