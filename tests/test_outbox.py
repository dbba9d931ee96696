"""The outbox: events in one order, hooks that do no harm, and what is logged."""

from __future__ import annotations

import logging

import pytest

from anyload import Attempt, LoadReport
from anyload._outbox import Outbox
from anyload.events import (
    Abandoned,
    AttemptEnded,
    Discarded,
    Event,
    Failed,
    Loaded,
    Queued,
    ThreadEnded,
)

REPORT = LoadReport("m", "s", "LOCAL", (), 0.0, 0.1, 0.1)
EVENTS: list[tuple[Event, int | None, str]] = [
    (Abandoned("m", 0.0, "GPU", "w.py:1 f"), logging.WARNING, "abandoned"),
    (ThreadEnded("m", 0.0, "GPU", 1.0, ""), logging.INFO, "has ended"),
    (ThreadEnded("m", 0.0, "GPU", 1.0, "LoadCancelled: no"), logging.INFO, "has ended"),
    (ThreadEnded("m", 0.0, "GPU", 1.0, "ValueError: x"), logging.WARNING, "ValueError: x"),
    (Discarded("m", 0.0, "GPU", "too late"), logging.INFO, "too late"),
    (AttemptEnded("m", 0.0, Attempt("GPU", "declined", "no")), logging.INFO, "GPU  declined  no"),
    (Loaded("m", 0.0, REPORT), logging.INFO, "loaded 'm' on LOCAL"),
    (Failed("m", 0.0, REPORT, "LoadError: x"), logging.INFO, "could not load 'm'"),
    (Queued("m", 0.0, "GPU"), None, ""),
]


@pytest.mark.parametrize(("event", "level", "says"), EVENTS)
def test_what_is_logged(
    event: Event, level: int | None, says: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A thread out of hand is a warning, the ordinary course is for information."""
    caplog.set_level(logging.INFO, "anyload")
    outbox = Outbox([])
    assert outbox.wanted
    outbox.put(event)
    outbox.deliver()
    assert [record.levelno for record in caplog.records] == ([] if level is None else [level])
    assert says in caplog.text


def test_ordinary_events_are_not_wanted_without_an_audience() -> None:
    """With no hook and no log at that level nothing has to be made."""
    assert not Outbox([]).wanted
    assert Outbox([print]).wanted


def test_a_hook_that_raises_is_logged_and_does_no_harm(caplog: pytest.LogCaptureFixture) -> None:
    """The other hooks hear of the event all the same."""
    heard: list[Event] = []

    def broken(event: Event) -> None:
        raise ValueError("broken hook")

    outbox = Outbox([broken, heard.append])
    outbox.put(Queued("m", 0.0, "GPU"))
    outbox.deliver()
    assert heard == [Queued("m", 0.0, "GPU")]
    assert "broken hook" in caplog.text
    assert caplog.records[0].name == "anyload.hooks"


def test_an_event_put_by_a_hook_comes_after_the_one_it_answers() -> None:
    """The order of puts is the order of delivery, also from inside a hook."""
    heard: list[str] = []

    def answer(event: Event) -> None:
        heard.append(event.model)
        if event.model == "first":
            outbox.put(Queued("third", 0.0, "GPU"))
            outbox.deliver()

    outbox = Outbox([answer])
    outbox.put(Queued("first", 0.0, "GPU"))
    outbox.put(Queued("second", 0.0, "GPU"))
    outbox.deliver()
    assert heard == ["first", "second", "third"]
