"""What is different from an earlier benchmark, and whether that is noise. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from .statistics import Figure, chance

Verdict = Literal["less", "more", "noise", "too few repeats"]

SMALL = 0.05
"""What differs by a smaller part is of no interest, however certain."""
CERTAIN = 0.01
"""What happens by chance less often than this is no chance."""
COMPARED = (
    *("prepare_seconds", "cold_seconds", "warm_seconds", "warmup_seconds", "cpu_seconds"),
    *("longest_gap", "memory_loaded"),
)


@dataclass(frozen=True, slots=True)
class Change:
    """One figure, then and now.

    Args:
        what: the figure, and of what.
        before: what it was, in seconds or bytes.
        after: what it is.
        verdict: it has become less, or more; it may well be noise; or nobody can tell, because
            there are too few repeats.
    """

    what: str
    before: Figure
    after: Figure
    verdict: Verdict

    @property
    def ratio(self) -> float | None:
        """The median now, of the one then; None if that was nothing."""
        return self.after.median / self.before.median if self.before.median else None


@dataclass(frozen=True, slots=True)
class Comparison:
    """What is different.

    Args:
        changes: of the figures that both have.
        machine: how long the same fixed work takes now, of what it took then: 2 is a machine that
            is half as fast.
        only_before: models that are not there any more.
        only_after: models that are new.
    """

    changes: tuple[Change, ...]
    machine: float
    only_before: tuple[str, ...]
    only_after: tuple[str, ...]


def compared(before: Mapping[str, Any], after: Mapping[str, Any]) -> Comparison:
    """Compare two documents of ``anyload bench --json``.

    A figure has changed if it did so by 5 % and more, if chance alone would do that less than once
    in a hundred times, and if both hold too when a slower or faster machine is allowed for: a
    neighbour that takes the processor is no change of a model.

    Args:
        before: the earlier one.
        after: the later one.

    Raises:
        KeyError: one of them is no such document; so do TypeError and ValueError.
    """
    old, new = dict(_figures(before)), dict(_figures(after))
    machine = _yardstick(after) / _yardstick(before)
    models = [
        dict.fromkeys(one["model"] for one in document["models"]) for document in (before, after)
    ]
    return Comparison(
        tuple(
            Change(what, old[what], figure, verdict_on(old[what], figure, _drift(what, machine)))
            for what, figure in new.items()
            if what in old
        ),
        machine,
        tuple(name for name in models[0] if name not in models[1]),
        tuple(name for name in models[1] if name not in models[0]),
    )


def verdict_on(before: Figure, after: Figure, machine: float = 1.0) -> Verdict:
    """Decide whether a figure has changed.

    Args:
        before: what it was.
        after: what it is.
        machine: by what factor the machine alone is slower now.
    """
    alike = tuple(sample / machine for sample in after.samples)
    verdicts = {_verdict(before.samples, samples) for samples in (after.samples, alike)}
    return verdicts.pop() if len(verdicts) == 1 else "noise"


def _verdict(before: Sequence[float], after: Sequence[float]) -> Verdict:
    old, new = Figure(tuple(before)).median, Figure(tuple(after)).median
    if abs(new - old) <= SMALL * abs(old):
        return "noise"
    # What the test says of samples that do not overlap at all: with these, can it be certain?
    apart = chance(range(len(before)), range(len(before), len(before) + len(after)))
    if apart > CERTAIN:
        return "too few repeats"
    if chance(before, after) > CERTAIN:
        return "noise"
    return "less" if new < old else "more"


def _drift(what: str, machine: float) -> float:
    """Return what a slower machine does to a figure: bytes stay what they are."""
    return 1.0 if what.endswith("memory_loaded") else machine


def _figures(document: Mapping[str, Any]) -> Iterator[tuple[str, Figure]]:
    for model in document["models"]:
        for name in COMPARED:
            if name in model["figures"]:
                yield f"{model['model']} {name}", _read(model["figures"][name])
    if document["boot"] is not None:
        yield "all models boot", _read(document["boot"])
    for bulk in document["bulks"]:
        for cache, figure in bulk["makespans"].items():
            yield f"all models {cache}, {bulk['at_once']} at once", _read(figure)


def _read(figure: Mapping[str, Any]) -> Figure:
    return Figure(tuple(float(sample) for sample in figure["samples"]))


def _yardstick(document: Mapping[str, Any]) -> float:
    return _read(document["yardstick"]).median
