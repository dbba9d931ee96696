"""The repository: models by name, kept in memory, leased, and fitted into a budget."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from types import TracebackType
from typing import Any, Self

from anyio import move_on_after

from ._given import (
    require_drain_timeout,
    require_error,
    require_grace,
    require_models,
    require_name,
    require_priority,
    require_sizes,
    require_timeout,
)
from ._keeping import closing
from ._keeping.budget import Sizes
from ._keeping.catalogue import Catalogue, CatalogueChange
from ._keeping.core import KeepingCore
from ._keeping.eviction import EvictionPlan
from ._keeping.failure_memory import first_line
from ._keeping.files import stamp_of_files
from ._keeping.index import (
    ModelStatus,
    RepositoryStatistics,
    figures_of,
    row_of,
    status_of,
    versions_of,
)
from ._keeping.leases import Lease, LeaseRequest, lease_sync, try_lease
from ._keeping.loading import Asked
from ._keeping.meter import Meter, SystemMeter, limits_of
from ._keeping.preloading import load_preloaded, over, why_not
from ._keeping.records import Entry
from ._keeping.waiting import become, in_a_thread
from ._parts import hooks_of, require_environ, require_registry
from ._reading.amounts import byte_size
from ._text import one_line
from .config import InitializerConfig, load_catalogue, load_config
from .errors import DrainTimeoutError
from .events import Hook
from .initializer import GRACE_SECONDS, Initializer
from .registry import Registry
from .reports import LoadReport, StuckLoad

Source = str | os.PathLike[str] | Mapping[str, Any]


class ModelRepository:
    """Keeps the models of a catalogue: loads them when they are asked for, and lets them go.

    ::

        async with ModelRepository.from_config("models.yml") as models:
            async with models.lease("sentiment") as model:
                ...  # it is neither evicted nor unloaded in here

    It may be used from several event loops and from plain threads at once.

    Args:
        registry: the modules and backend types; what is installed, if None.
        hooks: called with every event, those of loads and `anyload.events.StateChanged`.
        clock: the monotonic clock of keep-alives, cool-downs and waits for memory.
        meter: tells how much memory there is, for a budget that is a share of it.
        options: the keys of the configuration, as in a file; ``models`` is the catalogue, and
            ``repository`` says how it is kept.

    Raises:
        ConfigError: an option cannot be used; all problems at once.
    """

    def __init__(
        self,
        registry: Registry | None = None,
        *,
        hooks: Iterable[Hook] = (),
        clock: Callable[[], float] = time.monotonic,
        meter: Meter | None = None,
        **options: Any,
    ) -> None:
        registry = Registry.discover() if registry is None else registry
        require_registry(registry)
        config = load_config(options, known_types=registry.backend_types)
        self._set_up(registry, config, options, "default", {}, hooks_of(hooks), clock, meter)

    @classmethod
    def from_config(
        cls,
        source: Source,
        *,
        registry: Registry | None = None,
        name: str = "default",
        environ: Mapping[str, str] | None = None,
        hooks: Iterable[Hook] = (),
        clock: Callable[[], float] = time.monotonic,
        meter: Meter | None = None,
        **overrides: Any,
    ) -> Self:
        """Make a repository from a YAML file or a mapping; see `Initializer.from_config`.

        It blocks: it reads the file and imports the modules and backend types that it names.

        Raises:
            ConfigError: the configuration cannot be used; all problems at once.
        """
        registry = Registry.discover() if registry is None else registry
        require_registry(registry)
        environ = os.environ if environ is None else environ
        require_environ(environ)
        known = registry.backend_types
        config = load_config(
            source, name=name, environ=environ, overrides=overrides, known_types=known
        )
        self = cls.__new__(cls)
        self._set_up(registry, config, source, name, environ, hooks_of(hooks), clock, meter)
        return self

    def _set_up(
        self,
        registry: Registry,
        config: InitializerConfig,
        source: Source,
        name: str,
        environ: Mapping[str, str],
        hooks: tuple[Hook, ...],
        clock: Callable[[], float],
        meter: Meter | None,
    ) -> None:
        self._source = source
        self._name = name
        self._environ = environ
        self._config = config.repository

        def make_initializer(asked: Asked) -> Initializer:
            return Initializer.from_config(config, registry=registry, hooks=hooks, admission=asked)

        limits = limits_of(config.repository.budget, meter or SystemMeter())
        self._core = KeepingCore(config, limits, clock, make_initializer)
        self._catalogue = Catalogue(self._core, config)

    # Leases

    def lease(self, name: str, *, priority: int = 0) -> LeaseRequest:
        """Return what to ``async with`` for a model; it is loaded first, if it has to be.

        A model that is READY is there at once: nothing is waited for. While the block runs it is
        neither evicted nor unloaded.

        Cancelling the wait is immediate. A load that nobody waits for any more does not start; one
        that has started goes on, and its model is kept.

        Args:
            name: a name or an alias of the catalogue.
            priority: loads of higher priority start first.

        Raises:
            ModelNotFoundError: there is no such model.
            ModelUnavailableError: it failed, and is not to be tried yet; see ``retry_after``.
            MemoryBudgetError: it does not fit into the budget.
            QueueFullError: too many models wait to be loaded.
            ClosedError: the repository is closed.
            AnyloadError: it did not load; as in `Initializer.init`.
            TypeError: the name is no text, or the priority no whole number.
        """
        if type(name) is not str or type(priority) is not int:  # a call would cost every request
            require_name(name)
            require_priority(priority)
        return LeaseRequest(self._core, name, priority)

    def try_lease(self, name: str) -> Lease | None:
        """Return a lease of a model that is READY, or None; it never waits and loads nothing."""
        if type(name) is not str:  # as in `lease`
            require_name(name)
        return try_lease(self._core, name)

    def lease_sync(self, name: str, *, priority: int = 0, timeout: float | None = None) -> Lease:
        """Wait for a lease in a plain thread; as `lease` otherwise.

        Args:
            timeout: how long to wait, in seconds.

        Raises:
            TimeoutError: ``timeout`` seconds have passed.
            ValueError: ``timeout`` is no number of seconds.
        """
        require_priority(priority)
        require_timeout(timeout)
        return self.try_lease(name) or lease_sync(self._core, name, priority, timeout)

    # Loading and unloading

    async def load(self, name: str, *, priority: int = 0) -> None:
        """Have a model READY; cancelling and errors are those of `lease`."""
        async with self.lease(name, priority=priority):
            pass

    async def load_preloaded(self, names: Iterable[str] | None = None) -> dict[str, LoadReport]:
        """Load what the configuration has ``preload`` or ``required``, by priority.

        Requests go before. Nothing is evicted for a preload; one that has no room is an error.
        Cancelling it stops waiting; the loads go on.

        Args:
            names: what to load instead.

        Returns:
            The report of each load, by name.

        Raises:
            BulkLoadError: some did not load; it is raised when every load has ended.
            ClosedError: the repository is closed.
            TypeError: ``names`` is one name, or one of them is no text.
        """
        if names is not None:
            require_models(names)
            names = list(names)
            for name in names:
                require_name(name)
        return await load_preloaded(self._core, names)

    async def unload(self, name: str, *, drain_timeout: float | None = None) -> None:
        """Let a model go, and wait until it is gone: no lease of it is given any more.

        Who waits for it to load gets ModelUnavailableError; a load that runs is not waited for, and
        is released when it lands. Who asks for the model from now on has it loaded anew.
        Cancelling it stops waiting; the model goes all the same.

        Args:
            name: a name or an alias.
            drain_timeout: how long to wait for leases, in seconds; None for what the configuration
                says.

        Raises:
            ModelNotFoundError: there is no such model.
            DrainTimeoutError: leases were still out; it goes when they are back.
            ValueError: ``drain_timeout`` is no number of seconds, 0 or more.
        """
        require_name(name)
        require_drain_timeout(drain_timeout)
        with self._core.step() as todo, self._core.lock:
            versions = self._core.keeper.unload(name, todo)
        timeout = self._config.drain_timeout if drain_timeout is None else drain_timeout
        with move_on_after(timeout):
            for version in versions:
                await become(self._core, version, closing.gone)
        leases = sum(version.leases for version in versions)
        if leases:
            assert timeout is not None
            raise DrainTimeoutError(name, leases, timeout)

    async def swap(self, name: str) -> None:
        """Load a model anew beside the one that serves, and let it take over.

        The old one serves until then, and goes when its last lease is back. If the new one does
        not load, the old one goes on serving. Where both do not fit into the budget, the
        setting ``swap`` decides. Cancelling it stops waiting; the new one comes all the same.

        Raises:
            ModelNotFoundError: there is no such model.
            MemoryBudgetError: the new one does not fit beside the old one.
            ModelUnavailableError: another swap, or an unload, came in between.
            AnyloadError: it did not load.
        """
        require_name(name)
        with self._core.step() as todo, self._core.lock:
            entry = self._core.wishes.find(name)
            entry.generation += 1
            version = entry.version(entry.config, entry.kept)
            self._core.keeper.swap(entry, version, todo)
            if version is entry.current:
                version = self._core.wishes.preload(name, todo)
        await become(self._core, version, over)
        if version.report is None or version.doomed:  # it did not come, or went at once
            raise why_not(version)

    def pin(self, name: str) -> None:
        """Never evict a model, nor let its keep-alive end."""
        require_name(name)
        with self._core.step(), self._core.lock:
            self._core.wishes.find(name).pinned = True

    def unpin(self, name: str) -> None:
        """Treat a model like any other again."""
        require_name(name)
        with self._core.step() as todo, self._core.lock:
            self._core.keeper.unpin(self._core.wishes.find(name), todo)

    # The catalogue

    async def reload(self, source: Source | None = None) -> CatalogueChange:
        """Read the catalogue again, and do what has changed in it.

        A new model can be leased from now on. A changed one is swapped, if it is loaded. One that
        is gone drains and goes. An entry that cannot be used stays as it was. A model that
        failed for good is tried again if its files have changed. Nothing but ``models`` and
        ``repository.models`` is looked at.

        Args:
            source: the file or mapping; None for what the repository was made from.

        Raises:
            ConfigError: the file cannot be read, or two models have one name; nothing has changed.
        """
        return await in_a_thread(partial(self.reload_sync, source))

    def reload_sync(self, source: Source | None = None) -> CatalogueChange:
        """Read the catalogue again from a plain thread; as `reload` otherwise."""
        source = self._source if source is None else source
        models, kept, errors = load_catalogue(source, name=self._name, environ=self._environ)
        change = self._catalogue.change(models, kept, errors)
        for entry in self._entries():
            if entry.failures.permanent and entry.stamp != stamp_of_files(entry.config):
                with self._core.step(), self._core.lock:
                    entry.failures.forget()
        return change

    def forget_failure(self, name: str) -> None:
        """Let a model that failed be tried again at once, on every backend."""
        require_name(name)
        with self._core.step(), self._core.lock:
            entry = self._core.wishes.find(name)
            entry.failures.forget()
            entry.left_out.forget()

    def report_failure(self, name: str, model: object, error: BaseException | str) -> bool:
        """Report that a model that loaded well fails in use: the next backend is to take over.

        It gets no new lease; those that are out stay, and it goes with the last of them. Its
        backend is left out of the loads of this model for a cool-down, and what the others make
        of it is loaded at once. The same instance may be reported many times, by everybody who
        meets it: the first report counts, and one about an instance that does not serve any
        more changes nothing.

        It waits for nothing, and may be called from any thread. Give back the lease before you
        ask for another one: the two may not fit beside each other.

        Args:
            name: a name or an alias.
            model: the model that failed, as its lease gave it.
            error: what it raised, or why it is no good.

        Returns:
            Whether it was the one that serves.

        Raises:
            ModelNotFoundError: there is no such model.
            TypeError: ``error`` is neither an exception nor text.
        """
        require_name(name)
        require_error(error)
        why = first_line(error) if isinstance(error, BaseException) else one_line(error)
        with self._core.step() as todo, self._core.lock:
            entry = self._core.wishes.find(name)
            return self._core.switching.report(entry, model, why, todo)

    def _entries(self) -> list[Entry]:
        with self._core.step(), self._core.lock:
            return list(self._core.house.each())

    # Looking

    def ready(self) -> bool:
        """Return whether every model that is required is READY; it waits for nothing.

        Where none is required it is False, unless ``ready_without_required`` is set.
        """
        required = [entry for entry in self._entries() if entry.kept.required]
        if self._core.house.closed or not (required or self._config.ready_without_required):
            return False
        return all(entry.current.life.phase == "active" for entry in required)

    def status(self, name: str) -> ModelStatus:
        """Return how a model is.

        Raises:
            ModelNotFoundError: there is no such model.
        """
        require_name(name)
        with self._core.step(), self._core.lock:
            return status_of(self._core.wishes.find(name).current, self._core.clock())

    def statuses(self) -> tuple[ModelStatus, ...]:
        """Return how every model is: each version of it that is there, the current one first."""
        with self._core.step(), self._core.lock:
            now = self._core.clock()
            return tuple(
                status_of(version, now)
                for entry in self._core.house.each()
                for version in versions_of(entry)
            )

    def index(self, *, ready: bool = False) -> list[dict[str, str]]:
        """Return the index of the V2 model repository protocol, as its JSON.

        Args:
            ready: whether to return only what is READY.
        """
        rows = [row_of(status) for status in self.statuses()]
        return [row for row in rows if row["state"] == "READY" or not ready]

    def plan_eviction(self, needed: Mapping[str, int | str]) -> EvictionPlan:
        """Return what would be evicted so that this fits, or why nothing can; nothing is.

        Args:
            needed: bytes by device, ``{"cpu": "2GiB"}``.

        Raises:
            ValueError: a size is none.
        """
        require_sizes(needed)
        sizes: Sizes = {device: byte_size(size) for device, size in needed.items()}
        with self._core.step(), self._core.lock:
            return self._core.house.rooms.plan(sizes)

    def statistics(self) -> RepositoryStatistics:
        """Return what is going on now, and what has been done so far."""
        with self._core.step(), self._core.lock:
            return figures_of(self._core.house)

    @property
    def initializer(self) -> Initializer:
        """What loads the models. What it is asked for directly is not kept, and not counted."""
        return self._core.initializer

    def reconsider(self) -> None:
        """Act on every deadline that has passed by the clock; for clocks that tests move."""
        self._core.ring()

    def __repr__(self) -> str:
        figures = self.statistics()
        state = " closed" if self._core.house.closed else ""
        return (
            f"<ModelRepository{state} models={figures.models} ready={figures.ready} "
            f"loading={figures.loading} leases={figures.leases}>"
        )

    # The end

    async def aclose(self, grace: float = GRACE_SECONDS) -> tuple[StuckLoad, ...]:
        """Close: refuse new leases, let every model go, and close the initializer.

        A model that is leased when the grace is over stays until its lease is back, and is
        released then. Cancelling it ends the grace at once. In a hook on a thread of ours, and in a
        module's code outside of ``load``, it begins the close and waits neither for leases nor for
        loads: that thread is one of those that have to end.

        Args:
            grace: how long leases may stay out and loads run, in seconds.

        Returns:
            The loads that were abandoned and whose threads are still running.

        Raises:
            ValueError: ``grace`` is no number of seconds, 0 or more.
        """
        require_grace(grace)
        return await closing.aclose(self._core, grace)

    def close(self, grace: float = GRACE_SECONDS) -> tuple[StuckLoad, ...]:
        """Close from a plain thread; as `aclose` otherwise."""
        require_grace(grace)
        return closing.close(self._core, grace)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if kind is GeneratorExit:  # the coroutine was closed: it cannot wait for anything
            closing.begin(self._core)
            await self.initializer.__aexit__(kind, error, traceback)
            self._core.dismiss()
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
        self.close()
