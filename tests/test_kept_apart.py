"""Moments in which one of the rules that keep loads apart, or get them going, is all there is."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
from anyio import create_task_group
from calls import Calls, does, two_backends
from scenes import (
    LIMIT,
    Caller,
    Clock,
    error_of_late,
    let_pass,
    no_thread_left,
    registry_of,
    registry_of_two,
)
from test_lingering import lingering, told_to_stop

from anyload import Initializer, LoadTimeoutError, ModelConfig, ProcessGlobal
from anyload._load.inside import Inside
from anyload._load.process import Process
from anyload.events import Event, GlobalsChanged
from anyload.testing import FakeModel, Gate, returns_at_once, settled, until, waits_at

# A load that was told to stop, and those after it


async def test_the_end_of_a_load_that_was_told_to_stop_takes_no_key_away(gate: Gate) -> None:
    """Who comes after it joins the load that has begun meanwhile."""
    told, second = Gate(open=True), Gate()
    modules = {"m": told_to_stop(told, gate), "again": waits_at(second)}
    async with (
        Initializer(registry_of(**modules)) as initializer,
        create_task_group() as tasks,
    ):
        await lingering(initializer, told)
        first = Caller(tasks, initializer, ModelConfig("again"), key="k")
        await until(lambda: initializer.statistics().queued == 1)
        gate.open()
        await second.entered()
        late = Caller(tasks, initializer, ModelConfig("again"), key="k")
        await until(lambda: initializer.statistics().waiters == 2)
        assert initializer.statistics().flights == 1
        second.open()
        assert await first.result() is await late.result()
        assert second.count == 1
        await settled(initializer)


async def test_a_thread_that_comes_back_late_takes_no_place_away(gate: Gate) -> None:
    """A load that was abandoned has no say any more in who has to wait for the one after it."""
    told, told_too, second, third = Gate(open=True), Gate(open=True), Gate(), Gate()
    modules = {
        "m": told_to_stop(told, gate),
        "second": told_to_stop(told_too, second),
        "third": waits_at(third),
        "free": returns_at_once(),
    }
    priority = [{"type": "LOCAL", "timeout": LIMIT}]
    async with (
        Initializer(registry_of(**modules), backend_priority=priority) as initializer,
        create_task_group() as tasks,
    ):
        await lingering(initializer, told)
        let_pass(initializer, 2 * LIMIT)
        assert initializer.statistics().abandoned == 1
        await lingering(initializer, told_too, "second")
        gate.open()
        await until(lambda: initializer.statistics().abandoned == 0)
        caller = Caller(tasks, initializer, ModelConfig("third"), key="k")
        await until(lambda: initializer.statistics().queued == 1)
        await initializer.init(ModelConfig("free"))
        assert third.count == 0
        second.open()
        await third.entered()
        third.open()
        await caller.result()
        await settled(initializer)


# Who is on the clock


async def test_a_stuck_load_counts_beside_one_that_is_not(gate: Gate, tmp_path: Path) -> None:
    """A model with two names, each of which a load lingers on, waits on the clock for the stuck."""
    told, hung = Gate(open=True), Gate()
    registry = registry_of(hangs=waits_at(hung))
    registry.module("stops", "GPU")(told_to_stop(told, gate))
    places = {}
    for module in ("stops", "hangs"):
        places[module] = tmp_path / module
        places[module].mkdir()
        (places[module] / "config.yml").write_text(f"module_id: {module}\n")
    link = tmp_path / "current"
    link.symlink_to(places["stops"])
    priority = [{"type": "GPU"}, {"type": "LOCAL", "timeout": LIMIT}]
    options: dict[str, Any] = {"backend_priority": priority, "max_abandoned_loads": 0}
    async with (
        Initializer(registry, **options) as initializer,
        create_task_group() as tasks,
    ):
        await error_of_late(initializer, str(places["hangs"]), hung)
        assert initializer.statistics().overdue == 1
        stops = Caller(tasks, initializer, str(link))
        await until(lambda: initializer.statistics().running == 1)
        await stops.cancel()
        await told.entered()
        link.unlink()
        link.symlink_to(places["hangs"])
        calls = Calls(tasks)
        calls.start("both", initializer, str(link))
        await until(lambda: initializer.statistics().queued == 1)
        let_pass(initializer, 2 * LIMIT)
        error = await calls.result("both")
        assert [attempt.outcome for attempt in error.attempts] == ["skipped", "timed_out"]
        gate.open()
        hung.open()
        await settled(initializer)


async def test_a_stuck_holder_counts_beside_a_load_of_the_same_model(gate: Gate) -> None:
    """Who waits for a group that is stuck is on the clock, whatever else it waits for."""
    told, hung = Gate(open=True), Gate()
    registry = registry_of(
        stops=told_to_stop(told, gate),
        hangs=waits_at(hung, exclusive_group="stuck beside another"),
        grouped=returns_at_once(exclusive_group="stuck beside another"),
    )
    limited = [{"type": "LOCAL", "timeout": LIMIT}]
    async with (
        Initializer(registry, backend_priority=limited) as stuck,
        Initializer(registry) as initializer,
        create_task_group() as tasks,
    ):
        await error_of_late(stuck, ModelConfig("hangs"), hung)
        await lingering(initializer, told, "stops")
        calls = Calls(tasks)
        calls.start("grouped", initializer, ModelConfig("grouped"), key="k")
        error = await calls.result("grouped")
        assert "waited for the load of 'hangs'" in error.attempts[0].reason
        gate.open()
        hung.open()
        await settled(stuck)
        await settled(initializer)


async def test_who_waits_for_the_lane_is_off_the_clock_when_its_holder_is_abandoned(
    gate: Gate,
) -> None:
    """An overdue load is abandoned once one more may be: then its lane is free, though no slot."""
    first, second, busy = Gate(), Gate(), Gate()
    registry = registry_of(
        hangs=waits_at(first),
        in_lane=waits_at(second, holds_gil=True),
        lane=returns_at_once(holds_gil=True),
    )
    registry.module("busy", "GPU")(waits_at(busy))
    priority = [{"type": "GPU"}, {"type": "LOCAL", "timeout": LIMIT}]
    options: dict[str, Any] = {"max_concurrent_loads": 2, "max_abandoned_loads": 1}
    async with (
        Initializer(registry, backend_priority=priority, **options) as initializer,
        create_task_group() as tasks,
    ):
        calls = Calls(tasks)
        await error_of_late(initializer, ModelConfig("hangs"), first)
        await error_of_late(initializer, ModelConfig("in_lane"), second)
        assert initializer.statistics().overdue == 1
        calls.start("busy", initializer, ModelConfig("busy"))
        await busy.entered()
        calls.start("lane", initializer, ModelConfig("lane"))
        await until(lambda: initializer.statistics().queued == 1)
        calls.start("busy too", initializer, ModelConfig("busy"), priority=1)
        await until(lambda: initializer.statistics().queued == 2)
        first.open()
        await busy.entered(2)  # on the slot of what was overdue
        let_pass(initializer, 2 * LIMIT)
        busy.open()
        second.open()
        assert isinstance(await calls.result("lane"), FakeModel)
        await settled(initializer)


# Others hear of it


async def test_a_close_that_abandons_the_holder_of_the_lane_lets_others_in(gate: Gate) -> None:
    """The loads of another initializer that waited for the lane begin at once."""
    registry = registry_of(
        hangs=waits_at(gate, holds_gil=True), lane=returns_at_once(holds_gil=True)
    )
    first = Initializer(registry)
    async with Initializer(registry) as other, create_task_group() as tasks:
        calls = Calls(tasks)
        calls.start("hangs", first, ModelConfig("hangs"))
        await gate.entered()
        calls.start("lane", other, ModelConfig("lane"))
        await until(lambda: other.statistics().queued == 1)
        await first.aclose(0)
        assert isinstance(await calls.result("lane"), FakeModel)
        gate.open()
        await settled(other)


async def test_a_load_inside_another_hears_that_its_group_is_free(
    gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where there is no other initializer in the process that would be told of it."""
    monkeypatch.setattr("anyload.initializer.process", Process())
    group = "free for one inside"

    def nests(config: ModelConfig) -> None:
        initializer.init_sync(ModelConfig("inner"))

    registry = registry_of(
        holds=waits_at(gate, exclusive_group=group),
        inner=returns_at_once(exclusive_group=group),
        outer=does(nests),
    )
    async with Initializer(registry) as initializer, create_task_group() as tasks:
        calls = Calls(tasks)
        calls.start("holds", initializer, ModelConfig("holds"))
        await gate.entered()
        calls.start("outer", initializer, ModelConfig("outer"))
        await until(lambda: initializer.statistics().queued == 1)
        gate.open()
        assert isinstance(await calls.result("outer"), FakeModel)
        await settled(initializer)


