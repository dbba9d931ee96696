"""The picture of a timeline, as HTML: lanes with spans, and a row for each load. Pure.

Places and lengths are in percent of the time, so it is as wide as there is room, and its text stays
as large as all text. Nothing in it runs: no script, and nothing to fetch.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType

from ..timeline import Gap, Kind, Load, Span, Timeline
from .lanes import Lane, depth_of_queue, lanes_of
from .words import counted, duration, marks, safe

SAID: Mapping[Kind, str] = MappingProxyType(
    {
        "prepare": "import, start of a backend",
        "wait": "not ready: config, imports",
        "queue": "queued",
        "load": "load",
        "warm-up": "warm-up",
        "failed": "failed attempt",
        "overdue": "past its limit, on its slot",
        "abandoned": "abandoned thread",
    }
)
"""The kinds of spans, as the legend names them."""

ROOM = 0.62
"""How many percent of a chart as wide as a page one character takes."""
MANY_LANES = 16
"""From this many lanes on they are thin, and have no text."""
MANY_LOADS = 40
"""From this many loads on, their rows are folded."""


def timeline_figure(timeline: Timeline, title: str, level: int = 2, *, folded: bool = False) -> str:
    """Return the chart, its legend, and the rows of its loads.

    Args:
        timeline: what went on.
        title: what it is of.
        level: of its heading.
        folded: whether the rows of its loads are folded, however few they are.
    """
    lanes = lanes_of(timeline)
    told = summary(timeline)
    rows = "".join(_rows(timeline, lanes))
    thin = " thin" if len(lanes) >= MANY_LANES else ""
    return (
        f"<h{level}>{safe(title)}</h{level}>"
        f'<figure><figcaption>{safe(told)}</figcaption><div class="scroll">'
        f'<div class="chart{thin}" role="img" aria-label="{safe(f"{title}: {told}")}">'
        f"{_grid(timeline.seconds)}{rows}</div></div>{_legend(timeline)}</figure>"
        f"{_loads(timeline, folded=folded or len(timeline.loads) > MANY_LOADS)}"
    )


def summary(timeline: Timeline) -> str:
    """Return what the picture shows, in a few sentences: its caption, and its text alternative."""
    loaded = [load for load in timeline.loads if not load.error]
    failed = len(timeline.loads) - len(loaded)
    first = f"{counted(len(loaded), 'model')} loaded in {duration(timeline.seconds)}"
    words = [f"{first}, {counted(failed, 'load')} failed." if failed else f"{first}."]
    if timeline.loads:
        longest = max(timeline.loads, key=lambda load: load.load_seconds)
        words.append(f"The longest load is {longest.model}, {duration(longest.load_seconds)}.")
    imports = timeline.seconds_of("prepare")
    if imports:
        words.append(f"Imports take {duration(imports)}.")
    late = len({span.run for span in timeline.of("overdue", "abandoned")})
    if late:
        words.append(f"{counted(late, 'thread')} went on past the limit.")
    if timeline.gaps:
        stopped = max(end - start for start, end in timeline.gaps)
        words.append(f"The event loop was stopped for {duration(stopped)} at the longest.")
    elif timeline.watched:
        words.append("The event loop was never stopped for 5 ms.")
    if timeline.cut:
        words.append("The beginning is missing: there was more than the recorder keeps.")
    return " ".join(words)


def _grid(seconds: float) -> str:
    """Return the marks of the time axis, with a line down through all lanes."""
    lines = "".join(
        f'<i style="left:{_percent(mark, seconds)}%"><b>{safe(duration(mark))}</b></i>'
        for mark in marks(seconds)
    )
    return f'<div class="grid"><div>{lines}</div></div>'


def _rows(timeline: Timeline, lanes: Sequence[Lane]) -> Iterator[str]:
    if timeline.watched:
        yield _row("event loop", "gaps", _gaps(timeline.gaps, timeline.seconds))
    queued = depth_of_queue(timeline.of("queue"))
    if queued:
        most = max(number for _, number in queued)
        yield _row(f"{most} queued", "queued", _area(queued, most, timeline.seconds))
    texts = len(lanes) < MANY_LANES
    for lane in lanes:
        yield _row(lane.name, "", _spans(lane.spans, timeline.seconds, texts=texts))


def _row(name: str, kind: str, track: str) -> str:
    return (
        f'<div class="lane {kind}"><span class="name">{safe(name)}</span>'
        f'<div class="track">{track}</div></div>'
    )


def _spans(spans: Iterable[Span], seconds: float, *, texts: bool) -> str:
    return "".join(_span(span, seconds, text=texts) for span in spans)


def _span(span: Span, seconds: float, *, text: bool) -> str:
    left, width = _percent(span.start, seconds), _percent(span.seconds, seconds)
    told = f"{span.model}: {SAID[span.kind]}, {duration(span.seconds)}"
    told += "" if span.ended else ", not ended"
    told += f"\n{span.text}" if span.text else ""
    inside = f" in{min(span.depth, 3)}" if span.depth else ""
    opened = "" if span.ended else " open"
    name = span.model
    if span.kind == "prepare":  # what is imported says more than who was the first to need it
        name = span.text.partition(":")[0].split(" of ")[-1].rpartition(".")[2]
    fits = text and width >= min(ROOM * (len(name) + 1), 6)
    label = f"<b>{safe(name)}</b>" if fits and span.kind != "warm-up" else ""
    return (
        f'<i class="{span.kind}{inside}{opened}" style="left:{left}%;width:{width}%"'
        f' title="{safe(told)}">{label}</i>'
    )


def _gaps(gaps: Iterable[Gap], seconds: float) -> str:
    return "".join(
        f'<i class="gap" style="left:{_percent(start, seconds)}%;'
        f'width:{_percent(end - start, seconds)}%"'
        f' title="the event loop was stopped for {safe(duration(end - start))}"></i>'
        for start, end in gaps
    )


def _area(steps: Sequence[tuple[float, int]], most: int, seconds: float) -> str:
    """Return a drawing of how many there were; it is stretched to its place."""
    path = ["M0 100"]
    for at, number in steps:
        path.append(f"H{10 * _percent(at, seconds):g}V{100 - 100 * number / most:g}")
    return (
        '<svg viewBox="0 0 1000 100" preserveAspectRatio="none" aria-hidden="true">'
        f'<path d="{"".join(path)}V100Z"/></svg>'
    )


def _legend(timeline: Timeline) -> str:
    there = {span.kind for span in timeline.spans}
    shown: dict[str, str] = {kind: said for kind, said in SAID.items() if kind in there}
    if timeline.gaps:
        shown = {**shown, "gap": "event loop stopped, 5 ms or more"}
    items = "".join(f'<li><i class="{kind}"></i>{safe(said)}</li>' for kind, said in shown.items())
    return f'<ul class="legend" aria-label="colours">{items}</ul>'


# The loads, one by one


def _loads(timeline: Timeline, *, folded: bool) -> str:
    """Return a row for each load: a picture of it, and in figures."""
    if not timeline.loads:
        return ""
    of: dict[int, list[Span]] = {place: [] for place in range(len(timeline.loads))}
    for span in timeline.spans:
        if span.load is not None:
            of[span.load].append(span)

    def begun(place: int) -> float:
        """Return when a thread first took it, so that the rows go down in steps."""
        starts = (span.start for span in of[place] if span.run is not None and span.kind != "queue")
        return min(starts, default=timeline.loads[place].start)

    rows = "".join(
        _load_row(timeline.loads[place], of[place], timeline.seconds)
        for place in sorted(of, key=begun)
    )
    table = (
        '<div class="scroll"><table class="loads"><thead><tr><th>model</th>'
        '<th class="wide">from the first request to the model</th><th>total</th><th>ready</th>'
        "<th>queued</th><th>load</th><th>warm-up</th><th>backend</th></tr></thead>"
        f"<tbody>{rows}</tbody></table></div>"
    )
    told = f"The {counted(len(timeline.loads), 'load')}, one by one"
    opened = "" if folded else " open"
    return f"<details{opened}><summary>{told}</summary>{table}</details>"


def _load_row(load: Load, spans: Sequence[Span], seconds: float) -> str:
    def took(*kinds: Kind) -> str:
        found = [span.seconds for span in spans if span.kind in kinds]
        return safe(duration(sum(found))) if found else "-"

    backend = load.backend or "-"
    if load.error:
        backend = f'<span class="wrong" title="{safe(load.error)}">failed</span>'
    elif load.attempts > 1:
        backend = f"{safe(backend)}, attempt {load.attempts}"
    else:
        backend = safe(backend)
    cells = (took("wait"), took("queue"), took("load", "failed"), took("warm-up"))
    figures = "".join(f"<td>{cell}</td>" for cell in (safe(duration(load.seconds)), *cells))
    bar = _spans(spans, seconds, texts=False)
    return (
        f'<tr><th scope="row">{safe(load.model)}</th><td class="wide">'
        f'<div class="track" aria-hidden="true">{bar}</div></td>{figures}<td>{backend}</td></tr>'
    )


def _percent(value: float, seconds: float) -> float:
    return round(100 * value / seconds, 3) if seconds > 0 else 0.0
