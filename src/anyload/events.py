"""What hooks receive: one frozen record per thing that happened to a load.

A hook is any callable that takes one event. Events of one initializer arrive in one global
order, each exactly once, on whichever thread is at hand; a hook must not block. No event holds
a model. A load of which there is an event ends with one of `Loaded`, `Failed` and `Cancelled`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from .reports import Attempt, GlobalChange, LoadReport


@dataclass(frozen=True, slots=True)
class Event:
    """What every event says.

    Args:
        model: the name or path that was asked for.
        at: when it happened, in seconds on the monotonic clock.
    """

    model: str
    at: float


@dataclass(frozen=True, slots=True)
class Queued(Event):
    """A load is ready and waits for a slot, a group or the lane of ``holds_gil``."""

    backend: str


@dataclass(frozen=True, slots=True)
class Preparing(Event):
    """A worker thread has entered a step that loads wait for: imports, or the start of a backend.

    Args:
        model: one that waits for it.
        what: the call, as people read it.
    """

    what: str


@dataclass(frozen=True, slots=True)
class Prepared(Event):
    """A thread has left such a step.

    Args:
        seconds: how long it was in there.
        error: what it raised, as text; empty if it did not.
    """

    what: str
    seconds: float
    error: str


@dataclass(frozen=True, slots=True)
class Started(Event):
    """A worker thread has entered a module's ``load``.

    Args:
        thread: which one, as by ``threading.get_ident``. A load inside another has its thread.
    """

    backend: str
    thread: int


@dataclass(frozen=True, slots=True)
class Progress(Event):
    """A load called ``report_progress``; ``fraction`` is 0 to 1, or None if it cannot tell."""

    backend: str
    fraction: float | None
    stage: str | None


@dataclass(frozen=True, slots=True)
class AttemptEnded(Event):
    """One backend's turn is over, as far as its callers are concerned."""

    attempt: Attempt


@dataclass(frozen=True, slots=True)
class Loaded(Event):
    """The model is there."""

    report: LoadReport


@dataclass(frozen=True, slots=True)
class Failed(Event):
    """The load ended without a model; ``error`` is what its callers get, as text."""

    report: LoadReport
    error: str


@dataclass(frozen=True, slots=True)
class Cancelled(Event):
    """The load ended, and all who waited for it had left; it may never have started."""

    report: LoadReport


@dataclass(frozen=True, slots=True)
class Discarded(Event):
    """A model was loaded that nobody can use; it is being released."""

    backend: str
    reason: str


@dataclass(frozen=True, slots=True)
class Abandoned(Event):
    """Nobody waits for this thread any more; its slot is free and the thread runs on."""

    backend: str
    stack: str


@dataclass(frozen=True, slots=True)
class ThreadEnded(Event):
    """A thread that was abandoned or overdue has left its ``load`` after all.

    Args:
        age: seconds it was in there.
        error: what it raised at the end, as text; empty if it did not.
    """

    backend: str
    age: float
    error: str


@dataclass(frozen=True, slots=True)
class GlobalsChanged(Event):
    """A load has left process-wide state changed.

    Args:
        changes: what is different now, and what of it was put back.
        overlapped: whether other loads ran meanwhile; then it may have been one of them, and
            nothing was put back.
    """

    backend: str
    changes: tuple[GlobalChange, ...]
    overlapped: bool


@dataclass(frozen=True, slots=True)
class StateChanged(Event):
    """A model of a repository has gone from one phase to another.

    Args:
        version: the model's version.
        before: the phase it was in.
        phase: the phase it is in now.
        state: its state by the V2 model repository protocol.
        reason: why, for a person to read; never empty after a failure.
    """

    version: str
    before: str
    phase: str
    state: str
    reason: str


Hook = Callable[[Event], object]
