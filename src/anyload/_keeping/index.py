"""What a repository holds, for people, and in the JSON of the V2 model repository protocol."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from ..reports import LoadReport
from .budget import Sizes
from .house import House
from .records import Entry, Version
from .states import Phase, State


@dataclass(frozen=True, slots=True)
class ModelStatus:
    """How one version of a model is.

    Args:
        name: the model's name.
        version: the version.
        state: its state by the protocol.
        phase: the same, finer.
        reason: why, for a person to read; never empty after a failure.
        leases: how many leases of it are out.
        memory: what it holds, in bytes by device.
        backend: the type of the backend it is on; None where it is on none.
        idle_seconds: how long nobody has used it; None where somebody does, or it is not READY.
        load_seconds: how long its load took; None where it has not loaded.
        pinned: whether it is never evicted.
        report: how it came to be loaded; None where it is not.
    """

    name: str
    version: str
    state: State
    phase: Phase
    reason: str
    leases: int
    memory: Sizes
    backend: str | None
    idle_seconds: float | None
    load_seconds: float | None
    pinned: bool
    report: LoadReport | None = field(repr=False)


@dataclass(frozen=True, slots=True)
class RepositoryStatistics:
    """What a repository is doing now, and what it has done.

    Args:
        models: how many models the catalogue has.
        ready: how many of them can be leased at once.
        loading: loads without an outcome.
        waiting_for_memory: those among them that wait for memory.
        draining: versions that go when their last lease is back.
        releasing: versions that are being released.
        leases: leases that are out.
        waiting: requests that wait for a lease.
        budget: the memory that models may take, in bytes by device.
        used: what is held of it: by what is loaded, loading and unloading.
        hits: leases of these models that were there at once; some may not be counted.
        misses: leases that had to wait.
        loads: loads that gave a model.
        failures: loads that did not.
        evictions: models that were given up because memory was needed.
        upgrades: models that a better backend has taken over.
        reported: models that were reported to have failed at run time.
        releases: models that were released.
    """

    models: int
    ready: int
    loading: int
    waiting_for_memory: int
    draining: int
    releasing: int
    leases: int
    waiting: int
    budget: Sizes
    used: Sizes
    hits: int
    misses: int
    loads: int
    failures: int
    evictions: int
    upgrades: int
    reported: int
    releases: int


def versions_of(entry: Entry) -> Iterator[Version]:
    """Yield what there is of a model: what serves, what is to come, what is on its way out."""
    yield entry.current
    if entry.incoming is not None:
        yield entry.incoming
    yield from (version for version in entry.retired if version is not entry.current)


def status_of(version: Version, now: float) -> ModelStatus:
    """Return how a version is."""
    loaded = version.life.state in ("READY", "UNLOADING")
    idle = loaded and not version.leases and version.life.phase == "active"
    report = version.report if loaded else None
    return ModelStatus(
        version.life.model,
        version.life.version,
        version.life.state,
        version.life.phase,
        version.life.reason,
        version.leases,
        dict(version.sizes) if loaded else {},
        None if report is None else report.backend,
        now - version.idle_since if idle else None,
        version.load_seconds if loaded else None,
        version.entry.pinned,
        report,
    )


def row_of(status: ModelStatus) -> dict[str, str]:
    """Return how a version is, as the protocol's index says it."""
    return {
        "name": status.name,
        "version": status.version,
        "state": status.state,
        "reason": status.reason,
    }


def figures_of(house: House) -> RepositoryStatistics:
    """Return what is going on now, and what has been done so far."""
    tables, counts, budget = house.tables, house.counts, house.rooms.budget
    entries = list(house.each())
    held = (*tables.active, *tables.draining)
    devices = {*budget.limits, *budget.devices}
    return RepositoryStatistics(
        models=len(entries),
        ready=sum(entry.current.life.phase == "active" for entry in entries),
        loading=len(tables.orders),
        waiting_for_memory=len(house.rooms.blocked),
        draining=len(tables.draining),
        releasing=len(tables.releasing),
        leases=sum(version.leases for version in held),
        waiting=sum(len(entry.waiting) for entry in entries),
        budget=dict(budget.limits),
        used={device: budget.used(device) for device in sorted(devices)},
        hits=sum(entry.hits for entry in entries),
        misses=counts.misses,
        loads=counts.loads,
        failures=counts.failures,
        evictions=counts.evictions,
        upgrades=counts.upgrades,
        reported=counts.reported,
        releases=counts.releases,
    )
