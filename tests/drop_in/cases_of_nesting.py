"""Loads at the same time, and loads inside loads."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import caikit
from caikit.core import MODEL_MANAGER
from worlds import Call, Cases, Outcome, World, raises

CASES = Cases()

THREADS = 4
PATIENCE = 5.0
"""How long threads wait for each other, in seconds, before the case ends otherwise."""


def in_threads(world: World, number: int = THREADS) -> list[Outcome]:
    """Return what loads come to that are asked for at the same time."""
    config, initializer = world.config(), world.initializer

    def load(place: int) -> Outcome:
        try:
            return Outcome(initializer.init(config, place=place))
        except Exception as error:
            return Outcome(None, error)

    with ThreadPoolExecutor(number) as threads:
        return list(threads.map(load, range(number)))


@CASES.each(plain={}, with_words_of_anyload={"exclusive_group": 5, "holds_gil": "no"})
def loads_at_the_same_time(world: World, attributes: dict[str, Any]) -> None:
    """Loads of different threads run at the same time, as many as are asked for."""
    together = threading.Barrier(THREADS)

    def load(cls: Any, config: Any, place: int) -> Any:
        together.wait(PATIENCE)
        return cls()

    module = world.module(load=classmethod(load), **attributes)
    models = [outcome.model for outcome in in_threads(world)]
    assert [type(model) for model in models] == [module] * THREADS
    assert len(set(map(id, models))) == THREADS
    assert all(model.load_backend is world.initializer.backends[0] for model in models)


@CASES
def errors_at_the_same_time(world: World) -> None:
    """Each thread gets the error of its own load."""

    def load(cls: Any, config: Any, place: int) -> Any:
        raise ValueError(f"{place} with {type(config).__name__}")

    world.module(load=classmethod(load))
    for outcome in in_threads(world):
        # The warnings of several threads come in any order.
        world.log = [entry for entry in world.log if not str(entry).startswith("['log'")]
        world.note(outcome.error)


@CASES
def a_load_in_a_load(world: World) -> None:
    """A module may load another with the initializer that loads it."""

    def does(call: Call) -> Any:
        model = call.cls()
        model.inner = world.initializer.init(world.config("inner"))
        return model

    world.module(module_id="inner")
    world.module(does=does)
    assert world.load().model.inner.load_backend is world.initializer.backends[0]


@CASES
def loads_in_loads_in_loads(world: World) -> None:
    """... and that one another, and itself with another path."""

    def does(call: Call) -> Any:
        model = call.cls()
        depth = int(call.argument.model_path)
        if depth:
            model.inner = world.initializer.init(world.config("m", str(depth - 1)))
        return model

    world.module(does=does)
    assert world.load(world.config("m", "5")).model


@CASES
def a_load_in_a_load_fails(world: World) -> None:
    """What a load inside a load raises is raised there, and may be handled."""

    def does(call: Call) -> Any:
        model = call.cls()
        try:
            world.initializer.init(world.config("inner"))
        except KeyError as error:
            model.missing = error
        return model

    world.module(module_id="inner", does=raises(ValueError("config"), KeyError("path")))
    module = world.module(does=does)
    assert world.load().model.missing
    assert world.calls(module) == 1


@CASES
def a_load_in_a_load_fails_for_good(world: World) -> None:
    """... or else goes on outwards, with what each load was handling."""

    def does(call: Call) -> Any:
        try:
            raise LookupError("the load was handling this")
        except LookupError:
            return world.initializer.init(world.config("inner"))

    errors = [error for name in "abcd" for error in (ValueError(name), KeyError(name))]
    world.module(module_id="inner", does=raises(*errors))
    world.module(does=does)
    try:
        raise OSError("the caller was handling this")
    except OSError:
        assert isinstance(world.load().error, KeyError)


@CASES
def a_load_in_a_load_is_interrupted(world: World) -> None:
    """What is no Exception ends the loads around it too."""
    world.module(module_id="inner", does=raises(KeyboardInterrupt()))
    outer = world.module(does=lambda call: world.initializer.init(world.config("inner")))
    assert isinstance(world.load().error, KeyboardInterrupt)
    assert world.calls(outer) == 1
    assert world.load().model


@CASES
def a_load_in_a_load_by_another_initializer(world: World) -> None:
    """A module may use an initializer of its own."""
    world.backend_type("GPU")
    world.module("GPU", "inner", SUPPORTED_LOAD_BACKENDS=["LOCAL"])
    own = world.make("GPU")
    world.make("LOCAL")

    def does(call: Call) -> Any:
        model = call.cls()
        model.inner = own.init(world.config("inner"))
        return model

    world.module(does=does)
    assert world.load().model.inner.load_backend is own.backends[0]


@CASES
def caikit_load_in_a_load(world: World) -> None:
    """``caikit.load`` inside a module's ``load`` uses the same initializer."""
    MODEL_MANAGER._initializers["default"] = world.initializer
    inner = world.saved("inner")

    def does(call: Call) -> Any:
        model = call.cls()
        model.inner = caikit.load(inner, number=1)
        return model

    world.module(module_id="inner")
    world.module(does=does)
    path = world.saved()
    assert world.tries(lambda: caikit.load(path, number=1)).model.inner
