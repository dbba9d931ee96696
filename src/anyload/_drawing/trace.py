"""A timeline as Chrome trace events, which Perfetto and ``chrome://tracing`` show. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ..timeline import Span, Timeline
from .lanes import depth_of_queue, lanes_of

PROCESS = 1


def chrome_trace(timeline: Timeline) -> dict[str, Any]:
    """Return the document: a thread for each lane, a counter of the queue, the loop's gaps."""
    return {"displayTimeUnit": "ms", "traceEvents": list(_events(timeline))}


def _events(timeline: Timeline) -> Iterator[dict[str, Any]]:
    yield {"ph": "M", "name": "process_name", "pid": PROCESS, "args": {"name": "anyload"}}
    threads = [(lane.name, lane.spans) for lane in lanes_of(timeline)]
    gaps = tuple(Span("wait", "event loop stopped", *gap) for gap in timeline.gaps)
    if gaps:
        threads.insert(0, ("event loop", gaps))
    for thread, (name, spans) in enumerate(threads, 1):
        yield _named(thread, name)
        for span in spans:
            yield _complete(span, thread, "gap" if spans is gaps else span.kind)
    for number, span in enumerate(timeline.of("wait", "queue"), 1):
        same = {"name": span.model, "cat": span.kind, "id": number, "pid": PROCESS, "tid": 0}
        yield {**same, "ph": "b", "ts": _micros(span.start), "args": {"kind": span.kind}}
        yield {**same, "ph": "e", "ts": _micros(span.end)}
    for at, number in depth_of_queue(timeline.of("queue")):
        yield {
            "ph": "C",
            "name": "queued",
            "pid": PROCESS,
            "tid": 0,
            "ts": _micros(at),
            "args": {"loads": number},
        }


def _named(thread: int, name: str) -> dict[str, Any]:
    return {
        "ph": "M",
        "name": "thread_name",
        "pid": PROCESS,
        "tid": thread,
        "args": {"name": name},
    }


def _complete(span: Span, thread: int, kind: str) -> dict[str, Any]:
    """Return the event of one span; its name says what it is, if that is not a plain load."""
    name = span.model if kind in ("load", "gap") else f"{kind}: {span.model}"
    start, end = _micros(span.start), _micros(span.end)
    return {
        "ph": "X",
        "name": name,
        "cat": kind,
        "pid": PROCESS,
        "tid": thread,
        "ts": start,
        "dur": round(end - start, 3),  # so that what is inside another stays there
        "args": {"kind": kind, "text": span.text, "ended": span.ended},
    }


def _micros(seconds: float) -> float:
    return round(seconds * 1e6, 3)
