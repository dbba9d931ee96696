"""Uses every public name as a user would; pyright and mypy check it, nothing runs it."""

from __future__ import annotations

import os
from collections.abc import Hashable
from pathlib import Path
from typing import Any, Self, assert_type

import anyload
import anyload.events
import anyload.testing
from anyload import (
    Admission,
    AnyloadError,
    Attempt,
    Backend,
    BackendConfig,
    BulkLoad,
    BulkLoadError,
    Candidate,
    CatalogueChange,
    ClosedError,
    ConfigError,
    DrainTimeoutError,
    EvictionPlan,
    GlobalChange,
    Initializer,
    IntegrityError,
    Lease,
    LoadCancelled,
    LoadError,
    LoadOutcome,
    LoadReport,
    LoadTimeoutError,
    LocalBackend,
    MemoryBudgetError,
    MissingExtraError,
    ModelConfig,
    ModelNotFoundError,
    ModelRepository,
    ModelStatus,
    ModelUnavailableError,
    Module,
    Observed,
    Plan,
    ProcessGlobal,
    QueueFullError,
    ReentrantLoadError,
    RegistrationError,
    Registry,
    RepositoryStatistics,
    SaturatedError,
    Skip,
    Statistics,
    StuckLoad,
    UnsafeArchiveError,
    UnsafePickleError,
    WrongDeviceError,
    WrongTypeError,
    check_cancelled,
    exit_process,
    report_progress,
    report_warning,
)

registry = Registry()
discovered: Registry = Registry.discover()


@registry.backend_type
class Gpu(Backend):
    """A backend with a config of its own."""

    backend_type = "GPU"

    class Config(BackendConfig):
        """Its config."""

        device: int = 0

    def available(self) -> str | None:
        """Say that there is no such thing here."""
        return "there is no GPU"


@registry.module("sentiment")
class Sentiment:
    """A module that inherits from nothing."""

    exclusive_group = "demo"
    holds_gil = False

    def __init__(self, path: str) -> None:
        self.path = path

    @classmethod
    def load(cls, config: ModelConfig, **kwargs: Any) -> Self:
        """Load it."""
        check_cancelled()
        report_progress(0.5, stage="weights")
        return cls(os.fspath(config))


@registry.module(
    backend_type="GPU",
    base_module=Sentiment,
    supported_load_backends=["LOCAL", "GPU"],
    backend_config_override={"device": 1},
    returns=Sentiment,
)
class SentimentOnGpu:
    """Another implementation of it."""

    @classmethod
    def load(cls, config: ModelConfig, /, **kwargs: Any) -> Sentiment:
        """Load it."""
        return Sentiment(os.fspath(config))


# The decorator keeps the class's own type, and a module needs no base class.
assert_type(Sentiment("x").path, str)
module: type[Module] = SentimentOnGpu


class Budget:
    """An admission."""

    def may_start(self, config: ModelConfig, size: int) -> bool:
        """Let small ones in."""
        return size < 10

    def started(self, config: ModelConfig, size: int) -> None:
        """Take note."""

    def ended(self, config: ModelConfig, size: int) -> None:
        """Take note."""


def on_event(event: anyload.events.Event) -> None:
    """A hook."""
    print(event.model, event.at)


