"""From what a caller asks for to a key and a flight, before anything is read."""

from __future__ import annotations

import contextvars
from collections.abc import Callable, Hashable, Iterable, Mapping
from typing import Any, TypeVar
from weakref import ref

from .._registration import RESERVED
from ..errors import AnyloadError, LoadCancelled, ModelNotFoundError, describe
from ..model_config import Model, ModelConfig
from .core import Core
from .flight import Flight, Resolved
from .keys import Itself, Unshareable, freeze_given, freeze_mapping
from .resolver import Resolver, name_of
from .todo import Todo

Begin = Callable[[], Flight]
Request = tuple[Hashable | None, Begin]
"""The key by which others find the load, None where it is not shared; and what begins it."""


class Requests:
    """Makes the requests of one initializer.

    Args:
        core: the core of the initializer.
        resolver: what finds its models.
    """

    def __init__(self, core: Core, resolver: Resolver) -> None:
        self._core = core
        self._resolver = resolver

    def for_one(
        self, model: Model, key: Hashable | None, priority: int, kwargs: dict[str, Any]
    ) -> Request:
        """Return the request of one call of ``init``.

        Raises:
            TypeError: a load kwarg has a reserved name, or the key cannot be one.
        """
        if kwargs:
            _refuse_reserved(kwargs)
        shared = _spelled_key(model, kwargs) if key is None else ("given", freeze_given(key), None)

        def begin() -> Flight:
            context = contextvars.copy_context()
            flight = self.flight(model, kwargs, context, priority)
            return self.to_resolve(flight, model, kwargs, shared=key is None)

        return shared, begin

    def for_bulk(self, priority: int, kwargs: dict[str, Any]) -> BulkRequests:
        """Return what makes the requests of one bulk.

        Raises:
            TypeError: a load kwarg has a reserved name.
        """
        _refuse_reserved(kwargs)
        return BulkRequests(self._core, self, self._resolver, priority, kwargs)

    def for_plan(self, model: Model, kwargs: dict[str, Any]) -> Begin:
        """Return what begins a flight that ends with the plan of a model."""

        def begin() -> Flight:
            flight = self.flight(model, kwargs, contextvars.copy_context(), 0)
            flight.loads_nothing = True
            flight.resolve = self._reading(flight, model, {}, shared=False)
            return flight

        return begin

    def flight(
        self,
        model: Model,
        kwargs: dict[str, Any],
        context: contextvars.Context,
        priority: int,
        batch: int | None = None,
    ) -> Flight:
        """Return a flight that has yet to learn what its model is; see `to_resolve`."""
        return Flight(
            self._resolver.label(model),
            kwargs,
            context,
            self._core.clock(),
            priority,
            self._core.flights.new_batch() if batch is None else batch,
        )

    def to_resolve(
        self, flight: Flight, model: Model, kwargs: Mapping[str, Any], *, shared: bool
    ) -> Flight:
        """Have a flight resolved: here, if its model needs nothing from disk, else by a reader."""
        if isinstance(model, ModelConfig):
            flight.config, flight.plan = model, self._resolver.plan_at_once(model)
        if flight.plan is None:
            flight.resolve = self._reading(flight, model, kwargs, shared)
            flight.reads = self._resolver.reads(model, flight.model)
        return flight

    def _reading(
        self, flight: Flight, model: Model, kwargs: Mapping[str, Any], shared: bool
    ) -> Callable[[], Resolved]:
        """Return what a reader thread calls."""
        reading = ref(flight)  # it holds what is returned here, so this would be a cycle

        def resolve() -> Resolved:
            flight = reading()
            assert flight is not None
            try:
                found = self._resolver.resolve(
                    model, kwargs, shared=True, between=lambda: _require_wanted(flight)
                )
            except AnyloadError:
                raise
            except Exception as error:
                # A path object of the caller's may raise anything, and so may a machine that has
                # no file descriptors left.
                raise ModelNotFoundError(flight.model, describe(error)) from error
            if found.key is not None:
                self._tell(flight, found.key)
            if not shared:
                found.key = None
            return found

        return resolve

    def _tell(self, flight: Flight, key: Hashable) -> None:
        """Let the bulks that wait for a flight look whether they have its model already."""
        flight.read_key = key  # first: a bulk that comes now misses the look, and sees this
        seats = [seat for seat in flight.seats if isinstance(seat, NameSeat)]
        if not seats:
            return
        with self._core.transition() as todo, self._core.lock:
            for seat in seats:
                seat.requests.found(seat, (key,), todo)
        for seat in seats:
            seat.requests.is_read(seat)


class NameSeat:
    """The seat of one name of a bulk, which may move to the flight of another name.

    Args:
        requests: the requests of the bulk.
    """

    __slots__ = ("count", "flight", "lost", "requests")

    flight: Flight

    def __init__(self, requests: BulkRequests) -> None:
        self.requests = requests
        self.count = 1
        self.lost = False

    def wake(self) -> bool:
        """Tell the bulk that the flight has landed; return False if its loop has ended."""
        raise NotImplementedError  # pragma: no cover  # only its subclass is seated


S = TypeVar("S", bound=NameSeat)


