"""Flights that are ready to run, in the order in which they should."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator
from itertools import count

from .flight import Flight


class Ticket:
    """A place in a lane; it leads to no flight once that has left it."""

    __slots__ = ("flight",)

    def __init__(self, flight: Flight) -> None:
        self.flight: Flight | None = flight


Entry = tuple[int, bool, int, int, int, Ticket]


class Lane:
    """The queued flights that need the same exclusive resources.

    With one heap for all, every look for work would step over the flights whose group is busy;
    with a heap for each set of resources it looks at the heads only.
    """

    def __init__(self, resources: tuple[str, ...]) -> None:
        self.resources = resources
        self.stuck = False
        self._heap: list[Entry] = []
        self._refused: list[Entry] = []
        self.size = 0
        """How many flights it holds."""
        self._order = count()

    def __iter__(self) -> Iterator[Flight]:
        for entry in (*self._heap, *self._refused):
            if entry[5].flight is not None:
                yield entry[5].flight

    def push(self, flight: Flight) -> None:
        """Queue a flight, or move it where its priority now belongs."""
        if flight.ticket is None:
            self.size += 1
        else:
            flight.ticket.flight = None
        flight.ticket = Ticket(flight)
        entry: Entry = (
            -flight.priority,
            not flight.requeued,
            flight.batch,
            -flight.size,
            next(self._order),
            flight.ticket,
        )
        heapq.heappush(self._heap, entry)

    def remove(self, flight: Flight) -> None:
        """Take a flight out, wherever it stands."""
        assert flight.ticket is not None
        flight.ticket.flight = None  # the entry may stay for long, what the flight holds may not
        flight.ticket = None
        self.size -= 1
        # The entry comes up some time; a queue that is mostly such entries is rebuilt.
        stale = len(self._heap) + len(self._refused) - self.size
        if stale > 64 and stale > self.size:
            self._heap = [entry for entry in self._heap if entry[5].flight is not None]
            self._refused = [entry for entry in self._refused if entry[5].flight is not None]
            heapq.heapify(self._heap)

    def head(self, admitted: Callable[[Flight], bool]) -> Entry | None:
        """Return the first entry that is admitted; those refused are set aside."""
        while self._heap:
            entry = self._heap[0]
            flight = entry[5].flight
            if flight is None:
                heapq.heappop(self._heap)
            elif admitted(flight):
                return entry
            else:
                self._refused.append(heapq.heappop(self._heap))
        return None

    def in_order(self) -> Iterator[Entry]:
        """Yield the entries in their order, but for those refused."""
        # A heap's first entries are found without sorting the others.
        frontier = [(entry, 0) for entry in self._heap[:1]]
        while frontier:
            entry, place = heapq.heappop(frontier)
            if entry[5].flight is not None:
                yield entry
            for child in (2 * place + 1, 2 * place + 2):
                if child < len(self._heap):
                    heapq.heappush(frontier, (self._heap[child], child))

    def ask_again(self) -> None:
        """Let those that were refused be asked for again."""
        for entry in self._refused:
            heapq.heappush(self._heap, entry)
        self._refused.clear()


class Queue:
    """Every lane of one initializer."""

    def __init__(self) -> None:
        self._lanes: dict[tuple[str, ...], Lane] = {}

    def __len__(self) -> int:
        # A copy, made in one step: this is also asked without the lock.
        return sum(lane.size for lane in list(self._lanes.values()))

    def __iter__(self) -> Iterator[Flight]:
        for lane in self._lanes.values():
            yield from lane

    @property
    def lanes(self) -> list[Lane]:
        """The lanes that anything ever stood in."""
        return list(self._lanes.values())

    def ask_again(self) -> None:
        """Let every flight that was refused be asked for again."""
        for lane in self._lanes.values():
            lane.ask_again()

    def lane(self, resources: tuple[str, ...]) -> Lane:
        """Return the lane of the loads that need these resources."""
        lane = self._lanes.get(resources)
        if lane is None:
            lane = self._lanes[resources] = Lane(resources)
        return lane

    def upcoming(self) -> Iterator[Flight]:
        """Yield the flights in the order in which they will start, resources aside."""
        lanes = (lane.in_order() for lane in self._lanes.values() if lane.size)
        for *_, ticket in heapq.merge(*lanes, key=lambda entry: entry[:4]):
            assert ticket.flight is not None
            yield ticket.flight

    def first(
        self, free: Callable[[Lane], bool], admitted: Callable[[Flight], bool]
    ) -> Flight | None:
        """Return the flight that should run next, leaving it queued.

        Args:
            free: whether a lane's resources are free.
            admitted: whether a flight may start now.
        """
        best: Entry | None = None
        for lane in self._lanes.values():
            if lane.size and free(lane):
                entry = lane.head(admitted)
                # The batch and the order are each lane's own, but the tuple up to the batch is
                # comparable across lanes, and the flights themselves are never compared.
                if entry is not None and (best is None or entry[:4] < best[:4]):
                    best = entry
        return best[5].flight if best else None
