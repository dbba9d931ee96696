"""What flights end with: each a function that makes the error anew for each caller.

Callers must not share an instance: raising it changes its traceback.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from functools import partial
from typing import TypeVar

from ..errors import ClosedError, LoadError, LoadTimeoutError, SaturatedError
from ..reports import StuckLoad
from .flight import Flight, Turn
from .stacks import thread_stack

Failure = Callable[[], Exception]
Raised = TypeVar("Raised", bound=BaseException)


def no_backend(flight: Flight, cause: BaseException | None = None) -> Failure:
    """Return what makes the error of a flight for which no backend is left."""
    return _load_error(flight, LoadError, cause)


def too_late(flight: Flight, limit: float, *, looked_up: bool) -> Failure:
    """Return what makes the error of a flight that passed ``load_timeout``, in a look-up or not."""
    waited = _waited(flight, looked_up)
    return _load_error(flight, lambda *args: LoadTimeoutError(*args, limit=limit, waited=waited))


def _waited(flight: Flight, looked_up: bool) -> str:
    """Return what a flight waits for, in words; nothing if it is its load."""
    match flight.phase:
        case "resolving":
            return f"it {'was still being' if looked_up else 'still waited to be'} looked up"
        case "preparing":
            return "it still waited for an import, or for its backend to start"
        case "queued":
            return "it still waited for its turn"
        case _:
            return ""


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
    """Return what makes an error anew that was raised once."""
    return partial(anew, error)


def anew(error: Raised) -> Raised:
    """Return a copy of an error that was raised, for one more caller to raise.

    It comes from the same, and its traceback leads to the same place. It is the error itself where
    its class makes something else out of its arguments.
    """
    try:
        fresh = copy.copy(error)
        if type(fresh) is not type(error) or str(fresh) != str(error):
            return error
    except KeyboardInterrupt:
        raise
    except BaseException:  # SystemExit of an odd class
        return error
    if hasattr(fresh, "__notes__"):
        put(fresh, "__notes__", list(fresh.__notes__))
    for name in ("__cause__", "__context__", "__suppress_context__"):
        put(fresh, name, getattr(error, name))
    return fresh.with_traceback(error.__traceback__)


def put(error: BaseException, name: str, value: object) -> None:
    """Set an attribute as Python itself does: the class of an error may refuse it, if frozen."""
    BaseException.__setattr__(error, name, value)


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
