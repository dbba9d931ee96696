"""What ``anyload bench`` makes of samples: medians, noise, ideals, advice, findings."""

from __future__ import annotations

import json

import pytest
from bench_samples import alone, bulk, some_findings, together

from anyload._bench.advice import Ideal, recommended, steadied
from anyload._bench.command import line_about
from anyload._bench.comparison import compared
from anyload._bench.findings import findings_of
from anyload._bench.page import MANY_MODELS, bench_page
from anyload._bench.samples import AloneSample
from anyload._bench.statistics import Figure
from anyload._bench.tables import (
    bench_document,
    bulk_rows,
    model_rows,
    sentences,
)
from anyload._children import Unfinished
from anyload.bench import slots_to_try, turned

# Advice


def test_the_ideal_is_the_greatest_of_what_cannot_be_beaten() -> None:
    """The longest model, the processor, the disk; it says which."""
    assert Ideal(1.0, 2.0, 3.0).seconds == 3.0
    assert Ideal(1.0, 2.0, 3.0).reason == "disk"
    assert Ideal(1.0, 2.0).reason == "processor"
    assert Ideal(4.0, 2.0, 3.0).reason == "longest model"


def figures(**samples: tuple[float, ...]) -> dict[int, Figure]:
    return {int(slots.removeprefix("at_")): Figure(taken) for slots, taken in samples.items()}


def test_the_fewest_that_none_is_faster_than_are_recommended() -> None:
    """What is slower by less than 3 %, or than the noise, is as fast."""
    cold = figures(at_1=(4.0, 4.0), at_2=(2.05, 2.05), at_4=(2.0, 2.0), at_8=(2.0, 2.0))
    advice = recommended({"cold": cold, "warm": {}}, configured=4)
    assert advice.at_once == 2
    assert advice.reason == (
        "All models load in 2.05 s (cold). With 4, as configured, it is 2 s (cold). No other"
        " number that was tried is faster by more than the noise."
    )
    noisy = figures(at_1=(2.15, 2.15, 2.15), at_2=(1.8, 2.0, 2.2))
    assert recommended({"warm": noisy}, configured=1).at_once == 1
    # However noisy: what is slower by more than a tenth is slower.
    wild = figures(at_1=(2.3, 2.3, 2.3), at_2=(1.0, 2.0, 3.0))
    assert recommended({"warm": wild}, configured=1).at_once == 2


def test_cold_and_warm_files_may_want_different_numbers() -> None:
    """Then it is the one that is behind the least, and that is said."""
    cold = figures(at_1=(1.0,), at_2=(1.5,), at_4=(3.0,))
    warm = figures(at_1=(3.0,), at_2=(1.5,), at_4=(1.0,))
    advice = recommended({"cold": cold, "warm": warm}, configured=2)
    assert advice.at_once == 2
    assert "Cold and warm files want different numbers" in advice.reason


def test_without_a_second_number_there_is_not_much_to_say() -> None:
    """One number tried, or none: it stays as it is configured."""
    only = recommended({"cold": figures(at_4=(1.0,))}, configured=4)
    assert (only.at_once, only.reason) == (4, "All models load in 1 s (cold).")
    none = recommended({"cold": {}, "warm": {}}, configured=3)
    assert none.at_once == 3
    apart = recommended({"cold": figures(at_1=(1.0,)), "warm": figures(at_2=(1.0,))}, configured=3)
    assert apart.at_once == 3


