"""The simulation: seeds hold, tell the same story every time, and reach what they are to reach."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Collection
from pathlib import Path
from typing import NoReturn

import pytest

from .play import Player, play
from .stage import Played
from .world import make_models

SEEDS = range(12, 15)
"""Few that reach all corners: in one of five every slot is overdue at some time."""
LINE_SEEDS = range(int(os.environ.get("LINE_SEEDS", "2")))
PAIR, PAIR_SIZE = 100, 120
CANCELS = 3
"""Of how many callers it is tried what their cancelling alone does to others."""


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the models of the simulation are."""
    path = tmp_path_factory.mktemp("models")
    make_models(path)
    return path


@pytest.fixture(scope="module")
def played(root: Path) -> list[Played]:
    """Some seeds, played."""
    return [play(seed, root) for seed in SEEDS]


@pytest.mark.parametrize("seed", SEEDS)
def test_a_seed_holds(played: list[Played], seed: int) -> None:
    """Through 300 requests, cancels, limits and two closes the invariants of loading hold."""
    wrong = played[SEEDS.index(seed)].wrong
    assert not wrong, f"again: make simulation SEED={seed}"


@pytest.mark.parametrize("seed", LINE_SEEDS)
def test_a_seed_holds_wherever_a_thread_is_put_off(seed: int, root: Path) -> None:
    """What is run without a lock holds too when others go first before any line of it."""
    wrong = play(seed, root, on_lines=True).wrong
    assert not wrong, f"again: make simulation SEED={seed} ARGS=--lines"


def test_the_seeds_reach_the_corners(played: list[Played]) -> None:
    """Together the seeds see every way in which a load or a caller can end."""
    said = Counter(word for one in played for line in one.trace for word in line.split())
    for word in (
        *("loaded", "declined", "raised", "timed_out", "stalled", "cancelled", "skipped"),
        *("Abandoned", "ThreadEnded", "Discarded", "release", "overdue", "inside"),
        *("LoadError", "LoadTimeoutError", "ClosedError", "BulkLoadError", "ModelNotFoundError"),
        *("SaturatedError", "ReentrantLoadError"),
    ):
        assert said[word], word


def test_i21_same_seed_same_trace(played: list[Played], root: Path) -> None:
    """A seed played again in the same process is the same, to the last event."""
    again = play(SEEDS[0], root)
    assert again.trace == played[0].trace
    assert played[0].trace != played[1].trace


@pytest.mark.parametrize("hash_seed", ["1", "2"])
def test_i21_same_trace_in_other_processes(played: list[Played], hash_seed: str) -> None:
    """Neither the process, nor the order of its sets, nor where the models are is in the trace."""
    seed = str(SEEDS[0])
    told = subprocess.run(
        [sys.executable, "-m", "tests.simulation", seed],
        cwd=Path(__file__).parents[2],
        env={**os.environ, "PYTHONHASHSEED": hash_seed},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert f"seed {seed}: {played[0].digest}" in told


def test_what_crashes_as_it_is_put_up_is_told(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """There is nothing to check yet then; the crash is all that is wrong."""

    def crashes(_: object) -> NoReturn:
        raise ValueError("it cannot be put up")

    monkeypatch.setattr(Player, "put_up", crashes)
    played = play(SEEDS[0], root)
    assert any("it cannot be put up" in line for line in played.wrong)


def test_i16_cancelling_a_caller_changes_no_other(root: Path) -> None:
    """Of two runs that differ in who is cancelled, everybody else gets the same in both."""

    def outcomes(cancelled: Collection[int] | None) -> dict[int, list[str]]:
        player = Player(PAIR, root, PAIR_SIZE, calm=True, cancelled=cancelled)
        assert not player.play().wrong
        return {request.number: request.outcomes for request in player.requests}

    def differences(cancelled: Collection[int] | None) -> tuple[list[int], list[int]]:
        got = outcomes(cancelled)
        gone = [number for number, outcome in got.items() if outcome == ["cancelled"]]
        others = set(got) - set(gone)
        return gone, [number for number in others if got[number] != undisturbed[number]]

    undisturbed = outcomes(())
    everybody, different = differences(None)
    assert len(everybody) > 20
    assert not different
    for number in everybody[:CANCELS]:
        assert differences({number}) == ([number], [])
