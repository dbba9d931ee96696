"""What is loaded in a soak, and the book that is kept of every model."""

from __future__ import annotations

import contextlib
import random
import threading
from collections import Counter
from typing import Any

from anyload import AnyloadError, Initializer, ModelConfig, Registry
from anyload.testing import FakeModel, at_rest

LIMIT = 0.05
"""How long an attempt may take, in seconds."""

SLOTS, ABANDONED = 6, 4


class World:
    """One initializer, its models and its book.

    Args:
        seed: decides what each load comes to.
        options: further options of the initializer.
    """

    def __init__(self, seed: int, **options: Any) -> None:
        self.dice = random.Random(seed)
        self.over = threading.Event()
        self.ends: Counter[str] = Counter()
        self.made = 0
        self.wrong: list[str] = []
        self._open: set[int] = set()
        self._writing = threading.Lock()
        registry = Registry()
        registry.module("steady")(self._module())
        registry.module("grouped")(self._module(exclusive_group="soak"))
        registry.module("outer")(self._module(inner=True))
        self.initializer = Initializer(
            registry,
            backend_priority=[{"type": "LOCAL", "timeout": LIMIT}],
            max_concurrent_loads=SLOTS,
            max_abandoned_loads=ABANDONED,
            **options,
        )
        self.models = [
            ModelConfig(module, number=number)
            for module, numbers in (("steady", 24), ("grouped", 8), ("outer", 8))
            for number in range(numbers)
        ]

    def _module(self, *, inner: bool = False, **attributes: Any) -> Any:
        world = self

        class Soaked(Model):
            @classmethod
            def load(cls, config: ModelConfig, **kwargs: Any) -> Any:
                return world.load(cls, config, inner)

        for name, value in attributes.items():
            setattr(Soaked, name, value)
        return Soaked

    def load(self, cls: type[Model], config: ModelConfig, inner: bool) -> Model | None:
        """Load: 10 % raise, 2 % raise SystemExit, 3 % are None, 1 % hang past their limit."""
        fate = self.dice.random()
        if inner:
            with contextlib.suppress(AnyloadError, TimeoutError):
                self.took(self.initializer.init_sync(self.models[config.number], timeout=1))
        if fate < 0.10:
            raise ValueError("broken weights")
        if fate < 0.12:
            raise SystemExit("this module would end the process")
        if fate < 0.15:
            return None
        # Past the limit it comes back after all, with a model that nobody can have.
        self.over.wait(6 * LIMIT if fate < 0.16 else self.dice.uniform(0, 0.004))
        return self._make(cls, config)

    # The book

    def _make(self, cls: type[Model], config: ModelConfig) -> Model:
        with self._writing:
            self.made += 1
            model = cls(config, self, self.made)
            self._open.add(self.made)
            return model

    def took(self, model: Model) -> None:
        """Note that a caller has this model, which is not to be released any more."""
        with self._writing:
            self.ends["a model"] += 1
            if model.released:
                self.wrong.append(f"model {model.number} was given away after its release")
            model.given = True
            self._open.discard(model.number)

    def released(self, model: Model) -> None:
        """Note that a model is released: once, and only if nobody has it."""
        with self._writing:
            model.released += 1
            if model.given or model.released > 1:
                self.wrong.append(f"model {model.number} was released {model.released} times")
            self._open.discard(model.number)

    def ended(self, how: str) -> None:
        """Note how a call ended that has no model."""
        with self._writing:
            self.ends[how] += 1

    def check(self) -> None:
        """Raise unless the initializer is at rest, and each model is somebody's or released."""
        assert at_rest(self.initializer.statistics()), self.initializer.statistics()
        assert not self.wrong, self.wrong[:10]
        assert not self._open, f"{len(self._open)} of {self.made} models are lost"


class Model(FakeModel):
    """A model that is in the book."""

    def __init__(self, config: ModelConfig, world: World, number: int) -> None:
        super().__init__(config, {})
        self.number = number
        self.given = False
        self.weights = bytearray(64 * 1024)
        self._world = world

    def release(self) -> None:
        """Tell the book."""
        self._world.released(self)
