"""What makes two requests the same: hashable keys, values told apart by their types.

Keys are looked up under the process lock, so nothing in them may run code of a user's when it is
hashed or compared. What is made here consists of plain values, and of objects by identity.
"""

from __future__ import annotations

import datetime
import enum
import pathlib
import struct
from collections.abc import Callable, Hashable, Mapping
from dataclasses import fields
from decimal import Decimal
from fractions import Fraction
from types import MappingProxyType
from typing import Any
from uuid import UUID


class Unshareable(Exception):
    """A value has no frozen form, so a load with it is not shared."""


def _moment(value: datetime.datetime | datetime.time) -> Hashable:
    if value.tzinfo is not None and type(value.tzinfo) is not datetime.timezone:
        raise Unshareable("a time in a zone that has rules cannot be part of a key")
    return repr(value)


# Values of these types are equal only to values of the same type, if one has no others: `1` is
# equal to `1.0` and `True`, and comparing `"a"` with `b"a"` is a warning that can be an error.
PLAIN = frozenset({str, int, type(None)})

# Of each type, what tells its values apart. Their own `==` does not: `0.0 == -0.0`,
# `Decimal("1.0") == Decimal("1.00")`, and noon at +01:00 is 11:00 in UTC.
CONSTANTS: Mapping[type, Callable[[Any], Hashable]] = MappingProxyType(
    {
        bool: int,
        bytes: lambda value: value,
        float: lambda value: struct.pack("d", value),
        complex: lambda value: struct.pack("dd", value.real, value.imag),
        range: lambda value: (value.start, value.stop, value.step),
        Decimal: str,
        Fraction: lambda value: (int(value.numerator), int(value.denominator)),
        UUID: str,
        datetime.date: str,
        datetime.timedelta: repr,
        datetime.timezone: repr,
        datetime.datetime: _moment,
        datetime.time: _moment,
        pathlib.PurePosixPath: str,
        pathlib.PosixPath: str,
        pathlib.PureWindowsPath: str,
        pathlib.WindowsPath: str,
    }
)

DEEPEST = 64
"""How many containers may lie inside each other. Comparing two keys recurses too, and must not
run out of stack."""


class Itself:
    """An object that is equal only to itself, whatever its own ``==`` and ``hash`` do.

    Args:
        value: the object; while this is there, no other can have its id.
    """

    __slots__ = ("_value",)

    def __init__(self, value: object) -> None:
        self._value = value

    def __eq__(self, other: object) -> bool:
        return type(other) is Itself and other._value is self._value

    def __hash__(self) -> int:
        return id(self._value)


def freeze_mapping(values: Mapping[str, Any]) -> Hashable:
    """Return a mapping as a key; ``1``, ``1.0`` and ``True`` differ, the order does not count.

    Raises:
        Unshareable: a value cannot be frozen.
    """
    try:
        if PLAIN.issuperset(map(type, values.values())):
            return frozenset(values.items())  # all in C: every call with load kwargs comes by here
        return frozenset((name, freeze(value)) for name, value in values.items())
    except Unshareable:
        raise
    except Exception as error:  # out of a metaclass, for example
        raise Unshareable("a value cannot be looked at") from error


def freeze_given(key: object) -> Hashable:
    """Return a key that a caller gave; an object that has identity only is that object.

    Raises:
        TypeError: comparing it would run code of its own.
    """
    try:
        return freeze(key)
    except Unshareable as error:
        kind = type(key)
        if kind.__hash__ is object.__hash__ and kind.__eq__ is object.__eq__:
            return Itself(key)
        raise TypeError(
            f"{error}; a key is text, a number, another constant, a tuple, a frozen dataclass, "
            "or an object that is equal only to itself"
        ) from None


def freeze(value: Any, depth: int = DEEPEST) -> Hashable:
    """Return a value as a part of a key.

    Two values have equal keys if a load could not tell them apart; the order of a set or a dict
    does not count. That is so for constants of the standard library, enum members, classes, and
    what is made of such: lists, tuples, named tuples, sets, dicts, frozen dataclasses. An object
    that may be changed between two calls, or whose ``==`` is its own, has no key.

    Args:
        value: the value.
        depth: how many containers there may be, this one included.

    Raises:
        Unshareable: the value, or something in it, cannot be frozen.
    """
    kind: type = type(value)
    if kind in PLAIN:
        plain: Hashable = value
        return plain
    constant = CONSTANTS.get(kind)
    if constant is not None:
        return kind, constant(value)
    if issubclass(kind, (type, enum.Enum)):
        return Itself(value)
    if depth == 0:
        raise Unshareable("nested too deeply to be part of a key")
    depth -= 1
    if kind in (list, tuple):
        return kind, tuple(freeze(item, depth) for item in value)
    if kind in (set, frozenset):
        return kind, frozenset(freeze(item, depth) for item in value)
    if kind is dict:
        return kind, frozenset(
            (freeze(key, depth), freeze(item, depth)) for key, item in value.items()
        )
    if issubclass(kind, tuple) and hasattr(kind, "_fields") and not kind.__dictoffset__:
        # A named tuple, with no room for anything but its items.
        return Itself(kind), tuple(freeze(item, depth) for item in tuple.__iter__(value))
    if _is_frozen_record(kind):
        return Itself(kind), tuple(freeze(item, depth) for item in _values_of(value))
    raise Unshareable(f"{kind.__qualname__} cannot be part of a key")


def _is_frozen_record(kind: type) -> bool:
    """Return whether it is a frozen dataclass that is compared by its fields."""
    # Its own: a subclass that is none may have attributes beside the fields.
    params: Any = vars(kind).get("__dataclass_params__")
    return params is not None and params.frozen and params.eq


def _values_of(record: Any) -> list[Any]:
    try:
        return [getattr(record, field.name) for field in fields(record)]
    except Exception as error:  # a descriptor of the user's, or a field that was never set
        raise Unshareable(f"a field of {type(record).__qualname__} cannot be read") from error
