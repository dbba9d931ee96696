"""P1: what does ``init`` cost where the load itself does nothing, against a bare thread?"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter

import trio
from anyio import create_task_group
from anyio.to_thread import run_sync

from anyload import ModelConfig
from benchmarks.frame import Setting, compared, initializer, interleave, side_by_side
from benchmarks.peers import BY_HAND, by_hand
from benchmarks.results import Comparison, Row

TARGETS = {1: 1.5, 8: 0.8, 64: 0.6}
FLOOR = "anyio.to_thread"


def nothing(place: int = 0) -> None:
    """What the bare thread does."""


def at_once(
    load: Callable[[int], Awaitable[object]], width: int, total: int
) -> Callable[[], Awaitable[float]]:
    """Return what measures the seconds per load with this many different ones at once."""

    async def one(place: int) -> None:
        await load(place)

    async def way() -> float:
        began = perf_counter()
        for _ in range(total // width):
            if width == 1:
                await load(0)
                continue
            async with create_task_group() as tasks:
                for place in range(width):
                    tasks.start_soon(one, place)
        return (perf_counter() - began) / (total // width * width)

    return way


def measure(setting: Setting) -> list[Row | Comparison]:
    rounds, total = setting.pick(21, 5), setting.pick(256, 128)
    own = trio.to_thread.run_sync if setting.loop == "trio" else asyncio.to_thread
    own_name = "trio.to_thread" if setting.loop == "trio" else "asyncio.to_thread"

    async def main() -> list[Row | Comparison]:
        results: list[Row | Comparison] = []
        config = ModelConfig("m")
        async with initializer() as ours, create_task_group() as background:
            dictionary = by_hand(setting.loop)(nothing, background)
            loads: dict[str, Callable[[int], Awaitable[object]]] = {
                "init": lambda _: ours.init(config),
                "init of a directory": lambda place: ours.init(paths[place]),
                BY_HAND: dictionary,
                own_name: lambda _: own(nothing),
                FLOOR: lambda _: run_sync(nothing),
            }
            for width, target in TARGETS.items():
                ways = {name: at_once(load, width, total) for name, load in loads.items()}
                times = await interleave(rounds, ways)
                for name, limit in ("init", target), ("init of a directory", None):
                    figure = f"P1 {name}, {width} at once"
                    results.append(compared(figure, limit, times, name, FLOOR))
                results.append(side_by_side("overhead", f"{width} at once", times, FLOOR))
        return results

    with TemporaryDirectory() as root:
        paths = [f"{root}/{place}" for place in range(max(TARGETS))]
        for path in paths:
            os.mkdir(path)
            Path(path, "config.yml").write_text("module_id: m\n", encoding="utf-8")
        return setting.run(main)
