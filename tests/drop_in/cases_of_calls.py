"""How ``load`` is called, and what becomes of what it returns."""

from __future__ import annotations

import functools
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

from caikit.core import ModuleBase, ModuleConfig
from caikit.core.modules import ModuleLoader
from worlds import Call, Cases, Module, World, gives, makes, needs_path, raises

CASES = Cases()


def ways_to_load(world: World) -> dict[str, Any]:
    """Return a ``load`` of each signature and kind; each puts its calls into the log."""

    def called(argument: Any, **kwargs: Any) -> Any:
        return world.called(makes, Module, argument, kwargs)

    def wraps_one_that_names_it(*args: Any, **kwargs: Any) -> Any:
        return called(args[1], **kwargs)

    def named(cls: Any, config: Any, load_backend: Any) -> Any:
        raise AssertionError("only its signature is read")

    class Callable:
        def __call__(self, config: Any, load_backend: Any = None) -> Any:
            return called(config, load_backend=load_backend)

    class Declares:
        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            return called(args[0], **kwargs)

        @property
        def __signature__(self) -> Any:
            raise ValueError("it has no signature")

    mocked = mock.Mock(side_effect=lambda config, **kwargs: called(config, **kwargs))
    return {
        "names_it": classmethod(lambda cls, a, load_backend: called(a, load_backend=load_backend)),
        "names_it_last": classmethod(
            lambda cls, a, *, load_backend, **kwargs: called(a, load_backend=load_backend)
        ),
        "names_it_by_position": classmethod(lambda cls, a, load_backend, /: called(a)),
        "names_it_first": classmethod(lambda cls, load_backend: called(load_backend)),
        "takes_any_kwargs": classmethod(lambda cls, a, **kwargs: called(a, **kwargs)),
        "collects_it": classmethod(lambda cls, a, **load_backend: called(a, **load_backend)),
        "collects_all": classmethod(lambda cls, *args, **kwargs: called(args, **kwargs)),
        "by_position": classmethod(lambda cls, a, /: called(a)),
        "by_name": classmethod(lambda cls, *, config: called(config)),
        "nothing": classmethod(lambda cls: called(None)),
        "static": staticmethod(lambda a, load_backend: called(a, load_backend=load_backend)),
        "static_any": staticmethod(lambda a, **kwargs: called(a, **kwargs)),
        "an_instance_method": lambda self: called(self),
        "a_partial": staticmethod(functools.partial(called, extra=1)),
        "a_bound_backend": staticmethod(
            functools.partial(lambda a, load_backend: called(a, of=load_backend), load_backend=1)
        ),
        "a_mock": staticmethod(mocked),
        "wrapped": classmethod(functools.wraps(named)(wraps_one_that_names_it)),
        "an_object": Callable(),
        "without_signature": Declares(),
        "a_builtin": staticmethod(type),
        "not_callable": 5,
    }


@CASES.each(**{name: name for name in ways_to_load(mock.Mock())})
def load_is(world: World, name: str) -> None:
    """``load`` is called with the config, and ``load_backend`` only where it is named."""
    world.module(load=ways_to_load(world)[name])
    world.load()


@CASES
def the_base_class_loads(world: World) -> None:
    """A module that leaves ``load`` to caikit reads its files as it does there."""

    def read(cls: Any, loader: ModuleLoader) -> Any:
        world.note("read", loader.config, loader.model_path)
        return cls()

    world.module(does=None, _load=classmethod(read))
    assert world.load(ModuleConfig.load(world.saved(labels=3))).model


@CASES
def load_is_inherited(world: World) -> None:
    """A module may have its ``load`` from the one it is made from."""
    base = world.module(module_id="base")
    world.module(base=base, does=None)
    assert world.load().model


KWARGS = {
    "plain": {"number": 1, "text": "a", "nothing": None, "flag": True},
    "containers": {"items": [1, [2]], "mapping": {"a": {"b": []}}, "several": {1, 2}},
    "words_of_anyload": {"key": 1, "priority": 2, "timeout": 0.0, "model": "m", "find": 3},
    "more_words_of_anyload": {"config": 1, "backend": 2, "kwargs": 3, "argument": 4, "path": 5},
    "self": {"self": 1},
    "model_config": {"model_config": 1},
    "cls": {"cls": 1},
    "model_path": {"model_path": "another"},
    "load_backend": {"load_backend": "the caller's"},
    "no_identifiers": {"a-b": 1, "": 2, "class": 3},
}


