"""A seeded scene of many loads in real threads, and all that was seen of it: who, when, what."""

from __future__ import annotations

import gc
import logging
import os
import random
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import accumulate
from pathlib import Path
from typing import Any

import anyio
from anyio import create_task_group, get_running_tasks, move_on_after, sleep
from anyio.abc import TaskGroup
from calls import two_backends
from scenes import Caller, model_on_disk, registry_of

from anyload import Initializer, LoadError, ModelConfig, Registry, report_progress
from anyload.events import Event
from anyload.reports import Statistics
from anyload.testing import (
    FakeModel,
    Gate,
    raises,
    returns,
    returns_at_once,
    settled,
    until,
    waits_at,
)

SLOTS, MOST_ABANDONED = 3, 2
PRIORITY = [{"type": "GPU", "stall_timeout": 0.06}, {"type": "LOCAL", "timeout": 0.5}]
GROUP = "group of the invariants"
HOMES = ("one", "two")
BATCHES, REQUESTS = 4, 30

WHAT: dict[str, tuple[str | None, str, dict[str, Any]]] = {
    "quick": (None, "returns", {}),
    "falls back": ("raises", "returns", {}),
    "raises": ("exits", "raises", {}),
    "declines": ("declines", "declines", {}),
    "foreign": (None, "returns a coroutine", {}),
    "reports": ("reports", "returns", {}),
    "hangs": ("hangs", "returns", {}),
    "grouped": (None, "returns", {"exclusive_group": GROUP}),
    "grouped, hangs": ("hangs", "returns", {"exclusive_group": GROUP}),
}
"""The modules: what each does on GPU and on LOCAL, and its attributes."""

STUCK_GROUP = "grouped, hangs 1"
HANGING = ["hangs 1", "hangs 2", "hangs 3"]
MODELS = [
    *("quick 1", "quick 2", "quick 3", "falls back 1", "raises 1", "declines 1", "foreign 1"),
    *("reports 1", "grouped 1", "grouped 2", *HANGING),
]


@dataclass
class Visit:
    """A thread's time in a module's load; ``model`` is the path, which is the key too."""

    model: str
    group: str | None
    entered: float
    left: float = float("inf")
    hung: bool = False
    made: FakeModel | None = None

    @property
    def home(self) -> str:
        """The initializer that it is of."""
        return Path(self.model).parent.name


@dataclass
class Request:
    """One `init`, or one model of a bulk, and all that it ended in."""

    model: str
    outcomes: list[str] = field(default_factory=list)
    value: Any = None
    error: BaseException | None = None


@dataclass
class Scene:
    """What was seen; lists by initializer are in the order of `HOMES`."""

    visits: list[Visit] = field(default_factory=list)
    requests: list[Request] = field(default_factory=list)
    bulks: list[tuple[list[str], list[str]]] = field(default_factory=list)
    events: list[list[Event]] = field(default_factory=lambda: [[] for _ in HOMES])
    samples: list[Statistics] = field(default_factory=list)
    closed: list[float] = field(default_factory=list)
    after_close: list[Request] = field(default_factory=list)
    at_close: list[Statistics] = field(default_factory=list)
    at_rest: list[Statistics] = field(default_factory=list)
    threads_at_close: tuple[int, int] = (0, 0)
    threads_at_end: int = 0
    footprints: list[tuple[int, bool, int]] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)
    hung: Gate = field(default_factory=Gate)

    @property
    def given(self) -> set[int]:
        """The identities of the models that callers received."""
        return {id(request.value) for request in self.requests if request.value is not None}

    def module(self, what: str, attributes: dict[str, Any]) -> type[FakeModel]:
        """Return a module that does this in each load, and writes down that it did."""
        scene = self

        class Logged(FakeModel):
            @classmethod
            def load(cls, config: ModelConfig, **kwargs: Any) -> Any:
                assert config.model_path is not None
                visit = Visit(config.model_path, cls.exclusive_group, time.monotonic())
                scene.visits.append(visit)
                try:
                    time.sleep(0.001)  # two loads that may overlap are to do so
                    if what == "returns a coroutine":
                        return nothing()
                    if scene.act(what, visit):
                        visit.made = cls(config, kwargs)
                    return visit.made
                finally:
                    visit.left = time.monotonic()

        for name, value in attributes.items():
            setattr(Logged, name, value)
        return Logged

    def act(self, what: str, visit: Visit) -> bool:
        """Do what a module does before it makes its model; return whether it makes one."""
        if what == "raises":
            raise ValueError("broken weights")
        if what == "exits":
            raise SystemExit("out of a load")
        if what == "hangs":
            # Its limit runs from here: each thread that it leaves behind does hang.
            report_progress()
            visit.hung = True
            self.hung.enter()
        if what == "reports":
            for step in range(5):
                report_progress(step / 5)
                time.sleep(0.001)
        return what != "declines"

    def registry(self) -> Registry:
        """Return a registry of the modules in `WHAT`."""
        registry = two_backends()
        for module_id, (gpu, local, attributes) in WHAT.items():
            if gpu is not None:
                registry.module(module_id, "GPU")(self.module(gpu, attributes))
            registry.module(module_id)(self.module(local, attributes))
        return registry


