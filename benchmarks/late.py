"""P4: how late does the timeout of an attempt fire?"""

from __future__ import annotations

import logging
from contextlib import suppress
from statistics import median
from time import perf_counter, sleep

import anyio

from anyload import LoadError, ModelConfig
from benchmarks.frame import Row, Setting, initializer, interleave

LIMIT = 0.05


class Sleeps:
    """A module whose load passes the limit, and then ends."""

    began = 0.0

    @classmethod
    def load(cls, config: ModelConfig) -> Sleeps:
        Sleeps.began = perf_counter()
        sleep(2 * LIMIT)
        return cls()


def measure(setting: Setting) -> list[Row]:
    logging.getLogger("anyload").setLevel(logging.ERROR)  # it warns of each abandoned thread

    async def main() -> tuple[list[float], list[float]]:
        priority = [{"type": "LOCAL", "timeout": LIMIT}]
        async with initializer(Sleeps, backend_priority=priority) as ours:

            async def load() -> float:
                with suppress(LoadError):
                    await ours.init(ModelConfig("m"))
                late = perf_counter() - Sleeps.began - LIMIT
                await anyio.sleep(2 * LIMIT)  # the thread has ended
                return late

            async def scope() -> float:
                began = perf_counter()
                with anyio.move_on_after(LIMIT):
                    await anyio.sleep_forever()
                return perf_counter() - began - LIMIT

            times = await interleave(setting.pick(31, 5), {"load": load, "scope": scope})
            return times["load"], times["scope"]

    late, control = ([1e3 * value for value in values] for values in setting.run(main))
    shown = f"longest {max(late):.2f} ms / move_on_after {median(control):.2f} ms"
    return [Row("P4 attempt timeout is late by", median(late), 5.0, shown, "ms")]
