"""What a repository holds, as ``anyload load --keep`` shows it: rows and JSON documents. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ._keeping.index import ModelStatus
from ._reading.amounts import bytes_text
from ._tables import Row
from ._text import one_line
from .events import StateChanged
from .reports import seconds

LISTING_COLUMNS = (
    *("name", "version", "state", "backend", "device", "memory", "leases", "idle", "reason"),
)
SINGLE_WIDTHS = (4, 7, 11, 7, 8, 10, 6, 7, 0)
"""How wide the columns are at least where rows are shown one by one."""

LISTING_KEYS = """\
each document of load --keep --json is one change, on a line of its own:
  seconds    since the beginning
  name, version, before and phase (known, queued, waiting, fetching, loading, warming, active,
  draining, releasing, unloaded or failed), reason,
  state (UNKNOWN, LOADING, READY, UNLOADING or UNAVAILABLE)
  backend, device, memory (bytes by device), leases, idle_seconds
             of what is READY or UNLOADING; null where the next change has come already"""


def listing_rows(statuses: Iterable[ModelStatus]) -> list[Row]:
    """Return one row per version of each model, for ``LISTING_COLUMNS``."""
    return [_row(status, status.state, status.reason) for status in statuses]


def change_row(change: StateChanged, statuses: Sequence[ModelStatus]) -> Row:
    """Return the row of a model after a change of it, for ``LISTING_COLUMNS``."""
    status = _after(change, statuses)
    if status is None:
        name, reason = one_line(change.model), one_line(change.reason)
        return (name, change.version, change.state, *["-"] * 5, reason)
    return _row(status, change.state, change.reason)


def change_document(
    change: StateChanged, statuses: Sequence[ModelStatus], began: float
) -> dict[str, Any]:
    """Return what ``anyload load --keep --json`` prints of a change; see ``--help``."""
    status = _after(change, statuses)
    return {
        "seconds": change.at - began,
        "name": change.model,
        "version": change.version,
        "before": change.before,
        "phase": change.phase,
        "state": change.state,
        "reason": change.reason,
        "backend": status and status.backend,
        "device": status and _device(status),
        "memory": status and dict(status.memory),
        "leases": status and status.leases,
        "idle_seconds": status and status.idle_seconds,
    }


def aligned(row: Row, names: Iterable[str]) -> str:
    """Return one row as a line, aligned with those of other models.

    Args:
        row: the row.
        names: the names of all the models.
    """
    widths = max([SINGLE_WIDTHS[0], *map(len, names)]), *SINGLE_WIDTHS[1:]
    return "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


def _after(change: StateChanged, statuses: Sequence[ModelStatus]) -> ModelStatus | None:
    """Return how a loaded model is, if that is what it was after the change."""
    wanted = change.model, change.version, change.phase
    loaded = (one for one in statuses if one.report is not None)
    return next((one for one in loaded if (one.name, one.version, one.phase) == wanted), None)


def _row(status: ModelStatus, state: str, reason: str) -> Row:
    idle, report = status.idle_seconds, status.report
    return (
        one_line(status.name),
        status.version,
        state,
        status.backend or "-",
        _device(status) or "-",
        _memory(status.memory) or "-",
        "-" if report is None else str(status.leases),
        "-" if idle is None else seconds(idle),
        one_line(reason),
    )


def _device(status: ModelStatus) -> str | None:
    return None if status.report is None else status.report.observed.device


def _memory(memory: Mapping[str, int]) -> str:
    if len(memory) == 1:
        return bytes_text(*memory.values())
    return ", ".join(f"{bytes_text(size)} {device}" for device, size in memory.items())
