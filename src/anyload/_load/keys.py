"""What makes two requests the same: hashable keys, values told apart by their types."""

from __future__ import annotations

import enum
from collections.abc import Hashable, Mapping
from pathlib import PurePath
from typing import Any

# Values of these types are equal only to values of the same type, if one has no others: `1` is
# equal to `1.0` and `True`, and comparing `"a"` with `b"a"` is a warning that can be an error.
PLAIN = frozenset({str, int, type(None)})
MARKED = frozenset({float, bool, bytes, complex})


class Unshareable(Exception):
    """A value has no frozen form, so a load with it is not shared."""


def freeze_mapping(values: Mapping[str, Any]) -> Hashable:
    """Return a mapping as a key; ``1``, ``1.0`` and ``True`` differ, the order does not count.

    Raises:
        Unshareable: a value cannot be frozen.
    """
    if PLAIN.issuperset(map(type, values.values())):
        return frozenset(values.items())  # all in C: every call with load kwargs comes by here
    try:
        return frozenset((name, freeze(value)) for name, value in values.items())
    except RecursionError:  # a list that holds itself, for example
        raise Unshareable("nested too deeply to be part of a key") from None


def freeze(value: Any) -> Hashable:
    """Return a value as a part of a key.

    Raises:
        Unshareable: the value, or something in it, cannot be frozen.
    """
    kind = type(value)
    if kind in PLAIN:
        plain: Hashable = value
        return plain
    if kind in MARKED:
        return kind, value
    if kind in (list, tuple):
        return kind, tuple(freeze(item) for item in value)
    if kind in (set, frozenset):
        return kind, frozenset(freeze(item) for item in value)
    if kind is dict:
        return kind, frozenset((freeze(key), freeze(item)) for key, item in value.items())
    if isinstance(value, (type, enum.Enum, PurePath)) or _is_constant(value):
        return kind, value
    raise Unshareable(f"{kind.__qualname__} cannot be part of a key")


def _is_constant(value: Any) -> bool:
    # Hashable by value: its own __hash__ says so. An object that is only hashable by identity
    # may be changed between two calls, and then the calls are not the same.
    if getattr(type(value), "__hash__", None) in (None, object.__hash__):
        return False
    try:
        hash(value)
    except Exception:  # a frozen dataclass with a list in it, for example
        return False
    return True
