"""Who wants which model: leases asked for and waited for, and the loads that follow from that."""

from __future__ import annotations

import math

from .._load.failures import again
from .._load.todo import Todo
from ..errors import (
    AnyloadError,
    ClosedError,
    ModelNotFoundError,
    ModelUnavailableError,
    QueueFullError,
)
from .failure_memory import first_line
from .house import House
from .records import Asking, Entry, Order, Purpose, Version
from .ways_out import WaysOut

PRELOAD_PRIORITY = -1000
"""What is added to the priority of a preload: every request goes before it."""

SPARE_FRAMES = 100
"""How much room on the stack there has to be for a request: more than all that follows from it."""


class Wishes:
    """Those who ask for models.

    Args:
        house: what is shared.
        ways: the leases that are granted.
        max_queued: how many requested loads may wait to start; then requests for others are
            refused.
        slots: how many loads may run at once.
    """

    def __init__(self, house: House, ways: WaysOut, max_queued: int | None, slots: int) -> None:
        self._house = house
        self._ways = ways
        self._max_queued = max_queued
        self._slots = slots

    def find(self, name: str) -> Entry:
        """Return the model of a name or alias.

        Raises:
            ModelNotFoundError: there is none.
        """
        entry = self._house.tables.entries.get(name)
        if entry is None:
            known = ", ".join(sorted(self._house.tables.entries)[:20]) or "no models"
            raise ModelNotFoundError(name, f"the catalogue has {known}")
        return entry

    def ask(self, name: str, priority: int, asking: Asking, todo: Todo) -> None:
        """Grant a lease at once, or let the asker wait for one; begins the load if there is none.

        Raises:
            ModelNotFoundError: there is no such model.
            ModelUnavailableError: it has failed, and is not to be tried yet.
            QueueFullError: too many loads wait to start.
            ClosedError: the repository is closed.
            RecursionError: the stack is nearly full.
        """
        assert self._house.process.lock.mine()
        _require_stack(SPARE_FRAMES)
        entry = self.find(name)
        if self._house.closed:
            raise ClosedError(name)
        if version := self._ways.take(name):
            asking.granted = version
            return
        self._house.counts.misses += 1
        self._want(entry, priority, "request", todo)
        entry.waiting[asking] = None
        asking.entry = entry
        self._house.rooms.look_soon()  # a preload evicts nobody, until somebody asks for it

    def preload(self, name: str, todo: Todo) -> Version:
        """Have a model loaded though nobody asks for it, at low priority; return its version.

        Raises:
            AnyloadError: as for `ask`.
            RecursionError: likewise.
        """
        assert self._house.process.lock.mine()
        _require_stack(SPARE_FRAMES)
        entry = self.find(name)
        if self._house.closed:
            raise ClosedError(name)
        if entry.current.life.phase != "active":
            self._want(entry, entry.kept.priority + PRELOAD_PRIORITY, "preload", todo)
        return entry.current

    def _want(self, entry: Entry, priority: int, purpose: Purpose, todo: Todo) -> None:
        """See to it that there is a load of a model that is not READY."""
        version = entry.current
        if version.order is not None:
            self._join(version, version.order, priority, purpose)
            # Who began the load may have been interrupted before it could call anybody to it.
            todo.worker = True
            return
        self._refuse_remembered(entry)
        if purpose == "request":
            self._refuse_overload(entry)
        if version.life.phase != "known":
            entry.current = version = entry.version(entry.config, entry.kept)
        self.order(version, priority, purpose, todo)

    def _join(self, version: Version, order: Order, priority: int, purpose: Purpose) -> None:
        version.doomed = ""
        if order.purpose == "request":
            order.purpose = purpose
        if priority > order.priority:
            order.priority = priority
            self._house.loads.hasten(order)

    def _refuse_remembered(self, entry: Entry) -> None:
        retry_after = entry.failures.retry_after(self._house.clock())
        if retry_after is not None:
            error = entry.failures.error
            assert error is not None
            after = None if retry_after == math.inf else retry_after
            raise ModelUnavailableError(entry.name, first_line(error), after) from error

    def _refuse_overload(self, entry: Entry) -> None:
        if self._max_queued is None:
            return
        orders = self._house.tables.orders
        queued = [one for one in orders if one.purpose == "request" and not one.begun]
        if len(queued) >= self._max_queued:
            known = [other.load_seconds for other in self._house.tables.entries.values()]
            known = [one for one in known if one] or [1.0]
            wait = sum(known) / len(known) * (len(queued) + 1) / self._slots
            raise QueueFullError(entry.name, len(queued), wait)

    def order(
        self,
        version: Version,
        priority: int,
        purpose: Purpose,
        todo: Todo,
        *,
        before: int | None = None,
        retry: bool = False,
    ) -> Order:
        """Have a version loaded, by the backends that are not left out now.

        What it raises leaves no load behind.
        """
        number, left_out = next(self._house.numbers), version.entry.left_out.at(self._house.clock())
        order = Order(version, number, priority, purpose, left_out, before=before, retry=retry)
        try:
            version.order = order
            self._house.tables.orders[order] = None
            self._house.move(version, "queued")
            self._house.loads.begin(order, todo)
        except BaseException as error:
            self._house.take_back(order, todo)
            self._house.move(version, "failed", f"its load could not begin: {first_line(error)}")
            raise
        return order

    def leave(self, asking: Asking, todo: Todo) -> None:
        """An asker goes, cancelled: without a lease, or giving back the one it was granted."""
        assert self._house.process.lock.mine()
        if asking.granted is not None:
            version, asking.granted = asking.granted, None
            version.out.pop()
            self._ways.given_back(version, todo)
            return
        entry = asking.entry
        if entry is None or asking not in entry.waiting:
            return
        del entry.waiting[asking]
        order = entry.current.order
        if order is None or order.begun or order.purpose != "request" or entry.waiting:
            return  # what has begun runs to its end, and is kept
        self._house.forget(order, "nobody waits for it any more", todo)

    def grant(self, entry: Entry, version: Version, todo: Todo) -> None:
        """Give those who wait their leases of a version that has just come."""
        # Here, and not when they wake up: nobody evicts it in between.
        for asking in entry.waiting:
            version.out.append(None)
            asking.granted = version
            todo.wakes.append(asking)
        entry.waiting.clear()

    def fail_waiting(self, entry: Entry, error: AnyloadError, todo: Todo) -> None:
        """Tell those who wait that they will get nothing."""
        for asking in entry.waiting:
            asking.failure = again(error)
            todo.wakes.append(asking)
        entry.waiting.clear()


def _require_stack(frames: int) -> None:
    """Raise RecursionError here, where nothing has begun, if there is no room for so many frames.

    Raised later it would leave something half done, wherever that is.
    """
    if frames:
        _require_stack(frames - 1)
