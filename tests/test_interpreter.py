"""What loads ask of the interpreter: no garbage collection, and a GIL that changes hands sooner."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Iterator

import pytest
from anyio import create_task_group
from calls import arrived, does, of_type
from scenes import LIMIT, Caller, error_of_late, registry_of

from anyload import Initializer, ModelConfig
from anyload._load.interpreter import Interpreter, Wish
from anyload.events import Event, GlobalsChanged
from anyload.testing import Gate, at_rest, returns_at_once, settled, until, waits_at

SHORT = 0.0005


@pytest.fixture(autouse=True)
def as_it_was() -> Iterator[float]:
    """Every test leaves the interpreter as it found it; returns the switch interval."""
    interval = sys.getswitchinterval()
    assert gc.isenabled()
    yield interval
    assert gc.isenabled()
    assert sys.getswitchinterval() == interval


async def test_the_garbage_collector_is_off_while_such_loads_run() -> None:
    """Until the last of them has ended."""
    gate, seen = Gate(), list[bool]()

    def look(config: ModelConfig) -> None:
        seen.append(gc.isenabled())
        gate.enter()

    module = does(look, pauses_gc=True)
    async with (
        Initializer(registry_of(m=module)) as initializer,
        create_task_group() as tasks,
    ):
        callers = [Caller(tasks, initializer, ModelConfig("m"), key=number) for number in (1, 2)]
        await gate.entered(2)
        assert not gc.isenabled()
        gate.let_through()
        await until(lambda: initializer.statistics().loaded == 1)
        assert not gc.isenabled()
        gate.open()
        for caller in callers:
            await caller.result()
        await settled(initializer)
        assert gc.isenabled()
    assert seen == [False, False]


async def test_a_load_that_is_given_up_does_not_keep_it_off() -> None:
    """Whoever hangs must not cost the others their memory."""
    gate = Gate()
    priority = [{"type": "LOCAL", "timeout": LIMIT}]
    registry = registry_of(m=waits_at(gate, pauses_gc=True))
    async with Initializer(registry, backend_priority=priority) as initializer:
        await error_of_late(initializer, ModelConfig("m"), gate)
        assert gate.inside == 1
        assert gc.isenabled()
        gate.open()
        await settled(initializer)
        assert at_rest(initializer.statistics())


async def test_where_it_was_off_it_stays_off() -> None:
    """The application has its own reasons."""
    gc.disable()
    try:
        async with Initializer(registry_of(m=returns_at_once(pauses_gc=True))) as initializer:
            await initializer.init(ModelConfig("m"))
            await settled(initializer)
            assert not gc.isenabled()
    finally:
        gc.enable()


async def test_the_gil_changes_hands_sooner(as_it_was: float) -> None:
    """While a load that holds it runs, and only if that is configured; not for other loads."""
    seen: dict[str, float] = {}

    def look(config: ModelConfig) -> None:
        seen[config.module_id] = sys.getswitchinterval()

    registry = registry_of(holds=does(look, holds_gil=True), does_not=does(look))
    async with Initializer(registry, gil_switch_interval=SHORT) as initializer:
        for module_id in ("holds", "does_not"):
            await initializer.init(ModelConfig(module_id))
            await settled(initializer)
    assert seen == {"holds": pytest.approx(SHORT), "does_not": as_it_was}
    async with Initializer(registry) as initializer:
        await initializer.init(ModelConfig("holds"))
    assert seen["holds"] == as_it_was


async def test_is_not_put_down_to_another_load() -> None:
    """A load that is watched for what it changes has not changed what anyload has set meanwhile."""
    inside, beside = Gate(), Gate()
    told: list[Event] = []
    registry = registry_of(
        watched=waits_at(inside), pausing=waits_at(beside, pauses_gc=True, holds_gil=True)
    )
    async with (
        Initializer(
            registry, guard="all", gil_switch_interval=SHORT, hooks=[told.append]
        ) as initializer,
        create_task_group() as tasks,
    ):
        watched = Caller(tasks, initializer, ModelConfig("watched"))
        await inside.entered()
        pausing = Caller(tasks, initializer, ModelConfig("pausing"))
        await beside.entered()
        inside.open()
        await watched.result()
        beside.open()
        await pausing.result()
        await settled(initializer)
    assert of_type(GlobalsChanged, told) == []


async def test_what_a_load_itself_turns_off_is_told() -> None:
    """It is told as before."""
    told: list[Event] = []
    try:
        async with Initializer(
            registry_of(m=does(lambda config: gc.disable())), guard="all", hooks=[told.append]
        ) as initializer:
            await initializer.init(ModelConfig("m"))
            (change,) = (await arrived(GlobalsChanged, told)).changes
            assert change.name == "whether the garbage collector is on"
    finally:
        gc.enable()


def test_the_shortest_interval_counts(as_it_was: float) -> None:
    """Of several wishes; each is forgotten with its load, in any order."""
    interpreter = Interpreter()
    interpreter.begin("a", Wish(False, 0.001))
    interpreter.begin("b", Wish(True, 0.0002))
    assert sys.getswitchinterval() == pytest.approx(0.0002)
    assert interpreter.switch_interval() == as_it_was
    assert interpreter.collects()
    interpreter.end("b")
    assert gc.isenabled()
    assert sys.getswitchinterval() == pytest.approx(0.001)
    interpreter.end("b")
    interpreter.begin("c", Wish(True, None))
    interpreter.end_all()
    assert sys.getswitchinterval() == as_it_was


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
async def test_a_forked_child_has_no_such_loads(as_it_was: float) -> None:
    """It begins as if they had ended."""
    gate = Gate()
    registry = registry_of(m=waits_at(gate, pauses_gc=True, holds_gil=True))
    async with (
        Initializer(registry, gil_switch_interval=SHORT) as initializer,
        create_task_group() as tasks,
    ):
        caller = Caller(tasks, initializer, ModelConfig("m"))
        await gate.entered()
        child = os.fork()
        if child == 0:
            os._exit(0 if gc.isenabled() and sys.getswitchinterval() == as_it_was else 1)
        status = os.waitpid(child, 0)[1]  # noqa: ASYNC222  # it ends at once
        assert os.waitstatus_to_exitcode(status) == 0
        assert not gc.isenabled()
        gate.open()
        await caller.result()
        await settled(initializer)
