"""A timeline: when each load waited, ran and warmed up, and on which thread.

Every time in it is in seconds since it began. A `Recorder` makes one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

Kind = Literal["prepare", "wait", "queue", "load", "warm-up", "failed", "overdue", "abandoned"]
Gap = tuple[float, float]
"""When the event loop was kept from running: from, to."""


@dataclass(frozen=True, slots=True)
class Span:
    """A time in which one thing went on.

    Args:
        kind: imports or the start of a backend; waiting for these or for the config; waiting for
            a slot; a load; its warm-up; an attempt that failed; a thread that is past its limit,
            on its slot, or off it.
        model: the name or path that was asked for.
        start: when it began.
        end: when it ended; the end of the timeline, if it had not.
        text: what else there is to say.
        run: which stay of a thread in a load it belongs to; None where no thread was in one.
        depth: how many loads it is inside of.
        load: which of the timeline's loads it belongs to, as an index; None if that is not known.
        ended: whether it had ended.
    """

    kind: Kind
    model: str
    start: float
    end: float
    text: str = ""
    run: int | None = None
    depth: int = 0
    load: int | None = None
    ended: bool = True

    @property
    def seconds(self) -> float:
        """How long it took."""
        return self.end - self.start


@dataclass(frozen=True, slots=True)
class Load:
    """One load that came to an end: with a model, or without.

    Args:
        model: the name or path that was asked for.
        start: when it was first asked for.
        end: when its callers got it, or the error.
        backend: the type of the backend that loaded it; None where none did.
        error: what its callers got instead, as text; empty where it loaded.
        attempts: how many backends had their turn, without those that were skipped.
        load_seconds: how long threads were in it, over all attempts.
    """

    model: str
    start: float
    end: float
    backend: str | None
    error: str
    attempts: int
    load_seconds: float

    @property
    def seconds(self) -> float:
        """How long its callers waited."""
        return self.end - self.start


@dataclass(frozen=True, slots=True)
class Timeline:
    """What went on, and when.

    Args:
        spans: what went on, by their start.
        loads: the loads that came to an end, by their start.
        gaps: when the event loop was kept from running; empty where nobody looked.
        seconds: how long it is.
        watched: whether somebody looked at the event loop.
        cut: whether its beginning was forgotten, because there was too much of it.
    """

    spans: tuple[Span, ...]
    loads: tuple[Load, ...]
    gaps: tuple[Gap, ...]
    seconds: float
    watched: bool = False
    cut: bool = False

    def of(self, *kinds: Kind) -> list[Span]:
        """Return the spans of some kinds."""
        return [span for span in self.spans if span.kind in kinds]

    def seconds_of(self, *kinds: Kind) -> float:
        """Return how long the spans of some kinds took together."""
        return sum(span.seconds for span in self.of(*kinds))

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> Timeline:
        """Return the timeline that ``dataclasses.asdict`` and JSON have made a document of."""
        return cls(
            tuple(Span(**span) for span in document["spans"]),
            tuple(Load(**load) for load in document["loads"]),
            tuple((start, end) for start, end in document["gaps"]),
            document["seconds"],
            document["watched"],
            document["cut"],
        )
