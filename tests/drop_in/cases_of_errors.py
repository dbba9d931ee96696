"""What a load that fails raises, and with what around it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from worlds import Call, Cases, Outcome, World, gives, raises

from anyload import LoadCancelled, LoadError

CASES = Cases()


class Custom(BaseException):
    """An error that ``except Exception`` does not catch."""


class Many(Exception):
    """An error with a constructor and attributes of its own."""

    def __init__(self, code: int, *, reason: str) -> None:
        super().__init__(f"{code}: {reason}")
        self.code = code


class Silent(Exception):
    """An error that has no text."""

    def __str__(self) -> str:
        raise ValueError("there is no text")


@dataclass
class Record(Exception):
    """An error that is equal to others."""

    code: int


@dataclass(frozen=True)
class Frozen(Exception):
    """An error that lets nothing be set."""

    code: int


ERRORS: dict[str, Callable[[], BaseException]] = {
    "value": lambda: ValueError("it is damaged"),
    "own_constructor": lambda: Many(3, reason="it is damaged"),
    "key": lambda: KeyError("labels"),
    "file": lambda: FileNotFoundError(2, "No such file", "weights.bin"),
    "memory": MemoryError,
    "recursion": RecursionError,
    "timeout": lambda: TimeoutError("the store is slow"),
    "percent": lambda: ValueError("%s of %d {} {0}"),
    "group": lambda: ExceptionGroup("two", [ValueError("one"), KeyError("two")]),
    "equal": lambda: Record(1),
    "frozen": lambda: Frozen(1),
    "load_error": lambda: LoadError("another"),
    "stop": lambda: StopIteration("a value"),
    "stop_async": lambda: StopAsyncIteration("a value"),
}
BEYOND: dict[str, Callable[[], BaseException]] = {
    "interrupt": KeyboardInterrupt,
    "exit": lambda: SystemExit(3),
    "generator_exit": lambda: GeneratorExit("enough"),
    "custom": lambda: Custom("enough"),
    "cancelled": lambda: asyncio.CancelledError("enough"),
    "load_cancelled": lambda: LoadCancelled("enough"),
    "group": lambda: BaseExceptionGroup("two", [Custom("one"), ValueError("two")]),
}


def during(handled: BaseException, do: Callable[[], Outcome]) -> Outcome:
    """Do something where an error is being handled."""
    try:
        raise handled
    except BaseException:
        return do()


@CASES.each(**ERRORS)
def the_first_call_raises(world: World, error: Callable[[], BaseException]) -> None:
    """After any Exception there is a second call, with the path."""
    module = world.module(does=raises(error()))
    assert world.load().model
    assert world.calls(module) == 2


@CASES.each(**ERRORS)
def both_calls_raise(world: World, error: Callable[[], BaseException]) -> None:
    """What the second call raises gets out, as it is, in the context of the first."""
    first, second = world.named(error(), "first"), world.named(error(), "second")
    world.module(does=raises(first, second))
    assert world.load().error is second
    assert world.load().model


@CASES.each(**ERRORS)
def both_calls_raise_while_another_is_handled(
    world: World, error: Callable[[], BaseException]
) -> None:
    """... and behind that is what the caller is handling."""
    world.module(does=raises(error(), error()))
    assert during(OSError("the cache is gone"), world.load).error
    assert world.load().model


@CASES.each(**BEYOND)
def the_first_call_raises_beyond(world: World, error: Callable[[], BaseException]) -> None:
    """What is no Exception gets out of the first call as it is; the next load is unharmed."""
    given = world.named(error(), "the error")
    module = world.module(does=raises(given))
    assert world.load().error is given
    assert world.calls(module) == 1
    assert world.load().model


@CASES.each(**BEYOND)
def the_second_call_raises_beyond(world: World, error: Callable[[], BaseException]) -> None:
    """... and out of the second one likewise."""
    world.module(does=raises(ValueError("with the config"), error()))
    assert during(OSError("the cache is gone"), world.load).error
    assert world.load().model


@CASES
def no_other_backend_is_tried(world: World) -> None:
    """A load that fails is not followed by another backend."""
    world.backend_type("GPU")
    errors = ValueError("with the config"), ValueError("with the path")
    world.module("GPU", does=raises(*errors), SUPPORTED_LOAD_BACKENDS=["LOCAL"])
    other = world.module()
    world.make("GPU", "LOCAL")
    assert world.load().error is errors[1]
    assert not world.calls(other)


@CASES
def one_error_again_and_again(world: World) -> None:
    """A module may raise the same object each time."""
    error = world.named(ValueError("always"), "the error")
    world.module(does=raises(*[error] * 6))
    for _ in range(3):
        world.load()
    assert world.load().model


@CASES
def one_error_while_it_is_handled(world: World) -> None:
    """A caller may be handling what the module raises again."""
    error = world.named(ValueError("always"), "the error")
    world.module(does=raises(error, error))
    assert during(error, world.load).error is error


@CASES
def errors_that_are_equal(world: World) -> None:
    """Errors that are equal are still told apart."""

    def does(call: Call) -> Any:
        try:
            raise Record(1)
        except Record:
            raise Record(1)  # noqa: B904  # its context is what is looked at

    world.module(does=does)
    during(Record(1), world.load)


@CASES
def a_load_that_handles_and_raises(world: World) -> None:
    """What a load was handling when it raised stays behind its error."""

    def does(call: Call) -> Any:
        try:
            try:
                raise KeyError("the innermost")
            except KeyError as error:
                raise OSError("no file") from error
        except OSError as error:
            error.add_note("a note")
            if call.number == 1:
                raise ValueError("with the config") from None
            raise ValueError("with the path") from KeyError("made for this")

    world.module(does=does)
    during(LookupError("the outermost"), world.load)


@CASES
def an_error_with_a_context_already(world: World) -> None:
    """A context that the module has set is kept."""
    error = ValueError("with the path")
    error.__context__ = KeyError("set by hand")
    world.module(does=raises(None, error))
    world.load()
    during(LookupError("handled"), world.load)


@CASES
def errors_in_errors(world: World) -> None:
    """A caller that handles an error with a context of its own."""

    def load() -> Outcome:
        return during(OSError("the cache is gone"), world.load)

    world.module(does=raises(ValueError("one"), ValueError("two")))
    during(LookupError("the outermost"), load)


@CASES
def an_error_without_text(world: World) -> None:
    """An error whose text cannot be had gets out all the same."""
    world.module(does=raises(GeneratorExit(Silent())))
    world.load()


@CASES
def no_model_while_another_is_handled(world: World) -> None:
    """The TypeError for what is no model has the context of its caller."""
    world.module(does=gives(None))
    during(OSError("the cache is gone"), world.load)


@CASES
def no_model_from_the_second_call(world: World) -> None:
    """The first error is handled once the second call has returned, be it nothing."""

    def does(call: Call) -> Any:
        if call.number == 1:
            raise ValueError("with the config")

    module = world.module(does=does)
    assert isinstance(world.load().error, TypeError)
    assert world.calls(module) == 2


@CASES.each(error=lambda: ValueError("not on this backend"), beyond=lambda: Custom("no"))
def set_load_backend_raises(world: World, error: Callable[[], BaseException]) -> None:
    """A model that does not take its backend is an error, without a second call."""
    given = error()

    def refuse(self: Any, backend: Any) -> None:
        world.note("told", backend)
        raise given

    module = world.module(set_load_backend=refuse)
    assert world.load().error is given
    assert during(OSError("the cache is gone"), world.load).error is given
    assert world.calls(module) == 2


@CASES
def the_traceback_leads_to_the_module(world: World) -> None:
    """Where a load has failed is in the traceback of what it raised."""

    def deep_in_the_module(call: Call) -> Any:
        raise ValueError("it is damaged")

    world.module(does=deep_in_the_module)
    error = world.load().error
    assert error is not None
    names = []
    traceback = error.__traceback__
    while traceback is not None:
        names.append(traceback.tb_frame.f_code.co_name)
        traceback = traceback.tb_next
    world.note(names[0], names[-3:])


CHECKS_OFF: dict[str, Any] = {
    "nothing": lambda: None,
    "no_model": lambda: "a model",
}


@CASES.each(**CHECKS_OFF)
def checks_are_off_and_load_returns(world: World, result: Any) -> None:
    """With caikit's checks off, None goes on to the next backend, and anything may be a model."""
    world.backend_type("GPU")
    world.module("GPU", does=gives(result()), SUPPORTED_LOAD_BACKENDS=["LOCAL"])
    world.module()
    world.make("GPU", "LOCAL")
    with world.setting(enable_error_checks=False):
        world.load()


@CASES
def checks_are_off_and_load_returns_a_double(world: World) -> None:
    """... as long as it takes its backend."""

    class Double:
        def set_load_backend(self, backend: Any) -> None:
            world.note("told", backend)

    world.module(does=gives(Double()))
    with world.setting(enable_error_checks=False):
        assert world.load().model


@CASES
def checks_are_off_and_nothing_loads(world: World) -> None:
    """... and where every backend gives None, so does the initializer."""
    world.module(does=gives(None))
    with world.setting(enable_error_checks=False):
        assert world.load().error is None
