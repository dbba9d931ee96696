"""What runs in the worker thread: the module's own code, and what it can ask of anyload."""

from __future__ import annotations

import inspect
import logging
import sys
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

from .._reading.problems import shown
from ..errors import AnyloadError, LoadCancelled, WrongTypeError, describe
from ..model_config import ModelConfig
from ..reports import Outcome
from .flight import Files, Stage, Turn
from .observing import Observing
from .own_threads import leave_own_thread
from .result import Result
from .stacks import error_stack, forget_frames

logger = logging.getLogger("anyload.loads")

_current_turn: ContextVar[Turn | None] = ContextVar("anyload.turn", default=None)


def current_turn() -> Turn | None:
    """Return the turn whose load this code runs in, if it does."""
    turn = _current_turn.get()
    # The context may have been copied by something that outlives the load.
    return turn if turn is not None and turn.phase != "ended" else None


def check_cancelled() -> None:
    """Raise LoadCancelled if the load that this code runs in is no longer wanted.

    Call it from time to time in a long ``load``: it is how a load hears that every caller was
    cancelled, that its limit has passed, or that the initializer closes. Outside of a load it
    does nothing.

    Raises:
        LoadCancelled: let it pass. It ends the load; no other backend is tried.
    """
    turn = current_turn()
    if turn is not None:
        _check(turn)


def report_progress(fraction: float | None = None, stage: str | None = None) -> None:
    """Say that the load that this code runs in gets on; also does what `check_cancelled` does.

    The first report starts the clock of ``stall_timeout``, where that is set, and each one
    starts it again.

    Args:
        fraction: how much is done, 0 to 1, if that is known.
        stage: what is being done, in a word or two.

    Raises:
        LoadCancelled: as in `check_cancelled`.
    """
    turn = current_turn()
    if turn is not None:
        turn.turns.inside.report(turn, fraction, stage)
        _check(turn)


def report_warning(text: str | BaseException) -> None:
    """Put a warning into the report of the load that this code runs in: it loads, but.

    Outside of a load nothing is done with it.

    Args:
        text: what a person should know of this model, or an exception that says it; it is in
            `LoadReport.observed`.

    Raises:
        TypeError: it is neither.
    """
    if isinstance(text, BaseException):
        text = describe(text)
    if not isinstance(text, str):
        raise TypeError(f"a warning is text or an exception, not {shown(text)}")
    turn = current_turn()
    if turn is not None:
        turn.warnings += (str.__str__(text),)


def _check(turn: Turn) -> None:
    # Read without the lock first: nearly always the load is wanted.
    if turn.cancelled and turn.turns.inside.told_to_stop(turn):
        raise LoadCancelled(f"the load of {turn.flight.model!r} is no longer wanted")


def run_turn(turn: Turn, *, warmup: bool) -> Result:
    """Run the load of a turn and return what it came to; nothing it raises gets out."""
    context = turn.flight.context
    if context is None:  # settled before a thread took it
        return Result("cancelled", reason="nobody waits for it")
    observing = Observing(turn, turn.turns.restoring.watched(turn))
    result: Result = context.copy().run(_run_in_context, turn, warmup)
    # Now that every frame of it has ended. The tensors of a failed load must be gone before the
    # next backend starts.
    forget_frames(result.error)
    result.observed = observing.end(result.value)
    try:
        return result
    finally:
        # Whoever keeps its error keeps this frame, which its outermost frame leads to.
        del turn, observing, result


def _run_in_context(turn: Turn, warmup: bool) -> Result:
    _current_turn.set(turn)
    leave_own_thread()  # who asked may have done so in a hook on one
    _leave_event_loop()
    config, files = turn.flight.config, turn.flight.files
    assert config is not None
    try:
        if files is None:
            return _load(turn, config, warmup)
        return _load_from(files, turn, config, warmup)
    finally:
        del turn, config, files  # as in `run_turn`


def _load_from(files: Files, turn: Turn, config: ModelConfig, warmup: bool) -> Result:
    result: Result | None = None
    try:
        with files.opened(config) as fit:
            _reached(turn, "loading")
            result = _load(turn, fit, warmup)
    except BaseException as error:  # about the files: what the load raises is in its result
        if result is not None:
            _give_back(result.value)
        return failed(error, unfit=error if isinstance(error, AnyloadError) else None)
    assert result is not None
    try:
        return result
    finally:
        del files, turn, config, fit, result  # as in `run_turn`


def _load(turn: Turn, config: ModelConfig, warmup: bool) -> Result:
    candidate = turn.candidate
    try:
        value = candidate.implementation.load(config, candidate.choice.backend, turn.flight.kwargs)
        if value is None:
            return Result("declined", reason="load returned None")
        try:
            _require_type(value, turn)
            if warmup and callable(warm := getattr(value, "warmup", None)):
                _warm_up(warm, turn)
        except BaseException:
            _give_back(value)
            raise
        return Result("loaded", value)
    except BaseException as error:
        # SystemExit and KeyboardInterrupt included: what a module raises ends its attempt and
        # nothing more.
        return failed(error)


def _warm_up(warm: Callable[[], object], turn: Turn) -> None:
    _reached(turn, "warming")
    began = turn.turns.now()
    try:
        warm()
    finally:
        turn.warmup_seconds = turn.turns.now() - began


def _reached(turn: Turn, stage: Stage) -> None:
    # Read without the lock: it is set before the flight begins, and nearly always is not.
    if turn.flight.at is not None:
        turn.turns.inside.reached(turn, stage)


def failed(error: BaseException, unfit: AnyloadError | None = None) -> Result:
    """Return the result of a load that ended with an error; ``unfit`` is one about its files."""
    outcome: Outcome = "cancelled" if isinstance(error, LoadCancelled) else "raised"
    return Result(outcome, None, describe(error), error_stack(error), error, unfit)


def _require_type(value: Any, turn: Turn) -> None:
    accepted = turn.flight.plan.accepted if turn.flight.plan else ()
    forgotten = inspect.iscoroutine(value)
    if forgotten:
        value.close()
    if forgotten or not isinstance(value, accepted):
        what = (
            f"the class {value.__qualname__}"
            if isinstance(value, type)
            else f"a {type(value).__module__}.{type(value).__qualname__}"
        )
        expected = " or ".join(f"{cls.__module__}.{cls.__qualname__}" for cls in accepted)
        raise WrongTypeError(turn.candidate.implementation.name, what, f"an instance of {expected}")


def _give_back(value: Any) -> None:
    """Release a model that was loaded and then found unusable, where it was loaded."""
    try:
        release = getattr(value, "release", None)
        if callable(release) and not isinstance(value, type):
            release()
    except BaseException:
        # Whatever it is, SystemExit included: what made the model unusable is what is told.
        logger.exception("release of an unusable %s raised", type(value).__qualname__)


def _leave_event_loop() -> None:
    # The caller's context says "in asyncio"; this thread is not, and anyio.run() inside a load
    # would refuse. sniffio documents setting this variable; without it there is no such mark.
    sniffio = sys.modules.get("sniffio")
    if sniffio is not None:
        sniffio.current_async_library_cvar.set(None)
