"""Plays a seed: callers on trio and in threads, in virtual time, until all is at rest."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import trio

from anyload import Initializer, ModelConfig
from anyload.events import AttemptEnded, Event, Failed, Loaded

from .callers import Callers
from .checks import Checks
from .fibers import on_tick
from .requests import FOR_EVER, SPAN, draw
from .stage import REQUESTS, Played, Stage
from .threads import in_fibers, own_process
from .world import HOMES, STALL_TIMEOUT, TIMEOUT, World

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


class Player(Stage):
    """Plays one seed.

    Args:
        seed: what everything is drawn from.
        root: where the models are.
        size: how many requests.
        calm: whether outcomes are to depend on nothing but the seed; then nothing is closed
            before the last request has ended.
        cancelled: which requests are cancelled; by default those that the seed says.
        on_lines: see `Stage`.
    """

    checks: Checks

    def __init__(
        self,
        seed: int,
        root: Path,
        size: int,
        *,
        calm: bool = False,
        cancelled: Collection[int] | None = None,
        on_lines: bool = False,
    ) -> None:
        super().__init__(seed, f"initializers {seed}", on_lines=on_lines)
        self._root = root
        self._calm = calm
        self.world = World(self.machine, seed, calm=calm)
        self.requests = draw(self._dice.getrandbits(32), size)
        for request in self.requests:
            if cancelled is not None and request.number not in cancelled:
                request.patience = FOR_EVER
        self._budget = Budget()

    @contextmanager
    def put_up(self) -> Iterator[None]:
        """Put up two initializers that share a process."""
        with in_fibers(self.machine, own_process()):
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
            self.checks = checks = Checks(self.machine, self.world, self._homes, self.requests)
            self._callers = Callers(
                self.machine, self.world, checks, self._homes, self._root, self.requests
            )
            self.world.nest = self._callers.nest
            self.world.ask_whether_wanted = checks.ask_whether_wanted
            yield

    async def act(self) -> None:
        """Have callers ask, and close both initializers: under way, or when all have ended."""
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


def play(seed: int, root: Path, *, size: int = REQUESTS, on_lines: bool = False) -> Played:
    """Play a seed, with models that `make_models` has made below a directory."""
    return Player(seed, root, size, on_lines=on_lines).play()
