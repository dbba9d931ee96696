"""The registry: what can be registered, and what is refused with both sides named."""

from __future__ import annotations

import importlib.metadata
from ast import literal_eval
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any, Protocol
from unittest.mock import MagicMock

import pytest
from pydantic import SecretStr

from anyload import (
    Backend,
    BackendConfig,
    ConfigError,
    Initializer,
    LocalBackend,
    ModelConfig,
    RegistrationError,
    Registry,
)
from anyload._registration import class_name
from anyload.errors import AnyloadError
from anyload.testing import returns_at_once


class Good:
    """A module."""

    @classmethod
    def load(cls, config: ModelConfig) -> Good:
        """Load it."""
        return cls()


class Other(Good):
    """Another one."""


class Gpu(Backend):
    """A backend."""

    backend_type = "GPU"


class Uncheckable(Protocol):
    """A protocol that isinstance cannot be asked about."""


def refused(register: Any) -> str:
    """Return the text of the refusal."""
    with pytest.raises(RegistrationError) as caught:
        register()
    return str(caught.value)


def test_the_decorator_returns_the_class() -> None:
    """A module needs no base class, and stays what it is."""
    assert Registry().module("m")(Good) is Good


def test_registering_the_same_class_again_is_no_conflict() -> None:
    """The same class for the same module and type is one registration."""
    registry = Registry()
    registry.module("m")(Good)
    registry.module("m")(Good)
    assert set(registry.modules["m"]) == {"LOCAL"}


def test_a_conflict_names_both_sides() -> None:
    """Two classes for one module and backend type are refused, by both names."""
    registry = Registry()
    registry.module("m")(Good)
    text = refused(lambda: registry.module("m")(Other))
    assert class_name(Good) in text
    assert class_name(Other) in text


def test_a_backend_type_conflict_names_both_sides() -> None:
    """Two classes of one backend type are refused, by both names."""

    class Local(Backend):
        backend_type = "LOCAL"

    text = refused(lambda: Registry().backend_type(Local))
    assert class_name(Local) in text
    assert class_name(LocalBackend) in text


def test_base_module_says_the_module_id() -> None:
    """An implementation for another backend type may name the module by its class."""
    registry = Registry()
    registry.backend_type(Gpu)
    registry.module("m")(Good)
    registry.module(backend_type="GPU", base_module=Good)(Other)
    registry.module("m", backend_type="NPU", base_module="m")(returns_at_once())
    assert set(registry.modules["m"]) == {"LOCAL", "GPU", "NPU"}
    assert registry.accepted_types("m")[:2] == (Good, Other)


@pytest.mark.parametrize(
    ("kwargs", "says"),
    [
        ({"base_module": Other}, "is not registered"),
        ({"base_module": "x"}, "'x' is not registered"),
        ({"module_id": "n", "base_module": Good}, "module_id 'n', but base_module"),
        ({}, "needs a module_id"),
        ({"module_id": ""}, "needs a module_id"),
        ({"module_id": "n", "backend_type": "gpu"}, "UPPERCASE"),
        ({"module_id": "n", "backend_type": 5}, "backend_type is 5; it must be an UPPERCASE name"),
        ({"base_module": 5}, "base_module is 5; it must be a module's class, or its id"),
        *(
            (
                {"module_id": "n", "supported_load_backends": literal_eval(given)},
                f"supported_load_backends is {given}; it must be a list of backend types",
            )
            for given in ("'LOCAL'", "5", "[[]]", "['LOCAL', 5]")
        ),
        *(
            (
                {"module_id": "n", "backend_config_override": given},
                f"backend_config_override is a {kind}; it must be a mapping of strings",
            )
            for given, kind in (("hunter2", "str"), (5, "int"), ([], "list"), ({1: "x"}, "dict"))
        ),
        *(
            (
                {"module_id": "n", "returns": given},
                f"returns is {given!r}; it must be a class, or a tuple",
            )
            for given in (5, ("x",), list[int], (int, int | str))
        ),
        ({"module_id": "n", "returns": Uncheckable}, "Uncheckable'>; it must be a class"),
    ],
)
def test_a_registration_that_makes_no_sense_is_refused(kwargs: dict[str, Any], says: str) -> None:
    """What cannot work is refused when it is registered."""
    registry = Registry()
    registry.module("m")(Good)
    text = refused(lambda: registry.module(**kwargs)(returns_at_once()))
    assert says in text
    assert "hunter2" not in text
    assert set(registry.modules) == {"m"}


