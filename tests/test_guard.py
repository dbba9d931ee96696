"""The guard: process-wide state that a load leaves changed is told of, and put back if safe."""

from __future__ import annotations

import gc
import io
import json
import logging
import math
import os
import pickle
import sys
import types
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import anyio
import pytest
from calls import Calls, arrived, does, error_of
from scenes import LIMIT, error_of_late, registry_of

from anyload import (
    GlobalChange,
    Initializer,
    LoadCancelled,
    ModelConfig,
    ProcessGlobal,
    report_warning,
)
from anyload.events import Abandoned, Event, GlobalsChanged, Loaded
from anyload.guard import PYTHON, Snapshot, attribute
from anyload.testing import Gate, returns_at_once, settled, until, waits_at


class Dial:
    """Something process-wide that loads may turn, and how to watch it."""

    def __init__(self, restore: Callable[[Any], object] | None = None) -> None:
        self.value = "as it was"
        self.watched = ProcessGlobal("the dial", lambda: self.value, restore or self.turn)

    def turn(self, value: str) -> None:
        self.value = value

    def turner(self, gate: Gate | None = None, **attributes: Any) -> Any:
        """Return a module whose load turns it, by default one of a group."""

        def load(config: ModelConfig) -> None:
            self.turn("turned")
            if gate is not None:
                gate.enter()

        attributes = {"exclusive_group": "g", "process_globals": (self.watched,), **attributes}
        return does(load, **attributes)


@pytest.fixture
def dial() -> Dial:
    return Dial()


def change_of(dial: Dial, *, restored: bool) -> GlobalChange:
    return GlobalChange("the dial", "'as it was'", "'turned'", restored)


async def test_what_a_group_load_leaves_changed_is_put_back(dial: Dial) -> None:
    """It is in an event, in the report and in the log, and it is as it was."""
    events: list[Event] = []
    async with Initializer(registry_of(m=dial.turner()), hooks=[events.append]) as initializer:
        await initializer.init(ModelConfig("m"))
        event: GlobalsChanged = await arrived(GlobalsChanged, events)
        loaded: Loaded = await arrived(Loaded, events)
        await settled(initializer)
    changes = (change_of(dial, restored=True),)
    assert event == GlobalsChanged("m", event.at, "LOCAL", changes, overlapped=False)
    assert loaded.report.observed.changes == event.changes
    assert dial.value == "as it was"


async def test_a_load_that_fails_is_looked_at_too(dial: Dial) -> None:
    """An error does not hide what the load has changed; the report rides on the error."""

    def load(config: ModelConfig) -> None:
        dial.turn("turned")
        raise ValueError("broken weights")

    module = does(load, exclusive_group="g", process_globals=(dial.watched,))
    async with Initializer(registry_of(m=module)) as initializer:
        error = await error_of(initializer, ModelConfig("m"))
        await settled(initializer)
    assert error.attempts[0].observed.changes == (change_of(dial, restored=True),)
    assert pickle.loads(pickle.dumps(error)).attempts[0].observed == error.attempts[0].observed


@pytest.mark.parametrize(
    ("guard", "group", "watched"),
    [
        ("groups", "g", True),
        ("groups", None, False),
        ("all", "g", True),
        ("all", None, True),
        ("off", "g", False),
        ("off", None, False),
    ],
)
async def test_which_loads_are_watched(
    guard: str, group: str | None, watched: bool, dial: Dial
) -> None:
    """By default those of exclusive groups; all or none where the configuration says so."""
    registry = registry_of(m=dial.turner(exclusive_group=group))
    async with Initializer(registry, guard=guard) as initializer:
        async with initializer.init_each([ModelConfig("m")]) as outcomes:
            (outcome,) = [outcome async for outcome in outcomes]
        await settled(initializer)
    assert bool(outcome.report.observed.changes) is watched
    assert dial.value == ("as it was" if watched else "turned")


