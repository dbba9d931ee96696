"""Many models at once: outcomes as they land, or all together."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

from anyio.lowlevel import checkpoint

from ._load.call import current_turn
from ._load.callers import Callers
from ._load.flight import Flight, Turn
from ._load.inside import Inside
from ._load.requests import BulkRequests, NameSeat
from ._load.waiters import AsyncSeat, current_bell
from ._reading.problems import shown
from .errors import BulkLoadError
from .model_config import Model, ModelConfig
from .reports import LoadReport

PORTION = 64
"""How many loads are begun before the loop gets a turn: about half a millisecond's worth."""


@dataclass(frozen=True, slots=True)
class LoadOutcome:
    """What came of one model of a bulk.

    Args:
        model: the object that was given.
        value: the model, or None where it did not load.
        error: why it did not load, or None where it did.
        report: every attempt, with its timing.
    """

    model: Model
    value: Any = field(repr=False)
    error: Exception | None
    report: LoadReport


class BulkSeat(NameSeat):
    """The bulk's seat in one flight."""

    __slots__ = ("bulk", "error", "models")

    def __init__(self, bulk: BulkLoad, requests: BulkRequests, models: tuple[Any, ...]) -> None:
        super().__init__(requests)
        self.bulk = bulk
        self.models = models
        # What kept it from getting a flight at all; inside a load only.
        self.error: Exception | None = None

    @property
    def failed(self) -> bool:
        """Whether it has landed without a model."""
        return self.error is not None or self.flight.failure is not None

    def wake(self) -> bool:
        """Tell the bulk that the flight has landed; return False if its loop has ended."""
        return self.bulk.has_landed(self)


class BulkLoad:
    """The outcomes of many loads, as they land: an async iterator and an async context manager.

    It is not a generator, so leaving it early needs no closing to be waited for: use it in
    ``async with``, and what has not landed by the end is left as a cancelled caller leaves it. Like
    a generator it is for one task at a time, and for one event loop: others get a RuntimeError.

    Names of one model share its load, however late it is found out that they are one. What has
    been taken by then is kept for them until the last name has been read.

    Inside a load it runs on the thread at hand, and loads the next when it is asked for the next.
    """

    def __init__(
        self,
        callers: Callers,
        inside: Inside,
        spelling: Callable[[Any], Hashable],
        requests: BulkRequests,
        models: Iterable[Model],
        priority: int,
    ) -> None:
        self._callers = callers
        self._inside = inside
        self._requests = requests
        self._priority = priority
        self.models = list(dict.fromkeys(map(_nameable, models)))
        self._to_submit = deque(_grouped(((model,) for model in self.models), spelling))
        self._grouped_by_disk = False
        self._outstanding = 0
        self._left = False
        self._seats: list[BulkSeat] = []
        self._landed: deque[BulkSeat] = deque()
        self._untaken: deque[BulkSeat] = deque()
        self._ready: deque[LoadOutcome] = deque()
        self._bell_seat: AsyncSeat | None = None
        self._rung = False
        self._awaited = False

    async def __aenter__(self) -> Self:
        if current_turn() is None:
            await self._submit()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.leave()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> LoadOutcome:
        while not self._ready:
            if not self._untaken:
                self._untaken.extend(await self.landed())
            if not self._untaken:
                raise StopAsyncIteration
            # One at a time: what is not yielded is not taken.
            self._ready.extend(self._outcomes(self._untaken.popleft()))
        return self._ready.popleft()

    async def landed(self) -> list[BulkSeat]:
        """Wait for flights to land, and return their seats, not taken yet; none after the last.

        Raises:
            RuntimeError: another task is here, or it was begun on another event loop.
        """
        if self._awaited:
            raise RuntimeError("another task waits for the next outcome of these already")
        if self._bell_seat is not None and self._bell_seat.bell is not current_bell():
            raise RuntimeError("these outcomes are for the event loop that first asked for them")
        self._awaited = True
        try:
            return await self._next_landed()
        finally:
            self._awaited = False

    async def _next_landed(self) -> list[BulkSeat]:
        parent = current_turn()
        if parent is None:
            await self._submit()
        elif self._to_submit:
            self._load_inside(parent)
        while not self._landed or self._left:
            if self._outstanding == 0:
                return []
            assert self._bell_seat is not None
            await self._bell_seat.wait()
            self._rung = False
        seats = [self._landed.popleft() for _ in range(len(self._landed))]
        self._outstanding -= len(seats)
        return seats

    def take(self, seats: Sequence[BulkSeat]) -> Iterator[tuple[BulkSeat, Any, Exception | None]]:
        """Take the results of flights that have landed: of each its model, or its error."""
        for start in range(0, len(seats), PORTION):
            portion = seats[start : start + PORTION]
            results = self._callers.take_all([seat for seat in portion if seat.error is None])
            taken = iter(results)
            for seat in portion:
                yield (seat, *next(taken)) if seat.error is None else (seat, None, seat.error)

    def _outcomes(self, seat: BulkSeat) -> list[LoadOutcome]:
        self._requests.keep(seat)
        ((_, value, error),) = self.take([seat])
        report = seat.flight.report()
        return [LoadOutcome(model, value, error, report) for model in seat.models]

    def leave(self) -> None:
        """Go without the outcomes that were not taken."""
        self._left = True  # what lands from now on is nothing to us
        seats, self._seats = self._seats, []
        self._to_submit.clear()
        self._landed.clear()
        self._untaken.clear()
        self._outstanding = 0
        self._requests.leave()
        for seat in seats:
            if seat.count:  # not taken yet
                self._callers.leave(seat)

    def has_landed(self, seat: BulkSeat) -> bool:
        """Take note of a flight that has landed; any thread may call this."""
        self._requests.landed(seat)
        self._landed.append(seat)
        assert self._bell_seat is not None
        if self._rung and not self._bell_seat.bell.ended:
            return True
        # Two threads may both get here and both ring, which does no harm.
        self._rung = True
        if self._bell_seat.wake():
            return True
        self._rung = False  # so that the next one hears of it too
        return False

    async def _submit(self) -> None:
        if not self._to_submit:
            return
        self._bell_seat = AsyncSeat(bell := current_bell())
        try:
            while self._to_submit:
                bell.protected(BulkLoad._join_some)(self)
                if self._to_submit:
                    await checkpoint()
        except BaseException:
            self.leave()
            raise

    def _join_some(self) -> None:
        requests = [self._next() for _ in range(min(PORTION, len(self._to_submit)))]
        self._callers.join_all(requests, self._priority)
        self._seats += [seat for _, _, seat in requests]
        self._outstanding += len(requests)
        self._requests.joined(requests)

    def _next(self) -> tuple[Hashable | None, Flight, BulkSeat]:
        models = self._to_submit.popleft()
        return self._requests.request(models[0], BulkSeat(self, self._requests, models))

    def _load_inside(self, parent: Turn) -> None:
        """Load the next one on the thread of the load that this loop is run in."""
        try:
            if not self._grouped_by_disk:
                # This thread may block, so it is known from the start which names are one model.
                self._grouped_by_disk = True
                self._to_submit = deque(_grouped(self._to_submit, self._requests.real_key))
            key, begun, seat = self._next()
            seat.flight = begun
            try:
                inner = self._inside.load(parent, key, begun, None, self._priority)
                seat.flight = inner.flight
            except Exception as error:
                seat.error = error
                seat.count = 0
                if not begun.settled_at:  # it never took off
                    begun.settled_at = begun.created
        except BaseException:
            self.leave()
            raise
        self._requests.landed(seat)
        self._seats.append(seat)
        self._landed.append(seat)
        self._outstanding += 1


