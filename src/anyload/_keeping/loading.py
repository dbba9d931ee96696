"""Loads and releases for the keeper, by way of an initializer.

A caller of `Initializer.init` is a task that waits, and may be cancelled. The repository is no
task: it takes a seat in a flight and is told, on whichever thread is at hand, when the flight has
landed. So a load is the repository's, however many of those who asked for it have gone.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from typing import Any

from .._load.core import Transition
from .._load.flight import Flight, Known, Resolved
from .._load.releases import Release
from .._load.todo import Todo
from ..contracts import Admission
from ..errors import AnyloadError, ModelNotFoundError
from ..initializer import Initializer
from ..model_config import ModelConfig
from .failure_memory import is_permanent
from .files import stamp_of_files
from .house import House
from .keeper import Keeper
from .records import Order, Version
from .ways_out import WaysOut


class OrderSeat:
    """The repository's seat in the flight of one load."""

    __slots__ = ("_landed", "count", "flight", "lost", "order")

    def __init__(self, order: Order, flight: Flight, landed: Callable[[OrderSeat], None]) -> None:
        self._landed = landed
        self.order = order
        self.flight = flight
        self.count = 1
        self.lost = False

    def wake(self) -> bool:
        """Take the outcome, on the thread that has brought it."""
        self._landed(self)
        return True


class Farewell(Release):
    """The release of a version that the repository has kept."""

    __slots__ = ("_gone", "_version")

    def __init__(self, version: Version, gone: Callable[[Version], None]) -> None:
        value, version.value = version.value, None
        super().__init__(version.entry.name, version.candidate, value)
        self._version = version
        self._gone = gone

    def run(self) -> None:
        """Release it; whatever that comes to, it is gone then."""
        try:
            super().run()
        finally:
            self._gone(self._version)


class Asked(Admission):
    """The repository as the admission of its initializer: it tells the loads apart by config.

    Args:
        house: what is shared.
        keeper: hears of what starts.
    """

    def __init__(self, house: House, keeper: Keeper) -> None:
        self._house = house
        self._keeper = keeper
        self._orders: dict[ModelConfig, Order] = {}

    def expect(self, order: Order) -> None:
        """Take note of a load that is to come."""
        self._orders[order.config] = order

    def forget(self, order: Order) -> None:
        """Forget a load, unless one of its threads has yet to leave."""
        if not order.threads:
            self._orders.pop(order.config, None)

    def may_start(self, config: ModelConfig, size: int) -> bool:
        """Return whether there is memory for a load; one that it does not know is nested."""
        order = self._orders.get(config)
        return order is None or self._house.rooms.may_start(order, size)

    def started(self, config: ModelConfig, size: int) -> None:
        """A load takes its memory. One inside another is part of that: its memory is too."""
        order = self._orders.get(config)
        if order is not None:
            untouched = order.seat.flight.files is None
            self._keeper.started(order, "loading" if untouched else "fetching")

    def ended(self, config: ModelConfig, size: int) -> None:
        """A thread has left a load."""
        order = self._orders.get(config)
        if order is not None:
            self._house.rooms.ended(order)
            if order not in self._house.tables.orders:
                self.forget(order)


