"""P5: how long does it take to cancel a caller, and what becomes of another one of that load?"""

from __future__ import annotations

import threading
from collections.abc import Awaitable, Callable
from functools import partial
from statistics import median
from time import perf_counter

import anyio
from anyio.lowlevel import checkpoint
from anyio.to_thread import run_sync

from anyload import ModelConfig
from anyload.testing import until
from benchmarks.frame import MS, Setting, initializer, interleave, side_by_side
from benchmarks.peers import Shared, peers
from benchmarks.results import Cell, Comparison, Row, Spread

LOAD_SECONDS = 0.3
LATE = "when its load ends"
SETTLING = 30
FLOOR = "one Event"
OURS = "init"


class Slow:
    """A load that ends when it is told to, or after a while; it counts."""

    may_end = threading.Event()
    loads = 0
    ended = 0

    @classmethod
    def load(cls, config: object) -> Slow:
        cls.loads += 1
        cls.may_end.wait(LOAD_SECONDS)
        cls.ended += 1
        return cls()

    @classmethod
    async def finish(cls) -> None:
        """Let what runs end, and wait for it."""
        cls.may_end.set()
        await until(lambda: cls.ended == cls.loads)
        cls.may_end.clear()


async def cancelling(wait: Callable[[], Awaitable[object]], loads: int) -> float:
    """Return the seconds from the cancel of a caller to its end."""
    ended = 0.0
    expected = Slow.loads + loads

    async def one() -> None:
        nonlocal ended
        try:
            await wait()
        finally:
            ended = perf_counter()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(one)
        await until(lambda: Slow.loads >= expected)
        for _ in range(SETTLING):
            await checkpoint()
        began = perf_counter()
        tasks.cancel_scope.cancel()
    return ended - began


async def the_other(wait: Callable[[], Awaitable[object]]) -> str:
    """Cancel the first of two callers, and return what becomes of the second."""
    before = Slow.loads
    got: object = None

    async def second() -> None:
        nonlocal got
        got = await wait()

    async with anyio.create_task_group() as tasks, anyio.create_task_group() as firsts:
        firsts.start_soon(wait)
        await until(lambda: Slow.loads > before)
        tasks.start_soon(second)
        for _ in range(SETTLING):
            await checkpoint()
        firsts.cancel_scope.cancel()
        for _ in range(SETTLING):
            await checkpoint()
        Slow.may_end.set()
    loads = Slow.loads - before
    await Slow.finish()
    if got is None:
        return "is cancelled too"
    return "gets the model" if loads == 1 else f"gets it from load {loads}"


class Caller:
    """Makes a way out of what shares: each turn is a load of its own."""

    def __init__(self, shared: Shared, loads: int = 1) -> None:
        self.shared = shared
        self.loads = loads
        self.turn = 0

    def renew(self) -> Callable[[], Awaitable[object]]:
        self.turn += 1
        return partial(self.shared, self.turn)

    async def __call__(self) -> float:
        took = await cancelling(self.renew(), self.loads)
        await Slow.finish()
        return took


def measure(setting: Setting) -> list[Row | Comparison]:
    makes, instead = peers(setting.loop)
    others = dict(instead)

    async def main() -> dict[str, list[float]]:
        event = anyio.Event()
        config = ModelConfig("m")
        abandoned = partial(run_sync, Slow.load, abandon_on_cancel=True)
        async with initializer(Slow) as ours, anyio.create_task_group() as background:
            callers = {
                OURS: Caller(lambda turn: ours.init(config, key=turn)),
                **{name: Caller(make(Slow.load, background)) for name, make in makes.items()},
                "anyio.to_thread": Caller(lambda turn: run_sync(Slow.load, turn)),
                "the same, abandoned": Caller(abandoned),
                FLOOR: Caller(lambda turn: event.wait(), loads=0),
            }
            for name in (OURS, *makes):
                others[name] = await the_other(callers[name].renew())
            for name in (*makes, "anyio.to_thread"):
                if min(await callers[name](), await callers[name]()) > LOAD_SECONDS / 2:
                    instead[name] = LATE
                    del callers[name]
            return await interleave(setting.pick(51, 7), callers)

    times = setting.run(main)
    took = Spread.of(times[OURS], 1e3)
    shown = f"longest {1e3 * max(times[OURS]):.3f} ms / "
    shown += f"a waiter of an Event {1e3 * median(times[FLOOR]):.3f} ms"
    order = (OURS, *makes)
    cells = tuple(Cell(name, instead=others[name]) for name in order if name in others)
    return [
        Row("P5 cancelling a caller", took.median, 0.2, shown, "ms", took),
        side_by_side("cancel", "a caller of its own", times, FLOOR, MS, instead, order),
        Comparison("cancel", "the other caller", "ms", FLOOR, cells),
    ]
