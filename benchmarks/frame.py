"""What every benchmark shares: variants in turns, medians of ratios."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from statistics import median
from typing import Any, TypeVar

import anyio

from anyload import Initializer, ModelConfig, Registry
from anyload.events import Event, Hook
from benchmarks.results import Cell, Comparison, Row, Spread

T = TypeVar("T")
Times = dict[str, list[float]]

LOOPS: Mapping[str, tuple[str, dict[str, Any]]] = {
    "asyncio": ("asyncio", {}),
    "uvloop": ("asyncio", {"use_uvloop": True}),
    "trio": ("trio", {}),
}
MS = (1e3, "ms")
US = (1e6, "us")


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


def ratios(times: Times, ours: str, floor: str) -> Spread:
    return Spread.of([mine / its for mine, its in zip(times[ours], times[floor], strict=True)])


def compared(
    figure: str,
    target: float | None,
    times: Times,
    ours: str,
    floor: str,
    scale: tuple[float, str] = US,
) -> Row:
    """Return the row of a ratio between two of the ways."""
    factor, unit = scale
    mine, its = (f"{median(times[name]) * factor:.2f} {unit}" for name in (ours, floor))
    rounds = ratios(times, ours, floor)
    return Row(figure, rounds.median, target, f"{mine} / {floor} {its}", rounds=rounds)


def side_by_side(
    topic: str,
    case: str,
    times: Times,
    floor: str,
    scale: tuple[float, str] = US,
    instead: Mapping[str, str] | None = None,
    order: Iterable[str] = (),
) -> Comparison:
    """Return all of the ways next to each other.

    Args:
        floor: the way that the others are measured in; empty where a ratio says nothing.
        instead: the ways without a number, and why they have none.
        order: of the ways; those that were not measured come last unless it says otherwise.
    """
    factor, unit = scale
    cells = {
        name: Cell(name, Spread.of(values, factor), ratios(times, name, floor) if floor else None)
        for name, values in times.items()
    }
    cells |= {name: Cell(name, instead=why) for name, why in (instead or {}).items()}
    names = [name for name in order if name in cells]
    names += [name for name in cells if name not in names]
    return Comparison(topic, case, unit, floor, tuple(cells[name] for name in names))


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
