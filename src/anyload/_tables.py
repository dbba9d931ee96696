"""What the command line shows: the rows of its tables, and its JSON documents. Pure."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any, NamedTuple

from ._children import Unfinished
from ._load.plan import Candidate, Plan, Skip
from ._text import one_line
from .bulk import LoadOutcome
from .doctor import Alone, Diagnosis, Together
from .errors import AnyloadError, describe
from .reports import Attempt, StuckLoad, seconds

Row = tuple[str, ...]

LOAD_COLUMNS = ("model", "module", "backend", "device", "memory", "load", "queued", "attempts")
PLAN_COLUMNS = ("model", "module", "backend", "decision", "implementation or reason")
DOCTOR_COLUMNS = (
    *("model", "verdict", "declare", "declared", "import", "load", "gap", "GIL"),
    *("memory", "kept", "left", "at once"),
)

JSON_KEYS = """\
the document of load --json:
  config, seconds
  models     of each: model, loaded, module_id, backend, load_seconds, queue_seconds,
             total_seconds, warmup_seconds, error, device, memory_bytes, warnings, changes (of
             process-wide state, as text)
    attempts   of each: backend, outcome, reason, implementation, load_seconds, queue_seconds
  abandoned  loads that never ended; of each: model, backend, age, stack
the document of plan --json:
  config
  models     of each: model, loadable, module_id, error
    steps      of each: backend, decision (try or skip), implementation, reason
the document of doctor --json:
  config, seconds
  models       of each: model, verdict (ok, declare or failed), remarks (sentences)
    declare    what is to be declared and is not: exclusive_group, holds_gil
    alone      loads one after another; module_id, backend, implementation,
               exclusive_group, holds_gil (as declared), gil (held, not held or too short),
               prepare_seconds, first_seconds, load_seconds and gaps (of each later load),
               memory_before, memory_loaded, memory_released (bytes), threads_left,
               files_left, changes
    together   loads at once; loads, at_once, unsafe, errors, wrong, changes, afterwards
               both, where they came to no end: how (failed, crashed or hung), reason
