"""What ``anyload bench`` shows: the rows of its tables, sentences, and its JSON document. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from .._drawing.words import size
from .._tables import Row, flat
from .._text import quoted
from ..reports import seconds
from .comparison import Comparison
from .findings import BulkFindings, Findings, ModelFindings, figures_document
from .statistics import Figure

MODEL_COLUMNS = (
    *("model", "backend", "import", "cold load", "warm load", "warm-up", "queued", "gap"),
    *("p99 gap", "memory", "read", "on disk"),
)
BULK_COLUMNS = (
    *("at once", "cold", "of ideal", "warm", "of ideal", "gap", "p99 gap", "memory", "read"),
)
CHANGE_COLUMNS = ("figure", "then", "now", "ratio", "verdict")

BUSY = 0.1
"""From this noise of the same work on, it is told."""
MOST_NAMED = 20
"""How many models a sentence names."""

BENCH_KEYS = """\
the document of bench --json; a figure is median, low, high, samples:
  config, made, versions, machine (cores, system, loop), repeats, not_cold (why; else empty)
  models     of each: model, module_id, backend, bytes_on_disk, unfinished (how, reason)
    figures    those that could be had of: prepare_seconds (imports, start of a backend),
               first_seconds (the first load after these, cold), cold_seconds, warm_seconds,
               warmup_seconds, queue_seconds (in the boot), cpu_seconds, longest_gap, p99_gap,
               first_gap (imports included), bytes_read (by the cold load), memory_before,
               memory_loaded, memory_released (bytes)
  boot       all models in a new process, as configured, cold, with imports; those that could be
             had of: seconds, prepare_seconds, queue_seconds, load_seconds, warmup_seconds (of
             all models together), longest_gap, p99_gap, memory_peak, bytes_read
  bulks      of each number of slots: at_once, makespans (cold, warm), longest_gap, p99_gap,
             memory_peak, bytes_read (cold), failed (models that load with another number)
  ideals     of cold and warm: longest, cpu, disk, seconds (the greatest), reason
  recommended  max_concurrent_loads, reason; configured: what it is now
  disk_speed, yardstick (a fixed piece of work, in seconds), unfinished, failed
  comparison   with --compare: machine (seconds of the yardstick, of what they were), noise,
               only_before, only_after (models)
    changes    of each figure: what, before, after (medians), ratio, verdict
module_id, backend, bytes_on_disk, unfinished, disk, memory_peak, bytes_read, recommended,
disk_speed, yardstick, a comparison's machine and ratio may be null."""


def model_rows(findings: Findings) -> list[Row]:
    """Return one row per model, for ``MODEL_COLUMNS``."""
    return [_model_row(model) for model in findings.models]


def _model_row(model: ModelFindings) -> Row:
    if not model.figures:
        how = model.unfinished.how if model.unfinished else "-"
        return (model.model, how, *["-"] * (len(MODEL_COLUMNS) - 2))
    of = model.figures.get
    return (
        model.model,
        model.backend or "-",
        spread(of("prepare_seconds")),
        spread(of("cold_seconds")),
        spread(of("warm_seconds")),
        spread(of("warmup_seconds")),
        _seconds(of("queue_seconds")),
        _seconds(of("longest_gap")),
        _seconds(of("p99_gap")),
        size(model.memory_taken),
        size(model.median("bytes_read")),
        size(model.bytes_on_disk),
    )


def bulk_rows(findings: Findings) -> list[Row]:
    """Return one row per number of slots, for ``BULK_COLUMNS``."""
    return [_bulk_row(bulk, findings) for bulk in findings.bulks]


def _bulk_row(bulk: BulkFindings, findings: Findings) -> Row:
    advice = findings.recommendation
    told = " (models fail)" if bulk.at_once in findings.lost else ""
    if advice is not None and advice.at_once == bulk.at_once:
        told = " (recommended)"
    cells = []
    for cache in ("cold", "warm"):
        figure, ideal = bulk.makespans.get(cache), findings.ideals.get(cache)
        cells.append(spread(figure))
        known = figure is not None and ideal is not None and ideal.seconds
        cells.append(f"{figure.median / ideal.seconds:.2f}" if known and figure and ideal else "-")
    return (
        f"{bulk.at_once}{told}",
        *cells,
        _seconds(bulk.longest_gap),
        _seconds(bulk.p99_gap),
        _size(bulk.memory_peak),
        _size(bulk.bytes_read),
    )


def spread(figure: Figure | None) -> str:
    """Return a duration with how far it is spread: ``0.41 s (0.39 to 0.52)``."""
    if figure is None:
        return "-"
    if figure.low == figure.high:
        return seconds(figure.median)
    scale = 1000.0 if figure.median < 0.1 else 1.0
    return f"{seconds(figure.median)} ({figure.low * scale:.3g} to {figure.high * scale:.3g})"


def _seconds(figure: Figure | None) -> str:
    return "-" if figure is None else seconds(figure.median)


def _size(figure: Figure | None) -> str:
    return size(None if figure is None else figure.median)


def sentences(findings: Findings) -> Iterator[str]:
    """Yield what a person should know beside the tables, and what to do."""
    yield from facts(findings)
    if findings.recommendation is not None:
        advice = findings.recommendation
        yield f"Recommended: max_concurrent_loads: {advice.at_once}. {advice.reason}"


