"""A load that nobody waits for any more, still on its slot, and those who come after it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from anyio import create_task_group
from calls import Calls, does, two_backends
from scenes import (
    LIMIT,
    Caller,
    error_of_late,
    error_of_queued,
    model_on_disk,
    registry_of,
)

from anyload import Initializer, LoadCancelled, ModelConfig, check_cancelled, report_progress
from anyload.testing import FakeModel, Gate, returns_at_once, settled, until, waits_at

SHORT = 0.05
"""A limit that is to pass, in seconds."""


def told_to_stop(told: Gate, gate: Gate, then: Callable[[], object] = lambda: None) -> Any:
    """Return a module that sees that it is to stop, and then stays until the gate opens."""

    def body(_: ModelConfig) -> None:
        while True:
            try:
                check_cancelled()
            except LoadCancelled:
                break
        told.enter()
        gate.enter()
        then()

    return does(body)


async def lingering(
    initializer: Initializer, told: Gate, module_id: str = "m", key: str = "k"
) -> None:
    """Have a load that nobody wants any more, and that knows it, stay on its slot."""
    async with create_task_group() as tasks:
        caller = Caller(tasks, initializer, ModelConfig(module_id), key=key)
        await until(lambda: initializer.statistics().running == 1)
        await caller.cancel()
    await told.entered()


async def test_who_waits_behind_a_load_that_was_cancelled_may_leave(gate: Gate) -> None:
    """A fresh load of the same model that is cancelled too never starts."""
    told = Gate(open=True)
    module = told_to_stop(told, gate)
    async with (
        Initializer(registry_of(m=module)) as initializer,
        create_task_group() as tasks,
    ):
        await lingering(initializer, told)
        caller = Caller(tasks, initializer, ModelConfig("m"), key="k")
        await until(lambda: initializer.statistics().queued == 1)
        await caller.cancel()
        assert initializer.statistics().queued == 0
        gate.open()
        await settled(initializer)
        assert told.count == 1
        assert [model.released for model in module.made] == [1]


async def test_who_prepares_behind_a_load_that_was_cancelled_is_not_queued_by_it(
    gate: Gate,
) -> None:
    """A fresh load of the same key that still prepares when the old one ends goes on preparing."""
    told, preparing = Gate(open=True), Gate()
    other = returns_at_once(prepare=classmethod(lambda cls: preparing.enter()))
    registry = registry_of(m=told_to_stop(told, gate), other=other)
    async with (
        Initializer(registry) as initializer,
        create_task_group() as tasks,
    ):
        await lingering(initializer, told)
        caller = Caller(tasks, initializer, ModelConfig("other"), key="k")
        await preparing.entered()
        gate.open()
        await until(lambda: initializer.statistics().running == 0)
        assert initializer.statistics().preparing == 1
        preparing.open()
        assert isinstance(await caller.result(), other)
        await settled(initializer)


async def test_a_nested_load_waits_for_the_cancelled_one_of_its_model(gate: Gate) -> None:
    """Inside a load, too, a model is not loaded anew before its last thread has left it."""
    told = Gate(open=True)
    modules = {"m": told_to_stop(told, gate), "quick": returns_at_once()}

    def nested(_: ModelConfig) -> None:
        got.append(initializer.init_sync(ModelConfig("quick"), key="k"))

    got = list[Any]()
    async with (
        Initializer(registry_of(outer=does(nested), **modules)) as initializer,
        create_task_group() as tasks,
    ):
        await lingering(initializer, told)
        caller = Caller(tasks, initializer, ModelConfig("outer"))
        await until(lambda: initializer.statistics().queued == 1)
        assert got == []
        gate.open()
        await caller.result()
        assert isinstance(got[0], modules["quick"])
        await settled(initializer)


async def test_who_waits_for_two_stuck_loads_stays_on_the_clock(gate: Gate) -> None:
    """When one of two stuck loads in its way ends, a load waits on for the other, and then runs."""
    held = Gate()
    declines = [True]

    def on_gpu(_: ModelConfig) -> None:
        if declines:
            declines.clear()
            raise ValueError("busy")

    registry = two_backends()
    module = registry.module("m", "GPU")(does(on_gpu, exclusive_group="two stuck"))
    registry.module("m")(waits_at(gate))
    registry.module("holder")(waits_at(held, exclusive_group="two stuck"))
    backends = [{"type": "GPU", "timeout": 10 * LIMIT}, {"type": "LOCAL", "timeout": LIMIT}]
    async with (
        Initializer(registry, backend_priority=backends, max_abandoned_loads=0) as initializer,
        create_task_group() as tasks,
    ):
        for module_id, place in (("m", gate), ("holder", held)):
            await error_of_late(initializer, ModelConfig(module_id), place, key=module_id)
        assert initializer.statistics().overdue == 2
        caller = Caller(tasks, initializer, ModelConfig("m"), key="m")
        await until(lambda: initializer.statistics().queued == 1)
        gate.open()
        await until(lambda: initializer.statistics().overdue == 1)
        assert initializer.statistics().queued == 1
        held.open()
        assert isinstance(await caller.result(), module)
        await settled(initializer)


async def test_who_has_two_such_loads_in_its_way_waits_for_both(tmp_path: Path) -> None:
    """A load whose name was one model and is another now waits for the last load of each."""
    old, new = Gate(), Gate()
    told, stays = Gate(open=True), [old, new]

    def body(_: ModelConfig) -> None:
        if not stays:
            return
        gate = stays.pop(0)
        try:
            while True:
                check_cancelled()
        except LoadCancelled:
            told.enter()
            gate.enter()

    model_on_disk(tmp_path, name="old")
    path = model_on_disk(tmp_path, name="new")
    current = tmp_path / "current"
    current.symlink_to("old")
    module = does(body)
    async with (
        Initializer(registry_of(m=module)) as initializer,
        create_task_group() as tasks,
    ):
        for number, model in enumerate((str(current), path), 1):
            caller = Caller(tasks, initializer, model)
            await until(lambda number=number: initializer.statistics().running == number)  # type: ignore[misc]
            await caller.cancel()
            await told.entered(number)
        current.unlink()
        current.symlink_to("new")
        caller = Caller(tasks, initializer, str(current))
        await until(lambda: initializer.statistics().queued == 1)
        old.open()
        await until(lambda: initializer.statistics().running == 1)
        assert initializer.statistics().queued == 1
        new.open()
        assert await caller.result() is module.made[-1]
        await settled(initializer)
    assert [model.released for model in module.made] == [1, 1, 0]


async def test_a_given_key_keeps_one_load_at_a_time(tmp_path: Path) -> None:
    """A fresh flight of a given key waits until the cancelled one's thread has left."""
    here, overlap = model_on_disk(tmp_path), Gate(open=True)
    first, seen, leave = Gate(), threading.Event(), Gate()

    def load(config: ModelConfig) -> None:
        with_gate = not seen.is_set()
        if with_gate:
            first.enter()
            try:
                while True:
                    check_cancelled()
            except LoadCancelled:
                seen.set()
                leave.enter()
                overlap.enter()
                raise
        assert overlap.count == 1

    async with Initializer(registry_of(m=does(load))) as initializer:
        async with create_task_group() as tasks:
            tasks.start_soon(lambda: initializer.init(here, key="k"))
            await first.entered()
            first.open()
            tasks.cancel_scope.cancel()
        await until(seen.is_set)
        async with create_task_group() as tasks:
            calls = Calls(tasks)
            calls.start("again", initializer, here, key="k")
            await until(lambda: initializer.statistics().queued == 1)
            leave.open()
            assert isinstance(await calls.result("again"), FakeModel)
        await settled(initializer)


