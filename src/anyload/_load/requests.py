"""From what a caller asks for to a key and a flight, before anything is read."""

from __future__ import annotations

import contextvars
import os
from collections.abc import Callable, Hashable, Mapping
from typing import Any

from ..model_config import Model, ModelConfig
from ..registry import RESERVED
from .core import Core
from .flight import Flight, Resolved
from .keys import Unshareable, freeze_mapping
from .resolver import Resolver

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
        """Return the request of one call of ``init``."""
        if kwargs:
            _refuse_reserved(kwargs)
        shared = ("given", key, None) if key is not None else _spelled_key(model, kwargs)

        def begin() -> Flight:
            context = contextvars.copy_context()
            flight = self._flight(model, kwargs, context, priority, shared=key is None)
            return self._resolved_at_once(flight, model)

        return shared, begin

    def for_bulk(self, priority: int, kwargs: dict[str, Any]) -> Callable[[Model], Request]:
        """Return what makes the request of each model of one bulk."""
        _refuse_reserved(kwargs)
        context, batch = contextvars.copy_context(), self._core.flights.new_batch()

        def request(model: Model) -> Request:
            def begin() -> Flight:
                flight = self._flight(model, kwargs, context, priority, batch=batch)
                flight.clock_from_dispatch = True
                return self._resolved_at_once(flight, model)

            return _spelled_key(model, kwargs), begin

        return request

    def for_plan(self, model: Model, kwargs: dict[str, Any]) -> Begin:
        """Return what begins a flight that ends with the plan of a model."""

        def begin() -> Flight:
            flight = self._flight(model, kwargs, contextvars.copy_context(), shared=False)
            flight.plan_only = True
            return flight

        return begin

    def _flight(
        self,
        model: Model,
        kwargs: dict[str, Any],
        context: contextvars.Context,
        priority: int = 0,
        *,
        batch: int | None = None,
        shared: bool = True,
    ) -> Flight:
        flights = self._core.flights
        flight = Flight(
            self._resolver.label(model),
            kwargs,
            context,
            self._core.clock(),
            priority,
            flights.new_batch() if batch is None else batch,
        )

        def resolve() -> Resolved:
            return self._resolver.resolve(model, kwargs, shared)

        flight.resolve = resolve
        return flight

    def _resolved_at_once(self, flight: Flight, model: Model) -> Flight:
        """Spare a flight the way over a reader thread, if its model needs nothing from disk."""
        found = self._resolver.at_once(model) if isinstance(model, ModelConfig) else None
        if found is not None:
            flight.config, flight.plan, flight.resolve = found.config, found.plan, None
        return flight


def _spelled_key(model: Model, kwargs: Mapping[str, Any]) -> Hashable | None:
    """Return the key of a load as its caller spells it; resolving may find one that says more."""
    if isinstance(model, ModelConfig):
        if model.model_path is None:
            return None
        name: Hashable = model
    else:
        name = model if isinstance(model, str) else (os.fspath(model), "path")
    if not kwargs:
        return name
    try:
        return name, freeze_mapping(kwargs)
    except Unshareable:
        return None


def _refuse_reserved(kwargs: Mapping[str, Any]) -> None:
    for name in (*RESERVED, "load_backend"):
        if name in kwargs:
            raise TypeError(f"{name!r} is a reserved name and cannot be passed to load")
