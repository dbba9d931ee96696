"""Plays a seed: callers on trio and in threads, in virtual time, until all is at rest."""

from __future__ import annotations

import gc
import hashlib
import logging
import math
import random
import traceback
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Protocol
from unittest import mock

import trio
from trio._core import _run as trio_run
from trio.testing import MockClock, wait_all_tasks_blocked

from anyload import Initializer, ModelConfig
from anyload.events import AttemptEnded, Event, Failed, Loaded

from .callers import Callers
from .checks import Checks
from .fibers import Machine, on_tick
from .requests import FOR_EVER, SPAN, Request, draw
from .threads import in_fibers, own_process
from .world import HOMES, STALL_TIMEOUT, TIMEOUT, World

REQUESTS = 300
TOO_LONG = 10_000.0

OPTIONS: dict[str, Any] = {
    "backend_priority": [
        {"type": "GPU", "timeout": TIMEOUT, "stall_timeout": STALL_TIMEOUT},
        {"type": "NPU"},
        {"type": "LOCAL", "timeout": 4 * TIMEOUT},
    ],
}
ROUGH_OPTIONS = {
    **OPTIONS,
    "max_concurrent_loads": 3,
    "max_abandoned_loads": 2,
    "load_timeout": 9.0,
    "prepare_timeout": 0.75,
    "release_timeout": 1.0,
}
CALM_OPTIONS = {**OPTIONS, "max_concurrent_loads": 3, "max_abandoned_loads": 1024}


@dataclass
class Played:
    """What was seen of a seed."""

    seed: int
    trace: list[str]
    wrong: list[str]
    steps: int
    seconds: float
    requests: list[Request] = field(default_factory=list)

    @property
    def digest(self) -> str:
        """A hash of all that happened, in order."""
        return hashlib.sha256("\n".join(self.trace).encode()).hexdigest()


class Wrongs(Protocol):
    """Checks that have noted what is wrong."""

    wrong: list[str]


class Plays(Protocol):
    """What plays one seed."""

    machine: Machine

    @property
    def world(self) -> World: ...

    @property
    def checks(self) -> Wrongs: ...

    def play(self) -> None: ...


class Player:
    """Plays one seed.

    Args:
        seed: what everything is drawn from.
        root: where the models are.
        size: how many requests.
        calm: whether outcomes are to depend on nothing but the seed; then nothing is closed
            before the last request has ended.
        cancelled: which requests are cancelled; by default those that the seed says.
    """

    def __init__(
        self,
        seed: int,
        root: Path,
        size: int,
        *,
        calm: bool,
        cancelled: Collection[int] | None,
    ) -> None:
        self._dice = random.Random(seed)
        self._root = root
        self._calm = calm
        self._clock = MockClock()
        self.process = own_process()
        self.machine = Machine(self._dice.getrandbits(32), self._clock)
        self.world = World(self.machine, seed, calm=calm)
        self.requests = draw(self._dice.getrandbits(32), size)
        for request in self.requests:
            if cancelled is not None and request.number not in cancelled:
                request.patience = FOR_EVER
        self._budget = Budget()

    def play(self) -> None:
        """Play it."""
        order = random.Random(self._dice.getrandbits(32))
        with (
            in_fibers(self.machine, self.process),
            mock.patch.object(trio_run, "_ALLOW_DETERMINISTIC_SCHEDULING", True),
            mock.patch.object(trio_run, "_r", order),
        ):
            registry = self.world.registry()
            self._homes = {
                home: Initializer(
                    registry,
                    hooks=[partial(self._hear, home)],
                    admission=None if self._calm or home == HOMES[0] else self._budget,
                    **(CALM_OPTIONS if self._calm else ROUGH_OPTIONS),
                )
                for home in HOMES
            }
            self.checks = Checks(self.machine, self.world, self._homes, self.requests)
            self._callers = Callers(
                self.machine, self.world, self.checks, self._homes, self._root, self.requests
            )
            self.world.nest = self._callers.nest
            self.world.ask_whether_wanted = self.checks.ask_whether_wanted
            self.machine.after_step = self.checks.after_step
            try:
                trio.run(self._main, clock=self._clock)
            finally:
                self.machine.end()

    async def _main(self) -> None:
        async with trio.open_nursery() as machinery:
            machinery.start_soon(self.machine.run)
            machinery.start_soon(self._keep_time)
            async with trio.open_nursery() as callers:
                for request in list(self.requests):
                    callers.start_soon(self._callers.ask, request)
                if not self._calm:
                    callers.start_soon(self._change_the_budget)
                    callers.start_soon(
                        self._close, HOMES[0], on_tick(SPAN * self._dice.uniform(0.6, 1.0))
                    )
                    callers.start_soon(self._close, HOMES[1], SPAN)
                await self._callers.all_ended.wait()
            if self._calm:
                for home in HOMES:
                    await self._close(home, 0.0)
            self.world.let_go()
            await trio.sleep(20)
            self.checks.at_the_end()
            machinery.cancel_scope.cancel()

    async def _keep_time(self) -> None:
        """Let time pass when nothing else can happen, and look at how things stand before that."""
        while True:
            await wait_all_tasks_blocked()
            self.checks.when_quiet()
            ahead = trio.lowlevel.current_statistics().seconds_to_next_deadline
            if math.isinf(ahead) or self.machine.now() > TOO_LONG:
                self.checks.stands_still()
            if self.checks.wrong:
                raise Wrong
            self._clock.jump(ahead)

    async def _change_the_budget(self) -> None:
        """Let the second initializer load less for a while, and more again."""
        for most in (1, 3, 0, 2, 3):
            await trio.sleep(on_tick(SPAN / 5 * self._dice.random()))
            self._budget.most = most
            self._homes[HOMES[1]].reconsider()

    def _hear(self, home: str, event: Event) -> None:
        what = type(event).__name__
        match event:
            case AttemptEnded(attempt=attempt):
                what += f" {attempt.backend} {attempt.outcome}"
            case Loaded(report=report) | Failed(report=report):
                self.checks.reported(event)
                what += f" {report.backend} {report.total_seconds:.4f}"
        self.world.note("event", what, f"{home}/{Path(event.model).name}")

    async def _close(self, home: str, at: float) -> None:
        await trio.sleep_until(at)
        grace = self._dice.choice([0.0, 0.5, 3.0, 10.0, 10.0])
        patience = self._dice.choice([FOR_EVER, FOR_EVER, 1.0])
        self.world.note("closes", home, grace, patience)
        self.checks.closes(home, min(grace, patience))
        with trio.move_on_after(patience):
            await self._homes[home].aclose(grace)
        self.world.note("closed", home)
        self.checks.closed(home)