def test_the_lists_of_a_registration_may_be_any_iterable() -> None:
    """A set or a generator of names does, and so do several classes."""
    registry = Registry()
    names = (name for name in ("GPU", "LOCAL"))
    registry.module("m", supported_load_backends=names, returns=(int, str))(Good)
    registry.module("n", returns=int, backend_config_override={})(Good)
    assert registry.implementations("m")["LOCAL"].supported_load_backends == {"GPU", "LOCAL"}
    assert registry.accepted_types("m") == (Good, int, str)
    assert registry.accepted_types("n") == (Good, int)


def test_a_decorator_without_parentheses_says_how_it_is_written() -> None:
    """It would make the class a function, and register nothing."""
    without: Any = Registry().module
    with pytest.raises(TypeError, match=r"takes the module's id: @registry\.module\('good'\)"):
        without(Good)


def test_a_base_class_of_two_modules_wants_the_id() -> None:
    """Where a class implements two modules, its name alone does not say which is meant."""
    registry = Registry()
    registry.module("a")(Good)
    registry.module("b")(Good)
    text = refused(lambda: registry.module(backend_type="GPU", base_module=Good)(Other))
    assert "a and b" in text


async def _async_load(cls: type, config: ModelConfig) -> None:
    """Load nothing."""


async def _async_yield(cls: type, config: ModelConfig) -> AsyncIterator[None]:
    """Yield nothing."""
    yield


def _method(self: Any, config: ModelConfig) -> None:
    """Do nothing."""


def _unsigned(config: ModelConfig) -> None:
    """Load nothing."""


_unsigned.__signature__ = 5  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ({}, "no load"),
        ({"load": 3}, "no load"),
        ({"load": classmethod(_async_load)}, "load is async"),
        ({"load": classmethod(_async_yield)}, "load is async"),
        ({"load": type("A", (), {"__call__": _async_load})()}, "load is async"),
        (
            {"load": _method},
            "class: missing a required argument: 'config'; it must be a classmethod",
        ),
        ({"load": classmethod(lambda cls: None)}, "class: too many positional arguments"),
        ({"load": classmethod(lambda cls, *, config: None)}, "class: too many positional"),
        ({"load": Good.load, "prepare": lambda self: None}, "prepare() cannot be called on the"),
        ({"load": Good.load, "variant": _method}, "variant(config) cannot be called on the class"),
        ({"load": Good.load, "weight_files": _method}, "weight_files(config) cannot be called"),
        ({"load": classmethod(lambda cls, config, key=None: None)}, "'key'"),
        ({"load": classmethod(lambda cls, config, priority=0: None)}, "'priority'"),
        ({"load": classmethod(lambda cls, config, timeout=None: None)}, "'timeout'"),
        ({"load": Good.load, "exclusive_group": 3}, "exclusive_group"),
        ({"load": Good.load, "exclusive_group": ""}, "exclusive_group"),
        *(
            ({"load": Good.load, name: _async_load}, f"{name} is async; it must be plain")
            for name in ("prepare", "variant", "weight_files", "warmup", "release", "memory_bytes")
        ),
        *(
            ({"load": Good.load, name: 5}, f"{name} is 5; it must be a classmethod or None")
            for name in ("prepare", "variant", "weight_files")
        ),
        *(
            (
                {"load": Good.load, "process_globals": given},
                f"process_globals is {given!r}; it must be a list of anyload.guard.ProcessGlobal",
            )
            for given in (5, "abc", (5,))
        ),
    ],
)
def test_a_class_that_cannot_be_a_module_is_refused(body: dict[str, Any], says: str) -> None:
    """The refusal says what is wrong with the class."""
    assert says in refused(lambda: Registry().module("m")(type("Bad", (), body)))


