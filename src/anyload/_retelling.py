"""From events to a timeline. Pure.

Events do not say which load they belong to, only which model and backend. Which of several loads
of one model an event is about follows from how long it says that took.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from .events import (
    Abandoned,
    AttemptEnded,
    Event,
    Failed,
    Loaded,
    Prepared,
    Preparing,
    Queued,
    Started,
    ThreadEnded,
)
from .reports import Attempt, LoadReport
from .timeline import Gap, Kind, Load, Span, Timeline

CUT_SHORT = "cut short by a close"


def timeline_of(
    events: Iterable[Event],
    *,
    until: float,
    gaps: Sequence[Gap] = (),
    watched: bool = False,
    cut: bool = False,
) -> Timeline:
    """Return the timeline that events make.

    Args:
        events: in their order.
        until: the end of what has not ended, on the clock of the events.
        gaps: when the event loop was kept from running, on that clock.
        watched: whether somebody looked for such gaps.
        cut: whether earlier events were forgotten.
    """
    retelling = _Retelling()
    for event in events:
        retelling.hear(event)
    retelling.end_at(until)
    loads = retelling.loads()
    spans = sorted(retelling.spans, key=lambda span: span.start)
    began = min([*(one.start for one in spans), *(one.start for one in loads)], default=until)
    end = max([*(one.end for one in spans), *(one.end for one in loads)], default=began)
    return Timeline(
        tuple(replace(one, start=one.start - began, end=one.end - began) for one in spans),
        tuple(replace(one, start=one.start - began, end=one.end - began) for one in loads),
        tuple(
            (max(start, began) - began, min(to, end) - began)
            for start, to in gaps
            if to > began and start < end
        ),
        end - began,
        watched,
        cut,
    )


@dataclass(slots=True, eq=False)
class _Run:
    """A thread's stay in one ``load``, as far as it is known yet."""

    model: str
    backend: str
    start: float
    thread: int
    number: int
    depth: int
    queued: float | None
    ended: float = 0.0
    late_from: float | None = None
    abandoned: float | None = None
    text: str = ""
    places: list[int] = field(default_factory=list)
    """Where its spans are."""