class Budget:
    """An admission: how many loads may run, beside the slots."""

    def __init__(self) -> None:
        self.most = 3
        self._running = 0

    def may_start(self, config: ModelConfig, size: int) -> bool:
        return self._running < self.most

    def started(self, config: ModelConfig, size: int) -> None:
        self._running += 1

    def ended(self, config: ModelConfig, size: int) -> None:
        self._running -= 1


class Wrong(Exception):
    """Something was not as it must be; what, the checks know."""


@contextmanager
def logged_errors() -> Iterator[list[str]]:
    """Collect what is logged as an error that no module of the world has raised, and print none."""
    heard: list[str] = []

    class Listens(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.levelno >= logging.ERROR and not record.msg.startswith("release of"):
                heard.append(record.getMessage())

    logger, listener = logging.getLogger("anyload"), Listens()
    propagate = logger.propagate
    logger.addHandler(listener)
    logger.propagate = False
    try:
        yield heard
    finally:
        logger.propagate = propagate
        logger.removeHandler(listener)


def play(
    seed: int,
    root: Path,
    *,
    size: int = REQUESTS,
    calm: bool = False,
    cancelled: Collection[int] | None = None,
) -> Played:
    """Play a seed, with models that `make_models` has made below a directory."""
    player = Player(seed, root, size, calm=calm, cancelled=cancelled)
    played = see(player, seed)
    played.requests = player.requests
    return played


def see(player: Plays, seed: int) -> Played:
    """Have a player play its seed, and return what was seen of it."""
    collecting = gc.isenabled()
    gc.disable()  # when it comes by is no function of the seed
    try:
        with logged_errors() as logged:
            crash = _crash_of(player.play)
    finally:
        if collecting:
            gc.enable()
    wrong = [*player.checks.wrong, *player.machine.complaints, *logged, *crash]
    machine = player.machine
    return Played(seed, player.world.trace, wrong, machine.steps, machine.now())


def _crash_of(call: Callable[[], object]) -> list[str]:
    crashes: list[str] = []
    try:
        call()
    except* Wrong:
        pass
    except* Exception as crash:
        crashes += ["".join(traceback.format_exception(error)) for error in crash.exceptions]
    return crashes
