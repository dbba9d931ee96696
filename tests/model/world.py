"""The world of the model test: real cores, and fakes for all that has a thread or a clock.

Everything here is one step that a thread, a caller or the time can make. Which step comes next is
up to `machine.py`; what must hold after each is in `promises.py`. What is to be expected is kept
in records of our own: who is in which load, since when, and who waits for what.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterator
from itertools import count
from typing import Any

from home import Home, Settings
from played_callers import Bulk, BulkSeat, Caller, Loop
from played_modules import (
    CONFIGS,
    MODELS,
    OUTCOMES,
    LoadEnd,
    PlayedModel,
    Stage,
    StepEnd,
    make_registry,
)
from played_threads import Frame, InLoad, InStep, Waits, Worker, frame_of

from anyload import AnyloadError, ClosedError, LoadCancelled, ReentrantLoadError
from anyload._load.flight import Flight, Turn
from anyload._load.preparations import Preparation
from anyload._load.process import Process
from anyload._load.tasks import Task
from anyload._load.waiters import ThreadSeat

Identity = tuple[int, Hashable]
"""What a caller asks for: of which initializer, and the model, or the key that is given."""


class Clock:
    """The time; it knows nothing of the world, which would else live as long as its watchdogs."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class World:
    """Everything there is.

    Args:
        settings: what is configured.
        homes: how many initializers there are.
    """

    def __init__(self, settings: Settings, homes: int = 2) -> None:
        self.clock = Clock()
        self.settings = settings
        self.stage = Stage()
        self.registry = make_registry(self.stage)
        self.process = Process()
        self.numbers = count(1 << 60)  # no thread has such an id
        self.homes = [Home(self, number, settings) for number in range(homes)]
        self.loops = [Loop(), Loop()]
        self.callers: list[Caller] = []
        self.bulks: list[Bulk] = []
        self.identities: dict[Flight, Identity] = {}
        self.dispatched: dict[Flight, float] = {}
        self.blocked_since: dict[tuple[Flight, int], float] = {}
        self.blocked: dict[tuple[Flight, int], float] = {}
        self.imports_blocked_since: dict[Preparation, float] = {}
        self.prepared: set[tuple[int, object]] = set()
        self.handed: set[Turn] = set()
        self.outcomes: dict[tuple[Flight, str], str] = {}
        self.usable: set[PlayedModel] = set()
        self._alone = count()

    @property
    def now(self) -> float:
        return self.clock.now

    # Looking

    @property
    def workers(self) -> list[Worker]:
        return [worker for home in self.homes for worker in home.workers.alive]

    def home_of(self, turn: Turn) -> Home:
        return next(home for home in self.homes if home.core.turns is turn.turns)

    def asked_for(self, worker: Worker) -> tuple[Home, str | None]:
        """Return what the innermost load of a thread is of, None where it has no name."""
        frame = worker.frames[-1]
        assert isinstance(frame, InLoad)
        home, (_, name) = self.home_of(frame.turn), self.identities[frame.turn.flight]
        return home, name if name in MODELS else None

    def waiting(self) -> Iterator[Caller]:
        """Yield the callers who count as waiting for their flight."""
        return (caller for caller in self.callers if caller.waits and not caller.seat.lost)

    # Asking

    def ask(
        self,
        home: Home,
        model: str,
        how: str,
        loop: Loop | None,
        priority: int,
        raced: bool = False,
    ) -> Caller | None:
        """One more caller asks for a model; None if the initializer is closed.

        Args:
            raced: whether another one asks for it in the same moment, and is the faster.
        """
        key, begin_alone, identity = self._request(home, model, how, priority)

        def begin() -> Flight:
            flight = begin_alone()
            if raced:
                faster.append(self.ask(home, model, how, loop, priority))
            return flight

        faster: list[Caller | None] = []

        caller = Caller(home, identity, None, loop, plans=how == "plan", priority=priority)
        try:
            if loop is None:
                begun, caller.seat = begin(), home.callers.thread_seat()
                home.callers.join_all([(key, begun, caller.seat)], priority)
            else:
                bell: Any = loop
                caller.seat = home.callers.join(key, begin, bell, priority)
        except ClosedError:
            assert home.closed, "refused, though it is open"
            return None
        assert not home.closed, "let in, though it is closed"
        self.callers.append(caller)
        told = [load for one in self.workers for load in one.loads if load.told]
        joined = [load for load in told if load.turn.flight is caller.seat.flight]
        assert not joined, "it has joined a load that was told to stop"
        if key is not None and loop is not None and faster and faster[0] is not None:
            other = faster[0].seat.flight
            same = other is caller.seat.flight or other.phase == "settled"
            assert same, "both have begun a load"
        return caller

    def _request(
        self, home: Home, model: str, how: str, priority: int
    ) -> tuple[Hashable | None, Callable[[], Flight], Identity]:
        identity: Identity = (home.number, model)
        if how == "plan":
            key, begin = None, home.requests.for_plan(model, {})
        else:
            given = "a key" if how == "key" else None
            named: Any = CONFIGS[model] if how == "config" else model + "/" * (how == "slash")
            key, begin = home.requests.for_one(named, given, priority, {})
            if given is not None:
                identity = (home.number, "key")
            if how == "config" and given is None:
                identity = (home.number, next(self._alone))

        def begun() -> Flight:
            flight = begin()
            self.identities[flight] = identity
            return flight

        return key, begun, identity

    def ask_for_many(self, home: Home, models: list[str], loop: Loop) -> None:
        """A caller asks for some models together, each under one or two names."""
        requests = home.requests.for_bulk(0, {})
        bulk = Bulk(requests, loop)
        asked = []
        for model in models:
            request = requests.request(model, BulkSeat(requests, bulk))
            identity = (home.number, model.rstrip("/"))
            self.identities[request[1]] = identity
            asked.append(request)
            bulk.callers.append(Caller(home, identity, request[2], loop, bulk))
        try:
            home.callers.join_all(asked, 0)
        except ClosedError:
            assert home.closed
            return
        assert not home.closed
        self.callers += bulk.callers
        self.bulks.append(bulk)
        requests.joined(asked)

    def leave(self, caller: Caller) -> None:
        """A caller is cancelled, and nobody else notices: I16."""
        flight = caller.seat.flight
        before = self._seen_by_others(caller)
        caller.end("cancelled")
        caller.home.callers.leave(caller.seat)
        assert self._seen_by_others(caller) == before, "others noticed that a caller left"
        if caller.loop is not None and flight.phase != "settled" and flight.waiting:
            assert flight.seats, "those who are left have lost their seats"

    def _seen_by_others(self, caller: Caller) -> list[tuple[object, ...]]:
        flight = caller.seat.flight
        others = [
            other for other in self.waiting() if other is not caller and other.seat.flight is flight
        ]
        if not others:
            return []
        return [
            (other, other.seat.flight, flight.phase, flight.turn, flight.attempts, flight.value)
            for other in others
        ]

    def leave_bulk(self, bulk: Bulk) -> None:
        """The caller of a bulk is cancelled, or has enough of it."""
        bulk.left = True
        bulk.requests.leave()
        for caller in bulk.callers:
            if caller.waits:
                caller.end("cancelled")
                if caller.seat.count:
                    caller.home.callers.leave(caller.seat)

    def take(self, caller: Caller) -> None:
        """A caller who was woken takes what there is."""
        seat, callers = caller.seat, caller.home.callers
        if caller.bulk is not None:
            caller.bulk.requests.keep(seat)
            ((caller.value, caller.error),) = callers.take_all([seat])
        else:
            try:
                caller.value = callers.take(seat)
            except AnyloadError as error:
                caller.error = error
        caller.end("value" if caller.error is None else "error")
        flight = seat.flight
        assert flight.waiting or flight.value is None, "a model that all have taken is kept"

    def end_loop(self, place: int) -> None:
        """A loop ends, as it may in the middle of anything; another takes its place."""
        loop, self.loops[place] = self.loops[place], Loop()
        loop.ended = True
        for bulk in self.bulks:
            if bulk.loop is loop and not bulk.left:
                self.leave_bulk(bulk)
        for cohort in [caller.seat for caller in self.waiting() if caller.loop is loop]:
            if cohort in loop.rung:
                cohort.lose()
        self.note_lost()

    def note_lost(self) -> None:
        """Write down who does not count any more: their loop has ended, or the load around them."""
        for caller in self.callers:
            if caller.waits and caller.seat.lost:
                caller.end("lost")
                # The garbage collector closes what waits for ever, and that leaves.
                caller.home.callers.leave(caller.seat)
        for worker in self.workers:
            for frame in worker.frames:
                if (
                    isinstance(frame, Waits)
                    and frame.caller.waits
                    and not (frame.seated or frame.ended)
                ):
                    frame.caller.end("cancelled")

    # Threads

    def arrive(self, worker: Worker) -> None:
        """A worker that was called looks for something to do."""
        worker.coming = False
        worker.home.workers.missed = False
        self._go_on(worker, None)

    def _go_on(self, worker: Worker, done: Task | None) -> None:
        worker.asking = True
        task = worker.home.core.next_task(done, worker.number)
        worker.asking = False
        if task is not None:
            self._enter(worker, frame_of(worker.home, task, self.now))
        elif worker.dismissed:
            worker.home.workers.left(worker)

    def _enter(self, worker: Worker, frame: Frame) -> None:
        nested = bool(worker.frames)
        worker.frames.append(frame)
        if isinstance(frame, InLoad):
            assert not frame.home.closed, "an attempt has started after the close"
            assert frame.turn.flight.waiting, "an attempt has started for nobody"
            self._check_prepared(frame)
            self.dispatched.setdefault(frame.turn.flight, self.now)
        if isinstance(frame, InStep) and frame.preparation is not None:
            assert not worker.home.closed, "an import has begun after the close"
        if _is_theirs(frame):
            restoring = [other for other in self.workers if other.restores and other is not worker]
            assert not restoring, "it begins while a load puts back what it has changed"
        if not nested and _is_theirs(frame):
            inside = [other.frames[0] for other in self.workers if other.frames]
            for other in inside:
                if other is not frame and not isinstance(other, Waits) and _is_theirs(other):
                    other.was_alone = False
                    if not isinstance(frame, Waits):
                        frame.was_alone = False

    def _check_prepared(self, load: InLoad) -> None:
        candidate, home = load.turn.candidate, load.home.number
        if candidate.backend_type == "GPU":
            assert (home, candidate.choice.backend) in self.prepared, "its backend has not started"
        if candidate.implementation.prepare is not None:
            assert (home, candidate.implementation.cls) in self.prepared, "nothing was imported"

    def end_step(self, worker: Worker, end: StepEnd) -> None:
        """A thread comes out of anything but a load."""
        frame = worker.frames[-1]
        assert isinstance(frame, InStep)
        self.stage.end = end
        frame.task.run()  # which may call a worker: this one is not idle
        worker.frames.pop()
        if frame.preparation is not None and end == "ok":
            self.prepared.add((worker.home.number, _owner(frame.preparation)))
        self._go_on(worker, frame.task)

    def end_load(self, worker: Worker, end: LoadEnd) -> None:
        """A thread comes out of a module's load, and has yet to tell."""
        frame = worker.frames[-1]
        assert isinstance(frame, InLoad)
        flight = frame.turn.flight
        # The load began when its thread came in: what it needs of its flight, it has had since.
        context, flight.context = flight.context, frame.context
        self.stage.end, self.stage.identity = end, self.identities[flight]
        frame.task.run()
        flight.context = context
        frame.out = True

    def put_back(self, worker: Worker) -> None:
        """A thread that is out of a load wants to put back what the load has changed."""
        frame, root = worker.frames[-1], worker.frames[0]
        assert isinstance(frame, InLoad)
        assert isinstance(root, InLoad)
        frame.restores = frame.home.core.may_restore(frame.turn)
        frame.restores_late = frame.turn.stuck
        assert frame.restores == root.was_alone

    def tell(self, worker: Worker) -> None:
        """A thread tells what its load has come to, and goes on."""
        frame = worker.frames.pop()
        assert isinstance(frame, InLoad)
        result = frame.task._result
        assert result is not None
        turn, flight = frame.turn, frame.turn.flight
        outcome, value = result.outcome, result.value
        wanted = flight.phase == "running" and turn.phase == "running"
        waiting = flight.waiting
        if wanted:
            self.outcomes[flight, turn.candidate.backend_type] = outcome
            if value is not None and waiting:
                self.usable.add(value)
        if worker.frames:
            waits = worker.frames[-1]
            assert isinstance(waits, Waits)
            waits.home.inside.hand_in(frame.task, waits.seat)
        else:
            self._go_on(worker, frame.task)
        if wanted and (outcome in ("loaded", "cancelled") or not waiting):
            assert flight.phase == "settled", f"unsettled by a load that was {outcome}"
            assert (flight.failure is None) == (outcome == "loaded" or not waiting)
        if wanted and waiting and outcome == "cancelled" and self.home_of(turn).closed:
            assert flight.failure is not None
            assert isinstance(flight.failure(), ClosedError)
        if wanted and waiting and outcome == "loaded":
            assert flight.value is value or flight.waiting == 0

    def report(self, worker: Worker) -> None:
        """A load reports that it gets on."""
        frame = worker.frames[-1]
        assert isinstance(frame, InLoad)
        frame.home.core.report(frame.turn, 0.5, None)
        frame.reported = self.now

    def check_cancelled(self, worker: Worker) -> None:
        """A load asks whether it has to stop."""
        frame = worker.frames[-1]
        assert isinstance(frame, InLoad)
        cancelled = frame.turn.cancelled
        assert frame.home.core.told_to_stop(frame.turn) == cancelled
        frame.told = frame.told or (cancelled and frame.turn.phase == "running")

    def retire(self, worker: Worker) -> None:
        """An idle worker ends; where it was dismissed, after a last look for something to do."""
        if worker.dismissed:
            self.arrive(worker)
        else:
            worker.home.workers.left(worker)

    # Loads inside loads

    def nest(self, worker: Worker, home: Home, model: str, how: str) -> None:
        """A load asks for another model, and takes a seat; what comes next is `look`."""
        parent = worker.frames[-1]
        assert isinstance(parent, InLoad)
        key, begin, identity = self._request(home, model, how, 0)
        try:
            seat = home.inside.sit(parent.turn, key, begin(), 0)
        except ClosedError:
            assert home.closed
            return
        assert not home.closed
        seat.wake()
        caller = Caller(home, identity, seat, nested=True)
        self.callers.append(caller)
        late = parent.turn.stuck or self.home_of(parent.turn).out_of_grace
        worker.frames.append(Waits(home, seat, parent, caller, late))

    def look(self, worker: Worker) -> None:
        """A load that waits inside another one looks at how things stand."""
        waits = worker.frames[-1]
        assert isinstance(waits, Waits)
        if waits.ended:
            worker.frames.pop()
            self.take(waits.caller)
            return
        waits.seat.wait(0)
        try:
            waits.ended, task = waits.home.inside.look(waits.seat, waits.parent.turn)
        except (ReentrantLoadError, LoadCancelled) as error:
            waits.refused = isinstance(error, ReentrantLoadError)
            self.give_up(worker)
            return
        if task is not None:
            self._enter(worker, InLoad(waits.home, task, self.now))

    def give_up(self, worker: Worker) -> None:
        """A load waits no more for another one inside it."""
        waits = worker.frames.pop()
        assert isinstance(waits, Waits)
        if waits.caller.waits:
            waits.caller.end("cancelled")
        waits.home.inside.rise(waits.seat, waits.parent.turn)

    # Time

    def advance(self, seconds: float) -> None:
        """Time passes; the watchdogs may be late."""
        self.clock.now += seconds

    def ring(self, home: Home) -> None:
        """A watchdog that has to is awake."""
        if home.watchdog.dismissed:
            return
        if home.grace_ends is not None and home.grace_ends <= self.now:
            home.out_of_grace = True
        within = [one for one in self.workers if one.loads and not one.stuck]
        home.watchdog.ring()
        assert home.watchdog.wakes_at > self.now, "an alarm that is due was not rung"
        for worker in within:
            if worker.stuck and not home.out_of_grace:
                assert any(map(self._is_over, worker.loads)), "given up before its time"

    def _is_over(self, load: InLoad) -> bool:
        """Return whether a load has had all the time that it may have."""
        flight, stall = load.turn.flight, load.stall_timeout
        begun = self.dispatched[flight] if flight.clock_from_dispatch else flight.created
        over = [begun + (load.home.limits.load_timeout or math.inf)]
        if load.timeout is not None:
            assert flight.plan is not None
            position = flight.plan.steps.index(load.turn.candidate)
            waited = self.blocked.get((flight, position), 0.0)
            over.append(load.entered + load.timeout - waited)
        if stall is not None and load.reported is not None:
            over.append(load.reported + stall)
        return min(over) <= self.now

    # The end

    def close(self, home: Home, grace: float) -> None:
        """An initializer is closed, perhaps once more."""
        home.closed = True
        ends = self.now + grace
        home.grace_ends = ends if home.grace_ends is None else min(ends, home.grace_ends)
        if grace <= 0:
            home.out_of_grace = True
        home.ending.begin(grace)
        if home.closer is None:
            home.closer = ThreadSeat(home.core.flights)
            home.closer.wake()

    def go_on_closing(self, home: Home) -> None:
        """Who closes an initializer looks how far that is."""
        core, home.closer = home.core, ThreadSeat(home.core.flights)
        before = core.closing.stage
        if home.ending.step(home.closer):
            home.left, home.closer = True, None
        if before == "draining" and core.closing.stage != before and not home.out_of_grace:
            assert not [turn for turn in core.turns.live if turn.phase != "abandoned"]
            assert not core.flights.releases.queued
            assert not core.flights.releases.running
            assert not core.flights.preparations.running
        if core.closing.stage == "stopping" and home.stopping_since is None:
            home.stopping_since = self.now

    def close_at_once(self, home: Home) -> None:
        """A close is cancelled."""
        home.closed = home.out_of_grace = True
        home.ending.at_once()


def _owner(preparation: Preparation) -> object:
    """Return what a preparation is of: a class, or a backend."""
    run: Any = preparation.run
    return run.__self__


def _is_theirs(frame: Frame) -> bool:
    """Return whether a frame is of a module's code that may change what the process shares."""
    if isinstance(frame, InStep):
        return frame.preparation is not None or frame.release is not None
    return isinstance(frame, InLoad)


__all__ = ["MODELS", "OUTCOMES", "Home", "Settings", "World"]
