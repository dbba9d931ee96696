"""Models that nobody can use any more, on their way to ``release``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from ._alarms import Alarm
    from ._flight import Flight
    from ._plan import Candidate


class Release:
    """One discarded model and the call of its ``release``.

    It holds the module's exclusive group while it runs, like a load: giving memory back can
    touch the same process-wide state as taking it.
    """

    __slots__ = (
        "__weakref__",
        "alarm",
        "candidate",
        "holds",
        "model",
        "phase",
        "root",
        "started",
        "thread_id",
        "value",
    )

    def __init__(self, model: str, candidate: Candidate, value: Any) -> None:
        self.model = model
        self.candidate = candidate
        self.value = value
        self.phase: Literal["queued", "running", "abandoned"] = "queued"
        self.root = self
        self.holds: list[str] = []
        self.alarm: Alarm | None = None
        self.started = 0.0
        self.thread_id = 0

    @property
    def resources(self) -> tuple[str, ...]:
        """The module's group. Giving memory back does not hold the GIL as loading may."""
        group = self.candidate.implementation.exclusive_group
        return self.candidate.resources[:1] if group else ()

    @property
    def stuck(self) -> bool:
        """Whether it is past its limit and its thread still runs."""
        return self.phase == "abandoned"

    @property
    def label(self) -> str:
        """What it is, for the error of somebody it stands in the way of."""
        return f"the release of {self.model!r}"

    def awaited(self) -> Iterator[Flight]:
        """Yield nothing: nothing is loaded inside a release."""
        return iter(())

    def run(self) -> None:
        """Call ``release`` and let the model go, in the thread that should pay for that."""
        value, self.value = self.value, None
        release = getattr(value, "release", None)
        if callable(release):
            release()