def facts(findings: Findings) -> Iterator[str]:
    """Yield what was measured and is in no table."""
    if boot := findings.boot:
        yield (
            f"A new process, {findings.configured} at once as configured, imports included:"
            f" {spread(boot['seconds'])}. Of all models together, imports take"
            f" {_seconds(boot['prepare_seconds'])}, loads {_seconds(boot['load_seconds'])},"
            f" warm-ups {_seconds(boot['warmup_seconds'])}, and they are queued for"
            f" {_seconds(boot['queue_seconds'])}. The longest gap of the event loop is"
            f" {_seconds(boot['longest_gap'])}, the 99th percentile {_seconds(boot['p99_gap'])}."
            f" Memory grows by {_size(boot.get('memory_peak'))}; {_size(boot.get('bytes_read'))}"
            " are read."
        )
    for slots, models in findings.lost.items():
        yield (
            f"With {slots} at once, models fail that load with another number:"
            f" {_named(models)}. So {slots} is not recommended."
        )
    for cache, ideal in sorted(findings.ideals.items()):
        parts = [f"longest model {seconds(ideal.longest)}", f"processor {seconds(ideal.cpu)}"]
        parts += [f"disk {seconds(ideal.disk)}"] if ideal.disk is not None else []
        told = f"{seconds(ideal.seconds)} ({', '.join(parts)})"
        yield f"Ideal with {cache} files, without limits: {told}."
    if findings.bulks and findings.failed:
        yield "There is no ideal to compare with, as not all models load."
    if findings.disk_speed is not None:
        yield f"The disk gives {size(findings.disk_speed.median)} a second, one file at a time."
    work = findings.yardstick
    if work is not None and work.noise > BUSY:
        yield (
            f"The machine was busy: the same work took from {seconds(work.low)} to"
            f" {seconds(work.high)}. On a quiet one the figures are closer together."
        )
    if findings.not_cold:
        yield f"Cold files could not be had everywhere: {findings.not_cold}."


def complaints(findings: Findings) -> Iterator[str]:
    """Yield what did not load or came to no end, and why."""
    for model, why in findings.failed.items():
        yield f"{quoted(model)} does not load: {flat(why)}"
    if findings.unfinished is not None:
        told = "" if findings.boot else "; so how many at once is best is not known"
        yield f"all models together: {flat(findings.unfinished)}{told}"


def _named(models: Sequence[str]) -> str:
    more = f" and {len(models) - MOST_NAMED} more" if len(models) > MOST_NAMED else ""
    return ", ".join(map(quoted, models[:MOST_NAMED])) + more


def change_rows(comparison: Comparison) -> list[Row]:
    """Return one row per figure that differs, for ``CHANGE_COLUMNS``; what is noise comes last."""
    order = {"more": 0, "less": 1, "too few repeats": 2, "noise": 3}
    changes = sorted(comparison.changes, key=lambda change: order[change.verdict])
    return [
        (
            change.what,
            _then(change.what, change.before),
            _then(change.what, change.after),
            "-" if change.ratio is None else f"{change.ratio:.2f}",
            change.verdict,
        )
        for change in changes
    ]


def _then(what: str, figure: Figure) -> str:
    return size(figure.median) if what.endswith("memory_loaded") else spread(figure)


def comparison_sentences(comparison: Comparison) -> Iterator[str]:
    """Yield what a person should know of a comparison."""
    real = sum(change.verdict in ("less", "more") for change in comparison.changes)
    yield f"{real} of {len(comparison.changes)} figures have changed by more than noise."
    factor = comparison.machine
    if factor is not None and not 0.95 < factor < 1.05:
        yield (
            f"The machine itself takes {factor:.2f} times as long for the same work as it did"
            " then; a change counts only if it is more than that."
        )
    if comparison.noise > BUSY:
        yield (
            "The machine was busy: a change counts only if it is more than"
            f" {comparison.noise:.0%}. On a quiet one, smaller ones show."
        )
    if comparison.only_before:
        yield f"Not there any more: {', '.join(comparison.only_before)}."
    if comparison.only_after:
        yield f"New: {', '.join(comparison.only_after)}."


def bench_document(findings: Findings, about: Mapping[str, Any]) -> dict[str, Any]:
    """Return what ``anyload bench --json`` prints; its keys are promised in ``--help``.

    Args:
        findings: what was found out.
        about: what was measured, when, and on what.
    """
    advice = findings.recommendation
    return {
        **about,
        "not_cold": findings.not_cold,
        "models": [
            {
                "model": one.model,
                "module_id": one.module_id,
                "backend": one.backend,
                "bytes_on_disk": one.bytes_on_disk,
                "unfinished": one.unfinished and asdict(one.unfinished),
                "figures": figures_document(one.figures),
            }
            for one in findings.models
        ],
        "boot": figures_document(findings.boot),
        "bulks": [
            {
                "at_once": bulk.at_once,
                "makespans": figures_document(bulk.makespans),
                "longest_gap": bulk.longest_gap.document(),
                "p99_gap": bulk.p99_gap.document(),
                "memory_peak": bulk.memory_peak and bulk.memory_peak.document(),
                "bytes_read": bulk.bytes_read and bulk.bytes_read.document(),
                "failed": list(findings.lost.get(bulk.at_once, ())),
            }
            for bulk in findings.bulks
        ],
        "ideals": {
            cache: {**asdict(ideal), "seconds": ideal.seconds, "reason": ideal.reason}
            for cache, ideal in findings.ideals.items()
        },
        "configured": findings.configured,
        "recommended": advice and {"max_concurrent_loads": advice.at_once, "reason": advice.reason},
        "disk_speed": findings.disk_speed and findings.disk_speed.document(),
        "yardstick": findings.yardstick and findings.yardstick.document(),
        "unfinished": findings.unfinished and asdict(findings.unfinished),
        "failed": list(findings.failed),
    }
