"""What ``anyload doctor`` does with one model, in a process that it has to itself."""

from __future__ import annotations

import contextlib
import gc
import os
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from types import MappingProxyType
from typing import Any

from anyio import create_task_group, sleep

from ._probes import TICK_SECONDS, Footprint, Heartbeat, Watch, footprint, told
from ._setup import extended
from .config import load_config
from .doctor import Alone, Together, gil_of
from .errors import AnyloadError, describe
from .events import Event, Failed, Hook, Loaded, Started
from .initializer import Initializer
from .model_config import ModelConfig
from .registry import Implementation, Registry

MOST_LOADS = 5
"""How often a model is loaded alone, after a first time."""
ALONE_SECONDS = 20.0
"""After this long, no further load of a model alone begins."""
ROUNDS_SECONDS = 60.0
"""After this long, no further round of loads side by side begins."""
LARGE = 1 << 30
"""From this size on, in bytes, two loads run side by side instead of four."""
SWITCH_SECONDS = 0.0001
"""How often threads take turns in Python code, far more often than usual: loads meet in few rounds
what they would meet in many, and the event loop waits only for those who really hold the GIL."""
MOST_TOLD = 4

# What a first load may change for good, as the imports do that it makes.
BY_IMPORTS = ("the environment", "the warnings filters")

Ended = Loaded | Failed


class NotLoadedError(AnyloadError):
    """The model cannot be loaded even alone; the text says why."""


# The two examinations


async def examine_alone(source: str, name: str, model: str, limit: float) -> Alone:
    """Load a model several times, one after another, as its module declares it.

    Args:
        source: the configuration.
        name: which of its initializers.
        model: the model.
        limit: how long this may take, in seconds; it stops in time by itself.

    Raises:
        NotLoadedError: it did not load.
    """
    sys.setswitchinterval(SWITCH_SECONDS)
    began, heartbeat = time.monotonic(), Heartbeat()
    loads = Loads(source, name, model, declared=True)
    async with create_task_group() as tasks:
        tasks.start_soon(heartbeat.beat)
        heartbeat.listen()
        values, first = await loads.one()
        first_gap, first_stopped = heartbeat.longest(), heartbeat.stopped()
        loaded = footprint()
        release(values)
        released = footprint()
        implementation = await loads.implementation(first)
        watch, changes = Watch(loads.registry), told(first.report.observed.changes)
        for name_ in BY_IMPORTS:
            changes.pop(name_, None)
        seconds, gaps, stopped = list[float](), list[float](), list[float]()
        took = first.report.load_seconds
        for _ in range(MOST_LOADS):
            elapsed = time.monotonic() - began
            if elapsed + took > limit / 2 or (seconds and elapsed > ALONE_SECONDS):
                break
            heartbeat.listen()
            values, ended = await loads.one()
            gaps.append(heartbeat.longest())
            stopped.append(heartbeat.stopped())
            seconds.append(ended.report.load_seconds)
            changes.update(told(ended.report.observed.changes))
            release(values)
        after = footprint()
        tasks.cancel_scope.cancel()
    changes.update(watch.changes())
    before = loads.before
    return Alone(
        module_id=str(first.report.module_id),
        backend=str(first.report.backend),
        implementation=implementation.name,
        exclusive_group=implementation.exclusive_group,
        holds_gil=implementation.holds_gil,
        prepare_seconds=first.report.queue_seconds,
        first_seconds=took,
        load_seconds=tuple(seconds or [took]),
        gaps=tuple(gaps or [first_gap]),
        gil=gil_of(stopped or [first_stopped], seconds or [took]),
        memory_before=before and before.memory,
        memory_loaded=loaded.memory,
        memory_released=released.memory,
        threads_left=after.threads - released.threads,
        files_left=_difference(after.files, released.files),
        changes=_first(changes),
    )


