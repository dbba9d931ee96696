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
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import trio
from trio._core import _run as trio_run
from trio.testing import MockClock, wait_all_tasks_blocked

from anyload import (
    AnyloadError,
    BulkLoadError,
    Initializer,
    LoadCancelled,
    LoadError,
    ModelConfig,
)
from anyload.events import AttemptEnded, Event, Failed, Loaded

from .checks import Checks
from .fibers import TICK, Machine, on_tick
from .requests import FOR_EVER, SPAN, Request, draw
from .threads import in_fibers, own_process
from .world import HOMES, STALL_TIMEOUT, TIMEOUT, Visit, World

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
    requests: list[Request]
    steps: int
    seconds: float

    @property
    def digest(self) -> str:
        """A hash of all that happened, in order."""
        return hashlib.sha256("\n".join(self.trace).encode()).hexdigest()


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
        self.world.nest = self._nest
        self.requests = draw(self._dice.getrandbits(32), size)
        for request in self.requests:
            if cancelled is not None and request.number not in cancelled:
                request.patience = FOR_EVER
        self._left = size
        self._all_ended = trio.Event()
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
                    callers.start_soon(self._ask, request)
                if not self._calm:
                    callers.start_soon(self._change_the_budget)
                    callers.start_soon(
                        self._close, HOMES[0], on_tick(SPAN * self._dice.uniform(0.6, 1.0))
                    )
                    callers.start_soon(self._close, HOMES[1], SPAN)
                await self._all_ended.wait()
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

    # Callers

    def _names(self, request: Request) -> list[str]:
        return [str(self._root / request.home / model) for model in request.models]

    async def _ask(self, request: Request) -> None:
        await trio.sleep_until(request.at)
        self.world.note("asks", request)
        if request.how == "thread":
            self.machine.spawn(partial(self._ask_in_thread, request))
            return
        with trio.move_on_after(request.patience) as scope:
            try:
                request.waiting = True
                await self._call(request)
            except AnyloadError as error:
                self._end(request, self._told(error))
            finally:
                request.waiting = False
        if scope.cancelled_caught:
            self._end(request, "cancelled")

    async def _call(self, request: Request) -> None:
        initializer, names = self._homes[request.home], self._names(request)
        options: dict[str, Any] = {"priority": request.priority}
        if request.variant:
            options["variant"] = request.variant
        match request.how:
            case "plan":
                await initializer.plan(names[0])
                self._end(request, "a plan")
            case "many" | "fail fast":
                fail_fast = request.how == "fail fast"
                got = await initializer.init_many(names, fail_fast=fail_fast, **options)
                self._take(*got.values())
                self.checks.expect(list(got) == names, f"I22: {request} came in another order")
                self._end(request, "all")
            case "each" | "some":
                came = []
                async with initializer.init_each(names, **options) as outcomes:
                    async for outcome in outcomes:
                        came.append(str(outcome.model))
                        if outcome.value is not None:
                            self._take(outcome.value)
                        await trio.sleep(TICK)
                        if request.how == "some" and len(came) == 2:
                            break
                    else:
                        whole = sorted(came) == sorted(names)
                        self.checks.expect(whole, f"I22: {request} came to {came}")
                self._end(request, "outcomes")
            case _:
                self._take(value := await initializer.init(names[0], **options))
                self._end(request, f"loaded on {value.backend}")

    def _ask_in_thread(self, request: Request) -> None:
        self._load_sync(request, suppress=True)

    def _nest(self, visit: Visit, dice: random.Random) -> None:
        """Load another model inside a load."""
        (request,) = draw(dice.getrandbits(32), 1)
        request.number, request.at, request.how = len(self.requests), self.machine.now(), "nested"
        del request.models[1:]
        if dice.random() < 0.5:  # one that is being loaded, perhaps the very same
            other = dice.choice(list(self.world.visits))
            request.home, request.models = other.home, [other.path.name]
            request.variant = other.variant
        request.patience = dice.choice([FOR_EVER, FOR_EVER, 1.0])
        self.requests.append(request)
        self.world.note("inside", visit.name, "asks", request)
        self._load_sync(request, suppress=dice.random() < 0.5)

    def _load_sync(self, request: Request, *, suppress: bool) -> None:
        initializer, (name,) = self._homes[request.home], self._names(request)
        kwargs = {"variant": request.variant} if request.variant else {}
        timeout = None if math.isinf(request.patience) else request.patience
        request.waiting = True
        try:
            value = initializer.init_sync(name, timeout=timeout, **kwargs)
        except AnyloadError as error:
            self._end(request, self._told(error))
            if not suppress:
                raise
        except (TimeoutError, LoadCancelled):
            self._end(request, "cancelled")
            if not suppress:
                raise
        else:
            self._take(value)
            self._end(request, f"loaded on {value.backend}")
        finally:
            request.waiting = False

    def _take(self, *values: Any) -> None:
        for value in values:
            value.given += 1
            self.checks.expect(not value.late, f"I10: a caller got {value}, which came late")

    def _told(self, error: AnyloadError) -> str:
        if isinstance(error, BulkLoadError):
            self._take(*error.models.values())
        tried = ""
        if isinstance(error, LoadError):
            tried = " ".join(f"{one.backend} {one.outcome}" for one in error.attempts)
        return f"{type(error).__name__} {tried}".strip()

    def _end(self, request: Request, outcome: str) -> None:
        request.waiting = False
        request.outcomes.append(outcome)
        request.ended_at = self.machine.now()
        self.world.note("ends", request, outcome)
        self._left -= request.how != "nested"
        if self._left == 0:
            self.machine.tell(self._all_ended)

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
    collecting = gc.isenabled()
    gc.disable()  # when it comes by is no function of the seed
    try:
        with logged_errors() as logged:
            crash = _crash_of(player.play)
    finally:
        if collecting:
            gc.enable()
    wrong = [*player.checks.wrong, *player.machine.complaints, *logged, *crash]
    return Played(
        seed,
        player.world.trace,
        wrong,
        player.requests,
        player.machine.steps,
        player.machine.now(),
    )


def _crash_of(call: Callable[[], object]) -> list[str]:
    crashes: list[str] = []
    try:
        call()
    except* Wrong:
        pass
    except* Exception as crash:
        crashes += ["".join(traceback.format_exception(error)) for error in crash.exceptions]
    return crashes
