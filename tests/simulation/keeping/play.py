"""Plays a seed of the repository: clients on trio and in threads, in virtual time."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from types import SimpleNamespace
from typing import Any
from unittest import mock

import trio

from anyload import ModelRepository
from anyload._keeping.catalogue import Catalogue
from anyload._keeping.core import KeepingCore
from anyload._keeping.records import Entry, Version
from anyload._load.process import Process
from anyload.events import Event, StateChanged

from ..fibers import Machine, on_tick
from ..requests import FOR_EVER
from ..stage import REQUESTS, Played, Stage
from ..threads import Thread, in_fibers, own_process
from .catalogue import BUDGET, catalogue
from .checks import MAX_COOL_DOWN, Checks
from .clients import Clients
from .requests import SPAN, draw
from .world import TIMEOUT, KeptWorld

OPTIONS: dict[str, Any] = {
    "backend_priority": [
        {"type": "GPU", "timeout": TIMEOUT},
        {"type": "LOCAL", "timeout": 3 * TIMEOUT},
    ],
    "max_concurrent_loads": 3,
    "max_abandoned_loads": 2,
    "load_timeout": 12.0,
}
KEEPING: dict[str, Any] = {
    "budget": BUDGET,
    "keep_alive": 1.0,
    "memory_timeout": 6.0,
    "max_queued": 4,
    "cool_down": 1.0,
    "max_cool_down": MAX_COOL_DOWN,
    "upgrade_interval": 5.0,
}


class SwitchingList(list[None]):
    """The leases of a version: they are counted without a lock, so others may go in between."""

    def __init__(self, machine: Machine) -> None:
        super().__init__()
        self._machine = machine

    def _switch(self) -> None:
        for _ in range(4):
            self._machine.switch()

    def append(self, item: None) -> None:
        """Add a lease."""
        self._switch()
        super().append(item)
        self._switch()

    def pop(self, *place: Any) -> None:
        """Remove a lease."""
        self._switch()
        super().pop(*place)
        self._switch()


@contextmanager
def keeping_in_fibers(machine: Machine, process: Process, jitter: random.Random) -> Iterator[None]:
    """Have a repository that is made inside live on fibers too, with dice that are seeded."""

    class SwitchingVersion(Version):
        __slots__ = ()

        def __init__(self, entry: Entry, config: Any, kept: Any) -> None:
            super().__init__(entry, config, kept)
            self.out = SwitchingList(machine)

    threads = SimpleNamespace(Thread=partial(Thread, machine))
    with (
        in_fibers(machine, process),
        mock.patch("anyload._keeping.core.process", process),
        mock.patch("anyload._keeping.records.Version", SwitchingVersion),
        mock.patch("anyload._keeping.waiting.threading", threads),
        mock.patch("anyload.repository.KeepingCore", partial(KeepingCore, jitter=jitter.random)),
        mock.patch("anyload.repository.Catalogue", partial(Catalogue, jitter=jitter.random)),
    ):
        yield


class Player(Stage):
    """Plays one seed.

    Args:
        seed: what everything is drawn from.
        size: how many requests.
        on_lines: see `Stage`.
    """

    checks: Checks

    def __init__(self, seed: int, size: int, *, on_lines: bool = False) -> None:
        super().__init__(seed, f"repository {seed}", on_lines=on_lines)
        self.world: KeptWorld = KeptWorld(self.machine, seed)
        self.requests = draw(self._dice.getrandbits(32), size)

    @contextmanager
    def put_up(self) -> Iterator[None]:
        """Put up a repository that is configured as the dice say."""
        dice = self._dice
        how = {
            **KEEPING,
            "eviction": dice.choice(["lru", "cost", "largest"]),
            "swap": dice.choice(["refuse", "recreate"]),
            "minimum_stay": dice.choice([0.0, 0.5]),
        }
        first = catalogue()
        jitter = random.Random(dice.getrandbits(32))
        with keeping_in_fibers(self.machine, own_process(), jitter):
            self._models = ModelRepository(
                self.world.registry(),
                hooks=[self._hear],
                clock=self.machine.now,
                models=first["models"],
                repository={**how, **first["repository"]},
                **OPTIONS,
            )
            self.checks = Checks(self.machine, self.world, self._models, self.requests)
            self._clients = Clients(
                self.machine, self.world, self.checks, self._models, self.requests
            )
            yield

    async def act(self) -> None:
        """Have clients ask, and close the repository while the last of them do."""
        async with trio.open_nursery() as clients:
            for request in self.requests:
                clients.start_soon(self._clients.ask, request)
            clients.start_soon(self._close, on_tick(SPAN * self._dice.uniform(0.8, 1.0)))
            await self._clients.all_ended.wait()

    def _hear(self, event: Event) -> None:
        self.checks.hear(event)
        if isinstance(event, StateChanged):
            self.world.note("event", event.model, event.version, event.phase, event.reason)
        else:
            self.world.note("event", event.model, type(event).__name__)

    async def _close(self, at: float) -> None:
        await trio.sleep_until(at)
        grace = self._dice.choice([0.0, 0.5, 3.0, 10.0])
        patience = self._dice.choice([FOR_EVER, FOR_EVER, 1.0])
        self.world.note("closes", grace, patience)
        self.checks.closing = True
        with trio.move_on_after(patience):
            await self._models.aclose(grace)
        self.world.note("closed")


def play(seed: int, *, size: int = REQUESTS, on_lines: bool = False) -> Played:
    """Play a seed."""
    return Player(seed, size, on_lines=on_lines).play()