def test_a_neighbour_that_slows_a_turn_decides_nothing() -> None:
    """Numbers of slots are compared within a turn; those that not every turn has are left out."""
    turns = [
        {1: 2.0, 2: 1.0, 4: 1.0},
        {1: 20.0, 2: 10.0, 4: 10.0, 8: 1.0},
        {1: 4.0, 2: 2.0, 4: 2.0},
    ]
    steady = steadied(turns)
    assert {slots: figure.samples for slots, figure in steady.items()} == {
        1: (4.0, 4.0, 4.0),
        2: (2.0, 2.0, 2.0),
        4: (2.0, 2.0, 2.0),
    }
    assert steadied([]) == steadied([{1: 1.0}, {2: 1.0}]) == {}
    misleading = {"warm": figures(at_1=(1.0,), at_2=(2.0,))}
    advice = recommended(misleading, 2, {"warm": figures(at_1=(2.0,), at_2=(1.0,))})
    assert advice.at_once == 2
    assert advice.reason.startswith("All models load in 2 s (warm).")


def test_a_busy_machine_is_told_of() -> None:
    """Where the same work took very different times, figures are to be read with care."""
    findings = findings_of({"a": [alone(1.0, yardstick=0.01), alone(1.0, yardstick=0.02)]}, [], 2)
    assert (
        "The machine was busy: the same work took from 10 ms to 20 ms. On a quiet one the figures"
        " are closer together."
    ) in sentences(findings)


def test_the_numbers_to_try() -> None:
    """Powers of two, the configured one, no more than there are models; each comes first once."""
    assert slots_to_try(4, 100) == (1, 2, 4, 8, 16)
    assert slots_to_try(6, 7) == (1, 2, 4, 6, 7)
    assert slots_to_try(4, 1) == (1,)
    assert [turned((1, 2, 4), turn) for turn in range(4)] == [
        (1, 2, 4),
        (2, 4, 1),
        (4, 1, 2),
        (1, 2, 4),
    ]


# Findings


def test_findings_have_the_figures_of_each_model() -> None:
    """Medians over processes; gaps are the worst of cold and warm; imports are apart."""
    model = some_findings().models[0]
    assert model.median("prepare_seconds") == 0.5
    assert model.median("first_seconds") == pytest.approx(3.3)
    assert (model.median("cold_seconds"), model.median("warm_seconds")) == (2.2, 1.1)
    assert model.median("warmup_seconds") is None
    assert model.median("queue_seconds") == 0.25
    assert model.median("cpu_seconds") == 0.55
    assert (model.median("longest_gap"), model.median("first_gap")) == (0.01, 0.3)
    assert model.memory_taken == 5_000_000
    assert model.bytes_on_disk == 1000


def test_findings_have_the_bulk_beside_its_ideal() -> None:
    """The boot is apart; each number of slots has its makespans, as far as they were measured."""
    findings = some_findings()
    assert (findings.configured, findings.boot["seconds"].median) == (2, 5.0)
    assert set(findings.boot) == {
        *("seconds", "prepare_seconds", "queue_seconds", "load_seconds", "warmup_seconds"),
        *("longest_gap", "p99_gap", "memory_peak", "bytes_read"),
    }
    assert [(one.at_once, sorted(one.makespans)) for one in findings.bulks] == [
        (1, ["cold", "warm"]),
        (2, ["cold", "warm"]),
        (4, ["cold"]),
    ]
    assert findings.ideals["cold"] == Ideal(2.2, 0.55, 0.5)
    assert findings.ideals["warm"] == Ideal(1.1, 0.55)
    assert findings.recommendation is not None
    assert findings.recommendation.at_once == 2
    assert findings.disk_speed == Figure((2_000_000, 2_000_000))
    assert list(findings.timelines) == [
        "Boot as configured, 2 at once, cold files",
        "As recommended, 2 at once, imports done, cold files",
        "As recommended, 2 at once, imports done, warm files",
    ]
    assert not findings.failed


def test_turns_that_were_cut_short_still_give_advice() -> None:
    """Of long bulks each process may have had the time for another number of slots."""
    boot = bulk(2, 5.0, boot=True)
    turns = [together(boot, bulk(1, 4.0)), together(boot, bulk(2, 2.0)), together(boot)]
    findings = findings_of({"a": [alone(1.0, 2.0)]}, turns, cores=2)
    assert findings.recommendation is not None
    assert findings.recommendation.at_once == 2


