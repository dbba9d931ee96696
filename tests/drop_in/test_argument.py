"""``argument``: whether a module's ``load`` is given the config or the path."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Union

import pytest
from asking import settled
from caikit.core import ModuleConfig
from worlds import World, raises

from anyload.caikit import AnyloadInitializer

PATH = "models/m"
BOTH = ["config", "str"]

ANNOTATED: dict[str, tuple[Any, str | None, list[str]]] = {
    "str": (str, PATH, ["str"]),
    "str_as_text": ("str", PATH, ["str"]),
    "str_as_quoted_text": ("'str'", PATH, ["str"]),
    "path": (Path, PATH, ["Path"]),
    "path_as_text": ("Path", PATH, ["Path"]),
    "config": (ModuleConfig, PATH, ["config"]),
    "config_as_text": ("ModuleConfig", PATH, ["config"]),
    "either": (Union[str, ModuleConfig], PATH, ["config"]),  # noqa: UP007  # as caikit writes it
    "either_as_text": ("Union[str, ModuleConfig]", PATH, ["config"]),
    "either_in_new_words": ("str | ModuleConfig", PATH, ["config"]),
    "nothing": (None, PATH, BOTH),
    "str_without_path": (str, None, ["config"]),
    "path_without_path": (Path, None, ["config"]),
    "config_without_path": (ModuleConfig, None, ["config"]),
    "nothing_without_path": (None, None, ["config"]),
}


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """A world of its own for each test."""
    with World(AnyloadInitializer, tmp_path) as world:
        yield world


def kinds(world: World, annotation: Any, path: str | None, **options: Any) -> list[str]:
    """Return what a ``load`` is given that fails each time, by its first parameter."""
    given: list[str] = []

    def load(cls: Any, model: Any) -> Any:
        config = isinstance(model, ModuleConfig)
        given.append(
            "config" if config else "Path" if isinstance(model, Path) else type(model).__name__
        )
        raise ValueError("it is damaged")

    if annotation is not None:
        load.__annotations__["model"] = annotation
    else:
        del load.__annotations__["model"]
    world.module(load=classmethod(load))
    world.made_from(options)
    assert isinstance(world.load(world.config("m", path)).error, ValueError)
    settled(world)
    return given


@pytest.mark.parametrize(("annotation", "path", "expected"), ANNOTATED.values(), ids=ANNOTATED)
def test_auto(world: World, annotation: Any, path: str | None, expected: list[str]) -> None:
    """What a load takes is told by its first parameter; then it is called once."""
    assert kinds(world, annotation, path, argument="auto") == expected


@pytest.mark.parametrize("annotation", [None, str, ModuleConfig])
@pytest.mark.parametrize("path", [PATH, None])
def test_as_configured(world: World, annotation: Any, path: str | None) -> None:
    """The configuration may say which; by default it is caikit's rule. None looks further."""
    second = "str" if path else "NoneType"
    assert kinds(world, annotation, path, argument="config") == ["config"]
    assert kinds(world, annotation, path, argument="path") == [second]
    assert kinds(world, annotation, path) == ["config", second]


def test_through_what_caikit_puts_around(world: World) -> None:
    """The annotation is that of the module's own ``load``, inside what caikit puts around it."""
    module = world.module(does=raises(ValueError("it is damaged")))
    world.make("LOCAL", argument="path")
    assert world.load(world.config("m", world.saved())).error
    assert world.calls(module) == 1

    def load(cls: Any, /, model_path: str, **kwargs: Any) -> Any:
        world.note("given", model_path)
        return cls()

    own = world.module(does=None, base=type("Own", (module,), {"load": classmethod(load)}))
    world.make("LOCAL", argument="auto")
    path = world.saved()
    assert type(world.load(world.config("m", path)).model) is own
    assert ["given", path] in world.log
    settled(world)


def test_no_warning_where_there_is_no_second_call(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    """Caikit's warning belongs to the second call."""
    with caplog.at_level(logging.WARNING):
        assert kinds(world, str, PATH, argument="auto") == ["str"]
    assert not [record for record in caplog.records if record.name == "LLOAD"]


@pytest.mark.parametrize(
    "annotation",
    [str | None, "Optional[str]", "str | None", Any, "Any", "os.PathLike[str]"],
    ids=str,
)
def test_what_tells_nothing(world: World, annotation: Any) -> None:
    """An annotation from which nothing follows leaves caikit's rule as it is."""
    assert kinds(world, annotation, PATH, argument="auto") == BOTH
