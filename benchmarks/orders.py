"""P9: how close to the best order does a bulk of models of known sizes come?"""

from __future__ import annotations

import heapq
import random
from collections.abc import Iterable, Sequence
from functools import partial
from itertools import permutations
from pathlib import Path
from statistics import fmean
from tempfile import TemporaryDirectory
from time import perf_counter, sleep

import anyio
from anyio.to_thread import run_sync

from anyload import Initializer, ModelConfig
from benchmarks.frame import Setting, Times, initializer, side_by_side
from benchmarks.results import Comparison, Row, Spread

MODELS = 7
SLOTS = 2
SECONDS_PER_BYTE = 1e-6
OURS, FIFO, APART, BEST = "init_many", "gather, 2 at once", "one after another", "the best order"


class Sized:
    """A module whose load takes as long as its file is large; it needs no processor."""

    @classmethod
    def load(cls, config: ModelConfig) -> Sized:
        sleep(config.seconds)
        return cls()


def makespan(durations: Iterable[float], slots: int) -> float:
    """Return how long loads take that start in this order, each as soon as a slot is free."""
    free = [0.0] * slots
    for duration in durations:
        heapq.heapreplace(free, free[0] + duration)
    return max(free)


def best(durations: Sequence[float], slots: int) -> float:
    return min(makespan(order, slots) for order in permutations(durations))


def models_of(root: str, seed: int) -> list[ModelConfig]:
    """Make the files of a set of models, of which most are small and some are not."""
    draw = random.Random(seed)
    models = []
    for place in range(MODELS):
        size = int(min(draw.lognormvariate(10.8, 0.8), 300_000))
        path = Path(root, f"{seed}-{place}")
        with path.open("wb") as file:
            file.truncate(size)  # a hole: nothing is written
        models.append(ModelConfig("m", path, seconds=size * SECONDS_PER_BYTE))
    return models


async def gather(models: Iterable[ModelConfig], at_once: int) -> None:
    limiter = anyio.CapacityLimiter(at_once)
    async with anyio.create_task_group() as tasks:
        for model in models:
            tasks.start_soon(partial(run_sync, Sized.load, model, limiter=limiter))


async def timed_all(ours: Initializer, models: list[ModelConfig], times: Times) -> None:
    durations = [model.seconds for model in models]
    times[BEST].append(best(durations, SLOTS))
    for name, way in (
        (OURS, partial(ours.init_many, models)),
        (FIFO, partial(gather, models, SLOTS)),
        (APART, partial(gather, models, 1)),
    ):
        began = perf_counter()
        await way()
        times[name].append(perf_counter() - began)


def measure(setting: Setting) -> list[Row | Comparison]:
    times: Times = {OURS: [], FIFO: [], APART: [], BEST: []}

    async def main() -> None:
        async with initializer(Sized, max_concurrent_loads=SLOTS) as ours:
            await ours.init_many([ModelConfig("m", seconds=0) for _ in range(SLOTS)])
            for seed in range(setting.pick(16, 4)):
                await timed_all(ours, models_of(root, seed), times)

    with TemporaryDirectory() as root:
        setting.run(main)
    over = [mine / ideal for mine, ideal in zip(times[OURS], times[BEST], strict=True)]
    shown = f"mean of {len(over)} sets of {MODELS}, worst {max(over):.2f}"
    return [
        Row("P9 bulk, against the best order", fmean(over), 1.05, shown, rounds=Spread.of(over)),
        side_by_side("synthetic", "sets of 7 models", times, BEST, (1e3, "ms")),
    ]
