"""Which requests are the same, and which must not be."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import pytest
from anyio import create_task_group
from calls import Calls
from scenes import model_on_disk, registry_of

from anyload import Initializer
from anyload._load.keys import Unshareable, freeze, freeze_mapping
from anyload.testing import Gate, until, waits_at


class Colour(enum.Enum):
    RED = 1
    BLUE = 2


@dataclass(frozen=True)
class Shape:
    sides: Any


class Plain:
    """Hashable by identity alone."""


class ByValue:
    """Equal by value, and so not hashable."""

    def __eq__(self, other: object) -> bool:
        return True

    __hash__ = None  # type: ignore[assignment]


class BrokenHash:
    def __hash__(self) -> int:
        raise RuntimeError("no hash today")


def endless() -> list[Any]:
    value: list[Any] = []
    value.append(value)
    return value


def test_no_values_are_all_the_same_key() -> None:
    """A request without load kwargs has one key, however its mapping was made."""
    assert freeze_mapping(dict[str, Any]()) == freeze_mapping({})


@pytest.mark.parametrize(
    "make",
    [
        lambda: {"a": 1, "b": "x", "c": None, "d": b"y", "e": 1.5, "f": 1j, "g": True},
        lambda: {"a": [1, [2, (3,)]]},
        lambda: {"a": {"b": {1, 2}, 3: frozenset({"c"})}},
        lambda: {"a": Colour.RED, "b": int, "c": PurePosixPath("x"), "d": Path("y")},
        lambda: {"a": Shape(4), "b": range(3)},
        lambda: {"a": ()},
    ],
)
def test_equal_values_have_equal_keys(make: Any) -> None:
    """Two mappings that hold the same in another order are one key, and it can be looked up."""
    first, second = make(), dict(reversed(make().items()))
    assert {freeze_mapping(first): "found"}[freeze_mapping(second)] == "found"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (1, True),
        (1, 1.0),
        (0, False),
        ("1", 1),
        ("a", b"a"),
        (None, False),
        ([1], (1,)),
        ([1], [True]),
        ([1, 2], [2, 1]),
        ({1}, frozenset({1})),
        ({1}, [1]),
        ({"a": 1}, {"a": 1.0}),
        ({1: "a"}, {True: "a"}),
        ({}, []),
        (Colour.RED, 1),
        (Colour.RED, Colour.BLUE),
        (int, "int"),
        (PurePosixPath("a"), "a"),
        (Shape(4), Shape(3)),
    ],
)
def test_values_of_other_types_or_contents_have_other_keys(one: Any, other: Any) -> None:
    """What a load may tell apart is told apart, alone and beside values of other kinds."""
    assert freeze_mapping({"a": one}) != freeze_mapping({"a": other})
    assert freeze_mapping({"a": one, "b": []}) != freeze_mapping({"a": other, "b": []})
    assert freeze(one) != freeze(other)


def test_the_name_of_a_value_counts() -> None:
    """The same value under another name is another request."""
    assert freeze_mapping({"a": 1}) != freeze_mapping({"b": 1})
    assert freeze_mapping({"a": []}) != freeze_mapping({"b": []})


@pytest.mark.parametrize(
    "value",
    [
        Plain(),
        ByValue(),
        bytearray(b"x"),
        [Plain()],
        {"a": {"b": Plain()}},
        Shape([1]),
        BrokenHash(),
        iter([]),
        lambda: None,
    ],
)
def test_what_may_change_between_two_calls_is_not_shared(value: Any) -> None:
    """A value that is equal only by identity, or has no hash, makes no key."""
    with pytest.raises(Unshareable):
        freeze_mapping({"a": value})


def test_the_refusal_names_the_type() -> None:
    """Whoever reads why a load was not shared sees the type of the value."""
    with pytest.raises(Unshareable, match="Plain cannot be part of a key"):
        freeze(Plain())


def test_a_value_that_holds_itself_is_not_shared() -> None:
    """An endless value makes no key, and no RecursionError."""
    with pytest.raises(Unshareable, match="nested too deeply"):
        freeze_mapping({"a": endless()})


@pytest.mark.parametrize(
    ("first", "second", "loads"),
    [
        ([1, {"a": 2}], [1, {"a": 2}], 1),
        (1, 1, 1),
        (1, True, 2),
        ([1], (1,), 2),
        (Shape([1]), Shape([1]), 2),
        (endless(), endless(), 2),
    ],
)
async def test_callers_share_a_load_exactly_when_their_kwargs_are_the_same(
    gate: Gate, tmp_path: Path, first: Any, second: Any, loads: int
) -> None:
    """Equal kwargs share one load; others, and those that have no key, load by themselves."""
    model = model_on_disk(tmp_path)
    async with Initializer(registry_of(m=waits_at(gate))) as initializer:
        async with create_task_group() as tasks:
            calls = Calls(tasks)
            calls.start("first", initializer, model, option=first)
            calls.start("second", initializer, model, option=second)
            await until(lambda: initializer.statistics().waiters == 2)
            await until(lambda: initializer.statistics().running == loads)
            assert initializer.statistics().flights == loads
            gate.open()
            one, two = await calls.result("first"), await calls.result("second")
        assert (one is two) == (loads == 1)
        assert any(one.kwargs["option"] is given for given in (first, second))
