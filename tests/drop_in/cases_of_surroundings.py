"""Where an initializer stands: in caikit, in an event loop, in memory."""

from __future__ import annotations

import asyncio
import os
import threading
import time
import weakref
import zipfile
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any
from unittest import mock

import caikit
from caikit.core import MODEL_MANAGER, ModuleConfig
from caikit.core.model_management import model_initializer_factory
from caikit.core.model_management.multi_model_initializer import MultiModelInitializer
from caikit.core.model_manager import ModelManager
from worlds import Call, Cases, Outcome, World, gives, raises

CASES = Cases()

word: ContextVar[str] = ContextVar("word", default="none")


def goes(reference: weakref.ref[Any]) -> bool:
    """Return whether an object goes by itself, once every thread has let go of it."""
    deadline = time.monotonic() + 1
    while reference() is not None and time.monotonic() < deadline:
        time.sleep(0.001)
    return reference() is None


def in_caikit(world: World) -> None:
    """Have ``caikit.load`` use the newest initializer."""
    MODEL_MANAGER._initializers["default"] = world.initializer


@CASES.each(
    file=lambda: FileNotFoundError(2, "No such file", "weights.bin"),
    value=lambda: ValueError("it is damaged"),
    interrupt=KeyboardInterrupt,
)
def caikit_load_raises(world: World, error: Callable[[], BaseException]) -> None:
    """What ``caikit.load`` makes of an error is what it always was."""
    in_caikit(world)
    world.module(does=raises(error(), error()))
    path = world.saved()
    assert world.tries(lambda: caikit.load(path)).error


@CASES
def caikit_load_finds_no_backend(world: World) -> None:
    """A module without an implementation is an error there."""
    in_caikit(world)
    path = world.saved()
    assert isinstance(world.tries(lambda: caikit.load(path)).error, ValueError)


@CASES
def caikit_load_of_a_singleton(world: World) -> None:
    """A singleton is loaded once, and what failed is loaded again."""
    in_caikit(world)
    module = world.module(does=raises(ValueError("config"), ValueError("path")))
    path = world.saved()
    load = lambda: caikit.load(path, load_singleton=True)  # noqa: E731
    assert world.tries(load).error
    assert world.tries(load).model is world.tries(load).model
    assert world.calls(module) == 3


@CASES
def caikit_load_of_an_archive(world: World) -> None:
    """The files of an archive are there while its model loads."""
    in_caikit(world)

    def does(call: Call) -> Any:
        world.note(sorted(os.listdir(call.argument.model_path)))
        return call.cls()

    world.module(load=classmethod(lambda cls, config: does(Call(cls, config, {}, 1))))
    archive = world.directory / "m.zip"
    with zipfile.ZipFile(archive, "w") as opened:
        opened.write(os.path.join(world.saved(), "config.yml"), "config.yml")
    assert world.tries(lambda: caikit.load(str(archive))).model


def multi(world: World, *names: str) -> Any:
    """Return caikit's own chain of initializers around some of these."""
    chain = MultiModelInitializer.__new__(MultiModelInitializer)
    chain._instance_name = "chain"
    chain._initializers = [world.make(name) for name in names]
    return chain


@CASES
def in_a_chain(world: World) -> None:
    """Caikit's chain of initializers goes on after None and after an error."""
    world.backend_type("GPU", "TPU")
    errors = ValueError("with the config"), ValueError("with the path")
    world.module("GPU", does=raises(*errors), SUPPORTED_LOAD_BACKENDS=["LOCAL"])
    world.module()
    chain = multi(world, "TPU", "GPU", "LOCAL")
    assert world.tries(lambda: chain.init(world.config(), number=1)).model
    assert world.tries(lambda: chain.init(world.config("unknown"))).model is None


@CASES
def in_a_chain_that_is_interrupted(world: World) -> None:
    """... but not after what is no Exception."""
    world.module(does=raises(KeyboardInterrupt()))
    chain = multi(world, "LOCAL")
    assert isinstance(world.tries(lambda: chain.init(world.config())).error, KeyboardInterrupt)


@CASES
def made_by_the_factory(world: World) -> None:
    """A class is imported by its name, and may be made any number of times."""
    backends = [{"type": "LOCAL"}]
    section = {
        "type": world.kind.name,
        "import_class": f"{world.kind.__module__}.{world.kind.__name__}",
        "config": {"backend_priority": backends},
    }
    world.module()
    with (
        mock.patch(section["import_class"], world.kind),
        mock.patch.dict(model_initializer_factory._registered_types),
    ):
        made = [model_initializer_factory.construct(section, name) for name in ("a", "b")]
    for initializer in made:
        assert type(initializer) is world.kind
        world.note(initializer._instance_name, len(initializer.backends))
        world.note(type(initializer.init(world.config()).load_backend))