async def use() -> None:
    """Use everything."""
    admission: Admission = Budget()
    config = ModelConfig("sentiment", Path("models/a"), labels=["good", "bad"])
    from_directory: ModelConfig = ModelConfig.from_directory("models/a")
    key: Hashable = "one"
    async with Initializer(
        registry,
        hooks=[on_event],
        admission=admission,
        backend_priority=[{"type": "GPU", "timeout": 30}, {"type": "LOCAL"}],
        load_timeout=60.0,
    ) as initializer:
        model: Sentiment = await initializer.init("models/a", key=key, priority=1, revision=2)
        again: Sentiment = initializer.init_sync(config, timeout=3.0)
        models = await initializer.init_many(["a", Path("b"), from_directory], fail_fast=True)
        assert_type(models["a"], Any)
        each: BulkLoad = initializer.init_each(["a", "b"])
        async with each as outcomes:
            async for outcome in outcomes:
                assert_type(outcome, LoadOutcome)
                report: LoadReport = outcome.report
                attempts: tuple[Attempt, ...] = report.attempts
                observed: Observed = report.observed
                changes: tuple[GlobalChange, ...] = observed.changes
                print(outcome.model, outcome.value, outcome.error, attempts, changes)
                print(observed.device, observed.memory_bytes, observed.warnings)
        plan: Plan = await initializer.plan("a")
        candidates: tuple[Candidate, ...] = plan.candidates
        skipped: tuple[Skip, ...] = plan.skipped
        statistics: Statistics = initializer.statistics()
        backends: tuple[Backend, ...] = initializer.backends
        initializer.reconsider()
        left: tuple[StuckLoad, ...] = await initializer.aclose(grace=1.0)
        print(model, again, candidates, skipped, statistics, backends, left)
    with Initializer.from_config("models.yml", registry=registry, name="default") as other:
        other.close(grace=0.0)
    LocalBackend(BackendConfig()).start()
    exit_process(0)


async def keep(on_event: anyload.events.Hook) -> None:
    """Use a repository."""
    meter = anyload.testing.FakeMeter(cpu=2**30)
    async with ModelRepository.from_config("models.yml", hooks=[on_event], meter=meter) as models:
        preloaded: dict[str, LoadReport] = await models.load_preloaded()
        async with models.lease("a", priority=1) as model:
            assert_type(model, Any)
        lease: Lease | None = models.try_lease("a")
        if lease is not None:
            with lease as model:
                print(model, lease.version)
            replaced: bool = models.report_failure("a", model, ValueError("nonsense"))
            print(replaced)
        change: CatalogueChange = await models.reload()
        statuses: tuple[ModelStatus, ...] = models.statuses()
        plan: EvictionPlan = models.plan_eviction({"cpu": "1GiB"})
        index: list[dict[str, str]] = models.index(ready=True)
        figures: RepositoryStatistics = models.statistics()
        print(preloaded, change.errors, statuses, plan.victims, index, figures.used)
        try:
            await models.load("a")
            await models.swap("a")
            await models.unload("a", drain_timeout=3.0)
        except ModelUnavailableError as error:
            print(error.retry_after, error.reason)
        except MemoryBudgetError as error:
            print(error.need, error.limits)
        except QueueFullError as error:
            print(error.queued, error.retry_after)
        except DrainTimeoutError as error:
            print(error.leases, error.timeout)
    clock = anyload.testing.FakeClock()
    with ModelRepository(registry, clock=clock, models={"a": {"module_id": "m"}}) as models:
        with models.lease_sync("a", timeout=1.0) as model:
            print(model, models.ready(), models.status("a").phase)
        clock.advance(1.0)
        models.reconsider()


async def handle(initializer: Initializer) -> None:
    """Handle every error."""
    try:
        await initializer.init_many(["a"])
    except BulkLoadError as error:
        print(error.models, error.failed, error.exceptions)
    try:
        await initializer.init("a")
    except LoadTimeoutError as error:
        print(error.limit, error.attempts)
    except LoadError as error:
        print(error.model, error.module_id, error.attempts, error.report)
    except (RegistrationError, ConfigError) as error:
        print(error.source, error.problems)
    except ModelNotFoundError as error:
        print(error.model, error.reason)
    except SaturatedError as error:
        print(error.model, error.stuck)
    except ReentrantLoadError as error:
        print(error.model, error.chain)
    except WrongTypeError as error:
        print(error.implementation, error.returned, error.expected)
    except ClosedError as error:
        print(error.model)
    except IntegrityError as error:
        print(error.path, error.reason)
    except UnsafeArchiveError as error:
        print(error.archive, error.member, error.reason)
    except UnsafePickleError as error:
        print(error.path, error.reason)
    except MissingExtraError as error:
        print(error.package, error.extra)
    except WrongDeviceError as error:
        print(error.asked, error.got)
    except AnyloadError as error:
        print(error)
    except LoadCancelled:
        raise
    report_warning("as the load of an older version")
    print(ProcessGlobal("the answer", lambda: 42, restore=None))
    gate = anyload.testing.Gate()
    registry.module("slow")(anyload.testing.waits_at(gate))
