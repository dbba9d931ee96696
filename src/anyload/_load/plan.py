"""Which backends a model would try, in which order, and which are skipped and why. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from ..contracts import Backend
from ..registry import Implementation


@dataclass(frozen=True, slots=True, eq=False)
class Choice:
    """One entry of the backend priority.

    Args:
        backend: the backend.
        timeout: the limit of an attempt on it, in seconds; None means off.
        stall_timeout: how long a load that reports progress may be silent, in seconds.
    """

    backend: Backend
    timeout: float | None = None
    stall_timeout: float | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Candidate:
    """A backend that will be tried, and the class whose ``load`` will run on it.

    ``backend_type`` is the type of the backend, ``resources`` what the load must hold alone in
    this process.
    """

    choice: Choice
    implementation: Implementation
    backend_type: str = field(init=False, repr=False)
    resources: tuple[str, ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        # Asked for several times in every load, while a plan is made once for all of a module.
        object.__setattr__(self, "backend_type", self.choice.backend.backend_type)
        object.__setattr__(self, "resources", self.implementation.resources)


@dataclass(frozen=True, slots=True)
class Skip:
    """A backend that will not be tried, and why.

    Args:
        backend_type: its type.
        reason: why, for a person to read.
        lasting: whether that will be so the next time too, as far as can be told.
    """

    backend_type: str
    reason: str
    lasting: bool = True


@dataclass(frozen=True, slots=True)
class Plan:
    """The backends of one model in priority order: what would be tried and what is skipped.

    Args:
        module_id: the module that loads it.
        steps: the backends.
        accepted: the classes of which a loaded model must be an instance.
        model: the model, as its caller spells it.
    """

    module_id: str
    steps: tuple[Candidate | Skip, ...]
    accepted: tuple[type, ...] = ()
    model: str = ""

    @property
    def candidates(self) -> tuple[Candidate, ...]:
        """The steps that would be tried."""
        return tuple(step for step in self.steps if isinstance(step, Candidate))

    @property
    def skipped(self) -> tuple[Skip, ...]:
        """The steps that would not."""
        return tuple(step for step in self.steps if isinstance(step, Skip))

    def narrowed(self, left_out: Mapping[int, str], end: int | None = None) -> Plan:
        """Return this plan with fewer backends to try; a place is one in the backend priority.

        Args:
            left_out: the places of those to skip this time, and why.
            end: the place of the first that is not even to be named, and of all behind it.
        """
        steps = tuple(
            Skip(step.backend_type, left_out[place], lasting=False)
            if place in left_out and isinstance(step, Candidate)
            else step
            for place, step in enumerate(self.steps[:end])
        )
        return self if steps == self.steps else replace(self, steps=steps)

    def improvable(self, place: int) -> bool:
        """Return whether a backend before this place of the priority could load it some time."""
        return not all(isinstance(step, Skip) and step.lasting for step in self.steps[:place])

    def __str__(self) -> str:
        lines = [f"{self.model} (module {self.module_id!r})"]
        for number, step in enumerate(self.steps, 1):
            if isinstance(step, Candidate):
                lines.append(f"  {number}. {step.backend_type}  try {step.implementation.name}")
            else:
                lines.append(f"  {number}. {step.backend_type}  skipped  {step.reason}")
        return "\n".join(lines)


def make_plan(
    module_id: str,
    model_backend: str | None,
    choices: Sequence[Choice],
    unavailable: Mapping[int, str],
    implementations: Mapping[str, Implementation],
    accepted: tuple[type, ...] = (),
) -> Plan:
    """Decide which backends to try.

    Args:
        module_id: the module that loads it.
        model_backend: the backend type the model was created with, where it says so.
        choices: the backend priority.
        unavailable: why a backend cannot be used here, by its place in the priority.
        implementations: the module's implementations, by backend type.
        accepted: the classes of which a loaded model must be an instance.
    """
    steps: list[Candidate | Skip] = []
    for place, choice in enumerate(choices):
        backend_type = choice.backend.backend_type
        implementation = implementations.get(backend_type)
        if implementation is None:
            known = ", ".join(sorted(implementations))
            never = f"module {module_id!r} has no {backend_type} implementation (it has {known})"
        else:
            never = _foreign(implementation, model_backend)
        if place in unavailable:
            steps.append(Skip(backend_type, unavailable[place], lasting=bool(never)))
        elif never or implementation is None:
            steps.append(Skip(backend_type, never))
        else:
            steps.append(Candidate(choice, implementation))
    return Plan(module_id, tuple(steps), accepted)


def _foreign(implementation: Implementation, model_backend: str | None) -> str:
    """Return why a class never loads what was made with a backend; empty where it may."""
    if model_backend is None or model_backend in implementation.supported_load_backends:
        return ""
    supported = ", ".join(sorted(implementation.supported_load_backends))
    return f"made with {model_backend}; {implementation.name} loads models of {supported}"