@CASES
def asked_for_its_backends(world: World) -> None:
    """``get_module_backends`` finds the backends of every initializer."""
    world.backend_type("GPU")
    manager = ModelManager()
    manager._initializers.update(one=world.make("GPU", "LOCAL"), two=world.make("LOCAL"))
    found = manager.get_module_backends(initialize=False)
    world.note(found)
    assert len(found) == 3


@CASES
def what_the_caller_has_set(world: World) -> None:
    """A load sees the context variables of its caller."""

    def does(call: Call) -> Any:
        model = call.cls()
        model.word = word.get()
        return model

    world.module(does=does)
    token = word.set("the caller's")
    assert world.load().model.word == "the caller's"
    word.reset(token)


@CASES
def what_only_the_callers_thread_has(world: World) -> None:
    """A load sees what the caller has put aside for its own thread."""
    aside = threading.local()
    aside.word = "the caller's"

    def does(call: Call) -> Any:
        world.note("word", getattr(aside, "word", None))
        return call.cls()

    world.module(does=does)
    assert world.load().model


@CASES
def a_lock_of_the_caller(world: World) -> None:
    """A load may take again what its caller holds: a lock, or the import it is in."""
    lock = threading.RLock()

    def does(call: Call) -> Any:
        world.note("taken", lock.acquire(timeout=0.05))
        return call.cls()

    world.module(does=does)
    with lock:
        assert world.load().model


@CASES
def an_error_that_is_raised_on(world: World) -> None:
    """A load may raise on what its caller is handling."""

    def does(call: Call) -> Any:
        raise  # noqa: PLE0704  # as the handler of its caller could

    world.module(does=does)
    try:
        raise OSError("the cache is gone")
    except OSError:
        world.load()


@CASES
def in_an_event_loop(world: World) -> None:
    """It may be called in an event loop, which waits; a load may run a loop of its own."""

    async def inside() -> str:
        return "inside"

    def does(call: Call) -> Any:
        model = call.cls()
        thread = threading.Thread(target=lambda: setattr(model, "word", asyncio.run(inside())))
        thread.start()
        thread.join()
        return model

    async def load() -> Outcome:
        return world.load()

    world.module(does=does)
    assert asyncio.run(load()).model.word == "inside"


@CASES
def nobody_keeps_a_model(world: World) -> None:
    """A model goes when its caller lets go of it."""

    class Weights:
        """What weighs something."""

    def does(call: Call) -> Any:
        model = call.cls()
        model.weights = Weights()
        return model

    world.module(does=does)
    world.note(goes(weakref.ref(world.initializer.init(world.config()).weights)))


@CASES
def nobody_keeps_a_config(world: World) -> None:
    """A config goes when its caller lets go of it, and with it what a finder has put there."""

    class Live:
        """What a finder has opened."""

    world.module(load=classmethod(lambda cls, config: cls()))
    live = Live()
    reference = weakref.ref(live)
    config = ModuleConfig({"module_id": "m"})
    config["live"] = live
    world.initializer.init(config)
    del config, live
    world.note(goes(reference))


@CASES
def nobody_keeps_an_error(world: World) -> None:
    """An error goes when its caller lets go of it, and with it what it carries."""

    class Heavy(Exception):
        """An error with something large in it."""

    def load(cls: Any, config: Any) -> Any:
        raise Heavy("it is damaged")

    world.module(load=classmethod(load))
    try:
        world.initializer.init(world.config())
    except Heavy as error:
        reference = weakref.ref(error)
    world.note(goes(reference))


@CASES
def a_class_made_from_it(world: World) -> None:
    """A class that is made from it may change what it gives, and what its modules support."""

    class Own(world.kind):  # type: ignore[misc, name-defined]  # known in a run only
        def init(self, model_config: Any, **kwargs: Any) -> Any:
            model = super().init(model_config, **kwargs, number=1)
            return [model]

        def _get_supported_load_backends(self, backend_impl: Any) -> list[str]:
            return ["GPU"]

    world.kind = Own
    world.module()
    assert isinstance(world.load(world.config(model_backend="GPU")).model, list)
    assert world.load(world.config(model_backend="LOCAL")).model == [None]


@CASES
def a_class_made_from_it_that_knows_arguments(world: World) -> None:
    """... and which arguments a ``load`` has."""

    class Own(world.kind):  # type: ignore[misc, name-defined]  # known in a run only
        @staticmethod
        def _supports_arg(load_fn: Any, arg_name: str) -> bool:
            return arg_name == "load_backend"

    world.kind = Own
    world.module()
    assert world.load().model


@CASES
def a_model_that_is_nothing_is_no_end(world: World) -> None:
    """After a load that gave no model the initializer loads as before."""
    world.module(does=gives(None))
    assert world.load().error
    world.module()
    assert world.load().model
