"""Models that know who uses them, and the memory that there is of them at every moment."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from anyload import Backend, ModelConfig, Registry
from anyload._load.call import current_turn

from ..fibers import TICK, Machine
from ..requests import FOR_EVER
from ..world import World
from .catalogue import MODULES

GROUP = "group of the repository's simulation"
BACKENDS = ("GPU", "LOCAL")
TIMEOUT = 2.0
"""The limit on GPU; LOCAL has a longer one."""

ACTS = {"returns": 80, "raises": 6, "runs out": 4, "declines": 4, "is late": 4, "hangs": 2}
"""What loads do, and how often each."""

BROKEN_ACTS = {**ACTS, "raises": 200}


@dataclass(eq=False)
class Canary:
    """A model that can tell whether it was used when it must not be."""

    name: str
    backend: str
    sizes: Mapping[str, int]
    late: bool
    users: int = 0
    was_used: bool = False
    released: int = 0
    # From when on nobody who asks may get it.
    gone_at: float = FOR_EVER

    def __str__(self) -> str:
        return f"{self.name} on {self.backend}"


class KeptWorld(World):
    """What there is in memory, and what goes on in loads and releases."""

    def __init__(self, machine: Machine, seed: int) -> None:
        super().__init__(machine, seed, calm=False)
        # What takes memory now: loads in a thread, and models that are not yet gone.
        self.loading: dict[object, Mapping[str, int]] = {}
        self.there: dict[Canary, None] = {}
        self.canaries: list[Canary] = []

    def memory(self) -> Counter[str]:
        """Return the bytes that loads and models take, by device."""
        total: Counter[str] = Counter()
        for sizes in (*self.loading.values(), *(one.sizes for one in self.there)):
            total.update(sizes)
        return total

    def load(self, config: ModelConfig, module: str, backend: str, kind: type[Canary]) -> Any:
        """Load a model, or do what the seed says instead."""
        name, sizes, turn, this = config.get("name"), config.get("size"), current_turn(), object()
        assert turn is not None
        self.loading[this] = sizes
        self.note("enter", name, backend)
        try:
            with self._code(GROUP if module == "grouped" else None):
                instead = self._act_out(name, backend)
        finally:
            del self.loading[this]
            self.note("leave", name, backend, turn.phase)
        if instead is not ...:
            return instead
        canary = kind(name, backend, sizes, late=turn.phase != "running")
        self.canaries.append(canary)
        self.there[canary] = None
        return canary

    def _act_out(self, name: str, backend: str) -> Any:
        dice = self.dice(name, backend)
        acts = BROKEN_ACTS if name == "broken" else ACTS
        (act,) = dice.choices(list(acts), list(acts.values()))
        self.machine.sleep(min(dice.expovariate(1.0 if name.startswith("large") else 4.0), 1.75))
        match act:
            case "raises":
                raise ValueError("broken weights")
            case "runs out":
                raise MemoryError("no room on the card")
            case "declines":
                return None
            case "is late":
                self.machine.sleep(dice.uniform(1.25 * TIMEOUT, 3 * TIMEOUT))
            case "hangs":
                self.hang(dice)
        return ...

    def release(self, canary: Canary, module: str) -> None:
        """Let a model go; it takes its memory until that is over."""
        canary.released += 1
        self.note("release", canary)
        dice = self.dice("release", canary.name)
        try:
            with self._code(GROUP if module == "grouped" else None):
                self.machine.sleep(dice.choice([0.0, TICK, TICK, 4 * TICK]))
            if dice.random() < 0.05:
                raise OSError("no release")
        finally:
            self.there.pop(canary, None)

    @contextmanager
    def used(self, canary: Canary) -> Iterator[None]:
        """Use a model: meanwhile it must stay."""
        canary.users += 1
        canary.was_used = True
        try:
            yield
        finally:
            canary.users -= 1

    def registry(self) -> Registry:
        """Return a registry of the modules, on two backends."""
        world, registry = self, Registry()

        class Simulated(Backend):
            backend_type = "GPU"

            def available(self) -> str | None:
                dice = world.dice("GPU", "available")
                with world._code():
                    world.machine.sleep(dice.choice([0.0, 0.0, TICK]))
                return "not now" if dice.random() < 0.1 else None

        registry.backend_type(Simulated)
        for module in MODULES:
            for backend in BACKENDS:
                cls = self._kind(module, backend)
                registry.module(module, backend, supported_load_backends=BACKENDS)(cls)
        return registry

    def _kind(self, module: str, backend: str) -> type[Canary]:
        world = self

        class Kind(Canary):
            exclusive_group = GROUP if module == "grouped" else None

            @classmethod
            def load(cls, config: ModelConfig) -> Any:
                return world.load(config, module, backend, cls)

            def release(self) -> None:
                world.release(self, module)

        if module == "measures":
            Kind.memory_bytes = property(lambda one: next(iter(one.sizes.values())))  # type: ignore[attr-defined]
        if module == "warms up":
            Kind.warmup = lambda one: world.machine.sleep(TICK)  # type: ignore[attr-defined]
        return Kind
