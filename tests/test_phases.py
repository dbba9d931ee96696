"""Imports, loads and warm-ups are told apart: by events, and in the report of a load."""

from __future__ import annotations

import threading
from dataclasses import replace
from time import monotonic
from typing import Any

import pytest
from anyio import create_task_group
from calls import GPU_THEN_LOCAL, Calls, does
from scenes import let_pass, registry_of, registry_of_two
from test_prepare import prepares

from anyload import (
    AnyloadError,
    Backend,
    Initializer,
    LoadReport,
    ModelConfig,
    Registry,
    report_progress,
)
from anyload.errors import describe
from anyload.events import (
    Abandoned,
    AttemptEnded,
    Discarded,
    Event,
    Failed,
    Loaded,
    Prepared,
    Preparing,
    Progress,
    Queued,
    Started,
    ThreadEnded,
)
from anyload.testing import (
    PATIENCE,
    FakeModel,
    Gate,
    raises,
    returns_at_once,
    settled,
    waits_at,
)


class Heard:
    """A hook that keeps what it hears."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def __call__(self, event: Event) -> None:
        self.events.append(event)

    def names(self) -> list[str]:
        return [type(event).__name__ for event in self.events]

    def report(self) -> LoadReport:
        (report,) = [one.report for one in self.events if isinstance(one, (Loaded, Failed))]
        return report


async def test_a_step_that_loads_wait_for_is_told_of_once() -> None:
    """`Preparing` and `Prepared` stand around a ``prepare``; the next load has none."""
    heard = Heard()
    async with Initializer(registry_of(m=prepares(lambda: None)), hooks=[heard]) as initializer:
        await initializer.init(ModelConfig("m"))
        await initializer.init(ModelConfig("m"))
        await settled(initializer)
    one_load = ["Queued", "Started", "AttemptEnded", "Loaded"]
    assert heard.names() == ["Preparing", "Prepared", *one_load, *one_load]
    preparing, prepared, queued, started = heard.events[:4]
    assert isinstance(preparing, Preparing)
    assert isinstance(prepared, Prepared)
    assert isinstance(queued, Queued)
    assert isinstance(started, Started)
    assert preparing.model == prepared.model == "m"
    assert preparing.what == prepared.what
    assert preparing.what.startswith("prepare() of ")
    assert prepared.seconds == prepared.at - preparing.at
    assert prepared.error == ""
    assert preparing.at <= prepared.at <= queued.at <= started.at
    assert started.thread != threading.get_ident()


async def test_a_step_that_raises_is_told_of_with_its_error() -> None:
    """`Prepared` says what a ``prepare`` raised; the start of a backend is such a step too."""
    heard = Heard()

    class Fragile(Backend):
        backend_type = "FRAGILE"

        def start(self) -> None:
            raise OSError("no driver")

    registry = Registry()
    registry.backend_type(Fragile)
    registry.module("m", "FRAGILE")(returns_at_once())
    options: dict[str, Any] = {"backend_priority": [{"type": "FRAGILE"}]}
    async with Initializer(registry, hooks=[heard], **options) as initializer:
        with pytest.raises(AnyloadError):
            await initializer.init(ModelConfig("m"))
        await settled(initializer)
    (prepared,) = [event for event in heard.events if isinstance(event, Prepared)]
    assert prepared.what == "start() of backend FRAGILE"
    assert prepared.error == "OSError: no driver"


async def test_each_event_of_a_load_says_what_happened() -> None:
    """Two backends' turns, told of in their order, with all that there is to say of each."""
    heard, threads = Heard(), list[int]()

    def loads(config: ModelConfig) -> None:
        threads.append(threading.get_ident())
        report_progress(0.5, stage="reading")

    registry = registry_of_two(raises(lambda: ValueError("torn")), does(loads))
    options: dict[str, Any] = {"backend_priority": GPU_THEN_LOCAL, "hooks": [heard]}
    before = monotonic()
    async with Initializer(registry, **options) as initializer:
        await initializer.init(ModelConfig("m"))
        await settled(initializer)
    report = heard.report()
    first, second = report.attempts
    told = [replace(event, at=0.0) for event in heard.events]
    started = told[1]
    assert isinstance(started, Started)
    assert told == [
        Queued("m", 0.0, "GPU"),
        Started("m", 0.0, "GPU", started.thread),
        AttemptEnded("m", 0.0, first),
        Queued("m", 0.0, "LOCAL"),
        Started("m", 0.0, "LOCAL", *threads),
        Progress("m", 0.0, "LOCAL", 0.5, "reading"),
        AttemptEnded("m", 0.0, second),
        Loaded("m", 0.0, report),
    ]
    times = [before, *(event.at for event in heard.events), monotonic()]
    assert times == sorted(times)
    assert report.total_seconds <= monotonic() - before
    assert report.load_seconds == sum(turn.load_seconds or 0.0 for turn in report.attempts)
    assert report.queue_seconds == sum(turn.queue_seconds for turn in report.attempts)