module_id, backend, warmup_seconds, error, device, memory_bytes, implementation, the load_seconds
of an attempt, and doctor's models together, exclusive_group, the figures of memory and files_left
may be null.
An outcome is loaded, skipped, declined, raised, timed_out, stalled or cancelled."""


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
        report.observed.device or "-",
        _megabytes(report.observed.memory_bytes),
        seconds(report.load_seconds),
        seconds(report.queue_seconds),
        _attempts_cell(report.attempts) or flat(outcome.error),
    )


def _attempts_cell(attempts: Sequence[Attempt]) -> str:
    failed = [attempt for attempt in attempts if attempt.outcome != "loaded"]
    told = "; ".join(flat(attempt) for attempt in failed)
    return f"{len(attempts)}: {told}" if told else str(len(attempts) or "")


def plan_rows(planned: Iterable[Planned]) -> list[Row]:
    """Return one row per backend of each model, for ``PLAN_COLUMNS``."""
    return [row for one in planned for row in _rows_of_plan(one)]


def _rows_of_plan(planned: Planned) -> list[Row]:
    if planned.plan is None:
        return [(planned.model, "-", "-", "error", flat(planned.error))]
    return [
        (planned.model, planned.plan.module_id, step.backend_type, *_decision(step))
        for step in planned.plan.steps
    ]


def _decision(step: Candidate | Skip) -> tuple[str, str]:
    if isinstance(step, Candidate):
        return "try", step.implementation.name
    return "skip", flat(step.reason)


def flat(told: object) -> str:
    """Return a text of several lines as one, in which nothing does anything to a terminal."""
    return "" if told is None else whole(" ".join(str(told).split()))


def whole(text: str) -> str:
    """Return a text as one line, however long: what cannot be printed is escaped."""
    return one_line(text, len(text))


def plain_table(columns: Row, rows: Sequence[Row]) -> str:
    """Return a table as aligned lines; its last column may be as long as it likes."""
    shown = [tuple(map(whole, row)) for row in rows]
    widths = [max(map(len, cells)) for cells in zip(columns, *shown, strict=True)]
    rule = tuple("-" * len(column) for column in columns)
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in (columns, rule, *shown)
    )


def paragraphs(columns: Row, rows: Sequence[Row], width: int) -> str:
    """Return what is in a table for where there is no room for one: a paragraph for each row."""
    return "\n".join(_paragraph(columns, row, width) for row in rows)


def _paragraph(columns: Row, row: Row, width: int) -> str:
    name, *cells = map(whole, row)
    known = (f"{what} {cell}" for what, cell in zip(columns[1:], cells, strict=True) if cell != "-")
    return "\n  ".join([name, *textwrap.wrap(", ".join(known), width - 2)])


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
        "warmup_seconds": report.observed.warmup_seconds,
        "error": outcome.error and error_text(outcome.error),
        "device": report.observed.device,
        "memory_bytes": report.observed.memory_bytes,
        "warnings": list(report.observed.warnings),
        "changes": [str(change) for change in report.observed.changes],
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


def doctor_rows(diagnoses: Iterable[Diagnosis]) -> list[Row]:
    """Return one row per model, for ``DOCTOR_COLUMNS``."""
    return [_doctor_row(diagnosis) for diagnosis in diagnoses]


def _doctor_row(diagnosis: Diagnosis) -> Row:
    alone, together = diagnosis.alone, diagnosis.together
    declare = ", ".join(diagnosis.declare) or "-"
    if isinstance(alone, Unfinished):
        return (diagnosis.model, diagnosis.verdict, declare, *["-"] * 8, alone.how)
    return (
        diagnosis.model,
        diagnosis.verdict,
        declare,
        _declared_cell(alone),
        seconds(alone.prepare_seconds),
        seconds(alone.usual_seconds),
        seconds(alone.longest_gap),
        alone.gil,
        _megabytes(alone.memory_taken),
        _megabytes(alone.memory_kept),
        ", ".join(alone.leaks) or "-",
        _together_cell(together),
    )


def _declared_cell(alone: Alone) -> str:
    declared = [alone.exclusive_group, "holds_gil" if alone.holds_gil else None]
    return ", ".join(filter(None, declared)) or "-"


def _together_cell(together: Together | Unfinished | None) -> str:
    if together is None:
        return "-"
    if isinstance(together, Unfinished):
        return together.how
    # Never "safe": what was not seen may still be there.
    return "unsafe" if together.unsafe else f"seen fine in {together.loads} loads"


def _megabytes(size: int | None) -> str:
    return "-" if size is None else f"{size / (1 << 20):.0f} MB"


def diagnosis_paragraph(diagnosis: Diagnosis) -> str:
    """Return what a person should know of a model; empty if there is nothing."""
    if not diagnosis.remarks:
        return ""
    text = flat(f"{whole(diagnosis.model)}: {' '.join(diagnosis.remarks)}")
    return "\n" + textwrap.fill(text, 100, subsequent_indent="  ")


def doctor_document(config: str, diagnoses: Sequence[Diagnosis], elapsed: float) -> dict[str, Any]:
    """Return what ``anyload doctor --json`` prints; its keys are promised in ``--help``."""
    return {
        "config": config,
        "seconds": elapsed,
        "models": [_doctor_entry(diagnosis) for diagnosis in diagnoses],
    }


def _doctor_entry(diagnosis: Diagnosis) -> dict[str, Any]:
    entry = asdict(diagnosis)
    if isinstance(diagnosis.alone, Alone):
        entry["alone"]["gil"] = diagnosis.alone.gil
    if isinstance(diagnosis.together, Together):
        entry["together"]["unsafe"] = diagnosis.together.unsafe
    return entry
