"""The front door: turns a name, a path or a config into a model that is ready to use."""

from __future__ import annotations

import os
from collections.abc import Hashable, Iterable, Mapping
from types import TracebackType
from typing import Any, Self

from ._given import require_grace, require_models, require_priority, require_timeout
from ._load.call import current_turn
from ._load.callers import Callers
from ._load.core import Core
from ._load.ending import Ending
from ._load.errands import refuse_in_errand
from ._load.figures import statistics
from ._load.flight import Turn
from ._load.inside import Inside
from ._load.plan import Plan
from ._load.process import process
from ._load.requests import Requests
from ._load.resolver import Resolver
from ._parts import hooks_of, require_admission, require_environ, require_registry
from ._setup import (
    absolute,
    extended,
    make_care,
    make_catalogue,
    make_choices,
    make_limits,
    module_variables,
    require_directories,
)
from .bulk import BulkLoad, load_many
from .config import InitializerConfig, load_config
from .contracts import Admission, Backend
from .events import Hook
from .model_config import Model
from .registry import Registry
from .reports import Statistics, StuckLoad

GRACE_SECONDS = 10.0


class Initializer:
    """Loads models, each by the first backend that can, and shares loads in flight.

    It holds no finished models. It may be used from several event loops and from plain threads
    at once. ``async with`` and ``with`` close it at the end; without them, call `aclose` or
    `close`, or let it be collected: its idle threads then end by themselves.

    Args:
        registry: the modules and backend types.
        hooks: called with every event; see `anyload.events`.
        admission: decides, beside the slots, which loads may start.
        options: the keys of the configuration, as in a file: ``backend_priority``,
            ``load_timeout``, ``max_concurrent_loads``, ...

    Raises:
        ConfigError: an option cannot be used; all problems at once.
        TypeError: the registry, a hook or the admission is not what it should be.
    """

    def __init__(
        self,
        registry: Registry,
        *,
        hooks: Iterable[Hook] = (),
        admission: Admission | None = None,
        **options: Any,
    ) -> None:
        require_registry(registry)
        config = load_config(options, known_types=registry.backend_types)
        self._set_up(registry, config, "Initializer(...)", hooks, admission)

    @classmethod
    def from_config(
        cls,
        source: str | os.PathLike[str] | Mapping[str, Any] | InitializerConfig,
        *,
        registry: Registry,
        name: str = "default",
        environ: Mapping[str, str] | None = None,
        hooks: Iterable[Hook] = (),
        admission: Admission | None = None,
        **overrides: Any,
    ) -> Self:
        """Make an initializer from a YAML file, a mapping or a built configuration.

        It blocks: it reads the file and imports the modules and backend types that it names.

        Args:
            source: the file, flat or in caikit's nested shape; or the same as a mapping.
            registry: the modules and backend types; what the configuration adds to them is
                added to a copy.
            name: which of the nested initializers to take.
            environ: the environment variables, by default those of the process.
            hooks: called with every event.
            admission: decides, beside the slots, which loads may start.
            overrides: keys that go before the environment and the file.

        Raises:
            ConfigError: the configuration cannot be used; all problems at once.
            TypeError: what is given beside it is not what it should be.
        """
        require_registry(registry)
        environ = os.environ if environ is None else environ
        require_environ(environ)
        config = load_config(
            source,
            name=name,
            environ=environ,
            overrides=overrides,
            known_types=registry.backend_types,
        )
        self = cls.__new__(cls)
        shown = os.fspath(source) if isinstance(source, (str, os.PathLike)) else "the configuration"
        self._set_up(registry, config, shown, hooks, admission)
        return self

    def _set_up(
        self,
        registry: Registry,
        config: InitializerConfig,
        source: str,
        hooks: Iterable[Hook],
        admission: Admission | None,
    ) -> None:
        hooks = hooks_of(hooks)
        require_admission(admission)
        require_directories(config, source)
        registry = extended(registry, config, source)
        self._choices = make_choices(registry, config, source)
        self._catalogue = make_catalogue(config)
        # Relative paths begin where the process was when this was made: a load that changes the
        # working directory must not change what a path means.
        self._resolver = Resolver(
            registry,
            self._choices,
            self._catalogue,
            absolute(config.model_root or os.curdir, "model_root", source),
            confined=config.model_root is not None,
            catalogue_only=config.catalogue_only,
            care=make_care(config, source),
            variables=module_variables(config),
        )
        self._core = Core(process, make_limits(config), hooks, admission)
        self._requests = Requests(self._core, self._resolver)
        self._callers = Callers(self._core)
        self._inside = Inside(self._core, self._callers)
        self._ending = Ending(self._core)

    # Loading

    async def init(
        self, model: Model, *, key: Hashable | None = None, priority: int = 0, **load_kwargs: Any
    ) -> Any:
        """Load a model and return what its ``load`` returned.

        Callers that ask for the same model at the same time share one load: the same path, load
        kwargs and config. A call after that load has ended loads anew.

        Cancelling it is immediate and does not disturb other callers of the same load. When the
        last one is cancelled, a load that is still queued never starts; one that runs is told
        through `check_cancelled`, keeps its slot until its thread leaves it, and its result, if
        there is one, is released.

        Args:
            model: a name of the catalogue, else a path of a directory with a ``config.yml``, or
                of an archive of one; or a ModelConfig.
            key: shares the load with callers that give the same key, whatever they load. It is
                text, a number, another constant, a tuple, a frozen dataclass, or an object that
                is equal only to itself.
            priority: loads of higher priority start first.
            load_kwargs: passed on to the module's ``load``.

        Raises:
            TypeError: the key is none of these, or a load kwarg has a reserved name.
            ModelNotFoundError: there is no such model.
            ConfigError: its ``config.yml`` cannot be used, or its module is not registered.
            IntegrityError: its files are not as its manifest says, or an archive is broken.
            UnsafeArchiveError: it is an archive that must not be unpacked.
            LoadError: no backend could load it; every attempt is in it.
            LoadTimeoutError: ``load_timeout`` passed.
            SaturatedError: every slot is held by a load that is past its limit.
            ReentrantLoadError: inside a load: it would wait for itself; or inside a ``prepare``,
                a ``release`` or a backend's own methods, which must wait for no load.
            ClosedError: the initializer is closed.
        """
        require_priority(priority)
        parent = current_turn()
        if parent is not None:
            # A loop that is run inside a load. It has nothing better to do than to load here:
            # the thread and the slot are the parent's.
            return self._load_inside(parent, model, key, priority, load_kwargs, None)
        refuse_in_errand(model)
        shared, begin = self._requests.for_one(model, key, priority, load_kwargs)
        return await self._callers.call(shared, begin, priority)

    def init_sync(
        self,
        model: Model,
        *,
        key: Hashable | None = None,
        priority: int = 0,
        timeout: float | None = None,
        **load_kwargs: Any,
    ) -> Any:
        """Load a model from a plain thread, or from inside another load, and return it.

        It blocks its thread; on the thread of an event loop use `init`. Inside a load it runs
        on that load's thread and slot.

        Args:
            timeout: how long this caller waits, in seconds. The other arguments are as in `init`.

        Raises:
            TimeoutError: ``timeout`` seconds have passed; the caller has left, as if cancelled.
            LoadCancelled: inside a load: that load is no longer wanted.
            AnyloadError: as in `init`.
            ValueError: ``timeout`` is no number of seconds.
        """
        require_priority(priority)
        require_timeout(timeout)
        parent = current_turn()
        if parent is not None:
            return self._load_inside(parent, model, key, priority, load_kwargs, timeout)
        refuse_in_errand(model)
        shared, begin = self._requests.for_one(model, key, priority, load_kwargs)
        return self._callers.call_sync(shared, begin, priority, timeout)

    def _load_inside(
        self,
        parent: Turn,
        model: Model,
        key: Hashable | None,
        priority: int,
        load_kwargs: dict[str, Any],
        timeout: float | None,
    ) -> Any:
        shared, begin = self._requests.for_one(model, key, priority, load_kwargs)
        return self._inside.call(parent, shared, begin(), timeout, priority)

    async def init_many(
        self,
        models: Iterable[Model],
        *,
        fail_fast: bool = False,
        priority: int = 0,
        **load_kwargs: Any,
    ) -> dict[Model, Any]:
        """Load many models, as many at once as there are slots.

        Models that are equal, or names of one real path and config, load once. Larger ones start
        first. ``load_timeout`` starts for each model when its first attempt does.

        Cancelling it leaves every load, as cancelling `init` does; what was loaded is released.

        Args:
            models: what to load; each as in `init`.
            fail_fast: raise at the first failure, and leave the other loads.
            priority: as in `init`.
            load_kwargs: passed on to every ``load``.

        Returns:
            The models, by the objects given, in the order given.

        Raises:
            TypeError: ``models`` is one model.
            BulkLoadError: some did not load; it holds those that did. Without ``fail_fast`` it
                is raised when every load has ended.
            ClosedError: the initializer is closed.
        """
        return await load_many(self._bulk(models, priority, load_kwargs), fail_fast=fail_fast)

    def init_each(
        self, models: Iterable[Model], *, priority: int = 0, **load_kwargs: Any
    ) -> BulkLoad:
        """Load many models, and yield the outcome of each as it lands.

        ::

            async with initializer.init_each(names) as outcomes:
                async for outcome in outcomes:
                    ...

        Leaving the ``async with`` block leaves what has not landed. An outcome that was yielded
        belongs to the caller; errors are in the outcomes and are not raised. Inside a load, the
        next one loads when it is asked for.

        Args:
            models: as in `init_many`.
            priority: as in `init`.
            load_kwargs: passed on to every ``load``.

        Raises:
            TypeError: ``models`` is one model.
        """
        return self._bulk(models, priority, load_kwargs)

    def _bulk(self, models: Iterable[Model], priority: int, kwargs: dict[str, Any]) -> BulkLoad:
        require_models(models)
        require_priority(priority)
        refuse_in_errand("many models")
        request = self._requests.for_bulk(priority, kwargs)
        return BulkLoad(
            self._callers, self._inside, self._resolver.spelling, request, models, priority
        )

    # Looking

    @property
    def backends(self) -> tuple[Backend, ...]:
        """The backends, in priority order."""
        return tuple(choice.backend for choice in self._choices)

    @property
    def catalogue(self) -> tuple[str, ...]:
        """The names of the configured models, in the order of the configuration."""
        return tuple(self._catalogue)

    async def plan(self, model: Model, **load_kwargs: Any) -> Plan:
        """Return which backends a model would try, and which are skipped and why; load nothing.

        Raises:
            ModelNotFoundError: there is no such model.
            ConfigError: its ``config.yml`` cannot be used, or its module is not registered.
            IntegrityError: its files are not as its manifest says, or an archive is broken.
            UnsafeArchiveError: it is an archive that must not be unpacked.
            ClosedError: the initializer is closed.
        """
        begin = self._requests.for_plan(model, load_kwargs)
        plan: Plan = await self._callers.call(None, begin, 0)
        return plan

    def statistics(self) -> Statistics:
        """Return what is going on now, and what has been done so far."""
        return statistics(self._core)

    def reconsider(self) -> None:
        """Ask the admission again about loads that it refused; any thread may call this."""
        self._core.reconsider()

    def __repr__(self) -> str:
        figures = self.statistics()
        state = " closed" if self._core.flights.closed else ""
        return (
            f"<Initializer{state} running={figures.running} queued={figures.queued} "
            f"abandoned={figures.abandoned} loaded={figures.loaded} failed={figures.failed}>"
        )

    # The end

    async def aclose(self, grace: float = GRACE_SECONDS) -> tuple[StuckLoad, ...]:
        """Close: refuse new loads, end queued ones, and let running ones finish.

        Cancelling it ends the grace at once. It may be called more than once. In a hook on a thread
        of ours, and in a module's code outside of ``load``, it begins the close and does not wait:
        that thread is one of those that have to end.

        Args:
            grace: how long running loads may take to finish, in seconds; then their callers get
                ClosedError and their threads are abandoned.

        Returns:
            The loads that were abandoned and whose threads are still running. While there are
            any, the process may not exit cleanly: see `exit_process`.
        """
        require_grace(grace)
        return await self._ending.aclose(grace)

    def close(self, grace: float = GRACE_SECONDS) -> tuple[StuckLoad, ...]:
        """Close from a plain thread; as `aclose` otherwise."""
        require_grace(grace)
        return self._ending.close(grace)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if kind is GeneratorExit:  # the coroutine was closed: it cannot wait for anything
            self._ending.at_once()
        else:
            await self.aclose()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if kind is GeneratorExit:  # nobody waits for what is after this
            self._ending.at_once()
        else:
            self.close()
