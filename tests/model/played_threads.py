"""The threads of the model test: records, moved on one step at a time by the world."""

from __future__ import annotations

import math
from contextvars import Context
from dataclasses import dataclass, field
from itertools import count
from typing import TYPE_CHECKING, Any

from anyload._load.core import Core
from anyload._load.flight import Flight, Turn
from anyload._load.preparations import Preparation
from anyload._load.releases import Release
from anyload._load.tasks import (
    LoadTask,
    PrepareTask,
    ReadTask,
    ReleaseTask,
    StopTask,
    Task,
)
from anyload._load.waiters import ThreadSeat

if TYPE_CHECKING:
    from home import Home
    from played_callers import Caller


CANNOT_START = "can't start new thread"


@dataclass(eq=False, slots=True)
class InLoad:
    """A thread's time in a module's load.

    Args:
        home: the initializer whose load it is.
        task: what it does.
        entered: when it came in.
        out: whether it has left the module's code, and has yet to tell.
        restores: whether it puts back what it has changed.
        restores_late: whether it was past its limit before that.
        was_alone: whether nobody else has been in anybody's code since.
        reported: when the load reported last.
        told: whether it was told to stop.
    """

    home: Home
    task: LoadTask
    entered: float
    turn: Turn = field(init=False)
    context: Context | None = field(init=False)
    out: bool = False
    restores: bool = False
    restores_late: bool = False
    was_alone: bool = True
    reported: float | None = None
    told: bool = False

    def __post_init__(self) -> None:
        self.turn = self.task._turn
        self.context = self.turn.flight.context

    @property
    def timeout(self) -> float | None:
        return self.turn.candidate.choice.timeout

    @property
    def stall_timeout(self) -> float | None:
        return self.turn.candidate.choice.stall_timeout

    @property
    def live(self) -> bool:
        """Whether it is not abandoned."""
        return self.turn.phase in ("running", "overdue")


@dataclass(eq=False, slots=True)
class Waits:
    """A thread's time in a load where it waits for another one, nested in it.

    Args:
        late: whether the load around it was past its limit before.
        ended: whether its flight has ended, and it has yet to take what came of that.
        refused: whether it would have waited for itself.
    """

    home: Home
    seat: ThreadSeat
    parent: InLoad
    caller: Caller
    late: bool
    ended: bool = False
    refused: bool = False

    @property
    def seated(self) -> bool:
        """Whether the core knows it as waiting."""
        return self.seat in self.home.core.process.nested_seats

    @property
    def woken(self) -> bool:
        return self.ended or not self.seat._parked._asleep.locked()


@dataclass(eq=False, slots=True)
class InStep:
    """A thread's time in anything else: reading, preparing, releasing, stopping."""

    task: PrepareTask | ReadTask | ReleaseTask | StopTask
    entered: float
    was_alone: bool = True

    @property
    def preparation(self) -> Preparation | None:
        return self.task._preparation if isinstance(self.task, PrepareTask) else None

    @property
    def release(self) -> Release | None:
        return self.task._release if isinstance(self.task, ReleaseTask) else None

    @property
    def reads(self) -> Flight | None:
        return self.task._flight if isinstance(self.task, ReadTask) else None


Frame = InLoad | Waits | InStep