class Raises:
    """What raises whatever is done with it."""

    def __get__(self, instance: object, owner: type) -> Any:
        """Be no attribute."""
        raise SystemExit("no driver")


class Vague:
    """What cannot be asked whether it is true, nor shown."""

    def __bool__(self) -> bool:
        """Say nothing."""
        raise ValueError("who knows")

    def __repr__(self) -> str:
        """Say nothing."""
        raise ValueError("no text")


def _endless() -> Any:
    yield "LOCAL"
    raise ValueError("no more")


class Named:
    """An annotation whose name cannot be had."""

    @property
    def __name__(self) -> str:
        raise ValueError("nameless")


def _named(config: Any) -> None:
    """Load nothing."""


_named.__annotations__["config"] = Named()

DECLARED = (
    *("load", "prepare", "variant", "weight_files", "warmup", "release", "memory_bytes"),
    *("exclusive_group", "holds_gil", "pauses_gc", "process_globals", "supported_load_backends"),
)


@pytest.mark.parametrize(
    ("body", "says"),
    [
        *(({name: Raises()}, f"{name} cannot be used: SystemExit: no driver") for name in DECLARED),
        *(
            ({name: Vague()}, f"{name} cannot be used: ValueError: who knows")
            for name in ("holds_gil", "pauses_gc", "supported_load_backends")
        ),
        ({"exclusive_group": Vague()}, "exclusive_group is a Vague; it must be a name or None"),
        ({"supported_load_backends": _endless()}, "cannot be used: ValueError: no more"),
        ({"load": staticmethod(_named)}, "the annotation of its load cannot be used: ValueError"),
        ({"__module__": 5}, "its __module__ is no text"),
    ],
)
def test_what_a_class_raises_when_it_is_looked_at_is_told(body: dict[str, Any], says: str) -> None:
    """With its name and the attribute's."""
    told = refused(lambda: Registry().module("m")(type("Bad", (Good,), body)))
    assert says in told
    assert "Bad" in told


def test_ctrl_c_while_a_class_is_looked_at_is_ctrl_c() -> None:
    """It is no fault of the class."""
    interrupted = type("I", (Raises,), {"__get__": lambda *asked: interrupt()})

    def interrupt() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Registry().module("m")(type("Bad", (Good,), {"holds_gil": interrupted()}))


class Mocks(type):
    """A metaclass that makes whatever is asked for."""

    def __getattr__(cls, name: str) -> Any:
        """Return a mock."""
        return MagicMock()


class Unhashable(type):
    """A metaclass whose classes are no keys."""

    __hash__ = None  # type: ignore[assignment]

    def __eq__(cls, other: object) -> bool:
        """Be equal to nothing."""
        return False


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        (Mocks, "Bad  exclusive_group is a MagicMock; it must be a name or None"),
        (Unhashable, "Bad  its hash cannot be used: TypeError: "),
    ],
)
def test_a_class_of_an_odd_metaclass_is_refused(kind: type[type], says: str) -> None:
    """In our words, as any other."""
    assert says in refused(lambda: Registry().module("m")(kind("Bad", (Good,), {})))


def test_a_class_without_a_module_is_named_all_the_same() -> None:
    """It is made where nothing has a name."""
    space: dict[str, Any] = {"load": Good.load}
    exec("Lost = type('Lost', (), {'load': load})", space)
    lost = space["Lost"]
    assert " Lost  its __module__ is no text" in refused(lambda: Registry().module("m")(lost))


def test_a_declared_name_is_plain_text() -> None:
    """Whatever a subclass of str would say."""
    group = type("Text", (str,), {"__hash__": None, "__eq__": None})("g")
    registry = Registry()
    registry.module("m")(type("Odd", (Good,), {"exclusive_group": group}))
    assert type(registry.implementations("m")["LOCAL"].exclusive_group) is str


def test_a_class_is_asked_when_it_is_registered_and_not_again() -> None:
    """Its properties are code of others, which would run under the lock of the process."""
    asked = []

    class Asked(type):
        def __getattribute__(cls, name: str) -> Any:
            asked.append(name)
            return super().__getattribute__(name)

    registry = Registry()
    registry.module("m")(Asked("Known", (Good,), {}))
    assert "prepare" in asked
    asked.clear()
    with Initializer(registry) as initializer:
        initializer.init_sync(ModelConfig("m"))
    assert set(asked) <= {"load", "__instancecheck__"}


