"""What ``anyload bench`` does between its arguments and its result."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from typing import Any, TextIO

from .._drawing.trace import chrome_trace
from .._tables import whole
from .._terminal import progress, write_json, write_table
from ..bench import Bench, slots_to_try
from .comparison import Comparison, compared
from .findings import Findings
from .page import bench_page
from .tables import (
    BULK_COLUMNS,
    CHANGE_COLUMNS,
    MODEL_COLUMNS,
    bench_document,
    bulk_rows,
    change_rows,
    comparison_sentences,
    model_rows,
    sentences,
)


def run_bench(
    args: argparse.Namespace,
    models: Sequence[str],
    configured: int,
    before: Mapping[str, Any] | None,
    out: TextIO,
) -> Findings:
    """Measure, show what was found, and write the files that are asked for.

    Args:
        args: the arguments.
        models: what to measure.
        configured: how many slots there are.
        before: the document of an earlier benchmark to compare with.
        out: where the result goes.

    Raises:
        OSError: a file cannot be written.
    """
    at_once = args.at_once or slots_to_try(configured, len(models))
    bench = Bench(
        args.config,
        args.name,
        args.loop,
        tuple(models),
        not args.models,
        at_once,
        args.repeats,
        args.timeout,
    )
    about = bench.about()
    with progress(bench.processes, "measuring") as done:
        findings = bench.run(done)
    document = bench_document(findings, about)
    comparison = None
    # Where nothing came to an end there is nothing to compare.
    if before is not None and findings.yardstick is not None:
        comparison = compared(before, document)
    if args.json:
        changes = comparison and {"comparison": _comparison_document(comparison)}
        write_json(out, {**document, **(changes or {})})
    else:
        _write_tables(out, findings, comparison)
    if args.timeline:
        title = f"Benchmark of {args.config}"
        with open(args.timeline, "w", encoding="utf-8") as file:
            file.write(bench_page(title, line_about(about), findings, comparison))
    if args.trace and findings.timelines:
        with open(args.trace, "w", encoding="utf-8") as file:
            # The last one: as recommended, where a bulk has got so far.
            json.dump(chrome_trace(list(findings.timelines.values())[-1]), file)
    return findings


def _write_tables(out: TextIO, findings: Findings, comparison: Comparison | None) -> None:
    write_table(out, MODEL_COLUMNS, model_rows(findings))
    if findings.bulks:
        out.write("\n")
        write_table(out, BULK_COLUMNS, bulk_rows(findings))
    for sentence in sentences(findings):
        out.write(f"\n{whole(sentence)}")
    out.write("\n")
    if comparison is not None:
        out.write("\n")
        write_table(out, CHANGE_COLUMNS, change_rows(comparison))
        for sentence in comparison_sentences(comparison):
            out.write(f"\n{whole(sentence)}")
        out.write("\n")


def _comparison_document(comparison: Comparison) -> dict[str, Any]:
    return {
        "machine": comparison.machine,
        "noise": comparison.noise,
        "only_before": list(comparison.only_before),
        "only_after": list(comparison.only_after),
        "changes": [
            {
                "what": change.what,
                "before": change.before.median,
                "after": change.after.median,
                "ratio": change.ratio,
                "verdict": change.verdict,
            }
            for change in comparison.changes
        ],
    }


def line_about(about: Mapping[str, Any]) -> str:
    """Return in a line when it was measured, and on what."""
    versions = ", ".join(f"{name} {version}" for name, version in about["versions"].items())
    machine = about["machine"]
    where = f"{machine['cores']} cores, {machine['system']}, {machine['loop']}"
    return f"{about['made']}, {about['repeats']} repeats, on {where}; {versions}"
