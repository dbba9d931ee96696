"""The initializer that takes the place of caikit's ``LOCAL``."""

from __future__ import annotations

import contextvars
import os
from collections.abc import Callable, Hashable, Mapping
from typing import Any
from weakref import ref

import aconfig
from caikit.core import ModuleBase, ModuleConfig
from caikit.core.model_management.local_model_initializer import LocalModelInitializer, error
from caikit.core.module_backends import backend_types
from caikit.core.registries import module_backend_registry

from .._load.call import current_turn
from .._load.callers import Callers
from .._load.core import Core
from .._load.flight import Flight, Known, Resolved, Turn
from .._load.inside import Inside
from .._load.keys import Unshareable, freeze, freeze_mapping
from .._load.plan import Candidate, Choice, Plan, Skip
from .._load.process import process
from ..errors import LoadError
from ..model_config import ModelConfig
from ._found import Find
from ._modules import CaikitBackend, CaikitImplementation, Loaded
from ._options import BackendLimits, Options, read_limits, read_options
from ._raising import raise_again


class AnyloadInitializer(LocalModelInitializer):  # type: ignore[misc]  # caikit has no types
    """Loads as ``LocalModelInitializer`` does, with what the options add.

    With no key set in its ``config`` but caikit's, `init` is caikit's own, for modules that
    declare no exclusive group and do not hold the GIL. Else it loads in worker threads, by the
    same rules. `Options` and `BackendLimits` are the keys.

    Args:
        config: the ``config`` of its section in ``model_management.initializers``.
        instance_name: the name of that section.

    Raises:
        ValueError: caikit's own, for ``backend_priority``.
        ConfigError: a key that is ours cannot be used.
    """

    name = "ANYLOAD"

    def __init__(self, config: aconfig.Config, instance_name: str) -> None:
        super().__init__(config, instance_name)
        source = f"model_management.initializers.{instance_name}.config"
        self._options = read_options(config, source)
        entries = config.get("backend_priority") or [{}] * len(self._backends)
        limits = [read_limits(entry, place, source) for place, entry in enumerate(entries)]
        self._asks_for_nothing = self._options == Options() and all(
            limit == BackendLimits() for limit in limits
        )
        self._choices = [
            Choice(CaikitBackend(backend), limit.timeout, limit.stall_timeout)
            for backend, limit in zip(self._backends, limits, strict=True)
        ]
        self._backend_types = {backend.backend_type for backend in self._backends}
        self._implementations: dict[tuple[str, str, type], CaikitImplementation] = {}
        self._core = Core(process, self._options.limits())
        self._callers = Callers(self._core)
        self._inside = Inside(self._core, self._callers)

    def init(self, model_config: ModuleConfig, **kwargs: Any) -> ModuleBase | None:
        """Load a model from a plain thread, or from inside another load, and return it.

        Args:
            model_config: what a finder has found.
            kwargs: passed on to the module's ``load``.

        Returns:
            The model; None where no backend of the priority list has an implementation of the
            module that can load it.

        Raises:
            BaseException: what the module's ``load`` raised, as it was raised; where the load is
                shared, a copy for each caller, if its class allows that.
            LoadError: with ``on_error: next``, or where a limit has passed: every attempt.
        """
        module_id = model_config.module_id
        if self._asks_for_nothing and not self._declares_resources(module_id):
            # The caller's own thread has locks, context and imports in progress that a load may
            # count on; and nothing is asked for here that caikit itself does not do.
            return super().init(model_config, **kwargs)
        path = model_config.model_path  # caikit asks for it whatever comes of the plan
        plan = self._plan(model_config)
        if not plan.candidates:
            return None
        key = self._shared_key(model_config, kwargs)

        def begin() -> Flight:
            # A finder may have put anything there, even what has no text.
            flight = self._flight(path if isinstance(path, str) else str(module_id), kwargs)
            flight.config, flight.plan = _carrying(model_config), plan
            return flight

        parent = current_turn()
        try:
            if parent is not None:
                return self._load_inside(parent, key, begin)
            loaded: Loaded = self._callers.call_sync(key, begin, 0)
            return loaded.model
        except LoadError as failure:
            raised = self._raised_by_load(failure)
            if raised is None:
                raise
        try:
            raise_again(raised, shared=key is not None)
        finally:
            del raised  # it leads to this frame, so this would be a cycle

    async def load(
        self,
        model: str,
        key: Hashable | None,
        find: Find,
        kwargs: dict[str, Any],
    ) -> ModuleBase:
        """Find a model in a reader thread, load it in a worker, and return it; see `load`.

        Args:
            model: the model, as its caller spells it.
            key: what is equal for all who may share this, before it is found; None for nobody.
            find: finds it; it may block, and what it raises is raised.
            kwargs: passed on to the module's ``load``.
        """

        def begin() -> Flight:
            flight = self._flight(model, kwargs)
            flight.resolve = self._finding(flight, find)
            return flight

        parent = current_turn()
        try:
            if parent is not None:
                return self._load_inside(parent, key, begin)
            loaded: Loaded = await self._callers.call(key, begin, 0)
            return loaded.model
        except LoadError as failure:
            raised = self._raised_by_load(failure)
            if not isinstance(raised, Exception) or isinstance(raised, StopIteration):
                raise  # it would end the server, or pass for the cancelling of this very caller
        try:
            raise_again(raised, shared=key is not None or self._options.share)
        finally:
            del raised  # it leads to this frame, so this would be a cycle

    def _load_inside(
        self, parent: Turn, key: Hashable | None, begin: Callable[[], Flight]
    ) -> ModuleBase:
        loaded: Loaded = self._inside.call(parent, key, begin(), None, 0)
        return loaded.model

    def _flight(self, model: str, kwargs: Mapping[str, Any]) -> Flight:
        core = self._core
        context = contextvars.copy_context()
        return Flight(model, kwargs, context, core.clock(), 0, core.flights.new_batch())

    def _finding(self, flight: Flight, find: Find) -> Callable[[], Resolved | Known]:
        """Return what a reader thread calls."""
        finding = ref(flight)  # it holds what is returned here, so this would be a cycle

        def resolve() -> Resolved | Known:
            found = find()
            flight = finding()
            assert flight is not None
            if isinstance(found, Known):
                return found
            plan = self._plan(found.config)
            error.value_check(
                "<COR50207494E>",
                plan.candidates,
                "Unable to load model from {} with MODULE_ID {}",
                found.place,
                plan.module_id,
            )
            carrying, singleton = _carrying(found.config, found.files), found.singleton
            if singleton is None:
                return Resolved(carrying, plan, self._shared_key(found.config, flight.kwargs), 0)
            flight.landed = singleton.keep
            return Resolved(carrying, plan, singleton.key, 0, singleton.known)

        return resolve

    def _plan(self, model_config: ModuleConfig) -> Plan:
        """Return which backends a model will be tried on, by caikit's rules."""
        module_id = model_config.module_id
        registered = module_backend_registry().get(module_id, {})
        made_with = model_config.get("model_backend", backend_types.LOCAL)
        steps: list[Candidate | Skip] = []
        for choice in self._choices:
            backend_type = choice.backend.backend_type
            entry = registered.get(backend_type)
            if entry is None:
                steps.append(Skip(backend_type, f"module {module_id!r} is not implemented for it"))
            elif made_with not in self._get_supported_load_backends(entry.impl_class):
                reason = f"{entry.impl_class.__name__} cannot load models made with {made_with}"
                steps.append(Skip(backend_type, reason))
            else:
                implementation = self._implementation(module_id, backend_type, entry.impl_class)
                steps.append(Candidate(choice, implementation))
                if self._options.on_error == "raise":
                    break  # no other backend is tried, so no other class is looked at
        return Plan(module_id, tuple(steps), (Loaded,))

    def _declares_resources(self, module_id: str) -> bool:
        """Return whether a class of a module says that its loads must be kept apart."""
        entries = module_backend_registry().get(module_id, {})
        return any(
            self._implementation(module_id, backend_type, entry.impl_class).resources
            for backend_type in self._backend_types
            if (entry := entries.get(backend_type)) is not None
        )

    def _implementation(
        self, module_id: str, backend_type: str, module: type
    ) -> CaikitImplementation:
        known = self._implementations.get((module_id, backend_type, module))
        if known is None:
            group = self._options.exclusive_groups.get(module_id)
            known = CaikitImplementation.of_class(
                module, module_id, backend_type, group, self._options.argument, self._supports_arg
            )
            self._implementations[module_id, backend_type, module] = known
        return known

    def _shared_key(self, model_config: ModuleConfig, kwargs: Mapping[str, Any]) -> Hashable | None:
        """Return what is equal for loads that may be one; None where they may not."""
        path = model_config.model_path
        if not (self._options.share and isinstance(path, str) and path):
            return None
        if not isinstance(model_config, Mapping):  # what it says cannot be compared
            return None
        try:
            content = freeze(_plain({**model_config, "model_path": None}))
            return "model", os.path.realpath(path), content, freeze_mapping(kwargs)
        except (Unshareable, ValueError):
            return None

    def _raised_by_load(self, failure: LoadError) -> BaseException | None:
        """Return what the load raised, where that is what caikit lets out."""
        if self._options.on_error == "next" or not failure.attempts:
            return None
        last = failure.attempts[-1]
        return last.error if last.outcome in ("raised", "cancelled") else None


def _carrying(model_config: ModuleConfig, files: object = None) -> ModelConfig:
    """Return a config that brings a caikit config, and its files, to where the module is called."""
    return ModelConfig(model_config.module_id, model_config=model_config, files=files)


def _plain(value: Any) -> Any:
    """Return what is made of mappings and lists as dicts and lists, so that it can be a key."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list) else value
