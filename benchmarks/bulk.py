"""P3: what does a model of a bulk cost, in time and memory, and does it stay so for many?"""

from __future__ import annotations

import tracemalloc
from collections.abc import Awaitable, Callable
from statistics import median
from time import perf_counter

from anyio import create_task_group
from anyio.to_thread import run_sync

from anyload import Initializer, ModelConfig
from benchmarks.frame import Setting, Times, Trivial, compared, initializer, interleave
from benchmarks.results import Row


def configs(number: int) -> list[ModelConfig]:
    return [ModelConfig("m") for _ in range(number)]


def bulk_of(ours: Initializer, number: int) -> Callable[[], Awaitable[float]]:
    async def way() -> float:
        models = configs(number)
        began = perf_counter()
        loaded = await ours.init_many(models)
        took = perf_counter() - began
        assert len(loaded) == number
        return took / number

    return way


def tasks_of(number: int) -> Callable[[], Awaitable[float]]:
    async def way() -> float:
        models = configs(number)
        loaded = {}

        async def one(model: ModelConfig) -> None:
            loaded[model] = await run_sync(Trivial.load, model)

        began = perf_counter()
        async with create_task_group() as tasks:
            for model in models:
                tasks.start_soon(one, model)
        return (perf_counter() - began) / number

    return way


async def bytes_beyond(ours: Initializer, number: int) -> float:
    """Return the peak of the bytes per model, without those of the config and the model."""
    await ours.init_many(configs(64))
    models = configs(number)
    tracemalloc.start()
    try:
        kept = [Trivial() for _ in models]
        of_models = tracemalloc.get_traced_memory()[0]
        del kept
        before = tracemalloc.get_traced_memory()[0]
        tracemalloc.reset_peak()
        loaded = await ours.init_many(models)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(loaded) == number
    return (peak - before - of_models) / number


def measure(setting: Setting) -> list[Row]:
    many = setting.pick(100_000, 20_000)

    async def main() -> tuple[Times, Times, float]:
        async with initializer(hooks=()) as ours, initializer() as heard:
            ways = {
                "init_many": bulk_of(ours, 1_000),
                "init_many with a hook": bulk_of(heard, 1_000),
                "tasks": tasks_of(1_000),
            }
            apart = await interleave(setting.pick(9, 3), ways)
            ways = {f"{number:,}": bulk_of(ours, number) for number in (many, 1_000)}
            grown = await interleave(setting.pick(2, 1), ways)
            return apart, grown, await bytes_beyond(ours, many)

    apart, grown, size = setting.run(main)
    rate = 1 / median(grown[f"{many:,}"])
    heard = "init_many with a hook"
    return [
        compared("P3 init_many of 1,000, against a task each", 0.1, apart, "init_many", "tasks"),
        compared(f"P3 {heard}, the same", None, apart, heard, "tasks"),
        compared(f"P3 {many:,} models, against 1,000", 2.5, grown, f"{many:,}", "1,000"),
        Row(f"P3 {many:,} models, each beyond the model", size, 1024, f"{rate:,.0f} a second", "B"),
    ]
