"""What the constructor does with its ``config``."""

from __future__ import annotations

import abc
from typing import Any

from caikit.core import registries
from caikit.core.model_management.local_model_initializer import LocalModelInitializer
from worlds import Cases, Local, World

CASES = Cases()


class Refusing:
    """What is no class of backends."""

    def __init__(self, config: Any) -> None:
        raise OSError("this backend is not here")


CONFIGS: dict[str, Any] = {
    "empty": {},
    "local": {"backend_priority": [{"type": "LOCAL"}]},
    "no_entries": {"backend_priority": []},
    "no_list": {"backend_priority": None},
    "text": {"backend_priority": "LOCAL"},
    "number": {"backend_priority": 3},
    "a_mapping": {"backend_priority": {"type": "LOCAL"}},
    "no_type": {"backend_priority": [{"config": {}}]},
    "no_type_later": {"backend_priority": [{"type": "LOCAL"}, {}]},
    "type_is_none": {"backend_priority": [{"type": None}]},
    "type_is_a_list": {"backend_priority": [{"type": ["LOCAL"]}]},
    "type_in_small": {"backend_priority": [{"type": "local"}]},
    "type_is_unknown": {"backend_priority": [{"type": "LOCAL"}, {"type": "QPU"}]},
    "entry_is_text": {"backend_priority": ["LOCAL"]},
    "entry_is_the_word_type": {"backend_priority": ["type"]},
    "entry_is_none": {"backend_priority": [None]},
    "entry_is_a_list": {"backend_priority": [["type"]]},
    "backend_has_no_class": {"backend_priority": [{"type": "BARE"}]},
    "backend_is_no_class": {"backend_priority": [{"type": "FUNCTION"}]},
    "backend_is_another_class": {"backend_priority": [{"type": "REFUSING"}]},
    "backend_is_abstract": {"backend_priority": [{"type": "ABSTRACT"}]},
    "config": {"backend_priority": [{"type": "GPU", "config": {"a": {"b": [1]}}}]},
    "config_is_none": {"backend_priority": [{"type": "GPU", "config": None}]},
    "config_is_text": {"backend_priority": [{"type": "GPU", "config": "a"}]},
    "twice": {"backend_priority": [{"type": "GPU"}, {"type": "LOCAL"}, {"type": "GPU"}]},
    "other_keys": {"color": 1, "backend_priority": [{"type": "GPU", "color": 2}]},
}


@CASES.each(**CONFIGS)
def config_is(world: World, config: dict[str, Any]) -> None:
    """Every config is taken, or refused, with the same words."""
    world.backend_type("GPU")
    types, classes = registries.module_backend_types(), registries.module_backend_classes()
    types.update({name: name for name in ("BARE", "FUNCTION", "REFUSING", "ABSTRACT")})
    abstract = abc.ABCMeta("Abstract", (Local,), {"start": abc.abstractmethod(Local.start)})
    classes.update(FUNCTION=print, REFUSING=Refusing, ABSTRACT=abstract)
    world.module()
    if world.tries(lambda: [world.made_from(config)]).error is None:
        world.load()


@CASES.each(none=None, text="LOCAL", a_dict={"backend_priority": [{"type": "LOCAL"}]})
def config_is_no_config_but(world: World, config: Any) -> None:
    """What is not caikit's own kind of mapping is Python's own error."""
    assert isinstance(world.tries(lambda: world.kind(config, "default")).error, AttributeError)


@CASES
def arguments_of_the_constructor(world: World) -> None:
    """Both arguments are required."""
    world.tries(lambda: world.kind())
    world.tries(lambda: world.kind({}))
    world.tries(lambda: world.kind({}, "default", 1))
    assert world.kind(config={}, instance_name="default").backends


@CASES
def it_is_one_of_caikits(world: World) -> None:
    """It is taken wherever caikit asks for its own class."""
    assert isinstance(world.make(), LocalModelInitializer)
    assert len(world.initializer.backends) == 1


@CASES
def backends_can_be_changed_by_nobody(world: World) -> None:
    """What is done to the list of backends does not change what loads."""
    world.backend_type("GPU")
    world.module()
    world.module("GPU", SUPPORTED_LOAD_BACKENDS=["LOCAL"])
    backends = world.make("GPU", "LOCAL").backends
    backends.reverse()
    backends.pop()
    assert world.load().model.BACKEND_TYPE == "GPU"


@CASES
def overrides_are_registered(world: World) -> None:
    """What modules want changed in a backend is registered with it, in their order."""
    world.backend_type("GPU", "TPU")
    for number, module_id in enumerate("abc"):
        world.module("GPU", module_id, override={"number": number, module_id: True})
    world.module("TPU", override={"of": "another backend"})
    world.module("GPU", "d")
    world.make({"type": "GPU", "config": {"number": -1, "kept": True}})
    assert world.initializer.backends[0].config["number"] == 2


@CASES
def overrides_of_a_type_twice(world: World) -> None:
    """Each backend of a type is told, and each initializer has backends of its own."""
    world.backend_type("GPU")
    world.module("GPU", override={"number": 1})
    world.make("GPU", "GPU")
    world.make("GPU")


@CASES
def overrides_that_come_later(world: World) -> None:
    """A module that is registered later changes nothing in a backend that is there."""
    world.backend_type("GPU")
    world.make("GPU")
    world.module("GPU", override={"number": 1}, SUPPORTED_LOAD_BACKENDS=["LOCAL"])
    assert world.load().model


@CASES
def overrides_of_local(world: World) -> None:
    """Caikit's own backend takes none."""
    world.module(override={"number": 1})
    assert isinstance(world.tries(world.make).error, AssertionError)


@CASES
def overrides_that_are_refused(world: World) -> None:
    """What a backend raises for an override gets out."""

    def refuse(self: Any, config: Any) -> None:
        raise ValueError("another value is set")

    world.backend_type("GPU", register_config=refuse)
    world.module("GPU", override={"number": 1})
    assert isinstance(world.tries(lambda: world.make("GPU")).error, ValueError)


@CASES
def overrides_that_are_no_dict(world: World) -> None:
    """An override that is no dict is an error."""
    world.backend_type("GPU")
    world.module("GPU", override=[1])
    assert isinstance(world.tries(lambda: world.make("GPU")).error, TypeError)


@CASES
def backends_are_not_started(world: World) -> None:
    """Starting its backend is the module's own affair."""
    world.backend_type("GPU")
    world.module("GPU", wants_backend=True, SUPPORTED_LOAD_BACKENDS=["LOCAL"])
    world.make("GPU")
    assert not world.load().model.load_backend.is_started


@CASES
def a_module_starts_its_backend(world: World) -> None:
    """... and what it does to it stays."""

    def does(call: Any) -> Any:
        call.kwargs["load_backend"].start()
        return call.cls()

    world.module(wants_backend=True, does=does)
    assert world.load().model.load_backend.is_started


@CASES
def the_config_stays_as_it_was(world: World) -> None:
    """The config is only read."""
    world.backend_type("GPU")
    config = {"backend_priority": [{"type": "GPU", "config": {"a": [1]}}, {"type": "LOCAL"}]}
    world.made_from(config)
    world.note(config)