async def examine_together(
    source: str, name: str, model: str, limit: float, rounds: int
) -> Together:
    """Load a model several times at once, as if its module declared nothing.

    It ends with the first round that something is wrong with, and loads it alone once more.

    Args:
        source: the configuration.
        name: which of its initializers.
        model: the model.
        limit: how long this may take, in seconds; it begins no round that it could not end.
        rounds: how often to do so.

    Raises:
        NotLoadedError: it did not load alone, which comes first.
    """
    sys.setswitchinterval(SWITCH_SECONDS)
    deadline = time.monotonic() + min(ROUNDS_SECONDS, limit / 2)
    loads, usual = Loads(source, name, model, declared=False), Usual()
    for _ in range(2):  # a first load may do what later ones do not
        values, ended = await loads.one()
        usual.take(values[0], ended)
        size = loads.size(ended)
        release(values)
    watch = Watch(loads.registry)
    at_once, count = 2 if size >= LARGE else 4, 0
    errors, wrong, changes = Counter[str](), Counter[str](), dict[str, str]()
    for _ in range(rounds):
        values, all_ended = await loads.several(at_once)
        errors.update(what for ended in all_ended for what in usual.errors(ended))
        wrong.update(what for value in values for what in usual.unlike(value))
        release(values)
        count += at_once
        changes = watch.changes()
        if errors or wrong or changes or time.monotonic() > deadline:
            break
    values, all_ended = await loads.several(1)
    afterwards = [what for ended in all_ended for what in usual.errors(ended)]
    afterwards += [what for value in values for what in usual.unlike(value)]
    release(values)
    return Together(
        loads=count,
        at_once=at_once,
        errors=_counted(errors, count),
        wrong=_counted(wrong, count),
        changes=_first(changes),
        afterwards=tuple(afterwards),
    )


# Loading


class Loads:
    """Loads of one model, without the limits that the configuration sets.

    Args:
        source: the configuration.
        name: which of its initializers.
        model: the model.
        declared: whether what the modules declare counts; what a load leaves changed is then put
            back, as in a server.
        hooks: hear of each load too.
    """

    def __init__(
        self,
        source: str,
        name: str,
        model: str,
        *,
        declared: bool,
        hooks: Sequence[Hook] = (),
    ) -> None:
        registry = Registry.discover()
        config = load_config(
            source, name=name, environ=os.environ, known_types=registry.backend_types
        )
        self.config = config
        self.registry = extended(registry, config, source)
        unlimited = {"timeout": None, "stall_timeout": None}
        config = config.model_copy(
            update={
                "backend_priority": tuple(
                    entry.model_copy(update=unlimited) for entry in config.backend_priority
                ),
                "backend_types": {},
                "guard": "all" if declared else "off",
                "load_timeout": None,
                "max_concurrent_loads": 4,
                "modules": {},
                "prepare_timeout": None,
            }
        )
        self.before: Footprint | None = None
        """What the process had when the first load began, its imports done."""
        self._ended: list[Ended] = []
        self._model = model
        self._number = 0
        self._initializer = Initializer.from_config(
            config,
            registry=self.registry if declared else Undeclared(self.registry),
            hooks=[*hooks, self._hear],
        )

    def _hear(self, event: Event) -> None:
        if isinstance(event, Started) and self.before is None:
            self.before = footprint()
        elif isinstance(event, Ended):
            self._ended.append(event)

    async def one(self) -> tuple[list[Any], Loaded]:
        """Load it alone; return it, in a list, and how that went.

        Raises:
            NotLoadedError: it did not load.
        """
        values, (ended,) = await self.several(1)
        if isinstance(ended, Failed):
            raise NotLoadedError(ended.error)
        return values, ended

    async def several(self, number: int) -> tuple[list[Any], list[Ended]]:
        """Load it several times at once; return those that loaded, and how each load went."""
        values: list[Any] = []
        self._ended.clear()

        async def load(key: int) -> None:
            with contextlib.suppress(AnyloadError):  # the event says the same
                values.append(await self._initializer.init(self._model, key=key))

        async with create_task_group() as tasks:
            for _ in range(number):
                self._number += 1  # a key of its own makes it a load of its own
                tasks.start_soon(load, self._number)
        while True:  # an event may come after the value
            if len(self._ended) == number:
                return values, list(self._ended)
            await sleep(TICK_SECONDS)

    async def implementation(self, ended: Loaded) -> Implementation:
        """Return the implementation that has loaded it."""
        plan = await self._initializer.plan(self._model)
        return next(
            candidate.implementation
            for candidate in plan.candidates
            if candidate.backend_type == ended.report.backend
        )

    def size(self, ended: Loaded) -> int:
        """Return the bytes that it takes, while it is in memory."""
        here, before = footprint().memory, self.before and self.before.memory
        return max(ended.report.observed.memory_bytes or 0, _difference(here, before) or 0)


