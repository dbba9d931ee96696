"""P13: what does it cost to use a model that is there, leased so that it stays?"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from time import perf_counter
from typing import Any

import anyio

from anyload import Registry
from anyload.repository import ModelRepository
from benchmarks.frame import Setting, Times, Trivial, compared, interleave, side_by_side
from benchmarks.peers import peers
from benchmarks.results import Comparison, Row

NANOSECONDS = (1e9, "ns")
LEASE, TRY_LEASE = "async with lease()", "try_lease() and release()"
EMPTY, COUNTER = "an empty async with", "a dict and a counter"


class Empty:
    """What an ``async with`` costs that does nothing."""

    __slots__ = ()

    async def __aenter__(self) -> None:
        pass

    async def __aexit__(self, *error: object) -> None:
        pass


class Counted:
    """A model in a dict, with a count of those who use it."""

    __slots__ = ("model", "users")

    def __init__(self) -> None:
        self.model = Trivial()
        self.users = 0


def entering(make: Callable[[], AbstractAsyncContextManager[Any]], number: int) -> Any:
    async def way() -> float:
        began = perf_counter()
        for _ in range(number):
            async with make():
                pass
        return (perf_counter() - began) / number

    return way


def calling(call: Callable[[int], Awaitable[object]], number: int) -> Any:
    async def way() -> float:
        began = perf_counter()
        for _ in range(number):
            await call(0)
        return (perf_counter() - began) / number

    return way


def measure(setting: Setting) -> list[Row | Comparison]:
    number = setting.pick(20_000, 2_000)
    makes, instead = peers(setting.loop)
    makes = {name: make for name, make in makes.items() if name != "by hand"}

    async def main() -> Times:
        registry = Registry()
        registry.module("m")(Trivial)
        counted = {"m": Counted()}

        async def leasing_at_once() -> float:
            began = perf_counter()
            for _ in range(number):
                lease = models.try_lease("m")
                assert lease is not None
                lease.release()
            return (perf_counter() - began) / number

        async def counting() -> float:
            began = perf_counter()
            for _ in range(number):
                entry = counted["m"]
                entry.users += 1
                assert entry.model is not None
                entry.users -= 1
            return (perf_counter() - began) / number

        models = ModelRepository(registry, models={"m": {"module_id": "m"}})
        empty = Empty()
        async with models, anyio.create_task_group() as background:
            await models.load("m")
            few = number // 10
            ways = {
                LEASE: entering(lambda: models.lease("m"), number),
                TRY_LEASE: leasing_at_once,
                EMPTY: entering(lambda: empty, number),
                COUNTER: counting,
                **{
                    name: calling(make(lambda _: Trivial(), background), few)
                    for name, make in makes.items()
                },
            }
            return await interleave(setting.pick(15, 3), ways)

    times = setting.run(main)
    return [
        compared("P13 lease of a READY model", 2.4, times, LEASE, EMPTY, NANOSECONDS),
        compared("P13 try_lease of a READY model", 3.0, times, TRY_LEASE, COUNTER, NANOSECONDS),
        side_by_side("hit", "a model that is there", times, EMPTY, NANOSECONDS, instead),
    ]
