"""Where a seed is played: on trio in virtual time, in an order that the seed decides."""

from __future__ import annotations

import gc
import hashlib
import logging
import math
import os
import random
import traceback
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from unittest import mock

import trio
from trio._core import _run as trio_run
from trio.testing import MockClock, wait_all_tasks_blocked

from anyload import _keeping, _load

from .fibers import Machine
from .onlooker import Onlooker
from .world import World

REQUESTS = 300
TOO_LONG = 10_000.0


@dataclass
class Played:
    """What was seen of a seed."""

    seed: int
    trace: list[str]
    wrong: list[str]
    steps: int
    seconds: float

    @property
    def digest(self) -> str:
        """A hash of all that happened, in order."""
        return hashlib.sha256("\n".join(self.trace).encode()).hexdigest()


class Wrong(Exception):
    """Something was not as it must be; what, the checks know."""


class Stage(ABC):
    """Plays one seed.

    Args:
        seed: which.
        name: what everything is drawn from.
        on_lines: whether another thread may go first before any line of the core that is run
            without a lock, and not only where a lock is taken or given back.
    """

    world: World
    checks: Onlooker

    def __init__(self, seed: int, name: str, *, on_lines: bool = False) -> None:
        self._seed = seed
        self._dice = random.Random(name)
        self._clock = MockClock()
        code = tuple(map(os.path.dirname, (_load.__file__, _keeping.__file__))) if on_lines else ()
        self.machine = Machine(self._dice.getrandbits(32), self._clock, code)

    @abstractmethod
    @contextmanager
    def put_up(self) -> Iterator[None]:
        """Put up what is looked at, in fibers, and take it down again."""

    @abstractmethod
    async def act(self) -> None:
        """Do what the requests say, until all of them have ended."""

    def play(self) -> Played:
        """Play it, and return what was seen."""
        collecting = gc.isenabled()
        gc.disable()  # when it comes by is no function of the seed
        try:
            with logged_errors() as logged:
                crash = _crash_of(self._run)
        finally:
            if collecting:
                gc.enable()
        machine = self.machine
        wrong = [*crash, *machine.complaints, *logged]
        trace = list[str]()
        if hasattr(self, "checks"):  # else it crashed as it was put up
            wrong, trace = [*self.checks.wrong, *wrong], self.world.trace
        return Played(self._seed, trace, wrong, machine.steps, machine.now())

    def _run(self) -> None:
        order = random.Random(self._dice.getrandbits(32))
        with (
            self.put_up(),
            mock.patch.object(trio_run, "_ALLOW_DETERMINISTIC_SCHEDULING", True),
            mock.patch.object(trio_run, "_r", order),
        ):
            self.machine.after_step = self.checks.after_step
            try:
                with self.machine.switching_on_lines():
                    trio.run(self._main, clock=self._clock)
            finally:
                self.machine.end()

    async def _main(self) -> None:
        async with trio.open_nursery() as machinery:
            machinery.start_soon(self.machine.run)
            machinery.start_soon(self._keep_time)
            await self.act()
            self.world.let_go()
            await trio.sleep(20)
            with self.machine.undisturbed():
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


def _crash_of(call: Callable[[], object]) -> list[str]:
    crashes: list[str] = []
    try:
        call()
    except* Wrong:
        pass
    except* Exception as crash:
        crashes += ["".join(traceback.format_exception(error)) for error in crash.exceptions]
    return crashes
