"""P2: what do 10,000 callers of one load cost, and for how long does waking them stall a loop?"""

from __future__ import annotations

import threading
from collections.abc import Awaitable, Callable
from time import perf_counter

import anyio
from anyio.lowlevel import checkpoint

from anyload import ModelConfig
from anyload.testing import until
from benchmarks.frame import Row, Setting, Times, compared, initializer, interleave


async def gather(
    callers: int,
    wait: Callable[[], Awaitable[object]],
    waiting: Callable[[], int],
    release: Callable[[], object],
) -> tuple[float, float]:
    """Return the seconds from the first caller to the last, and the longest gap in the waking."""
    longest = 0.0

    async def one() -> None:
        await wait()

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
            await until(lambda: waiting() == callers)
            ticking.start_soon(tick)
            await checkpoint()
            release()
        took = perf_counter() - began
        ticking.cancel_scope.cancel()
    return took, longest


class Held:
    """A module whose load waits until all callers are there."""

    everybody = threading.Event()

    @classmethod
    def load(cls, config: ModelConfig) -> Held:
        cls.everybody.wait()
        return cls()


def measure(setting: Setting) -> list[Row]:
    callers = setting.pick(10_000, 2_000)
    gaps: Times = {"init": [], "one Event": []}

    async def main() -> Times:
        config = ModelConfig("m")
        async with initializer(Held) as ours:

            async def init() -> float:
                Held.everybody.clear()
                took, gap = await gather(
                    callers,
                    lambda: ours.init(config, key="shared"),
                    lambda: ours.statistics().waiters,
                    Held.everybody.set,
                )
                gaps["init"].append(gap)
                return took

            async def one_event() -> float:
                event = anyio.Event()
                took, gap = await gather(
                    callers, event.wait, lambda: event.statistics().tasks_waiting, event.set
                )
                gaps["one Event"].append(gap)
                return took

            return await interleave(setting.pick(9, 3), {"init": init, "one Event": one_event})

    times = setting.run(main)
    ms = (1e3, "ms")
    return [
        compared(f"P2 {callers:,} callers, total", 1.5, times, "init", "one Event", ms),
        compared(f"P2 {callers:,} callers, longest gap", 0.1, gaps, "init", "one Event", ms),
    ]