@CASES.each(**KWARGS)
def kwargs_are(world: World, kwargs: dict[str, Any]) -> None:
    """What the caller gives is passed on; a name that is taken is Python's own error."""
    world.module()
    world.load(**kwargs)


@CASES.each(**KWARGS)
def kwargs_beside_the_backend_are(world: World, kwargs: dict[str, Any]) -> None:
    """... and likewise beside ``load_backend``."""
    world.module(wants_backend=True)
    world.load(**kwargs)


@CASES
def kwargs_are_themselves(world: World) -> None:
    """Objects are passed on as they are, to both calls."""
    thing = world.named(object(), "the thing")
    things = world.named([thing], "the list")
    module = world.module(does=raises(ValueError("with the config")))
    world.load(thing=thing, things=things)
    assert world.calls(module) == 2


@CASES
def the_config_is_itself(world: World) -> None:
    """``load`` gets the very config, so what it changes there stays changed."""

    def does(call: Call) -> Any:
        call.argument["seen"] = True
        return call.cls()

    world.module(does=does)
    config = world.config()
    world.load(config)
    assert config.seen


@CASES
def the_path_is_read_first(world: World) -> None:
    """The second call gets the path that the config had before the first."""

    def does(call: Call) -> Any:
        if call.number == 1:
            call.argument["model_path"] = "somewhere/else"
            raise ValueError("with the config")
        return call.cls()

    world.module(does=does)
    assert world.load().model


@CASES
def a_config_of_another_kind(world: World) -> None:
    """A config is whatever has what is asked of it."""
    world.module()
    config = SimpleNamespace(module_id="m", model_path="p", get=lambda name, other: other)
    assert world.load(world.named(config, "the config")).model


@CASES.each(known="m", unknown="another")
def a_config_without_a_place_for_a_path(world: World, module_id: str) -> None:
    """The path is asked for in any case, whatever the module is."""
    world.module()
    config = SimpleNamespace(module_id=module_id, get=lambda name, other: other)
    assert isinstance(world.load(config).error, AttributeError)


@CASES.each(text="models/m", none=None, number=3, empty={})
def no_config_but(world: World, config: Any) -> None:
    """What is no config is Python's own error."""
    world.module()
    assert isinstance(world.tries(lambda: world.initializer.init(config)).error, AttributeError)


@CASES
def no_config_at_all(world: World) -> None:
    """The config is required, and has a name."""
    world.module()
    world.tries(lambda: world.initializer.init())
    assert world.tries(lambda: world.initializer.init(model_config=world.config())).model
    world.tries(lambda: world.initializer.init(world.config(), 1))


PATHS = {
    "text": "a/path",
    "none": None,
    "empty": "",
    "a_path": Path("a"),
    "a_list": ["a"],
    "number": 0,
}


@CASES.each(**PATHS)
def path_is(world: World, path: Any) -> None:
    """The second call gets the path, whatever it is, and None where there is none."""
    world.module(does=raises(ValueError("with the config")))
    world.load(world.config("m", path))


@CASES
def path_is_neither_true_nor_false(world: World) -> None:
    """A finder may put anything there, such as an array."""

    class Array:
        def __bool__(self) -> bool:
            raise ValueError("the truth of an array is ambiguous")

        def __str__(self) -> str:
            raise ValueError("no text")

    world.module()
    assert world.load(world.config("m", Array())).model


@CASES.each(with_path="a/path", without=None)
def a_module_that_needs_the_path(world: World, path: Any) -> None:
    """A module that takes a path only gets it in the second call."""
    module = world.module(does=needs_path)
    assert bool(world.load(world.config("m", path)).model) == bool(path)
    assert world.calls(module) == 2


