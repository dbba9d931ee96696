"""P1: what does ``init`` cost where the load itself does nothing, against a bare thread?"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter

from anyio import create_task_group
from anyio.to_thread import run_sync

from anyload import ModelConfig
from benchmarks.frame import Row, Setting, compared, initializer, interleave

TARGETS = {1: 1.5, 8: 0.8, 64: 0.6}


def nothing() -> None:
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


def measure(setting: Setting) -> list[Row]:
    rounds, total = setting.pick(21, 5), setting.pick(512, 128)

    async def main() -> list[Row]:
        rows = []
        config = ModelConfig("m")
        async with initializer() as ours:
            for width, target in TARGETS.items():
                ways = {
                    "init": at_once(lambda _: ours.init(config), width, total),
                    "init of a directory": at_once(
                        lambda place: ours.init(paths[place]), width, total
                    ),
                    "to_thread": at_once(lambda _: run_sync(nothing), width, total),
                }
                times = await interleave(rounds, ways)
                for name, limit in ("init", target), ("init of a directory", None):
                    figure = f"P1 {name}, {width} at once"
                    rows.append(compared(figure, limit, times, name, "to_thread"))
        return rows

    with TemporaryDirectory() as root:
        paths = [f"{root}/{place}" for place in range(max(TARGETS))]
        for path in paths:
            os.mkdir(path)
            Path(path, "config.yml").write_text("module_id: m\n", encoding="utf-8")
        return setting.run(main)
