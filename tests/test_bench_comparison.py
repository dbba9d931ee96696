"""What has changed since an earlier ``anyload bench``, and what is noise."""

from __future__ import annotations

import json
import time
from collections import Counter
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
from bench_samples import alone, bulk, together
from hypothesis import given
from hypothesis import strategies as st

from anyload._bench.command import earlier
from anyload._bench.comparison import compared, verdict_on
from anyload._bench.findings import findings_of
from anyload._bench.statistics import Figure, _chance_of_many, chance
from anyload._bench.tables import (
    bench_document,
    change_rows,
    comparison_sentences,
    spread,
)
from anyload._children import Unfinished
from anyload._files import Refusal

# Statistics


def test_a_figure_has_a_median_and_a_spread() -> None:
    """One outlier moves neither the median nor the noise."""
    figure = Figure((1.0, 1.1, 0.9, 50.0, 1.0))
    assert (figure.median, figure.low, figure.high) == (1.0, 0.9, 50.0)
    assert figure.noise == pytest.approx(0.1)
    assert Figure((0.0, 0.0)).noise == 0.0
    assert spread(figure) == "1 s (0.9 to 50)"
    assert spread(Figure((0.02, 0.04, 0.03))) == "30 ms (20 to 40)"
    assert (spread(Figure((0.5,))), spread(None)) == ("0.5 s", "-")


def test_chance_is_that_of_mann_and_whitney() -> None:
    """The figures are those of the tables of the test."""
    assert chance([1, 2, 3, 4, 5], [6, 7, 8, 9, 10]) == pytest.approx(2 / 252)
    assert chance([1, 2, 3], [4, 5, 6]) == pytest.approx(2 / 20)
    assert chance([1, 3, 5], [2, 4, 6]) == pytest.approx(0.7)
    assert chance([1, 1, 1], [1, 1, 1]) == 1.0


@given(
    st.lists(st.integers(0, 5), min_size=1, max_size=5),
    st.lists(st.integers(0, 5), min_size=1, max_size=5),
)
def test_chance_counts_every_way_to_split(one: list[int], other: list[int]) -> None:
    """It is the part of all ways to split the samples that are as far apart as these."""
    joined = sorted([*one, *other])

    def rank(value: int) -> float:
        return 2 * joined.index(value) + joined.count(value) + 1

    expected = len(one) * (len(joined) + 1)
    seen = abs(sum(map(rank, one)) - expected)
    ways = [sum(map(rank, chosen)) for chosen in combinations(joined, len(one))]
    extreme = sum(abs(way - expected) >= seen for way in ways)
    assert chance(one, other) == pytest.approx(extreme / len(ways))
    assert chance(one, other) == pytest.approx(chance(other, one))


