"""What may be registered: what cannot work is refused here, and by nobody later."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from reprlib import repr as short_repr
from types import MappingProxyType
from typing import Any, TypeVar

from ._reading.problems import shown
from .errors import Problem, RegistrationError, describe
from .guard import ProcessGlobal

T = TypeVar("T")

RESERVED = ("key", "priority", "timeout")

_BACKEND_TYPE = re.compile(r"[A-Z][A-Z0-9_]*\Z")
_OF_THE_CLASS = MappingProxyType(
    {"load": ("config",), "variant": ("config",), "weight_files": ("config",), "prepare": ()}
)
_OF_A_MODEL = ("warmup", "release", "memory_bytes")
_OF_A_BACKEND = ("start", "stop", "register_config", "available")


def module_of(cls: type) -> str | None:
    """Return the name of the module that a class is in, or None where its class has no such text.

    What a metaclass would say counts for nothing here: it is code of others.
    """
    try:
        name = vars(type)["__module__"].__get__(cls)
    except AttributeError:  # somebody deleted it
        return None
    return str.__str__(name) if isinstance(name, str) else None


def class_name(cls: type) -> str:
    """Return a class as ``package.module.Class``."""
    name = str.__str__(vars(type)["__qualname__"].__get__(cls))
    module = module_of(cls)
    return name if module is None else f"{module}.{name}"


def refusal(cls: Any, what: str) -> RegistrationError:
    """Return the error that names a class, and what is wrong with it."""
    where = class_name(cls) if isinstance(cls, type) else short_repr(cls)
    return RegistrationError("the registry", [Problem(where, what)])


@contextmanager
def told_of(cls: Any, name: str) -> Iterator[None]:
    """Tell what the code of a class raises here as what is wrong with one of its attributes."""
    try:
        yield
    except (KeyboardInterrupt, RegistrationError):
        raise
    except BaseException as error:  # SystemExit of a property, a panic of Rust
        raise refusal(cls, f"{name} cannot be used: {describe(error)}") from error


def attribute(cls: Any, name: str) -> Any:
    """Return an attribute of a class, or None where it has none such."""
    with told_of(cls, name):
        return getattr(cls, name, None)


def flag(cls: type, name: str) -> bool:
    """Return whether a module declares something."""
    with told_of(cls, name):
        return bool(getattr(cls, name, False))


def is_async(function: object) -> bool:
    """Return whether nothing is done when it is called, but when that is awaited."""
    return any(
        inspect.iscoroutinefunction(each) or inspect.isasyncgenfunction(each)
        for each in (function, type(function).__call__)
    )


def check_backend(cls: Any) -> None:
    """Refuse a class that cannot be a backend."""
    if not isinstance(cls, type):
        raise refusal(cls, "a backend type is a class")
    check_backend_type(cls, attribute(cls, "backend_type"))
    for name in _OF_A_BACKEND:
        method = attribute(cls, name)
        if not callable(method):
            raise refusal(cls, f"it has no {name}(); anyload.Backend has defaults for all")
        _check_blocking(cls, name, method)
    config = attribute(cls, "Config")
    with told_of(cls, "Config"):
        for name in ("model_validate", "model_validate_json"):
            if not callable(getattr(config, name, None)):
                what = f"a subclass of anyload.config.BackendConfig, with {name}()"
                raise refusal(cls, f"it has no Config, {what}")


def check_backend_type(cls: Any, name: object) -> None:
    """Refuse what cannot be the name of a backend type."""
    with told_of(cls, "backend_type"):
        if not (isinstance(name, str) and _BACKEND_TYPE.match(name)):
            raise refusal(cls, f"backend_type is {shown(name)}; it must be an UPPERCASE name")


def check_parentheses(module_id: object) -> None:
    """Refuse ``@registry.module`` over a class, which would register nothing."""
    if callable(module_id):
        name = getattr(module_id, "__name__", "my-module").lower()
        raise TypeError(f"@registry.module takes the module's id: @registry.module({name!r})")


def check_module(cls: Any) -> dict[str, Any]:
    """Refuse a class that cannot be a module; return the methods it may have, by name."""
    if not isinstance(cls, type):
        raise refusal(cls, "a module is a class")
    if module_of(cls) is None:
        raise refusal(cls, "its __module__ is no text; it must be the name of a Python module")
    with told_of(cls, "its hash"):
        hash(cls)
    methods = {}
    for name in (*_OF_THE_CLASS, *_OF_A_MODEL):
        with told_of(cls, name):
            methods[name] = getattr(cls, name, None)
            _check_method(cls, name, methods[name])
    return methods


def _check_method(cls: type, name: str, method: Any) -> None:
    if name == "load" and not callable(method):
        raise refusal(cls, "it has no load classmethod")
    _check_blocking(cls, name, method)
    if name in _OF_THE_CLASS and method is not None:
        if not callable(method):
            raise refusal(cls, f"{name} is {shown(method)}; it must be a classmethod or None")
        _check_call(cls, name, method)


def _check_blocking(cls: type, name: str, method: object) -> None:
    if is_async(method):
        raise refusal(cls, f"{name} is async; it must be plain blocking code, run in a thread")


def _check_call(cls: type, name: str, method: Callable[..., Any]) -> None:
    """Refuse a method that cannot be called on the class, as one that wants an instance."""
    signature = _signature(method)
    if signature is None:
        return
    # There may be none to see: a metaclass makes some when they are asked for.
    plain = inspect.isfunction(inspect.getattr_static(cls, name, None))
    # What else a load wants may be among the load kwargs.
    bind = signature.bind_partial if name == "load" and not plain else signature.bind
    arguments = _OF_THE_CLASS[name]
    try:
        bind(*arguments)
    except TypeError as error:
        call, hint = (
            f"{name}({', '.join(arguments)})",
            "; it must be a classmethod" if plain else "",
        )
        raise refusal(cls, f"{call} cannot be called on the class: {error}{hint}") from None


def _signature(method: Callable[..., Any]) -> inspect.Signature | None:
    try:
        return inspect.signature(method)
    except (TypeError, ValueError):  # one written in C may have none that Python can see
        return None


def parameters_of(cls: type, load: Callable[..., Any]) -> Mapping[str, inspect.Parameter]:
    """Return what a module's ``load`` takes, by name."""
    signature = _signature(load)
    if signature is None:
        return {}
    for name in RESERVED:
        if name in signature.parameters:
            raise refusal(cls, f"load has a parameter {name!r}, a name reserved for init")
    return signature.parameters


