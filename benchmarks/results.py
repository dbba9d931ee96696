"""What benchmarks find out, and how it is kept in a file."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median, quantiles
from typing import Any, Self

DIGITS = 3
LINE = 200


@dataclass(frozen=True)
class Spread:
    """The median of the rounds, and the middle half of them."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float], factor: float = 1.0) -> Self:
        low, _, high = quantiles(values, method="inclusive") if len(values) > 1 else 3 * [values[0]]
        return cls(median(values) * factor, low * factor, high * factor)


@dataclass(frozen=True)
class Row:
    """One figure, with its target where it has one.

    Args:
        figure: its number in the list of targets, and what it is.
        value: what was measured, a ratio unless there is a unit; None where it cannot be.
        target: what it may be at most; None where it is for information.
        absolute: what the ratio was made from, for a person to read; or why there is none.
        rounds: the spread of the value.
    """

    figure: str
    value: float | None
    target: float | None
    absolute: str
    unit: str = ""
    rounds: Spread | None = None

    @property
    def missed(self) -> bool:
        return self.target is not None and self.value is not None and self.value > self.target


@dataclass(frozen=True)
class Cell:
    """What one way of doing a thing came to.

    Args:
        way: its name.
        value: what was measured; None where it cannot be.
        ratio: the same over the floor's, round by round.
        instead: what is shown where there is no number: why not.
    """

    way: str
    value: Spread | None = None
    ratio: Spread | None = None
    instead: str = ""


@dataclass(frozen=True)
class Comparison:
    """Several ways of doing one thing, side by side.

    Args:
        topic: what they are compared in; the comparisons of one topic make one table.
        case: which case of it this is, a column of that table.
        unit: of the values.
        floor: the way that the others are measured in.
    """

    topic: str
    case: str
    unit: str
    floor: str
    cells: tuple[Cell, ...]


@dataclass
class Found:
    """What was found on one event loop, or without any."""

    rows: list[Row] = field(default_factory=list)
    comparisons: list[Comparison] = field(default_factory=list)

    def add(self, results: Iterable[Row | Comparison]) -> None:
        for result in results:
            if isinstance(result, Row):
                self.rows.append(result)
            else:
                self.comparisons.append(result)

    def __bool__(self) -> bool:
        return bool(self.rows or self.comparisons)


@dataclass
class Results:
    """All of one run.

    Args:
        date: of the run.
        where: what it ran on: the interpreter, the system, the cores.
        versions: of the packages that took part.
        done: the names of the benchmarks that ran.
        found: by event loop, or `WITHOUT_A_LOOP`.
    """

    date: str
    where: str
    versions: dict[str, str]
    done: list[str] = field(default_factory=list)
    found: dict[str, Found] = field(default_factory=dict)

    def on(self, loop: str) -> Found:
        return self.found.setdefault(loop, Found())

    def merge(self, other: Results) -> None:
        """Take in what was found in another environment."""
        self.versions = {**other.versions, **self.versions}
        self.done += other.done
        for loop, found in other.found.items():
            self.on(loop).add((*found.rows, *found.comparisons))

    def write(self, path: Path) -> None:
        path.write_text(_laid_out(_rounded(asdict(self))) + "\n", encoding="utf-8")

    @classmethod
    def read(cls, path: Path) -> Self:
        kept = json.loads(path.read_text(encoding="utf-8"))
        found = {
            loop: Found(
                [Row(**{**row, "rounds": _spread(row["rounds"])}) for row in one["rows"]],
                [
                    Comparison(**{**each, "cells": tuple(map(_cell, each["cells"]))})
                    for each in one["comparisons"]
                ],
            )
            for loop, one in kept.pop("found").items()
        }
        return cls(**kept, found=found)


WITHOUT_A_LOOP = "without a loop"


def _cell(kept: dict[str, Any]) -> Cell:
    return Cell(
        **{**kept, "value": _spread(kept["value"]), "ratio": _spread(kept["ratio"])},
    )


def _spread(kept: dict[str, float] | None) -> Spread | None:
    return None if kept is None else Spread(**kept)


def _rounded(value: Any) -> Any:
    """More digits than a measurement has are noise in a diff."""
    match value:
        case dict():
            return {key: _rounded(part) for key, part in value.items()}
        case list() | tuple():
            return [_rounded(part) for part in value]
        case float():
            return float(f"{value:.{DIGITS + 1}g}")
    return value


def _laid_out(value: Any, depth: int = 0) -> str:
    """As JSON, with on one line what has room there."""
    text = json.dumps(value, ensure_ascii=False)
    if len(text) + depth <= LINE or not isinstance(value, (dict, list)):
        return text
    indent = " " * (depth + 1)
    if isinstance(value, list):
        parts = [_laid_out(part, depth + 1) for part in value]
        opened, closed = "[]"
    else:
        parts = [f"{json.dumps(key)}: {_laid_out(part, depth + 1)}" for key, part in value.items()]
        opened, closed = "{}"
    inside = ",\n".join(f"{indent}{part}" for part in parts)
    return f"{opened}\n{inside}\n{' ' * depth}{closed}"


def number(value: float) -> str:
    """Return a number with three digits, as tables show it."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.{DIGITS}g}"
