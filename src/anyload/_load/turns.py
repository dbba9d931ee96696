"""Turns: what a thread that runs a load holds, how long it may, and what its end means.

A turn is ``running`` until it has ``ended``, or is past its limit: then ``abandoned``, its slot
free, or, once as many threads are abandoned as may be, ``overdue`` on its slot. Groups are held
until the thread really leaves the load. The same rules as in `flights.py` hold for the methods.
"""

from __future__ import annotations

import weakref

from ..contracts import Admission
from ..errors import describe
from ..events import Abandoned, GlobalsChanged, Progress, Started, ThreadEnded
from ..reports import Attempt, Observed, Outcome, innermost, seconds
from .admission import Gatekeeper
from .failures import again
from .flight import Flight, Stage, Turn
from .flights import Flights
from .interpreter import Wish
from .restoring import Restoring
from .result import Inside, Result
from .stacks import thread_stack
from .todo import Todo


class Turns:
    """The turns of one initializer that are in a thread.

    Args:
        flights: the flights they belong to.
        admission: who decides which loads may start, beside the slots.
        inside: what their loads can ask; the caller keeps it alive while any of them runs.
    """

    def __init__(self, flights: Flights, admission: Admission | None, inside: Inside) -> None:
        self._flights = flights
        self._process = flights.process
        self._slots = flights.slots
        self._alarms = flights.alarms
        self._outbox = flights.outbox
        self._admission = None if admission is None else Gatekeeper(admission, flights.outbox)
        # A strong reference would be a cycle, and keep a dropped initializer until the garbage
        # collector comes by.
        self._inside = weakref.ref(inside)
        self.restoring = Restoring(flights.process, flights.limits.guard)
        self.out_of_grace = False
        self.handed_over: list[Turn] = []
        self._live: dict[Turn, None] = {}

    @property
    def inside(self) -> Inside:
        """What the loads of these turns can ask."""
        inside = self._inside()
        assert inside is not None
        return inside

    def now(self) -> float:
        """Return the monotonic clock."""
        return self._flights.clock()

    # Starting

    def may_start(self, flight: Flight) -> bool:
        """Return whether a flight at the head of its lane may start, as far as it alone goes."""
        assert self._process.lock.mine()
        if flight.predecessors:
            return False
        nested = self._process.nested_seats
        if nested and any(seat.flight is flight for seat in nested):
            return False  # the load that waits for it runs it inline
        return self._admission is None or self._admission.may_start(flight)

    def begin(self, flight: Flight, parent: Turn | None) -> Turn:
        """Take a queued flight out of the queue and give its attempt all that it needs."""
        assert self._process.lock.mine()
        self._flights.dequeue(flight)
        turn = Turn(self, flight, parent)
        flight.phase = "running"
        flight.turn = turn
        self._process.hold(turn.candidate.resources, turn)
        self._live[turn] = None
        self._flights.prefetching.begun(flight)
        if parent is None:
            self._slots.taken[turn] = None
        else:
            parent.children.append(turn)
        if self._admission is not None:
            self._admission.started(flight)
        return turn

    def entered(self, turn: Turn, thread_id: int) -> None:
        """A thread has taken the turn: its clock starts."""
        assert self._process.lock.mine()
        now = self._flights.clock()
        flight = turn.flight
        turn.thread_id = thread_id
        if turn.parent is None:
            self._process.entered(turn)
        implementation = turn.candidate.implementation
        interval = self._flights.limits.gil_switch_interval if implementation.holds_gil else None
        if implementation.pauses_gc or interval is not None:
            self._process.interpreter.begin(turn, Wish(implementation.pauses_gc, interval))
        turn.started = now
        turn.queue_seconds = now - flight.ready_at
        flight.queue_seconds += turn.queue_seconds
        timeout = turn.candidate.choice.timeout
        if timeout is not None and turn.phase == "running":
            at = now + timeout - flight.blocked_seconds
            turn.alarm = self._alarms.set(at, self._late, turn)
        self._flights.start_clock(flight, self.flight_late)
        if flight.announced:
            self._outbox.put(Started(flight.model, now, turn.candidate.backend_type, thread_id))

    # While it runs

    def progressed(self, turn: Turn, fraction: float | None, stage: str | None) -> None:
        """The load has reported: it is not stalled."""
        assert self._process.lock.mine()
        now = self._flights.clock()
        first = turn.last_report is None
        turn.last_report = now
        limit = turn.candidate.choice.stall_timeout
        if first and limit is not None and turn.phase == "running":
            turn.stall_alarm = self._alarms.set(now + limit, self._silent, turn)
        if turn.flight.announced:
            backend = turn.candidate.backend_type
            self._outbox.put(Progress(turn.flight.model, now, backend, fraction, stage))

    def reached(self, turn: Turn, stage: Stage) -> None:
        """The load is at another stage from now on; of one past its limit nobody is told."""
        assert self._process.lock.mine()
        if turn.phase == "running" and turn.flight.at is not None:
            turn.flight.at(stage)

    def seen(self, turn: Turn) -> bool:
        """Return whether the load has to stop now, and remember that it was told so.

        From then on it is not coming back: who asks for its model begins a fresh flight, which
        waits for this thread to leave.
        """
        assert self._process.lock.mine()
        if not turn.cancelled:
            return False
        if not turn.seen and turn.phase == "running" and turn.flight.turn is turn:
            turn.seen = True
            self._flights.keys.release(turn.flight)
            self._flights.keys.linger(turn)
        return True

    # Past a limit

    def _silent(self, turn: Turn, todo: Todo) -> None:
        limit = turn.candidate.choice.stall_timeout
        assert limit is not None
        assert turn.last_report is not None
        at = turn.last_report + limit
        if at > self._flights.clock():
            turn.stall_alarm = self._alarms.set(at, self._silent, turn)
        else:
            self._stop_waiting(turn, "stalled", f"silent for {seconds(limit)}", todo)

    def _late(self, turn: Turn, todo: Todo) -> None:
        limit = turn.candidate.choice.timeout
        assert limit is not None
        self._stop_waiting(turn, "timed_out", f"after {seconds(limit)}", todo)

    def flight_late(self, flight: Flight, todo: Todo) -> None:
        """A flight has passed ``load_timeout``."""
        assert self._process.lock.mine()
        if flight.turn is not None and flight.turn in self.handed_over:
            self._flights.fail_late(flight, todo)
            self.withdraw(flight.turn, todo)
        elif flight.phase == "running":
            assert flight.turn is not None
            limit = self._flights.limits.load_timeout
            assert limit is not None
            reason = f"load_timeout, {seconds(limit)}, passed"
            self._stop_waiting(flight.turn, "timed_out", reason, todo)
        else:
            self._flights.fail_late(flight, todo)

    def _stop_waiting(self, turn: Turn, outcome: Outcome, reason: str, todo: Todo) -> None:
        """A turn is past its limit, and with it every turn of its thread."""
        stack = thread_stack(turn.thread_id)
        where = f"; its thread is still running, in {innermost(stack)}" if stack else ""
        family = [relative for relative in turn.family() if relative.phase == "running"]
        kept = not turn.root.turns.give_up(turn.root, todo)
        for relative in family:
            relative.turns.unseat(relative, todo)
            self.restoring.ended(relative, todo)
        for relative in family:
            if relative is turn:
                attempt = relative.attempt(outcome, reason + where, stack)
            else:
                why = f"the load of {turn.flight.model!r} in the same thread is past its limit"
                attempt = relative.attempt("timed_out", why + where, stack)
            relative.turns.lost(relative, attempt, todo, kept=kept)
        todo.elsewhere = True

    def give_up(self, root: Turn, todo: Todo) -> bool:
        """Abandon a thread, or keep it on its slot if none may be abandoned; say which."""
        assert self._process.lock.mine()
        if self._slots.may_abandon:
            self.abandon(root, todo)
            return True
        for turn in root.family():
            turn.phase = "overdue"
            turn.turns.linger(turn)
        self._slots.overdue[root] = None
        for turn in root.family():
            turn.turns.review_successors(turn, todo)
        return False

    def review_successors(self, turn: Turn, todo: Todo) -> None:
        """Put those who wait for this turn to leave on the clock: it is past its limit."""
        assert self._process.lock.mine()
        for flight in list(turn.successors):
            if flight.phase == "queued":
                self._flights.obstacles.review(flight, todo)

    def promote(self, todo: Todo) -> None:
        """Abandon an overdue thread after all, once there is room for one more."""
        assert self._process.lock.mine()
        if self._slots.overdue and self._slots.may_abandon:
            self.abandon(next(iter(self._slots.overdue)), todo)
            self._flights.review(todo)

    def abandon(self, root: Turn, todo: Todo) -> None:
        """Free the slot of a thread that nobody waits for any more, and leave it running."""
        assert self._process.lock.mine()
        for turn in root.family():
            turn.phase = "abandoned"
            self._process.let_go_of_lane(turn)
            self._process.interpreter.end(turn)
            turn.turns.unlinger(turn, todo)
        self._slots.abandon(root)
        backend = root.candidate.backend_type
        stack = thread_stack(root.thread_id)
        self._outbox.put(Abandoned(root.flight.model, self._flights.clock(), backend, stack))
        todo.worker = True
        todo.elsewhere = True

    def linger(self, turn: Turn) -> None:
        """The turn keeps its model from being loaded anew, though nobody waits for it."""
        assert self._process.lock.mine()
        self._flights.keys.linger(turn)

    def unlinger(self, turn: Turn, todo: Todo) -> None:
        """The turn no longer keeps its model from being loaded anew."""
        self._flights.unlinger(turn, todo)

    def unseat(self, turn: Turn, todo: Todo) -> None:
        """What waits inside this turn is not waiting any more, as far as anybody is concerned."""
        assert self._process.lock.mine()
        for seat in turn.nested_seats:
            del self._process.nested_seats[seat]
            todo.wakes.append(seat)
            seat.flights.leave_nested(seat.flight, todo)
            todo.elsewhere = True
        turn.nested_seats = []

    def lost(self, turn: Turn, attempt: Attempt, todo: Todo, *, kept: bool) -> None:
        """Go on without a turn that is past its limit.

        Args:
            kept: whether its thread is kept on its slot. Then the flight ends: no other backend
                may start while this one still runs.
        """
        assert self._process.lock.mine()
        flights, flight = self._flights, turn.flight
        self.cancel_alarms(turn)
        if flight.phase == "settled":  # by a close, while it ran inside another's load
            return
        flight.load_seconds += attempt.load_seconds or 0.0
        late = flight.alarm is not None and flight.alarm.ring is None
        if late and flight.waiting:
            flights.note(flight, attempt)
            flights.fail_late(flight, todo)
        elif kept and flight.waiting:
            flights.note(flight, attempt)
            flights.fail(flight, todo)
        else:
            flights.record(flight, attempt, todo)
            self._take_over(flight, todo)
        if self._slots.saturated:
            flights.saturate(todo)
        flights.review(todo)

    def _take_over(self, flight: Flight, todo: Todo) -> None:
        """Let a flight's next attempt have the slot that its last one has just left."""
        if (
            flight.phase == "queued"
            and self._slots.free > 0
            and self._flights.obstacles.of(flight) is None
            and self.may_start(flight)
        ):
            self.handed_over.append(self.begin(flight, None))
            todo.worker = True

    def withdraw(self, turn: Turn, todo: Todo) -> None:
        """Take back a slot that was handed over and that no thread has come to: none is stuck."""
        assert self._process.lock.mine()
        self.handed_over.remove(turn)
        self.ended(turn, Result("cancelled", reason="no thread came to it in time"), todo)
        todo.worker = True

    # The end of its thread's time in it

    def ended(self, turn: Turn, result: Result, todo: Todo) -> None:
        """The thread has left the load: take back all that the turn held, and use the result."""
        assert self._process.lock.mine()
        if turn not in self._live:
            return  # it began in the parent of this forked process
        del self._live[turn]
        todo.closers = True
        phase, turn.phase = turn.phase, "ended"
        self.cancel_alarms(turn)
        freed = self._process.let_go(turn)
        self._process.interpreter.end(turn)
        if turn.nested_seats:
            self.unseat(turn, todo)
        self.restoring.ended(turn, todo)
        if turn.parent is None:
            self._process.left(turn)
            self._slots.leave(turn)
        else:
            turn.parent.children.remove(turn)
        if self._admission is not None:
            self._admission.ended(turn.flight)
            self._flights.queue.ask_again()
            # This thread itself does not look, where the turn was inside another load.
            todo.worker = True
        if turn.seen or phase != "running":
            self._flights.unlinger(turn, todo)
        if result.observed.changes:
            self._tell_changes(turn, result.observed)
        if phase == "running":
            self._finished(turn, result, todo)
        else:
            self._came_too_late(turn, result, todo)
        if turn.flight.turn is turn:
            turn.flight.turn = None  # they lead to each other, so this would be a cycle
        if freed:
            self._flights.review(todo)
            todo.elsewhere = True

    def cancel_alarms(self, turn: Turn) -> None:
        """Its limits are nothing to it any more."""
        assert self._process.lock.mine()
        self._alarms.cancel(turn.alarm)
        self._alarms.cancel(turn.stall_alarm)

    def _tell_changes(self, turn: Turn, observed: Observed) -> None:
        now, backend = self._flights.clock(), turn.candidate.backend_type
        model, changes = turn.flight.model, observed.changes
        self._outbox.put(GlobalsChanged(model, now, backend, changes, observed.overlapped))

    def _finished(self, turn: Turn, result: Result, todo: Todo) -> None:
        flights, flight = self._flights, turn.flight
        attempt = turn.attempt(
            result.outcome, result.reason, result.stack, result.error, result.observed
        )
        flight.load_seconds += attempt.load_seconds or 0.0
        if flight.phase == "settled":
            # A close has cut it short inside a load of another initializer, whose thread it is.
            if result.outcome == "loaded":
                value, result.value = result.value, None
                reason = "its initializer was closed"
                flights.releases.add(flight, turn.candidate, value, reason, todo)
            return
        if result.unfit is not None and flight.waiting:
            flights.note(flight, attempt)
            flights.settle(flight, todo, failure=again(result.unfit))
            return
        if result.outcome != "loaded":
            flights.record(flight, attempt, todo)
            self._take_over(flight, todo)
            return
        value, result.value = result.value, None
        flights.note(flight, attempt)
        if flight.waiting:
            flight.value = value
            if flight.landed is not None:
                flight.landed(value)
                flight.taken = True  # by whoever keeps it
            flights.settle(flight, todo)
        else:
            flights.settle(flight, todo)
            reason = "every caller was cancelled"
            flights.releases.add(flight, turn.candidate, value, reason, todo)

    def _came_too_late(self, turn: Turn, result: Result, todo: Todo) -> None:
        flights, model = self._flights, turn.flight.model
        now = flights.clock()
        backend = turn.candidate.backend_type
        if turn.parent is None:
            age = now - turn.started
            self._outbox.put(ThreadEnded(model, now, backend, age, result.reason))
        if result.outcome == "loaded":
            value, result.value = result.value, None
            reason = "it came after its limit"
            flights.releases.add(turn.flight, turn.candidate, value, reason, todo)
        todo.worker = True

    def cannot_start(self, error: Exception, todo: Todo) -> None:
        """There is no thread to run anything: end every flight that has none."""
        assert self._process.lock.mine()
        reason = f"no worker thread could be started: {describe(error)}"
        for flight in self._flights.without_a_thread():
            if flight.plan is not None:
                if flight.phase == "queued":
                    self._flights.dequeue(flight)
                candidate = flight.candidate
                name = candidate.implementation.name
                attempt = Attempt(candidate.backend_type, "raised", reason, name, error=error)
                self._flights.note(flight, attempt)
            self._flights.fail(flight, todo, error)
        turns, self.handed_over = self.handed_over, []
        for turn in turns:
            self.ended(turn, Result("raised", reason=reason), todo)

    def after_fork(self) -> None:
        """Forget the turns of the parent process; this child may be forked from one of them."""
        self._live.clear()

    @property
    def live(self) -> list[Turn]:
        """The turns whose thread is in a load, or about to be."""
        return list(self._live)