async def test_nothing_is_put_back_where_another_load_ran_meanwhile(gate: Gate, dial: Dial) -> None:
    """It may have been the other load, and the other load may need it: it is only told of."""
    events: list[Event] = []
    registry = registry_of(m=dial.turner(), other=waits_at(gate))
    async with Initializer(registry, hooks=[events.append]) as initializer:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(initializer.init, ModelConfig("other"))
            await gate.entered()
            await initializer.init(ModelConfig("m"))
            event: GlobalsChanged = await arrived(GlobalsChanged, events)
            gate.open()
        await settled(initializer)
    assert (event.changes, event.overlapped) == ((change_of(dial, restored=False),), True)
    assert dial.value == "turned"


async def test_what_the_application_changes_meanwhile_is_left_to_it(
    gate: Gate, dial: Dial, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is told of, as a load may have done it; what the module has named alone is put back."""
    events: list[Event] = []
    async with Initializer(registry_of(m=dial.turner(gate)), hooks=[events.append]) as initializer:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(initializer.init, ModelConfig("m"))
            await gate.entered()
            monkeypatch.setenv("ANYLOAD_TEST_SETTING", "meant")
            gate.open()
        event: GlobalsChanged = await arrived(GlobalsChanged, events)
        await settled(initializer)
    told = {change.name: change.restored for change in event.changes}
    assert told == {"the environment": False, "the dial": True}
    assert (os.environ["ANYLOAD_TEST_SETTING"], dial.value) == ("meant", "as it was")


async def test_an_overlap_that_is_over_counts(gate: Gate, dial: Dial) -> None:
    """A load of another initializer that came and went while this one ran may have done it."""
    registry = registry_of(m=dial.turner(gate), other=returns_at_once())
    async with Initializer(registry) as initializer, Initializer(registry) as second:
        async with anyio.create_task_group() as tasks:
            calls = Calls(tasks)
            calls.start("m", initializer, ModelConfig("m"))
            await gate.entered()
            await second.init(ModelConfig("other"))
            gate.open()
            await calls.result("m")
        await settled(initializer)
    assert dial.value == "turned"


async def test_an_import_meanwhile_is_an_overlap(gate: Gate, dial: Dial) -> None:
    """What the prepare of another module installs, for good, is not taken away again."""

    def prepare(cls: Any) -> None:
        dial.turn("installed")

    def load(config: ModelConfig) -> None:
        gate.enter()

    module = does(load, exclusive_group="g", process_globals=(dial.watched,))
    other = does(lambda config: None, prepare=classmethod(prepare))
    registry = registry_of(m=module, other=other)
    async with Initializer(registry, max_concurrent_loads=1) as initializer:
        async with anyio.create_task_group() as tasks:
            calls = Calls(tasks)
            calls.start("m", initializer, ModelConfig("m"))
            await gate.entered()
            calls.start("other", initializer, ModelConfig("other"))
            await until(lambda: initializer.statistics().queued == 1)
            gate.open()
        await settled(initializer)
    assert dial.value == "installed"


async def test_a_load_inside_the_load_is_no_overlap(dial: Dial) -> None:
    """What runs inline, in the same thread, is the same load as far as that goes."""

    def load(config: ModelConfig) -> None:
        initializer.init_sync(ModelConfig("m"))

    outer = does(load, exclusive_group="g", process_globals=(dial.watched,))
    initializer = Initializer(registry_of(outer=outer, m=dial.turner()), max_concurrent_loads=1)
    async with initializer:
        await initializer.init(ModelConfig("outer"))
        await settled(initializer)
    assert dial.value == "as it was"


async def test_an_abandoned_load_is_looked_at_when_its_thread_ends(gate: Gate, dial: Dial) -> None:
    """Nobody waits for it any more, and what it leaves behind is seen all the same."""
    events: list[Event] = []
    registry = registry_of(m=dial.turner(gate))
    priority = [{"type": "LOCAL", "timeout": LIMIT}]
    async with Initializer(
        registry, backend_priority=priority, hooks=[events.append]
    ) as initializer:
        await error_of_late(initializer, ModelConfig("m"), gate)
        await arrived(Abandoned, events)
        gate.open()
        event: GlobalsChanged = await arrived(GlobalsChanged, events)
        await settled(initializer)
    assert event.changes == (change_of(dial, restored=True),)
    assert dial.value == "as it was"


async def test_no_load_begins_while_one_puts_things_back(gate: Gate) -> None:
    """What is being put back is not what another load has just set for itself."""
    order: list[str] = []

    def restore(value: Any) -> None:
        gate.enter()
        slow.turn(value)
        order.append("put back")

    slow = Dial(restore)
    other = does(lambda config: order.append("another load"))
    registry = registry_of(m=slow.turner(), other=other)
    async with Initializer(registry) as initializer, anyio.create_task_group() as tasks:
        calls = Calls(tasks)
        calls.start("m", initializer, ModelConfig("m"))
        await gate.entered()
        calls.start("other", initializer, ModelConfig("other"))
        await until(lambda: initializer.statistics().queued == 1)
        gate.open()
        await calls.result("m")
        await calls.result("other")
        await settled(initializer)
    assert order == ["put back", "another load"]


async def test_putting_back_that_hangs_keeps_nobody_for_longer_than_the_limit(gate: Gate) -> None:
    """It is a part of the attempt: past its timeout, other loads begin."""
    dial = Dial(lambda value: gate.enter())
    registry = registry_of(m=dial.turner(), other=returns_at_once())
    priority = [{"type": "LOCAL", "timeout": LIMIT}]
    async with Initializer(registry, backend_priority=priority) as initializer:
        error = await error_of_late(initializer, ModelConfig("m"), gate)
        assert [attempt.outcome for attempt in error.attempts] == ["timed_out"]
        await initializer.init(ModelConfig("other"))
        gate.open()
        await settled(initializer)


async def test_what_cannot_be_put_back_is_told_of(caplog: pytest.LogCaptureFixture) -> None:
    """A global without a restore, or whose restore raises, is reported as it is now."""

    def refuse(value: Any) -> None:
        raise OSError("no such directory")

    stuck, odd = Dial(refuse), Dial()
    odd.watched = ProcessGlobal("the odd one", lambda: odd.value)

    def load(config: ModelConfig) -> None:
        stuck.turn("turned")
        odd.turn("turned")

    module = does(load, exclusive_group="g", process_globals=(stuck.watched, odd.watched))
    with caplog.at_level(logging.WARNING, "anyload"):
        async with Initializer(registry_of(m=module)) as initializer:
            await initializer.init(ModelConfig("m"))
            await settled(initializer)
            await until(lambda: bool(caplog.records))
    (record,) = caplog.records
    assert record.getMessage() == (
        "the load of 'm' on LOCAL left the dial changed from 'as it was' to 'turned'; "
        "the odd one changed from 'as it was' to 'turned'"
    )


# What the report tells beside


async def test_a_report_has_the_device_the_size_and_the_warnings() -> None:
    """A model says where it is and what it holds, and its load what a person should know."""
    module = does(
        lambda config: report_warning("made with version 1"),
        device="cpu",
        memory_bytes=lambda self: 4096,
    )
    async with Initializer(registry_of(m=module)) as initializer:
        async with initializer.init_each([ModelConfig("m")]) as outcomes:
            (outcome,) = [outcome async for outcome in outcomes]
        await settled(initializer)
    observed = outcome.report.observed
    assert (observed.device, observed.memory_bytes) == ("cpu", 4096)
    assert observed.warnings == ("made with version 1",)
    assert observed.changes == ()


async def test_a_model_that_cannot_say_is_loaded_all_the_same(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """What is only for the report does not cost a model."""

    def broken(self: Any) -> Any:
        raise RuntimeError("not now")

    module = does(lambda config: None, device=property(broken), memory_bytes=broken)
    async with Initializer(registry_of(m=module)) as initializer:
        assert await initializer.init(ModelConfig("m")) is not None
        await settled(initializer)
    assert "Does raised" in caplog.text


async def size_of(said: object) -> int | None:
    """Return the size in the report of a model that says this of its memory."""
    module = does(lambda config: None, memory_bytes=lambda self: said)
    async with Initializer(registry_of(m=module)) as initializer:
        async with initializer.init_each([ModelConfig("m")]) as outcomes:
            (outcome,) = [outcome async for outcome in outcomes]
        await settled(initializer)
    return outcome.report.observed.memory_bytes


@pytest.mark.parametrize(
    "said",
    [-(10**12), 2**63, 10**400, 10**5000, 1.5e9, math.nan, math.inf, True, "5", None, [1]],
    ids=lambda said: "many digits" if type(said) is int and said > 2**63 else repr(said),
)
async def test_a_size_that_is_none(said: object, caplog: pytest.LogCaptureFixture) -> None:
    """A budget would believe it: it is not counted, and the log names the model."""
    assert await size_of(said) is None
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert record.getMessage().startswith("memory_bytes of 'm' is not counted: ")
    assert "is no number of bytes, 0 to 9223372036854775807" in record.getMessage()
    assert len(record.getMessage()) < 300


async def test_a_size_by_a_number_of_another_kind(caplog: pytest.LogCaptureFixture) -> None:
    """Whatever stands for a whole number is one, as those of numpy do."""

    class Number:
        def __index__(self) -> int:
            return 4096

    assert await size_of(Number()) == 4096
    assert await size_of(0) == 0
    assert await size_of(2**63 - 1) == 2**63 - 1
    assert not caplog.records


def refuses(error: BaseException) -> Callable[..., Any]:
    def refuse(*args: Any) -> Any:
        raise error

    return refuse


class Array:
    """Compares as arrays do: not to a yes or no."""

    __eq__ = refuses(ValueError("the truth value of an array is ambiguous"))
    __hash__ = None  # type: ignore[assignment]


def watching(read: Callable[[], object]) -> dict[str, Any]:
    return {"exclusive_group": "g", "process_globals": (ProcessGlobal("a setting", read),)}


@pytest.mark.parametrize(
    "attributes",
    [
        pytest.param({"memory_bytes": refuses(SystemExit(1))}, id="memory_bytes"),
        pytest.param({"device": property(refuses(LoadCancelled("no")))}, id="device"),
        pytest.param(watching(Array), id="=="),
        pytest.param(watching(refuses(SystemExit(1))), id="read"),
    ],
)
async def test_whatever_a_look_raises_the_model_is_loaded(attributes: dict[str, Any]) -> None:
    """No thread and no slot is lost to code that is only asked for the report."""
    module = does(lambda config: None, **attributes)
    registry = registry_of(m=module)
    async with Initializer(registry, max_concurrent_loads=1) as initializer:
        for _ in range(2):
            with anyio.fail_after(20.0):
                assert isinstance(await initializer.init(ModelConfig("m")), module)
        await settled(initializer)
    assert [model.released for model in module.made] == [0, 0]


async def test_a_warning_is_text_or_an_exception_and_is_told_as_plain_text() -> None:
    """A report is shown and written as JSON, whatever a module has called ``report_warning`` with.

    What is neither is the module's mistake, outside of a load too.
    """
    odd = type("Odd", (str,), {"__str__": lambda self: 1 / 0})("odd")

    def load(config: ModelConfig) -> None:
        report_warning(ValueError("no weights"))
        report_warning(odd)

    async with (
        Initializer(registry_of(m=does(load))) as initializer,
        initializer.init_each([ModelConfig("m")]) as outcomes,
    ):
        (outcome,) = [outcome async for outcome in outcomes]
    warnings = outcome.report.observed.warnings
    assert json.loads(json.dumps(warnings)) == ["ValueError: no weights", "odd"]
    assert {type(one) for one in warnings} == {str}
    wrong: Any = 5
    with pytest.raises(TypeError, match="a warning is text or an exception, not 5"):
        report_warning(wrong)


def test_a_warning_outside_of_a_load_goes_nowhere() -> None:
    """Code that is also run by hand may report all the same."""
    report_warning("nobody hears this")


# Looking at globals


@pytest.fixture
def library() -> Iterator[types.ModuleType]:
    """An imported module with a class that loaders patch."""
    module = types.ModuleType("patched_library")

    class Base:
        def tie(self) -> str:
            return "tied"

    module.Base = Base  # type: ignore[attr-defined]
    sys.modules["patched_library"] = module
    yield module
    del sys.modules["patched_library"]


def test_a_patched_method_is_seen_and_put_back(library: Any) -> None:
    """Functions of a class are compared by identity."""
    snapshot = Snapshot([attribute("patched_library", "Base.tie")])
    assert snapshot.changes() == []
    library.Base.tie = lambda self: None
    (change,) = snapshot.changes()
    change.restore()
    assert library.Base().tie() == "tied"
    told = change.told()
    assert (told.name, told.restored) == ("patched_library.Base.tie", True)
    assert told.before.startswith("library.<locals>.Base.tie at 0x")


def test_what_is_not_imported_is_not_looked_at(library: Any) -> None:
    """Looking imports nothing, and a first import in between is no change."""
    snapshot = Snapshot([attribute("never_imported", "x"), attribute("patched_library", "Late.x")])
    library.Late = type("Late", (), {"x": 1})
    assert snapshot.changes() == []
    assert "never_imported" not in sys.modules


def test_what_is_gone_is_a_change(library: Any) -> None:
    """A function that a loader has deleted comes back."""
    snapshot = Snapshot([attribute("patched_library", "Base.tie")])
    del library.Base.tie
    (change,) = snapshot.changes()
    assert change.told().after == "absent"
    change.restore()
    assert library.Base().tie() == "tied"


def test_values_that_cannot_be_shown_are_named() -> None:
    """A repr that raises is the report's problem, not the load's."""

    class Shy:
        def __repr__(self) -> str:
            raise RuntimeError("no")

    values = iter([Shy(), Shy()])
    (change,) = Snapshot([ProcessGlobal("the shy one", lambda: next(values))]).changes()
    assert change.told().before == "a Shy"


def test_pythons_own_globals_are_seen_and_left_alone(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are the application's too, which may have changed them while the load ran."""
    snapshot = Snapshot(PYTHON)
    assert snapshot.changes() == []
    elsewhere, limit, interval = io.StringIO(), sys.getrecursionlimit(), sys.getswitchinterval()
    monkeypatch.setenv("ANYLOAD_TEST_TOKEN", "secret")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "stdout", elsewhere)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            sys.setrecursionlimit(limit + 1)
            sys.setswitchinterval(interval * 2)
            gc.disable()
            changes = snapshot.changes()
            for change in changes:
                change.restore()
            assert (os.getcwd(), sys.stdout) == (str(tmp_path), elsewhere)
        finally:
            sys.setrecursionlimit(limit)
            sys.setswitchinterval(interval)
            gc.enable()
    told = {change.told().name: change.told() for change in changes}
    assert set(told) == {
        "the working directory",
        "sys.stdout",
        "the warnings filters",
        "the environment",
        "the recursion limit",
        "the switch interval",
        "whether the garbage collector is on",
    }
    assert not any(one.restored for one in told.values())
    environment = told["the environment"]
    assert (environment.before, environment.after) == ("none", "ANYLOAD_TEST_TOKEN")