def _nameable(model: Model) -> Model:
    """Return what is one model of many; a list of lists is not what somebody meant."""
    if not isinstance(model, str | os.PathLike | ModelConfig):
        raise TypeError(f"a model is a name, a path or a ModelConfig, not {shown(model)}")
    return model


def _grouped(
    groups: Iterable[tuple[Any, ...]], key_of: Callable[[Any], Hashable | None]
) -> Iterable[tuple[Any, ...]]:
    """Join the groups whose first models have equal keys; None is equal to nothing."""
    joined: dict[Hashable, tuple[Any, ...]] = {}
    for group in groups:
        key = key_of(group[0])
        key = group[0] if key is None else key
        joined[key] = (*joined.get(key, ()), *group)
    return joined.values()


async def load_many(bulk: BulkLoad, *, fail_fast: bool) -> dict[Any, Any]:
    """Load all models of a bulk; see `Initializer.init_many`."""
    # Nothing is taken before the end, so that what did load is released, and not lost, where
    # this is cancelled on the way.
    landed: list[BulkSeat] = []
    failed = False
    try:
        while not (failed and fail_fast) and (seats := await bulk.landed()):
            failed = failed or any(seat.failed for seat in seats)
            landed += seats
    except BaseException:
        bulk.leave()
        raise
    # In the order given; no model is None.
    models: dict[Any, Any] = dict.fromkeys(bulk.models)
    errors: dict[Any, Exception] = {}
    for seat, value, error in bulk.take(landed):
        if error is None:
            models.update(dict.fromkeys(seat.models, value))
        else:
            errors.update(dict.fromkeys(seat.models, error))
    bulk.leave()
    if not failed:
        return models
    failures = {model: errors[model] for model in models if model in errors}
    models = {model: value for model, value in models.items() if value is not None}
    left = len(bulk.models) - len(models) - len(failures)
    also = f"; {left} {'was' if left == 1 else 'were'} left" if left else ""
    raise BulkLoadError(
        f"{len(failures)} of {len(bulk.models)} models did not load{also}",
        list(failures.values()),
        models,
        failures,
    )
