"""What the command line shows: the rows of its tables, and its JSON documents. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from ._load.plan import Candidate, Plan, Skip
from .bulk import LoadOutcome
from .errors import AnyloadError, describe
from .reports import Attempt, StuckLoad, seconds

Row = tuple[str, ...]

LOAD_COLUMNS = ("model", "module", "backend", "load", "queued", "attempts")
PLAN_COLUMNS = ("model", "module", "backend", "decision", "implementation or reason")

JSON_KEYS = """\
the document of load --json:
  config, seconds
  models     of each: model, loaded, module_id, backend, load_seconds, queue_seconds,
             total_seconds, error
    attempts   of each: backend, outcome, reason, implementation, load_seconds, queue_seconds
  abandoned  loads that never ended; of each: model, backend, age, stack
the document of plan --json:
  config
  models     of each: model, loadable, module_id, error
    steps      of each: backend, decision (try or skip), implementation, reason
module_id, backend, error, implementation and the load_seconds of an attempt may be null. An
outcome is loaded, skipped, declined, raised, timed_out, stalled or cancelled."""


class Planned(NamedTuple):
    """What came of planning one model: a plan, or why there is none."""

    model: str
    plan: Plan | None
    error: AnyloadError | None

    @property
    def loadable(self) -> bool:
        """Whether there is a backend to try."""
        return self.plan is not None and bool(self.plan.candidates)


def error_text(error: Exception) -> str:
    """Return what to tell of an error: our own are made to be read, others need their type."""
    return str(error) if isinstance(error, AnyloadError) else describe(error)


def load_rows(outcomes: Iterable[LoadOutcome]) -> list[Row]:
    """Return one row per model, for ``LOAD_COLUMNS``."""
    return [_load_row(outcome) for outcome in outcomes]


def _load_row(outcome: LoadOutcome) -> Row:
    report = outcome.report
    return (
        report.model,
        report.module_id or "-",
        report.backend or "-",
        seconds(report.load_seconds),
        seconds(report.queue_seconds),
        _attempts_cell(report.attempts) or _one_line(outcome.error),
    )


def _attempts_cell(attempts: Sequence[Attempt]) -> str:
    failed = [attempt for attempt in attempts if attempt.outcome != "loaded"]
    told = "; ".join(_one_line(attempt) for attempt in failed)
    return f"{len(attempts)}: {told}" if told else str(len(attempts) or "")


def plan_rows(planned: Iterable[Planned]) -> list[Row]:
    """Return one row per backend of each model, for ``PLAN_COLUMNS``."""
    return [row for one in planned for row in _rows_of_plan(one)]


def _rows_of_plan(planned: Planned) -> list[Row]:
    if planned.plan is None:
        return [(planned.model, "-", "-", "error", _one_line(planned.error))]
    return [
        (planned.model, planned.plan.module_id, step.backend_type, *_decision(step))
        for step in planned.plan.steps
    ]


def _decision(step: Candidate | Skip) -> tuple[str, str]:
    if isinstance(step, Candidate):
        return "try", step.implementation.name
    return "skip", _one_line(step.reason)


def _one_line(told: object) -> str:
    """Return a text without the line breaks and tabs that would break its row."""
    return "" if told is None else " ".join(str(told).split())


def plain_table(columns: Row, rows: Sequence[Row]) -> str:
    """Return a table as aligned lines; its last column may be as long as it likes."""
    widths = [max(map(len, cells)) for cells in zip(columns, *rows, strict=True)]
    rule = tuple("-" * len(column) for column in columns)
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in (columns, rule, *rows)
    )


def load_document(
    config: str, outcomes: Sequence[LoadOutcome], abandoned: Iterable[StuckLoad], elapsed: float
) -> dict[str, Any]:
    """Return what ``anyload load --json`` prints; its keys are promised in ``--help``."""
    return {
        "config": config,
        "seconds": elapsed,
        "models": [_load_entry(outcome) for outcome in outcomes],
        "abandoned": [
            {"model": load.model, "backend": load.backend, "age": load.age, "stack": load.stack}
            for load in abandoned
        ],
    }


def _load_entry(outcome: LoadOutcome) -> dict[str, Any]:
    report = outcome.report
    return {
        "model": report.model,
        "loaded": outcome.error is None,
        "module_id": report.module_id,
        "backend": report.backend,
        "load_seconds": report.load_seconds,
        "queue_seconds": report.queue_seconds,
        "total_seconds": report.total_seconds,
        "error": outcome.error and error_text(outcome.error),
        "attempts": [
            {
                "backend": attempt.backend,
                "outcome": attempt.outcome,
                "reason": attempt.reason,
                "implementation": attempt.implementation,
                "load_seconds": attempt.load_seconds,
                "queue_seconds": attempt.queue_seconds,
            }
            for attempt in report.attempts
        ],
    }


def plan_document(config: str, planned: Iterable[Planned]) -> dict[str, Any]:
    """Return what ``anyload plan --json`` prints; its keys are promised in ``--help``."""
    return {"config": config, "models": [_plan_entry(one) for one in planned]}


def _plan_entry(planned: Planned) -> dict[str, Any]:
    plan = planned.plan
    return {
        "model": planned.model,
        "loadable": planned.loadable,
        "module_id": plan and plan.module_id,
        "error": planned.error and error_text(planned.error),
        "steps": [_step_entry(step) for step in plan.steps] if plan else [],
    }


def _step_entry(step: Candidate | Skip) -> dict[str, Any]:
    tried = isinstance(step, Candidate)
    return {
        "backend": step.backend_type,
        "decision": "try" if tried else "skip",
        "implementation": step.implementation.name if isinstance(step, Candidate) else None,
        "reason": step.reason if isinstance(step, Skip) else "",
    }
