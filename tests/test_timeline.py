"""Timelines: what is made of events, of a run, and of what has not ended."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict
from functools import partial
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any

import anyio
import pytest
from scenes import LIMIT, error_of_late, registry_of
from test_prepare import prepares

from anyload import BulkLoadError, Initializer, ModelConfig, Recorder, Timeline
from anyload._drawing.lanes import depth_of_queue, lanes_of
from anyload._drawing.trace import chrome_trace
from anyload._retelling import timeline_of
from anyload.events import (
    Abandoned,
    AttemptEnded,
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
from anyload.reports import Attempt, LoadReport, Observed, Outcome
from anyload.testing import Gate, raises, returns_at_once, settled, until, waits_at
from anyload.timeline import Span


def attempt(
    outcome: Outcome, seconds: float | None, warmup: float | None = None, reason: str = ""
) -> Attempt:
    observed = Observed(warmup_seconds=warmup)
    return Attempt("LOCAL", outcome, reason, "m.M", 0.0, seconds, observed=observed)


def report(model: str, total: float, *attempts: Attempt) -> LoadReport:
    backend = "LOCAL" if attempts[-1].outcome == "loaded" else None
    took = sum(one.load_seconds or 0 for one in attempts)
    return LoadReport(model, "m", backend, attempts, 0.0, took, total)


def told(timeline: Timeline) -> list[tuple[Any, ...]]:
    """Return the spans in few words."""
    return [
        (span.kind, span.model, round(span.start, 6), round(span.end, 6)) for span in timeline.spans
    ]


def retold(events: Iterable[Event], end: float = 100.0) -> Timeline:
    return timeline_of(events, until=end)


# What is made of events


def test_nothing_is_an_empty_timeline() -> None:
    """Without events it has no length."""
    timeline = retold([])
    assert (timeline.spans, timeline.loads, timeline.seconds) == ((), (), 0.0)


def test_a_load_from_request_to_model() -> None:
    """Each phase is a span: not ready, import, queue, load, warm-up; time begins at the request."""
    ended = attempt("loaded", 3.0, warmup=1.0)
    timeline = retold(
        [
            Preparing("a", 11.0, "prepare() of m.M"),
            Prepared("a", 12.0, "prepare() of m.M", 1.0, ""),
            Queued("a", 12.0, "LOCAL"),
            Started("a", 13.0, "LOCAL", 1),
            Progress("a", 14.0, "LOCAL", 0.5, None),
            AttemptEnded("a", 16.0, ended),
            Loaded("a", 16.0, report("a", 6.0, ended)),
        ]
    )
    assert told(timeline) == [
        ("wait", "a", 0.0, 2.0),
        ("prepare", "a", 1.0, 2.0),
        ("queue", "a", 2.0, 3.0),
        ("load", "a", 3.0, 5.0),
        ("warm-up", "a", 5.0, 6.0),
    ]
    (load,) = timeline.loads
    assert (load.start, load.end, load.seconds, load.load_seconds) == (0.0, 6.0, 6.0, 3.0)
    assert (load.backend, load.error, load.attempts) == ("LOCAL", "", 1)
    assert {span.load for span in timeline.spans if span.kind != "prepare"} == {0}
    assert timeline.seconds == 6.0
    assert timeline.seconds_of("load", "warm-up") == 3.0


def test_an_attempt_that_failed_is_followed_by_the_next() -> None:
    """The time until the next backend was ready belongs to the load too."""
    first, second = attempt("raised", 1.0, reason="boom"), attempt("loaded", 1.0)
    skipped = attempt("skipped", None)
    timeline = retold(
        [
            AttemptEnded("a", 0.0, skipped),
            Queued("a", 0.0, "LOCAL"),
            Started("a", 0.0, "LOCAL", 1),
            AttemptEnded("a", 1.0, first),
            Queued("a", 1.5, "LOCAL"),
            Started("a", 2.0, "LOCAL", 2),
            AttemptEnded("a", 3.0, second),
            Loaded("a", 3.0, report("a", 3.0, skipped, first, second)),
        ]
    )
    assert told(timeline) == [
        ("queue", "a", 0.0, 0.0),
        ("failed", "a", 0.0, 1.0),
        ("wait", "a", 1.0, 1.5),
        ("queue", "a", 1.5, 2.0),
        ("load", "a", 2.0, 3.0),
    ]
    assert timeline.spans[1].text == "LOCAL raised: boom"
    assert timeline.loads[0].attempts == 2


@pytest.mark.parametrize(
    ("abandoned", "expected"),
    [
        (None, [("overdue", 2.0, 5.0)]),
        (2.0, [("abandoned", 2.0, 5.0)]),
        (3.0, [("overdue", 2.0, 3.0), ("abandoned", 3.0, 5.0)]),
    ],
)
def test_a_thread_past_its_limit(
    abandoned: float | None, expected: list[tuple[str, float, float]]
) -> None:
    """It is overdue as long as it keeps its slot, then abandoned, until it ends."""
    late = attempt("timed_out", 2.0, reason="after 2 s")
    ended: Event = AttemptEnded("a", 2.0, late)
    left = [Abandoned("a", abandoned, "LOCAL", "")] if abandoned else []
    # What abandons a thread at its limit says so before it tells of the attempt.
    events = [*left, ended] if abandoned == 2.0 else [ended, *left]
    begun: list[Event] = [Started("a", 0.0, "LOCAL", 1)]
    failed = Failed("a", 2.0, report("a", 2.0, late), "no")
    for end in ([ThreadEnded("a", 5.0, "LOCAL", 5.0, "")], []):
        timeline = retold([*begun, *events, failed, *end], 5.0)
        spans = [(span.kind, span.start, span.end) for span in timeline.spans]
        assert spans == [("failed", 0.0, 2.0), *expected]
        assert timeline.spans[-1].ended == bool(end)
        assert timeline.loads[0].error == "no"


def test_loads_of_one_model_are_told_apart() -> None:
    """By how long each says that it took."""
    slow, fast = attempt("loaded", 9.0), attempt("loaded", 1.0)
    timeline = retold(
        [
            Queued("a", 0.0, "LOCAL"),
            Started("a", 0.0, "LOCAL", 1),
            Queued("a", 1.0, "LOCAL"),
            Started("a", 2.0, "LOCAL", 2),
            AttemptEnded("a", 3.0, fast),
            Loaded("a", 3.0, report("a", 2.0, fast)),
            AttemptEnded("a", 9.0, slow),
            Loaded("a", 9.0, report("a", 9.0, slow)),
        ]
    )
    loads = [(span.start, span.end, span.load) for span in timeline.of("load")]
    assert loads == [(0.0, 9.0, 0), (2.0, 3.0, 1)]
    assert [load.seconds for load in timeline.loads] == [9.0, 2.0]


def test_a_load_inside_another_is_in_its_lane() -> None:
    """It runs on the same thread, one deeper."""
    inner, outer = attempt("loaded", 1.0), attempt("loaded", 3.0)
    timeline = retold(
        [
            Started("outer", 0.0, "LOCAL", 7),
            Started("inner", 1.0, "LOCAL", 7),
            AttemptEnded("inner", 2.0, inner),
            AttemptEnded("outer", 3.0, outer),
        ]
    )
    (lane,) = lanes_of(timeline)
    assert [(span.model, span.depth) for span in lane.spans] == [("outer", 0), ("inner", 1)]


def test_what_never_got_to_a_thread_was_queued_all_the_same() -> None:
    """An attempt that ended in the queue, and a step that raised, are there with their reason."""
    timeline = retold(
        [
            Prepared("a", 1.0, "prepare() of m.M", 1.0, "ImportError: m"),
            Queued("a", 1.0, "LOCAL"),
            AttemptEnded("a", 3.0, attempt("timed_out", None, reason="its group is held")),
        ]
    )
    assert told(timeline) == [("prepare", "a", 0.0, 1.0), ("queue", "a", 1.0, 3.0)]
    assert timeline.spans[0].text == "prepare() of m.M: ImportError: m"
    assert timeline.spans[1].text == "LOCAL timed_out: its group is held"


def test_what_has_not_ended_goes_on() -> None:
    """Imports, queued and running loads reach to the end, and say so."""
    timeline = retold(
        [
            Preparing("a", 0.0, "prepare() of m.M"),
            Queued("b", 1.0, "LOCAL"),
            Started("c", 2.0, "LOCAL", 1),
        ],
        4.0,
    )
    assert told(timeline) == [
        ("prepare", "a", 0.0, 4.0),
        ("queue", "b", 1.0, 4.0),
        ("load", "c", 2.0, 4.0),
    ]
    assert not any(span.ended for span in timeline.spans)


@pytest.mark.parametrize("ended", [True, False])
def test_a_load_that_a_close_has_cut_short(ended: bool) -> None:
    """There is no end of its attempt; it is abandoned, until its thread ends."""
    events: list[Event] = [Started("a", 0.0, "LOCAL", 1), Abandoned("a", 1.0, "LOCAL", "")]
    events += [ThreadEnded("a", 3.0, "LOCAL", 3.0, "")] if ended else []
    timeline = retold(events, 3.0)
    assert told(timeline) == [("failed", "a", 0.0, 1.0), ("abandoned", "a", 1.0, 3.0)]
    assert timeline.spans[0].ended
    assert timeline.spans[1].ended == ended


def test_an_overdue_load_that_a_close_has_cut_short() -> None:
    """A thread that ends without having been abandoned was on its slot all the time."""
    timeline = retold([Started("a", 0.0, "LOCAL", 1), ThreadEnded("a", 3.0, "LOCAL", 3.0, "")])
    assert told(timeline) == [("failed", "a", 0.0, 3.0)]


def test_events_whose_beginning_is_forgotten_do_no_harm() -> None:
    """A recorder keeps so many; what it has no start of is left out."""
    ended = attempt("loaded", 1.0)
    timeline = retold(
        [
            AttemptEnded("a", 1.0, ended),
            Abandoned("a", 1.0, "LOCAL", ""),
            ThreadEnded("a", 2.0, "LOCAL", 2.0, ""),
            Loaded("a", 2.0, report("a", 2.0, ended)),
        ]
    )
    assert timeline.spans == ()
    assert timeline.loads[0].seconds == 2.0


def test_gaps_are_cut_to_the_timeline() -> None:
    """What the event loop did before and after is not shown."""
    events = [Started("a", 10.0, "LOCAL", 1), AttemptEnded("a", 12.0, attempt("loaded", 2.0))]
    gaps = [(1.0, 2.0), (9.0, 10.5), (11.0, 11.25), (11.5, 13.0), (14.0, 15.0)]
    timeline = timeline_of(events, until=20.0, gaps=gaps, watched=True)
    assert timeline.gaps == ((0.0, 0.5), (1.0, 1.25), (1.5, 2.0))


def test_a_timeline_goes_through_json() -> None:
    """As it goes from one process to another."""
    events = [Started("a", 10.0, "LOCAL", 1), AttemptEnded("a", 12.0, attempt("loaded", 2.0))]
    timeline = timeline_of(events, until=20.0, gaps=[(11.0, 11.5)], watched=True)
    assert Timeline.from_document(json.loads(json.dumps(asdict(timeline)))) == timeline


# Lanes


def span(kind: Any, start: float, end: float, run: int | None = None) -> Span:
    return Span(kind, "a", start, end, run=run)


def test_lanes_are_as_many_as_loads_at_once() -> None:
    """Each load is in the first that is free; one that ends makes room for one that begins."""
    spans = (
        span("load", 0, 2, 1),
        span("load", 0, 3, 2),
        span("failed", 2, 3, 3),
        span("overdue", 3, 5, 3),
        span("load", 3, 4, 4),
        span("abandoned", 5, 6, 3),
        span("abandoned", 5, 6, 5),
        span("prepare", 0, 1),
    )
    lanes = lanes_of(Timeline(spans, (), (), 6.0))
    assert [lane.name for lane in lanes] == [
        "imports",
        "slot 1",
        "slot 2",
        "abandoned 1",
        "abandoned 2",
    ]
    slots = [[(one.run, one.start) for one in lane.spans] for lane in lanes[1:3]]
    assert slots == [[(1, 0), (3, 2), (3, 3)], [(2, 0), (4, 3)]]


def test_a_load_that_outlives_the_one_around_it_is_drawn_until_then() -> None:
    """A limit has cut that short; what comes after belongs to the thread that is past it."""

    def inner(kind: Any, start: float, end: float, run: int) -> Span:
        return Span(kind, "inner", start, end, run=run, depth=1)

    spans = (
        span("failed", 0, 2, 1),
        inner("load", 1, 4, 1),
        span("overdue", 2, 5, 1),
        inner("warm-up", 4, 6, 1),
        span("failed", 0, 2.0004, 2),
        inner("load", 1.0001, 3, 2),
        Span("failed", "innermost", 1.5, 3.5, run=2, depth=2),
        span("abandoned", 2.0004, 7, 2),
        inner("load", 3, 6, 2),
        span("load", 2.0004, 4, 3),
    )
    timeline = Timeline(spans, (), (), 7.0)
    drawn = {
        lane.name: [(one.kind, one.depth, one.start, one.end) for one in lane.spans]
        for lane in lanes_of(timeline)
    }
    assert drawn == {
        "slot 1": [
            ("failed", 0, 0, 2),
            ("load", 1, 1, 2),
            ("overdue", 0, 2, 5),
            ("warm-up", 1, 4, 5),
        ],
        "slot 2": [
            ("failed", 0, 0, 2.0004),
            ("load", 1, 1.0001, 2.0004),
            ("failed", 2, 1.5, 2.0004),
            ("load", 0, 2.0004, 4),
        ],
        "abandoned": [("abandoned", 0, 2.0004, 7), ("load", 1, 3, 6)],
    }
    whole = [one for one in chrome_trace(timeline)["traceEvents"] if one["ph"] == "X"]
    for one, other in combinations(whole, 2):
        if one["tid"] == other["tid"] and other["ts"] < one["ts"] + one["dur"]:
            assert other["ts"] + other["dur"] <= one["ts"] + one["dur"]


def test_rounding_leaves_what_is_inside_inside() -> None:
    """The ends of a trace's events are as exact as their beginnings."""
    spans = (span("load", 0.0000000004, 1.0000000005, 1), span("load", 0, 1.0000000005, 2))
    ends = [
        round(one["ts"] + one["dur"], 3)
        for one in chrome_trace(Timeline(spans, (), (), 2.0))["traceEvents"]
        if one["ph"] == "X"
    ]
    assert ends == [1_000_000.001, 1_000_000.001]


