"""What does the drop-in for caikit gain, and cost? `make bench-caikit` is where caikit is."""

from __future__ import annotations

import logging
from contextlib import suppress
from functools import partial
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter, sleep
from typing import Any

import anyio
from anyio.to_thread import run_sync

from benchmarks.frame import (
    US,
    Setting,
    Times,
    compared,
    interleave,
    interleave_sync,
    side_by_side,
)
from benchmarks.heartbeat import longest_gap
from benchmarks.results import Comparison, Row

# Nothing of caikit is imported up here: it is not where the other benchmarks are.


def modules() -> Any:
    """Register two modules, one sleeps in its load and one fails in it, and return all by id."""
    from caikit.core import ModuleBase
    from caikit.core.modules import module
    from caikit.core.registries import module_registry

    registered = module_registry()
    if "sleeps" in registered:
        return registered

    @module("sleeps", "Sleeps", "0.0.1")
    class Sleeps(ModuleBase):
        @classmethod
        def load(cls, model_path: Any) -> Any:
            if model_path.seconds:
                sleep(model_path.seconds)
            return cls()

    @module("fails", "Fails", "0.0.1")
    class Fails(ModuleBase):
        calls = 0

        @classmethod
        def load(cls, model_path: str) -> Any:
            cls.calls += 1
            raise ValueError("it is damaged")

    return registered


def initializer(kind: type[Any] | None = None, **options: Any) -> Any:
    """Return an initializer with these options, ours if it is not said which."""
    import aconfig

    from anyload.caikit import AnyloadInitializer

    return (kind or AnyloadInitializer)(aconfig.Config(options, override_env_vars=False), "bench")


def caikits() -> Any:
    """Return caikit's own initializer."""
    from caikit.core.model_management.local_model_initializer import LocalModelInitializer

    return initializer(LocalModelInitializer)


def model(directory: str, name: str, module_id: str, seconds: float = 0) -> str:
    """Make a model and return its path."""
    path = Path(directory, name)
    path.mkdir()
    path.joinpath("config.yml").write_text(f"module_id: {module_id}\nseconds: {seconds}\n")
    return str(path)


def measure(setting: Setting) -> list[Row | Comparison]:
    """Measure what an async server sees of its loads."""
    modules()
    with TemporaryDirectory() as directory:
        return setting.run(partial(loads, setting, directory))


async def loads(setting: Setting, directory: str) -> list[Row | Comparison]:
    import caikit
    from caikit.core import MODEL_MANAGER

    import anyload.caikit

    short, long = setting.pick(50, 5) / 100, setting.pick(300, 30) / 100
    four = [model(directory, f"short-{number}", "sleeps", short) for number in range(4)]
    heavy = model(directory, "long", "sleeps", long)
    theirs, ours = caikits(), initializer()
    load = partial(anyload.caikit.load, initializer=ours)

    async def all_four(way: Any) -> float:
        MODEL_MANAGER.clear_singleton_cache()
        began = perf_counter()
        async with anyio.create_task_group() as tasks:
            for path in four:
                tasks.start_soon(way, path)
        return perf_counter() - began

    async def gap_while(loading: Any) -> float:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(loading)
            return await longest_gap(long)

    singletons = await interleave(
        setting.pick(3, 2),
        {
            "anyload": partial(all_four, partial(load, load_singleton=True)),
            "caikit": partial(
                all_four,
                lambda path: run_sync(
                    partial(caikit.load, path, load_singleton=True, initializer=theirs)
                ),
            ),
        },
    )
    gaps = await interleave(
        setting.pick(2, 2),
        {
            "loading": partial(gap_while, partial(load, heavy)),
            "control": partial(gap_while, anyio.lowlevel.checkpoint),
        },
    )
    loading, control = (1e3 * median(gaps[name]) for name in ("loading", "control"))
    shown = f"worst {1e3 * max(gaps['loading']):.1f} ms / without a load {control:.1f} ms"
    what = f"longest gap of a 10 ms beat, a load of {long:g} s"
    return [
        compared(
            f"four singletons of {short:g} s", 0.35, singletons, "anyload", "caikit", (1, "s")
        ),
        Row(what, loading, 50, shown, "ms"),
        side_by_side(
            "caikit_loads", f"four singletons of {short:g} s", singletons, "caikit", (1, "s")
        ),
    ]


def measure_init(setting: Setting) -> list[Row | Comparison]:
    """Measure what the initializer adds to a load, and what it leaves out of one that fails."""
    from caikit.core import ModuleConfig

    fails = modules()["fails"]
    logging.getLogger("LLOAD").setLevel(logging.ERROR)  # it warns of each load that fails
    number = setting.pick(500, 100)
    theirs = caikits()
    ways = {
        "no key": initializer(),
        "a key": initializer(max_concurrent_loads=4),
        "auto": initializer(argument="auto"),
        "caikit": theirs,
    }
    with TemporaryDirectory() as directory:
        works = ModuleConfig.load(model(directory, "works", "sleeps"))
        damaged = ModuleConfig.load(model(directory, "damaged", "fails"))

        def init(way: Any) -> float:
            began = perf_counter()
            for _ in range(number):
                way.init(works)
            return (perf_counter() - began) / number

        def calls_of(way: Any) -> int:
            before = fails.calls
            with suppress(ValueError):
                way.init(damaged)
            return int(fails.calls - before)

        times: Times = interleave_sync(
            setting.pick(15, 5), {name: partial(init, way) for name, way in ways.items()}
        )
        once, twice = calls_of(ways["auto"]), calls_of(theirs)
    return [
        compared("init of nothing, no key set", 1.2, times, "no key", "caikit"),
        compared("init of nothing, in a worker thread", None, times, "a key", "caikit"),
        Row("calls of a load that fails, argument: auto", once, 1, f"{once} / caikit {twice}"),
        side_by_side("caikit_init", "init of nothing", times, "caikit", US),
    ]