class InitializerLoads:
    """What loads and releases for the keeper.

    Args:
        initializer: loads; its admission is `asked`.
        step: begins a transition.
        asked: has to know of every load.
        house: what is shared.
        keeper: is told what came of loads.
        ways: is told what has gone.
    """

    def __init__(
        self,
        initializer: Initializer,
        step: Callable[[], Transition],
        asked: Asked,
        house: House,
        keeper: Keeper,
        ways: WaysOut,
    ) -> None:
        self._core = initializer._core
        self._callers = initializer._callers
        self._requests = initializer._requests
        self._step = step
        self._asked = asked
        self._house = house
        self._keeper = keeper
        self._ways = ways

    def begin(self, order: Order, todo: Todo) -> None:
        """Have a version loaded, in a flight that nobody else finds."""
        key, begin = self._requests.for_one(order.config, order, order.priority, {})
        flight = begin()
        flight.model = order.version.entry.name  # not its path
        if flight.resolve is not None:
            flight.resolve = partial(_existing, flight.resolve, flight.model, order)
        else:
            assert flight.plan is not None
            flight.plan = flight.plan.narrowed(order.left_out, order.before)
        flight.discarded = partial(self._discarded, order)
        flight.at = partial(self._keeper.reached, order)
        order.seat = OrderSeat(order, flight, self._landed)
        self._asked.expect(order)
        self._callers.sit(key, flight, order.seat, order.priority, todo)

    def hasten(self, order: Order) -> None:
        """Let a load go earlier."""
        self._core.flights.raise_priority(order.seat.flight, order.priority)

    def leave(self, order: Order, todo: Todo) -> None:
        """Forget a load that has not begun, or that could not."""
        seat = order.seat
        # What was interrupted before its flight was opened has nothing to leave.
        if seat is not None and seat.flight in self._core.flights.live:
            seat.count -= 1
            self._core.flights.leave(seat.flight, 1, todo)
        self._forget(order)

    def release(self, version: Version, todo: Todo) -> None:
        """Have a version released, by a worker of the initializer, under its module's group."""
        self._core.flights.releases.queued.append(Farewell(version, self._gone))
        todo.worker = True

    def ask_again(self, todo: Todo) -> None:
        """Have the initializer ask about every load that it was not let start."""
        self._core.flights.queue.ask_again()
        todo.worker = True

    def later(self, call: Callable[[Todo], None]) -> None:
        """Call this in a transition of its own, as soon as this one is over."""

        def soon() -> None:
            with self._step() as todo, self._core.lock:
                call(todo)

        self._core.lock.put_off(soon)

    def _discarded(self, order: Order) -> Callable[[], None]:
        """A late model is on its way out: it counts until it is gone."""
        late = object()
        self._house.rooms.late(late, order)
        return partial(self._house.rooms.gone, late)

    def _landed(self, seat: OrderSeat) -> None:
        order = seat.order
        with self._step(), self._core.lock:
            if order.left:
                return
            order.landing = True  # nobody leaves it from here on
        ((value, error),) = self._callers.take_all([seat])
        if error is not None and is_permanent(error):
            order.changed = order.stamp != stamp_of_files(order.config)
        with self._step() as todo, self._core.lock:
            self._settle(order, seat.flight, value, error, todo)
            self._forget(order)

    def _settle(
        self, order: Order, flight: Flight, value: Any, error: Exception | None, todo: Todo
    ) -> None:
        if error is None:
            report, plan = flight.report(), flight.plan
            assert plan is not None
            improvable = plan.improvable(len(report.attempts) - 1)
            self._keeper.landed(order, value, flight.candidate, report, todo, improvable=improvable)
        else:
            assert isinstance(error, AnyloadError)
            self._keeper.failed(order, error, todo)

    def _forget(self, order: Order) -> None:
        self._asked.forget(order)
        order.seat = None  # its flight leads back to the order, so this would be a cycle

    def _gone(self, version: Version) -> None:
        with self._step() as todo, self._core.lock:
            self._ways.released(version, todo)


def _existing(resolve: Callable[[], Resolved | Known], name: str, order: Order) -> Resolved:
    """Read a model in a reader thread, unless there is nothing: what a catalogue names has to be.

    Raises:
        ModelNotFoundError: there is nothing at its path.
    """
    order.stamp = stamp_of_files(order.config)
    path = order.config.model_path
    if path is not None:
        try:
            os.lstat(path)
        except (FileNotFoundError, NotADirectoryError, ValueError) as error:
            raise ModelNotFoundError(name, f"there is no {path}") from error
        except OSError as error:
            raise ModelNotFoundError(name, f"{path}: {error.strerror}") from error
    found = resolve()
    assert isinstance(found, Resolved)  # nobody else has it loaded already
    found.plan = found.plan.narrowed(order.left_out, order.before)
    return found