def test_the_depth_of_the_queue() -> None:
    """It changes where something comes or goes, and ends at nothing."""
    spans = [span("queue", 0, 2), span("queue", 0, 3), span("queue", 2, 5), span("queue", 4, 4)]
    assert depth_of_queue(spans) == [(0, 2), (3, 1), (5, 0)]


# A run


async def test_a_recorder_tells_of_a_run() -> None:
    """Imports, loads, failures and gaps of a real bulk; it is at rest in between."""
    recorder = Recorder()
    registry = registry_of(
        plain=prepares(lambda: None),
        broken=raises(partial(MemoryError, "full")),
        warm=returns_at_once(warmup=lambda model: None),
    )
    async with Initializer(registry, hooks=[recorder]) as initializer:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(recorder.watch_loop)
            with pytest.raises(BulkLoadError):
                await initializer.init_many([ModelConfig(m) for m in ("plain", "broken", "warm")])
            tasks.cancel_scope.cancel()
        await settled(initializer)
    timeline = recorder.timeline()
    assert timeline.watched
    assert not timeline.cut
    assert sorted((load.backend, load.error == "") for load in timeline.loads if load.backend) == [
        ("LOCAL", True),
        ("LOCAL", True),
    ]
    assert [one.model for one in timeline.of("failed")] == ["broken"]
    assert [one.model for one in timeline.of("warm-up")] == ["warm"]
    assert [one.model for one in timeline.of("prepare")] == ["plain"]
    assert all(
        one.ended and 0 <= one.start <= one.end <= timeline.seconds for one in timeline.spans
    )


