"""What came of loads: of the models, of the process, and of what ran beside them."""

from __future__ import annotations

import sys
import threading
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from subjects import Subject, attempt

LATER = 16
"""Loads by hand, one after another, when a scene is over."""
RIGHT, REFUSED = "right", "refused"


@dataclass(frozen=True)
class Seen:
    """What came of a scene.

    Args:
        outcomes: the loads, by what is wrong with the model, `RIGHT` where nothing is.
        left: what torch and transformers hold that is not what they held before.
        later: loads one after another in the same process, afterwards; as ``outcomes``.
        dtype: the default dtype that the process is left with.
        meanwhile: the dtypes that a thread that loads nothing got for its tensors meanwhile.
        seconds: how long the loads took, all together.
    """

    outcomes: Counter[str]
    left: tuple[str, ...]
    later: Counter[str]
    dtype: str
    meanwhile: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0

    @property
    def bad(self) -> int:
        """How many loads gave no model or a wrong one, those not counted that were refused."""
        return self.outcomes.total() - self.outcomes[RIGHT] - self.outcomes[REFUSED]

    @property
    def later_bad(self) -> int:
        """How many of the later loads did."""
        return self.later.total() - self.later[RIGHT]


WATCHED = (
    "torch.nn",
    "torch._export.serde.serialize",
    "transformers.initialization",
    "transformers.modeling_utils",
)
"""Where to look, with all that begins so, for what is not what it was before."""


def held() -> dict[str, Any]:
    """Return every function and class there, and what else loads are known to leave changed.

    It does not go by the list that anyload's guard watches, so as to be a witness of its own.
    """
    import torch
    from torch._export.serde import serialize
    from transformers.modeling_utils import PreTrainedModel

    owners = {
        name: vars(module)
        for name, module in sorted(sys.modules.items())
        if name == "torch" or name.startswith(WATCHED)
    }
    owners["PreTrainedModel"] = dict(vars(PreTrainedModel))
    return {
        "the default dtype": torch.get_default_dtype(),
        "the deserializer": serialize._CURRENT_DESERIALIZER,
        "the warnings filters": tuple(warnings.filters),
        **{
            f"{owner}.{name}": value
            for owner, values in owners.items()
            for name, value in list(values.items())
            if callable(value)
        },
    }


def _changed(before: dict[str, Any]) -> tuple[str, ...]:
    after = held()
    return tuple(
        name
        for name, value in before.items()
        if after.get(name) is not value and (callable(value) or after.get(name) != value)
    )


@contextmanager
def bystander() -> Iterator[Counter[str]]:
    """Let a thread that has nothing to do with loading make tensors, and count their dtypes."""
    import torch

    dtypes, stop = Counter[str](), threading.Event()

    def work() -> None:
        while not stop.wait(0.0005):
            dtypes[str(torch.zeros(1).dtype).removeprefix("torch.")] += 1

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield dtypes
    finally:
        stop.set()
        thread.join()


def _outcome(subject: Subject, number: int, result: Any) -> str:
    from anyload import LoadError

    if isinstance(result, LoadError) and len(result.attempts) == 2:
        first, second = result.attempts
        holder = f"the load of {str(subject.config(number))!r} on FIRST"
        waited = f"waited for {holder}, which is past its limit and still running"
        if first.outcome == second.outcome == "timed_out" and second.reason == waited:
            return REFUSED
    if isinstance(result, Exception):
        return f"{type(result).__name__}: {result}".partition("\n")[0][:120]
    return subject.wrong(number, result) or RIGHT


def _outcomes(subject: Subject, results: Sequence[Any]) -> Counter[str]:
    return Counter(_outcome(subject, number, one) for number, one in enumerate(results))


def seen(
    subject: Subject,
    results: Sequence[Any],
    before: dict[str, Any],
    *,
    later: Sequence[Any] = (),
    **more: Any,
) -> Seen:
    """Return what came of a scene, after more loads by hand.

    Args:
        subject: what was loaded.
        results: what came of each load.
        before: what was `held` before.
        later: what came of loads afterwards that were not by hand.
        more: fields of `Seen`.
    """
    import torch

    left, dtype = _changed(before), str(torch.get_default_dtype()).removeprefix("torch.")
    outcomes = _outcomes(subject, results)
    by_hand = [attempt(subject.by_hand, number) for number in range(LATER)]
    afterwards = _outcomes(subject, later) + _outcomes(subject, by_hand)
    return Seen(outcomes, left, afterwards, dtype, **more)
