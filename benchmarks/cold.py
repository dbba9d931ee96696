"""P8: how long does a bulk take whose files are not in memory, with and without reading ahead?"""

from __future__ import annotations

import hashlib
import mmap
import os
from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter, thread_time

import anyio
from anyio.to_thread import run_sync

from anyload import Initializer, ModelConfig
from benchmarks.frame import MS, Setting, Times, compared, initializer, interleave, side_by_side
from benchmarks.results import Comparison, Row

FILES = 12
MIB = 1024 * 1024
AHEAD, PLAIN, THREADS = "init_many, prefetch", "init_many, no prefetch", "gather, 4 at once"
DISK, PROCESSOR, IDEAL = "only reading", "only computing", "the ideal"
WARM_AHEAD, WARM = "warm, prefetch", "warm, no prefetch"


class Mapped:
    """A module that maps its file, looks at all of it, and computes something from it."""

    passes = 1

    @classmethod
    def load(cls, config: ModelConfig) -> Mapped:
        with (
            open(config, "rb") as file,
            mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped,
        ):
            for _ in range(cls.passes):
                hashlib.sha256(mapped)
        return cls()

    @classmethod
    def weight_files(cls, config: ModelConfig) -> Iterable[str]:
        return [os.fspath(config)]


def write(root: str, size: int) -> list[ModelConfig]:
    models = []
    for number in range(FILES):
        path = Path(root, f"model-{number}")
        with path.open("wb") as file:
            for _ in range(size):
                file.write(os.urandom(MIB))
            os.fsync(file.fileno())  # what is not written yet cannot be evicted
        models.append(ModelConfig("m", path))
    return models


def evict(models: Iterable[ModelConfig]) -> None:
    for model in models:
        descriptor = os.open(model, os.O_RDONLY)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)


def is_cached(model: ModelConfig) -> bool:
    descriptor = os.open(model, os.O_RDONLY)
    try:
        return os.preadv(descriptor, [bytearray(1)], 8 * MIB, os.RWF_NOWAIT) == 1
    except BlockingIOError:
        return False
    finally:
        os.close(descriptor)


def read(models: Iterable[ModelConfig]) -> None:
    """Read the files one after another, without a copy: what the disk can do."""
    with open(os.devnull, "wb", buffering=0) as nowhere:
        for model in models:
            with open(model, "rb", buffering=0) as file:
                while os.sendfile(nowhere.fileno(), file.fileno(), None, 8 * MIB):
                    pass


def balance(models: list[ModelConfig]) -> int:
    """Return how often to compute so that it takes as long as reading does.

    Where one of the two is far less than the other, there is nothing to overlap.
    """
    reading = []
    for _ in range(3):
        evict(models)
        began = perf_counter()
        read(models)
        reading.append(perf_counter() - began)
    Mapped.load(models[0])
    began = thread_time()
    Mapped.load(models[0])
    computing = (thread_time() - began) * len(models) / (os.cpu_count() or 1)
    return max(1, round(min(reading) / computing))


async def gather(models: Iterable[ModelConfig]) -> None:
    limiter = anyio.CapacityLimiter(4)
    async with anyio.create_task_group() as tasks:
        for model in models:
            tasks.start_soon(partial(run_sync, Mapped.load, model, limiter=limiter))


def measure(setting: Setting) -> list[Row | Comparison]:
    if not hasattr(os, "RWF_NOWAIT"):
        return [Row("P8 cold bulk", None, 1.35, "not measured: this system is not Linux")]
    with TemporaryDirectory() as root:
        models = write(root, setting.pick(48, 16))
        evict(models)
        if is_cached(models[0]):
            return [Row("P8 cold bulk", None, 1.35, "not measured: its files cannot be evicted")]
        Mapped.passes = balance(models)
        return setting.run(partial(measure_loads, setting, models))


async def measure_loads(setting: Setting, models: list[ModelConfig]) -> list[Row | Comparison]:
    def timed(
        way: Callable[[], Awaitable[object]], *, cold: bool
    ) -> Callable[[], Awaitable[float]]:
        async def once() -> float:
            evict(models) if cold else read(models)
            began = perf_counter()
            await way()
            return perf_counter() - began

        return once

    def bulk(ours: Initializer) -> Callable[[], Awaitable[object]]:
        return partial(ours.init_many, models)

    async with initializer(Mapped) as ahead, initializer(Mapped, prefetch_streams=0) as plain:
        ways = {
            AHEAD: timed(bulk(ahead), cold=True),
            PLAIN: timed(bulk(plain), cold=True),
            THREADS: timed(partial(gather, models), cold=True),
            DISK: timed(partial(run_sync, read, models), cold=True),
            PROCESSOR: timed(partial(gather, models), cold=False),
        }
        warm_ways = {
            WARM_AHEAD: timed(bulk(ahead), cold=False),
            WARM: timed(bulk(plain), cold=False),
        }
        times = await interleave(setting.pick(7, 3), ways)
        warm = await interleave(setting.pick(7, 3), warm_ways)
    pairs = zip(times[DISK], times[PROCESSOR], strict=True)
    times[IDEAL] = [max(disk, processor) for disk, processor in pairs]
    return rows(times, warm)


def rows(times: Times, warm: Times) -> list[Row | Comparison]:
    return [
        compared("P8 cold bulk, against the ideal", 1.35, times, AHEAD, IDEAL, MS),
        compared("P8 cold bulk, against no prefetch", 0.55, times, AHEAD, PLAIN, MS),
        compared("P8 warm bulk, against no prefetch", 1.1, warm, WARM_AHEAD, WARM, MS),
        side_by_side("cold", f"{FILES} files", times, IDEAL, MS),
    ]
