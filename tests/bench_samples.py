"""Samples as the processes of ``anyload bench`` measure them, for tests."""

from __future__ import annotations

from typing import Any

from anyload import Timeline
from anyload._bench.findings import Findings, findings_of
from anyload._bench.samples import AloneSample, BulkSample, LoadSample, TogetherSample

EMPTY = Timeline((), (), (), 0.0)


def load(seconds: float, **others: Any) -> LoadSample:
    return LoadSample(
        **{
            "prepare_seconds": 0.0,
            "load_seconds": seconds,
            "warmup_seconds": None,
            "cpu_seconds": seconds / 2,
            "longest_gap": 0.01,
            "p99_gap": 0.002,
            "bytes_read": 100,
            **others,
        }
    )


def alone(warm: float, cold: float | None = None, **others: Any) -> AloneSample:
    first = load(warm * 3, prepare_seconds=0.5, longest_gap=0.3)
    return AloneSample(
        **{
            "module_id": "m",
            "backend": "LOCAL",
            "bytes_on_disk": 1000,
            "first": first,
            "not_cold": "" if cold else "no posix_fadvise",
            "warm": load(warm),
            "cold": None if cold is None else load(cold),
            "memory_before": 10_000_000,
            "memory_loaded": 15_000_000,
            "memory_released": 11_000_000,
            "yardstick": 0.01,
            **others,
        }
    )


def bulk(
    at_once: int, seconds: float, *failed: str, cold: bool = True, boot: bool = False
) -> BulkSample:
    why = dict.fromkeys(failed, "out of time")
    return BulkSample(at_once, cold, boot, seconds, why, 0.02, 0.01, 5_000, 900, {"a": 0.25}, EMPTY)


def together(*bulks: BulkSample, **others: Any) -> TogetherSample:
    return TogetherSample(
        **{
            "not_cold": "",
            "disk_seconds": 0.5,
            "disk_bytes": 1_000_000,
            "bulks": bulks,
            "yardstick": 0.01,
            **others,
        }
    )


def some_findings(models: int = 2) -> Findings:
    names = ["a", *(f"model {number}" for number in range(1, models))]
    boot = bulk(2, 5.0, boot=True)
    return findings_of(
        {name: [alone(1.0, 2.0), alone(1.2, 2.4), alone(1.1, 2.2)] for name in names},
        [
            together(boot, bulk(1, 4.0), bulk(1, 3.0, cold=False), bulk(2, 2.5)),
            together(boot, bulk(2, 2.4), bulk(2, 2.0, cold=False), bulk(4, 2.4)),
        ],
        cores=2,
    )