async def test_a_close_leaves_a_load_inside_another_to_whose_it_is(
    gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It could begin, in the thread that waited for it; now a worker has to be called for it."""
    group, looking, really = "left to whose it is", Gate(), Inside.look
    hold = threading.Event()

    def look(*args: Any) -> Any:
        if hold.is_set():
            looking.enter()
        return really(*args)

    monkeypatch.setattr(Inside, "look", look)
    theirs = registry_of(
        holds=waits_at(gate, exclusive_group=group),
        inner=returns_at_once(exclusive_group=group),
    )
    cut = Initializer(
        registry_of(between=does(lambda config: last.init_sync(ModelConfig("inner"), key="k")))
    )
    outermost = registry_of(outer=does(lambda config: cut.init_sync(ModelConfig("between"))))
    async with (
        Initializer(theirs) as last,
        Initializer(outermost) as first,
        create_task_group() as tasks,
    ):
        calls = Calls(tasks)
        calls.start("holds", last, ModelConfig("holds"))
        await gate.entered()
        calls.start("outer", first, ModelConfig("outer"))
        await until(lambda: last.statistics().queued == 1)
        calls.start("inner", last, ModelConfig("inner"), key="k")
        await until(lambda: last.statistics().waiters == 3)
        hold.set()
        gate.open()
        await until(lambda: looking.inside == 1)
        await cut.aclose(0)
        assert isinstance(await calls.result("inner"), FakeModel)
        looking.open()
        await settled(first)
        await settled(last)


async def test_a_close_wakes_what_waits_inside_another_initializers_load(gate: Gate) -> None:
    """What that waits for is nobody's any more: it does not stay queued until its group is free."""
    group = "nobody waits for it"
    theirs = registry_of(
        holds=waits_at(gate, exclusive_group=group),
        inner=returns_at_once(exclusive_group=group),
    )
    between = registry_of(
        between=does(lambda config: last.init_sync(ModelConfig("inner"), key="k"))
    )
    outermost = registry_of(outer=does(lambda config: middle.init_sync(ModelConfig("between"))))
    cut = Initializer(outermost)
    async with (
        Initializer(theirs) as last,
        Initializer(between) as middle,
        create_task_group() as tasks,
    ):
        calls = Calls(tasks)
        calls.start("holds", last, ModelConfig("holds"))
        await gate.entered()
        calls.start("outer", cut, ModelConfig("outer"))
        await until(lambda: last.statistics().queued == 1)
        await cut.aclose(0)
        await until(lambda: last.statistics().queued == 0)
        await until(lambda: cut.statistics().threads == 0)
        gate.open()
        await settled(middle)
        await settled(last)


# The next attempt


async def test_the_next_attempt_of_a_load_inside_another_needs_a_slot(gate: Gate) -> None:
    """The first one had none: it ran on the slot of the load around it, of another initializer."""
    busy, hung = Gate(), Gate()
    fallback = waits_at(gate)
    inner = registry_of_two(waits_at(hung), fallback)
    inner.module("busy")(waits_at(busy))
    priority = [{"type": "GPU", "timeout": LIMIT}, {"type": "LOCAL"}]

    def nests(config: ModelConfig) -> None:
        home.init_sync(ModelConfig("m"), key="k")

    async with (
        Initializer(inner, backend_priority=priority, max_concurrent_loads=1) as home,
        Initializer(registry_of(outer=does(nests))) as around,
        create_task_group() as tasks,
    ):
        calls = Calls(tasks)
        calls.start("busy", home, ModelConfig("busy"))
        await busy.entered()
        calls.start("outer", around, ModelConfig("outer"))
        await hung.entered()
        calls.start("m", home, ModelConfig("m"), key="k")
        await until(lambda: home.statistics().waiters == 3)
        let_pass(home, 2 * LIMIT)
        await calls.result("outer")
        assert (home.statistics().queued, home.statistics().running) == (1, 1)
        busy.open()
        gate.open()
        assert isinstance(await calls.result("m"), FakeModel)
        hung.open()
        await settled(home)
        await settled(around)


async def test_a_slot_that_is_taken_back_is_for_the_next(
    gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thread could not be started for it; now one can, and the only other thread is busy."""
    busy = Gate()
    registry = registry_of_two(waits_at(gate), returns_at_once())
    registry.module("busy")(waits_at(busy))
    registry.module("next")(returns_at_once())
    priority = [{"type": "GPU", "timeout": 30.0}, {"type": "LOCAL"}]
    options: dict[str, Any] = {"backend_priority": priority, "load_timeout": 100.0}
    initializer = Initializer(registry, max_concurrent_loads=2, **options)
    clock = Clock(initializer)
    async with initializer, create_task_group() as tasks:
        calls = Calls(tasks)
        calls.start("m", initializer, ModelConfig("m"))
        await gate.entered()
        clock.forward(20.0)
        calls.start("busy", initializer, ModelConfig("busy"))
        await busy.entered()
        calls.start("next", initializer, ModelConfig("next"))
        await until(lambda: initializer.statistics().queued == 1)
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", no_thread_left)
            clock.forward(15.0)  # the fallback of "m" has the slot, and no thread
        clock.forward(70.0)
        assert isinstance(await calls.result("m"), LoadTimeoutError)
        assert isinstance(await calls.result("next"), FakeModel)
        assert busy.inside == 1
        busy.open()
        gate.open()
        await settled(initializer)


class Budget:
    """An admission that admits so many loads at once."""

    def __init__(self, room: int) -> None:
        self.room = room
        self.running = 0

    def may_start(self, config: ModelConfig, size: int) -> bool:
        return self.running < self.room

    def started(self, config: ModelConfig, size: int) -> None:
        self.running += 1

    def ended(self, config: ModelConfig, size: int) -> None:
        self.running -= 1


async def test_the_next_attempt_is_asked_for_again() -> None:
    """An admission that has changed its mind by then keeps the next backend from beginning."""
    budget = Budget(1)

    def fails(config: ModelConfig) -> None:
        budget.room = 0
        raise ValueError("no room left")

    registry = registry_of_two(does(fails), returns_at_once())
    priority = [{"type": "GPU"}, {"type": "LOCAL"}]
    async with (
        Initializer(registry, backend_priority=priority, admission=budget) as initializer,
        create_task_group() as tasks,
    ):
        calls = Calls(tasks)
        calls.start("m", initializer, ModelConfig("m"))
        await until(lambda: budget.room == 0 and budget.running == 0)
        await until(lambda: initializer.statistics().queued == 1)
        assert "m" not in calls
        budget.room = 1
        initializer.reconsider()
        assert isinstance(await calls.result("m"), FakeModel)
        await settled(initializer)


async def test_the_end_of_a_load_inside_another_lets_in_who_was_refused(gate: Gate) -> None:
    """Its thread goes on with the load around it, so another one has to come."""
    budget, inside = Budget(1), Gate()

    def nests(config: ModelConfig) -> None:
        home.init_sync(ModelConfig("inner"))
        gate.enter()

    inner = registry_of(inner=waits_at(inside), refused=returns_at_once())
    async with (
        Initializer(inner, admission=budget) as home,
        Initializer(registry_of(outer=does(nests))) as around,
        create_task_group() as tasks,
    ):
        calls = Calls(tasks)
        calls.start("outer", around, ModelConfig("outer"))
        await inside.entered()
        calls.start("refused", home, ModelConfig("refused"))
        await until(lambda: home.statistics().queued == 1)
        inside.open()
        await gate.entered()
        assert isinstance(await calls.result("refused"), FakeModel)
        gate.open()
        await calls.result("outer")
        await settled(home)
        await settled(around)


# Putting things back


class Dial:
    """Something process-wide that a load turns, and that is put back at a gate."""

    def __init__(self, gate: Gate) -> None:
        self.value = "as it was"
        self._gate = gate
        self.watched = ProcessGlobal("the dial", lambda: self.value, self._restore)

    def _restore(self, value: str) -> None:
        self._gate.enter()
        self.value = value

    def turner(self) -> Any:
        """Return a module whose load turns it."""

        def load(config: ModelConfig) -> None:
            self.value = "turned"

        return does(load, process_globals=(self.watched,))


@pytest.mark.parametrize("ends", ["in time", "past its limit"])
async def test_others_begin_when_things_are_put_back(ends: str, gate: Gate) -> None:
    """Nothing begins while a load puts something back; everything does when that is over."""
    dial = Dial(gate)
    priority = [{"type": "LOCAL", "timeout": LIMIT}]
    turning = registry_of(turns=dial.turner())
    async with (
        Initializer(turning, guard="all", backend_priority=priority) as first,
        Initializer(registry_of(m=returns_at_once())) as other,
        create_task_group() as tasks,
    ):
        calls = Calls(tasks)
        calls.start("turns", first, ModelConfig("turns"))
        await gate.entered()
        calls.start("m", other, ModelConfig("m"))
        await until(lambda: other.statistics().queued == 1)
        assert "m" not in calls
        if ends == "in time":
            gate.open()
        else:
            let_pass(first, 2 * LIMIT)
        assert isinstance(await calls.result("m"), FakeModel)
        gate.open()
        await settled(first)
        await settled(other)
    assert dial.value == "as it was"


async def test_nothing_is_put_back_where_a_release_ran_meanwhile(gate: Gate) -> None:
    """A release is somebody's code as well: what it needs must not be taken away from it."""
    events: list[Event] = []
    releasing, loading = Gate(), Gate()
    dial = Dial(Gate(open=True))
    turner = dial.turner()

    def release(model: FakeModel) -> None:
        releasing.enter()

    registry = two_backends()
    registry.module("discarded")(waits_at(loading, release=release))
    registry.module("turns")(turner)
    async with (
        Initializer(registry, guard="all", hooks=[events.append]) as initializer,
        create_task_group() as tasks,
    ):
        caller = Caller(tasks, initializer, ModelConfig("discarded"))
        await loading.entered()
        await caller.cancel()
        loading.open()
        await releasing.entered()
        await initializer.init(ModelConfig("turns"))
        await until(lambda: any(isinstance(event, GlobalsChanged) for event in events))
        releasing.open()
        await settled(initializer)
    (event,) = (event for event in events if isinstance(event, GlobalsChanged))
    assert event.overlapped
    assert dial.value == "turned"