def test_something_that_is_no_class_is_refused() -> None:
    """Modules and backend types are classes."""
    not_a_class: Any = Good()
    assert "is a class" in refused(lambda: Registry().module("m")(not_a_class))
    assert "is a class" in refused(lambda: Registry().backend_type(not_a_class))


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ({}, "backend_type is None"),
        ({"backend_type": "gpu"}, "UPPERCASE"),
        ({"backend_type": "GPU"}, "no start()"),
        (
            dict.fromkeys(("start", "stop", "register_config", "available"), print)
            | {"backend_type": "GPU"},
            "no Config",
        ),
        *(
            ({**vars(LocalBackend), **vars(Backend), "Config": config}, f"with {name}()")
            for config, name in (
                (type("C", (), {"model_validate": 5}), "model_validate"),
                (type("C", (), {"model_validate": print}), "model_validate_json"),
            )
        ),
        ({"backend_type": Vague()}, "backend_type is a Vague; it must be an UPPERCASE name"),
        *(
            (
                {**vars(LocalBackend), **vars(Backend), name: Raises()},
                f"{name} cannot be used: SystemExit: no driver",
            )
            for name in ("backend_type", "start", "available", "Config")
        ),
        *(
            ({**vars(LocalBackend), **vars(Backend), name: _async_load}, f"{name} is async")
            for name in ("start", "stop", "register_config", "available")
        ),
    ],
)
def test_a_class_that_cannot_be_a_backend_is_refused(body: dict[str, Any], says: str) -> None:
    """A backend is duck-typed too, but it must have everything."""
    assert says in refused(lambda: Registry().backend_type(type("Bad", (), body)))


def test_a_load_written_in_c_is_accepted() -> None:
    """A callable without a signature is taken to want the config."""
    registry = Registry()
    registry.module("m")(type("InC", (), {"load": type}))
    registry.module("n")(type("Unsigned", (), {"load": staticmethod(_unsigned)}))
    for module_id in ("m", "n"):
        assert registry.implementations(module_id)["LOCAL"].argument == "config"


def test_what_can_be_called_on_the_class_will_do() -> None:
    """A plain function does, where it wants no instance; further arguments are load kwargs."""
    body = {"load": lambda config: None, "prepare": lambda: None, "weight_files": lambda config: ()}
    registry = Registry()
    registry.module("m")(type("Plain", (), body))
    wants = classmethod(lambda cls, config, device, *, precision: None)
    registry.module("n")(type("Wants", (), {"load": wants}))
    assert set(registry.modules) == {"m", "n"}


def test_what_a_module_may_have_may_be_none() -> None:
    """A subclass that sets it to None has it no more."""
    body = dict.fromkeys(("prepare", "variant", "weight_files", "warmup", "release"))
    registry = Registry()
    registry.module("m")(type("Plain", (Good,), body))
    known = registry.implementations("m")["LOCAL"]
    assert not known.varies
    assert (known.prepare, known.weight_files) == (None, None)


def _takes(annotation: Any) -> Any:
    def load(cls: type, path: Any) -> None:
        """Load nothing."""

    load.__annotations__["path"] = annotation
    return type("Takes", (), {"load": classmethod(load)})


@pytest.mark.parametrize(
    ("annotation", "argument"),
    [
        (str, "str"),
        ("str", "str"),
        ("'str'", "str"),
        (Path, "Path"),
        ("pathlib.Path", "Path"),
        (ModelConfig, "config"),
        ("no.such.thing()", "config"),
    ],
)
def test_the_first_annotation_says_what_load_gets(annotation: Any, argument: str) -> None:
    """A first parameter annotated str or Path gets the path; it is compared as text only."""
    registry = Registry()
    registry.module("m")(_takes(annotation))
    assert registry.implementations("m")["LOCAL"].argument == argument


