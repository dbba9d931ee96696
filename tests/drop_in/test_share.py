"""``share``: loads of one model that are asked for at the same time are one load."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from asking import Asking, figures, settled, until, waits_at
from worlds import Call, World

from anyload import ReentrantLoadError
from anyload.caikit import AnyloadInitializer
from anyload.testing import Gate


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """A world where loads are shared."""
    with World(AnyloadInitializer, tmp_path) as world:
        world.make("LOCAL", share=True)
        yield world


def asked(world: World, gate: Gate, loads: int, *asks: tuple[Any, dict[str, Any]]) -> list[Any]:
    """Return the models of callers that all wait at the same time, for this many loads."""
    with Asking(world) as asking:
        futures = [asking.ask(config, **kwargs) for config, kwargs in asks]
        until(lambda: figures(world).waiters == len(asks))
        gate.entered_sync(loads)
        assert figures(world).flights == loads
        gate.open()
        models = [future.result() for future in futures]
    settled(world)
    assert gate.count == loads
    return models


def test_one_load(world: World, gate: Gate) -> None:
    """Callers of one model that wait at the same time get the model of one load."""
    world.module(does=waits_at(gate))
    models = asked(world, gate, 1, *[(world.config(), {"number": 1})] * 4)
    assert len({id(model) for model in models}) == 1


def test_one_after_the_other(world: World) -> None:
    """Loads that do not overlap are loads of their own."""
    world.module()
    assert world.load().model is not world.load().model
    settled(world)


def test_off_by_default(world: World, gate: Gate) -> None:
    """Without the key each caller has a load of its own."""
    world.module(does=waits_at(gate))
    world.made_from({"max_concurrent_loads": 8})
    models = asked(world, gate, 2, *[(world.config(), {})] * 2)
    assert models[0] is not models[1]


def test_configs_that_are_equal(world: World, gate: Gate) -> None:
    """Two configs with one content are of one model, by whatever name it is reached."""
    there, link = world.saved(), world.directory / "link"
    link.symlink_to(there)
    world.module(does=waits_at(gate))
    fields: dict[str, Any] = {"labels": ["a", {"b": [1, 2.0, None]}], "train": {"rate": 0.1}}
    asks: list[tuple[Any, dict[str, Any]]] = [
        (world.config("m", path, **fields), {}) for path in (there, str(link), there + "/.")
    ]
    assert len({id(model) for model in asked(world, gate, 1, *asks)}) == 1


LIVE = object()
APART: dict[str, list[tuple[tuple[Any, ...], dict[str, Any], dict[str, Any]]]] = {
    "other_kwargs": [(("m", "p"), {}, {"number": 1}), (("m", "p"), {}, {"number": 1.0})],
    "kwargs_and_none": [(("m", "p"), {}, {"number": 1}), (("m", "p"), {}, {})],
    "live_kwargs": [(("m", "p"), {}, {"live": LIVE})] * 2,
    "other_paths": [(("m", "p"), {}, {}), (("m", "q"), {}, {})],
    "other_fields": [(("m", "p"), {"labels": [1]}, {}), (("m", "p"), {"labels": [True]}, {})],
    "no_path": [(("m", None), {}, {})] * 2,
    "an_empty_path": [(("m", ""), {}, {})] * 2,
    "another_kind_of_path": [(("m", 3), {}, {})] * 2,
    "a_path_that_cannot_be": [(("m", "a\0b"), {}, {})] * 2,
    "live_fields": [(("m", "p"), {"live": LIVE}, {})] * 2,
    "live_fields_deep_inside": [(("m", "p"), {"all": [{"live": LIVE}]}, {})] * 2,
}


@pytest.mark.parametrize("asks", APART.values(), ids=APART)
def test_loads_of_their_own(
    world: World, gate: Gate, asks: list[tuple[tuple[Any, ...], dict[str, Any], dict[str, Any]]]
) -> None:
    """What a load could tell apart is not shared, and nothing that is alive is."""
    # Without what caikit puts around each load, which looks at the path.
    world.module(
        load=classmethod(lambda cls, config, **kwargs: waits_at(gate)(Call(cls, 0, {}, 1)))
    )
    configs = [(world.config(*given, **fields), kwargs) for given, fields, kwargs in asks]
    first, second = asked(world, gate, 2, *configs)
    assert first is not second


def test_an_error_is_shared(world: World, gate: Gate) -> None:
    """What the load raises is raised to each caller, and the next one loads anew."""

    def does(call: Call) -> Any:
        gate.enter()
        if call.number <= 2:
            raise ValueError(f"call {call.number}")
        return call.cls()

    world.module(does=does)
    with Asking(world) as asking:
        config = world.config()
        futures = [asking.ask(config) for _ in range(3)]
        until(lambda: figures(world).waiters == 3)
        gate.open()
        assert {str(future.exception()) for future in futures} == {"call 2"}
    assert gate.count == 2
    assert world.load().model
    settled(world)


class Told(Exception):
    """An error that cannot be made from its arguments."""

    def __init__(self, *, reason: str) -> None:
        super().__init__(reason)


@pytest.mark.parametrize(
    ("error", "apart"),
    [
        (lambda: ValueError("it is damaged"), True),
        (lambda: OSError(2, "No such file", "weights.bin"), True),
        (lambda: KeyboardInterrupt("enough"), True),
        (lambda: Told(reason="it is damaged"), False),
    ],
    ids=["value", "file", "interrupt", "that_cannot_be_copied"],
)
def test_an_error_of_ones_own(
    world: World, gate: Gate, error: Callable[[], BaseException], apart: bool
) -> None:
    """Each caller raises a copy: what it adds to it, or is handling, is nothing to the others."""

    def does(call: Call) -> Any:
        gate.enter()
        raise error()

    def ask(number: int) -> BaseException:
        try:
            try:
                raise LookupError(number)
            except LookupError:
                world.initializer.init(config)
        except BaseException as raised:
            raised.add_note(f"seen by {number}")
            return raised
        raise AssertionError("it loads")

    world.module(does=does)
    config = world.config()
    with ThreadPoolExecutor(3) as threads:
        futures = [threads.submit(ask, number) for number in range(3)]
        until(lambda: figures(world).waiters == 3)
        gate.open()
        errors = [future.result() for future in futures]
    settled(world)
    assert {(type(one), str(one)) for one in errors} == {(type(error()), str(error()))}
    assert len({id(one) for one in errors}) == (3 if apart else 1)
    if apart:
        assert [one.__notes__ for one in errors] == [[f"seen by {n}"] for n in range(3)]
        assert [handled(one).args for one in errors] == [(0,), (1,), (2,)]
        assert {traceback.extract_tb(one.__traceback__)[-1].name for one in errors} == {"does"}


def handled(error: BaseException) -> BaseException:
    """Return what was handled where an error came to its caller."""
    while error.__context__ is not None:
        error = error.__context__
    return error


def test_a_config_of_another_kind(world: World) -> None:
    """A config whose content cannot be compared is loaded, and not shared."""
    world.module(load=classmethod(lambda cls, config: cls()))
    config = SimpleNamespace(module_id="m", model_path="p", get=lambda name, other: other)
    assert world.load(config).model
    settled(world)


def test_a_load_that_asks_for_itself(world: World) -> None:
    """A load that would wait for itself is an error, and leaves nothing behind."""
    config = world.config()

    def does(call: Call) -> Any:
        return world.initializer.init(config)

    world.module(does=does)
    assert isinstance(world.load(config).error, ReentrantLoadError)
    settled(world)


def test_a_nested_load_joins(world: World, gate: Gate) -> None:
    """A load inside a load waits for the load of its model that is under way."""
    inner = world.config("inner")
    world.module(module_id="inner", does=waits_at(gate))

    def does(call: Call) -> Any:
        model = call.cls()
        model.inner = world.initializer.init(inner)
        return model

    world.module(does=does)
    with Asking(world) as asking:
        alone = asking.ask(inner)
        gate.entered_sync()
        outer = asking.ask()
        until(lambda: figures(world).waiters == 3)
        gate.open()
        assert outer.result().inner is alone.result()
    assert gate.count == 1
    settled(world)
