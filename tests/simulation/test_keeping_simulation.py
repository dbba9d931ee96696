"""The simulation of a repository: seeds hold, tell the same story, and reach the corners."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from .keeping.play import play
from .stage import Played
from .test_simulation import LINE_SEEDS

SEEDS = range(5)


@pytest.fixture(scope="module")
def played() -> list[Played]:
    """Some seeds, played."""
    return [play(seed) for seed in SEEDS]


@pytest.mark.parametrize("seed", SEEDS)
def test_a_seed_holds(played: list[Played], seed: int) -> None:
    """Through 300 requests, cancels, swaps, reloads and a close the promises of keeping hold."""
    wrong = played[seed].wrong
    assert not wrong, f"again: make simulation SEED={seed} ARGS=--repository"


@pytest.mark.parametrize("seed", LINE_SEEDS)
def test_a_seed_holds_wherever_a_thread_is_put_off(seed: int) -> None:
    """What is run without a lock holds too when others go first before any line of it."""
    wrong = play(seed, on_lines=True).wrong
    assert not wrong, f"again: make simulation SEED={seed} ARGS='--repository --lines'"


def test_the_seeds_reach_the_corners(played: list[Played]) -> None:
    """Together the seeds see every way in which a model can come, go, or be refused."""
    trace = [line for one in played for line in one.trace]
    said = Counter(word for line in trace for word in line.split())
    for word in (
        *("queued", "waiting", "loading", "warming", "active", "draining", "releasing"),
        *("failed", "unloaded", "cancelled", "nothing", "Abandoned", "Discarded"),
        *("LoadError", "MemoryBudgetError", "ModelUnavailableError", "ModelNotFoundError"),
        *("DrainTimeoutError", "QueueFullError", "BulkLoadError", "ClosedError", "reported"),
    ):
        assert said[word], word
    for why in (
        *("evicted to make room", "evicted because memory ran out", "failed at run time"),
        *("idle for 1 s", "nobody uses it", "replaced by version", "upgraded to GPU"),
        *("unloaded by request", "it is not in the catalogue", "the repository is closed"),
    ):
        assert any(f"releasing {why}" in line for line in trace), why


def test_same_seed_same_trace(played: list[Played]) -> None:
    """A seed played again in the same process is the same, to the last event."""
    assert play(SEEDS[0]).trace == played[0].trace
    assert played[0].trace != played[1].trace


def test_same_trace_in_another_process(played: list[Played]) -> None:
    """Neither the process nor the order of its sets is in the trace."""
    seed = str(SEEDS[0])
    told = subprocess.run(
        [sys.executable, "-m", "tests.simulation", "--repository", seed],
        cwd=Path(__file__).parents[2],
        env={**os.environ, "PYTHONHASHSEED": "1"},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert f"seed {seed}: {played[0].digest}" in told