async def test_a_flight_hears_when_its_predecessor_is_overdue(gate: Gate, tmp_path: Path) -> None:
    """Waiting for a cancelled load of one's own model is on the clock once that is overdue."""
    here, told = model_on_disk(tmp_path), threading.Event()

    def load(config: ModelConfig) -> None:
        gate.enter()
        try:
            while True:
                check_cancelled()
        except LoadCancelled:
            told.set()
            stuck.enter()
            raise

    stuck = Gate()
    priority = [{"type": "LOCAL", "timeout": LIMIT}]
    async with Initializer(
        registry_of(m=does(load)), backend_priority=priority, max_abandoned_loads=0
    ) as initializer:
        async with create_task_group() as tasks:
            tasks.start_soon(initializer.init, here)
            await gate.entered()
            gate.open()
            tasks.cancel_scope.cancel()
        await until(told.is_set)
        # It queues behind a load within its limit, and then both limits pass.
        error = await error_of_queued(initializer, here)
        assert initializer.statistics().overdue == 1
        assert "waited for the load of" in error.attempts[0].reason
        stuck.open()
        await settled(initializer)


async def test_who_prepares_as_its_predecessor_becomes_overdue_hears_of_it_in_the_queue(
    gate: Gate,
) -> None:
    """A fresh load that still prepares as the old one stalls goes on, until it would wait."""
    told, stuck, preparing = Gate(open=True), Gate(), Gate()

    def stalls() -> None:
        with pytest.raises(LoadCancelled):
            report_progress()
        stuck.enter()

    registry = registry_of(
        m=told_to_stop(told, gate, stalls),
        other=returns_at_once(prepare=classmethod(lambda cls: preparing.enter())),
    )
    priority = [{"type": "LOCAL", "stall_timeout": SHORT}]
    async with (
        Initializer(registry, backend_priority=priority, max_abandoned_loads=0) as initializer,
        create_task_group() as tasks,
    ):
        await lingering(initializer, told)
        caller = Caller(tasks, initializer, ModelConfig("other"), key="k")
        await preparing.entered()
        gate.open()
        await until(lambda: initializer.statistics().overdue == 1)
        assert initializer.statistics().preparing == 1
        preparing.open()
        error = await caller.load_error()
        assert error.attempts[0].reason.startswith("waited for the load of 'm' on LOCAL")
        stuck.open()
        await settled(initializer)
