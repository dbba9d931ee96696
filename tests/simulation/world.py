"""The models of the simulation, and what their loads do: drawn from the seed, in virtual time."""

from __future__ import annotations

import os
import random
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from anyload import (
    Backend,
    LoadCancelled,
    ModelConfig,
    Registry,
    check_cancelled,
    report_progress,
)
from anyload._load.call import current_turn
from anyload._load.flight import Turn

from .fibers import TICK, Fiber, Machine

HOMES = ("one", "two")
GROUP = "group of the simulation"
BACKENDS = ("GPU", "NPU", "LOCAL")
TIMEOUT, STALL_TIMEOUT = 2.0, 0.5
"""The limits on GPU; LOCAL has a longer one, NPU has none."""

MODULES: dict[str, dict[str, Any]] = {
    "plain": {},
    "grouped": {"exclusive_group": GROUP},
    "grouped too": {"exclusive_group": GROUP},
    "holds gil": {"holds_gil": True},
    "prepares": {},
    "warms up": {},
}
MODELS = [f"{module} {number}" for module in MODULES for number in range(1, 5)]
NAMED_TWICE = "plain 1"
ALIAS = f"{NAMED_TWICE}, by another name"
HOT = [ALIAS, *(f"{module} 1" for module in MODULES)]
"""Those that are asked for most."""


ACTS = {
    "returns": 34,
    "raises": 8,
    "exits": 3,
    "declines": 5,
    "returns a coroutine": 3,
    "is late": 5,
    "hangs": 5,
    "reports": 8,
    "stalls": 4,
    "obeys": 10,
    "nests": 14,
}
"""What loads do, and how often each."""

OVERLONG = ("is late", "hangs", "stalls")


CALM_ACTS = {name: often for name, often in ACTS.items() if name != "nests"}
"""Those whose outcome does not depend on when they happen."""


@dataclass(eq=False)
class Made:
    """A model, and what became of it."""

    model: str
    backend: str
    given: int = 0
    released: int = 0
    late: bool = False


@dataclass(eq=False)
class Visit:
    """A thread's time in a module's code for one model."""

    path: Path
    variant: int
    backend: str
    group: str | None
    fiber: Fiber
    turn: Turn

    @property
    def home(self) -> str:
        """The initializer that it is of."""
        return self.path.parent.name

    @property
    def name(self) -> str:
        """The model, as the trace calls it."""
        return f"{self.home}/{self.path.name}" + "+" * self.variant


