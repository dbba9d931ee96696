"""Which flight a new caller for a key joins, and whose thread a fresh flight has to wait for."""

from __future__ import annotations

from collections.abc import Hashable

from .flight import Flight, Turn


class KeyTable:
    """The keys of one initializer's flights, and of the turns that outlived theirs."""

    def __init__(self) -> None:
        self._flights: dict[Hashable, Flight] = {}
        # Turns that hold a key without a flight: cancelled or overdue, and still on their slot.
        self._lingering: dict[Hashable, Turn] = {}

    def find(self, key: Hashable) -> Flight | None:
        """Return the flight that a new caller for this key joins."""
        return self._flights.get(key)

    def claim(self, flight: Flight, key: Hashable) -> None:
        """Let callers for this key find the flight; a turn that lingers on it goes first."""
        self._flights[key] = flight
        flight.keys += (key,)
        turn = self._lingering.get(key)
        if turn is not None and turn not in flight.predecessors:
            flight.predecessors += (turn,)
            turn.successors.append(flight)

    def hand_over(self, flight: Flight, other: Flight) -> None:
        """Give the keys of one flight to another."""
        for key in flight.keys:
            self._flights[key] = other
        other.keys += flight.keys

    def release(self, flight: Flight) -> None:
        """Let the next caller for these keys begin a fresh flight."""
        for key in flight.keys:
            if self._flights.get(key) is flight:
                del self._flights[key]

    def linger(self, turn: Turn) -> None:
        """Keep fresh flights of the same keys from starting while this turn is on its slot."""
        for key in turn.flight.keys:
            self._lingering[key] = turn

    def unlinger(self, turn: Turn) -> None:
        """Let fresh flights start: the turn has left its slot."""
        for key in turn.flight.keys:
            if self._lingering.get(key) is turn:
                del self._lingering[key]
