"""From samples to findings: what each model costs, and all of them together. Pure."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any

from .._children import Unfinished
from ..timeline import Timeline
from .advice import Ideal, Recommendation, recommended, steadied
from .samples import AloneSample, BulkSample, LoadSample, TogetherSample
from .statistics import Figure

CACHES = ("cold", "warm")


@dataclass(frozen=True, slots=True)
class ModelFindings:
    """What one model costs.

    Args:
        model: its name.
        unfinished: how its last measurement ended without a result; None where all have one.
        module_id: the module that loads it; None where nothing was measured.
        backend: the type of the backend that did.
        bytes_on_disk: the size of its files.
        figures: by the names that the documentation of ``--json`` has.
    """

    model: str
    unfinished: Unfinished | None
    module_id: str | None
    backend: str | None
    bytes_on_disk: int | None
    figures: Mapping[str, Figure]

    def median(self, name: str) -> float | None:
        """Return the median of one figure; None where it was not measured."""
        figure = self.figures.get(name)
        return None if figure is None else figure.median

    @property
    def memory_taken(self) -> float | None:
        """What the model has added to the resident memory, in bytes."""
        before, loaded = self.median("memory_before"), self.median("memory_loaded")
        return None if before is None or loaded is None else max(0.0, loaded - before)


@dataclass(frozen=True, slots=True)
class BulkFindings:
    """How long all models take with one number of slots.

    Args:
        at_once: the number.
        makespans: in seconds, for ``cold`` and ``warm`` files, where all loaded that ever do; what
            was not measured is not there.
        longest_gap: of the event loop, in seconds.
        p99_gap: the same, as of one load.
        memory_peak: what resident memory grew by, in bytes; None where that is not known.
        bytes_read: what was read from disk while the files were cold; None where not known.
    """

    at_once: int
    makespans: Mapping[str, Figure]
    longest_gap: Figure
    p99_gap: Figure
    memory_peak: Figure | None
    bytes_read: Figure | None


@dataclass(frozen=True, slots=True)
class Findings:
    """What ``anyload bench`` has found out.

    Args:
        models: each model.
        not_cold: why files could not be taken out of the page cache; empty where they were.
        configured: the number of slots as it is configured.
        boot: the first bulk of a process, imports included: how long it took, and figures of all
            models together; empty where none came to an end.
        bulks: all models, with each number of slots.
        ideals: for ``cold`` and ``warm`` files, what no number of slots can beat; empty where
            models fail, alone or together.
        recommendation: how many loads at once; None where no bulk came to an end, and where models
            fail with every number.
        disk_speed: bytes a second, read one file after another; None where it was not measured.
        yardstick: how long a fixed piece of work took, in seconds.
        unfinished: how the last measurement of all models ended without a result.
        failed: models that did not load, alone or in a bulk, and why.
        lost: by the number of slots, models that did not load with so many, but with another.
        timelines: the picture of the boot, and of the recommended number of slots, each by what
            it shows.
    """

    models: tuple[ModelFindings, ...]
    not_cold: str
    configured: int
    boot: Mapping[str, Figure]
    bulks: tuple[BulkFindings, ...]
    ideals: Mapping[str, Ideal]
    recommendation: Recommendation | None
    disk_speed: Figure | None
    yardstick: Figure | None
    unfinished: Unfinished | None
    failed: Mapping[str, str]
    lost: Mapping[int, tuple[str, ...]]
    timelines: Mapping[str, Timeline]


def findings_of(
    alone: Mapping[str, Sequence[AloneSample | Unfinished]],
    together: Sequence[TogetherSample | Unfinished],
    cores: int,
) -> Findings:
    """Return what follows from the samples.

    Args:
        alone: what each process has measured of each model.
        together: what each has measured of all.
        cores: how many the process may use.
    """
    measured = [one for one in together if isinstance(one, TogetherSample)]
    bulks = [bulk for one in measured for bulk in one.bulks]
    boots = [bulk for bulk in bulks if bulk.boot]
    broken = set(alone).intersection(*(bulk.failed for bulk in bulks))
    lost = _lost(bulks, broken)
    tried = tuple(_bulk_findings(bulks, broken))
    models = tuple(_model_findings(model, ended, boots) for model, ended in alone.items())
    disk = _figure(one.disk_seconds for one in measured)
    advice = None if broken == set(alone) else _advice(measured, tried, lost, broken)
    failed = _failed(models, bulks)
    taken: list[AloneSample | TogetherSample] = [*measured]
    taken += [one for ended in alone.values() for one in ended if isinstance(one, AloneSample)]
    return Findings(
        models,
        next((one.not_cold for one in taken if one.not_cold), ""),
        boots[0].at_once if boots else 0,
        _boot_figures(boots),
        tried,
        {} if failed else _ideals(models, disk, cores),
        advice,
        _figure(one.disk_bytes / one.disk_seconds for one in measured if one.disk_seconds),
        _figure(one.yardstick for one in taken),
        next((one for one in reversed(together) if isinstance(one, Unfinished)), None),
        dict(sorted(failed.items())),
        lost,
        _timelines(bulks, advice),
    )


def _model_findings(
    model: str, ended: Sequence[AloneSample | Unfinished], boots: Sequence[BulkSample]
) -> ModelFindings:
    samples = [one for one in ended if isinstance(one, AloneSample)]
    unfinished = next((one for one in reversed(ended) if isinstance(one, Unfinished)), None)
    if not samples:
        return ModelFindings(model, unfinished, None, None, None, {})
    last = samples[-1]

    def of(kind: str, what: Callable[[LoadSample], float | None]) -> Figure | None:
        loads: list[LoadSample | None] = [getattr(one, kind) for one in samples]
        return _figure(what(one) for one in loads if one is not None)

    def worst(what: Callable[[LoadSample], float]) -> Figure | None:
        return _figure(max(what(load) for load in (one.cold, one.warm) if load) for one in samples)

    figures = {
        "prepare_seconds": of("first", lambda load: load.prepare_seconds),
        "first_seconds": of("first", lambda load: load.load_seconds),
        "cold_seconds": of("cold", lambda load: load.load_seconds),
        "warm_seconds": of("warm", lambda load: load.load_seconds),
        "warmup_seconds": of("warm", lambda load: load.warmup_seconds),
        "queue_seconds": _figure(bulk.queue_seconds.get(model) for bulk in boots),
        "cpu_seconds": of("warm", lambda load: load.cpu_seconds),
        "longest_gap": worst(lambda load: load.longest_gap),
        "p99_gap": worst(lambda load: load.p99_gap),
        "first_gap": of("first", lambda load: load.longest_gap),
        "bytes_read": _figure((one.cold or one.first).bytes_read for one in samples),
        "memory_before": _figure(one.memory_before for one in samples),
        "memory_loaded": _figure(one.memory_loaded for one in samples),
        "memory_released": _figure(one.memory_released for one in samples),
    }
    return ModelFindings(
        model,
        unfinished,
        last.module_id,
        last.backend,
        last.bytes_on_disk,
        {name: figure for name, figure in figures.items() if figure is not None},
    )


def _boot_figures(boots: Sequence[BulkSample]) -> dict[str, Figure]:
    figures = {
        "seconds": _figure(boot.seconds for boot in boots),
        "prepare_seconds": _figure(boot.timeline.seconds_of("prepare") for boot in boots),
        "queue_seconds": _figure(boot.timeline.seconds_of("queue") for boot in boots),
        "load_seconds": _figure(boot.timeline.seconds_of("load", "failed") for boot in boots),
        "warmup_seconds": _figure(boot.timeline.seconds_of("warm-up") for boot in boots),
        "longest_gap": _figure(boot.longest_gap for boot in boots),
        "p99_gap": _figure(boot.p99_gap for boot in boots),
        "memory_peak": _figure(boot.memory_peak for boot in boots),
        "bytes_read": _figure(boot.bytes_read for boot in boots),
    }
    return {name: figure for name, figure in figures.items() if figure is not None}


def _failed(models: Iterable[ModelFindings], bulks: Iterable[BulkSample]) -> dict[str, str]:
    """Return why models did not load; alone, if they did not even there."""
    together = {
        model: f"with {bulk.at_once} at once: {error}"
        for bulk in bulks
        for model, error in bulk.failed.items()
    }
    alone = {one.model: str(one.unfinished) for one in models if one.unfinished}
    return {**together, **alone}


def _lost(bulks: Iterable[BulkSample], broken: Set[str]) -> dict[int, tuple[str, ...]]:
    """Return by the number of slots the models that fail with it, but not always."""
    failed: dict[int, set[str]] = {}
    for bulk in bulks:
        failed.setdefault(bulk.at_once, set()).update(bulk.failed.keys() - broken)
    return {slots: tuple(sorted(models)) for slots, models in sorted(failed.items()) if models}


def _advice(
    measured: Sequence[TogetherSample],
    tried: Iterable[BulkFindings],
    lost: Collection[int],
    broken: Collection[str],
) -> Recommendation | None:
    """Return how many at once; a bulk in which models give up early is fast for no good reason."""
    configured = next(bulk.at_once for one in measured for bulk in one.bulks if bulk.boot)
    fit = [one for one in tried if one.at_once not in lost]
    makespans = {
        cache: {one.at_once: one.makespans[cache] for one in fit if cache in one.makespans}
        for cache in CACHES
    }
    # In long bulks no number may have been tried in every turn.
    steady = {
        cache: steadied(list(_turns(measured, cache, lost))) or makespans[cache] for cache in CACHES
    }
    if lost and not any(makespans.values()):
        why = "With every other number that was tried, models fail."
        return None if configured in lost else Recommendation(configured, why)
    return recommended(makespans, configured, steady, complete=not broken)


def _bulk_findings(bulks: Iterable[BulkSample], broken: Set[str]) -> Iterable[BulkFindings]:
    later = [bulk for bulk in bulks if not bulk.boot]
    for slots in sorted({bulk.at_once for bulk in later}):
        of = [bulk for bulk in later if bulk.at_once == slots]
        makespans = {
            cache: _figure(
                bulk.seconds
                for bulk in of
                if bulk.cold == (cache == "cold") and bulk.failed.keys() <= broken
            )
            for cache in CACHES
        }
        longest, p99 = _figure(one.longest_gap for one in of), _figure(one.p99_gap for one in of)
        assert longest is not None
        assert p99 is not None
        yield BulkFindings(
            slots,
            {cache: figure for cache, figure in makespans.items() if figure is not None},
            longest,
            p99,
            _figure(bulk.memory_peak for bulk in of),
            _figure(bulk.bytes_read for bulk in of if bulk.cold),
        )


def _turns(
    measured: Iterable[TogetherSample], cache: str, lost: Collection[int]
) -> Iterable[dict[int, float]]:
    """Yield of each process how long all took with each number of slots, but for those lost."""
    for one in measured:
        later = [bulk for bulk in one.bulks if not bulk.boot and bulk.cold == (cache == "cold")]
        if fit := {bulk.at_once: bulk.seconds for bulk in later if bulk.at_once not in lost}:
            yield fit


def _ideals(models: Sequence[ModelFindings], disk: Figure | None, cores: int) -> dict[str, Ideal]:
    """Return what no number of slots can beat, as far as it is known."""

    def longest(name: str) -> float:
        return max(
            ((one.median(name) or 0.0) + (one.median("warmup_seconds") or 0.0) for one in models),
            default=0.0,
        )

    cpu = sum(one.median("cpu_seconds") or 0.0 for one in models) / cores
    ideals = {"warm": Ideal(longest("warm_seconds"), cpu)}
    if disk is not None:
        ideals["cold"] = Ideal(longest("cold_seconds"), cpu, disk.median)
    return ideals


def _timelines(bulks: Sequence[BulkSample], advice: Recommendation | None) -> dict[str, Timeline]:
    """Return the pictures: of each kind of bulk, the one that took as long as it usually does."""
    shown = {}
    if usual := _usual([bulk for bulk in bulks if bulk.boot]):
        told = "cold files" if usual.cold else "warm files"
        shown[f"Boot as configured, {usual.at_once} at once, {told}"] = usual.timeline
    for cache in CACHES:
        of = [
            bulk
            for bulk in bulks
            if advice
            and not bulk.boot
            and bulk.at_once == advice.at_once
            and bulk.cold == (cache == "cold")
        ]
        if usual := _usual(of):
            title = f"As recommended, {usual.at_once} at once, imports done, {cache} files"
            shown[title] = usual.timeline
    return shown


def _usual(bulks: Sequence[BulkSample]) -> BulkSample | None:
    ordered = sorted(bulks, key=lambda bulk: bulk.seconds)
    return ordered[(len(ordered) - 1) // 2] if ordered else None


def _figure(samples: Iterable[float | None]) -> Figure | None:
    known = tuple(sample for sample in samples if sample is not None)
    return Figure(known) if known else None


def figures_document(figures: Mapping[str, Figure]) -> dict[str, Any]:
    """Return figures for JSON."""
    return {name: figure.document() for name, figure in figures.items()}