class World:
    """What there is, and what goes on in it.

    Args:
        machine: what runs the threads.
        seed: what everything is drawn from.
        calm: whether what a load comes to depends on nothing but the seed.
    """

    def __init__(self, machine: Machine, seed: int, *, calm: bool) -> None:
        self.machine = machine
        self._seed = seed
        self._calm = calm
        self.nest: Callable[[Visit, random.Random], object] = lambda visit, dice: None
        self.ask_whether_wanted: Callable[[Visit], None] = lambda visit: check_cancelled()
        self.visits: dict[Visit, None] = {}
        self.inside: Counter[Fiber] = Counter()
        self.in_group: dict[Fiber, int] = {}
        self.made: list[Made] = []
        self.trace: list[str] = []
        self._times: Counter[object] = Counter()
        self._hung: list[Fiber] = []
        self._let_go = False

    def note(self, *words: object) -> None:
        """Write down what has just happened."""
        self.trace.append(f"{self.machine.now():10.4f}  {' '.join(map(str, words))}")

    def dice(self, *what: object) -> random.Random:
        """Return dice for something; in a calm world they fall the same way every time."""
        self._times[what] += not self._calm
        return random.Random(f"{self._seed} {what} {self._times[what]}")

    def hang(self, dice: random.Random) -> None:
        """Come back long after every limit, or only when the simulation lets go of everything."""
        if not self._let_go:
            self._hung.append(self.machine.current())
            for_ever = dice.random() < 0.1
            self.machine.block(None if for_ever else self.machine.now() + dice.randrange(5, 15))

    def let_go(self) -> None:
        """Let all that hangs come back, and nothing hang from now on."""
        self._let_go = True
        for fiber in self._hung:
            self.machine.wake(fiber)

    # Loads

    @contextmanager
    def _code(self, group: str | None = None) -> Iterator[None]:
        """Be in code that is not anyload's, and that may be one of a group."""
        fiber = self.machine.current()
        self.inside[fiber] += 1
        if group:
            self.in_group[fiber] = self.in_group.get(fiber, 0) + 1
        try:
            yield
        finally:
            self.inside[fiber] -= 1
            if group:
                self.in_group[fiber] -= 1

    @contextmanager
    def visit(
        self, config: ModelConfig, variant: int, backend: str, group: str | None
    ) -> Iterator[Visit]:
        """Be in a module's code."""
        turn = current_turn()
        assert turn is not None
        path = Path(os.path.realpath(str(config.model_path)))
        visit = Visit(path, variant, backend, group, self.machine.current(), turn)
        self.visits[visit] = None
        self.note("enter", visit.name, backend)
        try:
            with self._code(group):
                yield visit
        finally:
            del self.visits[visit]
            self.note("leave", visit.name, backend, turn.phase)

    def act(self, visit: Visit) -> Any:
        """Do what the seed says that this load does; return what it says instead of a model."""
        dice = self.dice(visit.home, visit.path.name, visit.variant, visit.backend)
        acts = CALM_ACTS if self._calm else ACTS
        (act,) = dice.choices(list(acts), list(acts.values()))
        if self._calm and (visit.group or visit.backend != "GPU") and act in OVERLONG:
            act = "returns"  # else others wait for it, and how long they may is a matter of time
        # In a calm world nothing ends just when a limit passes: what then is, is decided by chance.
        self.machine.sleep(min(dice.expovariate(5.0), 0.5 if self._calm else 1.5))
        match act:
            case "raises":
                raise ValueError("broken weights")
            case "exits":
                raise dice.choice([SystemExit, KeyboardInterrupt, GeneratorExit])
            case "declines":
                return None
            case "returns a coroutine":
                return _nothing()
            case "is late":
                self.machine.sleep(dice.uniform(1.25 * TIMEOUT, 3 * TIMEOUT))
            case "hangs":
                self.hang(dice)
            case "reports" | "stalls":
                for step in range(4):
                    report_progress(step / 4)
                    self.machine.sleep(TICK)
                if act == "stalls":
                    self.machine.sleep(dice.uniform(1.5, 4) * STALL_TIMEOUT)
            case "obeys":
                try:
                    for _ in range(dice.randrange(8 if self._calm else 15)):
                        self.machine.sleep(TICK)
                        self.ask_whether_wanted(visit)
                except LoadCancelled:
                    self.machine.sleep(dice.choice([0.0, 1.0]))  # it tidies up
                    raise
            case "nests":
                self.nest(visit, dice)
        return ...

    def registry(self) -> Registry:
        """Return a registry of the modules, on three backends."""
        registry = Registry()
        for backend in ("GPU", "NPU"):
            registry.backend_type(self._backend(backend))
        for module, attributes in MODULES.items():
            for backend in BACKENDS:
                cls = self._module(module, backend, attributes)
                registry.module(module, backend, supported_load_backends=BACKENDS)(cls)
        return registry

    def _backend(self, name: str) -> type[Backend]:
        world = self

        class Simulated(Backend):
            backend_type = name

            def available(self) -> str | None:
                dice = world.dice(name, "available")
                with world._code():
                    world.machine.sleep(dice.choice([0.0, 0.0, 0.0, TICK, 3 * TICK]))
                return "not now" if not world._calm and dice.random() < 0.05 else None

            def start(self) -> None:
                with world._code():
                    world.machine.sleep(2 * TICK)

            def stop(self) -> None:
                with world._code():
                    world.machine.sleep(world.dice(name, "stop").choice([0.1, 0.1, 7.0]))

        return Simulated

    def _module(self, module: str, backend: str, attributes: dict[str, Any]) -> type:
        world = self

        class Simulated(Made):
            exclusive_group: str | None = None

            @classmethod
            def load(cls, config: ModelConfig, variant: int = 0) -> Any:
                with world.visit(config, variant, backend, cls.exclusive_group) as visit:
                    instead = world.act(visit)
                    if instead is not ...:
                        return instead
                    made = cls(visit.name, backend)
                    made.late = visit.turn.phase != "running"
                    world.made.append(made)
                    return made

            def release(self) -> None:
                self.released += 1
                world.note("release", self.model, backend)
                world._further("release", module, backend, self.exclusive_group)

        if module == "prepares":
            Simulated.prepare = lambda: world._further("prepare", module, backend)  # type: ignore[attr-defined]
        if module == "warms up":
            Simulated.warmup = lambda made: world._further("warmup", module, backend)  # type: ignore[attr-defined]
        for name, value in attributes.items():
            setattr(Simulated, name, value)
        return Simulated

    def _further(self, what: str, module: str, backend: str, group: str | None = None) -> None:
        """Do what a module does beside loading."""
        dice = self.dice(what, module, backend)
        fate = 1.0 if self._calm else dice.random()
        with self._code(group):
            self.machine.sleep(dice.choice([0.0, TICK, TICK if self._calm else 3 * TICK]))
            if fate < 0.05:
                self.hang(dice)
        if 0.05 <= fate < 0.15:
            raise OSError(f"no {what}")


async def _nothing() -> None: ...


def make_models(root: Path) -> None:
    """Write the models of both initializers to disk."""
    for home in HOMES:
        (root / home).mkdir()
        for model in MODELS:
            (root / home / model).mkdir()
            module = model.rpartition(" ")[0]
            (root / home / model / "config.yml").write_text(f"module_id: {module}\n")
        (root / home / ALIAS).symlink_to(root / home / NAMED_TWICE, target_is_directory=True)
