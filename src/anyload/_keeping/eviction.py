"""Which models to give up so that something else fits. Pure: it decides and evicts nothing."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from .._reading.amounts import bytes_text
from .budget import Sizes, plus
from .policies import Idle, Policy

Standing = Literal["idle", "leased", "pinned", "new"]
"""Whether a model may be evicted: only one that is ``idle``. ``new`` is one that came a moment
ago and may not go yet."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A model that is kept, as far as eviction is concerned."""

    model: Idle
    standing: Standing


@dataclass(frozen=True, slots=True)
class EvictionPlan:
    """What would be evicted for a need.

    Args:
        victims: the names of the models to give up, the first first; none if there is room.
        freed: what that gives back, in bytes by device.
        reason: why the need cannot be met by evicting; empty where it can.
    """

    victims: tuple[str, ...]
    freed: Sizes
    reason: str = ""


def plan_eviction(
    candidates: Iterable[Candidate], missing: Sizes, policy: Policy
) -> tuple[list[Idle], str]:
    """Return the models to give up so that as much becomes free as is missing, or why not.

    It goes by the policy, and then lets off each one without which there is enough as well. It
    evicts either enough or nothing: a model given up in vain would only have to be loaded again.

    Args:
        candidates: the models that are kept.
        missing: the bytes that have to become free, by device.
        policy: who goes first.
    """
    candidates = list(candidates)
    idle = [one.model for one in candidates if one.standing == "idle"]
    idle.sort(key=lambda model: (-policy(model), model.name))
    victims: list[Idle] = []
    for model in idle:
        if _enough(victims, missing):
            break
        if any(model.sizes.get(device, 0) for device in missing):
            victims.append(model)
    if not _enough(victims, missing):
        return [], _why_not(candidates, victims, missing)
    for model in list(reversed(victims)):
        others = [other for other in victims if other is not model]
        if _enough(others, missing):
            victims = others
    return victims, ""


def _enough(victims: Sequence[Idle], missing: Sizes) -> bool:
    freed = plus(model.sizes for model in victims)
    return all(freed.get(device, 0) >= size for device, size in missing.items())


def _why_not(candidates: Sequence[Candidate], idle: Sequence[Idle], missing: Sizes) -> str:
    freed = plus(model.sizes for model in idle)
    parts = []
    for device, size in missing.items():
        got = freed.get(device, 0)
        if got >= size:
            continue
        kept = [
            f"{one.model.name!r} is {one.standing} ({bytes_text(one.model.sizes[device])})"
            for one in candidates
            if one.standing != "idle" and one.model.sizes.get(device)
        ]
        rest = f"; {', '.join(kept[:5])}" if kept else ""
        more = f" and {len(kept) - 5} more" if len(kept) > 5 else ""
        parts.append(
            f"{bytes_text(size)} of {device} missing, {bytes_text(got)} to be had from idle models"
            f"{rest}{more}"
        )
    return "; ".join(parts)
