"""In which order models are given up when memory is needed: the first is the least worth keeping.

Each policy returns a number for a model that nobody uses; the higher, the sooner it goes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Literal, NamedTuple

from .budget import Sizes

PolicyName = Literal["lru", "cost", "largest"]

QUICKEST_LOAD = 0.001
"""What a reload costs at least, in seconds: a model that loads in no time is still a load."""


class Idle(NamedTuple):
    """What a policy may look at.

    Args:
        name: the model's name.
        idle_seconds: how long nobody has used it.
        load_seconds: how long its load took.
        sizes: what it holds, in bytes by device.
    """

    name: str
    idle_seconds: float
    load_seconds: float
    sizes: Sizes


Policy = Callable[[Idle], float]


def least_recently_used(model: Idle) -> float:
    """Give up what has been idle longest."""
    return model.idle_seconds


def cost_aware(model: Idle) -> float:
    """Give up what has been idle long, and holds much, for what a reload of it costs.

    Room is what is short, so it is the cost of a byte that counts, as in the GreedyDual-Size rule
    of web caches (Cao and Irani, 1997): one large model may stand where three small ones could,
    whose reloads together cost more. Where loads take as long as models are large, it is `lru`.
    """
    cost = max(model.load_seconds, QUICKEST_LOAD)
    return model.idle_seconds * sum(model.sizes.values()) / cost


def largest_first(model: Idle) -> float:
    """Give up what holds most."""
    return sum(model.sizes.values())


POLICIES: Mapping[PolicyName, Policy] = MappingProxyType(
    {"lru": least_recently_used, "cost": cost_aware, "largest": largest_first}
)
