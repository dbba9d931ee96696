"""What clients of a repository do, when, and for how long: drawn before anything happens."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Literal

from ..fibers import on_tick
from ..requests import FOR_EVER
from .catalogue import ALIAS, HOT, SIZES

SPAN = 60.0
"""Within how many seconds all requests come."""

How = Literal[
    "lease",
    "try",
    "thread",
    "thread, report",
    "pair",
    "load",
    "unload",
    "swap",
    "reload",
    "pin",
    "forget",
    "report",
    "preload",
    "look",
]
OFTEN: dict[How, int] = {
    "lease": 44,
    "try": 10,
    "thread": 30,
    "thread, report": 4,
    "pair": 6,
    "load": 5,
    "unload": 6,
    "swap": 6,
    "reload": 2,
    "pin": 4,
    "forget": 1,
    "report": 4,
    "preload": 2,
    "look": 2,
}


@dataclass(eq=False)
class Request:
    """One thing that a client does, and what came of it.

    Args:
        number: its place among the requests.
        at: when it is done.
        how: what.
        names: the models; the second is for what takes two.
        priority: a priority.
        hold: for how many seconds it uses what it gets.
        patience: after how many seconds it is cancelled.
    """

    number: int
    at: float
    how: How
    names: tuple[str, str]
    priority: int
    hold: float
    patience: float
    # What it waits for at this moment: a lease, or what becomes of a version.
    waits_for: Literal["", "a lease", "a version"] = ""
    outcomes: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        return f"request {self.number} ({self.how} {self.names[0]})"


def draw(seed: int, size: int) -> list[Request]:
    """Return as many requests, in the order in which they come."""
    dice = random.Random(seed)
    requests = []
    moments = sorted(dice.uniform(0, SPAN) for _ in range(size))
    for number, at in enumerate(moments):
        (how,) = dice.choices(list(OFTEN), list(OFTEN.values()))
        one, other = dice.sample(HOT if dice.random() < 0.6 else [*SIZES, ALIAS, "nobody"], 2)
        requests.append(
            Request(
                number,
                # Many come at the same moment.
                on_tick(at) if dice.random() < 0.5 else round(at),
                how,
                (one, other),
                dice.choice([0, 0, 0, 1, 5]),
                dice.choice([0.0, on_tick(dice.expovariate(1.0)), on_tick(dice.expovariate(0.4))]),
                dice.choice([FOR_EVER, FOR_EVER, 0.0, on_tick(dice.expovariate(1.0)), 4.0]),
            )
        )
    return requests