async def test_each_event_of_a_late_load_says_what_happened(gate: Gate) -> None:
    """Who it was, where its thread is, how long that has been there, and why its model goes."""
    heard, hang = Heard(), Gate()
    module = waits_at(gate, release=lambda model: hang.enter())
    backends = [{"type": "LOCAL", "timeout": PATIENCE}]
    options: dict[str, Any] = {"backend_priority": backends, "release_timeout": PATIENCE}
    before = monotonic()
    async with (
        Initializer(registry_of(m=module), hooks=[heard], **options) as initializer,
        create_task_group() as tasks,
    ):
        calls = Calls(tasks)
        calls.start("m", initializer, ModelConfig("m"))
        await gate.entered()
        let_pass(initializer, PATIENCE)
        error = await calls.result("m")
        gate.open()
        await hang.entered()
        let_pass(initializer, PATIENCE)
        hang.open()
        await settled(initializer)
    (attempt,) = heard.report().attempts
    told = [replace(event, at=0.0) for event in heard.events[2:]]
    load, _, _, ended, _, release = told
    assert isinstance(load, Abandoned)
    assert isinstance(ended, ThreadEnded)
    assert isinstance(release, Abandoned)
    assert told == [
        Abandoned("m", 0.0, "LOCAL", load.stack),
        AttemptEnded("m", 0.0, attempt),
        Failed("m", 0.0, heard.report(), describe(error)),
        ThreadEnded("m", 0.0, "LOCAL", ended.age, ""),
        Discarded("m", 0.0, "LOCAL", "it came after its limit"),
        Abandoned("m", 0.0, "LOCAL", release.stack),
    ]
    assert " enter\n" in load.stack
    assert " enter\n" in release.stack
    assert 0.0 <= ended.age <= monotonic() - before
    assert before <= min(event.at for event in heard.events)


async def test_the_report_says_how_long_the_warm_up_took() -> None:
    """It is part of the load, and None where nothing warmed up."""

    def warm(model: FakeModel) -> None:
        pass

    for attributes, option, warmed in (
        ({"warmup": warm}, True, True),
        ({"warmup": warm}, False, False),
        ({}, True, False),
    ):
        heard = Heard()
        registry = registry_of(m=returns_at_once(**attributes))
        async with Initializer(registry, hooks=[heard], warmup=option) as initializer:
            await initializer.init(ModelConfig("m"))
            await settled(initializer)
        took = heard.report().observed.warmup_seconds
        assert (took is not None) == warmed
        assert (took or 0) <= heard.report().load_seconds


async def test_a_warm_up_that_raises_took_its_time_too() -> None:
    """The attempt that it has ended says how long it was in there."""

    def fails(model: FakeModel) -> None:
        raise ValueError("cold")

    heard = Heard()
    async with Initializer(
        registry_of(m=returns_at_once(warmup=fails)), hooks=[heard]
    ) as initializer:
        with pytest.raises(AnyloadError, match="cold"):
            await initializer.init(ModelConfig("m"))
        await settled(initializer)
    assert heard.report().observed.warmup_seconds is not None