class Player:
    """Plays a scene, with two initializers, on models below a directory."""

    def __init__(self, scene: Scene, seed: int, root: Path) -> None:
        self._scene = scene
        self._dice = random.Random(seed)
        self._root = root
        registry = scene.registry()
        self._homes = {
            home: Initializer(
                registry,
                backend_priority=PRIORITY,
                max_concurrent_loads=SLOTS,
                max_abandoned_loads=MOST_ABANDONED,
                hooks=[partial(self._hear, home, scene.events[place].append)],
            )
            for place, home in enumerate(HOMES)
        }
        for home in HOMES:
            (root / home).mkdir()
            for model in (*MODELS, STUCK_GROUP):
                model_on_disk(root / home, model.rsplit(" ", 1)[0], model)

    def _hear(self, home: str, keep: Callable[[Event], None], event: Event) -> None:
        keep(event)
        self._scene.samples.append(self._homes[home].statistics())

    async def play(self) -> None:
        scene = self._scene
        before = our_threads()
        scene.footprints.append(footprint())
        for batch in range(BATCHES):
            async with create_task_group() as tasks:
                await self._ask_for_a_batch(tasks)
                if batch == BATCHES - 1:
                    await self._close(before)
            await self._let_go()
        scene.at_rest += [initializer.statistics() for initializer in self._homes.values()]
        await eventually(lambda: our_threads() <= before)
        scene.threads_at_end = len(our_threads() - before)
        scene.footprints.append(footprint())

    async def _ask_for_a_batch(self, tasks: TaskGroup) -> None:
        """Ask for much at once, and for more when the caps are reached: some load is overdue.

        The load that hangs in the group comes first, and is abandoned, or last, and is overdue.
        """
        first = self._dice.choice([None, *HOMES])
        if first is not None:
            self._ask(tasks, first, STUCK_GROUP, 60.0)
        for home in HOMES:
            for model in HANGING:
                self._ask(tasks, home, model, 60.0)
        await self._ask_at_random(tasks)
        await self._reach_the_caps(tasks)
        if first is None:
            self._ask(tasks, self._dice.choice(HOMES), STUCK_GROUP, 60.0)
        await self._ask_at_random(tasks)

    async def _reach_the_caps(self, tasks: TaskGroup) -> None:
        """Wait until both have an overdue load; where threads are slow, what hangs may be refused.

        Then it is asked for once more.
        """

        def overdue() -> bool:
            return all(each.statistics().overdue for each in self._homes.values())

        for _ in range(10):
            with move_on_after(2):
                return await until(overdue)
            for home in HOMES:
                for model in HANGING:
                    self._ask(tasks, home, model, 60.0)
        return await until(overdue)

    async def _ask_at_random(self, tasks: TaskGroup) -> None:
        for home in HOMES:
            models = [self._path(home, model) for model in self._dice.sample(MODELS, 8)]
            tasks.start_soon(self._bulk, home, models)
        for _ in range(REQUESTS):
            patience = self._dice.choice([60.0, 60.0, 60.0, self._dice.uniform(0.0, 0.02)])
            self._ask(tasks, self._dice.choice(HOMES), self._dice.choice(MODELS), patience)
            await sleep(self._dice.choice([0.0, 0.0, 0.001]))

    def _ask(self, tasks: TaskGroup, home: str, model: str, patience: float) -> None:
        request = Request(self._path(home, model))
        self._scene.requests.append(request)
        tasks.start_soon(self._call, home, request, patience)

    def _path(self, home: str, model: str) -> str:
        """Return the path of a model, in one of two spellings."""
        return str(self._root / home / model) + self._dice.choice(["", "/"])

    async def _let_go(self) -> None:
        """Let what hangs come back: too late, as every request has ended."""
        gate, self._scene.hung = self._scene.hung, Gate()
        gate.open()
        for initializer in self._homes.values():
            await settled(initializer)

    async def _call(self, home: str, request: Request, patience: float) -> None:
        with move_on_after(patience) as scope:
            try:
                request.value = await self._homes[home].init(request.model)
                request.outcomes.append("value")
            except Exception as error:
                request.error = error
                request.outcomes.append("error")
        if scope.cancelled_caught:
            request.outcomes.append("cancelled")

    async def _bulk(self, home: str, models: list[str]) -> None:
        came: list[str] = []
        self._scene.bulks.append((models, came))
        async for outcome in self._homes[home].init_each(models):
            came.append(str(outcome.model))
            ended = ["error"] if outcome.error else ["value"]
            request = Request(came[-1], ended, outcome.value, outcome.error)
            self._scene.requests.append(request)

    async def _close(self, before: set[threading.Thread]) -> None:
        scene = self._scene
        for home, initializer in self._homes.items():
            await initializer.aclose(grace=0.02)
            scene.at_close.append(initializer.statistics())
            scene.closed.append(time.monotonic())
            request = Request(self._path(home, "quick 1"))
            scene.after_close.append(request)
            await self._call(home, request, 60.0)

        def threads() -> tuple[int, int]:
            abandoned = sum(each.statistics().abandoned for each in self._homes.values())
            return len(our_threads() - before), abandoned

        await eventually(lambda: len(set(threads())) == 1)
        scene.threads_at_close = threads()


