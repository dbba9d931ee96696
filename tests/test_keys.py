"""Which requests are the same, and which must not be."""

from __future__ import annotations

import enum
import math
from collections import namedtuple
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta, timezone, tzinfo
from decimal import Decimal
from fractions import Fraction
from functools import partial
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, NamedTuple
from uuid import UUID

import anyio
import pytest
from anyio import create_task_group
from calls import Calls
from scenes import model_on_disk, registry_of

from anyload import Initializer, ModelConfig
from anyload._load.keys import Unshareable, freeze, freeze_mapping
from anyload.testing import FakeModel, Gate, settled, until, waits_at


class Colour(enum.Enum):
    RED = 1
    BLUE = 2


@dataclass(frozen=True)
class Shape:
    sides: Any


class Option(NamedTuple):
    value: Any


class Choice(NamedTuple):
    value: Any


class Loose(namedtuple("Loose", "value")):
    """It has room for other attributes too."""


@dataclass(frozen=True)
class Derived(Shape):
    pass


class Undeclared(Shape):
    """Frozen by its base only, so it may have attributes beside the fields."""


@dataclass(frozen=True, eq=False)
class ByIdentity:
    value: int


@dataclass
class Changeable:
    value: int
    __hash__ = object.__hash__


class Raises:
    """Hashable by value, and raises whenever it is compared, as an array does."""

    def __eq__(self, other: object) -> bool:
        raise ValueError("the truth value of an array is ambiguous")

    def __hash__(self) -> int:
        return 1


class RaisesMember(Raises, enum.Enum):
    ONE = 1
    TWO = 2


class RaisesMeta(type):
    __eq__ = Raises.__eq__
    __hash__ = Raises.__hash__


class Unlooked(type):
    __hash__ = None  # type: ignore[assignment]


class RaisesClass(metaclass=RaisesMeta):
    pass


class UnlookedClass(metaclass=Unlooked):
    pass


@dataclass(frozen=True)
class Unset:
    value: int = field(init=False)


class Ruled(tzinfo):
    """A zone of the user's own."""

    def utcoffset(self, dt: datetime | None) -> timedelta:
        return timedelta()

    dst = utcoffset

    def tzname(self, dt: datetime | None) -> str:
        return "Ruled"


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


SOMETHING = object()


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
        lambda: {"a": Option(1), "b": Shape([Option("x"), {"y": 1.0}]), "c": Derived(3)},
        lambda: {"a": 0.5, "b": math.nan, "c": complex(0, -0.0), "d": Decimal("1.0")},
        lambda: {"a": Fraction(1, 3), "b": UUID(int=7), "c": date(2025, 1, 1)},
        lambda: {"a": datetime(2025, 1, 1, tzinfo=UTC), "b": timedelta(1), "c": UTC},
        lambda: {"a": RaisesMember.ONE, "b": RaisesClass, "c": [RaisesMember.TWO, UnlookedClass]},
        lambda: {"a": {"x": 1, "y": 2}},
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
        (Shape(1), Shape(True)),
        (Shape(1), Derived(1)),
        (Option(1), Option(True)),
        (Option(1), Option(1.0)),
        (Option(1), Choice(1)),
        (Option(1), (1,)),
        (Option([1]), Option((1,))),
        (0.0, -0.0),
        (math.nan, -math.nan),
        (complex(0, 0.0), complex(0, -0.0)),
        (Decimal("1.0"), Decimal("1.00")),
        (Decimal(1), Fraction(1)),
        (range(3), range(2)),
        (range(0), range(1, 1)),
        (PureWindowsPath("A"), PureWindowsPath("a")),
        (
            datetime(2025, 1, 1, 12, tzinfo=timezone(timedelta(hours=1))),
            datetime(2025, 1, 1, 11, tzinfo=UTC),
        ),
        (datetime(2025, 1, 1), date(2025, 1, 1)),
        (RaisesMember.ONE, RaisesMember.TWO),
        (RaisesClass, RaisesMember.ONE),
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
        Shape([Plain()]),
        Option(Plain()),
        Loose(1),
        Undeclared(1),
        ByIdentity(1),
        Changeable(1),
        Raises(),
        RaisesClass(),
        UnlookedClass(),
        Unset(),
        datetime(2025, 1, 1, tzinfo=Ruled()),
        type("Text", (str,), {})("x"),
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
        (Shape([1]), Shape([1]), 1),
        (Shape([Raises()]), Shape([Raises()]), 2),
        (Option(1), Option(True), 2),
        (0.0, -0.0, 2),
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


