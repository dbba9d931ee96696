"""Several event loops and plain threads on one initializer, and eager tasks."""

from __future__ import annotations

import asyncio
import gc
import sys
import threading
import weakref
from collections.abc import Callable
from typing import Any

import anyio
import pytest
from anyio import create_task_group
from anyio.lowlevel import current_token
from calls import Calls, does
from scenes import registry_of, until_sync

from anyload import Initializer, ModelConfig, Registry
from anyload._load.waiters import PER_EVENT, AsyncSeat, Bell, Cohort
from anyload.testing import FakeModel, Gate, at_rest, returns_at_once, settled, until, waits_at


async def test_many_callers_are_woken_in_portions(gate: Gate) -> None:
    """Callers who would stall their loop if one event woke them all have several."""
    async with (
        Initializer(registry_of(m=waits_at(gate))) as initializer,
        create_task_group() as tasks,
    ):
        calls, callers = Calls(tasks), PER_EVENT + 1
        for number in range(callers):
            calls.start(str(number), initializer, ModelConfig("m"), key="k")
        await until(lambda: initializer.statistics().waiters == callers)
        (flight,) = initializer._core.flights.live
        assert [seat.joined for seat in flight.seats if isinstance(seat, Cohort)] == [PER_EVENT, 1]
        gate.open()
        await settled(initializer)


async def test_one_tick_wakes_one_portion() -> None:
    """The loop gets a turn before the next one."""
    bell = Bell(current_token().native_token)
    portions = [AsyncSeat(bell) for _ in range(2)]
    for portion in portions:
        portion.count = PER_EVENT
        assert portion.wake()
    bell._wake_some()
    assert [portion.event.is_set() for portion in portions] == [True, False]
    await portions[1].wait()


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
    until_sync(lambda: initializer.statistics().waiters == len(threads))
    gate.open()
    for thread in threads:
        thread.join()
    assert len(found) == len(threads)
    assert len(set(map(id, found))) == 1
    assert gate.count == 1
    assert initializer.close() == ()
    assert at_rest(initializer.statistics())


@pytest.mark.parametrize(
    ("backend", "options"),
    [("asyncio", {}), ("asyncio", {"use_uvloop": True}), ("trio", {})],
    ids=["asyncio", "uvloop", "trio"],
)
def test_a_loop_that_has_ended_is_collected(
    backend: str, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing keeps an event loop that init was called on: a process may have many, in a row."""
    monkeypatch.setattr("anyload._load.workers.IDLE_SECONDS", 1000.0)  # no worker is to end
    loops = list[weakref.ref[Any]]()

    async def load() -> None:
        loops.append(weakref.ref(current_token().native_token))
        await initializer.init(ModelConfig("m"))

    def gone() -> bool:
        gc.collect()
        return [loop() for loop in loops] == [None]

    with Initializer(registry_of(m=returns_at_once())) as initializer:
        anyio.run(load, backend=backend, backend_options=options)
        anyio.run(until, gone)  # whoever woke it may be on the way back from there


def test_a_bell_of_a_loop_that_is_gone_says_so() -> None:
    """Nobody is waiting there any more."""
    loop = asyncio.new_event_loop()
    bell = Bell(loop)
    loop.close()
    del loop
    gc.collect()
    assert bell.ended
    assert not AsyncSeat(bell).wake()


@pytest.mark.parametrize(("told", "bulk"), [(0, False), (1, False), (0, True)])
def test_a_loop_that_ends_before_its_callers_wake_keeps_no_model(told: int, bulk: bool) -> None:
    """Every model that a loop's callers wait for is discarded, also what it was told of."""
    gate, loop = Gate(), asyncio.new_event_loop()
    module = does(lambda config: gate.enter())
    initializer = Initializer(registry_of(m=module))
    callers = list[asyncio.Task[Any]]()

    async def begin() -> None:
        models = [ModelConfig("m") for _ in range(3)]
        loads = [initializer.init_many(models)] if bulk else map(initializer.init, models)
        callers.extend(loop.create_task(load) for load in loads)
        await gate.entered(3)

    async def all_given_back() -> None:
        await until(lambda: initializer.statistics().discarded == 3)
        await settled(initializer)

    loop.run_until_complete(begin())
    gate.let_through(told)  # while the loop is there, and does not run
    anyio.run(until, lambda: initializer.statistics().loaded == told)
    loop.close()
    gate.open()
    anyio.run(all_given_back)
    for caller in callers:
        # asyncio complains of a pending task that is destroyed; these were left on purpose.
        caller._log_destroy_pending = False  # type: ignore[attr-defined]
    del caller
    callers.clear()
    gc.collect()
    anyio.run(all_given_back)
    assert [model.released for model in module.made] == [1, 1, 1]
    assert initializer.close() == ()


def test_a_caller_who_was_lost_does_not_leave_once_more() -> None:
    """A coroutine that is collected after its loop has ended takes nothing from who still waits."""
    gate, ends, stays = Gate(), asyncio.new_event_loop(), asyncio.new_event_loop()
    initializer = Initializer(registry_of(m=waits_at(gate)))

    async def begin() -> list[asyncio.Task[Any]]:
        load = asyncio.ensure_future(initializer.init(ModelConfig("m"), key="k"))
        await gate.entered()
        return [load]

    lost, waiting = ends.run_until_complete(begin()), stays.run_until_complete(begin())
    assert gate.count == 1
    ends.close()
    gate.open()
    anyio.run(until, lambda: initializer.statistics().loaded == 1)
    anyio.run(settled, initializer)
    lost[0]._log_destroy_pending = False  # type: ignore[attr-defined]  # it was left on purpose
    lost.clear()
    gc.collect()
    model = stays.run_until_complete(waiting.pop())
    stays.close()
    assert isinstance(model, FakeModel)
    assert model.released == 0
    assert initializer.close() == ()


def test_the_outcomes_of_a_loop_that_has_ended_are_nobodys() -> None:
    """Another loop that asks for them is told so: what they were is lost with the first."""
    gate = Gate()
    initializer = Initializer(registry_of(m=waits_at(gate)))
    outcomes = initializer.init_each([ModelConfig("m"), ModelConfig("m")])

    async def take() -> None:
        with pytest.raises(RuntimeError, match="are for the event loop that first asked for them"):
            await anext(outcomes)
        async with outcomes:
            pass
        await settled(initializer)

    anyio.run(outcomes.__aenter__)
    gate.open()
    for backend in ("asyncio", "trio"):
        anyio.run(take, backend=backend)
    assert initializer.close() == ()


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