RESULTS = {
    "none": lambda: None,
    "text": lambda: "a model",
    "a_list": lambda: [Module()],
    "the_class_of_all": lambda: ModuleBase,
    "a_class": lambda: Module,
    "a_generator": lambda: iter(()),
    "a_double": lambda: SimpleNamespace(set_load_backend=print),
    "a_mock": lambda: mock.Mock(),
    "false": lambda: False,
    "not_implemented": lambda: NotImplemented,
}


@CASES.each(**RESULTS)
def load_returns(world: World, result: Any) -> None:
    """What is no model is a TypeError, and nothing else is tried."""
    world.backend_type("GPU")
    world.module("GPU", does=gives(result()), SUPPORTED_LOAD_BACKENDS=["LOCAL"])
    other = world.module()
    world.make("GPU", "LOCAL")
    assert isinstance(world.load().error, TypeError)
    assert not world.calls(other)


@CASES
def load_returns_the_module(world: World) -> None:
    """A module's class is no model of it."""
    world.module(does=lambda call: call.cls)
    assert isinstance(world.load().error, TypeError)


@CASES.each(untrue={"__bool__": lambda self: False}, empty={"__len__": lambda self: 0})
def a_model_that_is(world: World, attributes: dict[str, Any]) -> None:
    """A model need not be true."""
    world.module(**attributes)
    assert world.load().model is not None


@CASES
def a_model_that_equals_anything(world: World) -> None:
    """A model is not compared with anything."""

    def equals(self: Any, other: object) -> bool:
        raise ValueError("it cannot be compared")

    world.module(__eq__=equals, __hash__=None)
    assert world.load().model is not None


@CASES
def a_model_of_another_module(world: World) -> None:
    """A module may load a model of another."""
    other = world.module(module_id="other")
    world.module(does=lambda call: other())
    assert isinstance(world.load().model, other)


@CASES
def a_model_that_is_kept(world: World) -> None:
    """A module may give the same model again; it is told its backend each time."""
    kept: list[Any] = []

    def does(call: Call) -> Any:
        kept.append(kept[0] if kept else call.cls())
        return kept[0]

    world.module(does=does, set_load_backend=lambda self, backend: world.note("told", backend))
    assert world.load().model is world.load().model


@CASES
def each_load_is_its_own(world: World) -> None:
    """Each load of one config makes a model of its own."""
    module = world.module()
    config = world.config()
    assert world.load(config).model is not world.load(config).model
    assert world.calls(module) == 2


@CASES
def a_model_is_told_once_it_is_there(world: World) -> None:
    """The model is told its backend after the load, and what it makes of that is its own."""

    def told(self: Any, backend: Any) -> None:
        world.note("told", self, backend)

    world.module(set_load_backend=told)
    assert world.load().model.load_backend is None


WORDS = ("prepare", "warmup", "release", "variant", "start", "close", "requirements")


@CASES
def a_module_with_words_of_anyload(world: World) -> None:
    """Methods that mean something to anyload are the module's own: nobody calls them."""

    def method(name: str) -> Any:
        return lambda *args: world.note("called", name)

    methods: dict[str, Any] = {name: classmethod(method(name)) for name in WORDS}
    world.module(**methods, exclusive_group=5, holds_gil="no", process_globals=3, argument=4)
    assert world.load().model
    world.module(**methods, does=gives(None))
    assert world.load().error
    world.module(**methods, does=raises(ValueError("first"), ValueError("second")))
    assert world.load().error
    assert "called" not in str(world.log)


@CASES
def a_model_with_words_of_anyload(world: World) -> None:
    """... and so are those of its models, where even a look would raise."""

    def look(self: Any) -> None:
        raise AssertionError("nobody looks at this")

    properties: dict[str, Any] = {name: property(look) for name in WORDS}
    world.module(**properties)
    assert world.load().model


@CASES.each(memory_bytes="memory_bytes", device="device")
def a_model_that_is_looked_at(world: World, name: str) -> None:
    """... and nobody asks it for what anyload would report."""
    looked_at: dict[str, Any] = {name: property(lambda self: world.note("looked at", name))}
    world.module(**looked_at)
    assert world.load().model
