"""A soak: one initializer, on one loop after the other, looked at all the time."""

from __future__ import annotations

import threading
import time
from typing import Any

import anyio

from anyload.testing import settled

from .clients import soak
from .figures import Held, Round, megabytes
from .world import ABANDONED, SLOTS, World

CLIENTS = 64

ROUND, EVERY = 1.0, 0.1
"""Seconds from one rest to the next, and from one sample to the next."""

MOST_THREADS = 3 * (SLOTS + ABANDONED)
"""Those of loads, of releases, and idle ones; what is held exactly is the number of loads."""

LOOPS: dict[str, tuple[str, dict[str, Any]]] = {
    "asyncio": ("asyncio", {}),
    "uvloop": ("asyncio", {"use_uvloop": True}),
    "trio": ("trio", {}),
}


class Soak:
    """One initializer in a soak.

    Args:
        seed: decides what each load comes to.
    """

    def __init__(self, seed: int) -> None:
        self._before = threading.active_count()
        self._world = World(seed)

    def on(self, loop: str, seconds: float, clients: int = CLIENTS) -> list[Round]:
        """Soak on this loop, round after round; raise unless all is as it was after each.

        Args:
            loop: the loop.
            seconds: for how long.
            clients: how many.
        """
        backend, options = LOOPS[loop]
        return anyio.run(self._on, seconds, clients, backend=backend, backend_options=options)

    async def _on(self, seconds: float, clients: int) -> list[Round]:
        rounds: list[Round] = []
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            rounds.append(await self._round(min(ROUND, seconds), clients))
        return rounds

    async def _round(self, seconds: float, clients: int) -> Round:
        world, samples = self._world, list[Held]()
        before = Held.now()

        def sample() -> None:
            samples.append(Held.now())
            figures = world.initializer.statistics()
            assert figures.running + figures.overdue + figures.abandoned <= SLOTS + ABANDONED

        await soak(world, clients, seconds, sample, EVERY)
        await settled(world.initializer)
        world.check()
        after = Held.now()
        assert after[1:] == before[1:], (before, after)  # all but the threads, which stay a while
        most = max(sample.threads for sample in samples) - self._before
        assert most <= MOST_THREADS, f"{most} threads"
        return Round(samples, time.monotonic(), megabytes())

    @property
    def done(self) -> tuple[int, int, int]:
        """How many calls have ended, how many loads, and how many models were made."""
        figures = self._world.initializer.statistics()
        loads = figures.loaded + figures.failed + figures.cancelled
        return self._world.ends.total(), loads, self._world.made

    def close(self) -> str:
        """Close the initializer; raise unless its threads are gone. Return how the calls ended."""
        world = self._world
        assert world.initializer.close() == ()
        world.check()
        assert world.initializer.statistics().threads == 0
        discarded = world.initializer.statistics().discarded
        ends = ", ".join(f"{number} {how}" for how, number in world.ends.most_common())
        return f"{ends}; {discarded} models discarded, each released once"
