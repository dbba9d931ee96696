"""The invariants: after every step of a thread, whenever nothing moves, and at the end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from anyload import Initializer, LoadCancelled, check_cancelled
from anyload._load.core import Core
from anyload._load.flight import Flight, Holder, NestedSeat, Turn
from anyload._load.lookups import MOST_READERS
from anyload._load.process import Process
from anyload._load.releases import Release
from anyload._load.requests import NameSeat
from anyload._load.todo import Todo
from anyload.events import Failed, Loaded
from anyload.testing import at_rest

from .fibers import Fiber, Machine
from .onlooker import Onlooker
from .requests import FOR_EVER, SINGLE, Request
from .threads import SwitchingProcessLock
from .world import BACKENDS, NAMED_TWICE, Visit, World


class Checks(Onlooker):
    """Looks at a world, and at the cores of its initializers.

    Args:
        machine: what runs the threads.
        world: what goes on in the loads.
        homes: the initializers.
        requests: all requests, nested ones as they come.
    """

    def __init__(
        self,
        machine: Machine,
        world: World,
        homes: Mapping[str, Initializer],
        requests: Sequence[Request],
    ) -> None:
        super().__init__(machine, world)
        self._homes = homes
        self._requests = requests
        self._cores: dict[str, Core] = {home: each._core for home, each in homes.items()}
        self._process = next(iter(self._cores.values())).process
        assert isinstance(self._process.lock, SwitchingProcessLock)
        self._lock = self._process.lock
        self._closing: dict[str, tuple[float, list[Request]]] = {}
        self._live_at_close: dict[str, list[Turn]] = {}
        self._closed: set[str] = set()
        # Those who waited when it was quiet: of others one cannot tell whether they have joined.
        self._seated: set[Request] = set()

    # After every step

    def after_step(self) -> None:
        inside: Counter[Any] = Counter()
        roots: dict[str, set[Turn]] = {home: set() for home in self._homes}
        for visit in self._world.visits:
            inside[visit.path, visit.variant] += visit.turn.phase in ("running", "overdue")
            root = visit.turn.root
            if root is visit.turn:
                roots[visit.home].add(root)
        twice = [key for key, times in inside.items() if times > 1]
        self.expect(not twice, f"I1: two loads at once of {twice}")
        holders = [fiber for fiber, times in self._world.in_group.items() if times]
        self.expect(len(holders) <= 1, "I17: two threads are in loads of one group")
        for home, core in self._cores.items():
            self._after_step_of(home, core, roots[home])

    def _after_step_of(self, home: str, core: Core, roots: set[Turn]) -> None:
        slots, limits = core.flights.slots, core.limits
        most = limits.max_concurrent_loads + limits.max_abandoned_loads
        self.expect(len(roots) <= most, f"I2: {len(roots)} threads are in loads of {home}")
        self.expect(len(slots.taken) <= slots.total, f"I2: {len(slots.taken)} slots are taken")
        known = {*slots.taken, *slots.abandoned}
        self.expect(roots <= known, f"I3: a thread in a load of {home} is not counted")
        releasing = len(core.flights.releases.running)
        self.expect(releasing <= slots.total, f"I2: {releasing} releases of {home} run at once")
        late = [turn for turn in slots.taken if turn.phase == "abandoned"]
        self.expect(not late, f"I3: an abandoned load of {home} has a slot")
        for flight in core.flights.live:
            self.expect(_in_its_phase(flight, core), f"I5: {flight.model} is in no phase")
        if core.flights.closed:
            live = self._live_at_close.setdefault(home, core.turns.live)
            new = [turn.label for turn in core.turns.live if turn not in live]
            self.expect(not new, f"I13: after the close of {home} began {new}")

    def ask_whether_wanted(self, visit: Visit) -> None:
        """Check for cancellation inside a load, and that the answer is right."""
        turn = visit.turn
        phase, seen = turn.phase, turn.seen
        wants = [request for request in self._requests if self._wants(request, visit)]
        try:
            check_cancelled()
        except LoadCancelled:
            cut = turn.phase != "running" or turn.turns.out_of_grace
            wait = [str(request) for request in wants if request.waiting]
            nested = turn.parent is not None
            self.expect(
                cut or seen or nested or not wait, f"I11: {visit.name} stops, though {wait}"
            )
            raise
        self.expect(phase != "abandoned", f"I11: {visit.name} is abandoned and not told")

    def _wants(self, request: Request, visit: Visit) -> bool:
        return (
            request in self._seated
            and request.waiting
            and request.at + request.patience > self._machine.now()  # else it may be leaving
            and request.how in ("init", "thread")
            and (request.home, request.variant) == (visit.home, visit.variant)
            # Of a model with two names one may be read while the other loads: not joined yet.
            and request.models == [visit.path.name] != [NAMED_TWICE]
        )

    def reported(self, event: Loaded | Failed) -> None:
        """Look at the report of a load."""
        attempts = event.report.attempts
        backends = tuple(attempt.backend for attempt in attempts)
        self.expect(backends == BACKENDS[: len(backends)], f"I12: {event.report}")
        loaded = [attempt.outcome == "loaded" for attempt in attempts]
        self.expect(not any(loaded[:-1]), f"I12: {event.report}")

    # When nothing moves

    def when_quiet(self) -> None:
        with self._lock.taken():
            self._when_quiet()

    def _when_quiet(self) -> None:
        self.after_step()
        self._seated = {request for request in self._requests if request.waiting}
        for seat in self._process.nested_seats:
            settled = _sleeps(seat) and seat.flight.phase == "settled"
            self.expect(not settled, f"I6: a load sleeps on {seat.flight.model}, which is settled")
        for home, core in self._cores.items():
            self._all_waiters_wait(home, core)
            self._all_that_can_goes_on(home, core)
            self._all_turns_are_in_threads(home, core)
            self._nested_loads_are_told(core)
            if home in self._closed:
                self._only_code_is_left(home, core)
            elif core.closing.stage != "leaving":
                self._alarms_are_kept(home, core)

    def _all_waiters_wait(self, home: str, core: Core) -> None:
        live = core.flights.live
        bulks = [seat for flight in live for seat in flight.seats if isinstance(seat, NameSeat)]
        nested = [seat for seat in self._process.nested_seats if seat.flight in live]
        seated = sum(flight.waiting for flight in live)
        seated -= len(nested) + sum(seat.count for seat in bulks)
        waiting = [
            request
            for request in self._requests
            if request.waiting and request.home == home and request.how in SINGLE
        ]
        self.expect(
            seated == len(waiting),
            f"I6: of {home} {seated} callers wait for live flights, and {len(waiting)} wait: "
            f"{[str(request) for request in waiting]}",
        )

    def _all_that_can_goes_on(self, home: str, core: Core) -> None:
        flights = core.flights
        for flight in flights.queue:
            holder = flights.obstacles.of(flight)
            can = flights.slots.free > 0 and holder is None and core.turns.may_start(flight)
            self.expect(not can, f"I7: {flight.model} could start")
            timed = holder is None or not holder.stuck or flight.queue_alarm is not None
            self.expect(timed, f"I8: {flight.model} waits for what is stuck, and on no clock")
            gone = any(turn not in core.turns.live for turn in flight.predecessors)
            self.expect(not gone, f"I7: {flight.model} waits for a load that has ended")
            self.expect(not flights.slots.saturated, f"I7: {flight.model} cannot start and waits")
        slots = flights.slots
        self.expect(not (slots.overdue and slots.may_abandon), f"I9: {home} keeps what is overdue")
        self.expect(not core.turns.handed_over, f"I7: nobody takes what was handed over in {home}")
        idle = flights.lookups._first(Todo()) is not None and not flights.lookups.readers
        self.expect(not idle, f"I7: nobody reads the models of {home}")
        preparations = flights.preparations
        begin = [each.what for each in preparations.queued if preparations.may_begin(each)]
        self.expect(not begin, f"I7: {begin} could begin")
        self.expect(flights.releases.first() is None, f"I7: a release of {home} could begin")
        self.expect(not preparations.to_stop, f"I7: a backend of {home} could be stopped")
        self.expect(not core._outbox._events, f"I6: events of {home} are not delivered")
        self._all_readers_come(home, core)
        self._the_close_goes_on(home, core)

    def _all_readers_come(self, home: str, core: Core) -> None:
        lookups = core.flights.lookups
        looked_after = lookups.watched or len(lookups.readers) >= MOST_READERS
        slow = lookups._first(Todo()) is not None and not looked_after
        self.expect(not slow, f"I7: {home} has a slow reader, and nobody calls another")

    def _the_close_goes_on(self, home: str, core: Core) -> None:
        closing = core.closing
        if home not in self._closing or home in self._closed:
            return
        waits = {
            "open": False,
            "draining": not closing._drained,
            "stopping": core.flights.preparations.stopping > 0,
            "leaving": core.workers.count + core.watchdog.running > closing.left_behind,
        }
        self.expect(waits[closing.stage], f"I13: the close of {home} is {closing.stage} too long")

    def _all_turns_are_in_threads(self, home: str, core: Core) -> None:
        slots = core.flights.slots
        for turn in (*slots.taken, *slots.abandoned):
            assert isinstance(turn, Turn | Release)
            self.expect(self._is_in_code(turn.thread_id), f"I3: {turn.label} is in no thread")

    def _nested_loads_are_told(self, core: Core) -> None:
        for turn in core.turns.live:
            if any(_sleeps(seat) for seat in turn.nested_seats):
                told = not (turn.stuck or turn.cancelled)
                self.expect(told, f"I6: {turn.label} waits for another, and is not wanted")
                around = _waits_for_itself(turn.root, self._process)
                self.expect(not around, f"I6: {turn.label} waits for itself")

    def _is_in_code(self, thread_id: int) -> bool:
        return any(
            fiber.thread_id == thread_id and self._busy(fiber) for fiber in self._machine.alive
        )

    def _busy(self, fiber: Fiber) -> bool:
        return self._world.inside[fiber] > 0

    def _alarms_are_kept(self, home: str, core: Core) -> None:
        next_at = core.flights.alarms.next_at
        if next_at is not None:
            dog = core.watchdog
            self.expect(dog.running and dog.wakes_at <= next_at, f"I8: nobody wakes at {next_at}")
            self.expect(next_at > self._machine.now(), f"I9: {home} has a deadline that has passed")

    # Closing

    def closes(self, home: str, grace: float) -> None:
        """A close begins."""
        before = [request for request in self._requests if request.waiting and request.home == home]
        self._closing[home] = self._machine.now() + grace, before

    def closed(self, home: str) -> None:
        """A close has ended."""
        self._closed.add(home)

    def _only_code_is_left(self, home: str, core: Core) -> None:
        mine = (core.workers, core.watchdog)
        idle = [each for each in self._machine.alive if each.owner in mine and not self._busy(each)]
        self.expect(not idle, f"I15: {len(idle)} threads of {home} have outlived its close")
        self.expect(not core.flights.live, f"I13: {home} is closed and has flights")

    # At the end

    def at_the_end(self) -> None:
        for home, initializer in self._homes.items():
            figures = initializer.statistics()
            self.expect(at_rest(figures), f"I14: {home} is not at rest: {figures}")
            latest, before = self._closing[home]
            for request in before:
                if request.how in ("init", "thread", "many", "fail fast"):
                    self.expect(request.ended_at <= latest, f"I13: {request} outlived the grace")
        for request in self._requests:
            self.expect(len(request.outcomes) == 1, f"I4: {request} ended in {request.outcomes}")
        for made in self._world.made:
            due = 0 if made.given else 1
            self.expect(
                made.released == due,
                f"I23: {made.model} on {made.backend}, given to {made.given} callers, "
                f"was released {made.released} times",
            )
        self.expect(not self._process.nested_seats, "I14: a load still waits inside another")
        self.expect(not self._process._holders, "I14: somebody holds a group")
        self.expect(not self._world.visits, "I14: a thread is in a load")
        left = [fiber for fiber in self._machine.alive if fiber.owner is not None]
        self.expect(not left, f"I15: {len(left)} threads are left")

    def unended(self) -> list[str]:
        return [str(request) for request in self._requests if request.ended_at == FOR_EVER]


def _in_its_phase(flight: Flight, core: Core) -> bool:
    flights = core.flights
    match flight.phase:
        case "resolving":
            return flight in flights.lookups.queued or flight in flights.lookups.running
        case "preparing":
            steps = (
                *flights.preparations._starts.values(),
                *flights.preparations._imports.values(),
            )
            return any(flight in step.waiting for step in steps)
        case "queued":
            return flight.ticket is not None and flight in list(flight.lane)
        case "running":
            turn = flight.turn
            return turn is not None and turn.flight is flight and turn in core.turns.live
        case "settled":
            return False


def _sleeps(seat: NestedSeat) -> bool:
    return bool(seat._parked._asleep._waiting)  # type: ignore[attr-defined]  # a lock of threads.py


def _waits_for_itself(root: Turn, process: Process) -> bool:
    """Return whether a thread that this one waits for waits, in the end, for this one."""
    met: dict[Holder, None] = {}
    pending: list[Holder] = [root]
    while pending:
        thread = pending.pop()
        for flight in thread.awaited():
            for holder in _who_runs(flight, process):
                if holder.root is thread:
                    continue  # it runs inside, right here
                if holder.root is root:
                    return True
                if holder.root not in met:
                    met[holder.root] = None
                    pending.append(holder.root)
    return False


def _who_runs(flight: Flight, process: Process) -> list[Holder]:
    """Return whose threads must get on before a flight can."""
    if flight.phase == "running":
        return [flight.turn] if flight.turn is not None else []
    if flight.phase != "queued":
        return []
    holder = process.obstacle(flight.candidate.resources)
    return [*flight.predecessors, *([holder] if holder is not None else [])]