async def test_a_recorder_tells_of_what_still_runs() -> None:
    """A timeline can be had at any time; an abandoned thread is in it until it ends."""
    gate, recorder = Gate(), Recorder()
    options: dict[str, Any] = {"backend_priority": [{"type": "LOCAL", "timeout": LIMIT}]}
    async with Initializer(registry_of(m=waits_at(gate)), hooks=[recorder], **options) as one:
        assert "timed out" in str(await error_of_late(one, ModelConfig("m"), gate))
        # Hooks may hear of it a moment after its caller.
        await until(lambda: len(recorder.timeline().of("abandoned")) == 1)
        (late,) = recorder.timeline().of("abandoned")
        assert not late.ended
        gate.open()
        await settled(one)
        await until(lambda: recorder.timeline().of("abandoned")[0].ended)
    (lane,) = [lane for lane in lanes_of(recorder.timeline()) if lane.name == "abandoned"]
    assert len(lane.spans) == 1


async def test_a_nested_load_takes_no_lane_of_its_own() -> None:
    """What a load loads is drawn inside of it."""
    recorder = Recorder()
    registry = registry_of(inner=returns_at_once())
    async with Initializer(registry, hooks=[recorder]) as initializer:

        class Outer:
            @classmethod
            def load(cls, config: ModelConfig) -> Outer:
                initializer.init_sync(ModelConfig("inner"))
                return cls()

        registry.module("outer")(Outer)
        await initializer.init(ModelConfig("outer"))
        await settled(initializer)
    (lane,) = lanes_of(recorder.timeline())
    assert [(one.model, one.depth) for one in lane.spans] == [("outer", 0), ("inner", 1)]


