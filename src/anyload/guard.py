"""Process-wide state that loaders are known to change: how to look at it, and how to put it back.

A load that patches a function, moves the working directory or sets a default dtype, and does not
put it back, breaks other loads long after. A snapshot before and after a load shows it.
"""

from __future__ import annotations

import gc
import locale
import os
import signal
import sys
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from .reports import GlobalChange

ABSENT = object()
"""What a global is while the package that it is in is not imported, or has no such thing."""


@dataclass(frozen=True, slots=True)
class ProcessGlobal:
    """One thing that every thread of the process shares.

    Args:
        name: what it is, as people call it.
        read: returns its value, quickly; whatever it raises means that there is none.
        restore: puts a value back, quickly and without waiting; None where that is not safe.
        show: returns a value as text for the report, where its repr would not do.
    """

    name: str
    read: Callable[[], Any]
    restore: Callable[[Any], object] | None = None
    show: Callable[[Any], str] = repr


def attribute(module: str, path: str) -> ProcessGlobal:
    """Return the attribute of a module, or of a class in it, that loaders are known to replace.

    It is only looked at while the module is imported; looking never imports it.

    Args:
        module: the module, ``"transformers.modeling_utils"``.
        path: the attribute in it, ``"PreTrainedModel.tie_weights"``.
    """
    *owners, name = path.split(".")

    def owner() -> Any:
        found: Any = sys.modules[module]
        for step in owners:
            found = getattr(found, step)
        return found

    def read() -> Any:
        # What the owner itself holds: a class's functions are looked at before they are bound.
        return vars(owner())[name]

    def restore(value: Any) -> None:
        setattr(owner(), name, value)

    return ProcessGlobal(f"{module}.{path}", read, restore, _identity)


class Snapshot:
    """The values of some globals at one time.

    Args:
        watched: what to look at.
    """

    def __init__(self, watched: Iterable[ProcessGlobal]) -> None:
        self._values = [(one, _read(one)) for one in watched]

    def changes(self) -> list[Change]:
        """Return what has another value now."""
        return [
            Change(one, before, after)
            for one, before in self._values
            if before is not ABSENT and not _same(before, after := _read(one))
        ]


class Change:
    """A global that has another value than before.

    Args:
        watched: the global.
        before: its value then.
        after: its value now.
    """

    __slots__ = ("_after", "_before", "_watched", "restored")

    def __init__(self, watched: ProcessGlobal, before: Any, after: Any) -> None:
        self._watched = watched
        self._before = before
        self._after = after
        self.restored = False

    def restore(self) -> None:
        """Put it back, where that is safe; whether it worked is in ``restored``."""
        if self._watched.restore is not None:
            try:
                self._watched.restore(self._before)
            except Exception:
                return  # reported as not restored
            self.restored = _same(self._before, _read(self._watched))

    def told(self) -> GlobalChange:
        """Return it as text, holding on to neither value."""
        before, after = self._before, self._after
        if isinstance(before, dict) and isinstance(after, dict):
            before, after = _only(before, unlike=after), _only(after, unlike=before)
        one = self._watched
        return GlobalChange(one.name, _shown(one, before), _shown(one, after), self.restored)


def _read(one: ProcessGlobal) -> Any:
    try:
        return one.read()
    except BaseException:  # not even a SystemExit: this is only a look
        return ABSENT


def _same(before: Any, after: Any) -> bool:
    try:
        return before is after or (type(before) is type(after) and bool(before == after))
    except Exception:  # two arrays, for example
        return False


def _only(values: dict[Any, Any], *, unlike: dict[Any, Any]) -> dict[Any, Any]:
    return {key: value for key, value in values.items() if unlike.get(key, ABSENT) != value}


def _shown(one: ProcessGlobal, value: Any) -> str:
    if value is ABSENT:
        return "absent"
    try:
        return one.show(value)[:200]
    except Exception:
        return f"a {type(value).__name__}"


def _identity(value: Any) -> str:
    """Return what tells one function or object from another of the same name."""
    return f"{getattr(value, '__qualname__', type(value).__qualname__)} at {id(value):#x}"


def _names(values: Mapping[str, str]) -> str:
    # Not the values: an environment holds secrets.
    return ", ".join(sorted(values)) or "none"


def _stream(name: str) -> ProcessGlobal:
    return ProcessGlobal(
        f"sys.{name}",
        lambda: getattr(sys, name),
        show=_identity,
    )


def _handlers() -> dict[str, Any]:
    return {number.name: signal.getsignal(number) for number in signal.Signals}


SWITCH_INTERVAL = "the switch interval"
GARBAGE_COLLECTOR = "whether the garbage collector is on"

PYTHON: tuple[ProcessGlobal, ...] = (
    ProcessGlobal("the working directory", os.getcwd),
    _stream("stdin"),
    _stream("stdout"),
    _stream("stderr"),
    ProcessGlobal(
        "the warnings filters",
        lambda: tuple(warnings.filters),
        show=lambda value: f"{len(value)} filters, the first {value[:1]}",
    ),
    ProcessGlobal("the environment", lambda: dict(os.environ), show=_names),
    ProcessGlobal("the locale", lambda: locale.setlocale(locale.LC_ALL)),
    ProcessGlobal("sys.excepthook", lambda: sys.excepthook, show=_identity),
    ProcessGlobal("the recursion limit", sys.getrecursionlimit),
    ProcessGlobal(SWITCH_INTERVAL, sys.getswitchinterval),
    ProcessGlobal(GARBAGE_COLLECTOR, gc.isenabled),
    ProcessGlobal("the signal handlers", _handlers),
)
"""What of Python's own any loader may change. It is told of and never put back: the application,
which shares it and is no load, may have changed it meanwhile, and mean it."""
