"""P5: how long does it take to cancel a caller, while its load runs on?"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from statistics import median
from time import perf_counter

import anyio

from anyload import ModelConfig
from anyload.testing import Gate, until, waits_at
from benchmarks.frame import Row, Setting, initializer, interleave


async def cancelling(
    wait: Callable[[], Awaitable[object]], is_waiting: Callable[[], bool]
) -> float:
    """Return the seconds from the cancel to the end of the caller."""
    ended = 0.0

    async def one() -> None:
        nonlocal ended
        try:
            await wait()
        finally:
            ended = perf_counter()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(one)
        await until(is_waiting)
        began = perf_counter()
        tasks.cancel_scope.cancel()
    return ended - began


def measure(setting: Setting) -> list[Row]:
    async def main() -> tuple[list[float], list[float]]:
        gate, config = Gate(), ModelConfig("m")
        async with initializer(waits_at(gate)) as ours, anyio.create_task_group() as tasks:
            # Somebody else waits for the same load, so it is not told to stop.
            tasks.start_soon(lambda: ours.init(config, key="shared"))
            await gate.entered()

            async def load() -> float:
                return await cancelling(
                    lambda: ours.init(config, key="shared"), lambda: ours.statistics().waiters == 2
                )

            async def event() -> float:
                event = anyio.Event()
                return await cancelling(event.wait, lambda: event.statistics().tasks_waiting == 1)

            times = await interleave(setting.pick(101, 11), {"load": load, "event": event})
            gate.open()
        return times["load"], times["event"]

    took, control = ([1e3 * value for value in values] for values in setting.run(main))
    shown = f"longest {max(took):.3f} ms / a waiter of an Event {median(control):.3f} ms"
    return [Row("P5 cancelling a caller", median(took), 0.2, shown, "ms")]
