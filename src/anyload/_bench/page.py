"""The page of ``anyload bench``: what to do, the timelines, the distributions, the tables. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from types import MappingProxyType

from .._drawing.chart import timeline_figure
from .._drawing.page import page
from .._drawing.strips import Dots, Strip, strips_figure
from .._drawing.words import counted, safe
from .._tables import Row
from .comparison import Comparison
from .findings import CACHES, Findings, ModelFindings
from .statistics import Figure
from .tables import (
    BULK_COLUMNS,
    CHANGE_COLUMNS,
    MODEL_COLUMNS,
    bulk_rows,
    change_rows,
    comparison_sentences,
    complaints,
    facts,
    model_rows,
)

MANY_MODELS = 40
"""Of more models than this, the picture has the slowest, and the table is folded."""
SAID = MappingProxyType(
    {"cold": "cold files", "warm": "warm files", "first": "imports, start of a backend"}
)


def bench_page(title: str, about: str, findings: Findings, comparison: Comparison | None) -> str:
    """Return the page.

    Args:
        title: what was measured.
        about: when, and on what, in a line.
        findings: what was found out.
        comparison: what is different from an earlier benchmark; None for no such part.
    """
    parts = [f"<h1>{safe(title)}</h1>", f'<p class="quiet">{safe(about)}</p>']
    advice = findings.recommendation
    if advice is not None:
        told = f"<b>max_concurrent_loads: {advice.at_once}</b> is recommended."
        parts.append(f'<div class="told"><p>{told} {safe(advice.reason)}</p></div>')
    if findings.bulks:
        parts.append("<h2>All models, by the number of slots</h2>")
        caption = (
            "Each dot is a load of all models, in a process that has done the imports; the bar is"
            " the median. A dashed line is the ideal, which no number of slots can beat."
        )
        parts.append(strips_figure(_bulk_strips(findings), caption))
        parts.append(_table(BULK_COLUMNS, bulk_rows(findings)))
    parts.append(_paragraphs(facts(findings)))
    if wrong := list(complaints(findings)):
        parts.append("<h2>What does not load</h2>")
        parts.append(_paragraphs(wrong))
    for what, timeline in findings.timelines.items():
        parts.append(timeline_figure(timeline, what, folded=True))
    parts.append("<h2>Each model</h2>")
    parts.append(_models(findings))
    if comparison is not None:
        parts.append("<h2>What has changed</h2>")
        parts.append(_paragraphs(comparison_sentences(comparison)))
        parts.append(_table(CHANGE_COLUMNS, change_rows(comparison)))
    return page(title, "\n".join(part for part in parts if part))


def _paragraphs(texts: Iterable[str]) -> str:
    return "".join(f"<p>{safe(text)}</p>" for text in texts)


def _bulk_strips(findings: Findings) -> list[Strip]:
    advice = findings.recommendation
    return [
        Strip(
            f"{bulk.at_once} at once",
            [_dots(cache, bulk.makespans[cache]) for cache in CACHES if cache in bulk.makespans],
            {cache: one.seconds for cache, one in findings.ideals.items()},
            chosen=advice is not None and advice.at_once == bulk.at_once,
        )
        for bulk in findings.bulks
    ]


def _models(findings: Findings) -> str:
    measured = [model for model in findings.models if model.figures]
    slowest = sorted(measured, key=_slowness, reverse=True)[:MANY_MODELS]
    caption = "Each dot is a load in a process of its own, without its warm-up."
    if len(measured) > len(slowest):
        caption += f" These are the {len(slowest)} slowest of {counted(len(measured), 'model')}."
    picture = strips_figure([_model_strip(model) for model in slowest], caption)
    table = _table(MODEL_COLUMNS, model_rows(findings))
    if len(findings.models) > MANY_MODELS:
        told = f"The {counted(len(findings.models), 'model')}, in figures"
        table = f"<details><summary>{told}</summary>{table}</details>"
    return picture + table


def _slowness(model: ModelFindings) -> float:
    return model.median("cold_seconds") or model.median("warm_seconds") or 0.0


def _model_strip(model: ModelFindings) -> Strip:
    kinds = {"first": "prepare_seconds", "cold": "cold_seconds", "warm": "warm_seconds"}
    dots = [
        _dots(kind, model.figures[name]) for kind, name in kinds.items() if name in model.figures
    ]
    return Strip(model.model, [one for one in dots if one.median > 0])


def _dots(kind: str, figure: Figure) -> Dots:
    return Dots(kind, SAID[kind], figure.samples, figure.median)


def _table(columns: Row, rows: Sequence[Row]) -> str:
    head = "".join(f"<th>{safe(column)}</th>" for column in columns)
    body = "".join(
        f'<tr><th scope="row">{safe(first)}</th>'
        + "".join(f"<td>{safe(cell)}</td>" for cell in rest)
        + "</tr>"
        for first, *rest in rows
    )
    return (
        f'<div class="scroll below"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )
