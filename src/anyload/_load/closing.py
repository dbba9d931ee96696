"""How an initializer ends: let loads finish, stop the backends, send the threads home."""

from __future__ import annotations

from typing import Literal

from .dispatch import Dispatch
from .failures import closed
from .flight import Seat, Turn
from .flights import Flights
from .process import Lock
from .todo import Todo
from .turns import Turns

STOP_SECONDS = 5.0
"""How long a close waits for the backends' ``stop``, whatever is left of the grace."""


class Closing:
    """The stages of a close. Each is over when what it waits for is; it may be over at once.

    Args:
        flights: the flights of the initializer.
        turns: its turns.
        dispatch: its dispatch.
    """

    def __init__(self, flights: Flights, turns: Turns, dispatch: Dispatch) -> None:
        self._flights = flights
        self._turns = turns
        self._dispatch = dispatch
        self.stage: Literal["open", "draining", "stopping", "leaving"] = "open"
        # Whether it was begun by a thread that could not wait for it, so that it goes on by itself.
        self.unattended = False

    def begin(self, grace: float, todo: Todo) -> None:
        """Refuse new loads, end those that have not begun, and give the others some time."""
        assert self._flights.process.lock.mine()
        self._flights.close(todo)
        if self.stage == "open":
            self.stage = "draining"
        if grace <= 0:
            self._cut(self, todo)
        elif not self._turns.out_of_grace:
            at = self._flights.clock() + grace
            self._flights.alarms.set(at, self._cut, self)

    def _cut(self, _: Closing, todo: Todo) -> None:
        """The grace is over: nobody waits for any thread any more."""
        assert self._flights.process.lock.mine()
        turns = self._turns
        turns.out_of_grace = True
        for turn in list(turns.handed_over):
            turns.withdraw(turn, todo)
        for turn in turns.live:
            if turn.parent is None and turn.phase != "abandoned":
                self._cut_thread(turn, todo)
            else:
                # Abandoned before, or on the thread of another initializer's load.
                self._cut_turn(turn, todo)
        self._flights.review(todo)

    def _cut_thread(self, root: Turn, todo: Todo) -> None:
        """Abandon a thread; loads of other initializers in it go on with their next backend."""
        family = [turn for turn in root.family() if turn.phase == "running"]
        self._turns.abandon(root, todo)
        for turn in family:
            self._turns.restoring.ended(turn, todo)
            if turn.turns is self._turns:
                self._cut_turn(turn, todo)
            else:
                turn.turns.unseat(turn, todo)
                why = f"the load of {root.flight.model!r} in the same thread was cut by a close"
                attempt = turn.attempt("timed_out", why, None)
                turn.turns.lost(turn, attempt, todo, kept=False)

    def _cut_turn(self, turn: Turn, todo: Todo) -> None:
        flight = turn.flight
        self._turns.cancel_alarms(turn)
        self._turns.unseat(turn, todo)
        if flight.turn is turn and flight.phase == "running":
            self._flights.settle(flight, todo, failure=closed(flight))

    def advance(self, todo: Todo) -> bool:
        """Go to the next stage, where this one is over; return whether it was."""
        assert self._flights.process.lock.mine()
        before = self.stage
        if self.stage == "draining" and self._drained:
            self.stage = "stopping"
            self._stop_backends()
            todo.worker = True
            if self._flights.preparations.stopping:
                at = self._flights.clock() + STOP_SECONDS
                self._flights.alarms.set(at, self._stops_hang, self)
        if self.stage == "stopping" and self._flights.preparations.stopping == 0:
            self.stage = "leaving"
        return self.stage != before

    def _stops_hang(self, _: Closing, todo: Todo) -> None:
        if self._flights.preparations.stopping:
            stopping = self._flights.preparations.stopping
            self._flights.outbox.warn(f"{stopping} backends did not stop in time")
            self.stage = "leaving"

    @property
    def _drained(self) -> bool:
        # First: what runs inside a load of another initializer is not ours to abandon.
        if self._turns.out_of_grace:
            return True
        # No generator: a Ctrl-C that comes as one is left half-way can be swallowed.
        if {turn.phase for turn in self._turns.live} - {"abandoned"}:
            return False
        flights = self._flights
        return not (
            flights.releases.queued or flights.releases.running or flights.preparations.running
        )

    def _stop_backends(self) -> None:
        busy = {turn.candidate.choice for turn in self._turns.live}
        for choice in self._flights.preparations.begin_stops(busy):
            name = choice.backend.backend_type
            self._flights.outbox.warn(
                f"stop() of backend {name} is skipped: an abandoned load still runs on it"
            )

    @property
    def left_behind(self) -> int:
        """How many threads cannot be sent home: they are in code that does not return."""
        flights = self._flights
        return (
            len(self._turns.live)
            + len(flights.preparations.running)
            + len(flights.lookups.running)
            + len(flights.prefetching.running)
            + len(flights.releases.running)
            + len(flights.releases.hung)
            + len(flights.releases.queued)
            + flights.preparations.stopping
        )


class Closers:
    """Those who wait for a close to be over.

    Args:
        lock: the process lock, not held by the caller of any method.
    """

    def __init__(self, lock: Lock) -> None:
        self._lock = lock
        self._seats: list[Seat] = []
        self.wakes = 0

    def sit(self, seat: Seat, seen: int) -> None:
        """Have a seat woken at the next change; at once if it has missed one.

        Args:
            seat: who waits.
            seen: how many changes it knows of, by `wakes`.
        """
        with self._lock:
            self._seats.append(seat)
            missed = self.wakes != seen
        self._lock.catch_up()
        if missed:
            seat.wake()

    def wake(self) -> None:
        """Wake all of them: something has changed."""
        with self._lock:
            self.wakes += 1
            seats, self._seats = self._seats, []
        self._lock.catch_up()
        for seat in seats:
            seat.wake()