def test_discover_reports_what_is_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    """Plug-ins are added; one that is broken is listed with its reason and stops nothing."""

    def register(registry: Registry) -> None:
        registry.module("by-function")(Good)

    plugins: dict[str, dict[str, Any]] = {
        "anyload.backends": {"GPU": Gpu, "LOCAL": LocalBackend},
        "anyload.modules": {"by-class": Good, "function": register, "worse": ZeroDivisionError()},
    }

    class Point:
        def __init__(self, name: str, value: Any) -> None:
            self.name = name
            self._value = value

        def load(self) -> Any:
            """Return the plug-in, or fail to import it."""
            if isinstance(self._value, Exception):
                raise self._value
            return self._value

    def entry_points(*, group: str) -> list[Point]:
        return [Point(name, value) for name, value in plugins[group].items()]

    monkeypatch.setattr(importlib.metadata, "entry_points", entry_points)
    registry = Registry.discover()
    assert set(registry.modules) == {"by-class", "by-function"}
    assert set(registry.backend_types) == {"LOCAL", "GPU"}
    (broken,) = registry.broken_plugins
    assert (broken.group, broken.name) == ("anyload.modules", "worse")
    assert "ZeroDivisionError" in broken.reason


def test_discover_finds_the_installed_entry_points() -> None:
    """The built-in plug-ins of the installed package are sound."""
    registry = Registry.discover()
    assert registry.broken_plugins == ()
    assert "LOCAL" in registry.backend_types


def test_repr_counts() -> None:
    """The repr says how much is known."""
    assert repr(Registry()) == "<Registry modules=0 backend_types=1>"


def test_a_module_adjusts_its_backends_config() -> None:
    """backend_config_override reaches every backend of that type, checked like any config."""

    class Sized(Backend):
        backend_type = "SIZED"

        class Config(BackendConfig):
            size: int = 1

    registry = Registry()
    registry.backend_type(Sized)
    registry.module("m", "SIZED", backend_config_override={"size": 7})(Good)
    priority = [{"type": "SIZED", "config": {"size": 2}}]
    (backend,) = Initializer(registry, backend_priority=priority).backends
    assert backend.config.model_dump() == {"size": 7}
    assert repr(backend) == "<Sized SIZED>"


class Secretive(Backend):
    """A backend whose config holds a secret."""

    backend_type = "SECRETIVE"

    class Config(BackendConfig):
        """It has a secret."""

        token: SecretStr = SecretStr("")


class Registers(Secretive):
    """One that takes no override."""

    def register_config(self, overrides: Mapping[str, Any]) -> None:
        raise OSError("it has begun")


class Validates(Secretive):
    """One that has more to validate when it is made."""

    def __init__(self, config: BackendConfig) -> None:
        self.Config.model_validate({"token": 5, "tokn": "hunter2"})


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        (
            Secretive,
            [
                (f"{__name__}.Good.backend_config_override.token", "expected a string"),
                (
                    f"{__name__}.Good.backend_config_override.tokn",
                    "unknown key; did you mean 'token'?",
                ),
            ],
        ),
        (
            Registers,
            [
                (
                    f"{__name__}.Good.backend_config_override",
                    "backend SECRETIVE cannot be changed: OSError: it has begun",
                )
            ],
        ),
        (
            Validates,
            [
                ("backend_priority[0].token", "expected a string"),
                ("backend_priority[0].tokn", "unknown key; did you mean 'token'?"),
            ],
        ),
    ],
)
def test_an_override_that_does_not_fit_names_its_module_and_shows_no_value(
    kind: type[Backend], says: list[tuple[str, str]]
) -> None:
    """A module's override may hold secrets, as a configuration may."""
    registry = Registry()
    registry.backend_type(kind)
    override = {"token": 5, "tokn": "hunter2"}
    registry.module("m", "SECRETIVE", backend_config_override=override)(Good)
    with pytest.raises(ConfigError) as caught:
        Initializer(registry, backend_priority=[{"type": "SECRETIVE"}])
    assert sorted(caught.value.problems) == says


