"""What must have happened once before loads can run: imports, and the start of a backend."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from typing import Literal, NamedTuple, Protocol

from ..contracts import Backend
from ..events import Prepared, Preparing
from ..registry import Implementation
from ..reports import Attempt, Outcome, seconds
from .alarms import Alarm, Alarms
from .flight import Flight
from .outbox import Outbox
from .plan import Candidate, Choice
from .process import Process
from .stacks import innermost_frame
from .todo import Todo

PreparationPhase = Literal["idle", "queued", "running", "hung", "done"]


class Preparation:
    """A step that every load of an implementation, or on a backend, waits for.

    Args:
        what: the call, as people read it.
        run: the call.
        package: the top-level package it imports; None for a step that imports nothing and so
            stands outside the import phase.
        starts: the backend it starts, if that is what it does.
    """

    __slots__ = (
        "alarm",
        "announced_for",
        "package",
        "phase",
        "run",
        "started",
        "starts",
        "thread_id",
        "waiting",
        "what",
    )

    def __init__(
        self,
        what: str,
        run: Callable[[], object],
        package: str | None = None,
        starts: Backend | None = None,
    ) -> None:
        self.what = what
        self.starts = starts
        self.run = run
        self.package = package
        self.phase: PreparationPhase = "idle"
        self.waiting: dict[Flight, None] = {}
        self.alarm: Alarm | None = None
        self.started = 0.0
        self.thread_id = 0
        # The model whose load it was announced for; None where nobody hears of it.
        self.announced_for: str | None = None


class Raised(NamedTuple):
    """What a step raised, its text, and where."""

    error: BaseException
    text: str
    stack: str


class Waiting(Protocol):
    """The flights, as far as their preparation goes."""

    def prepared(self, flight: Flight, todo: Todo) -> None: ...

    def record(self, flight: Flight, attempt: Attempt, todo: Todo) -> None: ...

    def changed_hands(self, todo: Todo) -> None: ...


class Preparations:
    """The steps of one initializer, each run once; one that failed is tried again.

    Imports are serialised in the whole process. While one of them is past its limit, those of
    other packages go on, and those of its own package wait for it, on the clock.

    Args:
        process: what is being imported.
        alarms: the deadlines.
        clock: the monotonic clock.
        timeout: the limit of each step, in seconds; None means off.
        outbox: hears of each step, where anybody who waits for it is heard of.
        flights: hears what came of a step.
    """

    def __init__(
        self,
        process: Process,
        alarms: Alarms,
        clock: Callable[[], float],
        timeout: float | None,
        outbox: Outbox,
        flights: Waiting,
    ) -> None:
        self._process = process
        self._alarms = alarms
        self._clock = clock
        self._timeout = timeout
        self._outbox = outbox
        self._flights = flights
        self._starts: dict[Choice, Preparation] = {}
        # By identity: the hash of a class may be its metaclass's own. The registry keeps them all.
        self._imports: dict[int, Preparation] = {}
        self._ready: set[tuple[Choice, Implementation]] = set()
        self.queued: dict[Preparation, None] = {}
        self.running: dict[Preparation, None] = {}
        self.to_stop: list[Backend] = []
        self.stopping = 0
        self._stops_begun = False

    def close(self) -> None:
        """Begin no further step."""
        assert self._process.lock.mine()
        for preparation in self.queued:
            preparation.phase = "idle"
            self._alarms.cancel(preparation.alarm)
            preparation.alarm = None
        self.queued.clear()

    def begin_stops(self, busy: Collection[Choice]) -> list[Choice]:
        """Have every backend stopped that was started, and from now on each as its start ends.

        Returns:
            Those that are left alone, because they are busy.
        """
        assert self._process.lock.mine()
        self._stops_begun = True
        started = [choice for choice, step in self._starts.items() if step.phase == "done"]
        for choice in started:
            if choice not in busy:
                self._stop(choice.backend)
        return [choice for choice in started if choice in busy]

    def _stop(self, backend: Backend) -> None:
        self.to_stop.append(backend)
        self.stopping += 1

    def unmet(self, candidate: Candidate) -> Preparation | None:
        """Return the next step this candidate must wait for, or None if it is ready."""
        assert self._process.lock.mine()
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
            self._starts[choice] = Preparation(what, backend.start, starts=backend)
        return self._starts[choice]

    def _import(self, implementation: Implementation) -> Preparation | None:
        prepare = implementation.prepare
        if prepare is None:
            return None
        known = id(implementation.cls)
        if known not in self._imports:
            what = f"prepare() of {implementation.name}"
            self._imports[known] = Preparation(what, prepare, implementation.package)
        return self._imports[known]

    def wait(self, flight: Flight, preparation: Preparation, todo: Todo) -> None:
        """Have a flight wait for a step, which is begun if it has not been."""
        assert self._process.lock.mine()
        preparation.waiting[flight] = None
        if preparation.phase == "hung":
            self._give_up(preparation, "timed_out", self._where_it_hangs(preparation), todo)
        elif preparation.phase in ("idle", "queued"):
            # Queued already: the worker that was to come for it may not have been to be had.
            preparation.phase = "queued"
            self.queued[preparation] = None
            todo.worker = True
            self._review(preparation, todo)

    def leave(self, flight: Flight) -> None:
        """A flight waits no more. The step is run all the same: the next load will need it."""
        assert self._process.lock.mine()
        for preparation in (*self._starts.values(), *self._imports.values()):
            preparation.waiting.pop(flight, None)

    @property
    def waiting(self) -> Iterator[Flight]:
        """The flights that wait for a step."""
        for step in (*self._starts.values(), *self._imports.values()):
            yield from step.waiting

    @property
    def hung(self) -> int:
        """How many threads are in a step that is past its limit."""
        return sum(preparation.phase == "hung" for preparation in list(self.running))

    def may_begin(self, preparation: Preparation) -> bool:
        """Return whether nothing else is in the import phase that this step has to enter."""
        return preparation.package is None or self._process.may_import(preparation.package)

    def began(self, preparation: Preparation, thread_id: int) -> None:
        """A thread has taken a step: its clock starts."""
        assert self._process.lock.mine()
        del self.queued[preparation]
        self.running[preparation] = None
        self._alarms.cancel(preparation.alarm)
        preparation.alarm = None
        preparation.phase = "running"
        preparation.thread_id = thread_id
        preparation.started = self._clock()
        self._process.entered(preparation)
        heard_of = (flight.model for flight in preparation.waiting if flight.announced)
        model = preparation.announced_for = next(heard_of, None)
        if model is not None:
            self._outbox.put(Preparing(model, preparation.started, preparation.what))
        if preparation.package is not None:
            self._process.import_began(preparation, preparation.package)
        if self._timeout is not None:
            at = preparation.started + self._timeout
            preparation.alarm = self._alarms.set(at, self._hangs, preparation)

    def ended(self, preparation: Preparation, raised: Raised | None, todo: Todo) -> None:
        """A thread has left a step: those who waited for it go on, or to their next backend."""
        assert self._process.lock.mine()
        self.running.pop(preparation, None)
        self._process.left(preparation)
        self._alarms.cancel(preparation.alarm)
        preparation.alarm = None
        self._process.import_ended(preparation)
        if preparation.announced_for is not None:
            self._tell(preparation, preparation.announced_for, raised.text if raised else "")
        if raised is None:
            preparation.phase = "done"
            if self._stops_begun and preparation.starts is not None:
                self._stop(preparation.starts)
            waiting, preparation.waiting = preparation.waiting, {}
            for flight in waiting:
                flight.queue_seconds += self._clock() - flight.ready_at
                self._flights.prepared(flight, todo)
        else:
            preparation.phase = "idle"
            reason = f"{preparation.what} raised {raised.text}"
            self._give_up(preparation, "raised", reason, todo, raised)
        self._flights.changed_hands(todo)

    def _tell(self, preparation: Preparation, model: str, reason: str) -> None:
        now = self._clock()
        took = now - preparation.started
        self._outbox.put(Prepared(model, now, preparation.what, took, reason))

    def review(self, todo: Todo) -> None:
        """Look at the queued steps again: an import has ended, or is past its limit."""
        assert self._process.lock.mine()
        for preparation in list(self.queued):
            self._review(preparation, todo)

    def _review(self, preparation: Preparation, todo: Todo) -> None:
        package = preparation.package
        if package is None or not self._process.hung_import(package):
            self._alarms.cancel(preparation.alarm)
            preparation.alarm = None
        elif self._timeout is None:
            self._blocked_too_long(preparation, todo)
        elif preparation.alarm is None:
            at = self._clock() + self._timeout
            preparation.alarm = self._alarms.set(at, self._blocked_too_long, preparation)

    def _blocked_too_long(self, preparation: Preparation, todo: Todo) -> None:
        preparation.phase = "idle"
        preparation.alarm = None
        del self.queued[preparation]
        reason = f"{preparation.what} cannot begin: an import of {preparation.package!r} hangs"
        self._give_up(preparation, "timed_out", reason, todo)

    def _hangs(self, preparation: Preparation, todo: Todo) -> None:
        preparation.phase = "hung"
        if preparation.package is not None:
            self._process.import_hangs(preparation)
        self._give_up(preparation, "timed_out", self._where_it_hangs(preparation), todo)
        self._flights.changed_hands(todo)

    def _where_it_hangs(self, preparation: Preparation) -> str:
        age = seconds(self._clock() - preparation.started)
        where = innermost_frame(preparation.thread_id)
        return f"{preparation.what} has been running for {age}{where}"

    def _give_up(
        self,
        preparation: Preparation,
        outcome: Outcome,
        reason: str,
        todo: Todo,
        raised: Raised | None = None,
    ) -> None:
        """End the attempt of each flight that waited for a step."""
        error, stack = (raised.error, raised.stack) if raised is not None else (None, None)
        waiting, preparation.waiting = preparation.waiting, {}
        for flight in waiting:
            candidate = flight.candidate
            waited = self._clock() - flight.ready_at
            flight.queue_seconds += waited
            name = candidate.implementation.name
            attempt = Attempt(
                candidate.backend_type, outcome, reason, name, waited, None, stack, error
            )
            self._flights.record(flight, attempt, todo)
