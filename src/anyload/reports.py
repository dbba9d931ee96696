"""What happened to a load: the attempts, in order, and what came of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from ._text import LONGEST_NAME, one_line, quoted

Outcome = Literal["loaded", "skipped", "declined", "raised", "timed_out", "stalled", "cancelled"]


@dataclass(frozen=True, slots=True)
class GlobalChange:
    """Something process-wide that had another value after a load than before it.

    Args:
        name: what it is, as people call it.
        before: its value before the load, as text.
        after: its value after it.
        restored: whether it was put back.
    """

    name: str
    before: str
    after: str
    restored: bool

    def __str__(self) -> str:
        put_back = ", put back" if self.restored else ""
        return f"{self.name} changed from {self.before} to {self.after}{put_back}"


@dataclass(frozen=True, slots=True)
class Observed:
    """What was seen of one load, beside its outcome.

    Args:
        device: where the model is, by its own ``device``; None where it does not say.
        memory_bytes: what it holds, by its own ``memory_bytes()``; None where it does not say.
        warnings: what the load told with ``report_warning``.
        changes: process-wide state that it left behind changed.
        overlapped: whether other loads ran meanwhile, so that the changes may be theirs.
        warmup_seconds: how much of the load was its ``warmup``; None where none ran.
    """

    device: str | None = None
    memory_bytes: int | None = None
    warnings: tuple[str, ...] = ()
    changes: tuple[GlobalChange, ...] = ()
    overlapped: bool = False
    warmup_seconds: float | None = None


NOTHING_OBSERVED = Observed()


@dataclass(frozen=True, slots=True)
class Attempt:
    """One backend's turn at one model.

    Args:
        backend: the backend's type, ``"LOCAL"``.
        outcome: how the turn ended; ``skipped`` means that nothing was run.
        reason: why it did not load, for a person to read; empty when it loaded.
        implementation: the class whose ``load`` ran, as ``package.module.Class``.
        queue_seconds: time from being ready to run until a worker thread took it.
        load_seconds: time in the worker thread; None when nothing was run.
        stack: the innermost frames as text: of the error for ``raised``, of the thread that was
            still running for ``timed_out`` and ``stalled``.
        error: the exception that ``load`` raised, its frames cleared. It does not take part in
            comparisons, and a pickled attempt leaves it behind: exceptions of other libraries
            often do not survive pickling, and the text of it is in ``reason``.
        observed: what else was seen of it.
    """

    backend: str
    outcome: Outcome
    reason: str = ""
    implementation: str | None = None
    queue_seconds: float = 0.0
    load_seconds: float | None = None
    stack: str | None = field(default=None, repr=False)
    error: BaseException | None = field(default=None, repr=False, compare=False)
    observed: Observed = field(default=NOTHING_OBSERVED, repr=False)

    def __reduce__(self) -> tuple[Any, ...]:
        return Attempt, (
            self.backend,
            self.outcome,
            self.reason,
            self.implementation,
            self.queue_seconds,
            self.load_seconds,
            self.stack,
            None,
            self.observed,
        )

    def __str__(self) -> str:
        """The attempt as one row of a report: ``GPU  raised  MemoryError: ... (0.41 s)``."""
        words = [self.backend, self.outcome.replace("_", " "), one_line(self.reason)]
        row = "  ".join(word for word in words if word)
        if self.load_seconds is None or self.outcome in ("timed_out", "stalled"):
            return row
        return f"{row} ({seconds(self.load_seconds)})"


@dataclass(frozen=True, slots=True)
class LoadReport:
    """How one model came to be loaded, or not.

    Args:
        model: the name or path that was asked for.
        module_id: the module that loads it; None when the model was never resolved.
        backend: the type of the backend that loaded it; None when none did.
        attempts: every backend's turn, in order.
        queue_seconds: time spent waiting for a slot, a group or an import.
        load_seconds: time spent in worker threads, over all attempts.
        total_seconds: time from the first request to the outcome.
    """

    model: str
    module_id: str | None
    backend: str | None
    attempts: tuple[Attempt, ...]
    queue_seconds: float
    load_seconds: float
    total_seconds: float

    @property
    def observed(self) -> Observed:
        """What was seen of the load that gave the model; of the last one, where none did."""
        return self.attempts[-1].observed if self.attempts else NOTHING_OBSERVED

    def __str__(self) -> str:
        """The report as a person reads it: one line of outcome, then one line per attempt."""
        what = f"loaded on {self.backend}" if self.backend else "not loaded"
        lines = [f"{one_line(self.model, LONGEST_NAME)}: {what} in {seconds(self.total_seconds)}"]
        return "\n".join(lines + attempt_rows(self.attempts))


@dataclass(frozen=True, slots=True)
class StuckLoad:
    """A load that is past its limit and whose thread is still running.

    Args:
        model: the name or path that was asked for.
        backend: the type of the backend it runs on.
        age: seconds since the load started.
        abandoned: True when nobody waits for the thread and its slot is free again; False when
            it is overdue and still on its slot.
        stack: the innermost frames of the thread, newest last, as ``file.py:88 read_block``.
    """

    model: str
    backend: str
    age: float
    abandoned: bool
    stack: str

    def __str__(self) -> str:
        state = "abandoned" if self.abandoned else "overdue"
        where = f", in {innermost(self.stack)}" if self.stack else ""
        told = f"{state}, running for {seconds(self.age)}"
        return f"{quoted(self.model)} on {self.backend}, {told}{where}"


@dataclass(frozen=True, slots=True)
class Statistics:
    """What an initializer is doing now, and what it has done.

    Args:
        slots: how many loads may run at once (``max_concurrent_loads``).
        free_slots: how many of them are free.
        waiters: callers that wait for a model.
        flights: loads that are not settled, in whatever phase.
        resolving: flights whose model is still being looked up on disk.
        preparing: flights that wait for an import (``prepare``) or for a backend to start.
        queued: flights that wait for a slot, a group or the lane of ``holds_gil``.
        running: loads in a thread, within their limits.
        overdue: loads in a thread, past their limit, still on their slot.
        abandoned: loads in a thread that nobody waits for; their slots are free.
        stuck_lookups: models that are being looked up on disk, in a thread each, for nobody.
        stuck_preparations: imports, and starts of backends, past their limit, in a thread each.
        releasing: discarded models whose ``release`` waits or runs.
        threads: worker threads alive, idle ones included.
        loaded: flights that ended with a model, since the initializer was made.
        failed: flights that ended with an error.
        cancelled: flights that every caller left before they ended.
        discarded: models that were loaded and that nobody could use any more.
    """

    slots: int
    free_slots: int
    waiters: int
    flights: int
    resolving: int
    preparing: int
    queued: int
    running: int
    overdue: int
    abandoned: int
    stuck_lookups: int
    stuck_preparations: int
    releasing: int
    threads: int
    loaded: int
    failed: int
    cancelled: int
    discarded: int


def attempt_rows(attempts: tuple[Attempt, ...]) -> list[str]:
    """Return the attempts as aligned, numbered lines."""
    width = max((len(attempt.backend) for attempt in attempts), default=0)
    outcome_width = max((len(attempt.outcome) for attempt in attempts), default=0)
    rows = []
    for number, attempt in enumerate(attempts, 1):
        outcome = attempt.outcome.replace("_", " ")
        row = f"  {number}. {attempt.backend:<{width}}  {outcome:<{outcome_width}}  "
        row += one_line(attempt.reason)
        if attempt.load_seconds is not None and attempt.outcome not in ("timed_out", "stalled"):
            row += (
                f" ({seconds(attempt.load_seconds)})"
                if attempt.reason
                else (f"in {seconds(attempt.load_seconds)}")
            )
        rows.append(row.rstrip())
    return rows


def innermost(stack: str) -> str:
    """Return the newest frame of a stack summary."""
    return stack.rsplit("\n", 1)[-1].strip()


def seconds(duration: float) -> str:
    """Return a duration as people write it: ``0.41 s``, ``30 s``, ``3 ms``."""
    if duration < 0.1:
        return f"{duration * 1000:.3g} ms"
    return f"{duration:.3g} s" if duration < 1000 else f"{duration:.0f} s"