def test_a_backend_that_cannot_be_made_is_a_config_error() -> None:
    """What a backend's class raises names its place in the priority."""

    class Broken(Backend):
        backend_type = "BROKEN"

        def __init__(self, config: BackendConfig) -> None:
            raise OSError("no such device")

    registry = Registry()
    registry.backend_type(Broken)
    with pytest.raises(ConfigError) as caught:
        Initializer(registry, backend_priority=[{"type": "BROKEN"}])
    (problem,) = caught.value.problems
    assert problem.where == "backend_priority[0]"
    assert "no such device" in problem.what


def test_a_backend_is_available_unless_it_says_otherwise() -> None:
    """The default of available() is that nothing stands in the way."""
    assert Backend(BackendConfig()).available() is None


def test_config_names_modules_and_backend_types_by_import_path() -> None:
    """The operator's own classes are imported by path and added to a copy of the registry."""
    registry = Registry()
    config = {
        "modules": {"mine": f"{__name__}:Good"},
        "backend_types": {"GPU": f"{__name__}:Gpu"},
        "backend_priority": [{"type": "GPU"}, {"type": "LOCAL"}],
    }
    initializer = Initializer.from_config(config, registry=registry)
    assert [backend.backend_type for backend in initializer.backends] == ["GPU", "LOCAL"]
    assert registry.modules == {}


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("no_such_package:X", "No module named"),
        (f"{__name__}:Absent", "Absent"),
        (f"{__name__}:refused", "a module is a class"),
    ],
)
def test_an_import_path_that_leads_nowhere_is_a_config_error(path: str, says: str) -> None:
    """The error names the key and what went wrong."""
    with pytest.raises(ConfigError) as caught:
        Initializer.from_config({"modules": {"mine": path}}, registry=Registry())
    (problem,) = caught.value.problems
    assert problem.where == "modules.mine"
    assert says in problem.what
    assert isinstance(caught.value, AnyloadError)


def test_a_backend_type_of_the_configuration_is_what_its_class_says() -> None:
    """Else it would be registered under a name that the configuration never says."""
    source = {"backend_types": {"XPU": f"{__name__}:Gpu"}, "backend_priority": [{"type": "XPU"}]}
    with pytest.raises(ConfigError) as caught:
        Initializer.from_config(source, registry=Registry())
    (problem,) = caught.value.problems
    assert problem == ("backend_types.XPU", f"{__name__}.Gpu is of backend type GPU, not 'XPU'")


class Weights:
    """Loads differ by what the config says, and so does what they must declare."""

    @classmethod
    def variant(cls, config: ModelConfig) -> Any:
        if config.format == "exit":
            raise SystemExit(3)
        variants = {"fast": cls, "slow": SlowWeights, "odd": Other, "none": 7, "dict": {}}
        return variants[config.format]

    @classmethod
    def load(cls, config: ModelConfig) -> Any:
        return cls()


class SlowWeights(Weights):
    holds_gil = True


def weights() -> Registry:
    registry = Registry()
    registry.module("weights")(Weights)
    return registry


async def test_a_module_chooses_its_variant_by_the_config() -> None:
    """A variant has declarations of its own, and is made into an implementation once."""
    fast, slow = (ModelConfig("weights", format=name) for name in ("fast", "slow"))
    async with Initializer(weights()) as initializer:
        assert type(await initializer.init(fast)) is Weights
        assert type(await initializer.init(slow)) is SlowWeights
        plans = [await initializer.plan(slow) for _ in range(2)]
    (first,), (second,) = (plan.candidates for plan in plans)
    assert first.implementation is second.implementation
    assert first.implementation.holds_gil


@pytest.mark.parametrize(
    ("chosen", "says"),
    [
        ("odd", "must be a subclass of it"),
        ("none", "must be a subclass of it"),
        ("dict", "must be a subclass of it"),
        ("unknown", r"variant\(\) of .*Weights raised KeyError"),
        ("exit", r"variant\(\) of .*Weights raised SystemExit: 3"),
    ],
)
async def test_a_variant_that_cannot_be_is_the_error_of_its_load(chosen: str, says: str) -> None:
    """It names the module; other models of the module are not affected."""
    async with Initializer(weights()) as initializer:
        with pytest.raises(ConfigError, match=says):
            await initializer.init(ModelConfig("weights", format=chosen))
        await initializer.init(ModelConfig("weights", format="fast"))
