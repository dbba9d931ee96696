"""What a queued flight waits for beside a slot, and for how long it may."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from ..reports import Attempt
from .alarms import Alarms
from .flight import Flight, Holder
from .process import Process
from .queue import Lane
from .todo import Todo


class Blocked(Protocol):
    """The flights, as far as their obstacles go."""

    def dequeue(self, flight: Flight) -> None: ...

    def record(self, flight: Flight, attempt: Attempt, todo: Todo) -> None: ...


class Obstacles:
    """The threads that must end before queued flights can start.

    Waiting for one that is within its limits is just queueing. Waiting for one that is past its
    limit counts against the attempt's own timeout, and with no timeout it fails at once.

    Args:
        process: who holds which group.
        alarms: the deadlines.
        clock: the monotonic clock.
        flights: hears when one has waited too long.
    """

    def __init__(
        self, process: Process, alarms: Alarms, clock: Callable[[], float], flights: Blocked
    ) -> None:
        self._process = process
        self._alarms = alarms
        self._clock = clock
        self._flights = flights

    def of(self, flight: Flight) -> Holder | None:
        """Return whose thread must end before this queued flight can start.

        Of several, one that is past its limit: that one puts the flight on the clock.
        """
        holder = self._process.obstacle(flight.candidate.resources)
        if not flight.predecessors or (holder is not None and holder.stuck):
            return holder
        return next((turn for turn in flight.predecessors if turn.stuck), flight.predecessors[0])

    def review(self, flight: Flight, todo: Todo) -> None:
        """Put a queued flight on the clock while what it waits for is itself past its limit."""
        assert self._process.lock.mine()
        holder = self.of(flight)
        timeout = flight.candidate.choice.timeout
        if holder is None or not holder.stuck:
            self.forget(flight)
        elif timeout is None:
            self._blocked_too_long(flight, todo)
        elif flight.blocked_since is None:
            flight.blocked_since = self._clock()
            at = flight.blocked_since + timeout - flight.blocked_seconds
            flight.queue_alarm = self._alarms.set(at, self._blocked_too_long, flight)

    def review_lane(self, lane: Lane, todo: Todo) -> None:
        """Look at a lane again: who holds what it needs may have changed, or be past its limit."""
        assert self._process.lock.mine()
        stuck = self.stuck(lane)
        # Only where the answer changed does each flight of the lane have to hear of it.
        if stuck != lane.stuck:
            lane.stuck = stuck
            for flight in list(lane):
                self.review(flight, todo)
        lane.ask_again()
        todo.worker = True

    def stuck(self, lane: Lane) -> bool:
        """Return whether who holds what a lane needs is past its limit."""
        holder = self._process.obstacle(lane.resources)
        return holder is not None and holder.stuck

    def forget(self, flight: Flight) -> None:
        """Take a flight off the clock, and remember how long it was on it."""
        assert self._process.lock.mine()
        if flight.blocked_since is not None:
            flight.blocked_seconds += self._clock() - flight.blocked_since
            flight.blocked_since = None
            self._alarms.cancel(flight.queue_alarm)
            flight.queue_alarm = None

    def _blocked_too_long(self, flight: Flight, todo: Todo) -> None:
        holder = self.of(flight)
        candidate = flight.candidate
        waited = self._clock() - flight.ready_at
        flight.queue_seconds += waited
        self._flights.dequeue(flight)
        label = holder.label if holder is not None else "another load"
        reason = f"waited for {label}, which is past its limit and still running"
        if candidate.choice.timeout is None:
            reason += "; there is no timeout to wait for it with"
        name = candidate.implementation.name
        attempt = Attempt(candidate.backend_type, "timed_out", reason, name, waited)
        self._flights.record(flight, attempt, todo)
