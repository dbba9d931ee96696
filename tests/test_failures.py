"""An error is made anew for each caller: what one adds to it is nothing to the others."""

from __future__ import annotations

import traceback
import weakref
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from anyload import Initializer, LoadError, ModelConfig, ModelNotFoundError, Registry
from anyload._load.failures import anew
from anyload.testing import raises


class Prefixed(Exception):
    """An error that is not what its class makes of its arguments."""

    def __init__(self, path: str) -> None:
        super().__init__(f"cannot read {path}")


class Named(Exception):
    """An error whose class makes nothing of its arguments."""

    def __init__(self, *, name: str) -> None:
        super().__init__(name)


@dataclass(frozen=True)
class Frozen(Exception):
    """An error that lets nothing be set."""

    code: int


class Guarded(Exception):
    """An error that lets nothing be set but what it is made of."""

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"cannot set {name}")


class Exits(Exception):
    """An error that ends whoever looks at it."""

    def __init__(self, kind: type[BaseException]) -> None:
        self._kind = kind

    def __reduce__(self) -> Any:
        raise self._kind


def raised(error: BaseException) -> BaseException:
    """Return an error that was raised while another was handled."""
    try:
        try:
            raise LookupError("handled")
        except LookupError:
            raise error from KeyError("the cause")
    except BaseException as caught:
        return caught


@pytest.mark.parametrize(
    "error",
    [
        lambda: ValueError("it is damaged"),
        lambda: OSError(2, "No such file", "weights.bin"),
        lambda: ExceptionGroup("two", [ValueError("one"), KeyError("two")]),
        lambda: SystemExit(3),
        lambda: ModelNotFoundError("m", "there is none"),
    ],
    ids=["value", "file", "group", "exit", "ours"],
)
def test_a_copy_is_as_the_error_was(error: Callable[[], BaseException]) -> None:
    """It says the same, comes from the same, and its traceback leads to the same place."""
    known = raised(error())
    known.add_note("of both")
    fresh = anew(known)
    assert fresh is not known
    assert (type(fresh), str(fresh), vars(fresh)) == (type(known), str(known), vars(known))
    assert (fresh.__cause__, fresh.__context__) == (known.__cause__, known.__context__)
    assert fresh.__suppress_context__
    assert traceback.extract_tb(fresh.__traceback__) == traceback.extract_tb(known.__traceback__)
    fresh.add_note("of one")
    assert known.__notes__ == ["of both"]


def test_an_error_that_lets_nothing_be_set_can_be_copied() -> None:
    """What it comes from is set all the same."""
    known = raised(Guarded("it is damaged"))
    fresh = anew(known)
    assert fresh is not known
    assert (fresh.__cause__, fresh.__context__) == (known.__cause__, known.__context__)
    assert fresh.__suppress_context__


@pytest.mark.parametrize(
    "error", [Prefixed("a"), Named(name="a"), Frozen(7)], ids=["other", "none", "frozen"]
)
def test_an_error_that_cannot_be_copied_is_itself(error: Exception) -> None:
    """Better one error for all than one that says something else."""
    assert anew(error) is error


class Thing:
    """What a load is given."""


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "packed"])
def test_who_keeps_an_error_keeps_nothing_else_of_its_load(tmp_path: Path, packed: bool) -> None:
    """Not the config nor the kwargs of the load, though its traceback leads to the frames."""
    registry = Registry()
    registry.module("m")(raises(lambda: ValueError("it is damaged")))
    model: Any = ModelConfig("m")
    if packed:
        model = tmp_path / "m.zip"
        with zipfile.ZipFile(model, "w") as archive:
            archive.writestr("config.yml", "module_id: m\n")
    thing = Thing()
    kept = weakref.ref(thing)
    with Initializer(registry) as initializer:
        try:
            initializer.init_sync(model, thing=thing)
        except LoadError as error:
            cause = error.__cause__
    del thing
    assert isinstance(cause, ValueError)
    assert kept() is None


def test_one_that_ends_whoever_copies_it_is_the_same_for_all() -> None:
    """Only a Ctrl-C, which comes to the caller at hand, gets out."""
    error = Exits(SystemExit)
    assert anew(error) is error
    with pytest.raises(KeyboardInterrupt):
        anew(Exits(KeyboardInterrupt))