class BulkRequests:
    """The requests of one bulk, in which a model loads once, whatever names it has.

    A load that has ended is shared with nobody who comes later. In a bulk nobody comes later: a
    name that turns out, when it is read, to be a model that the bulk has under another name moves
    to that one's flight, be it over or not, and takes what came of it.

    Args:
        core: the core of the initializer.
        requests: makes the flights.
        resolver: what finds the models.
        priority: higher goes first.
        kwargs: the load kwargs of all of them.
    """

    def __init__(
        self,
        core: Core,
        requests: Requests,
        resolver: Resolver,
        priority: int,
        kwargs: dict[str, Any],
    ) -> None:
        self._core = core
        self._requests = requests
        self._resolver = resolver
        self._priority = priority
        self._kwargs = kwargs
        self._context = contextvars.copy_context()
        self._batch = core.flights.new_batch()
        self._shared = _can_be_a_key(kwargs)
        # The first seat of each model, the seats whose model is not known yet, and what was taken
        # that may turn out to be the model of one of these.
        self._first: dict[Hashable, NameSeat] = {}
        self._unread: set[NameSeat] = set()
        self._taken: dict[NameSeat, Any] = {}

    def request(self, model: Model, seat: S) -> tuple[Hashable | None, Flight, S]:
        """Return the key of a model, the flight to begin if the key has none, and the seat."""
        flight = self._requests.flight(
            model, self._kwargs, self._context, self._priority, self._batch
        )
        flight.clock_from_dispatch = True
        # In a bulk the load kwargs are the same, even where they cannot be a part of a key.
        kwargs = self._kwargs if self._shared else {}
        self._requests.to_resolve(flight, model, kwargs, shared=self._shared)
        if flight.resolve is not None:
            self._unread.add(seat)
        return _spelled_key(model, self._kwargs), flight, seat

    def joined(self, requests: Iterable[tuple[Hashable | None, Flight, NameSeat]]) -> None:
        """Take note of seats that were taken in flights which others had begun, and had read."""
        for _, begun, seat in requests:
            if begun.resolve is None:
                continue
            if seat.flight.phase != "resolving":
                self.landed(seat)
            elif (key := seat.flight.read_key) is not None:
                self._know(seat, (key,))

    def landed(self, seat: NameSeat) -> None:
        """Take note of a flight that has landed; any thread may call this."""
        if seat in self._unread:
            self._know(seat, seat.flight.keys)

    def _know(self, seat: NameSeat, keys: Iterable[Hashable]) -> None:
        with self._core.transition() as todo, self._core.lock:
            self.found(seat, keys, todo)
        self.is_read(seat)

    def found(self, seat: NameSeat, keys: Iterable[Hashable], todo: Todo) -> None:
        """Move a seat to the flight of the bulk's first seat of these keys, if there is another."""
        assert self._core.lock.mine()
        flight = seat.flight
        for key in keys:
            first = self._first.setdefault(key, seat)
            other = first.flight
            # Else it has moved already, or has landed, or was left.
            if other is not flight and seat.count and seat in flight.seats:
                flight.seats = tuple(stays for stays in flight.seats if stays is not seat)
                # A flight that nobody else waits for was no load: it is not counted as cancelled.
                flight.loads_nothing = flight.waiting == 1 and flight.phase == "resolving"
                self._core.flights.leave(flight, 1, todo)
                self._sit(seat, first, todo)
                return

    def _sit(self, seat: NameSeat, first: NameSeat, todo: Todo) -> None:
        flight = seat.flight = first.flight
        flight.waiting += 1
        if flight.phase != "settled":
            flight.seats = (*flight.seats, seat)
            return
        if flight.value is None:
            flight.value = self._taken.get(first)
        todo.wakes.append(seat)

    def keep(self, seat: NameSeat) -> None:
        """Remember what is about to be taken, if a name that is not read yet may be the same."""
        if self._unread:
            self._taken[seat] = seat.flight.value
            self.is_read(seat)

    def leave(self) -> None:
        """Forget what was taken."""
        self._unread.clear()
        self._taken.clear()

    def real_key(self, model: Model) -> Hashable | None:
        """Return what is equal for all names of a model, None if there is no telling; it blocks."""
        if isinstance(model, ModelConfig) and model.model_path is None:
            return None
        try:
            return self._resolver.resolve(model, {}, shared=True).key
        except Exception:  # the load meets it too, and says so
            return None

    def is_read(self, seat: NameSeat) -> None:
        """Take note that the model of a name is known, or is not needed."""
        self._unread.discard(seat)
        if not self._unread:
            # Not under the lock: what a model does when it goes is its own affair.
            self._taken.clear()


def _spelled_key(model: Model, kwargs: Mapping[str, Any]) -> Hashable | None:
    """Return the key of a load as its caller spells it; resolving may find one that says more."""
    if isinstance(model, ModelConfig):
        if model.model_path is None:
            return None
        name: Hashable = Itself(model)
    elif isinstance(model, str):
        name = model if type(model) is str else str.__str__(model)  # a StrEnum, for example
    else:
        name = name_of(model), "path"
    if not kwargs:
        return name
    try:
        return name, freeze_mapping(kwargs)
    except Unshareable:
        return None


def _require_wanted(flight: Flight) -> None:
    if flight.phase == "settled":  # read without the lock: soon is soon enough
        raise LoadCancelled("nobody waits for it")


def _refuse_reserved(kwargs: Mapping[str, Any]) -> None:
    for name in (*RESERVED, "load_backend"):
        if name in kwargs:
            raise TypeError(f"{name!r} is a reserved name and cannot be passed to load")


def _can_be_a_key(kwargs: Mapping[str, Any]) -> bool:
    try:
        freeze_mapping(kwargs)
    except Unshareable:
        return False
    return True
