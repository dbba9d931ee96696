"""Storms of callers: many models, native cancelling, and several loops and threads at once."""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import Callable
from functools import partial
from typing import Any

import anyio
import trio
from anyio import CancelScope, create_task_group
from anyio.lowlevel import checkpoint

from .models import Storm

WAVE = 500
"""How many callers there are at a time."""

Loop = tuple[str, dict[str, Any]]
LOOPS: dict[str, Loop] = {
    "asyncio": ("asyncio", {}),
    "asyncio in debug mode": ("asyncio", {"debug": True}),
    "uvloop": ("asyncio", {"use_uvloop": True}),
    "trio": ("trio", {}),
}


def run_on(loop: str, call: Callable[..., Any], *args: Any) -> None:
    """Run a coroutine function on a loop of this kind."""
    backend, options = LOOPS[loop]
    anyio.run(call, *args, backend=backend, backend_options=options)


# Many models


def many_models(loop: str, requests: int, models: int) -> str:
    """Ask so often for so many models on one loop, and cancel a tenth of the callers."""
    storm = Storm()
    run_on(loop, waves, storm, random.Random(1), requests, models)
    storm.check(requests)
    return storm.figures


async def waves(storm: Storm, dice: random.Random, requests: int, models: int) -> None:
    """Ask for models, so many callers at a time."""
    for begun in range(0, requests, WAVE):
        wave = [dice.randrange(1, models + 1) for _ in range(min(WAVE, requests - begun))]
        async with create_task_group() as tasks:
            scopes = [CancelScope() for _ in wave]
            for number, scope in zip(wave, scopes, strict=True):
                tasks.start_soon(_ask_in_scope, storm, number, scope)
            for scope in dice.sample(scopes, len(wave) // 10):
                if dice.random() < 0.2:
                    await checkpoint()
                scope.cancel()


async def _ask_in_scope(storm: Storm, number: int, scope: CancelScope) -> None:
    with scope:
        await storm.ask(number)
    if scope.cancelled_caught:
        storm.ended("cancelled")


# Cancelled natively, just when the model is there


def cancelled_around_completion(loop: str, callers: int, *, eager: bool = False) -> str:
    """Cancel callers with what their loop has for that, around the moment when their load ends."""
    storm, dice = Storm(), random.Random(2)
    if loop == "trio":
        trio.run(_cancelled_on_trio, storm, dice, callers)
    else:
        run_on(loop, _cancelled_on_asyncio, storm, dice, callers, eager)
    storm.check(callers)
    assert storm.ends["cancelled"] > callers // 100, storm.ends
    assert storm.ends["value"] > callers // 100, storm.ends
    return storm.figures


async def _cancelled_on_asyncio(
    storm: Storm, dice: random.Random, callers: int, eager: bool
) -> None:
    # Not by a task factory: that of Python 3.13.0 does not take what uvloop passes to it.
    options: dict[str, Any] = {"eager_start": True} if eager else {}
    loop = asyncio.get_running_loop()
    for begun in range(0, callers, WAVE):
        numbers = _few_keys(dice, min(WAVE, callers - begun))
        tasks = [asyncio.Task(storm.ask(number), loop=loop, **options) for number in numbers]
        for task in dice.sample(tasks, len(tasks)):
            pause = dice.random()
            if pause < 0.01:
                await storm.another_model()
            elif pause < 0.05:
                await asyncio.sleep(0)
            task.cancel()
        await asyncio.wait(tasks)
        for task in tasks:
            if task.cancelled():
                storm.ended("cancelled")
            else:
                task.result()


async def _cancelled_on_trio(storm: Storm, dice: random.Random, callers: int) -> None:
    async def ask(number: int, scope: trio.CancelScope) -> None:
        with scope:
            await storm.ask(number)
        if scope.cancelled_caught:
            storm.ended("cancelled")

    for begun in range(0, callers, WAVE):
        numbers = _few_keys(dice, min(WAVE, callers - begun))
        async with trio.open_nursery() as nursery:
            scopes = [trio.CancelScope() for _ in numbers]
            for number, scope in zip(numbers, scopes, strict=True):
                nursery.start_soon(ask, number, scope)
            for scope in dice.sample(scopes, len(scopes)):
                pause = dice.random()
                if pause < 0.01:
                    await storm.another_model()
                elif pause < 0.05:
                    await trio.lowlevel.checkpoint()
                scope.cancel()


def _few_keys(dice: random.Random, callers: int) -> list[int]:
    """Return what so many callers ask for: some alone, some with many others."""
    return [dice.choice([dice.randrange(1, 10), dice.randrange(10, 1000)]) for _ in range(callers)]


# Several loops and threads


def on_all_loops_and_in_threads(requests: int, models: int) -> str:
    """Have loops of every kind and plain threads ask one initializer at once, so often each."""
    storm = Storm()
    together = threading.Barrier(2 * len(LOOPS))

    def on(loop: str, seed: int) -> None:
        together.wait()
        run_on(loop, waves, storm, random.Random(seed), requests, models)

    def in_thread(seed: int) -> None:
        dice = random.Random(seed)
        together.wait()
        for _ in range(requests):
            timeout = dice.choice([None, None, None, 0.0, 0.001])
            storm.ask_in_thread(dice.randrange(1, models + 1), timeout)

    failures: list[BaseException] = []

    def run(body: Callable[[], None]) -> None:
        try:
            body()
        except BaseException as failure:
            failures.append(failure)
            raise

    bodies = [partial(on, loop, seed) for seed, loop in enumerate(LOOPS)]
    bodies += [partial(in_thread, seed) for seed in range(len(LOOPS))]
    threads = [threading.Thread(target=run, args=[body]) for body in bodies]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures, failures
    storm.check(requests * len(threads))
    return storm.figures
