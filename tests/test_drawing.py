"""Pictures: every text in them is escaped, nothing in them runs, and all of it is there."""

from __future__ import annotations

import json
from html.parser import HTMLParser

import pytest

from anyload import Timeline
from anyload._drawing.chart import MANY_LANES, MANY_LOADS, summary
from anyload._drawing.page import timeline_page
from anyload._drawing.strips import Dots, Strip, strips_figure
from anyload._drawing.trace import chrome_trace
from anyload._drawing.words import counted, duration, marks, safe, size
from anyload.timeline import Load, Span

NASTY = "<script>alert('x')</script>\"><img src=x onerror=alert(1)>\ud800\x00"
VOID = {"meta", "img", "br", "link"}


class Page(HTMLParser):
    """What a browser would find in a page.

    Args:
        html: the page.
    """

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: set[str] = set()
        self.values: list[str] = []
        self.texts: list[str] = []
        self._open: list[str] = []
        self.feed(html)
        self.close()
        assert not self._open, f"never closed: {self._open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in VOID:
            self._open.append(tag)
        for name, value in attrs:
            self.attributes.add(name)
            self.values.append(value or "")

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def a_timeline(number: int, name: str = "model") -> Timeline:
    """Return one with every kind of span, and so many loads."""
    spans, loads = [], []
    for place in range(number):
        model = f"{name} {place}"
        for kind, start, end in (
            ("wait", 0.0, 0.1),
            ("queue", 0.1, 1.0),
            ("failed", 1.0, 2.0),
            ("load", 2.0, 3.0),
            ("warm-up", 3.0, 3.5),
        ):
            run = None if kind in ("wait", "queue") else place
            spans.append(Span(kind, model, start, end, f"{name} text", run, load=place))  # type: ignore[arg-type]
        loads.append(Load(model, 0.0, 3.5, "LOCAL", name if place == 1 else "", 2, 2.5))
    spans += [
        Span("prepare", name, 0.0, 0.5, f"prepare() of my.{name}"),
        Span("overdue", name, 2.0, 3.0, run=number + 1),
        Span("abandoned", name, 3.0, 4.0, run=number + 1, ended=False),
        Span("load", name, 1.0, 2.0, run=number + 2),
        Span("load", name, 1.2, 1.8, run=number + 2, depth=1),
    ]
    return Timeline(tuple(spans), tuple(loads), ((0.5, 0.7),), 4.0, watched=True)


@pytest.mark.parametrize("number", [0, 2, 500])
def test_a_page_runs_nothing_and_fetches_nothing(number: int) -> None:
    """Whatever a model is called: no script, no handler, no address, and all tags are closed."""
    page = Page(timeline_page(NASTY, a_timeline(number, NASTY)))
    assert not {"script", "img", "link", "iframe", "object", "a"} & set(page.tags)
    assert not any(name.startswith("on") or name in ("src", "href") for name in page.attributes)
    assert "default-src 'none'; style-src 'unsafe-inline'" in page.values
    assert not any("url(" in text or "@import" in text for text in page.texts)
    shown = NASTY.replace("\ud800", "?").replace("\x00", "\ufffd")
    assert shown in page.texts


def test_a_page_has_a_text_for_what_it_shows() -> None:
    """The chart has its summary as a label, and each load is a row with its figures."""
    page = Page(timeline_page("Boot", a_timeline(2)))
    assert f"Boot: {summary(a_timeline(2))}" in page.values
    for text in ("model 0", "model 1", "failed", "LOCAL, attempt 2", "3.5 s", "warm-up"):
        assert text in page.texts
    assert any("abandoned thread, 1 s, not ended" in value for value in page.values)


def test_a_small_timeline_is_open_and_a_large_one_is_folded() -> None:
    """Rows of many loads are there, but do not fill the screen; many lanes are thin."""
    few, many = timeline_page("T", a_timeline(2)), timeline_page("T", a_timeline(MANY_LOADS + 1))
    assert "<details open>" in few
    assert "<details>" in many
    assert 'class="chart"' in few
    assert 'class="chart thin"' in timeline_page("T", a_timeline(MANY_LANES))
    assert len(timeline_page("T", a_timeline(500))) < 2_000_000


