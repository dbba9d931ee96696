"""What is loaded in a storm, and how it is seen afterwards that nothing was lost or kept."""

from __future__ import annotations

import threading
from collections import Counter
from typing import Any

from anyload import AnyloadError, Initializer, ModelConfig, Registry
from anyload.testing import FakeModel, at_rest, until

MODEL = ModelConfig("m")
BROKEN = 13
"""Models whose number this divides do not load."""


class Storm:
    """One initializer in a storm, and what its callers got.

    Args:
        options: the options of the initializer.
    """

    def __init__(self, **options: Any) -> None:
        storm = self
        self.made: list[FakeModel] = []
        self.given: set[int] = set()
        self.ends: Counter[str] = Counter()
        self._counting = threading.Lock()

        class Counted(FakeModel):
            @classmethod
            def load(cls, config: ModelConfig, number: int = 1) -> Any:  # type: ignore[override]
                if number % BROKEN == 0:
                    raise ValueError("broken weights")
                model = cls(config, {})
                storm.made.append(model)
                return model

        self.registry = Registry()
        self.registry.module("m")(Counted)
        self.initializer = Initializer(self.registry, **options)

    async def ask(self, number: int) -> None:
        """Be a caller in a task."""
        try:
            self.took(await self.initializer.init(MODEL, key=number, number=number))
        except AnyloadError:
            self.ended("error")

    def ask_in_thread(self, number: int, timeout: float | None) -> None:
        """Be a caller in a plain thread."""
        try:
            model = self.initializer.init_sync(MODEL, key=number, number=number, timeout=timeout)
            self.took(model)
        except AnyloadError:
            self.ended("error")
        except TimeoutError:
            self.ended("cancelled")

    async def another_model(self) -> None:
        """Wait until one more model was made, or no more are to come."""
        made = len(self.made)
        await until(lambda: len(self.made) > made or not self.initializer.statistics().flights)

    def took(self, model: FakeModel) -> None:
        """Note that a caller has this model."""
        with self._counting:
            self.given.add(id(model))
            self.ends["value"] += 1

    def ended(self, how: str) -> None:
        """Note that a caller has ended without one."""
        with self._counting:
            self.ends[how] += 1

    def check(self, callers: int) -> None:
        """Raise unless each caller has ended once, nothing is left, and no model is lost."""
        assert self.initializer.close() == ()
        figures = self.initializer.statistics()
        assert at_rest(figures), figures
        assert figures.threads == 0, figures
        assert self.ends.total() == callers, self.ends
        wrong = [m for m in self.made if m.released != (id(m) not in self.given)]
        assert not wrong, f"{len(wrong)} of {len(self.made)} models are lost, or were taken away"

    @property
    def figures(self) -> str:
        """What happened, in a line."""
        ends = ", ".join(f"{number} {how}" for how, number in sorted(self.ends.items()))
        return f"{ends}; {len(self.made)} models made"
