"""Which modules and backend types there are. Recipes only; no models live here."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, Self, TypeVar

from ._reading.problems import shown
from ._registration import (
    check_backend,
    check_backend_type,
    check_module,
    check_parentheses,
    class_name,
    exclusive_group_of,
    flag,
    module_of,
    override_of,
    parameters_of,
    process_globals_of,
    refusal,
    returned_by,
    supported_by,
    told_of,
)
from ._text import one_line
from .backends import LocalBackend
from .contracts import Backend
from .errors import describe
from .guard import ProcessGlobal
from .model_config import ModelConfig

ModuleClass = TypeVar("ModuleClass", bound=type)
BackendClass = TypeVar("BackendClass", bound=type)

Argument = Literal["config", "str", "Path"]

GIL_LANE = "the lane of holds_gil"
"""What loads that hold the GIL share; a group cannot have this name, as it begins with group."""


@dataclass(frozen=True, slots=True, eq=False)
class Implementation:
    """The class for one module id and backend type, and what its declarations say.

    The class is asked once, when it is registered: later that would be code of others under the
    lock.

    Args:
        module_id: the module it implements.
        backend_type: the backend type it loads on.
        cls: the class.
        supported_load_backends: the creation backends whose models it can load.
        backend_config_override: what it wants changed in its backend's config.
        exclusive_group: the group whose loads never overlap, if it declares one.
        holds_gil: whether its load keeps the GIL.
        pauses_gc: whether its load wants the garbage collector off.
        argument: what ``load`` takes first: the model config, or its path as a str or a Path.
        wants_backend: whether ``load`` names ``load_backend``.
        resources: what a load must hold alone in this process: its group, the lane of the GIL.
        weight_files: names the files that a load reads, if the class says.
        process_globals: process-wide state that its loads are known to change.
        prepare: imports all that its loads need, if it has that.
        variant: returns the class that loads a model, where that depends on the model.
        variants: the implementations that its ``variant`` has chosen so far, by class.
    """

    module_id: str
    backend_type: str
    cls: type
    supported_load_backends: frozenset[str]
    backend_config_override: Mapping[str, Any] = field(repr=False)
    exclusive_group: str | None
    holds_gil: bool
    argument: Argument
    wants_backend: bool
    resources: tuple[str, ...]
    weight_files: Callable[[ModelConfig], Iterable[str | os.PathLike[str]]] | None = None
    pauses_gc: bool = False
    process_globals: tuple[ProcessGlobal, ...] = field(default=(), repr=False)
    prepare: Callable[[], object] | None = None
    variant: Callable[[ModelConfig], Any] | None = None
    variants: dict[type, Implementation] = field(default_factory=dict, repr=False)
    name: str = field(init=False)
    """The class as ``package.module.Class``."""
    package: str = field(init=False, repr=False)
    """The top-level package that the class lives in."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", class_name(self.cls))
        object.__setattr__(self, "package", (module_of(self.cls) or "").partition(".")[0])

    def load(self, config: ModelConfig, backend: Backend, kwargs: Mapping[str, Any]) -> Any:
        """Call the class's ``load`` in the way that its signature asks for."""
        further = {**kwargs, "load_backend": backend} if self.wants_backend else kwargs
        argument: Any = config
        if self.argument != "config" and config.model_path is not None:
            argument = Path(config.model_path) if self.argument == "Path" else config.model_path
        return self.cls.load(argument, **further)  # type: ignore[attr-defined]  # `_inspect` looked

    @property
    def varies(self) -> bool:
        """Whether the class that loads a model depends on the model."""
        return self.variant is not None

    def of(self, config: ModelConfig) -> Implementation:
        """Return the implementation that loads this model: this one, or its variant.

        Raises:
            RegistrationError: the class chosen cannot be a module.
            Exception: whatever ``variant`` raises, as for a file of no known format.
        """
        if self.variant is None:
            return self
        cls = self.variant(config)
        if cls is self.cls:
            return self
        if not (isinstance(cls, type) and issubclass(cls, self.cls)):
            raise refusal(cls, f"a variant of {self.name} must be a subclass of it")
        known = self.variants.get(cls)
        if known is None:
            known = self.variants[cls] = _inspect(
                self.module_id,
                self.backend_type,
                cls,
                self.supported_load_backends,
                self.backend_config_override,
            )
        return known


@dataclass(frozen=True, slots=True)
class BrokenPlugin:
    """A plug-in that could not be added: its entry point and why, each in one line."""

    group: str
    name: str
    reason: str


