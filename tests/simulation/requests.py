"""Who asks for what, when, and for how long: drawn from the seed before anything happens."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Literal

from .fibers import on_tick
from .world import ALIAS, HOMES, HOT, MODELS

SPAN = 60.0
"""Within how many seconds all requests come."""

How = Literal["init", "thread", "many", "fail fast", "each", "some", "plan", "nested"]
OFTEN: dict[How, int] = {
    "init": 70,
    "thread": 10,
    "many": 4,
    "fail fast": 4,
    "each": 4,
    "some": 4,
    "plan": 4,
}
SINGLE = ("init", "thread", "plan")
FOR_EVER = float("inf")


@dataclass(eq=False)
class Request:
    """One call of an initializer, and what came of it.

    Args:
        number: its place among the requests.
        at: when it is made.
        home: the initializer.
        how: which call.
        models: what it asks for; more than one in a bulk.
        variant: a load kwarg.
        priority: a priority.
        patience: after how many seconds it is cancelled.
    """

    number: int
    at: float
    home: str
    how: How
    models: list[str]
    variant: int = 0
    priority: int = 0
    patience: float = FOR_EVER
    waiting: bool = False
    ended_at: float = FOR_EVER
    outcomes: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        what = self.models[0] if len(self.models) == 1 else f"{len(self.models)} models"
        return f"request {self.number} ({self.how} {self.home}/{what}{'+' * self.variant})"


def draw(seed: int, size: int) -> list[Request]:
    """Return as many requests, in the order in which they come."""
    dice = random.Random(seed)
    requests = []
    moments = sorted(dice.uniform(0, SPAN) for _ in range(size))
    for number, at in enumerate(moments):
        (how,) = dice.choices(list(OFTEN), list(OFTEN.values()))
        several = 1 if how in SINGLE else dice.randrange(2, 8)
        hot = dice.random() < 0.5
        request = Request(
            number,
            # Many come at the same moment.
            on_tick(at) if dice.random() < 0.5 else round(at),
            dice.choice(HOMES),
            how,
            dice.sample(HOT if hot else [*MODELS, ALIAS, "nowhere"], several),
            int(dice.random() < 0.1),
            dice.choice([0, 0, 0, 1, 5]),
            dice.choice([FOR_EVER, FOR_EVER, 0.0, on_tick(dice.expovariate(1.0)), 4.0]),
        )
        requests.append(request)
    return requests
