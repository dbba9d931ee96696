"""What an initializer is made of, checked before it is made."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping

from ._reading.problems import shown
from ._registration import is_async
from .contracts import Admission
from .events import Hook
from .registry import Registry


def require_registry(registry: object) -> None:
    """Refuse what knows no modules."""
    if not isinstance(registry, Registry):
        raise TypeError(f"registry is an anyload.Registry, not {shown(registry)}")


def require_environ(environ: object) -> None:
    """Refuse what is no mapping of texts. No value is shown: an environment holds secrets."""
    if not isinstance(environ, Mapping):
        raise TypeError(f"environ is a mapping of text to text, not {shown(environ)}")
    for variable, value in environ.items():
        if not isinstance(variable, str):
            raise TypeError(f"a variable of environ has a text for a name, not {shown(variable)}")
        if not isinstance(value, str):
            raise TypeError(f"{shown(variable)} in environ is a {type(value).__name__}, not text")


def hooks_of(hooks: Iterable[Hook]) -> tuple[Hook, ...]:
    """Return hooks that can be called.

    Raises:
        TypeError: one cannot be, or does nothing when it is called; or these are no list.
    """
    if not isinstance(hooks, Iterable):
        raise TypeError(f"hooks are a list of what is called with each event, not {shown(hooks)}")
    found = tuple(hooks)
    for hook in found:
        if not callable(hook):
            raise TypeError(f"a hook is called with each event, and {shown(hook)} cannot be called")
        if _is_put_off(hook):
            name = getattr(hook, "__qualname__", None) or shown(hook)
            raise TypeError(f"a hook is called with each event, not awaited, and {name} is async")
    return found


def require_admission(admission: Admission | None) -> None:
    """Refuse what has not the methods of an admission, or async ones: nobody awaits them."""
    for name in ("may_start", "started", "ended") if admission is not None else ():
        method = getattr(admission, name, None)
        if not callable(method):
            raise TypeError(f"an admission has a method {name}, and {shown(admission)} has none")
        if _is_put_off(method):
            raise TypeError(f"{name} of {shown(admission)} is async; it is called, not awaited")


def _is_put_off(function: object) -> bool:
    """Return whether calling it does nothing yet."""
    return is_async(function) or inspect.isgeneratorfunction(function)
