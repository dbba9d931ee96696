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
    if flight.phase == "queued" and not _obstacles(flight, parent.root, flights):
        return turns.begin(flight, parent)
    _refuse_cycle(flight, parent, flights)
    return None


def _obstacles(flight: Flight, root: Holder, flights: Flights) -> list[Holder]:
    """Return whose threads have to come to an end, or further, before a flight can go on: all.

    For the thread of a root that waits for it: that one can run it with what it holds itself.
    """
    if flight.turn is not None and flight.phase == "running":
        return [flight.turn]
    if flight.phase != "queued":
        return []
    holders = flights.process.obstacles(flight.candidate.resources, root)
    return [*flight.predecessors, *holders]


def _refuse_cycle(flight: Flight, parent: Turn, flights: Flights) -> None:
    """Follow who waits for whom, over flights and groups, and refuse to come back to ourselves."""
    begin: tuple[Flight, Holder] = flight, parent.root
    trail: dict[tuple[Flight, Holder], tuple[str, ...]] = {begin: (flight.model,)}
    pending = [begin]
    while pending:
        current = pending.pop()
        for obstacle in _obstacles(*current, flights):
            root = obstacle.root
            if root is parent.root:
                raise ReentrantLoadError(flight.model, (parent.flight.model, *trail[current]))
            for awaited in root.awaited():
                # Another thread that waits for the same flight has other obstacles.
                step = awaited, root
                if step not in trail:
                    trail[step] = (*trail[current], awaited.model)
                    pending.append(step)