@pytest.mark.parametrize("value", [Raises(), RaisesMember.ONE, RaisesClass, {"a": [Raises()]}])
async def test_no_comparison_of_a_users_runs_in_a_table_of_ours(
    gate: Gate, tmp_path: Path, value: Any
) -> None:
    """Two spellings of a model meet with kwargs whose ``==`` raises: both load, no thread dies."""
    model = model_on_disk(tmp_path)
    async with Initializer(registry_of(m=waits_at(gate))) as initializer:
        async with create_task_group() as tasks:
            calls = Calls(tasks)
            for name in (model, f"{tmp_path}/./m"):
                calls.start(name, initializer, name, option=value)
                await until(lambda: initializer.statistics().resolving == 0)
            gate.open()
            for name in (model, f"{tmp_path}/./m"):
                assert isinstance(await calls.result(name), FakeModel)
        await settled(initializer)


# A key that the caller gives


@pytest.mark.parametrize(
    ("first", "second", "loads"),
    [
        ("a", "a", 1),
        (("a", 1), ("a", 1), 1),
        (Option([1]), Option([1]), 1),
        (Colour.RED, Colour.RED, 1),
        (1, True, 2),
        (Raises, Raises, 1),
        (SOMETHING, SOMETHING, 1),
        (SOMETHING, Plain(), 2),
        (endless, endless, 1),
    ],
)
async def test_callers_who_give_one_key_share_a_load(
    gate: Gate, first: Any, second: Any, loads: int
) -> None:
    """A key is compared as kwargs are; an object that is equal only to itself is a key too."""
    async with Initializer(registry_of(m=waits_at(gate))) as initializer:
        async with create_task_group() as tasks:
            calls = Calls(tasks)
            calls.start("first", initializer, ModelConfig("m"), key=first)
            calls.start("second", initializer, ModelConfig("m"), key=second)
            await until(lambda: initializer.statistics().waiters == 2)
            assert initializer.statistics().flights == loads
            gate.open()
            one, two = await calls.result("first"), await calls.result("second")
        assert (one is two) == (loads == 1)
        await settled(initializer)


@pytest.mark.parametrize("key", [Raises(), BrokenHash(), ("a", Plain()), ByValue(), print])
async def test_a_key_that_compares_in_its_own_way_is_refused(key: Any) -> None:
    """The caller hears at once that such a key cannot be one, and nothing loads."""
    async with Initializer(registry_of(m=waits_at(Gate()))) as initializer:
        with pytest.raises(TypeError, match="cannot be part of a key; a key is text, a number"):
            await initializer.init(ModelConfig("m"), key=key)
        with pytest.raises(TypeError, match="cannot be part of a key"):
            await anyio.to_thread.run_sync(partial(initializer.init_sync, "m", key=key))
        assert initializer.statistics().flights == 0


class Same(ModelConfig):
    """A config that its author wanted to be compared, and that cannot be."""

    __eq__ = Raises.__eq__
    __hash__ = Raises.__hash__


class Spelling(enum.StrEnum):
    MODEL = "m"


class Text(str):
    __slots__ = ()
    __eq__ = Raises.__eq__
    __hash__ = Raises.__hash__


async def test_names_are_compared_as_text_and_configs_by_identity(
    gate: Gate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name of a type of the caller's is its text, and no ``==`` of its own is asked."""
    monkeypatch.chdir(tmp_path)
    model = model_on_disk(tmp_path)
    config = Same("m", model, own=True)
    async with Initializer(registry_of(m=waits_at(gate))) as initializer:
        async with create_task_group() as tasks:
            calls = Calls(tasks)
            given = ["m", Spelling.MODEL, Text("m"), config, config]
            for number, name in enumerate(given):
                calls.start(str(number), initializer, name)
            await until(lambda: initializer.statistics().waiters == 5)
            await until(lambda: initializer.statistics().running == 2)
            assert initializer.statistics().flights == 2
            gate.open()
            models = [await calls.result(str(number)) for number in range(5)]
        assert models[0] is models[1] is models[2]
        assert models[3] is models[4] is not models[0]
        await settled(initializer)