def test_chance_of_many_samples_is_told_in_no_time() -> None:
    """By the normal distribution; where the exact test can be waited for, both say the same."""
    for shift in range(0, 12, 2):
        one, other = [n // 2 * 2 for n in range(20)], [n // 2 * 2 + shift for n in range(20)]
        seen = abs(2 * sum((a > b) + (a == b) / 2 for a in one for b in other) - 400)
        ties = Counter([*one, *other]).values()
        assert _chance_of_many(seen, 20, 20, ties) == pytest.approx(chance(one, other), abs=0.01)
    assert chance(range(1000), range(2000, 3000)) < 1e-300
    assert chance([1.0] * 100, [1.0] * 100) == 1.0
    began = time.process_time()
    chance(range(200), range(100, 300))
    assert time.process_time() - began < 1


# Comparisons


@pytest.mark.parametrize(
    ("before", "after", "machine", "verdict"),
    [
        ((1.0, 1.1, 1.2, 1.3, 1.4), (2.0, 2.1, 2.2, 2.3, 2.4), 1.0, "more"),
        ((2.0, 2.1, 2.2, 2.3, 2.4), (1.0, 1.1, 1.2, 1.3, 1.4), 1.0, "less"),
        # They overlap by one.
        ((1.0, 1.1, 1.2, 1.3, 2.2), (2.0, 2.1, 2.2, 2.3, 2.4), 1.0, "noise"),
        # Certain, and of no interest.
        ((1.0, 1.0, 1.0, 1.0, 1.0), (1.04, 1.04, 1.04, 1.04, 1.04), 1.0, "noise"),
        ((1.0, 1.0, 1.0), (2.0, 2.0, 2.0), 1.0, "too few repeats"),
        # It is the machine that takes twice as long.
        ((1.0, 1.1, 1.2, 1.3, 1.4), (2.0, 2.1, 2.2, 2.3, 2.4), 1.9, "noise"),
        ((1.0, 1.1, 1.2, 1.3, 1.4), (4.0, 4.1, 4.2, 4.3, 4.4), 1.9, "more"),
        ((0.0, 0.0, 0.0, 0.0, 0.0), (1.0, 1.0, 1.0, 1.0, 1.0), 1.0, "more"),
    ],
)
def test_a_change_is_told_from_noise(
    before: tuple[float, ...], after: tuple[float, ...], machine: float, verdict: str
) -> None:
    """It is large, chance alone would hardly do it, and a slow machine does not explain it."""
    assert verdict_on(Figure(before), Figure(after), machine) == verdict


def document_of(seconds: float, yardstick: float = 0.01, model: str = "a") -> dict[str, Any]:
    samples = [alone(seconds + number / 100, yardstick=yardstick) for number in range(5)]
    boots = [together(bulk(2, seconds, boot=True), yardstick=yardstick) for _ in range(5)]
    return bench_document(findings_of({model: samples}, boots, 2), {})


def test_a_comparison_says_what_has_changed() -> None:
    """What changed comes first; figures that are the same are noise; bytes know no machine."""
    comparison = compared(document_of(1.0), document_of(2.0))
    verdicts = {change.what: change.verdict for change in comparison.changes}
    assert verdicts["a warm_seconds"] == verdicts["all models: boot"] == "more"
    assert verdicts["a memory_loaded"] == verdicts["a prepare_seconds"] == "noise"
    rows = change_rows(comparison)
    assert rows[0] == ("a warm_seconds", "1.02 s (1 to 1.04)", "2.02 s (2 to 2.04)", "1.98", "more")
    assert ("a memory_loaded", "15 MB", "15 MB", "1.00", "noise") in rows
    assert list(comparison_sentences(comparison)) == [
        "3 of 6 figures have changed by more than noise."
    ]


def test_a_comparison_allows_for_the_machine() -> None:
    """The same work takes twice as long: then twice as long a load has not changed."""
    comparison = compared(document_of(1.0, 0.01), document_of(2.0, 0.02))
    assert all(change.verdict == "noise" for change in comparison.changes)
    told = list(comparison_sentences(comparison))
    assert told[1].startswith("The machine itself takes 2.00 times as long for the same work")


def test_a_comparison_allows_for_a_busy_machine() -> None:
    """Where the same work takes now this long and now that, so may a load."""
    before, after = document_of(1.0), document_of(1.3)
    before["yardstick"]["samples"] = [0.01, 0.02, 0.03, 0.04, 0.05]
    after["yardstick"]["samples"] = [0.03]
    comparison = compared(before, after)
    assert all(change.verdict == "noise" for change in comparison.changes)
    told = list(comparison_sentences(comparison))
    assert told[1].startswith("The machine was busy: a change counts only if it is more than 33%.")
    quiet = compared(document_of(1.0), document_of(1.3)).changes
    assert [one.verdict for one in quiet if one.what == "a warm_seconds"] == ["more"]


def test_all_models_are_not_compared_with_others() -> None:
    """A bulk of more models takes longer, and nothing has changed."""
    before, after = document_of(1.0), document_of(1.0)
    after["models"] += document_of(1.0, model="b")["models"]
    comparison = compared(before, after)
    assert comparison.only_after == ("b",)
    assert not any(change.what.startswith("all models") for change in comparison.changes)


def test_a_comparison_names_what_only_one_has() -> None:
    """Models come and go."""
    told = list(comparison_sentences(compared(document_of(1.0), document_of(1.0, model="b"))))
    assert told[1:] == ["Not there any more: a.", "New: b."]


def test_a_benchmark_in_which_nothing_ended_can_be_compared() -> None:
    """There is nothing to say then, and nothing of the machine."""
    nothing = bench_document(findings_of({"a": [Unfinished("hung", "")]}, [], 2), {})
    for before, after in ((nothing, document_of(1.0)), (nothing, nothing)):
        comparison = compared(before, after)
        assert (comparison.changes, comparison.machine) == ((), None)
        told = list(comparison_sentences(comparison))
        assert told == ["0 of 0 figures have changed by more than noise."]


@pytest.mark.parametrize("sample", [10**400, float("nan"), float("inf"), "x", None, [1]])
def test_a_comparison_refuses_what_is_no_figure(sample: Any, tmp_path: Path) -> None:
    """Nor is a model's name that is no text; the document is called none."""
    document = document_of(1.0)
    document["models"][0]["figures"]["cold_seconds"] = {"samples": [sample]}
    (tmp_path / "figure.json").write_text(json.dumps(document))
    unnamed = document_of(1.0)
    unnamed["models"][0]["model"] = sample if not isinstance(sample, str) else 7
    (tmp_path / "name.json").write_text(json.dumps(unnamed))
    for name in ("figure.json", "name.json"):
        with pytest.raises(Refusal, match=f"{name} is no document of bench --json"):
            earlier(str(tmp_path / name))


def test_an_earlier_document_is_read(tmp_path: Path) -> None:
    """And gives back what is in it."""
    document = document_of(1.0)
    (tmp_path / "old.json").write_text(json.dumps(document))
    assert earlier(str(tmp_path / "old.json")) == json.loads(json.dumps(document))
    with pytest.raises(Refusal, match=r"nowhere.json cannot be read: not found"):
        earlier(str(tmp_path / "nowhere.json"))


def test_a_ratio_needs_something_to_be_a_ratio_of() -> None:
    """Where a figure was nothing there is none."""
    before, after = document_of(1.0), document_of(1.0)
    before["models"][0]["figures"]["cpu_seconds"]["samples"] = [0.0] * 5
    (row,) = [row for row in change_rows(compared(before, after)) if row[0] == "a cpu_seconds"]
    assert row[3:] == ("-", "more")