async def test_a_recorder_forgets_the_first_when_there_is_too_much() -> None:
    """It keeps a bounded number of events, and says that the beginning is missing."""
    recorder = Recorder(most_events=8)
    async with Initializer(registry_of(m=returns_at_once()), hooks=[recorder]) as initializer:
        for _ in range(5):
            await initializer.init(ModelConfig("m"))
        await settled(initializer)
    timeline = recorder.timeline()
    assert timeline.cut
    assert len(timeline.loads) == 2


async def test_a_recorder_writes_its_files(tmp_path: Path) -> None:
    """A picture and a trace, in which its loads are."""
    recorder = Recorder()
    async with Initializer(registry_of(m=returns_at_once()), hooks=[recorder]) as initializer:
        await initializer.init(ModelConfig("m"))
        await settled(initializer)
    recorder.write_html(tmp_path / "t.html", title="Boot")
    recorder.write_trace(tmp_path / "t.json")
    assert "<h1>Boot</h1>" in (tmp_path / "t.html").read_text(encoding="utf-8")
    trace = json.loads((tmp_path / "t.json").read_text(encoding="utf-8"))
    assert trace == chrome_trace(recorder.timeline())
    assert [one["name"] for one in trace["traceEvents"] if one["ph"] == "X"] == ["m"]