def exclusive_group_of(cls: type) -> str | None:
    """Return the group that a module declares."""
    group = attribute(cls, "exclusive_group")
    with told_of(cls, "exclusive_group"):
        if group is None or (isinstance(group, str) and group):
            return None if group is None else str.__str__(group)
        raise refusal(cls, f"exclusive_group is {shown(group)}; it must be a name or None")


def process_globals_of(cls: type) -> tuple[ProcessGlobal, ...]:
    """Return the process-wide state that a module declares."""
    kinds = "anyload.guard.ProcessGlobal"
    with told_of(cls, "process_globals"):
        declared = getattr(cls, "process_globals", ())
        return _listed(cls, "process_globals", declared, ProcessGlobal, kinds)


def supported_by(cls: type, given: object, backend_type: str) -> frozenset[str]:
    """Return the creation backends whose models a module can load.

    Args:
        cls: the module.
        given: what is said where it is registered, or None; then the class says it.
        backend_type: the one that it loads on, which it can where nobody says anything.
    """
    with told_of(cls, "supported_load_backends"):
        if given is None:
            given = getattr(cls, "supported_load_backends", None) or (backend_type,)
        return frozenset(_listed(cls, "supported_load_backends", given, str, "backend types"))


def _listed(cls: type, name: str, given: Any, kind: type[T], kinds: str) -> tuple[T, ...]:
    if isinstance(given, Iterable) and not isinstance(given, str):
        items = tuple(given)
        if all(isinstance(item, kind) for item in items):
            return items
    raise refusal(cls, f"{name} is {short_repr(given)}; it must be a list of {kinds}")


def override_of(cls: type, override: Any) -> dict[str, Any]:
    """Return what a module wants changed in the config of its backend."""
    if override is None:
        return {}
    # No value is shown: it may be a secret.
    kind = type(override).__name__
    with told_of(cls, "backend_config_override"):
        if isinstance(override, Mapping) and all(isinstance(key, str) for key in override):
            return dict(override)
        raise refusal(cls, f"backend_config_override is a {kind}; it must be a mapping of strings")


def returned_by(cls: type, returns: object) -> tuple[type, ...]:
    """Return the further classes that a module's ``load`` may return instances of."""
    classes = returns if isinstance(returns, tuple) else () if returns is None else (returns,)
    for one in classes:
        if not _has_instances(one):
            raise refusal(cls, f"returns is {short_repr(returns)}; it must be a class, or a tuple")
    return classes


def _has_instances(cls: object) -> bool:
    try:
        isinstance(None, cls)  # type: ignore[arg-type]  # that is the question
    except Exception:  # as of a protocol that is not runtime_checkable
        return False
    return isinstance(cls, type)
