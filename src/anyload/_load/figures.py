"""What an initializer is doing, as figures for those who ask."""

from __future__ import annotations

from ..reports import Statistics, StuckLoad
from .core import Core
from .failures import stuck_loads


def statistics(core: Core) -> Statistics:
    """Return what is going on now, and what has been done so far."""
    with core.transition(), core.lock:
        flights, slots = core.flights, core.flights.slots
        phases = [flight.phase for flight in flights.live]
        return Statistics(
            slots=slots.total,
            free_slots=max(slots.free, 0),
            waiters=sum(flight.waiting for flight in flights.live),
            flights=len(flights.live),
            resolving=phases.count("resolving"),
            preparing=phases.count("preparing"),
            queued=phases.count("queued"),
            running=len(slots.taken) - len(slots.overdue),
            overdue=len(slots.overdue),
            abandoned=len(slots.abandoned),
            stuck_lookups=flights.lookups.stuck,
            stuck_preparations=flights.preparations.hung,
            releasing=len(flights.releases.running) + len(flights.releases.queued),
            threads=core.workers.count,
            loaded=flights.loaded,
            failed=flights.failed,
            cancelled=flights.cancelled,
            discarded=flights.releases.discarded,
        )


def abandoned(core: Core) -> tuple[StuckLoad, ...]:
    """Describe the loads whose threads nobody waits for."""
    with core.transition(), core.lock:
        turns = [turn for turn in core.turns.live if turn.phase == "abandoned"]
        return stuck_loads((turn for turn in turns if turn.parent is None), core.clock())