async def test_there_are_never_more_lanes_than_slots() -> None:
    """Failures, hand-overs and warm-ups included: a slot does one thing at a time."""
    recorder = Recorder()

    class Flaky:
        @classmethod
        def load(cls, config: ModelConfig) -> Flaky:
            if config["number"] % 3 == 0:
                raise ValueError("now and then")
            return cls()

        def warmup(self) -> None:
            pass

    registry = registry_of()
    registry.module("flaky")(Flaky)
    registry.module("flaky", "GPU")(raises(partial(MemoryError, "full")))
    options: dict[str, Any] = {"backend_priority": [{"type": "GPU"}, {"type": "LOCAL"}]}
    async with Initializer(
        registry, hooks=[recorder], max_concurrent_loads=3, **options
    ) as initializer:
        with pytest.raises(BulkLoadError):
            await initializer.init_many(
                [ModelConfig("flaky", number=number) for number in range(60)]
            )
        await settled(initializer)
    lanes = [lane for lane in lanes_of(recorder.timeline()) if lane.name.startswith("slot")]
    assert 1 <= len(lanes) <= 3
    for lane in lanes:
        ordered = sorted(lane.spans, key=lambda one: (one.start, one.end))
        assert all(one.end <= other.start for one, other in pairwise(ordered))