def test_the_summary_says_what_matters() -> None:
    """How long, what failed, what took longest, and what the event loop had of it."""
    assert summary(a_timeline(2)) == (
        "1 model loaded in 4 s, 1 load failed. The longest load is model 0, 2.5 s. Imports take"
        " 0.5 s. 1 thread went on past the limit. The event loop was stopped for 0.2 s at the"
        " longest."
    )
    assert summary(Timeline((), (), (), 0.0)) == "0 models loaded in 0."
    calm = Timeline((), (), (), 1.0, watched=True, cut=True)
    assert summary(calm).endswith(
        "The event loop was never stopped for 5 ms. The beginning is missing: there was more than"
        " the recorder keeps."
    )


def test_an_empty_timeline_can_be_drawn() -> None:
    """Where nothing was loaded there is a page all the same."""
    assert "0 models" in "".join(Page(timeline_page("T", Timeline((), (), (), 0.0))).texts)


# Traces


def test_a_trace_has_what_perfetto_needs() -> None:
    """Threads with names, complete events in microseconds, a counter, pairs of async events."""
    document = json.loads(json.dumps(chrome_trace(a_timeline(2, NASTY))))
    events = document["traceEvents"]
    names = {one["tid"]: one["args"]["name"] for one in events if one["name"] == "thread_name"}
    complete = [one for one in events if one["ph"] == "X"]
    assert {one["tid"] for one in complete} == set(names)
    assert {"event loop", "imports", "slot 1", "abandoned"} <= set(names.values())
    load = next(one for one in complete if one["cat"] == "load")
    assert (load["ts"], load["dur"]) == (2e6, 1e6)
    assert load["name"] == f"{NASTY} 0"
    begun = [one["id"] for one in events if one["ph"] == "b"]
    assert begun == [one["id"] for one in events if one["ph"] == "e"]
    assert [one["args"]["loads"] for one in events if one["ph"] == "C"] == [2, 0]


# Strips


def test_strips_show_samples_medians_and_ideals() -> None:
    """A dot for each sample, a mark for the median, a line for the ideal; the axis holds all."""
    dots = Dots("cold", "cold files", (1.0, 2.0, 9.0), 2.0)
    page = Page(strips_figure([Strip(NASTY, [dots], {"cold": 0.5}, chosen=True)], "Samples"))
    assert page.tags.count("u") == 3
    assert page.tags.count("s") == 2
    assert "cold files: median 2 s of 3" in page.values
    assert "ideal: 0.5 s" in page.values
    assert "script" not in page.tags
    places = [float(v[5:-1]) for v in page.values if v.startswith("left:")]
    assert max(places) < 100


def test_strips_without_samples_are_no_picture() -> None:
    """Nothing measured, nothing drawn."""
    assert strips_figure([], "Samples") == ""


# Words


@pytest.mark.parametrize(
    ("end", "expected"),
    [
        (0.0, [0.0]),
        (1.0, [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]),
        (0.035, [0.0, 0.005, 0.01, 0.015, 0.02, 0.025, 0.03, 0.035]),
        (80.0, [0.0, 10.0, 20.0, 30.0, 40.0, 50.0, 60.0, 70.0, 80.0]),
    ],
)
def test_the_marks_of_an_axis_are_round(end: float, expected: list[float]) -> None:
    """Never more than nine of them."""
    assert marks(end) == expected


def test_numbers_read_well() -> None:
    """Sizes in the unit that is used for disks; nothing is 0; one of a thing is no plural."""
    assert [size(one) for one in (None, 0, 1500, 2.5e6, 3e9, -1)] == [
        "-",
        "0 kB",
        "1.5 kB",
        "2.5 MB",
        "3 GB",
        "-0.001 kB",
    ]
    assert (duration(0), duration(0.25)) == ("0", "0.25 s")
    assert (counted(1, "model"), counted(2, "model")) == ("1 model", "2 models")
    assert safe("a\n<b> & \"c\" 'd'") == "a\n&lt;b&gt; &amp; &quot;c&quot; &#x27;d&#x27;"