@dataclass(slots=True)
class _Retelling:
    """The events so far, as spans on their own clock."""

    spans: list[Span] = field(default_factory=list)
    preparing: list[Preparing] = field(default_factory=list)
    queued: dict[tuple[str, str], deque[float]] = field(default_factory=dict)
    running: list[_Run] = field(default_factory=list)
    late: list[_Run] = field(default_factory=list)
    # By the identity of the attempt, which is the same object in the report of its load.
    runs: dict[int, tuple[Attempt, _Run]] = field(default_factory=dict)
    reports: list[tuple[float, LoadReport, str]] = field(default_factory=list)
    numbers: int = 0

    def hear(self, event: Event) -> None:
        """Add what an event says."""
        match event:
            case Preparing():
                self.preparing.append(event)
            case Prepared():
                self._prepared(event)
            case Queued(model=model, backend=backend, at=at):
                self.queued.setdefault((model, backend), deque()).append(at)
            case Started():
                self._started(event)
            case AttemptEnded():
                self._attempt_ended(event)
            case Abandoned():
                self._abandoned(event)
            case ThreadEnded():
                self._thread_ended(event)
            case Loaded(at=at, report=report):
                self.reports.append((at, report, ""))
            case Failed(at=at, report=report, error=error):
                self.reports.append((at, report, error))

    def _add(self, kind: Kind, run: _Run, start: float, end: float, text: str) -> None:
        run.places.append(len(self.spans))
        self.spans.append(Span(kind, run.model, start, end, text, run.number, run.depth))

    def _prepared(self, event: Prepared) -> None:
        begun = next((one for one in self.preparing if one.what == event.what), None)
        if begun is not None:
            self.preparing.remove(begun)
        text = f"{event.what}: {event.error}" if event.error else event.what
        self.spans.append(Span("prepare", event.model, event.at - event.seconds, event.at, text))

    def _started(self, event: Started) -> None:
        outer = [run for run in self.running if run.thread == event.thread]
        number = outer[0].number if outer else self._next_number()
        queued = self._take_queued(event.model, event.backend)
        run = _Run(event.model, event.backend, event.at, event.thread, number, len(outer), queued)
        self.running.append(run)
        if queued is not None:
            self._add("queue", run, queued, event.at, event.backend)

    def _next_number(self) -> int:
        self.numbers += 1
        return self.numbers

    def _take_queued(self, model: str, backend: str) -> float | None:
        waiting = self.queued.get((model, backend))
        return waiting.popleft() if waiting else None

    def _attempt_ended(self, event: AttemptEnded) -> None:
        attempt, model = event.attempt, event.model
        if attempt.load_seconds is None:
            queued = self._take_queued(model, attempt.backend)
            if queued is not None:  # it never got to a thread
                text = f"{attempt.backend} {attempt.outcome}: {attempt.reason}"
                self.spans.append(Span("queue", model, queued, event.at, text))
            return
        start = event.at - attempt.load_seconds
        run = _nearest(self.running, model, attempt.backend, start)
        if run is None:
            return
        self.running.remove(run)
        self.runs[id(attempt)] = (attempt, run)
        run.ended = event.at
        if attempt.outcome == "loaded":
            warmed = attempt.observed.warmup_seconds
            warm_from = event.at if warmed is None else max(run.start, event.at - warmed)
            self._add("load", run, run.start, warm_from, attempt.backend)
            if warmed is not None:
                self._add("warm-up", run, warm_from, event.at, attempt.backend)
            return
        run.text = f"{attempt.backend} {attempt.outcome.replace('_', ' ')}"
        text = f"{run.text}: {attempt.reason}" if attempt.reason else run.text
        self._add("failed", run, run.start, event.at, text)
        # Of loads inside others, only the outermost has a thread of its own.
        if attempt.outcome in ("timed_out", "stalled") and run.depth == 0:
            run.late_from = event.at
            self.late.append(run)

    def _abandoned(self, event: Abandoned) -> None:
        # It does not say how long the thread has been in there: of several, the longest.
        known = (run for run in (*self.late, *self.running) if run.abandoned is None)
        run = _nearest(known, event.model, event.backend, 0.0)
        if run is not None:
            run.abandoned = event.at

    def _thread_ended(self, event: ThreadEnded) -> None:
        known = (*self.late, *self.running)
        run = _nearest(known, event.model, event.backend, event.at - event.age)
        if run in self.late:
            self.late.remove(run)
            self._add_late(run, event.at)
        elif run is not None:
            self.running.remove(run)
            self._add_cut_short(run, event.at)

    def _add_late(self, run: _Run, end: float) -> None:
        """Add what a thread did past its limit."""
        assert run.late_from is not None
        off_slot = end if run.abandoned is None else max(run.late_from, run.abandoned)
        if off_slot > run.late_from:
            self._add("overdue", run, run.late_from, off_slot, run.text)
        if run.abandoned is not None:
            self._add("abandoned", run, off_slot, end, run.text)

    def _add_cut_short(self, run: _Run, end: float) -> None:
        """Add a load that a close has ended for its callers: there is no end of its attempt."""
        cut = end if run.abandoned is None else run.abandoned
        self._add("failed", run, run.start, cut, CUT_SHORT)
        if run.abandoned is not None:
            self._add("abandoned", run, cut, end, CUT_SHORT)

    def end_at(self, until: float) -> None:
        """Add what has not ended."""
        first = len(self.spans)
        for begun in self.preparing:
            self.spans.append(Span("prepare", begun.model, begun.at, until, begun.what))
        for (model, backend), waiting in self.queued.items():
            self.spans += [Span("queue", model, queued, until, backend) for queued in waiting]
        for run in self.late:
            self._add_late(run, until)
        for run in self.running:
            if run.abandoned is None:
                self._add("load", run, run.start, until, run.backend)
            else:
                self._add_cut_short(run, until)
        for place in range(first, len(self.spans)):
            if self.spans[place].end == until:
                self.spans[place] = replace(self.spans[place], ended=False)

    def loads(self) -> list[Load]:
        """Return the loads that have ended, and mark the spans of each with its place."""
        loads: list[Load] = []
        for at, report, error in sorted(self.reports, key=_requested):
            start = at - report.total_seconds
            free = start
            for attempt in report.attempts:
                if id(attempt) in self.runs:
                    _, run = self.runs[id(attempt)]
                    for place in run.places:
                        self.spans[place] = replace(self.spans[place], load=len(loads))
                    if run.queued is not None and run.queued > free:
                        text = "its config, and imports" if free == start else "the next backend"
                        wait = Span("wait", report.model, free, run.queued, text, load=len(loads))
                        self.spans.append(wait)
                    free = run.ended
            tried = sum(attempt.outcome != "skipped" for attempt in report.attempts)
            took = report.load_seconds
            loads.append(Load(report.model, start, at, report.backend, error, tried, took))
        return loads


def _requested(ended: tuple[float, LoadReport, str]) -> float:
    at, report, _ = ended
    return at - report.total_seconds


def _nearest(runs: Iterable[_Run], model: str, backend: str, start: float) -> _Run | None:
    """Return the run of a model on a backend that began nearest to a time."""
    fitting = (run for run in runs if run.model == model and run.backend == backend)
    return min(fitting, key=lambda run: abs(run.start - start), default=None)
