"""Runs the tests against a mutant, until one of them does not pass.

The model test goes first, in a fork of this process, which has imported what takes long; for the
files that make locks and threads, which are no part of the model, the simulation. What it
does not notice, the other tests of loading have to: first those of the file that is broken. A test
that fails is asked once more, by itself: on a busy machine it may have been that.
"""

from __future__ import annotations

import importlib
import multiprocessing
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from .mutants import Mutant

ROOT = Path(__file__).parents[2]

MODEL = ["tests/model/test_model.py", "tests/model"]
SIMULATION = ["tests/simulation/test_simulation.py", "tests/simulation"]

WITH_THREADS = ("outbox", "parking", "waiters", "watchdog", "workers")
"""The files that make locks and threads, or wake who waits."""

OTHERS = [
    *("admission", "alarms", "bulk", "closing", "closing_inside", "core", "failures", "faults"),
    *(
        "groups",
        "guard",
        "initializer",
        "interpreter",
        "interrupts",
        "invariants",
        "kept_apart",
        "limits",
    ),
    *("lingering", "lookups", "loops", "nested", "outbox", "phases", "plan", "prefetching"),
    *("prepare", "queue", "semantics", "watchdog", "workers"),
]
"""The other tests of loading."""

LAST = ["tests/inputs/test_table.py"]
"""What callers may say."""

ONE_LOOP = ["-k", "not uvloop and not trio"]
"""On asyncio only: what decides under the lock knows of no loop."""

WITH_LOOPS = ("callers", *WITH_THREADS)
"""The files that do: those who wait, and those who wake them."""

NEAREST = {
    "callers": ("interrupts", "core", "semantics"),
    "closing": ("core",),
    "core": ("closing", "workers"),
    "dispatch": ("core", "prefetching"),
    "flight": ("core", "phases", "semantics"),
    "flights": ("core", "limits", "phases"),
    "inside": ("nested",),
    "obstacles": ("groups",),
    "parking": ("workers", "watchdog", "interrupts"),
    "preparations": ("phases", "prepare"),
    "process": ("groups", "workers"),
    "releases": ("lingering", "phases"),
    "restoring": ("guard",),
    "result": ("phases",),
    "slots": ("limits",),
    "turns": ("guard", "limits", "nested", "phases"),
    "waiters": ("interrupts", "loops", "semantics"),
    "watchdog": ("interrupts", "faults", "limits"),
    "workers": ("interrupts",),
}
"""Which of them come next, after the one that is called like the file that is broken."""

WARM = ("pytest", "hypothesis.stateful", "anyio.pytest_plugin", "pydantic", "trio", "yaml")
"""What takes long to import, and is the same for every mutant."""

UNNAMED = "a test that did not come to its end"

ENVIRONMENT = {
    "MODEL_RUNS": "300",
    "MODEL_STEPS": "60",
    "LINE_SEEDS": "12",
    **os.environ,
    "MODEL_SHRINKS": "no",
    "PYTHONDONTWRITEBYTECODE": "1",
}


class Limits(NamedTuple):
    """How long one run of tests may take, which has noticed if it hangs; which tests are run."""

    seconds: float
    model_only: bool


class Verdict(NamedTuple):
    """Which test has noticed a mutant, none if that is empty, and after how long."""

    noticed_by: str
    seconds: float


def warm_up() -> None:
    """Import what every run of the model test will need."""
    for name in WARM:
        importlib.import_module(name)


def judge(sources: Path, mutant: Mutant | None, limits: Limits) -> Verdict:
    """Return what notices that something is broken in a copy of these sources, if anything is."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as directory:
        copy = Path(directory)
        shutil.copytree(sources, copy, dirs_exist_ok=True)
        if mutant is not None:
            (copy / "anyload" / "_load" / f"{mutant.file}.py").write_text(mutant.text)
        noticed_by = _noticed_by(copy, "" if mutant is None else mutant.file, limits)
        return Verdict(noticed_by, time.monotonic() - began)


def _noticed_by(copy: Path, broken: str, limits: Limits) -> str:
    options = [f"--basetemp={copy / 'temp'}", "-qxp", "no:cacheprovider", "--hypothesis-seed=0"]
    threads = broken in WITH_THREADS
    if not _passes_here(copy, [*options, *(SIMULATION if threads else MODEL)], limits.seconds):
        return "simulation" if threads else "model"
    if limits.model_only:
        return ""
    nearest = (*NEAREST.get(broken, ()), "kept_apart")
    others = sorted(OTHERS, key=lambda name: (name != broken, name not in nearest))
    loops = [] if broken in WITH_LOOPS else ONE_LOOP
    tests = [*loops, *(f"tests/test_{name}.py" for name in others), *LAST]
    while noticed_by := _failing(copy, [*options, *tests], limits.seconds):
        if noticed_by == UNNAMED or _failing(copy, [*options, noticed_by], limits.seconds):
            return noticed_by
        # It does not fail by itself: that was the machine.
        tests += ["--deselect", noticed_by]
    return ""


def _passes_here(copy: Path, arguments: list[str], seconds: float) -> bool:
    """Run tests in a fork of this process."""
    process = multiprocessing.get_context("fork").Process(target=_test, args=(copy, arguments))
    process.start()
    process.join(seconds)
    if process.is_alive():
        process.kill()
        process.join()
    return _passed(process.exitcode)


def _test(copy: Path, arguments: list[str]) -> None:
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    os.environ.update(_environment(copy))
    sys.path.insert(0, str(copy))
    sys.dont_write_bytecode = True
    pytest = importlib.import_module("pytest")
    # What is imported already is not rewritten, and need not be.
    os._exit(int(pytest.main([*arguments, "-W", "ignore::pytest.PytestAssertRewriteWarning"])))


def _failing(copy: Path, arguments: list[str], seconds: float) -> str:
    """Run tests in a process of their own; return the first that fails, nothing if none does."""
    command = [sys.executable, "-m", "pytest", *arguments]
    environment = _environment(copy)
    try:
        done = subprocess.run(
            command,
            cwd=ROOT,
            env=environment,
            capture_output=True,
            timeout=seconds,
            check=False,
            text=True,
            errors="replace",
        )
    except subprocess.TimeoutExpired:
        return UNNAMED
    if _passed(done.returncode):
        return ""
    # A line of a log that a test has left begins with ERROR as well.
    found = re.search(r"^(?:FAILED|ERROR) (tests/.+?)(?: - .*)?$", done.stdout, re.MULTILINE)
    return found[1] if found else UNNAMED


def _environment(copy: Path) -> dict[str, str]:
    storage = str(copy / ".hypothesis")
    return {**ENVIRONMENT, "PYTHONPATH": str(copy), "HYPOTHESIS_STORAGE_DIRECTORY": storage}


def _passed(code: int | None) -> bool:
    if code in (4, 5):
        raise RuntimeError("there was nothing to run, or not like this")
    return code == 0
