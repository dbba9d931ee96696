"""Does a model cost the same with 10, with 1,000 and with 100,000 others beside it?"""

from __future__ import annotations

import tracemalloc
from collections.abc import Awaitable, Callable
from functools import partial
from time import perf_counter

import anyio

from anyload import ModelConfig, Registry
from anyload.testing import Gate, until, waits_at
from benchmarks.frame import US, Setting, Times, Trivial, initializer, interleave, side_by_side
from benchmarks.results import Comparison, Row

FLOOR = 1_000
Way = Callable[[int], Awaitable[tuple[float, float]]]


def traced() -> float:
    return tracemalloc.get_traced_memory()[0] if tracemalloc.is_tracing() else 0


async def registry(number: int) -> tuple[float, float]:
    """Register this many modules, and return the seconds and the bytes."""
    names = [f"module-{place}" for place in range(number)]
    before, began = traced(), perf_counter()
    made = Registry()
    for name in names:
        made.module(name)(Trivial)
    took, size = perf_counter() - began, traced() - before
    assert len(made.modules) == number
    return took, size


async def catalogue(number: int) -> tuple[float, float]:
    """Make an initializer with a catalogue of this many models."""
    models = {
        f"model-{place}": {"module_id": "m", "model_path": f"models/{place}"}
        for place in range(number)
    }
    before, began = traced(), perf_counter()
    made = initializer(models=models)
    took, size = perf_counter() - began, traced() - before
    assert len(made.catalogue) == number
    return took, size


async def queue(number: int) -> tuple[float, float]:
    """Queue this many loads behind one, and load them."""
    gate = Gate()
    models = [ModelConfig("m") for _ in range(number)]
    async with initializer(waits_at(gate), hooks=(), max_concurrent_loads=1) as ours:
        before, began = traced(), perf_counter()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ours.init_many, models)
            await until(lambda: ours.statistics().queued == number - 1)
            took, size = perf_counter() - began, traced() - before
            began = perf_counter()
            gate.open()
        return took + perf_counter() - began, size


WAYS: dict[str, Way] = {"registry": registry, "catalogue": catalogue, "queue": queue}


def measure(setting: Setting) -> list[Row | Comparison]:
    numbers = (10, FLOOR, setting.pick(100_000, 10_000))

    async def main() -> list[Row | Comparison]:
        results: list[Row | Comparison] = []
        for name, way in WAYS.items():
            times, sizes = await grown(setting, way, numbers)
            results.append(side_by_side("growth", name, times, label(FLOOR), US))
            results.append(side_by_side("growth_bytes", name, sizes, label(FLOOR), (1, "B")))
        return results

    return setting.run(main)


def label(number: int) -> str:
    return f"{number:,} models"


async def grown(setting: Setting, way: Way, numbers: tuple[int, ...]) -> tuple[Times, Times]:
    """Return the seconds and the bytes of each model, by how many there are."""

    async def per_model(number: int) -> float:
        repeats = max(1, FLOOR // number)
        return sum([(await way(number))[0] for _ in range(repeats)]) / repeats / number

    ways = {label(number): partial(per_model, number) for number in numbers}
    times = await interleave(setting.pick(2, 1), ways)
    sizes: Times = {}
    for number in numbers:
        tracemalloc.start()
        try:
            sizes[label(number)] = [(await way(number))[1] / number]
        finally:
            tracemalloc.stop()
    return times, sizes
