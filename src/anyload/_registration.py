"""What may be registered: what cannot work is refused here, and by nobody later."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable, Mapping
from reprlib import repr as short_repr
from types import MappingProxyType
from typing import Any, TypeVar

from ._reading.problems import shown
from .errors import Problem, RegistrationError
from .guard import ProcessGlobal

T = TypeVar("T")

RESERVED = ("key", "priority", "timeout")

_BACKEND_TYPE = re.compile(r"[A-Z][A-Z0-9_]*\Z")
_OF_THE_CLASS = MappingProxyType(
    {"load": ("config",), "variant": ("config",), "weight_files": ("config",), "prepare": ()}
)
_OF_A_MODEL = ("warmup", "release", "memory_bytes")
_OF_A_BACKEND = ("start", "stop", "register_config", "available")


def class_name(cls: type) -> str:
    """Return a class as ``package.module.Class``."""
    return f"{cls.__module__}.{cls.__qualname__}"


def refusal(cls: Any, what: str) -> RegistrationError:
    """Return the error that names a class, and what is wrong with it."""
    where = class_name(cls) if isinstance(cls, type) else repr(cls)
    return RegistrationError("the registry", [Problem(where, what)])


def check_backend(cls: Any) -> None:
    """Refuse a class that cannot be a backend."""
    if not isinstance(cls, type):
        raise refusal(cls, "a backend type is a class")
    check_backend_type(cls, getattr(cls, "backend_type", None))
    for name in _OF_A_BACKEND:
        method = getattr(cls, name, None)
        if not callable(method):
            raise refusal(cls, f"it has no {name}(); anyload.Backend has defaults for all")
        _check_blocking(cls, name, method)
    if not hasattr(getattr(cls, "Config", None), "model_validate"):
        raise refusal(cls, "it has no Config, a subclass of anyload.config.BackendConfig")


def check_backend_type(cls: Any, name: object) -> None:
    """Refuse what cannot be the name of a backend type."""
    if not (isinstance(name, str) and _BACKEND_TYPE.match(name)):
        raise refusal(cls, f"backend_type is {name!r}; it must be an UPPERCASE name")


def check_parentheses(module_id: object) -> None:
    """Refuse ``@registry.module`` over a class, which would register nothing."""
    if callable(module_id):
        name = getattr(module_id, "__name__", "my-module").lower()
        raise TypeError(f"@registry.module takes the module's id: @registry.module({name!r})")


def check_module(cls: Any) -> None:
    """Refuse a class that cannot be a module."""
    if not isinstance(cls, type):
        raise refusal(cls, "a module is a class")
    if not callable(getattr(cls, "load", None)):
        raise refusal(cls, "it has no load classmethod")
    for name in (*_OF_THE_CLASS, *_OF_A_MODEL):
        _check_blocking(cls, name, getattr(cls, name, None))
    for name in _OF_THE_CLASS:
        method = getattr(cls, name, None)
        if method is not None and not callable(method):
            raise refusal(cls, f"{name} is {shown(method)}; it must be a classmethod or None")
        _check_call(cls, name)


def _check_blocking(cls: type, name: str, method: object) -> None:
    if inspect.iscoroutinefunction(method) or inspect.isasyncgenfunction(method):
        raise refusal(cls, f"{name} is async; it must be plain blocking code, run in a thread")


def _check_call(cls: type, name: str) -> None:
    """Refuse a method that cannot be called on the class, as one that wants an instance."""
    method = getattr(cls, name, None)
    signature = _signature(method) if method is not None else None
    if signature is None:
        return
    plain = inspect.isfunction(inspect.getattr_static(cls, name))
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


def parameters_of_load(cls: Any) -> Mapping[str, inspect.Parameter]:
    """Return what a module's ``load`` takes, by name."""
    signature = _signature(cls.load)
    if signature is None:
        return {}
    for name in RESERVED:
        if name in signature.parameters:
            raise refusal(cls, f"load has a parameter {name!r}, a name reserved for init")
    return signature.parameters


def exclusive_group_of(cls: type) -> str | None:
    """Return the group that a module declares."""
    group = getattr(cls, "exclusive_group", None)
    if group is None or (isinstance(group, str) and group):
        return group
    raise refusal(cls, f"exclusive_group is {group!r}; it must be a name or None")


def process_globals_of(cls: type) -> tuple[ProcessGlobal, ...]:
    """Return the process-wide state that a module declares."""
    declared = getattr(cls, "process_globals", ())
    return _listed(cls, "process_globals", declared, ProcessGlobal, "anyload.guard.ProcessGlobal")


def supported_by(cls: type, supported: object) -> frozenset[str]:
    """Return the creation backends whose models a module can load."""
    return frozenset(_listed(cls, "supported_load_backends", supported, str, "backend types"))


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
    if not (isinstance(override, Mapping) and all(isinstance(key, str) for key in override)):
        kind = type(override).__name__
        raise refusal(cls, f"backend_config_override is a {kind}; it must be a mapping of strings")
    return dict(override)


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
    except TypeError:  # a protocol, for example, that is not runtime_checkable
        return False
    return isinstance(cls, type)
