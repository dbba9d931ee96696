"""Which backend loads: priority, implementations, creation backends, what changes in between."""

from __future__ import annotations

from typing import Any

from caikit.core import ModuleConfig, registries
from worlds import Cases, World, raises

CASES = Cases()


@CASES.each(gpu_first=("GPU", "LOCAL"), local_first=("LOCAL", "GPU"))
def the_first_that_can_loads(world: World, priority: tuple[str, str]) -> None:
    """The first backend of the list that has an implementation loads, and no other."""
    world.backend_type("GPU")
    for backend_type in ("LOCAL", "GPU"):
        world.module(backend_type, SUPPORTED_LOAD_BACKENDS=["LOCAL"], wants_backend=True)
    world.make(*priority)
    assert priority[0] == world.load().model.BACKEND_TYPE


@CASES
def without_implementation(world: World) -> None:
    """A backend without an implementation of the module is skipped."""
    world.backend_type("GPU", "TPU")
    world.module("GPU", "another", SUPPORTED_LOAD_BACKENDS=["LOCAL"])
    world.module()
    world.make("GPU", "TPU", "LOCAL")
    assert world.load().model


@CASES
def without_support(world: World) -> None:
    """A backend that cannot load what another backend has made is skipped."""
    world.backend_type("GPU")
    gpu = world.module("GPU", SUPPORTED_LOAD_BACKENDS=["GPU"])
    world.module()
    world.make("GPU", "LOCAL")
    assert world.load(world.config(model_backend="LOCAL")).model
    assert not world.calls(gpu)


@CASES
def made_elsewhere(world: World) -> None:
    """The backend a model was made with is looked for in what each class supports."""
    world.backend_type("GPU")
    local = world.module()
    world.module("GPU", SUPPORTED_LOAD_BACKENDS=["GPU"])
    world.make("LOCAL", "GPU")
    assert world.load(world.config(model_backend="GPU")).model
    assert not world.calls(local)


@CASES
def made_with_nothing_named(world: World) -> None:
    """A model that names no backend was made with LOCAL."""
    world.backend_type("GPU")
    world.module("GPU", SUPPORTED_LOAD_BACKENDS=["GPU"])
    world.make("GPU")
    assert world.load().model is None
    world.module("GPU", SUPPORTED_LOAD_BACKENDS=["GPU", "LOCAL"])
    assert world.load().model


@CASES.each(none=None, empty="", number=3, unknown="QPU")
def made_with_what_nobody_knows(world: World, made_with: Any) -> None:
    """A model made with something that no class names is not loaded."""
    module = world.module()
    assert world.load(world.config(model_backend=made_with)).model is None
    assert not world.calls(module)


@CASES.each(empty=[], a_tuple=("LOCAL",), text="LOCAL,GPU", a_mapping={"LOCAL": 1})
def supported_is_a(world: World, supported: Any) -> None:
    """What a class supports is whatever ``in`` finds something in."""
    world.module(SUPPORTED_LOAD_BACKENDS=supported)
    assert bool(world.load().model) == bool(supported)


@CASES
def supported_by_default(world: World) -> None:
    """A class that declares nothing supports what was made with its own backend."""
    world.backend_type("GPU")
    world.module("GPU")
    world.make("GPU")
    assert world.load().model is None
    assert world.load(world.config(model_backend="GPU")).model


@CASES
def supported_is_undeclared(world: World) -> None:
    """A class that has lost its declaration loads nothing."""
    module = world.module()
    del module.SUPPORTED_LOAD_BACKENDS
    assert world.load().model is None


@CASES
def supported_is_no_list(world: World) -> None:
    """A declaration in which nothing can be looked for is an error."""
    world.module(SUPPORTED_LOAD_BACKENDS=None)
    assert isinstance(world.load().error, TypeError)


@CASES
def supported_is_not_looked_at(world: World) -> None:
    """What comes after the backend that loads is not looked at."""
    world.backend_type("GPU")
    world.module("GPU", SUPPORTED_LOAD_BACKENDS=None)
    world.module()
    world.make("LOCAL", "GPU")
    assert world.load().model


@CASES.each(unknown="nobody", none=None, empty="")
def module_is_unknown(world: World, module_id: str | None) -> None:
    """A module that nobody has registered is not loaded."""
    world.module()
    world.initializer  # noqa: B018  # made before the config, which warns
    assert world.load(world.config(module_id)).model is None


@CASES
def module_has_no_implementations(world: World) -> None:
    """A module that is registered for nothing is not loaded."""
    registries.module_backend_registry()["m"] = {}
    assert world.load().model is None


@CASES
def module_by_its_old_name(world: World) -> None:
    """A config of caikit's older kind names the module by another key."""
    world.module()
    assert world.load(ModuleConfig({"block_id": "m"})).model


@CASES
def module_under_another_id(world: World) -> None:
    """The warning of the second call names the class's own module id."""
    module = world.module(does=raises(ValueError("with the config")))
    entry = registries.module_backend_registry()["m"]
    registries.module_backend_registry()["alias"] = entry
    assert world.load(world.config("alias")).model
    assert world.calls(module) == 2


@CASES
def types_twice(world: World) -> None:
    """A backend type may be listed twice; the first of the two loads."""
    world.backend_type("GPU")
    world.module("GPU", SUPPORTED_LOAD_BACKENDS=["LOCAL"], wants_backend=True)
    world.make(*[{"type": "GPU", "config": {"number": number}} for number in range(2)])
    assert world.load().model.load_backend.config == {"number": 0}
    assert len(world.initializer.backends) == 2


@CASES
def no_backends(world: World) -> None:
    """An empty list of backends loads nothing."""
    world.module()
    world.made_from({"backend_priority": []})
    assert world.load().model is None


@CASES
def a_module_registered_later(world: World) -> None:
    """A module that is registered after the initializer was made is found."""
    world.make("LOCAL")
    assert world.load().model is None
    world.module()
    assert world.load().model


@CASES
def a_module_registered_anew(world: World) -> None:
    """Each load takes the class that is registered then."""
    world.module(mark="first")
    first = world.load().model
    world.module(mark="second")
    assert (first.mark, world.load().model.mark) == ("first", "second")


@CASES
def a_module_taken_away(world: World) -> None:
    """A backend that has lost its implementation is skipped from then on."""
    world.backend_type("GPU")
    world.module("GPU", SUPPORTED_LOAD_BACKENDS=["LOCAL"])
    world.module()
    world.make("GPU", "LOCAL")
    assert world.load().model.BACKEND_TYPE == "GPU"
    del registries.module_backend_registry()["m"]["GPU"]
    assert world.load().model.BACKEND_TYPE == "LOCAL"


@CASES
def support_that_changes(world: World) -> None:
    """What a class supports is asked for in each load."""
    module = world.module()
    assert world.load().model
    module.SUPPORTED_LOAD_BACKENDS = ["GPU"]
    assert world.load().model is None


@CASES
def a_registry_changed_by_a_load(world: World) -> None:
    """A load that registers a module does not change what is being loaded."""

    def does(call: Any) -> Any:
        world.module(mark="second")
        raise ValueError("with the config") if call.number == 1 else KeyError("with the path")

    module = world.module(does=does, mark="first")
    assert isinstance(world.load().error, KeyError)
    assert world.calls(module) == 2
    assert world.load().model.mark == "second"
