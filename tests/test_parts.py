"""What an initializer is made of: what cannot be a part of it is refused when it is made."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from scenes import registry_of

from anyload import Backend, ConfigError, Initializer, LoadError, ModelConfig, Registry
from anyload.testing import returns_at_once


async def _later(*given: object) -> None:
    """Do nothing, when it is awaited."""


def _bit_by_bit(*given: object) -> Iterator[None]:
    """Do nothing, when it is iterated."""
    yield


class Awaited:
    """What has to be awaited when it is called."""

    async def __call__(self, event: object) -> None:
        """Do nothing."""


class Admits:
    """An admission."""

    def may_start(self, config: ModelConfig, size: int) -> bool:
        """Admit everything."""
        return True

    def started(self, config: ModelConfig, size: int) -> None:
        """Do nothing."""

    def ended(self, config: ModelConfig, size: int) -> None:
        """Do nothing."""


def admits(**methods: Any) -> Any:
    """Return an admission with other methods."""
    return type("Odd", (Admits,), methods)()


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"registry": None}, "registry is an anyload.Registry, not None"),
        ({"registry": 5}, "registry is an anyload.Registry, not 5"),
        ({"hooks": print}, "hooks are a list of what is called with each event, not a builtin"),
        ({"hooks": [5]}, "a hook is called with each event, and 5 cannot be called"),
        ({"hooks": [_later]}, "called with each event, not awaited, and _later is async"),
        ({"hooks": [_bit_by_bit]}, "not awaited, and _bit_by_bit is async"),
        ({"hooks": [print, Awaited()]}, "a Awaited is async"),
        ({"admission": admits(may_start=_later)}, "may_start of a Odd is async; it is called"),
        ({"admission": admits(may_start=_bit_by_bit)}, "may_start of a Odd is async"),
        ({"admission": admits(ended=_later)}, "ended of a Odd is async"),
        ({"admission": admits(started=None)}, "has a method started, and a Odd has none"),
    ],
)
def test_what_cannot_be_a_part_is_refused(given: dict[str, Any], text: str) -> None:
    """With what it should be; the same whatever an initializer is made from."""
    parts: dict[str, Any] = {"registry": Registry(), **given}
    with pytest.raises(TypeError, match=re.escape(text)):
        Initializer(**parts)
    with pytest.raises(TypeError, match=re.escape(text)):
        Initializer.from_config({}, environ={}, **parts)


def test_what_can_be_a_part_is_taken() -> None:
    """Any iterable of hooks, and what has the methods of an admission."""
    with Initializer(Registry(), hooks=iter([print]), admission=Admits()):
        pass


@pytest.mark.parametrize(
    ("environ", "text"),
    [
        (5, "environ is a mapping of text to text, not 5"),
        ({5: "x"}, "a variable of environ has a text for a name, not 5"),
        ({"ANYLOAD__WARMUP": 7}, "'ANYLOAD__WARMUP' in environ is a int, not text"),
        ({b"ANYLOAD__WARMUP": b"x"}, "a variable of environ has a text for a name, not b'ANY"),
    ],
)
def test_an_environment_is_of_text(environ: Any, text: str) -> None:
    """Its values are not shown."""
    with pytest.raises(TypeError, match=re.escape(text)):
        Initializer.from_config({}, registry=Registry(), environ=environ)


# A backend is of the type that its class says


class Typed(Backend):
    """A backend whose instances say what they like."""

    backend_type = "TYPED"
    says: Any = "TYPED"

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.backend_type = self.says  # type: ignore[misc]


@pytest.mark.parametrize("says", [5, "x\ny"])
def test_a_backend_of_another_type_than_its_class_is_refused(says: Any) -> None:
    """It was the type of the class that was checked."""
    registry = Registry()
    registry.backend_type(type("Odd", (Typed,), {"says": says}))
    with pytest.raises(ConfigError) as caught:
        Initializer(registry, backend_priority=[{"type": "TYPED"}])
    (problem,) = caught.value.problems
    assert problem.where == "backend_priority[0]"
    assert problem.what == (
        "backend TYPED cannot be made: TypeError: its backend_type is "
        f"{says!r}, and its class says 'TYPED'"
    )


def test_a_backend_may_repeat_its_type() -> None:
    """That changes nothing."""
    registry = Registry()
    registry.backend_type(Typed)
    with Initializer(registry, backend_priority=[{"type": "TYPED"}]) as initializer:
        assert initializer.backends[0].backend_type == "TYPED"


def test_why_a_backend_is_not_available_is_told_as_plain_text() -> None:
    """Whatever a subclass of str would say."""
    odd = type("Odd", (str,), {"__getitem__": None, "__len__": None, "isprintable": None})

    class Away(Backend):
        backend_type = "AWAY"

        def available(self) -> str:
            return str.__new__(odd, "it is\naway")

    registry = registry_of(m=returns_at_once())
    registry.backend_type(Away)
    initializer = Initializer(registry, backend_priority=[{"type": "AWAY"}])
    with initializer, pytest.raises(LoadError, match=r"skipped  it is\\naway"):
        initializer.init_sync(ModelConfig("m"))


# The current directory


@pytest.fixture
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Be in a directory that is gone."""
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()


@pytest.mark.usefixtures("nowhere")
@pytest.mark.parametrize(
    ("options", "key"),
    [
        ({}, "model_root"),
        ({"model_root": "models"}, "model_root"),
        ({"model_root": "/", "archives": {"directory": "x"}}, "archives.directory"),
    ],
)
def test_a_directory_that_is_gone_is_no_place_to_begin(options: dict[str, Any], key: str) -> None:
    """Relative paths would lead nowhere; what to do is said."""
    with pytest.raises(ConfigError) as caught:
        Initializer(Registry(), **options)
    (problem,) = caught.value.problems
    assert problem.where == key
    assert problem.what.startswith("no absolute path, and the current directory cannot be told")


@pytest.mark.usefixtures("nowhere")
def test_an_absolute_root_needs_no_current_directory(tmp_path: Path) -> None:
    """Neither does what is unpacked there."""
    archives = {"directory": os.fspath(tmp_path)}
    with Initializer(Registry(), model_root=os.fspath(tmp_path), archives=archives):
        pass
