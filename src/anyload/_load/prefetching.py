"""Whose files are read ahead: those of the models that load next.

A load that waits for an import, its group or a slot does not use the disk yet, and the loads at
work may not use it any more. So another thread reads meanwhile what the next loads will read, and
they find it in memory. It is a hint: nothing waits for it, it holds no slot, and whatever is wrong
with a file is left to the load to complain of.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain, islice

from .flight import Flight
from .preparations import Preparations
from .process import Process
from .queue import Queue
from .read_ahead import possible
from .slots import Slots

BEYOND_SLOTS = 2
"""How many more models are read ahead than can load at once."""


class Prefetching:
    """The reading ahead of one initializer.

    Args:
        process: what is shared with the other initializers of the process.
        queue: the flights that are ready.
        preparations: what others wait for.
        slots: how many may load at once.
        streams: how many threads may read ahead at once; 0 for none.
    """

    def __init__(
        self,
        process: Process,
        queue: Queue,
        preparations: Preparations,
        slots: Slots,
        streams: int,
    ) -> None:
        self._process = process
        self._queue = queue
        self._preparations = preparations
        self._slots = slots
        self._streams = streams if possible else 0
        self._ahead: set[Flight] = set()
        self._asked = False
        self._short_of_memory = False
        self.running: set[Flight] = set()

    @property
    def useful(self) -> bool:
        """Whether there may be something to read ahead, and a stream for it."""
        return self._asked and len(self.running) < self._streams

    def close(self) -> None:
        """Read nothing more ahead."""
        assert self._process.lock.mine()
        self._streams = 0

    def consider(self, flight: Flight) -> None:
        """A flight waits for its turn, and may be one to read ahead for."""
        assert self._process.lock.mine()
        if self._streams and _names_files(flight):
            self._asked = True

    def begun(self, flight: Flight) -> None:
        """A flight's load has begun: another one is among the next ones now."""
        assert self._process.lock.mine()
        if self._short_of_memory or flight in self._ahead:
            self._ahead.discard(flight)
            self._short_of_memory = False
            self._asked = True

    def take(self) -> tuple[Flight, int] | None:
        """Return the next flight to read ahead for, and the bytes that are ahead with it.

        There must be a stream for it (`useful`). There is none if all that come next are ahead.
        """
        assert self._process.lock.mine()
        self._ahead = {flight for flight in self._ahead if waits(flight)}
        for flight in islice(self._next_ones(), self._slots.total + BEYOND_SLOTS):
            if _names_files(flight) and flight not in self._ahead:
                self._ahead.add(flight)
                self.running.add(flight)
                return flight, sum(one.size for one in self._ahead)
        self._asked = False
        return None

    def ended(self, flight: Flight, *, full: bool) -> None:
        """A thread is back from a flight's files; ``full``: there was no memory for them."""
        assert self._process.lock.mine()
        self.running.discard(flight)
        if full:
            self._ahead.discard(flight)
            self._short_of_memory = True
            self._asked = False  # until a load begins

    def _next_ones(self) -> Iterator[Flight]:
        return chain(self._queue.upcoming(), self._preparations.waiting)


def waits(flight: Flight) -> bool:
    """Return whether a flight's load has yet to begin."""
    return flight.phase in ("preparing", "queued")


def _names_files(flight: Flight) -> bool:
    in_place = flight.files is None or flight.files.in_place
    return in_place and flight.candidate.implementation.weight_files is not None
