"""The modules, backends, readers and admission of the model test: they do what they are told to."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from typing import Any, Literal, NamedTuple

from anyload import Backend, LoadCancelled, ModelConfig, ModelNotFoundError, Registry
from anyload._load.flight import Resolved
from anyload._load.plan import Choice, Plan, make_plan
from anyload.config import BackendConfig

LoadEnd = Literal["value", "none", "raises", "exits", "foreign", "told", "cannot warm up"]
LOAD_ENDS: tuple[LoadEnd, ...] = (
    *("value", "value", "value", "none", "raises", "exits", "foreign", "told", "cannot warm up"),
)
"""How a load may end; a value is what most of them come to."""

OUTCOMES: Mapping[LoadEnd, str] = {
    "value": "loaded",
    "none": "declined",
    "raises": "raised",
    "exits": "raised",
    "foreign": "raised",
    "told": "cancelled",
    "cannot warm up": "raised",
}
"""What each is to be called in a report."""

StepEnd = Literal["ok", "raises", "exits"]
STEP_ENDS: tuple[StepEnd, ...] = ("ok", "ok", "ok", "raises", "exits")
"""How anything else may end: a prepare, a start, a stop, a release, the reading of a model."""


class Kind(NamedTuple):
    """A kind of module.

    Args:
        backend_types: the backend types that it has an implementation for.
        group: its exclusive group.
        holds_gil: whether its loads take the lane.
        package: where it is, if it has a ``prepare``.
    """

    backend_types: tuple[str, ...] = ("GPU", "LOCAL")
    group: str | None = None
    holds_gil: bool = False
    package: str | None = None


KINDS = {
    "plain": Kind(),
    "local": Kind(("LOCAL",)),
    "left": Kind(group="left"),
    "left, on local": Kind(("LOCAL",), group="left"),
    "right": Kind(("LOCAL",), group="right"),
    "holds the gil": Kind(holds_gil=True),
    "left, holds the gil": Kind(("LOCAL",), group="left", holds_gil=True),
    "imports": Kind(package="heavy"),
    "imports too": Kind(("LOCAL",), package="heavy"),
    "imports other": Kind(("LOCAL",), group="right", package="other"),
    "nothing": Kind(()),
}

MODELS = {
    "plain 1": "plain",
    "plain 2": "plain",
    "local 1": "local",
    "left 1": "left",
    "left 2": "left, on local",
    "right 1": "right",
    "gil 1": "holds the gil",
    "gil 2": "left, holds the gil",
    "imports 1": "imports",
    "imports 2": "imports too",
    "imports 3": "imports other",
    "nothing 1": "nothing",
}
"""The models, and what kind of module each is of. Each has a second spelling, with a slash."""

SIZES = {name: place % 4 for place, name in enumerate(MODELS)}
CONFIGS = {name: ModelConfig(kind, None, None, name=name) for name, kind in MODELS.items()}


class PlayedModel:
    """What a load makes.

    Args:
        identity: what it was loaded for.
        stage: what its ``release`` does.
    """

    __slots__ = ("__weakref__", "identity", "released", "stage", "taken")

    def __init__(self, identity: Hashable, stage: Stage) -> None:
        self.identity = identity
        self.stage = stage
        self.released = 0
        self.taken = 0

    def warmup(self) -> None:
        if self.stage.end == "cannot warm up":
            raise ValueError("cannot warm up")

    def release(self) -> None:
        self.released += 1
        self.stage.step()


class Stage:
    """What code that is not ours does when it is next run, and all that it has made."""

    def __init__(self) -> None:
        self.end: LoadEnd | StepEnd = "ok"
        self.identity: Hashable = None
        self.made: list[PlayedModel] = []

    def load(self) -> Any:
        """Load, as it was told."""
        match self.end:
            case "none":
                return None
            case "raises":
                raise ValueError("broken weights")
            case "exits":
                raise SystemExit("out of a load")
            case "foreign":
                return object()
            case "told":
                raise LoadCancelled("told to stop")
        model = PlayedModel(self.identity, self)
        self.made.append(model)
        return model

    def step(self) -> None:
        """Do anything else."""
        if self.end == "raises":
            raise ValueError("broken step")
        if self.end == "exits":
            raise SystemExit("out of a step")


def make_registry(stage: Stage) -> Registry:
    """Return a registry of the kinds, whose code is on this stage."""
    registry = Registry()

    class Gpu(Backend):
        backend_type = "GPU"

        def start(self) -> None:
            stage.step()

        def stop(self) -> None:
            stage.step()

    registry.backend_type(Gpu)
    for module_id, kind in KINDS.items():
        for backend_type in kind.backend_types or ("CPU",):
            registry.module(module_id, backend_type)(_module(stage, module_id, kind))
    return registry


def _module(stage: Stage, name: str, kind: Kind) -> type:
    def load(cls: type, config: ModelConfig) -> Any:
        return stage.load()

    def prepare(cls: type) -> None:
        stage.step()

    members: dict[str, Any] = {
        "load": classmethod(load),
        "exclusive_group": kind.group,
        "holds_gil": kind.holds_gil,
        "__module__": f"{kind.package}.modules",
    }
    if kind.package is not None:
        members["prepare"] = classmethod(prepare)
    return type(name.title().replace(" ", ""), (), members)


def make_choices(
    registry: Registry, limits: Mapping[str, tuple[float | None, float | None]]
) -> tuple[Choice, ...]:
    """Return a backend priority; of each backend type, its timeout and its stall timeout."""
    return tuple(
        Choice(registry.backend_types[name](BackendConfig()), *limits[name])
        for name in ("GPU", "LOCAL")
    )


class PlayedResolver:
    """Finds models without a disk, and fails to where it is told to.

    Args:
        stage: where it is told to.
        registry: the modules.
        choices: the backend priority.
    """

    def __init__(self, stage: Stage, registry: Registry, choices: tuple[Choice, ...]) -> None:
        self._stage = stage
        self.plans: dict[str, Plan] = {
            module_id: make_plan(
                module_id, None, choices, {}, registry.implementations(module_id), (PlayedModel,)
            )
            for module_id in KINDS
        }

    def label(self, model: Any) -> str:
        return str(model)

    def reads(self, model: Any, label: str) -> str | None:
        return label.rstrip("/")

    def plan_at_once(self, config: ModelConfig) -> Plan:
        return self.plans[config.module_id]

    def resolve(
        self,
        model: str,
        kwargs: Mapping[str, object],
        shared: bool,
        between: Callable[[], None] = lambda: None,
    ) -> Resolved:
        try:
            self._stage.step()
        except ValueError as error:
            raise ModelNotFoundError(model, "unreadable") from error
        name = model.rstrip("/")
        return Resolved(CONFIGS[name], self.plans[MODELS[name]], ("on disk", name), SIZES[name])


class PlayedAdmission:
    """Refuses the models that it is told to refuse."""

    def __init__(self) -> None:
        self.refused: set[str] = set()
        self.inside: dict[str, int] = {}

    def may_start(self, config: ModelConfig, size: int) -> bool:
        return str(config.name) not in self.refused

    def started(self, config: ModelConfig, size: int) -> None:
        self.inside[config.name] = self.inside.get(config.name, 0) + 1

    def ended(self, config: ModelConfig, size: int) -> None:
        self.inside[config.name] -= 1
