"""P7: for how long does an event loop stand still while four models load?"""

from __future__ import annotations

import pickle
import tomllib
import zlib
from collections.abc import Awaitable, Callable
from functools import partial
from math import ceil
from time import perf_counter
from typing import Any

import anyio
from anyio.to_thread import run_sync

from anyload import Initializer, ModelConfig
from benchmarks.frame import MS, Setting, Times, compared, initializer, interleave, side_by_side
from benchmarks.results import Comparison, Row

BEAT = 0.001
SWITCH_SECONDS = 0.0005
LOADS = 4
THREADS = f"{LOADS} threads"
OURS = "init_many"
LANE = "init_many, holds_gil"
SWITCHED = "the same, gil_switch_interval"
PAUSED = "the same, pauses_gc"
IDLE = "no load"


def release_gil(scale: int) -> Callable[[], object]:
    """Unpack weights: long calls into C that let go of the GIL."""
    packed = zlib.compress(bytes(range(256)) * (40_000 * scale // 10), 1)
    return partial(zlib.decompress, packed)


def python_code(scale: int) -> Callable[[], object]:
    """Read a large configuration with a parser that is written in Python."""
    entries = [f'[layer-{number}]\nname = "l"\nshape = [{number}, 4, 8]' for number in range(2000)]
    return partial(tomllib.loads, "\n".join(entries[: 150 * scale]))


def hold_gil(scale: int) -> Callable[[], object]:
    """Unpickle many small objects: one call into C that keeps the GIL."""
    pickled = pickle.dumps(
        [{"name": str(number), "at": number} for number in range(15_000 * scale)]
    )
    return partial(pickle.loads, pickled)


class Real:
    """A module whose load does what its benchmark sets."""

    holds_gil = False
    work: Callable[[], object]

    def __init__(self, weights: object) -> None:
        self.weights = weights

    @classmethod
    def load(cls, config: ModelConfig) -> Real:
        return cls(Real.work())


class RealInLane(Real):
    holds_gil = True


class RealPaused(RealInLane):
    pauses_gc = True


async def beating(loading: Callable[[], Awaitable[object]], least: float) -> list[float]:
    """Return the gaps of a beat on the loop, in seconds, while something loads there."""
    gaps: list[float] = []
    ended = False

    async def beat() -> None:
        began = last = perf_counter()
        while not ended or last - began < least:
            await anyio.sleep(BEAT)
            now = perf_counter()
            gaps.append(now - last)
            last = now

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(beat)
        await anyio.sleep(5 * BEAT)
        await loading()
        ended = True
    return gaps


class Gaps:
    """Measures one way: its 99th percentile; the durations are kept."""

    def __init__(self, loading: Callable[[], Awaitable[object]], least: float = 0) -> None:
        self.loading = loading
        self.least = least
        self.took: list[float] = []

    async def __call__(self) -> float:
        began = perf_counter()
        gaps = sorted(await beating(self.loading, self.least))
        self.took.append(perf_counter() - began)
        return gaps[ceil(0.99 * len(gaps)) - 1]


async def in_threads() -> None:
    async with anyio.create_task_group() as tasks:
        for _ in range(LOADS):
            tasks.start_soon(run_sync, Real.load, ModelConfig("m"))


async def in_bulk(ours: Initializer) -> None:
    models = await ours.init_many([ModelConfig("m") for _ in range(LOADS)])
    del models


def measure(setting: Setting) -> list[Row | Comparison]:
    scale = setting.pick(6, 2)
    kinds = {
        "lets go of the GIL": release_gil(scale),
        "Python code": python_code(scale),
        "holds the GIL": hold_gil(scale),
    }

    async def main() -> list[Row | Comparison]:
        results: list[Row | Comparison] = []
        options: dict[str, Any] = {"max_concurrent_loads": LOADS}
        switched = {**options, "gil_switch_interval": SWITCH_SECONDS}
        async with (
            initializer(Real, **options) as ours,
            initializer(RealInLane, **options) as lane,
            initializer(RealInLane, **switched) as quick,
            initializer(RealPaused, **switched) as paused,
        ):
            for kind, work in kinds.items():
                Real.work = staticmethod(work)
                ways = {
                    OURS: Gaps(partial(in_bulk, ours)),
                    LANE: Gaps(partial(in_bulk, lane)),
                    SWITCHED: Gaps(partial(in_bulk, quick)),
                    PAUSED: Gaps(partial(in_bulk, paused)),
                    THREADS: Gaps(in_threads),
                    IDLE: Gaps(anyio.lowlevel.checkpoint, least=0.2),
                }
                times = await interleave(setting.pick(7, 3), ways)
                results += of(kind, times, ways)
        return results

    return setting.run(main)


def of(kind: str, times: Times, ways: dict[str, Gaps]) -> list[Row | Comparison]:
    took = {name: way.took for name, way in ways.items() if name != IDLE}
    results: list[Row | Comparison] = [
        side_by_side("gaps", kind, times, THREADS, MS),
        side_by_side("pace", kind, took, THREADS, MS),
    ]
    if kind == "Python code":
        for name in LANE, SWITCHED:
            figure = f"P7 p99 gap, {kind}, {name}"
            results.append(compared(figure, 0.05, times, name, THREADS, MS))
    return results
