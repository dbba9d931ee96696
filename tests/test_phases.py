"""Imports, loads and warm-ups are told apart: by events, and in the report of a load."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from scenes import registry_of
from test_prepare import prepares

from anyload import AnyloadError, Backend, Initializer, LoadReport, ModelConfig, Registry
from anyload.events import Event, Failed, Loaded, Prepared, Preparing, Queued, Started
from anyload.testing import FakeModel, returns_at_once, settled


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