class Registry:
    """Knows modules, their implementations per backend type, and backend types.

    ``LOCAL`` is known from the start. Registering is meant for import time and is not
    synchronised with loads that run.
    """

    def __init__(self) -> None:
        self._implementations: dict[str, dict[str, Implementation]] = {}
        self._returns: dict[str, tuple[type, ...]] = {}
        self._backend_types: dict[str, type[Backend]] = {}
        self._broken_plugins: list[BrokenPlugin] = []
        self.version = 0
        """Goes up with every registration, for those who keep what they derived."""
        self.backend_type(LocalBackend)

    @classmethod
    def discover(cls) -> Self:
        """Return a registry with the built-in and installed plug-ins.

        A plug-in is an entry point: in the group ``anyload.backends`` a backend class; in
        ``anyload.modules`` a class, registered for LOCAL under the entry point's name, or a
        function that is called with the registry. One that cannot be imported or registered is
        listed in ``broken_plugins``; nothing of it is registered, and it stops no other.
        """
        from ._reading.plugins import installed  # 20 ms, and only needed here

        registry = cls()
        for group, add in (
            ("anyload.backends", registry._add_backend_plugin),
            ("anyload.modules", registry._add_module_plugin),
        ):
            points, broken = installed(group)
            for package, reason in broken:
                registry._broken(group, package, reason)
            for point in points:
                before = registry.copy()
                try:
                    add(point.name, point.load())
                except KeyboardInterrupt:
                    raise
                except BaseException as error:  # SystemExit of a script, a panic of Rust
                    registry._become(before)
                    registry._broken(group, point.name, describe(error))
        return registry

    def _broken(self, group: str, name: str, reason: str) -> None:
        self._broken_plugins.append(BrokenPlugin(group, one_line(name), one_line(reason)))

    def _add_backend_plugin(self, name: str, plugin: Any) -> None:
        if self._backend_types.get(name) is not plugin:
            self.backend_type(plugin)

    def _add_module_plugin(self, name: str, plugin: Any) -> None:
        if isinstance(plugin, type):
            self.module(name)(plugin)
        else:
            plugin(self)

    def module(
        self,
        module_id: str | None = None,
        backend_type: str = "LOCAL",
        base_module: type | str | None = None,
        supported_load_backends: Iterable[str] | None = None,
        backend_config_override: Mapping[str, Any] | None = None,
        returns: type | tuple[type, ...] | None = None,
    ) -> Callable[[ModuleClass], ModuleClass]:
        """Register the decorated class as a module's implementation for one backend type.

        Args:
            module_id: the module; may be left out where ``base_module`` says it.
            backend_type: the backend type this class loads on.
            base_module: the module, or its id, of which this is another implementation.
            supported_load_backends: the creation backends (``model_backend``) whose models this
                class can load; by default the class attribute of that name, else its own type.
            backend_config_override: merged into the config of every backend of this type.
            returns: further classes that ``load`` may return instances of.

        Returns:
            A decorator that returns the class itself.

        Raises:
            RegistrationError: the class cannot be a module, or conflicts with another one.
            TypeError: it is used as a decorator itself, without parentheses.
        """
        check_parentheses(module_id)

        def register(cls: ModuleClass) -> ModuleClass:
            identity = self._module_id(module_id, base_module, cls)
            more = returned_by(cls, returns)
            implementation = _inspect(
                identity, backend_type, cls, supported_load_backends, backend_config_override
            )
            registered = self._implementations.setdefault(identity, {})
            other = registered.setdefault(backend_type, implementation)
            if other.cls is not cls:
                raise refusal(
                    cls,
                    f"module {identity!r} on {backend_type} is already implemented by {other.name}",
                )
            registered[backend_type] = implementation
            self._returns[identity] = (*self._returns.get(identity, ()), *more)
            self.version += 1
            return cls

        return register

    def _module_id(self, module_id: str | None, base: Any, cls: Any) -> str:
        if base is None:
            if isinstance(module_id, str) and module_id:
                return module_id
            raise refusal(cls, "a module needs a module_id, a string that is not empty")
        if not isinstance(base, (type, str)):
            raise refusal(
                cls, f"base_module is {shown(base)}; it must be a module's class, or its id"
            )
        named = repr(base) if isinstance(base, str) else class_name(base)
        bases = [
            identity
            for identity, registered in self._implementations.items()
            if base == identity or any(base is known.cls for known in registered.values())
        ]
        if not bases:
            raise refusal(cls, f"its base_module {named} is not registered")
        if module_id is None and len(bases) == 1:
            return bases[0]
        if module_id in bases:
            return str(module_id)
        asked = "no module_id" if module_id is None else f"module_id {module_id!r}"
        raise refusal(cls, f"{asked}, but base_module {named} is {' and '.join(bases)}")

    def backend_type(self, cls: BackendClass) -> BackendClass:
        """Register a backend class under its ``backend_type``; usable as a decorator.

        Raises:
            RegistrationError: the class cannot be a backend, or the type is taken.
        """
        check_backend(cls)
        name: str = cls.backend_type  # type: ignore[attr-defined]  # that has looked
        other = self._backend_types.setdefault(name, cls)
        if other is not cls:
            raise refusal(cls, f"backend type {name} is already {class_name(other)}")
        return cls

    @property
    def modules(self) -> Mapping[str, Mapping[str, Implementation]]:
        """The implementations, by module id and backend type."""
        return MappingProxyType(
            {name: MappingProxyType(found) for name, found in self._implementations.items()}
        )

    @property
    def backend_types(self) -> Mapping[str, type[Backend]]:
        """The backend classes, by backend type."""
        return MappingProxyType(self._backend_types)

    @property
    def broken_plugins(self) -> tuple[BrokenPlugin, ...]:
        """The plug-ins that ``discover`` could not add, and why."""
        return tuple(self._broken_plugins)

    def implementations(self, module_id: str) -> Mapping[str, Implementation]:
        """Return a module's implementations by backend type; empty where it is not registered."""
        return self._implementations.get(module_id, {})

    def varies(self, module_id: str) -> bool:
        """Return whether the class that loads a model of this module depends on the model."""
        return any(known.varies for known in self.implementations(module_id).values())

    def accepted_types(self, module_id: str) -> tuple[type, ...]:
        """Return the classes of which a loaded model of this module must be an instance."""
        classes = (known.cls for known in self.implementations(module_id).values())
        return (*dict.fromkeys(classes), *self._returns.get(module_id, ()))

    def copy(self) -> Registry:
        """Return a registry that knows the same and can be added to without changing this one."""
        twin = Registry()
        twin._become(self)
        return twin

    def _become(self, other: Registry) -> None:
        self._implementations = {name: dict(all_) for name, all_ in other._implementations.items()}
        self._returns = dict(other._returns)
        self._backend_types = dict(other._backend_types)
        self._broken_plugins = list(other._broken_plugins)
        self.version += 1

    def __repr__(self) -> str:
        modules, types = len(self._implementations), len(self._backend_types)
        return f"<Registry modules={modules} backend_types={types}>"


