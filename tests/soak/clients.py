"""The clients of a soak: each asks for models again and again, in every way there is."""

from __future__ import annotations

import random
import time
from collections.abc import Callable

import anyio
from anyio import CancelScope, create_task_group, move_on_after

from anyload import AnyloadError, BulkLoadError

from .world import World


async def soak(
    world: World, clients: int, seconds: float, sample: Callable[[], None], every: float
) -> None:
    """Have clients ask for so long, and have a sample taken from time to time."""
    end = time.monotonic() + seconds
    async with create_task_group() as tasks:
        for number in range(clients):
            tasks.start_soon(_client, world, random.Random(number), end)
        while time.monotonic() < end:
            sample()
            await anyio.sleep(every)


async def _client(world: World, dice: random.Random, end: float) -> None:
    while time.monotonic() < end:
        way = dice.random()
        try:
            if way < 0.10:
                await _impatient(world, dice)
            elif way < 0.13:
                await _many(world, dice)
            elif way < 0.16:
                await _each(world, dice)
            else:
                world.took(await world.initializer.init(dice.choice(world.models)))
        except AnyloadError as error:
            world.ended(type(error).__name__)


async def _impatient(world: World, dice: random.Random) -> None:
    with move_on_after(dice.uniform(0, 0.01)) as scope:
        world.took(await world.initializer.init(dice.choice(world.models)))
    if scope.cancelled_caught:
        world.ended("cancelled")


async def _many(world: World, dice: random.Random) -> None:
    try:
        loaded = await world.initializer.init_many(dice.sample(world.models, 3))
    except BulkLoadError as error:
        loaded = dict(error.models)
        world.ended("BulkLoadError")
    for model in loaded.values():
        world.took(model)


async def _each(world: World, dice: random.Random) -> None:
    """Take the first of three that lands, and leave the others."""
    with CancelScope():
        async with world.initializer.init_each(dice.sample(world.models, 3)) as outcomes:
            async for outcome in outcomes:
                if outcome.value is not None:
                    world.took(outcome.value)
                    return
