"""A close that is asked for on a thread that it would have to wait for: it goes on by itself."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from anyio import create_task_group, fail_after
from calls import Calls, does
from scenes import LIMIT, Caller, Clock

from anyload import Backend, ClosedError, Initializer, ModelConfig, Registry
from anyload._load.own_threads import on_own_thread
from anyload.events import Abandoned, Discarded, Event
from anyload.testing import PATIENCE, FakeModel, Gate, returns_at_once, settled, until, waits_at

Close = Callable[[Initializer], object]
CLOSES: dict[str, Close] = {
    "close": lambda initializer: initializer.close(),
    "aclose": lambda initializer: asyncio.run(initializer.aclose()),
}


class Stops(Backend):
    """A backend that is stopped, perhaps with something to be done then."""

    backend_type = "STOPS"
    stopped = 0

    def stop(self) -> None:
        type(self).stopped += 1
        self.then()

    def then(self) -> None:
        """Nothing, but in a subclass."""


def on_stops(cls: type, backend: type[Stops] | None = None) -> tuple[Registry, type[Stops]]:
    """Return a registry with a module ``m`` on a backend that counts how often it was stopped."""
    backend = backend or type("Counted", (Stops,), {})
    registry = Registry()
    registry.backend_type(backend)
    registry.module("m", "STOPS")(cls)
    return registry, backend


async def gone(initializer: Initializer) -> None:
    """Wait until all of its threads have ended, with nobody closing it."""
    await until(lambda: initializer.statistics().threads == 0)
    await until(lambda: not initializer._core.watchdog.running)
    await settled(initializer)


@pytest.mark.parametrize("how", CLOSES)
async def test_by_a_hook_on_a_worker(how: str, gate: Gate) -> None:
    """It does not wait, as that thread is one of those that have to end, and nobody has to."""
    told: list[object] = []

    def hook(event: Event) -> None:
        if isinstance(event, Discarded):
            told.append(CLOSES[how](initializer))

    registry, backend = on_stops(waits_at(gate))
    options: dict[str, Any] = {"backend_priority": [{"type": "STOPS"}], "hooks": [hook]}
    initializer = Initializer(registry, **options)
    with fail_after(PATIENCE):
        async with create_task_group() as tasks:
            caller = Caller(tasks, initializer, ModelConfig("m"))
            await gate.entered()
            await caller.cancel()
        gate.open()
        await until(lambda: bool(told))  # who asks for statistics may hand events out, here
        await gone(initializer)
    assert told == [()]
    assert backend.stopped == 1
    assert await initializer.aclose() == ()


async def test_by_a_hook_on_the_watchdog(gate: Gate) -> None:
    """Whoever hears that a load is stuck may close: that is on the thread that ends the grace."""
    told, heard = list[str](), threading.Event()

    def hook(event: Event) -> None:
        if isinstance(event, Abandoned):
            told.append(threading.current_thread().name)
            heard.set()
            initializer.close(grace=LIMIT)

    registry, backend = on_stops(waits_at(gate))
    priority = [{"type": "STOPS", "timeout": LIMIT}]
    initializer = Initializer(registry, backend_priority=priority, hooks=[hook])
    clock = Clock(initializer)
    with fail_after(PATIENCE):
        async with create_task_group() as tasks:
            calls = Calls(tasks)
            calls.start("m", initializer, ModelConfig("m"))
            await gate.entered()
            clock.pass_for_the_watchdog(2 * LIMIT)
            heard.wait(PATIENCE)  # with no other thread there to deliver what it has to say
            assert isinstance(await calls.result("m"), Exception)
        await until(lambda: initializer._core.closing.stage == "leaving")
        gate.open()
        await gone(initializer)
    assert told == ["anyload-watchdog"]
    assert backend.stopped == 0, "a load that is past its limit still ran on it"


async def test_by_a_hook_that_rings_first(gate: Gate) -> None:
    """Acting on deadlines in a hook, as a repository's ``reconsider`` does, changes no thread."""
    told: list[object] = []

    def hook(event: Event) -> None:
        if isinstance(event, Discarded):
            initializer._core.ring()
            told.append(initializer.close())

    registry, backend = on_stops(waits_at(gate))
    options: dict[str, Any] = {"backend_priority": [{"type": "STOPS"}], "hooks": [hook]}
    initializer = Initializer(registry, **options)
    with fail_after(PATIENCE):
        async with create_task_group() as tasks:
            caller = Caller(tasks, initializer, ModelConfig("m"))
            await gate.entered()
            await caller.cancel()
        gate.open()
        await gone(initializer)
    assert told == [()]
    assert backend.stopped == 1