def _inspect(
    module_id: str,
    backend_type: str,
    cls: Any,
    supported: Iterable[str] | None,
    override: Mapping[str, Any] | None,
) -> Implementation:
    methods = check_module(cls)
    check_backend_type(cls, backend_type)
    parameters = parameters_of(cls, methods["load"])
    first = next(iter(parameters.values()), None)
    with told_of(cls, "the annotation of its load"):
        argument = argument_of("" if first is None else first.annotation)
    group, holds_gil = exclusive_group_of(cls), flag(cls, "holds_gil")
    return Implementation(
        module_id,
        backend_type,
        cls,
        supported_by(cls, supported, backend_type),
        override_of(cls, override),
        exclusive_group=group,
        holds_gil=holds_gil,
        argument=argument,
        wants_backend="load_backend" in parameters,
        resources=resources_of(group, holds_gil),
        weight_files=methods["weight_files"],
        pauses_gc=flag(cls, "pauses_gc"),
        process_globals=process_globals_of(cls),
        prepare=methods["prepare"],
        variant=methods["variant"],
    )


def resources_of(group: str | None, holds_gil: bool) -> tuple[str, ...]:
    """Return what a load must hold alone in this process: its group, the lane of the GIL."""
    return ((f"group {group}",) if group else ()) + ((GIL_LANE,) if holds_gil else ())


def argument_of(annotation: object) -> Argument:
    """Return what a ``load`` takes first, by the annotation of that parameter."""
    # Compared as text: evaluating an annotation would run code that only type checkers should.
    text = annotation if isinstance(annotation, str) else getattr(annotation, "__name__", "")
    name = text.strip("'\" ") if isinstance(text, str) else ""
    if name == "str":
        return "str"
    return "Path" if name in ("Path", "pathlib.Path") else "config"
