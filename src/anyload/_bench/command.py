"""What ``anyload bench`` does between its arguments and its result."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from typing import Any, TextIO

from .._drawing.trace import chrome_trace
from .._files import Refusal, usable, write_each
from .._reading.files import FileRefused, open_regular_file
from .._tables import whole
from .._terminal import progress, tell, write_json, write_table
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
    complaints,
    model_rows,
    sentences,
)

FOREIGN = (*(ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError),)
"""What is raised where a document is read that is another's."""


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
        Refusal: a file cannot be written; all else has been shown.
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
    comparison = None if before is None else compared(before, document)
    if args.json:
        changes = comparison and {"comparison": _comparison_document(comparison)}
        write_json(out, {**document, **(changes or {})})
    else:
        _write_tables(out, findings, comparison)
    for complaint in complaints(findings):
        tell(f"error: {complaint}")
    title = f"Benchmark of {args.config}"

    def page() -> None:
        with open(args.timeline, "w", encoding="utf-8") as file:
            file.write(bench_page(title, line_about(about), findings, comparison))

    def trace() -> None:
        # The last one: as recommended, where a bulk has got so far.
        with open(args.trace, "w", encoding="utf-8") as file:
            json.dump(chrome_trace(list(findings.timelines.values())[-1]), file)

    write_each(((args.timeline, page), (args.trace if findings.timelines else None, trace)))
    return findings


def earlier(path: str) -> dict[str, Any]:
    """Return the document of an earlier benchmark.

    Raises:
        Refusal: it cannot be read, or is none.
    """
    try:
        with usable(path, "read"), open_regular_file(path, follow_links=True) as file:
            document: dict[str, Any] = json.loads(file.read())
        compared(document, document)  # whether it is one
    except FileRefused as refused:
        raise Refusal(f"{whole(path)} cannot be read: {refused.reason}") from refused
    except FOREIGN as error:
        raise Refusal(f"{whole(path)} is no document of bench --json") from error
    return document


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
