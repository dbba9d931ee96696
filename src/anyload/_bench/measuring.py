"""What ``anyload bench`` measures in a process that it has to itself."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from typing import Any

from anyio import create_task_group

from .._examination import Loads, release
from .._probes import Heartbeat, footprint
from .._retelling import timeline_of
from .._setup import extended, import_named
from .._tables import error_text
from ..config import InitializerConfig, load_config
from ..events import Event, Loaded, Prepared
from ..initializer import Initializer
from ..recorder import LATE_SECONDS
from ..registry import Registry
from ..timeline import Gap
from .disk import files_of, make_cold, seconds_to_read, size_of
from .samples import AloneSample, BulkSample, LoadSample, TogetherSample

GRACE_SECONDS = 2.0
MEMORY_SECONDS = 0.01
"""How often the memory is looked at while all models load."""


async def measure_alone(source: str, name: str, model: str) -> AloneSample:
    """Load a model three times: first, cold and warm.

    Args:
        source: the configuration.
        name: which of its initializers.
        model: the model.

    Raises:
        NotLoadedError: it did not load.
    """
    work, watch, steps = yardstick(), Watch(), Steps()
    config = config_of(source, name, Registry.discover())
    imports = sum(event.seconds for event in import_named(needed_by(model, config), source))
    loads = Loads(source, name, model, declared=True, hooks=[steps])
    files = files_of(path_of(config, model))
    async with create_task_group() as tasks:
        tasks.start_soon(watch.heartbeat.beat)

        async def load() -> tuple[list[Any], Loaded, LoadSample]:
            steps.clear()
            begun = Begun(watch)
            values, ended = await loads.one()
            return values, ended, begun.sample(ended, steps)

        not_cold = make_cold(files)
        values, ended, first = await load()
        first = replace(first, prepare_seconds=imports + first.prepare_seconds)
        loaded = footprint().memory
        release(values)
        released = footprint().memory
        cold = None
        not_cold = not_cold or make_cold(files)
        if size_of(files) and not not_cold:
            values, _, cold = await load()
            release(values)
        values, _, warm = await load()
        release(values)
        tasks.cancel_scope.cancel()
    return AloneSample(
        str(ended.report.module_id),
        str(ended.report.backend),
        size_of(files),
        not_cold,
        first,
        cold,
        warm,
        loads.before and loads.before.memory,
        loaded,
        released,
        work,
    )


async def measure_bulk(
    source: str, name: str, models: Sequence[str], at_once: Sequence[int], limit: float
) -> TogetherSample:
    """Load all models, again and again: once as configured, then with so many slots each.

    Args:
        source: the configuration.
        name: which of its initializers.
        models: the models; none for the whole catalogue.
        at_once: the numbers of slots, in the order in which to try them.
        limit: how long this may take, in seconds; it stops in time by itself.
    """
    began, work = time.monotonic(), yardstick()
    bulks = Bulks(source, name, models)
    not_cold, size = make_cold(bulks.files), size_of(bulks.files)
    disk = seconds_to_read(bulks.files) if size and not not_cold else None
    not_cold = not_cold or make_cold(bulks.files)
    samples = [await bulks.load(bulks.configured, cold=not not_cold, boot=True)]
    for slots, cold in product(at_once, (True, False) if size else (False,)):
        elapsed = time.monotonic() - began
        if elapsed + max(one.seconds for one in samples) > limit / 2:
            break
        if not (cold and make_cold(bulks.files)):
            samples.append(await bulks.load(slots, cold=cold, boot=False))
    return TogetherSample(not_cold, disk, size, tuple(samples), work)


def yardstick() -> float:
    """Return how long a fixed piece of work takes, in seconds.

    It is long enough for a neighbour to come in between: that is what it is to show.
    """
    began = time.perf_counter()
    sum(number * number for number in range(1_000_000))
    return time.perf_counter() - began


def config_of(source: str, name: str, registry: Registry) -> InitializerConfig:
    """Return a configuration as it is in this process."""
    types = registry.backend_types
    return load_config(source, name=name, environ=os.environ, known_types=types)


def needed_by(model: str, config: InitializerConfig) -> InitializerConfig:
    """Return a configuration without the modules of other models, as far as these are known."""
    entry = config.models.get(model)
    if entry is None:
        return config
    needed = {entry.module_id: config.modules.get(entry.module_id, {})}
    return config.model_copy(update={"modules": needed})


def path_of(config: InitializerConfig, model: str) -> str:
    """Return where a model is: as the catalogue says, else it is a path below the root."""
    entry = config.models.get(model)
    path = model if entry is None else entry.model_path
    return "" if path is None else os.path.join(config.model_root or "", path)


class Watch:
    """The event loop, tick by tick, and the memory."""

    def __init__(self) -> None:
        self.heartbeat = Heartbeat(self._ticked)
        self.listen()

    def listen(self) -> None:
        """Begin anew."""
        self.heartbeat.listen()
        self._gaps: list[float] = []
        self.late: list[Gap] = []
        self._looked = 0.0
        self.memory_before = self.memory_peak = footprint().memory

    def _ticked(self, now: float, gap: float) -> None:
        self._gaps.append(gap)
        if gap >= LATE_SECONDS:
            self.late.append((now - gap, now))
        if now - self._looked >= MEMORY_SECONDS:
            self._looked, memory = now, footprint().memory
            if memory is not None:
                self.memory_peak = max(memory, self.memory_peak or 0)

    def gaps(self) -> tuple[float, float]:
        """Return the longest one, and the 99th percentile."""
        longest = self.heartbeat.longest()
        gaps = sorted(self._gaps)
        return longest, gaps[int(0.99 * (len(gaps) - 1))]

    @property
    def memory_grown(self) -> int | None:
        """What the memory has grown by, at the most."""
        return _difference(self.memory_peak, self.memory_before)


class Steps:
    """A hook that adds up how long imports and starts of backends took."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self, event: Event) -> None:
        if isinstance(event, Prepared):
            self.seconds += event.seconds

    def clear(self) -> None:
        """Begin anew."""
        self.seconds = 0.0


