"""P1: what does ``init`` cost where the load itself does nothing, against a bare thread?"""

from __future__ import annotations

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
    load: Callable[[], Awaitable[object]], width: int, total: int
) -> Callable[[], Awaitable[float]]:
    """Return what measures the seconds per load with this many at once."""

    async def one() -> None:
        await load()

    async def way() -> float:
        began = perf_counter()
        for _ in range(total // width):
            if width == 1:
                await load()
                continue
            async with create_task_group() as tasks:
                for _ in range(width):
                    tasks.start_soon(one)
        return (perf_counter() - began) / (total // width * width)

    return way


def measure(setting: Setting) -> list[Row]:
    rounds, total = setting.pick(21, 5), setting.pick(512, 128)

    async def main() -> list[Row]:
        rows = []
        config = ModelConfig("m")
        with TemporaryDirectory() as directory:
            Path(directory, "config.yml").write_text("module_id: m\n", encoding="utf-8")
            async with initializer() as ours:
                for width, target in TARGETS.items():
                    ways = {
                        "init": at_once(lambda: ours.init(config), width, total),
                        "init of a directory": at_once(lambda: ours.init(directory), width, total),
                        "to_thread": at_once(lambda: run_sync(nothing), width, total),
                    }
                    times = await interleave(rounds, ways)
                    for name in ("init", "init of a directory"):
                        limit = target if name == "init" else None
                        row = compared(
                            f"P1 {name}, {width} at once", limit, times, name, "to_thread"
                        )
                        rows.append(row)
        return rows

    return setting.run(main)
