"""What every benchmark shares: variants in turns, medians of ratios, one table."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from statistics import median
from typing import Any, TypeVar

import anyio

from anyload import Initializer, ModelConfig, Registry
from anyload.events import Event, Hook

T = TypeVar("T")
Times = dict[str, list[float]]

LOOPS: Mapping[str, tuple[str, dict[str, Any]]] = {
    "asyncio": ("asyncio", {}),
    "uvloop": ("asyncio", {"use_uvloop": True}),
    "trio": ("trio", {}),
}


@dataclass(frozen=True)
class Setting:
    """How to measure.

    Args:
        loop: a name of `LOOPS`.
        quick: fewer rounds and smaller numbers; good for seeing that it runs.
    """

    loop: str = "asyncio"
    quick: bool = False

    def run(self, main: Callable[[], Awaitable[T]]) -> T:
        backend, options = LOOPS[self.loop]
        return anyio.run(main, backend=backend, backend_options=options)

    def pick(self, full: int, quick: int) -> int:
        return quick if self.quick else full


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Args:
        figure: its number in the list of targets, and what it is.
        value: what was measured; a ratio unless there is a unit.
        target: what it may be at most; None where it is for information.
        absolute: what the ratio was made from, for a person to read.
    """

    figure: str
    value: float
    target: float | None
    absolute: str
    unit: str = ""

    @property
    def missed(self) -> bool:
        return self.target is not None and self.value > self.target


# Variants take turns, in changing order, so that a busy neighbour hits all of them alike.


def turns(rounds: int, names: Iterable[str]) -> Iterator[str]:
    order = list(names)
    for turn in range(rounds):
        yield from order if turn % 2 == 0 else reversed(order)


async def interleave(rounds: int, ways: Mapping[str, Callable[[], Awaitable[float]]]) -> Times:
    """Return what each way measured in each round, after a round that does not count."""
    for way in ways.values():
        await way()
    times: Times = {name: [] for name in ways}
    for name in turns(rounds, ways):
        times[name].append(await ways[name]())
    return times


def interleave_sync(rounds: int, ways: Mapping[str, Callable[[], float]]) -> Times:
    """As `interleave`, for what needs no loop."""
    for way in ways.values():
        way()
    times: Times = {name: [] for name in ways}
    for name in turns(rounds, ways):
        times[name].append(ways[name]())
    return times


def ratio(times: Times, ours: str, floor: str) -> float:
    return median(mine / its for mine, its in zip(times[ours], times[floor], strict=True))


def compared(
    figure: str,
    target: float | None,
    times: Times,
    ours: str,
    floor: str,
    scale: tuple[float, str] = (1e6, "us"),
) -> Row:
    """Return the row of a ratio between two of the ways."""
    factor, unit = scale
    mine, its = (f"{median(times[name]) * factor:.2f} {unit}" for name in (ours, floor))
    return Row(figure, ratio(times, ours, floor), target, f"{mine} / {floor} {its}")


def show(title: str, rows: Iterable[Row]) -> None:
    print(f"\n{title}")
    print(f"  {'figure':<48} {'target':>9} {'measured':<9}  absolute")
    for row in rows:
        target = "" if row.target is None else f"<= {row.target:g}{row.unit}"
        value = f"{row.value:.3g}" if row.value < 1000 else f"{row.value:.0f}"
        mark = "MISSED  " if row.missed else ""
        figures = f"{target:>9} {value:>7}{row.unit:<2}"
        print(f"  {row.figure:<48} {figures}  {mark}{row.absolute}", flush=True)


# What is loaded


class Trivial:
    """A module whose load does nothing."""

    __slots__ = ()

    @classmethod
    def load(cls, config: ModelConfig) -> Trivial:
        return cls()


def seen(event: Event) -> None:
    """A hook, so that reports and events are made."""


def initializer(
    module: type[Any] = Trivial, hooks: Iterable[Hook] = (seen,), **options: Any
) -> Initializer:
    """Return an initializer for one module, ``m``; with a hook unless told otherwise."""
    registry = Registry()
    registry.module("m")(module)
    return Initializer(registry, hooks=hooks, **options)
