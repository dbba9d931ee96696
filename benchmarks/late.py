"""P4: how late does a limit fire?"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from statistics import median
from time import perf_counter, sleep

import anyio
from anyio.to_thread import run_sync

from anyload import LoadError, ModelConfig
from benchmarks.frame import MS, Setting, initializer, interleave, side_by_side
from benchmarks.peers import peers
from benchmarks.results import Comparison, Row, Spread

LIMIT = 0.02
LOAD_SECONDS = 5 * LIMIT
LATE = "when its load ends"
FLOOR = "move_on_after, no load"
OURS = "init, timeout of an attempt"


class Sleeps:
    """A module whose load passes the limit, and then ends."""

    began = 0.0

    @classmethod
    def load(cls, config: object) -> Sleeps:
        Sleeps.began = perf_counter()
        sleep(LOAD_SECONDS)
        return cls()


async def ours(load: Callable[[], Awaitable[object]]) -> float:
    """Return how long after the limit of its attempt a caller hears of it."""
    with suppress(LoadError):
        await load()
    late = perf_counter() - Sleeps.began - LIMIT
    await anyio.sleep(LOAD_SECONDS - LIMIT)  # the thread has ended
    return late


async def scope(wait: Callable[[int], Awaitable[object]]) -> float:
    """Return how long after its own limit a caller goes on; it can have no other."""
    began = perf_counter()
    with anyio.move_on_after(LIMIT):
        await wait(hash(began))
    late = perf_counter() - began - LIMIT
    await anyio.sleep(max(0, LOAD_SECONDS - LIMIT - late))
    return late


def measure(setting: Setting) -> list[Row | Comparison]:
    makes, instead = peers(setting.loop)

    async def main() -> dict[str, list[float]]:
        priority = [{"type": "LOCAL", "timeout": LIMIT}]
        config = ModelConfig("m")
        limited = initializer(Sleeps, backend_priority=priority)
        async with limited, initializer(Sleeps) as free, anyio.create_task_group() as background:
            callers: dict[str, Callable[[int], Awaitable[object]]] = {
                "init, move_on_after": lambda turn: free.init(config),
                **{name: make(Sleeps.load, background) for name, make in makes.items()},
                "anyio.to_thread": partial(run_sync, Sleeps.load),
                "the same, abandoned": partial(run_sync, Sleeps.load, abandon_on_cancel=True),
                FLOOR: lambda turn: anyio.sleep_forever(),
            }
            ways: dict[str, Callable[[], Awaitable[float]]] = {
                OURS: partial(ours, partial(limited.init, config)),
                **{name: partial(scope, wait) for name, wait in callers.items()},
            }
            for name in (*makes, "anyio.to_thread"):
                if min(await ways[name](), await ways[name]()) > LOAD_SECONDS / 2:
                    instead[name] = LATE
                    del ways[name]
            return await interleave(setting.pick(15, 3), ways)

    times = setting.run(main)
    late = Spread.of(times[OURS], 1e3)
    shown = f"longest {1e3 * max(times[OURS]):.2f} ms / "
    shown += f"move_on_after {1e3 * median(times[FLOOR]):.2f} ms"
    order = (OURS, "init, move_on_after", *makes)
    return [
        Row("P4 attempt timeout is late by", late.median, 5.0, shown, "ms", late),
        side_by_side("late", "late by", times, "", MS, instead, order),
    ]