class Begun:
    """How things stood when a load began.

    Args:
        watch: looks at the event loop.
    """

    def __init__(self, watch: Watch) -> None:
        self._watch = watch
        self._bytes = bytes_read()
        watch.listen()
        self._cpu = cpu_of_others()

    def sample(self, ended: Loaded, steps: Steps) -> LoadSample:
        """Return what has happened since, now that it has ended."""
        cpu, read = cpu_of_others() - self._cpu, bytes_read()
        longest, p99 = self._watch.gaps()
        warmed = ended.report.observed.warmup_seconds
        return LoadSample(
            steps.seconds,
            ended.report.load_seconds - (warmed or 0.0),
            warmed,
            cpu,
            longest,
            p99,
            _difference(read, self._bytes),
        )


def cpu_of_others() -> float:
    """Return the processor time of all threads but this one, in seconds."""
    return time.process_time() - time.thread_time()


def bytes_read() -> int | None:
    """Return how many bytes this process has had read from disk; None where nobody counts."""
    try:
        with open("/proc/self/io", encoding="ascii") as io:
            found = dict(line.split(": ") for line in io)
        return int(found["read_bytes"])
    except (OSError, KeyError, ValueError):
        return None


class Bulks:
    """Loads of all models.

    Args:
        source: the configuration.
        name: which of its initializers.
        models: the models; none for the whole catalogue.
    """

    def __init__(self, source: str, name: str, models: Sequence[str]) -> None:
        registry = Registry.discover()
        config = config_of(source, name, registry)
        memory_before, read_before = footprint().memory, bytes_read()
        self._imports = import_named(config, source)
        self._import_memory = _difference(footprint().memory, memory_before)
        self._import_bytes = _difference(bytes_read(), read_before)
        self._registry = extended(registry, config, source)
        # What these name is in the registry now.
        self._config = config.model_copy(update={"modules": {}, "backend_types": {}})
        models = self._models = models or tuple(config.models)
        self.configured = config.max_concurrent_loads
        paths = dict.fromkeys(path_of(config, model) for model in models)
        self.files = [file for path in paths for file in files_of(path)]

    async def load(self, at_once: int, *, cold: bool, boot: bool) -> BulkSample:
        """Load them, with so many slots, and give them back."""
        events, watch = list[Event](), Watch()
        config = self._config.model_copy(update={"max_concurrent_loads": at_once})
        initializer = Initializer.from_config(
            config, registry=self._registry, hooks=[events.append]
        )
        values, failed, queued = list[Any](), dict[str, str](), dict[str, float]()
        async with create_task_group() as tasks:
            tasks.start_soon(watch.heartbeat.beat)
            watch.listen()
            began, read_before = time.monotonic(), bytes_read()
            async with initializer.init_each(self._models) as outcomes:
                async for outcome in outcomes:
                    model = str(outcome.model)
                    queued[model] = sum(one.queue_seconds for one in outcome.report.attempts)
                    if outcome.error is None:
                        values.append(outcome.value)
                    else:
                        failed[model] = error_text(outcome.error)
            took = time.monotonic() - began
            longest, p99 = watch.gaps()
            grown, read = watch.memory_grown, _difference(bytes_read(), read_before)
            tasks.cancel_scope.cancel()
        del outcome
        release(values)
        await initializer.aclose(GRACE_SECONDS)  # by then the last event has come, too
        if boot and self._imports:
            took += sum(event.seconds for event in self._imports)
            grown, read = _sum(grown, self._import_memory), _sum(read, self._import_bytes)
            # As if nothing had been between the imports and the loads.
            later = began - self._imports[-1].at
            events[:0] = [replace(event, at=event.at + later) for event in self._imports]
        timeline = timeline_of(events, until=time.monotonic(), gaps=watch.late, watched=True)
        return BulkSample(
            at_once, cold, boot, took, failed, longest, p99, grown, read, queued, timeline
        )


def _sum(one: int | None, other: int | None) -> int | None:
    return None if one is None or other is None else one + other


def _difference(after: int | None, before: int | None) -> int | None:
    return None if after is None or before is None else after - before
