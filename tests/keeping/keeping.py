"""What the tests of the repository share: models of known size that notice misuse."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from anyload import ModelConfig, Registry
from anyload.repository import ModelRepository
from anyload.testing import Gate, at_rest, until


class Kept:
    """A model that counts what is done to it; the parts of one test share a `Shelf`."""

    shelf: Shelf

    def __init__(self, config: ModelConfig) -> None:
        self.config = config
        self.name: str = config.get("name", "")
        self.in_use = 0
        self.released = 0
        with self.shelf.lock:
            self.shelf.made.append(self)
            self.shelf.live += 1

    def use(self) -> None:
        """A request works with it."""
        assert self.released == 0, "a released model is in use"

    def release(self) -> None:
        self.shelf.release_gate.enter()
        with self.shelf.lock:
            self.released += 1
            self.shelf.live -= 1
            assert self.released == 1, "released twice"


class Shelf:
    """Where the models of one test are made, and the gates at which they can be held."""

    def __init__(self, body: Callable[[ModelConfig], object] | None = None) -> None:
        self.lock = threading.Lock()
        self.made: list[Kept] = []
        self.live = 0
        self.loads: list[str] = []
        self.load_gate = Gate(open=True)
        self.release_gate = Gate(open=True)
        self.body = body

    def module(self, **attributes: Any) -> type[Kept]:
        shelf = self

        class OnShelf(Kept):
            @classmethod
            def load(cls, config: ModelConfig) -> Kept:
                with shelf.lock:
                    shelf.loads.append(config.get("name", ""))
                shelf.load_gate.enter()
                if shelf.body is not None:
                    shelf.body(config)
                return cls(config)

        OnShelf.shelf = shelf
        for name, value in attributes.items():
            setattr(OnShelf, name, value)
        return OnShelf

    def repository(
        self, *names: str, module: type | None = None, **options: Any
    ) -> ModelRepository:
        """Return a repository of these models, 1 KiB each if nothing else is said."""
        registry = Registry()
        registry.module("m")(module or self.module())
        how = options.pop("repository", {})
        kept = {name: {"memory": 1024, **how.pop(name, {})} for name in names}
        return ModelRepository(
            registry,
            models={name: {"module_id": "m", "name": name} for name in names},
            repository={**how, "models": kept},
            **options,
        )


def quiet(models: ModelRepository) -> bool:
    """Whether nothing is held, nothing waits, and every slot is back."""
    figures = models.statistics()
    return (
        figures.leases == figures.waiting == figures.loading == 0
        and figures.draining == figures.releasing == 0
        and at_rest(models.initializer.statistics())
    )


async def emptied(models: ModelRepository) -> None:
    """Wait until a closed repository has nothing left."""
    await until(lambda: quiet(models) and not any(models.statistics().used.values()))
