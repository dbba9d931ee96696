"""What a case of the differential suite runs in: caikit's registries, and a log of what happens.

A world belongs to one run of one case with one class of initializers. All that two runs can be
told apart by goes into its log, as plain values: objects are named by where they come from.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self
from unittest import mock

import aconfig
import caikit
from caikit.core import MODEL_MANAGER, ModuleBase, ModuleConfig, registries
from caikit.core.module_backends import BackendBase, LocalBackend
from caikit.core.modules import decorator

ADDRESS = re.compile(r"0x[0-9a-f]+")


class Module(ModuleBase):  # type: ignore[misc]  # caikit has no types
    """What the modules of the tests are made from."""


class Call(NamedTuple):
    """One call of a module's ``load``.

    Args:
        cls: the module.
        argument: what it was given first.
        kwargs: what it was given beside that.
        number: which call of this module it is, from 1.
    """

    cls: type[Module]
    argument: Any
    kwargs: Mapping[str, Any]
    number: int


class Outcome(NamedTuple):
    """What came of one load: a model or None, or an error."""

    model: Any = None
    error: BaseException | None = None


Does = Callable[[Call], Any]
"""What a module's ``load`` does, once the call is in the log."""


def makes(call: Call) -> Any:
    """Return a model of the module."""
    return call.cls()


def raises(*errors: BaseException | None) -> Does:
    """Return what raises the first at the first call, and so on; None, and later, is a model."""

    def does(call: Call) -> Any:
        error = errors[call.number - 1] if call.number <= len(errors) else None
        if error is not None:
            raise error
        return call.cls()

    return does


def gives(value: Any) -> Does:
    """Return what returns a value, whatever it is."""
    return lambda call: value


def needs_path(call: Call) -> Any:
    """Return a model, where the path was given and not the config."""
    if not isinstance(call.argument, str):
        raise TypeError(f"a path is needed, not a {type(call.argument).__name__}")
    return call.cls()


def in_workers(kind: Any) -> Any:
    """Return a class of ours that loads in worker threads, as it does where a key is set."""
    never = property(lambda self: False, lambda self, value: None)
    attributes = {"_asks_for_nothing": never, "__module__": kind.__module__}
    return type(kind.__name__, (kind,), attributes)