@dataclass(eq=False, slots=True)
class Worker:
    """A worker thread: on its way, idle, or in what its frames say, the innermost last.

    Args:
        home: whose worker it is.
        number: its thread's id.
        asking: whether it is asking for work.
    """

    home: Home
    number: int
    coming: bool = True
    asking: bool = False
    dismissed: bool = False
    frames: list[Frame] = field(default_factory=list)

    @property
    def idle(self) -> bool:
        return not (self.coming or self.asking or self.frames)

    @property
    def loads(self) -> list[InLoad]:
        """The loads that it is in, from the outside in."""
        return [frame for frame in self.frames if isinstance(frame, InLoad)]

    @property
    def in_load(self) -> bool:
        """Whether it is in a module's code."""
        frame = self.frames[-1] if self.frames else None
        return isinstance(frame, InLoad) and not frame.out

    @property
    def out_of_load(self) -> bool:
        """Whether it is out of a module's code, and has yet to tell."""
        frame = self.frames[-1] if self.frames else None
        return isinstance(frame, InLoad) and frame.out

    @property
    def restores(self) -> bool:
        """Whether it puts back what its load has changed, and has not passed a limit meanwhile."""
        frame = self.frames[-1] if self.frames else None
        if not isinstance(frame, InLoad) or not frame.restores:
            return False
        return frame.turn.phase == "running" or frame.restores_late

    @property
    def in_step(self) -> bool:
        return bool(self.frames) and isinstance(self.frames[-1], InStep)

    @property
    def in_wait(self) -> bool:
        """Whether it waits inside a load, for what has not ended as far as it knows."""
        frame = self.frames[-1] if self.frames else None
        return isinstance(frame, Waits) and not frame.ended

    @property
    def may_look(self) -> bool:
        """Whether it waits inside a load and was woken."""
        frame = self.frames[-1] if self.frames else None
        return isinstance(frame, Waits) and frame.woken

    @property
    def stuck(self) -> bool:
        """Whether it is in code that is past its limit."""
        for frame in self.frames:
            if isinstance(frame, InLoad) and frame.turn.stuck:
                return True
            if isinstance(frame, InStep):
                preparation, release, reads = frame.preparation, frame.release, frame.reads
                return (
                    (preparation is not None and preparation.phase == "hung")
                    or (release is not None and release.stuck)
                    or (reads is not None and reads.phase == "settled")
                )
        return False


class Workers:
    """Stands in for the worker threads of a core: they come when the world says so.

    Args:
        home: whose they are.
        numbers: gives each a thread id.
    """

    def __init__(self, home: Home, numbers: count[int]) -> None:
        self._home = home
        self._numbers = numbers
        self._dismissed = False
        self.cannot_start = False
        self.missed = False
        """Whether one that was called could not be started, and none has come since."""
        self.were_stuck = False
        """Whether a thread could not be started while there was none that is not stuck."""
        self.alive: list[Worker] = []

    @property
    def count(self) -> int:
        return len(self.alive)

    @property
    def coming(self) -> bool:
        return any(worker.coming for worker in self.alive)

    def call(self) -> None:
        for worker in self.alive:
            if worker.idle and not worker.dismissed:
                worker.coming = True
                return
        if self.cannot_start:
            self.missed = True
            self.were_stuck |= all(worker.stuck for worker in self.alive)
            raise RuntimeError(CANNOT_START)
        self.alive.append(Worker(self._home, next(self._numbers), dismissed=self._dismissed))

    def dismiss(self) -> None:
        self._dismissed = True
        for worker in self.alive:
            worker.dismissed = True

    def left(self, worker: Worker) -> None:
        """A worker's thread ends."""
        self.alive.remove(worker)
        self._home.core.thread_left()


class Watchdog:
    """Stands in for the watchdog's thread: it rings when the world says so.

    Args:
        core: whose alarms it rings.
    """

    def __init__(self, core: Core) -> None:
        self._core = core
        self.wakes_at = math.inf
        self.running = False
        self.dismissed = False

    def expect(self, at: float) -> None:
        if not self.dismissed:
            self.wakes_at = min(self.wakes_at, at)
            self.running = True

    def dismiss(self) -> None:
        self.dismissed = True

    def ring(self) -> None:
        """Ring what is due."""
        self.wakes_at = math.inf
        next_at = self._core.ring()
        if next_at is not None:
            self.wakes_at = min(self.wakes_at, next_at)

    def left(self) -> None:
        """Its thread ends."""
        self.running = False
        self._core.thread_left()


def frame_of(home: Home, task: Task, now: float) -> Frame:
    """Return the frame of a thread that begins a task."""
    if isinstance(task, LoadTask):
        return InLoad(home, task, now)
    kind: Any = task
    return InStep(kind, now)