@dataclass(frozen=True, slots=True, eq=False)
class UndeclaredImplementation(Implementation):
    """An implementation that declares nothing, whatever its class says."""

    def of(self, config: ModelConfig) -> Implementation:
        """Return the one that loads this model, which declares nothing either."""
        return _undeclared(Implementation.of(self, config))


class Undeclared(Registry):
    """What another registry knows, with neither groups nor ``holds_gil``.

    Args:
        declared: the other registry.
    """

    def __init__(self, declared: Registry) -> None:
        super().__init__()
        for backend_type in declared.backend_types.values():
            self.backend_type(backend_type)
        self._declared = declared

    @property
    def modules(self) -> Mapping[str, Mapping[str, Implementation]]:
        """The implementations, by module id and backend type."""
        return {module_id: self.implementations(module_id) for module_id in self._declared.modules}

    def implementations(self, module_id: str) -> Mapping[str, Implementation]:
        """Return a module's implementations by backend type."""
        known = self._declared.implementations(module_id)
        return MappingProxyType({name: _undeclared(one) for name, one in known.items()})

    def accepted_types(self, module_id: str) -> tuple[type, ...]:
        """Return the classes of which a loaded model must be an instance."""
        return self._declared.accepted_types(module_id)


def _undeclared(known: Implementation) -> Implementation:
    values = {one.name: getattr(known, one.name) for one in fields(known) if one.init}
    without: dict[str, Any] = {"exclusive_group": None, "holds_gil": False, "resources": ()}
    return UndeclaredImplementation(**{**values, **without})


def release(values: list[Any]) -> None:
    """Give models back, and empty the list.

    Raises:
        NotLoadedError: a release raised.
    """
    while values:
        give_back = getattr(values.pop(), "release", None)
        if callable(give_back):
            try:
                give_back()
            except Exception as error:
                raise NotLoadedError(f"its release raised {describe(error)}") from error
        del give_back
    gc.collect()


class Usual:
    """How loads of a model end that are alone, and what they give."""

    def __init__(self) -> None:
        self._outcomes: set[tuple[str, str]] = set()
        self._likenesses: dict[str, None] = {}

    def take(self, value: Any, ended: Loaded) -> None:
        """Take note of one."""
        self._outcomes |= {(one.backend, one.outcome) for one in ended.report.attempts}
        self._likenesses[likeness(value)] = None

    def errors(self, ended: Ended) -> list[str]:
        """Return what a load came to that those do not."""
        attempts = ended.report.attempts
        if isinstance(ended, Failed) and not attempts:
            return [_first_line(ended.error)]
        return [
            _first_line(one.reason or one.outcome)
            for one in attempts
            if (one.backend, one.outcome) not in self._outcomes
        ]

    def unlike(self, value: Any) -> list[str]:
        """Return what a model is, if none of those is such a one."""
        found = likeness(value)
        if found in self._likenesses:
            return []
        return [f"{found}, where a load alone gives {' or '.join(self._likenesses)}"]


def likeness(value: Any) -> str:
    """Return what can be told cheaply of a model: for torch, of what types its weights are."""
    text = type(value).__qualname__
    parameters = getattr(value, "parameters", None)
    if not callable(parameters):
        parameters = getattr(getattr(value, "model", None), "parameters", None)
    if not callable(parameters):
        return text
    try:
        kinds = Counter(
            f"{str(one.dtype).removeprefix('torch.')} on {one.device}" for one in parameters()
        )
    except Exception:  # no torch module, then
        return text
    weights = ", ".join(f"{number} {kind}" for kind, number in sorted(kinds.items()))
    return f"{text} with {weights or 'nothing'}"


def _first(changes: Mapping[str, str]) -> tuple[str, ...]:
    texts = list(changes.values())
    more = len(texts) - MOST_TOLD
    return (*texts[:MOST_TOLD], *([f"{more} more"] if more > 0 else []))


def _counted(found: Counter[str], total: int) -> tuple[str, ...]:
    return tuple(f"{number} of {total}: {what}" for what, number in found.most_common(MOST_TOLD))


def _difference(after: int | None, before: int | None) -> int | None:
    return None if after is None or before is None else after - before


def _first_line(text: str) -> str:
    return text.partition("\n")[0][:300]
