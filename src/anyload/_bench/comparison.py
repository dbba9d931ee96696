"""What is different from an earlier benchmark, and whether that is noise. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import isfinite
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
TOGETHER = "all models:"
"""What the name of a figure of all models begins with."""


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
            is half as fast. None where it came to no end.
        noise: how far such work was from its median, as a part of that, in the noisier one.
        only_before: models that are not there any more.
        only_after: models that are new.
    """

    changes: tuple[Change, ...]
    machine: float | None
    noise: float
    only_before: tuple[str, ...]
    only_after: tuple[str, ...]


def compared(before: Mapping[str, Any], after: Mapping[str, Any]) -> Comparison:
    """Compare two documents of ``anyload bench --json``.

    A figure has changed if it did so by more than 5 % and more than the noise of the machines, if
    chance alone would do that less than once in a hundred times, and if both hold too when a slower
    or faster machine is allowed for: a neighbour that takes the processor is no change of a model.

    Args:
        before: the earlier one.
        after: the later one.

    Raises:
        ValueError: one of them is no such document; so do ArithmeticError, AttributeError,
            LookupError and TypeError.
    """
    old, new = dict(_figures(before)), dict(_figures(after))
    machine, noise = None, 0.0
    if before["yardstick"] is not None and after["yardstick"] is not None:
        then, now = _read(before["yardstick"]), _read(after["yardstick"])
        machine, noise = now.median / then.median, max(then.noise, now.noise)
    models, others = (dict.fromkeys(_names(document)) for document in (before, after))
    gone = tuple(name for name in models if name not in others)
    came = tuple(name for name in others if name not in models)

    def verdict(what: str) -> Verdict:
        if what.endswith("memory_loaded"):  # bytes are the same on any machine
            return verdict_on(old[what], new[what])
        return verdict_on(old[what], new[what], machine or 1.0, noise)

    return Comparison(
        tuple(
            Change(what, old[what], figure, verdict(what))
            for what, figure in new.items()
            # All models are something else where there are others.
            if what in old and not ((gone or came) and what.startswith(TOGETHER))
        ),
        machine,
        noise,
        gone,
        came,
    )


def verdict_on(before: Figure, after: Figure, machine: float = 1.0, noise: float = 0.0) -> Verdict:
    """Decide whether a figure has changed.

    Args:
        before: what it was.
        after: what it is.
        machine: by what factor the machine alone is slower now.
        noise: what differs by a smaller part than this may be the machine's.
    """
    alike = Figure(tuple(sample / machine for sample in after.samples))
    small = max(SMALL, noise)
    verdicts = {_verdict(before, figure, small) for figure in (after, alike)}
    return verdicts.pop() if len(verdicts) == 1 else "noise"


def _verdict(before: Figure, after: Figure, small: float) -> Verdict:
    old, new = before.median, after.median
    if max(old, new) <= (1 + small) * min(old, new):
        return "noise"
    # What the test says of samples that do not overlap at all: with these, can it be certain?
    first, all_of_them = len(before.samples), len(before.samples) + len(after.samples)
    if chance(range(first), range(first, all_of_them)) > CERTAIN:
        return "too few repeats"
    if chance(before.samples, after.samples) > CERTAIN:
        return "noise"
    return "less" if new < old else "more"


def _names(document: Mapping[str, Any]) -> Iterator[str]:
    for model in document["models"]:
        if not isinstance(model["model"], str):
            raise TypeError("a model's name is text")
        yield model["model"]


def _figures(document: Mapping[str, Any]) -> Iterator[tuple[str, Figure]]:
    for model in document["models"]:
        for name in COMPARED:
            if name in model["figures"]:
                yield f"{model['model']} {name}", _read(model["figures"][name])
    if "seconds" in document["boot"]:
        yield f"{TOGETHER} boot", _read(document["boot"]["seconds"])
    for bulk in document["bulks"]:
        for cache, figure in bulk["makespans"].items():
            yield f"{TOGETHER} {cache}, {bulk['at_once']} at once", _read(figure)


def _read(figure: Mapping[str, Any]) -> Figure:
    read = Figure(tuple(float(sample) for sample in figure["samples"]))
    if not isfinite(sum(read.samples)):
        raise ValueError("a sample is a number of seconds or bytes")
    return read
