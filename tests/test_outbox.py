"""The log: one line for what happened to a load, and a warning where a thread is out of hand."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from anyload._load.outbox import Outbox, log_event
from anyload.events import (
    Abandoned,
    AttemptEnded,
    Cancelled,
    Discarded,
    Event,
    Failed,
    Loaded,
    Queued,
    ThreadEnded,
)
from anyload.reports import Attempt, LoadReport

REPORT = LoadReport("m", "m", "GPU", (), 0.0, 0.0, 0.0)

LINES: list[tuple[Event, int, str]] = [
    (Abandoned("m", 0.0, "GPU", "stack"), logging.WARNING, "the load of 'm' on GPU is abandoned"),
    (
        ThreadEnded("m", 0.0, "GPU", 1.0, ""),
        logging.INFO,
        "the late load of 'm' on GPU has ended",
    ),
    (
        ThreadEnded("m", 0.0, "GPU", 1.0, "LoadCancelled: told to stop"),
        logging.INFO,
        "the late load of 'm' on GPU has ended",
    ),
    (
        ThreadEnded("m", 0.0, "GPU", 1.0, "ValueError: no"),
        logging.WARNING,
        "the late load of 'm' on GPU: ValueError: no",
    ),
    (
        Discarded("m", 0.0, "GPU", "it came too late"),
        logging.INFO,
        "a loaded 'm' is discarded: it came too late",
    ),
    (
        AttemptEnded("m", 0.0, Attempt("GPU", "raised", "ValueError: no")),
        logging.INFO,
        "loading 'm': GPU  raised  ValueError: no",
    ),
    (Loaded("m", 0.0, REPORT), logging.INFO, "loaded 'm' on GPU"),
    (Failed("m", 0.0, REPORT, "no backend"), logging.INFO, "could not load 'm': no backend"),
    (Cancelled("m", 0.0, REPORT), logging.INFO, "nobody waits for 'm' any more"),
]


@pytest.mark.parametrize(("event", "level", "line"), LINES, ids=lambda value: str(value)[:24])
def test_each_event_is_a_line(
    caplog: pytest.LogCaptureFixture, event: Event, level: int, line: str
) -> None:
    """At INFO each of these events is logged once, at its level, by name."""
    with caplog.at_level(logging.INFO, "anyload.loads"):
        log_event(event)
    assert caplog.record_tuples == [("anyload.loads", level, line)]


def test_the_ordinary_is_not_logged_above_info(caplog: pytest.LogCaptureFixture) -> None:
    """At WARNING only a thread that is out of hand is logged."""
    with caplog.at_level(logging.WARNING, "anyload.loads"):
        for event, _, _ in LINES:
            log_event(event)
    assert [record.levelno for record in caplog.records] == [logging.WARNING] * 2


def test_waiting_is_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    """That a load was queued is for hooks only: the log says what came of it."""
    seen = list[Event]()
    outbox = Outbox([seen.append])
    event = Queued("m", 0.0, "GPU")
    with caplog.at_level(logging.INFO, "anyload.loads"):
        outbox.put(event)
        outbox.deliver()
    assert seen == [event]
    assert caplog.records == []


def test_a_line_waits_for_its_delivery(caplog: pytest.LogCaptureFixture) -> None:
    """What is to be logged is logged when the lock is free, in its order, and is for no hook."""
    seen = list[Event]()
    outbox = Outbox([seen.append])
    event = Abandoned("m", 0.0, "GPU", "stack")
    outbox.warn("a line with %s in it")
    outbox.put(event)
    assert caplog.records == []
    outbox.deliver()
    assert [record.getMessage() for record in caplog.records] == [
        "a line with %s in it",
        "the load of 'm' on GPU is abandoned",
    ]
    assert seen == [event]


@contextmanager
def full_disk() -> Iterator[None]:
    """Have every line that is logged raise."""

    class Raises(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            raise OSError("no space left on device")

    logger, handler = logging.getLogger("anyload"), Raises()
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)


def test_what_a_log_handler_raises_goes_no_further() -> None:
    """Whoever delivers has something else to do: an event, a line and a broken hook are no help."""
    heard: list[Event] = []

    def broken(event: Event) -> None:
        raise ValueError("a bug")

    outbox, event = Outbox([broken, heard.append]), Abandoned("m", 0.0, "GPU", "stack")
    outbox.put(event)
    outbox.warn("a line")
    outbox.put(event)
    with full_disk():
        outbox.deliver()
    assert heard == [event, event]