def test_a_number_with_which_models_fail_is_not_recommended() -> None:
    """Giving up early is not fast: such bulks are in no median, and the table says why."""
    models = {"a": [alone(1.0, 2.0)], "b": [alone(1.0, 2.0)]}
    boot = bulk(1, 4.0, boot=True)
    turns = [together(boot, bulk(1, 4.0), bulk(2, 2.0), bulk(4, 1.0, "b")), together(boot)]
    turns += [together(boot, bulk(1, 4.0), bulk(2, 2.0, "a"), bulk(4, 0.1, "a", "b"))]
    findings = findings_of(models, turns, cores=2)
    assert findings.recommendation is not None
    assert findings.recommendation.at_once == 1
    assert findings.recommendation.reason == "All models load in 4 s (cold)."
    assert findings.lost == {2: ("a",), 4: ("a", "b")}
    assert findings.failed == dict.fromkeys("ab", "with 4 at once: out of time")
    assert [row[:3] for row in bulk_rows(findings)] == [
        ("1 (recommended)", "4 s", "-"),
        ("2 (models fail)", "2 s", "-"),
        ("4 (models fail)", "-", "-"),
    ]
    assert findings.ideals == {}
    assert "There is no ideal to compare with, as not all models load." in list(sentences(findings))
    assert (
        "With 4 at once, models fail that load with another number: 'a', 'b'. So 4 is not"
        " recommended."
    ) in list(sentences(findings))
    assert [bulk["failed"] for bulk in bench_document(findings, {})["bulks"]] == [
        [],
        ["a"],
        ["a", "b"],
    ]


def test_where_models_fail_with_every_other_number_it_stays_as_it_is() -> None:
    """If they fail with that too, no number is recommended."""
    models = {"a": [alone(1.0, 2.0)], "b": [alone(1.0, 2.0)]}
    found = findings_of(models, [together(bulk(1, 4.0, boot=True), bulk(2, 1.0, "a"))], cores=2)
    assert found.recommendation is not None
    assert found.recommendation.at_once == 1
    assert found.recommendation.reason == "With every other number that was tried, models fail."
    turn = together(bulk(1, 4.0, "b", boot=True), bulk(2, 1.0, "a"))
    assert findings_of(models, [turn], cores=2).recommendation is None


def test_models_that_never_load_take_no_part_in_the_advice() -> None:
    """Not all models load, then; where none does there is nothing to recommend."""
    hopeless = Unfinished("failed", "no weights")
    models: dict[str, list[AloneSample | Unfinished]]
    models = {"a": [alone(1.0, 2.0)], "b": [hopeless]}
    turn = together(bulk(1, 4.0, "b", boot=True), bulk(1, 4.0, "b"), bulk(2, 2.0, "b"))
    found = findings_of(models, [turn], cores=2)
    assert found.recommendation is not None
    assert found.recommendation.at_once == 2
    assert found.recommendation.reason.startswith("All loads end in 2 s (cold).")
    assert (found.lost, found.failed) == ({}, {"b": "failed, no weights"})
    assert findings_of({"b": [hopeless]}, [turn], cores=2).recommendation is None


def test_a_sentence_names_so_many_models() -> None:
    """Of many that fail, the first."""
    names = [f"m{number:02}" for number in range(30)]
    turn = together(bulk(1, 4.0, boot=True), bulk(2, 1.0, *names[1:]))
    told = list(sentences(findings_of({name: [alone(1.0)] for name in names}, [turn], cores=2)))
    assert any("'m20' and 9 more. So" in sentence for sentence in told)


