"""What people use today so that all who ask share one load: by hand, and four packages.

Each is set up as its documentation says for that purpose, and is given a blocking load.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from contextvars import copy_context
from dataclasses import dataclass, field
from functools import partial
from types import MappingProxyType
from typing import Any

import anyio
import anyio.functools
from anyio.abc import TaskGroup
from anyio.to_thread import run_sync

Load = Callable[[int], object]
"""A blocking load of a model with this number."""
Shared = Callable[[int], Awaitable[object]]
Make = Callable[[Load, TaskGroup], Shared]


class DictOfFutures:
    """By hand on asyncio: one caller's cancel is nobody else's, and nothing is remembered."""

    def __init__(self, load: Load) -> None:
        self.load = load
        self.futures: dict[Hashable, asyncio.Future[object]] = {}

    async def __call__(self, number: int) -> object:
        future = self.futures.get(number)
        if future is None:
            run = partial(copy_context().run, self.load, number)
            future = asyncio.get_running_loop().run_in_executor(None, run)
            self.futures[number] = future
            future.add_done_callback(partial(self.forget, number))
        return await asyncio.shield(future)

    def forget(self, number: int, future: asyncio.Future[object]) -> None:
        del self.futures[number]


@dataclass
class Flight:
    ended: anyio.Event = field(default_factory=anyio.Event)
    model: object = None
    error: Exception | None = None


class DictOfEvents:
    """By hand on trio: as on asyncio, but a nursery has to run the loads."""

    def __init__(self, load: Load, tasks: TaskGroup) -> None:
        self.load = load
        self.tasks = tasks
        self.flights: dict[Hashable, Flight] = {}

    async def __call__(self, number: int) -> object:
        flight = self.flights.get(number)
        if flight is None:
            flight = self.flights[number] = Flight()
            self.tasks.start_soon(self.run, number, flight)
        await flight.ended.wait()
        if flight.error is not None:
            raise flight.error
        return flight.model

    async def run(self, number: int, flight: Flight) -> None:
        try:
            flight.model = await run_sync(self.load, number)
        except Exception as error:
            flight.error = error
        finally:
            del self.flights[number]
            flight.ended.set()


def by_hand(loop: str) -> Make:
    if loop == "trio":
        return DictOfEvents
    return lambda load, tasks: DictOfFutures(load)


def in_thread(load: Load) -> Callable[[int], Any]:
    async def loading(number: int) -> object:
        return await asyncio.to_thread(load, number)

    return loading


def async_lru(load: Load, tasks: TaskGroup) -> Shared:
    from async_lru import alru_cache

    cached: Shared = alru_cache(maxsize=128)(in_thread(load))
    return cached


def anyio_cache(load: Load, tasks: TaskGroup) -> Shared:
    async def loading(number: int) -> object:
        return await run_sync(load, number)

    return anyio.functools.lru_cache(maxsize=128)(loading)


def aiocache(load: Load, tasks: TaskGroup) -> Shared:
    from aiocache import cached_stampede

    # Beyond its lease everybody loads; the default of 2 s is less than many models take.
    cached: Shared = cached_stampede(lease=60)(in_thread(load))
    return cached


def cashews(load: Load, tasks: TaskGroup) -> Shared:
    from cashews import Cache

    cache = Cache()
    cache.setup("mem://")
    cached: Shared = cache(ttl="1h", key="model:{number}")(in_thread(load))
    return cached


BY_HAND = "by hand"
ASYNCIO_ONLY = "asyncio only"
PACKAGES: MappingProxyType[str, Make] = MappingProxyType(
    {
        "anyio.functools": anyio_cache,
        "async-lru": async_lru,
        "aiocache": aiocache,
        "cashews": cashews,
    }
)
ON_EVERY_LOOP = ("anyio.functools",)


def peers(loop: str) -> tuple[dict[str, Make], dict[str, str]]:
    """Return those that work on a loop; and those that do not, with the reason."""
    works = {
        name: make for name, make in PACKAGES.items() if loop != "trio" or name in ON_EVERY_LOOP
    }
    lacking = {name: ASYNCIO_ONLY for name in PACKAGES if name not in works}
    return {BY_HAND: by_hand(loop), **works}, lacking
