"""What the processes of ``anyload bench`` have measured: plain records, as JSON between them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from ..timeline import Timeline


@dataclass(frozen=True, slots=True)
class LoadSample:
    """One load of one model, with nothing beside it.

    Args:
        prepare_seconds: imports, and the start of a backend.
        load_seconds: the load, without its warm-up.
        warmup_seconds: the warm-up; None where there is none.
        cpu_seconds: processor time of all threads but the event loop's, from request to model.
        longest_gap: the longest time that the event loop was kept from running, in seconds.
        p99_gap: of a tick every millisecond, 99 of 100 came sooner than this after the one before.
        bytes_read: from the disk, not from the page cache; None where that cannot be told.
    """

    prepare_seconds: float
    load_seconds: float
    warmup_seconds: float | None
    cpu_seconds: float
    longest_gap: float
    p99_gap: float
    bytes_read: int | None

    @property
    def thread_seconds(self) -> float:
        """How long its thread was in it, warm-up included."""
        return self.load_seconds + (self.warmup_seconds or 0.0)


@dataclass(frozen=True, slots=True)
class AloneSample:
    """What one process has measured of one model.

    Args:
        module_id: the module that loads it.
        backend: the type of the backend that did.
        bytes_on_disk: the size of its files.
        not_cold: why its files could not be taken out of the page cache; empty where they were.
        first: the first load of the process, with what it imports late; its files were cold.
        cold: a later load, its files cold; None where that cannot be had.
        warm: a later load, its files in the page cache.
        memory_before: resident bytes before the first load, imports done; None if not known.
        memory_loaded: the same with the model in memory.
        memory_released: and after its release.
        yardstick: how long a fixed piece of work in Python took, to tell a slow machine.
    """

    module_id: str
    backend: str
    bytes_on_disk: int
    not_cold: str
    first: LoadSample
    cold: LoadSample | None
    warm: LoadSample
    memory_before: int | None
    memory_loaded: int | None
    memory_released: int | None
    yardstick: float

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> Self:
        """Return what JSON has made a document of."""
        loads = {name: document[name] for name in ("first", "cold", "warm")}
        made = {name: load and LoadSample(**load) for name, load in loads.items()}
        return cls(**{**document, **made})


@dataclass(frozen=True, slots=True)
class BulkSample:
    """One load of all models.

    Args:
        at_once: the number of slots.
        cold: whether the files were cold.
        boot: whether it was the first of its process, imports included.
        seconds: from the first request to the last model.
        failed: the models that did not load, and why.
        longest_gap: as of one load.
        p99_gap: as of one load.
        memory_peak: what resident memory grew by at the most, in bytes; None if not known.
        bytes_read: as of one load.
        queue_seconds: how long each model was queued, by its name.
        timeline: what went on.
    """

    at_once: int
    cold: bool
    boot: bool
    seconds: float
    failed: Mapping[str, str]
    longest_gap: float
    p99_gap: float
    memory_peak: int | None
    bytes_read: int | None
    queue_seconds: Mapping[str, float]
    timeline: Timeline

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> Self:
        """Return what JSON has made a document of."""
        timeline = Timeline.from_document(document["timeline"])
        return cls(**{**document, "timeline": timeline})


@dataclass(frozen=True, slots=True)
class TogetherSample:
    """What one process has measured of all models together.

    Args:
        not_cold: why the files could not be taken out of the page cache; empty where they were.
        disk_seconds: how long it took to read the cold files, one after another; None where they
            could not be had cold.
        disk_bytes: how much that was.
        bulks: the loads of all models.
        yardstick: as of one model.
    """

    not_cold: str
    disk_seconds: float | None
    disk_bytes: int
    bulks: tuple[BulkSample, ...]
    yardstick: float

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> Self:
        """Return what JSON has made a document of."""
        bulks = tuple(BulkSample.from_document(bulk) for bulk in document["bulks"])
        return cls(**{**document, "bulks": bulks})
