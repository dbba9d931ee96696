"""P2: what do 1 to 10,000 callers of one load cost, and how long does waking them stall a loop?"""

from __future__ import annotations

import threading
import tracemalloc
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from itertools import count
from time import perf_counter

import anyio
from anyio.lowlevel import checkpoint

from anyload import ModelConfig
from benchmarks.frame import (
    MS,
    US,
    Setting,
    Times,
    compared,
    initializer,
    interleave,
    side_by_side,
)
from benchmarks.peers import peers
from benchmarks.results import Cell, Comparison, Row, Spread

SETTLING = 30
"""How many times the loop goes round until every caller waits, whoever it calls."""
FLOOR = "one Event"
OURS = "init"
TURNS = count()
"""A number for each turn, as the peers remember what they have loaded."""


class Held:
    """A load that waits until all callers are there, and counts."""

    everybody = threading.Event()
    loads = 0

    @classmethod
    def load(cls, config: object) -> Held:
        cls.loads += 1
        cls.everybody.wait()
        return cls()


@dataclass(frozen=True)
class Way:
    """A way to share a load.

    Args:
        wait: what a caller does; it is given the number of the round.
        release: lets the load end.
        loads: how many loads it takes at least.
    """

    wait: Callable[[int], Awaitable[object]]
    release: Callable[[], object]
    loads: int = 1


async def gather(way: Way, turn: int, callers: int) -> tuple[float, float]:
    """Return the seconds from the first caller to the last, and the longest gap in the waking."""
    begun, longest = 0, 0.0

    async def one() -> None:
        nonlocal begun
        begun += 1
        await way.wait(turn)

    async def tick() -> None:
        nonlocal longest
        last = perf_counter()
        while True:
            await checkpoint()
            now = perf_counter()
            longest, last = max(longest, now - last), now

    began = perf_counter()
    async with anyio.create_task_group() as ticking:
        async with anyio.create_task_group() as tasks:
            for _ in range(callers):
                tasks.start_soon(one)
            while begun < callers:
                await checkpoint()
            for _ in range(SETTLING):
                await checkpoint()
            ticking.start_soon(tick)
            await checkpoint()
            way.release()
        took = perf_counter() - began
        ticking.cancel_scope.cancel()
    return took, longest


class Sharing:
    """Measures one way, turn after turn, and notes the gaps and whether it shares at all."""

    def __init__(self, way: Way, callers: int, repeats: int) -> None:
        self.way = way
        self.callers = callers
        self.repeats = repeats
        self.gaps: list[float] = []
        self.loads = 0

    async def once(self) -> float:
        Held.everybody.clear()
        Held.loads = 0
        took, gap = await gather(self.way, next(TURNS), self.callers)
        assert Held.loads >= self.way.loads  # nothing was there before
        self.gaps.append(gap)
        self.loads = max(self.loads, Held.loads)
        return took

    async def __call__(self) -> float:
        total = 0.0
        for _ in range(self.repeats):
            total += await self.once()
        return total / self.repeats / self.callers

    async def bytes_per_caller(self) -> float:
        """Return the peak, with the callers' own tasks."""
        tracemalloc.start()
        try:
            before = tracemalloc.get_traced_memory()[0]
            tracemalloc.reset_peak()
            await self.once()
            return (tracemalloc.get_traced_memory()[1] - before) / self.callers
        finally:
            tracemalloc.stop()


def measure(setting: Setting) -> list[Row | Comparison]:
    many = setting.pick(10_000, 2_000)
    makes, lacking = peers(setting.loop)

    async def main() -> list[Row | Comparison]:
        config = ModelConfig("m")
        event = anyio.Event()

        def renew() -> None:
            nonlocal event
            event.set()
            event = anyio.Event()

        async with initializer(Held) as ours, anyio.create_task_group() as background:
            release = Held.everybody.set
            ways = {
                OURS: Way(lambda turn: ours.init(config, key="shared"), release),
                FLOOR: Way(lambda turn: event.wait(), renew, loads=0),
                **{name: Way(make(Held.load, background), release) for name, make in makes.items()},
            }
            results: list[Row | Comparison] = []
            for callers in (1, 100, many):
                results += await of(ways, lacking, setting, callers)
            return results

    return setting.run(main)


async def of(
    ways: dict[str, Way], lacking: dict[str, str], setting: Setting, callers: int
) -> list[Row | Comparison]:
    """Compare the ways with this many callers."""
    repeats = max(1, setting.pick(200, 50) // callers)
    sharing = {name: Sharing(way, callers, repeats) for name, way in ways.items()}
    order = tuple(sharing)
    instead = dict(lacking)
    for name, one in list(sharing.items()):
        await one.once()
        if one.loads > 1:
            instead[name] = f"no sharing: {one.loads} loads"
            del sharing[name]
    times = await interleave(setting.pick(5, 3), sharing)
    gaps: Times = {name: list(one.gaps) for name, one in sharing.items()}
    size = {name: await one.bytes_per_caller() for name, one in sharing.items()}
    case = f"{callers:,} callers"
    results: list[Row | Comparison] = [
        side_by_side("sharing", case, times, FLOOR, US, instead, order),
        Comparison(
            "bytes",
            case,
            "B",
            FLOOR,
            tuple(
                Cell(
                    name,
                    Spread.of([size[name]]) if name in size else None,
                    Spread.of([size[name] / size[FLOOR]]) if name in size else None,
                    instead.get(name, ""),
                )
                for name in (*order, *lacking)
            ),
        ),
    ]
    if callers > 1000:
        results += [
            compared(f"P2 {case}, total", 1.5, times, OURS, FLOOR),
            compared(f"P2 {case}, longest gap", 0.1, gaps, OURS, FLOOR, MS),
            side_by_side("waking", case, gaps, FLOOR, MS, instead, order),
        ]
    return results
