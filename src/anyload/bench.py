"""``anyload bench``: measures each model, and all together, in processes of their own.

What is measured in there is in ``_bench/measuring.py``, what follows from it in
``_bench/findings.py``. The processes come one after another, and the repeats of one thing far
apart: what slows the machine for a while then slows a bit of everything.
"""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from typing import Any

from ._bench.findings import Findings, findings_of
from ._bench.samples import AloneSample, TogetherSample
from ._children import Unfinished, run_part
from ._tables import whole

SLOTS = (1, 2, 4, 8, 16)
"""The numbers of slots that are tried, if nobody says otherwise."""


def slots_to_try(configured: int, models: int) -> tuple[int, ...]:
    """Return how many loads at once to try: no more than there are models. Pure."""
    return tuple(sorted({min(slots, models) for slots in (*SLOTS, configured)}))


def turned(slots: Sequence[int], turn: int) -> tuple[int, ...]:
    """Return the numbers of slots in the order of one turn: each comes first once. Pure."""
    first = turn % len(slots)
    return (*slots[first:], *slots[:first])


@dataclass(frozen=True, slots=True)
class Bench:
    """Measures models of one configuration.

    Args:
        config: the configuration.
        name: which of its initializers.
        loop: the event loop to load on.
        models: the models.
        whole: whether these are the whole catalogue.
        at_once: the numbers of slots to try.
        repeats: how often each figure is taken.
        timeout: the limit of each process, in seconds; it is ended then, with all that it has
            started.
    """

    config: str
    name: str
    loop: str
    models: tuple[str, ...]
    whole: bool
    at_once: tuple[int, ...]
    repeats: int
    timeout: float

    @property
    def processes(self) -> int:
        """How many processes it takes."""
        return self.repeats * (len(self.models) + 1)

    def run(self, done: Callable[[str], None]) -> Findings:
        """Measure; it blocks. On Ctrl-C or SIGTERM it ends the process at hand, and raises.

        Args:
            done: is told of each process that has ended.
        """
        alone: dict[str, list[AloneSample | Unfinished]] = {model: [] for model in self.models}
        together: list[TogetherSample | Unfinished] = []
        for turn in range(self.repeats):
            for model, samples in alone.items():
                found = self._run("alone", [model], turn)
                samples.append(
                    found if isinstance(found, Unfinished) else AloneSample.from_document(found)
                )
                done(f"{whole(model)}: {_told(samples[-1])}")
            # The names of a large catalogue are more than a command line may have.
            found = self._run("bulk", () if self.whole else self.models, turn)
            together.append(
                found if isinstance(found, Unfinished) else TogetherSample.from_document(found)
            )
            done(f"all models: {_told(together[-1])}")
        return findings_of(alone, together, cores())

    def _run(self, what: str, models: Sequence[str], turn: int) -> dict[str, Any] | Unfinished:
        options = ["bench", self.config, f"--name={self.name}", f"--loop={self.loop}"]
        options += [f"--model={model}" for model in models]
        options += [f"--at-once={','.join(map(str, self.at_once))}"]
        options += [f"--measure={what}", f"--turn={turn}"]
        return run_part(options, self.timeout)

    def about(self) -> dict[str, Any]:
        """Return what is measured, when, and on what."""
        return {
            "config": self.config,
            "made": datetime.now(UTC).isoformat(timespec="seconds"),
            "versions": dict(_versions()),
            "machine": {"cores": cores(), "system": platform.platform(), "loop": self.loop},
            "repeats": self.repeats,
        }


def cores() -> int:
    """Return how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _versions() -> Iterator[tuple[str, str]]:
    yield "python", platform.python_version()
    for package in ("anyload", "anyio", "trio", "uvloop"):
        if package in ("anyload", "anyio") or package in sys.modules:
            yield package, metadata.version(package)


def _told(ended: AloneSample | TogetherSample | Unfinished) -> str:
    match ended:
        case Unfinished():
            return str(ended)
        case AloneSample(warm=warm):
            return f"{warm.thread_seconds:.3f} s"
        case TogetherSample(bulks=bulks):
            return f"{len(bulks)} times"
