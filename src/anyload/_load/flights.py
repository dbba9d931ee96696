"""Flights: who waits for what, what each flight does next, and how it ends.

A flight goes ``resolving`` -> ``preparing`` -> ``queued`` -> ``running`` -> ``settled``; between
two attempts it goes back to ``preparing`` or ``queued``. Every method is one transition, a few
synchronous lines under the process lock: it waits for nothing, does no I/O, calls no code of a
user's, and adds what is to be done afterwards to a `Todo`.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import replace
from itertools import count

from ..errors import ClosedError, describe
from ..events import AttemptEnded, Cancelled, Failed, Loaded, Queued
from ..reports import Attempt
from .alarms import Alarms
from .failures import again, closed, no_backend, saturated, stuck_loads, too_late
from .flight import Flight, Known, Resolved, Turn
from .key_table import KeyTable
from .lookups import Lookups
from .obstacles import Obstacles
from .outbox import Outbox
from .plan import Skip
from .prefetching import Prefetching
from .preparations import Preparations
from .process import Process
from .queue import Queue
from .releases import Releases
from .slots import Limits, Slots
from .todo import Todo


class Flights:
    """The flights of one initializer.

    Args:
        process: what is shared with the other initializers of the process.
        limits: the configured limits.
        clock: the monotonic clock.
        outbox: takes the events.
    """

    def __init__(
        self, process: Process, limits: Limits, clock: Callable[[], float], outbox: Outbox
    ) -> None:
        self.process = process
        self.limits = limits
        self.clock = clock
        self.outbox = outbox
        self.alarms = Alarms()
        self.slots = Slots(limits.max_concurrent_loads, limits.max_abandoned_loads)
        self.queue = Queue()
        self.obstacles = Obstacles(process, self.alarms, clock, self)
        self.preparations = Preparations(
            process, self.alarms, clock, limits.prepare_timeout, outbox, self
        )
        self.releases = Releases(
            process, self.alarms, clock, limits.release_timeout, self.slots, outbox, self
        )
        self.lookups = Lookups(process, self.alarms, clock)
        self.prefetching = Prefetching(
            process, self.queue, self.preparations, self.slots, limits.prefetch_streams
        )
        self.live: dict[Flight, None] = {}
        self.closed = False
        self.loaded = self.failed = self.cancelled = 0
        self.keys = KeyTable()
        self._batches = count()

    # Joining and leaving

    def new_batch(self) -> int:
        """Return the next place in the order of arrival."""
        return next(self._batches)

    def open(
        self, flight: Flight, key: Hashable | None, late: Callable[..., None], todo: Todo
    ) -> None:
        """Begin a flight whose first seat is taken.

        Args:
            flight: the flight; it has either a plan, or a way to resolve one.
            key: the key under which others find it; None if it is not shared.
            late: is called when it passes ``load_timeout``.
        """
        assert self.process.lock.mine()
        if self.closed:
            raise ClosedError(flight.model)
        self.live[flight] = None
        flight.announced = self.outbox.wanted
        if not flight.clock_from_dispatch:
            self.start_clock(flight, late)
        if key is not None:
            self.keys.claim(flight, key)
        if flight.resolve is not None:
            self.lookups.add(flight, todo)
        else:
            self.advance(flight, todo)

    def start_clock(self, flight: Flight, ring: Callable[..., None]) -> None:
        """Start ``load_timeout``, where it is on and not running yet."""
        assert self.process.lock.mine()
        if self.limits.load_timeout is not None and flight.alarm is None:
            at = self.clock() + self.limits.load_timeout
            flight.alarm = self.alarms.set(at, ring, flight)

    def raise_priority(self, flight: Flight, priority: int) -> None:
        """Let a queued flight go earlier, because somebody more urgent has joined it."""
        assert self.process.lock.mine()
        if priority > flight.priority:
            flight.priority = priority
            if flight.ticket is not None:
                flight.lane.push(flight)

    def leave(self, flight: Flight, callers: int, todo: Todo) -> None:
        """Callers go without the result, because they were cancelled."""
        assert self.process.lock.mine()
        flight.waiting -= callers
        if flight.waiting > 0:
            if flight.turn is not None and flight.turn.parent is not None:
                # Perhaps only the load around it still waits, and nobody wants that.
                self.review_nested(todo)
            return
        if flight.phase == "settled":
            if flight.value is not None and not flight.taken and not flight.loads_nothing:
                self._discard_settled(flight, todo)
            todo.dropped.append(flight.value)
            flight.value = None
        elif flight.phase == "running":
            # The flag of its turn is on from here: it is this very count. What waits inside that
            # turn has to look at it.
            self.review_nested(todo)
        else:
            self.settle(flight, todo)

    def leave_nested(self, flight: Flight, todo: Todo) -> None:
        """A load goes without the result of one nested in it, and leaves that to the workers."""
        assert self.process.lock.mine()
        self.leave(flight, 1, todo)
        if flight.phase == "queued":
            flight.lane.ask_again()
            todo.worker = True

    # From a name to a plan

    def resolved(self, flight: Flight, found: Resolved | Known | Exception, todo: Todo) -> None:
        """Take what reading the model came to."""
        assert self.process.lock.mine()
        flight.resolve = None
        if flight.phase == "settled":
            return
        if isinstance(found, Exception):
            self.settle(flight, todo, failure=again(found))
            return
        if isinstance(found, Resolved) and found.known is not None:
            found = found.known() or found
        if flight.loads_nothing and isinstance(found, Resolved):
            found = Known(replace(found.plan, model=flight.model))
        if isinstance(found, Known):
            flight.loads_nothing = True
            flight.value = found.value
            self.settle(flight, todo)
            return
        other = self.keys.find(found.key) if found.key is not None else None
        if other is not None:
            self._merge(flight, other, todo)
            return
        flight.config, flight.files = found.config, found.files
        flight.plan, flight.size = found.plan, found.size
        if found.key is not None:
            self.keys.claim(flight, found.key)
        self.advance(flight, todo)

    def _merge(self, flight: Flight, other: Flight, todo: Todo) -> None:
        """Two spellings turned out to be one model: the callers of one join the other."""
        for seat in flight.seats:
            seat.flight = other
        other.seats = (*other.seats, *flight.seats)
        other.waiting += flight.waiting
        self.keys.hand_over(flight, other)
        self.raise_priority(other, flight.priority)
        self.review_nested(todo)
        flight.seats, flight.waiting = (), 0
        self._retire(flight, todo)

    # From one attempt to the next

    def advance(self, flight: Flight, todo: Todo) -> None:
        """Go to the next backend that can be tried, or end without one."""
        assert self.process.lock.mine()
        assert flight.plan is not None
        if self.closed:
            self.settle(flight, todo, failure=closed(flight))
            return
        steps = flight.plan.steps
        while flight.position < len(steps):
            step = steps[flight.position]
            if isinstance(step, Skip):
                self.note(flight, Attempt(step.backend_type, "skipped", step.reason))
                continue
            flight.candidate = step
            self.prefetching.consider(flight)
            preparation = self.preparations.unmet(step)
            if preparation is None:
                self._enqueue(flight, todo)
            else:
                flight.phase = "preparing"
                flight.ready_at = self.clock()
                self.preparations.wait(flight, preparation, todo)
            return
        self.fail(flight, todo)

    def record(self, flight: Flight, attempt: Attempt, todo: Todo) -> None:
        """An attempt ended without a model: go on with the next backend, if there is one."""
        assert self.process.lock.mine()
        self.note(flight, attempt)
        flight.requeued = True
        if flight.waiting == 0:
            self.settle(flight, todo)
        elif attempt.outcome == "cancelled" and self.closed:
            self.settle(flight, todo, failure=closed(flight))
        elif attempt.outcome == "cancelled" or not self.limits.next_on_error:
            self.fail(flight, todo)
        else:
            self.advance(flight, todo)

    def note(self, flight: Flight, attempt: Attempt) -> None:
        """Add an attempt to the report of its flight."""
        assert self.process.lock.mine()
        flight.attempts += (attempt,)
        flight.position += 1
        if flight.announced:
            self.outbox.put(AttemptEnded(flight.model, self.clock(), attempt))

    def prepared(self, flight: Flight, todo: Todo) -> None:
        """What the flight's candidate needed first has been done."""
        self.advance(flight, todo)

    # In the queue

    def _enqueue(self, flight: Flight, todo: Todo) -> None:
        flight.phase = "queued"
        flight.ready_at = self.clock()
        flight.blocked_seconds = 0.0
        if self.slots.saturated:
            self._refuse(flight, todo)
            return
        lane = flight.lane = self.queue.lane(flight.candidate.resources)
        if lane.size == 0:
            # While it was empty, nobody kept an eye on who holds what it needs.
            lane.stuck = self.obstacles.stuck(lane)
        lane.push(flight)
        if flight.announced:
            self.outbox.put(Queued(flight.model, self.clock(), flight.candidate.backend_type))
        todo.worker = True
        self.review_nested(todo)
        self.obstacles.review(flight, todo)

    def dequeue(self, flight: Flight) -> None:
        """Take a flight out of the queue."""
        assert self.process.lock.mine()
        flight.lane.remove(flight)
        self.obstacles.forget(flight)

    def changed_hands(self, todo: Todo) -> None:
        """A group, a lane or an import has become free, or its holder is past its limit."""
        self.review(todo)
        todo.elsewhere = True

    def review(self, todo: Todo) -> None:
        """Look at everything that waits again."""
        assert self.process.lock.mine()
        self.preparations.review(todo)
        for lane in self.queue.lanes:
            if lane.size:
                self.obstacles.review_lane(lane, todo)
        todo.worker = True
        self.review_nested(todo)

    def review_nested(self, todo: Todo) -> None:
        """Let loads that wait inside other loads look at how things stand."""
        assert self.process.lock.mine()
        todo.wakes += self.process.nested_seats

    # The end of a flight

    def settle(
        self,
        flight: Flight,
        todo: Todo,
        *,
        failure: Callable[[], Exception] | None = None,
    ) -> None:
        """End a flight with its value, with an error, or, with neither, because all have left."""
        assert self.process.lock.mine()
        if flight.phase == "queued" and flight.ticket is not None:
            self.dequeue(flight)
        elif flight.phase == "preparing":
            self.preparations.leave(flight)
        reads = flight.phase == "resolving"
        self._retire(flight, todo)
        if reads:
            self.lookups.left(flight, todo)
        flight.failure = failure
        todo.wakes += flight.seats
        flight.seats = ()  # they lead to the flight, so this would be a cycle
        if flight.loads_nothing:
            return
        if failure is not None:
            self.failed += 1
        elif flight.value is not None:
            self.loaded += 1
        else:
            self.cancelled += 1
        if flight.announced:
            self._announce(flight)

    def _announce(self, flight: Flight) -> None:
        now = self.clock()
        report = flight.report()
        if flight.value is not None:
            self.outbox.put(Loaded(flight.model, now, report))
        elif flight.failure is not None:
            self.outbox.put(Failed(flight.model, now, report, describe(flight.failure())))
        else:
            self.outbox.put(Cancelled(flight.model, now, report))

    def _retire(self, flight: Flight, todo: Todo) -> None:
        # It leads to what its callers gave: their context, load kwargs, free fields.
        todo.dropped += (flight, flight.context)
        flight.phase = "settled"
        flight.settled_at = self.clock()
        self.live.pop(flight, None)
        self.keys.release(flight)
        self.alarms.cancel(flight.alarm)
        flight.context = None
        for turn in flight.predecessors:
            turn.successors.remove(flight)
        flight.predecessors = ()

    def unlinger(self, turn: Turn, todo: Todo) -> None:
        """The turn has left its slot: the flights that waited for that may start."""
        assert self.process.lock.mine()
        self.keys.unlinger(turn)
        successors, turn.successors = turn.successors, []
        for flight in successors:
            flight.predecessors = tuple(one for one in flight.predecessors if one is not turn)
            if flight.phase == "queued":
                self.obstacles.review(flight, todo)
                flight.lane.ask_again()
                todo.worker = True
        self.review_nested(todo)

    def fail(self, flight: Flight, todo: Todo, cause: BaseException | None = None) -> None:
        """End a flight for which no backend is left."""
        assert self.process.lock.mine()
        flight.settled_at = self.clock()
        self.settle(flight, todo, failure=no_backend(flight, cause))

    def fail_late(self, flight: Flight, todo: Todo) -> None:
        """End a flight that has passed ``load_timeout``."""
        assert self.process.lock.mine()
        limit = self.limits.load_timeout
        assert limit is not None
        flight.settled_at = self.clock()
        looked_up = flight in self.lookups.running
        self.settle(flight, todo, failure=too_late(flight, limit, looked_up=looked_up))

    def without_a_thread(self) -> list[Flight]:
        """Return the flights that are not in a load; asked only when every thread is stuck."""
        assert self.process.lock.mine()
        return [flight for flight in self.live if flight.phase != "running"]

    def _refuse(self, flight: Flight, todo: Todo) -> None:
        stuck = stuck_loads(self.slots.overdue, self.clock())
        self.settle(flight, todo, failure=saturated(flight, stuck))

    def saturate(self, todo: Todo) -> None:
        """Every slot has just become overdue: nothing that is queued can start."""
        assert self.process.lock.mine()
        for flight in list(self.queue):
            self._refuse(flight, todo)

    def close(self, todo: Todo) -> None:
        """Begin nothing more; what has not begun ends now."""
        assert self.process.lock.mine()
        self.closed = True
        self.preparations.close()
        self.prefetching.close()
        for flight in list(self.live):
            if flight.phase != "running":
                self.settle(flight, todo, failure=closed(flight))

    def _discard_settled(self, flight: Flight, todo: Todo) -> None:
        value, flight.value = flight.value, None
        reason = "its last caller was cancelled"
        self.releases.add(flight, flight.candidate, value, reason, todo)
