"""What the world of the model test is like between two steps, looked at once for all promises."""

from __future__ import annotations

from collections import Counter

from home import Home
from played_threads import InLoad, InStep, Waits, Worker
from world import World

from anyload._load.flight import Flight, Turn
from anyload.registry import GIL_LANE


class View:
    """What a world is like between two steps, looked at once for all checks."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.waiting = Counter(caller.seat.flight for caller in world.waiting())
        self.loads: list[tuple[Worker, InLoad]] = []
        self.waits: list[tuple[Worker, Waits]] = []
        self.steps: list[tuple[Worker, InStep]] = []
        for worker in world.workers:
            for frame in worker.frames:
                if isinstance(frame, InLoad):
                    self.loads.append((worker, frame))
                elif isinstance(frame, Waits):
                    self.waits.append((worker, frame))
                else:
                    self.steps.append((worker, frame))
        self.entered = {frame.turn: worker for worker, frame in self.loads}
        self.handed_over = [turn for home in world.homes for turn in home.core.turns.handed_over]
        # Each resource, and the threads that hold it; a turn that no thread has come to yet
        # stands for its own.
        self.held: dict[str, set[object]] = {}
        self.live: dict[object, list[object]] = {}
        for worker, frame in self.loads:
            self._hold(worker, frame.turn)
        for turn in self.handed_over:
            self._hold(turn, turn)
        for worker, step in self.steps:
            if (release := step.release) is not None:
                group = release.candidate.implementation.exclusive_group
                if group is not None:
                    self.held.setdefault(f"group {group}", set()).add(worker)

    def _hold(self, thread: object, turn: Turn) -> None:
        abandoned = turn.phase == "abandoned"
        for resource in turn.candidate.resources:
            if not (abandoned and resource == GIL_LANE):
                self.held.setdefault(resource, set()).add(thread)
        if not abandoned:
            self.live.setdefault(self.world.identities[turn.flight], []).append(thread)

    def loads_of(self, home: Home) -> list[InLoad]:
        return [frame for _, frame in self.loads if frame.turn.turns is home.core.turns]

    def steps_of(self, home: Home) -> list[InStep]:
        return [step for worker, step in self.steps if worker.home is home]

    def roots(self, home: Home) -> list[Turn]:
        """Return the outermost turns of an initializer's threads, those to come included."""
        entered = [worker.frames[0] for worker in home.workers.alive if worker.frames]
        turns = [frame.turn for frame in entered if isinstance(frame, InLoad)]
        return turns + home.core.turns.handed_over

    def blockers(self, flight: Flight, own: Worker | None = None) -> set[object]:
        """Return the threads that must leave something before a queued flight can start."""
        blockers: set[object] = set(self.live.get(self.world.identities[flight], ()))
        for resource in flight.candidate.resources:
            blockers |= self.held.get(resource, set()) - {own}
        return blockers

    def startable(self, home: Home) -> list[Flight]:
        """Return the queued flights that a worker could begin now."""
        flights = home.core.flights
        on_slots = sum(turn.phase != "abandoned" for turn in self.roots(home))
        if home.closed or on_slots >= home.limits.max_concurrent_loads:
            return []
        if self.restoring:
            return []
        awaited = {waits.seat.flight for _, waits in self.waits if waits.seated}
        return [
            flight
            for flight in flights.live
            if flight.phase == "queued"
            and flight not in awaited
            and flight.config is not None
            and not self.refused(home, flight)
            and not self.blockers(flight)
        ]

    @property
    def restoring(self) -> bool:
        """Whether a load puts back what it has changed."""
        return any(worker.restores for worker in self.world.workers)

    def refused(self, home: Home, flight: Flight) -> bool:
        """Return whether the admission refuses a flight."""
        assert flight.config is not None
        return home.asks_admission and flight.config.name in home.admission.refused

    def in_a_circle(self, worker: Worker, flight: Flight) -> bool:
        """Return whether a thread that waited for a flight would wait for itself."""
        seen: set[tuple[Flight, Worker]] = set()
        pending = [(flight, worker)]
        while pending:
            current, own = pending.pop()
            seen.add((current, own))
            threads: set[object] = set()
            if current.phase == "running" and current.turn is not None:
                threads = {self.entered.get(current.turn)}
            elif current.phase == "queued":
                threads = self.blockers(current, own)
            if worker in threads:
                return True
            for other, waits in self.waits:
                if other in threads and (waits.seat.flight, other) not in seen:
                    pending.append((waits.seat.flight, other))
        return False


def order(flight: Flight) -> tuple[int, bool, int, int]:
    """Return what the queue is ordered by."""
    fresh = all(attempt.outcome == "skipped" for attempt in flight.attempts)
    return -flight.priority, fresh, flight.batch, -flight.size
