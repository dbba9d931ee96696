"""Between the code inside a load and its initializer: what it tells, and what it can ask."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from ..errors import AnyloadError
from ..reports import NOTHING_OBSERVED, Observed, Outcome

if TYPE_CHECKING:
    from .flight import Stage, Turn


class Result:
    """What a load came to, as its thread tells it.

    Args:
        outcome: ``loaded``, ``declined``, ``raised`` or ``cancelled``.
        value: the model, for ``loaded``.
        reason: what was raised, as text.
        stack: the innermost frames of that, as text.
        error: what was raised, its frames cleared.
        unfit: the error of a model that no backend is to load; it ends the flight.

    ``observed`` is what else was seen of the load.
    """

    __slots__ = ("error", "observed", "outcome", "reason", "stack", "unfit", "value")

    def __init__(
        self,
        outcome: Outcome,
        value: Any = None,
        reason: str = "",
        stack: str | None = None,
        error: BaseException | None = None,
        unfit: AnyloadError | None = None,
    ) -> None:
        self.outcome: Outcome = outcome
        self.value = value
        self.reason = reason
        self.stack = stack
        self.error = error
        self.unfit = unfit
        self.observed: Observed = NOTHING_OBSERVED


class Inside(Protocol):
    """What the code inside a load can ask of its initializer."""

    def told_to_stop(self, turn: Turn) -> bool: ...

    def report(self, turn: Turn, fraction: float | None, stage: str | None) -> None: ...

    def reached(self, turn: Turn, stage: Stage) -> None: ...

    def may_restore(self, turn: Turn) -> bool: ...