async def nothing() -> None: ...


def our_threads() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name.startswith("anyload")}


def most_at_once(visits: Iterable[Visit]) -> int:
    """Return how many visits overlapped at most."""
    steps = sorted(step for visit in visits for step in ((visit.entered, 1), (visit.left, -1)))
    return max(accumulate(step for _, step in steps))


async def eventually(condition: Callable[[], bool]) -> None:
    """Wait until a condition holds, but leave it to a test to say that it did not."""
    with move_on_after(4):  # less than what ends an idle thread anyhow
        await until(condition)


def footprint() -> tuple[int, bool, int]:
    """Return how many open files there are, whether child processes, and how many tasks."""
    files = len(os.listdir("/proc/self/fd")) if sys.platform.startswith("linux") else 0
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        children = True
    except ChildProcessError:
        children = False
    return files, children, len(get_running_tasks())


@contextmanager
def complaints() -> Iterator[list[str]]:
    """Collect what nobody is there to catch: errors nobody asked for, resources left open."""
    heard: list[str] = []

    class Listens(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            heard.append(record.getMessage())

    listener, logger = Listens(logging.ERROR), logging.getLogger("asyncio")
    hooks = sys.unraisablehook, threading.excepthook
    gc.collect()  # what earlier tests left is not ours
    logger.addHandler(listener)
    sys.unraisablehook = lambda unraisable: heard.append(repr(unraisable.exc_value))
    threading.excepthook = lambda args: heard.append(repr(args.exc_value))
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            yield heard
            gc.collect()
        heard += [repr(warning.message) for warning in caught]
    finally:
        sys.unraisablehook, threading.excepthook = hooks
        logger.removeHandler(listener)


def play(seed: int, root: Path, backend: str, options: dict[str, Any]) -> Scene:
    """Play the scene on this kind of loop, and return what was seen."""
    scene = Scene()

    async def main() -> None:
        await Player(scene, seed, root).play()

    with complaints() as heard:
        anyio.run(main, backend=backend, backend_options=options)
    scene.complaints = heard
    return scene


async def outcomes_of(seed: int, *, cancelling: bool) -> dict[int, Any]:
    """Play a smaller scene, and return what those got who are in no run of this seed cancelled."""
    dice, gate, stuck = random.Random(seed), Gate(), Gate()
    modules: dict[str, type] = {
        "first": waits_at(gate),
        "quick": returns_at_once(),
        "raises": raises(lambda: ValueError("no")),
        "declines": returns(None),
        "hangs": returns_at_once(),
    }
    registry = registry_of(**modules)
    registry.module("hangs", "GPU")(waits_at(stuck))
    models = [dice.choice(list(modules)) for _ in range(40)]
    leaving = [number for number in range(40) if dice.random() < 0.5]
    priority = [{"type": "GPU", "timeout": 0.05}, {"type": "LOCAL"}]
    async with (
        Initializer(registry, backend_priority=priority, max_concurrent_loads=1) as initializer,
        create_task_group() as tasks,
    ):
        Caller(tasks, initializer, ModelConfig("first"), key="first")
        await gate.entered()
        callers = [Caller(tasks, initializer, ModelConfig(model), key=model) for model in models]
        await until(lambda: initializer.statistics().waiters == len(callers) + 1)
        if cancelling:
            for number in leaving:
                await callers[number].cancel()
        gate.open()
        got: dict[int, Any] = {}
        for number in set(range(len(callers))) - set(leaving):
            caller = callers[number]
            await until(lambda: caller.value is not None or caller.error is not None)  # noqa: B023
            if isinstance(caller.error, LoadError):
                attempts = caller.error.attempts
                got[number] = [(attempt.backend, attempt.outcome) for attempt in attempts]
            else:
                got[number] = (caller.value.config.module_id, caller.value.released)
        stuck.open()
        await settled(initializer)
    return got
