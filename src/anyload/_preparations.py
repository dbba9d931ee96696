"""What must have happened once before loads can run: imports, and the start of a backend."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from ._flight import Flight
from ._plan import Candidate, Choice
from .contracts import Backend
from .registry import Implementation

PreparationPhase = Literal["idle", "queued", "running", "hung", "done"]


class Preparation:
    """A step that every load of an implementation, or on a backend, waits for.

    Args:
        what: the call, as people read it.
        run: the call.
        package: the top-level package it imports; None for a step that imports nothing and so
            stands outside the import phase.
    """

    __slots__ = ("alarm", "package", "phase", "run", "started", "thread_id", "waiting", "what")

    def __init__(self, what: str, run: Callable[[], object], package: str | None) -> None:
        from ._alarms import Alarm

        self.what = what
        self.run = run
        self.package = package
        self.phase: PreparationPhase = "idle"
        self.waiting: dict[Flight, None] = {}
        self.alarm: Alarm | None = None
        self.started = 0.0
        self.thread_id = 0


class Preparations:
    """The steps of one initializer, each run once; one that failed is tried again."""

    def __init__(self) -> None:
        self._starts: dict[Choice, Preparation] = {}
        self._imports: dict[type, Preparation] = {}
        self._ready: set[tuple[Choice, Implementation]] = set()

    def __iter__(self):  # type: ignore[no-untyped-def]
        yield from self._starts.values()
        yield from self._imports.values()

    @property
    def started(self) -> list[Backend]:
        """The backends that were started and must be stopped."""
        return [choice.backend for choice, step in self._starts.items() if step.phase == "done"]

    def unmet(self, candidate: Candidate) -> Preparation | None:
        """Return the next step this candidate must wait for, or None if it is ready."""
        ready = (candidate.choice, candidate.implementation)
        if ready in self._ready:
            return None
        for step in (self._start(candidate.choice), self._import(candidate.implementation)):
            if step is not None and step.phase != "done":
                return step
        self._ready.add(ready)
        return None

    def _start(self, choice: Choice) -> Preparation | None:
        backend = choice.backend
        kind = type(backend)
        if kind.start is Backend.start and kind.stop is Backend.stop:
            return None
        if choice not in self._starts:
            what = f"start() of backend {backend.backend_type}"
            self._starts[choice] = Preparation(what, backend.start, None)
        return self._starts[choice]

    def _import(self, implementation: Implementation) -> Preparation | None:
        prepare = getattr(implementation.cls, "prepare", None)
        if prepare is None:
            return None
        if implementation.cls not in self._imports:
            what = f"prepare() of {implementation.name}"
            self._imports[implementation.cls] = Preparation(what, prepare, implementation.package)
        return self._imports[implementation.cls]