class World:
    """One run of one case; entering it empties caikit's registries, leaving it restores them.

    Args:
        kind: the class of the initializers.
        directory: a place for files, the same for every run of a case.
    """

    def __init__(self, kind: Any, directory: Path) -> None:
        self.kind = kind
        self.directory = directory
        self.log: list[object] = []
        self._names: list[tuple[object, str]] = []
        self._models: list[Module] = []
        self._calls: dict[type, int] = {}
        self._made: list[Any] = []
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        enter = self._stack.enter_context
        enter(mock.patch.dict(registries.module_registry(), clear=True))
        enter(mock.patch.dict(registries.module_backend_registry(), clear=True))
        enter(mock.patch.dict(registries.module_backend_types(), {"LOCAL": "LOCAL"}, clear=True))
        enter(mock.patch.dict(registries.module_backend_classes(), {"LOCAL": Local}, clear=True))
        enter(mock.patch.dict(MODEL_MANAGER._initializers, clear=True))
        enter(mock.patch.dict(MODEL_MANAGER._singleton_module_cache, clear=True))
        handler = Warnings(self)
        logging.getLogger().addHandler(handler)
        self._stack.callback(logging.getLogger().removeHandler, handler)
        enter(mock.patch.object(Recording, "world", self, create=True))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stack.close()

    # What there is

    def backend_type(self, *names: str, **attributes: Any) -> None:
        """Register backend types, each with a class whose attributes may be given."""
        for name in names:
            cls = type(name.title(), (Recording,), {"backend_type": name, **attributes})
            registries.module_backend_types()[name] = name
            registries.module_backend_classes()[name] = cls

    def module(
        self,
        backend_type: str = "LOCAL",
        module_id: str = "m",
        *,
        does: Does | None = makes,
        load: Any = None,
        override: Any = None,
        base: type = Module,
        wants_backend: bool = False,
        **attributes: Any,
    ) -> Any:
        """Register a module, and return its class.

        Args:
            backend_type: what it loads on.
            module_id: its id.
            does: what its ``load`` does; None where it is inherited.
            load: its ``load`` in place of that, without what caikit puts around each.
            override: what it wants changed in its backend's config.
            base: the class it is made from.
            wants_backend: whether its ``load`` names ``load_backend``.
            attributes: of the class, such as ``SUPPORTED_LOAD_BACKENDS``.
        """
        if does is not None and load is None:
            attributes["load"] = self._load(does, wants_backend=wants_backend)
        name = f"{module_id.title()}On{backend_type.title()}"
        made: Any = type(name, (base,), attributes)
        if load is not None:
            type.__setattr__(made, "load", load)
        registries.module_registry().pop(module_id, None)
        registries.module_backend_registry().get(module_id, {}).pop(backend_type, None)
        return decorator.module(
            module_id, name, "0.0.1", backend_type=backend_type, backend_config_override=override
        )(made)

    def _load(self, does: Does, *, wants_backend: bool) -> Any:
        def load(cls: Any, /, model_path: Any, **kwargs: Any) -> Any:
            return self.called(does, cls, model_path, kwargs)

        def load_on(cls: Any, /, model_path: Any, load_backend: Any = None, **kwargs: Any) -> Any:
            return self.called(does, cls, model_path, {**kwargs, "load_backend": load_backend})

        return classmethod(load_on) if wants_backend else classmethod(load)

    def called(self, does: Does, cls: Any, argument: Any, kwargs: Mapping[str, Any]) -> Any:
        """Put a call of ``load`` into the log, and do what it does."""
        self._calls[cls] = number = self._calls.get(cls, 0) + 1
        self.note("load", cls, argument, kwargs)
        return does(Call(cls, argument, kwargs, number))

    def calls(self, cls: Any) -> int:
        """Return how often a module's ``load`` was called."""
        return self._calls.get(cls, 0)

    def config(self, module_id: str | None = "m", path: Any = "models/m", /, **fields: Any) -> Any:
        """Return what a finder would have found."""
        config = ModuleConfig({"module_id": module_id, **fields})
        if path is not None:
            config["model_path"] = path
        return self.named(config, f"the config of {module_id}")

    def saved(self, module_id: str = "m", **fields: Any) -> str:
        """Return the path of a model directory."""
        directory = self.directory / module_id
        directory.mkdir(exist_ok=True)
        lines = [f"{name}: {value}\n" for name, value in {"module_id": module_id, **fields}.items()]
        (directory / "config.yml").write_text("".join(lines))
        return str(directory)

    def make(self, *priority: Any, **further: Any) -> Any:
        """Return a new initializer; the backends are given by type, or as entries."""
        entries = [{"type": one} if isinstance(one, str) else one for one in priority]
        config = {"backend_priority": entries} if entries else {}
        return self.made_from({**config, **further})

    def made_from(self, config: Mapping[str, Any]) -> Any:
        """Return a new initializer with this ``config``."""
        plain = aconfig.Config(config, override_env_vars=False)
        initializer = self.kind(plain, "default")
        number = len(self._made)
        self._made.append(initializer)
        for place, backend in enumerate(initializer.backends):
            self.named(backend, f"backend {place} of initializer {number}")
        return initializer

    def setting(self, **values: Any) -> AbstractContextManager[object]:
        """Return what changes caikit's configuration for a while."""
        changed = aconfig.Config({**caikit.get_config(), **values}, override_env_vars=False)
        return mock.patch("caikit.config.config._IMMUTABLE_CONFIG", changed)

    # What happens

    @property
    def initializer(self) -> Any:
        """The newest initializer; one with caikit's defaults, where none was made."""
        return self._made[-1] if self._made else self.make()

    def load(self, config: Any = None, /, **kwargs: Any) -> Outcome:
        """Load with the newest initializer, put what comes of it into the log, and return it."""
        config = self.config() if config is None else config
        return self.tries(lambda: self.initializer.init(config, **kwargs))

    def tries(self, do: Callable[[], Any]) -> Outcome:
        """Do something, put what comes of it into the log, and return it."""
        try:
            outcome = Outcome(do())
        except BaseException as error:
            outcome = Outcome(None, error)
        self.note("raised" if outcome.error else "returned", outcome.error or outcome.model)
        return outcome

    def note(self, *what: object) -> None:
        """Put something into the log."""
        self.log.append(self.told(what))

    def end(self) -> None:
        """Put what is left behind into the log."""
        for initializer in self._made:
            first, second = initializer.backends, initializer.backends
            self.note("a copy", first is not second, "the same", first == second)
            for backend in first:
                self.note(backend, type(backend), backend.is_started, backend.config)

    # How it is told

    def named(self, value: Any, name: str) -> Any:
        """Return an object that is from now on called this in the log."""
        self._names.append((value, name))
        return value

    def told(self, value: Any) -> Any:
        """Return a value as it can be compared with that of another run."""
        name = next((name for known, name in self._names if known is value), None)
        if name is not None:
            return name
        if value is None or isinstance(value, bool | int | float | str | bytes):
            return self._known(value) if isinstance(value, str) else value
        if isinstance(value, Mapping):
            return {str(key): self.told(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [self.told(item) for item in value]
        if isinstance(value, type):
            return f"class {self._known(value.__qualname__)}"
        if isinstance(value, BaseException):
            return self._told_error(value)
        if isinstance(value, Module):
            return self._told_model(value)
        return f"a {self._known(type(value).__qualname__)}"

    def _known(self, text: str) -> str:
        return ADDRESS.sub("0x", text).replace(self.kind.__name__, "TheInitializer")

    def _told_model(self, model: Module) -> list[object]:
        known = [place for place, other in enumerate(self._models) if other is model]
        if not known:
            known = [len(self._models)]
            self._models.append(model)
        return [f"model {known[0]}", self.told(type(model)), self.told(vars(model))]

    def _told_error(self, error: BaseException | None, *above: BaseException) -> Any:
        if error is None or any(one is error for one in above):
            return None if error is None else "one further up"
        try:
            text = self._known(str(error))
        except Exception as raised:
            text = f"no text: {raised}"
        return {
            "error": type(error).__qualname__,
            "text": text,
            "attributes": self.told(vars(error)),
            "name": next((name for known, name in self._names if known is error), None),
            "cause": self._told_error(error.__cause__, error, *above),
            "context": self._told_error(error.__context__, error, *above),
            "suppressed": error.__suppress_context__,
            "of": [self._told_error(one, error, *above) for one in _parts(error)],
        }


def _parts(error: BaseException) -> Iterable[BaseException]:
    return error.exceptions if isinstance(error, BaseExceptionGroup) else ()


class Recording(BackendBase):  # type: ignore[misc]  # caikit has no types
    """A backend that puts into the log what is asked of it."""

    backend_type = "RECORDING"
    world: World
    config: Any

    def __init__(self, config: Any = None) -> None:
        super().__init__(config)
        self.world.note("made", type(self), config)

    def register_config(self, config: Any) -> None:
        self.world.note("register_config", type(self), config)
        self.config = {**self.config, **config}

    def start(self) -> None:
        self.world.note("start", type(self))

    def stop(self) -> None:
        self.world.note("stop", type(self))


class Local(LocalBackend):  # type: ignore[misc]  # caikit has no types
    """caikit's own, under a name of ours."""


class Warnings(logging.Handler):
    """Puts what caikit warns of into the log of a world."""

    def __init__(self, world: World) -> None:
        super().__init__(logging.WARNING)
        self._world = world

    def emit(self, record: logging.LogRecord) -> None:
        if not record.name.startswith("anyload"):
            told = record.msg if isinstance(record.msg, Mapping) else record.getMessage()
            # As text: what an error's context is, is told where it gets out.
            self._world.note("log", record.name, record.levelname, str(told))


Case = Callable[[World], None]


class Cases:
    """The cases of one file, in order."""

    def __init__(self) -> None:
        self._cases: dict[str, Case] = {}

    def __call__(self, case: Case) -> Case:
        """Add a case; its docstring states a rule of caikit's."""
        self._cases[case.__name__] = case
        return case

    def each(self, /, **variants: Any) -> Callable[[Callable[[World, Any], None]], None]:
        """Return what adds one case for each variant."""

        def add(case: Callable[[World, Any], None]) -> None:
            for name, variant in variants.items():
                self._cases[f"{case.__name__}-{name}"] = _bound(case, variant)

        return add

    def items(self) -> Iterator[tuple[str, Case]]:
        """Yield each case with its name."""
        yield from self._cases.items()


def _bound(case: Callable[[World, Any], None], variant: Any) -> Case:
    return lambda world: case(world, variant)


def observe(case: Case, kind: Any, directory: Path) -> list[object]:
    """Run a case with a class of initializers, and return the log."""
    with World(kind, directory) as world:
        case(world)
        world.end()
    return world.log
