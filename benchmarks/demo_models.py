"""P10: how long do the demo's real models take, together? `make demo` makes their environment."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from functools import partial
from time import perf_counter, process_time
from typing import Any

import anyio
from anyio.to_thread import run_sync

from anyload import Initializer, ModelConfig
from benchmarks.frame import Setting, Times, compared, interleave, ratios, side_by_side
from benchmarks.results import Comparison, Row

# Nothing of the demo is imported up here: it is not where the other benchmarks are.

SECONDS = (1, "s")
OURS, APART, IDEAL = "init_many", "one after another", "the ideal"


def by_hand(initializer: Initializer, names: Iterable[str]) -> dict[str, Callable[[], Any]]:
    """Return the load of each model, as one would call it without anyload."""
    from demo.locate import models
    from demo.modules import registry

    loads: dict[str, Callable[[], Any]] = {}
    for name in names:
        entry = models()[name]
        config = ModelConfig(**entry)
        known = registry.implementations(config.module_id)
        backend = next(each for each in initializer.backends if each.backend_type in known)
        loads[name] = partial(known[backend.backend_type].load, config, backend, {})
    return loads


class Gathered:
    """Measures the loads in threads, so many at once; it keeps how long each took."""

    def __init__(self, loads: dict[str, Callable[[], Any]], at_once: int) -> None:
        self.loads = loads
        self.at_once = at_once
        self.longest: list[float] = []
        self.processor: list[float] = []

    async def __call__(self) -> float:
        limiter = anyio.CapacityLimiter(self.at_once)
        models = []
        durations = []

        def timed(load: Callable[[], Any]) -> None:
            began = perf_counter()
            models.append(load())
            durations.append(perf_counter() - began)

        began, used = perf_counter(), process_time()
        async with anyio.create_task_group() as tasks:
            for load in self.loads.values():
                tasks.start_soon(partial(run_sync, timed, load, limiter=limiter))
        took = perf_counter() - began
        self.processor.append(process_time() - used)
        self.longest.append(max(durations))
        return took


def measure(setting: Setting) -> list[Row | Comparison]:
    """Measure a bulk of all of them, after a round that does the imports."""
    from demo.locate import write_catalogues
    from demo.modules import registry

    catalogue, _ = write_catalogues()
    cores = os.cpu_count() or 1

    async def main() -> list[Row | Comparison]:
        async with Initializer.from_config(catalogue, registry=registry) as ours:
            names = list(ours.catalogue)

            async def together() -> float:
                began = perf_counter()
                models = await ours.init_many(names)
                took = perf_counter() - began
                del models
                return took

            await together()  # the imports
            loads = by_hand(ours, names)
            apart = Gathered(loads, 1)
            at_once = sorted({2, cores, 4, len(names)})
            gathers = {f"gather, {width} at once": Gathered(loads, width) for width in at_once}
            times = await interleave(setting.pick(5, 2), {OURS: together, APART: apart, **gathers})
        bounds = zip(apart.longest[1:], apart.processor[1:], strict=True)
        times[IDEAL] = [max(longest, used / cores) for longest, used in bounds]
        return results(times, tuple(gathers), len(names))

    return setting.run(main)


def results(times: Times, gathers: tuple[str, ...], number: int) -> list[Row | Comparison]:
    best = min(gathers, key=lambda name: ratios(times, name, APART).median)
    against = f"P10 {number} real models, against"
    return [
        compared(f"{against} one after another", 0.55, times, OURS, APART, SECONDS),
        compared(f"{against} the best gather", 1.05, times, OURS, best, SECONDS),
        side_by_side("real", f"{number} models", times, IDEAL, SECONDS),
    ]