def test_findings_say_what_could_not_be_measured() -> None:
    """A model that does not load, a bulk that hung, files that stay in the page cache."""
    hung, raised = Unfinished("hung", "no end after 300 s"), Unfinished("failed", "ValueError: no")
    findings = findings_of(
        {"a": [alone(1.0), raised], "b": [raised, raised]},
        [hung, together(disk_seconds=None, not_cold="a stays in the page cache")],
        cores=2,
    )
    assert list(findings.failed) == ["a", "b"]
    assert findings.unfinished == hung
    assert findings.not_cold == "a stays in the page cache"
    assert findings.recommendation is None
    assert (findings.boot, findings.bulks, findings.disk_speed) == ({}, (), None)
    assert findings.ideals == {}
    rows = model_rows(findings)
    assert rows[0][3] == "-"
    assert rows[1][:2] == ("b", "failed")
    assert findings.models[1].memory_taken is None
    told = " ".join(sentences(findings))
    assert "Cold files could not be had everywhere: a stays in the page cache." in told
    assert "Recommended" not in told
    page = bench_page("B", "about", findings, None)
    assert "recommended" not in page
    assert json.dumps(bench_document(findings, {}))


def test_findings_are_told() -> None:
    """In tables, in sentences, in a document, and on a page."""
    findings = some_findings()
    assert model_rows(findings)[0] == (
        *("a", "LOCAL", "0.5 s", "2.2 s (2 to 2.4)", "1.1 s (1 to 1.2)", "-", "0.25 s", "10 ms"),
        *("2 ms", "5 MB", "0.1 kB", "1 kB"),
    )
    assert bulk_rows(findings)[1] == (
        *("2 (recommended)", "2.45 s (2.4 to 2.5)", "1.11", "2 s", "1.82", "20 ms", "10 ms"),
        *("5 kB", "0.9 kB"),
    )
    told = list(sentences(findings))
    assert told[0] == (
        "A new process, 2 at once as configured, imports included: 5 s. Of all models together,"
        " imports take 0 ms, loads 0 ms, warm-ups 0 ms, and they are queued for 0 ms. The"
        " longest gap of the event loop is 20 ms, the 99th percentile 10 ms. Memory grows by"
        " 5 kB; 0.9 kB are read."
    )
    cold, warm = "longest model 2.2 s, processor 0.55 s, disk 0.5 s", "longest model 1.1 s"
    assert told[1:3] == [
        f"Ideal with cold files, without limits: 2.2 s ({cold}).",
        f"Ideal with warm files, without limits: 1.1 s ({warm}, processor 0.55 s).",
    ]
    assert told[-1].startswith("Recommended: max_concurrent_loads: 2. All models load in 2.45 s")
    document = json.loads(json.dumps(bench_document(findings, {"config": "models.yml"})))
    assert document["recommended"]["max_concurrent_loads"] == 2
    assert document["models"][0]["figures"]["warm_seconds"]["samples"] == [1.0, 1.2, 1.1]
    page = bench_page("Benchmark of <models>", "about", findings, compared(document, document))
    assert "max_concurrent_loads: 2</b> is recommended" in page
    assert "Benchmark of &lt;models&gt;" in page
    assert "What has changed" in page
    about = {"made": "today", "repeats": 5, "versions": {"python": "3.11"}}
    machine = {"cores": 2, "system": "Linux", "loop": "trio"}
    line = line_about({**about, "machine": machine})
    assert line == "today, 5 repeats, on 2 cores, Linux, trio; python 3.11"


def test_a_page_of_many_models_shows_the_slowest() -> None:
    """Their table is folded."""
    page = bench_page("B", "about", some_findings(500), None)
    assert f"These are the {MANY_MODELS} slowest of 500 models." in page
    assert "<details><summary>The 500 models, in figures</summary>" in page
    assert len(page) < 1_000_000


def test_samples_go_from_process_to_process() -> None:
    """As JSON, and what comes out is what went in."""
    from dataclasses import asdict

    for sample in (alone(1.0, 2.0), alone(1.0), together(bulk(1, 2.0))):
        document = json.loads(json.dumps(asdict(sample)))
        assert type(sample).from_document(document) == sample
