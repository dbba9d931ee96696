"""Keys: what makes two requests the same."""

from __future__ import annotations

import enum
from pathlib import PurePosixPath
from typing import Any

import pytest

from anyload._keys import Unshareable, freeze, freeze_mapping


class Colour(enum.Enum):
    RED = 1


class Box:
    """Hashable by identity only, so it may change."""


@pytest.mark.parametrize(
    "values",
    [
        {"a": 1, "b": "x"},
        {"a": [1, {"b": {2, 3}}], "c": (1, 2)},
        {"colour": Colour.RED, "path": PurePosixPath("x"), "kind": int},
    ],
)
def test_equal_values_have_equal_keys(values: dict[str, Any]) -> None:
    """The order of a mapping does not count, and nested containers are frozen by value."""
    turned = dict(reversed(values.items()))
    assert freeze_mapping(values) == freeze_mapping(turned)
    assert hash(freeze_mapping(values)) == hash(freeze_mapping(turned))


@pytest.mark.parametrize(
    ("one", "other"), [(1, 1.0), (1, True), ([1], (1,)), ([1], [True]), ("1", b"1"), ({1}, [1])]
)
def test_values_of_different_types_differ(one: Any, other: Any) -> None:
    """What Python calls equal is told apart by its type, at any depth."""
    assert freeze_mapping({"a": one}) != freeze_mapping({"a": other})
    assert freeze([one]) != freeze([other])


def test_nothing_is_nothing() -> None:
    """A call without kwargs has the plainest key."""
    assert freeze_mapping({}) is None


@pytest.mark.parametrize("value", [Box(), [Box()], {"a": bytearray()}])
def test_what_may_change_cannot_be_a_key(value: Any) -> None:
    """A value that can change between two calls is not shared by."""
    with pytest.raises(Unshareable):
        freeze_mapping({"a": value})
