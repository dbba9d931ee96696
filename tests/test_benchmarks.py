"""The benchmarks run, and their page shows what they found."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from benchmarks.chart import Group, chart
from benchmarks.page import PAGE, RESULTS, names_of_parts, rendered
from benchmarks.results import Cell, Comparison, Found, Results, Row, Spread

ROOT = Path(__file__).parent.parent


def results() -> Results:
    """Return results with one of each kind."""
    cells = (
        Cell("init", Spread(2.0, 1.5, 2.5), Spread(4.0, 3.0, 5.0)),
        Cell("to_thread", Spread(0.5, 0.5, 0.5), Spread(1.0, 1.0, 1.0)),
        Cell("a peer", instead="asyncio only"),
    )
    found = Found(
        [
            Row("P1 a figure", 2.0, 1.5, "2 us / 1 us", rounds=Spread(2.0, 1.5, 2.5)),
            Row("P13 another", None, 2.4, "not measured"),
        ],
        [Comparison("overhead", "1 at once", "us", "to_thread", cells)],
    )
    return Results("2026-01-01", "CPython", {"anyio": "4"}, ["one_load"], {"asyncio": found})


def test_a_benchmark_runs_and_its_results_can_be_read_again(tmp_path: Path) -> None:
    """A quick run of the smallest one ends well; all of them are imported by it."""
    path = tmp_path / "found.json"
    subprocess.run(
        [sys.executable, "-m", "benchmarks", "keys", "--quick", "--json", str(path)],
        cwd=ROOT,
        check=True,
        capture_output=True,
        timeout=100,
    )
    found = Results.read(path)
    assert found.done == ["keys"]
    (row,) = found.on("without a loop").rows
    assert row.value is not None
    assert row.value > 1


def test_results_survive_a_file(tmp_path: Path) -> None:
    """What is read is what was written."""
    results().write(tmp_path / "results.json")
    assert Results.read(tmp_path / "results.json") == results()


def test_what_was_found_elsewhere_is_added() -> None:
    """The results of a second environment stand beside those of the first."""
    first, second = results(), results()
    second.versions = {"caikit": "0.29"}
    first.merge(second)
    assert first.versions == {"anyio": "4", "caikit": "0.29"}
    assert first.done == ["one_load", "one_load"]
    assert len(first.on("asyncio").rows) == 4


def test_only_a_number_over_its_target_misses_it() -> None:
    """A figure that was not measured misses nothing, and is not met either: it says why."""
    over, unknown = results().on("asyncio").rows
    assert over.missed
    assert not unknown.missed


def test_the_page_shows_the_results_that_are_kept() -> None:
    """The page and its charts are what the file of results makes of them, and up to date."""
    for path, text in rendered(Results.read(RESULTS), PAGE.read_text(encoding="utf-8")).items():
        assert path.read_text(encoding="utf-8") == text, f"{path.name}: run `make bench`"


def test_every_chart_is_shown_and_every_table_has_its_place() -> None:
    """Nothing that is drawn or measured is left off the page."""
    page = PAGE.read_text(encoding="utf-8")
    kept = Results.read(RESULTS)
    for path in rendered(kept, page):
        assert path == PAGE or f"(charts/{path.name})" in page
    topics = {each.topic for found in kept.found.values() for each in found.comparisons}
    assert topics <= set(names_of_parts(page))


def test_what_has_no_number_shows_why() -> None:
    """A peer that lacks a feature is in the table and in the chart with the reason."""
    page = "<!-- generated: overhead -->\n<!-- end of what is generated -->"
    text = rendered(results(), page)[PAGE]
    assert "| a peer | *asyncio only* |" in text
    assert "| init | 2; 4x (3 to 5) |" in text
    assert rendered(results(), text)[PAGE] == text, "writing it again changes nothing"


def test_a_chart_escapes_its_words() -> None:
    """A name with characters of XML in it does not break the picture."""
    cells = (Cell("a<b & c", Spread(1.0, 0.5, 2.0)), Cell("d", instead="<none>"))
    for log in (False, True):
        drawn = chart("t", [Group("g", "d", cells)], "ms", log=log)
        assert "a&lt;b &amp; c" in drawn
        assert "&lt;none&gt;" in drawn
