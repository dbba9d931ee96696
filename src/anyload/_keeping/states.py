"""The states of a model in the repository: which there are, and which may follow which.

The state is that of the V2 model repository protocol; the phase is finer. Both are told by one
`Lifecycle`, and the only way to change it is `Lifecycle.move`.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal

from ..events import StateChanged

State = Literal["UNKNOWN", "LOADING", "READY", "UNLOADING", "UNAVAILABLE"]
Phase = Literal[
    "known",
    "queued",
    "waiting",
    "fetching",
    "loading",
    "warming",
    "active",
    "draining",
    "releasing",
    "unloaded",
    "failed",
]

STATE_OF: Mapping[Phase, State] = MappingProxyType(
    {
        "known": "UNKNOWN",
        "queued": "LOADING",
        "waiting": "LOADING",
        "fetching": "LOADING",
        "loading": "LOADING",
        "warming": "LOADING",
        "active": "READY",
        "draining": "UNLOADING",
        "releasing": "UNLOADING",
        "unloaded": "UNAVAILABLE",
        "failed": "UNAVAILABLE",
    }
)

# What ends in `unloaded` or `failed` is over: the next load is of another version, or of another
# try at this one, with a lifecycle of its own.
NEXT: Mapping[Phase, frozenset[Phase]] = MappingProxyType(
    {
        "known": frozenset({"queued", "failed"}),
        "queued": frozenset({"waiting", "fetching", "loading", "unloaded", "failed"}),
        "waiting": frozenset({"queued", "fetching", "loading", "unloaded", "failed"}),
        # An attempt that fails leads back: the next one waits for memory, or starts.
        "fetching": frozenset({"queued", "waiting", "loading", "failed"}),
        "loading": frozenset({"queued", "waiting", "fetching", "warming", "active", "failed"}),
        "warming": frozenset({"queued", "waiting", "fetching", "loading", "active", "failed"}),
        "active": frozenset({"draining", "releasing"}),
        "draining": frozenset({"releasing"}),
        "releasing": frozenset({"unloaded"}),
        "unloaded": frozenset(),
        "failed": frozenset(),
    }
)

NEEDS_A_REASON: frozenset[Phase] = frozenset(
    {"waiting", "draining", "releasing", "unloaded", "failed"}
)


class IllegalMoveError(Exception):
    """A bug in the repository: a model cannot go from this phase to that one, or not silently."""


class Lifecycle:
    """The phase of one load of a model, from being known to being gone.

    Args:
        model: its name.
        version: its version.
    """

    __slots__ = ("model", "phase", "reason", "version")

    def __init__(self, model: str, version: str) -> None:
        self.model = model
        self.version = version
        self.phase: Phase = "known"
        self.reason = ""

    @property
    def state(self) -> State:
        """The state of the protocol."""
        return STATE_OF[self.phase]

    def move(self, phase: Phase, reason: str, at: float) -> StateChanged:
        """Go to another phase, and return the event that tells of it.

        Raises:
            IllegalMoveError: this phase cannot follow, or it needs a reason and has none.
        """
        if phase not in NEXT[self.phase] or (phase in NEEDS_A_REASON and not reason):
            raise IllegalMoveError(f"{self.model!r}: {self.phase} -> {phase} ({reason!r})")
        before, self.phase, self.reason = self.phase, phase, reason
        return StateChanged(self.model, at, self.version, before, phase, STATE_OF[phase], reason)