async def test_in_a_load_that_a_hook_has_asked_for(gate: Gate) -> None:
    """In a load a close waits, whoever asked for the load."""
    waited: list[object] = []

    def closes(config: ModelConfig) -> None:
        waited.append(on_own_thread())

    def hook(event: Event) -> None:
        if isinstance(event, Discarded):
            assert on_own_thread()
            other.init_sync(ModelConfig("closes"))

    registry, _ = on_stops(waits_at(gate))
    registry.module("closes", "STOPS")(does(closes))
    options: dict[str, Any] = {"backend_priority": [{"type": "STOPS"}]}
    async with (
        Initializer(registry, **options) as other,
        Initializer(registry, hooks=[hook], **options) as initializer,
    ):
        async with create_task_group() as tasks:
            caller = Caller(tasks, initializer, ModelConfig("m"))
            await gate.entered()
            await caller.cancel()
        gate.open()
        await until(lambda: waited == [False])
        await settled(initializer)
        await settled(other)
    assert not on_own_thread()


async def test_of_another_initializer(gate: Gate) -> None:
    """That might be closing this one, in a hook on one of its own threads: nobody waits there."""
    told: list[object] = []
    discards = Gate()

    def hook(event: Event) -> None:
        if isinstance(event, Discarded):
            told.append(other.close(LIMIT))

    registry, backend = on_stops(waits_at(gate))
    registry.module("discarded", "STOPS")(waits_at(discards))
    options: dict[str, Any] = {"backend_priority": [{"type": "STOPS"}]}
    other = Initializer(registry, **options)
    async with (
        Initializer(registry, hooks=[hook], **options) as initializer,
        create_task_group() as tasks,
    ):
        calls = Calls(tasks)
        calls.start("m", other, ModelConfig("m"))
        await gate.entered()
        caller = Caller(tasks, initializer, ModelConfig("discarded"))
        await discards.entered()
        await caller.cancel()
        discards.open()
        await until(lambda: told == [()])
        assert other.statistics().running == 1
        gate.open()
        assert isinstance(await calls.result("m"), FakeModel)
        await gone(other)
        await settled(initializer)
    assert backend.stopped == 2


async def test_while_another_load_runs(gate: Gate) -> None:
    """Loads have the grace that was given, though the one who gave it has gone."""
    registry, backend = on_stops(waits_at(gate))
    registry.module("closes", "STOPS")(
        does(lambda config: None, prepare=classmethod(lambda cls: close()))
    )
    initializer = Initializer(registry, backend_priority=[{"type": "STOPS"}])

    def close() -> None:
        initializer.close(LIMIT)

    with fail_after(PATIENCE):
        async with create_task_group() as tasks:
            calls = Calls(tasks)
            calls.start("m", initializer, ModelConfig("m"))
            await gate.entered()
            with pytest.raises(ClosedError):
                await initializer.init(ModelConfig("closes"))
            assert backend.stopped == 0
            gate.open()
            assert isinstance(await calls.result("m"), FakeModel)
        await gone(initializer)
    assert backend.stopped == 1


async def test_by_a_backend_that_is_stopped() -> None:
    """A backend that closes as it is stopped holds up nobody who waits for that."""

    class Closes(Stops):
        def then(self) -> None:
            initializer.close()

    registry, backend = on_stops(returns_at_once(), Closes)
    initializer = Initializer(registry, backend_priority=[{"type": "STOPS"}])
    await initializer.init(ModelConfig("m"))
    with fail_after(PATIENCE):
        assert await initializer.aclose() == ()
    assert backend.stopped == 1
    assert initializer.statistics().threads == 0


async def test_a_backend_that_cannot_be_hashed() -> None:
    """A dataclass is one: it is stopped like any other."""

    @dataclass
    class Pool(Stops):
        config: Any

    registry, backend = on_stops(returns_at_once(), Pool)
    async with Initializer(registry, backend_priority=[{"type": "STOPS"}]) as initializer:
        await initializer.init(ModelConfig("m"))
    assert backend.stopped == 1
