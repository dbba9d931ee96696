"""Several event loops and plain threads on one initializer, and eager tasks."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Callable
from typing import Any

import anyio
import pytest

from anyload import Initializer, ModelConfig, Registry
from anyload.testing import Gate, at_rest, waits_at


def test_loops_and_threads_share_one_load() -> None:
    """Callers on asyncio, uvloop and trio loops and in plain threads get one and the same model."""
    gate = Gate()
    registry = Registry()
    registry.module("slow")(waits_at(gate))
    config = ModelConfig("slow")
    initializer = Initializer(registry)
    found: list[Any] = []

    async def caller() -> None:
        found.append(await initializer.init(config, key="one"))

    def on(backend: str, **options: Any) -> Callable[[], None]:
        return lambda: anyio.run(caller, backend=backend, backend_options=options)

    def plain() -> None:
        found.append(initializer.init_sync(config, key="one"))

    threads = [
        threading.Thread(target=target)
        for target in (on("asyncio"), on("asyncio", use_uvloop=True), on("trio"), plain, plain)
    ]
    for thread in threads:
        thread.start()
    gate.entered_sync()
    while initializer.statistics().waiters < len(threads):
        threading.Event().wait(0.001)
    gate.open()
    for thread in threads:
        thread.join()
    assert len(found) == len(threads)
    assert len(set(map(id, found))) == 1
    assert gate.count == 1
    assert initializer.close() == ()
    assert at_rest(initializer.statistics())


@pytest.mark.skipif(sys.version_info < (3, 12), reason="eager tasks came with Python 3.12")
def test_eager_tasks_share_one_load() -> None:
    """A task whose body runs before create_task returns joins the flight like any other."""
    gate = Gate()
    registry = Registry()
    registry.module("slow")(waits_at(gate))

    async def main() -> None:
        loop = asyncio.get_running_loop()
        factory = getattr(asyncio, "eager_task_factory")  # noqa: B009  # absent on 3.11
        loop.set_task_factory(factory)
        async with Initializer(registry) as initializer:
            config = ModelConfig("slow")
            tasks = [loop.create_task(initializer.init(config, key="one")) for _ in range(10)]
            assert initializer.statistics().waiters == len(tasks)
            await gate.entered()
            tasks[0].cancel()
            gate.open()
            models = await asyncio.gather(*tasks[1:])
            assert len(set(map(id, models))) == 1
            assert tasks[0].cancelled()

    asyncio.run(main())
    assert gate.count == 1
