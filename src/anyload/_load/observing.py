"""What is seen of a load beside its outcome; runs in the load's thread, around the load."""

from __future__ import annotations

import logging
import operator
from collections.abc import Sequence
from typing import Any

from .._reading.amounts import MOST_BYTES
from .._reading.problems import shown
from ..guard import ProcessGlobal, Snapshot
from ..reports import NOTHING_OBSERVED, Observed
from .flight import Turn

logger = logging.getLogger("anyload.loads")


class Observing:
    """One load, being observed.

    Args:
        turn: the turn whose load it is.
        watched: the process-wide state to look at before and after; none for most loads.
    """

    __slots__ = ("_snapshot", "_turn")

    def __init__(self, turn: Turn, watched: Sequence[ProcessGlobal]) -> None:
        self._turn = turn
        self._snapshot = Snapshot(watched) if watched else None

    def end(self, value: Any) -> Observed:
        """Return what was seen, when the load has ended with this value, or with None.

        Process-wide state that has changed is put back if no other load ran meanwhile: else it
        may have been that one, and may be what that one needs.
        """
        try:
            return self._end(value)
        except BaseException:
            # A model's own code was asked: whatever it raises, the load has ended as it has.
            logger.exception(
                "what the load of %r came to was not observed", self._turn.flight.model
            )
            return NOTHING_OBSERVED

    def _end(self, value: Any) -> Observed:
        device, size = _device(value), _memory_bytes(value, self._turn.flight.model)
        changes = self._snapshot.changes() if self._snapshot else []
        warmed = self._turn.warmup_seconds
        seen = device or size is not None or warmed is not None
        if not (seen or changes or self._turn.warnings):
            return NOTHING_OBSERVED
        alone = bool(changes) and self._turn.turns.inside.may_restore(self._turn)
        if alone:
            for change in changes:
                change.restore()
        told = tuple(change.told() for change in changes)
        overlapped = bool(changes) and not alone
        return Observed(device, size, tuple(self._turn.warnings), told, overlapped, warmed)


def _device(value: Any) -> str | None:
    try:
        device = getattr(value, "device", None)
        return None if device is None else str(device)
    except Exception:  # a property that is about something else
        return None


def _memory_bytes(value: Any, model: str) -> int | None:
    """Return what a model says that it holds, if that can be: a budget would believe it."""
    measure = getattr(value, "memory_bytes", None)
    if not callable(measure) or isinstance(value, type):
        return None
    try:
        said = measure()
    except Exception:
        logger.exception("memory_bytes of a %s raised", type(value).__qualname__)
        return None
    try:
        size = -1 if isinstance(said, bool) else operator.index(said)  # of numpy too
    except Exception:
        size = -1
    if 0 <= size <= MOST_BYTES:
        return size
    logger.warning(
        "memory_bytes of %r is not counted: %s is no number of bytes, 0 to %d",
        model,
        shown(said),
        MOST_BYTES,
    )
    return None
