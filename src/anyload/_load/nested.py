"""Loads inside loads: run inline on the parent's thread, or wait without closing a cycle."""

from __future__ import annotations

from ..errors import ReentrantLoadError
from .flight import Flight, Holder, Turn
from .flights import Flights
from .turns import Turns


def claim(flight: Flight, parent: Turn, flights: Flights, turns: Turns) -> Turn | None:
    """Take a flight over if it can run now, inside the parent's load.

    It needs no slot, it has its parent's, and no admission: refusing it could only block the
    parent, which was admitted.

    Raises:
        ReentrantLoadError: waiting for it would close a cycle of loads that wait for each other.
    """
    if flight.phase == "queued" and not _obstacles(flight, parent, flights):
        return turns.begin(flight, parent)
    _refuse_cycle(flight, parent, flights)
    return None


def _obstacles(flight: Flight, parent: Turn | None, flights: Flights) -> list[Holder]:
    """Return whose threads have to come to an end, or further, before a flight can go on: all."""
    if flight.turn is not None and flight.phase == "running":
        return [flight.turn]
    if flight.phase != "queued":
        return []
    root = parent.root if parent else None
    holders = flights.process.obstacles(flight.candidate.resources, root)
    return [*flight.predecessors, *holders]


def _refuse_cycle(flight: Flight, parent: Turn, flights: Flights) -> None:
    """Follow who waits for whom, over flights and groups, and refuse to come back to ourselves."""
    trail: dict[Flight, tuple[str, ...]] = {flight: (flight.model,)}
    pending = [flight]
    while pending:
        current = pending.pop()
        for obstacle in _obstacles(current, parent if current is flight else None, flights):
            if obstacle.root is parent.root:
                raise ReentrantLoadError(flight.model, (parent.flight.model, *trail[current]))
            for awaited in obstacle.root.awaited():
                if awaited not in trail:
                    trail[awaited] = (*trail[current], awaited.model)
                    pending.append(awaited)
