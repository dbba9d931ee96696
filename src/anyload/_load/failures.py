"""What flights end with: each a function that makes the error anew for each caller.

Callers must not share an instance: raising it changes its traceback.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable

from ..errors import AnyloadError, ClosedError, LoadError, LoadTimeoutError, SaturatedError
from ..reports import StuckLoad
from .flight import Flight, Turn
from .stacks import thread_stack

Failure = Callable[[], Exception]


def no_backend(flight: Flight, cause: BaseException | None = None) -> Failure:
    """Return what makes the error of a flight for which no backend is left."""
    return _load_error(flight, LoadError, cause)


def too_late(flight: Flight, limit: float) -> Failure:
    """Return what makes the error of a flight that passed ``load_timeout``."""
    return _load_error(flight, lambda *args: LoadTimeoutError(*args, limit=limit))


def closed(flight: Flight) -> Failure:
    """Return what makes the error of a flight that a close has ended."""
    model = flight.model
    return lambda: ClosedError(model)


def saturated(flight: Flight, stuck: tuple[StuckLoad, ...]) -> Failure:
    """Return what makes the error of a flight that finds every slot overdue."""
    model = flight.model
    return lambda: SaturatedError(model, stuck)


def stuck_loads(turns: Iterable[Turn], now: float) -> tuple[StuckLoad, ...]:
    """Describe loads that are past their limit."""
    return tuple(
        StuckLoad(
            turn.flight.model,
            turn.candidate.backend_type,
            now - turn.started,
            turn.phase == "abandoned",
            thread_stack(turn.thread_id),
        )
        for turn in turns
    )


def again(error: Exception) -> Failure:
    """Return what makes an error that was raised once, if it is one of ours."""

    def make() -> Exception:
        if not isinstance(error, AnyloadError):
            return error
        fresh = copy.copy(error)
        fresh.__cause__ = error.__cause__
        return fresh

    return make


def _load_error(
    flight: Flight, kind: Callable[..., LoadError], cause: BaseException | None = None
) -> Failure:
    # The flight itself must not be kept: it leads to the callers.
    model, attempts, report = flight.model, flight.attempts, flight.report()
    raised = (attempt.error for attempt in reversed(attempts))
    cause = cause or next((error for error in raised if error is not None), None)

    def make() -> Exception:
        error = kind(model, report.module_id, attempts, report)
        error.__cause__ = cause
        return error

    return make
