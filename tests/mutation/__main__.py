"""Runs the tests against mutants of the core: ``python -m tests.mutation [word ...]``.

Each rule in ``rules/`` is broken in a copy of the sources. The model test goes first; what it does
not notice, the other tests of loading have to. Given words, only rules whose text has one of them
are broken.
"""

from __future__ import annotations

import argparse
import functools
import importlib
import multiprocessing
import os
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import NamedTuple

from .rules import Rule, read_rules

ROOT = Path(__file__).parents[2]
ENOUGH = 95.0
"""How many of the mutants have to be noticed, in percent."""

MODEL = ["tests/model/test_model.py", "tests/model"]
OTHERS = [
    *("admission", "alarms", "bulk", "closing", "core", "faults", "groups", "invariants"),
    *("limits", "lingering", "loops", "nested", "outbox", "prepare", "queue", "semantics"),
    *("workers",),
]
"""The other tests of loading."""

WARM = ("pytest", "hypothesis.stateful", "anyio.pytest_plugin", "pydantic", "trio", "yaml")
"""What takes long to import, and is the same for every mutant."""

ENVIRONMENT = {
    "MODEL_RUNS": "300",
    "MODEL_STEPS": "60",
    **os.environ,
    "MODEL_SHRINKS": "no",
    "PYTHONDONTWRITEBYTECODE": "1",
}


class Verdict(NamedTuple):
    """What came of one mutant: who has noticed it, and after how long."""

    rule: Rule
    noticed_by: str
    seconds: float


class Limits(NamedTuple):
    """How long one run of tests may take, which has noticed if it hangs; which tests are run."""

    seconds: float
    model_only: bool


def look_at(rule: Rule, limits: Limits) -> Verdict:
    """Return who notices that a rule is broken."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as directory:
        copy = Path(directory)
        shutil.copytree(ROOT / "src", copy, dirs_exist_ok=True)
        file = copy / "anyload" / "_load" / f"{rule.file}.py"
        file.write_text(rule.broken(file.read_text()))
        return Verdict(rule, noticed_by(copy, limits), time.monotonic() - began)


def noticed_by(copy: Path, limits: Limits) -> str:
    """Return which tests do not pass with a copy of the sources: model, others, or none."""
    options = [f"--basetemp={copy / 'temp'}", "-qxp", "no:cacheprovider", "--hypothesis-seed=0"]
    if not _passes_here(copy, [*options, *MODEL], limits.seconds):
        return "model"
    others = [f"tests/test_{name}.py" for name in OTHERS]
    if not limits.model_only and not _passes(copy, [*options, *others], limits.seconds):
        return "others"
    return ""


def _passes_here(copy: Path, arguments: list[str], seconds: float) -> bool:
    """Run tests in a fork of this process, which has imported what takes long."""
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


def _passes(copy: Path, arguments: list[str], seconds: float) -> bool:
    """Run tests in a process of their own."""
    command = [sys.executable, "-m", "pytest", *arguments]
    environment = _environment(copy)
    try:
        done = subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, timeout=seconds, check=False
        )
    except subprocess.TimeoutExpired:
        return False
    return _passed(done.returncode)


def _environment(copy: Path) -> dict[str, str]:
    storage = str(copy / ".hypothesis")
    return {**ENVIRONMENT, "PYTHONPATH": str(copy), "HYPOTHESIS_STORAGE_DIRECTORY": storage}


def _passed(code: int | None) -> bool:
    if code in (4, 5):
        raise RuntimeError("there was nothing to run, or not like this")
    return code == 0


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.mutation", description=__doc__)
    parser.add_argument("words", nargs="*", help="only rules whose text has one of these")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="how many at once")
    parser.add_argument("--seconds", type=float, default=300.0, help="how long a run may take")
    parser.add_argument("--model-only", action="store_true", help="run the model test only")
    options = parser.parse_args()
    os.chdir(ROOT)
    rules = [
        rule
        for rule in read_rules()
        if not options.words or any(word in str(rule) for word in options.words)
    ]
    if moved := [problem for rule in rules if (problem := not_there(rule))]:
        print("the core has changed, and these have to be written anew:", *moved, sep="\n  ")
        return 2
    for name in WARM:
        importlib.import_module(name)
    limits = Limits(options.seconds, options.model_only)
    with tempfile.TemporaryDirectory() as directory:
        shutil.copytree(ROOT / "src", directory, dirs_exist_ok=True)
        if who := noticed_by(Path(directory), limits):
            print(f"without a mutant, the tests do not pass: {who}")
            return 2
    verdicts = []
    with ProcessPoolExecutor(options.jobs, multiprocessing.get_context("fork")) as pool:
        for verdict in pool.map(functools.partial(look_at, limits=limits), rules):
            verdicts.append(verdict)
            who = verdict.noticed_by or "NOBODY"
            print(f"{who:7} {verdict.seconds:6.1f} s  {verdict.rule}", flush=True)
    return summed_up(verdicts)


def not_there(rule: Rule) -> str:
    """Return why a rule cannot be broken, if it cannot."""
    try:
        rule.broken((ROOT / "src" / "anyload" / "_load" / f"{rule.file}.py").read_text())
    except ValueError as problem:
        return str(problem)
    return ""


def summed_up(verdicts: list[Verdict]) -> int:
    """Print what came of the mutants; return whether too many were not noticed."""
    by_model = sum(verdict.noticed_by == "model" for verdict in verdicts)
    by_others = sum(verdict.noticed_by == "others" for verdict in verdicts)
    unnoticed = [verdict.rule for verdict in verdicts if not verdict.noticed_by]
    share = 100.0 * (by_model + by_others) / max(len(verdicts), 1)
    print(
        f"{len(verdicts)} mutants: {by_model} noticed by the model test, {by_others} by other "
        f"tests, {len(unnoticed)} by nobody; {share:.1f} % noticed"
    )
    for rule in unnoticed:
        print(f"  {rule}\n    {rule.unseen or 'NO REASON IS GIVEN'}")
    return int(share < ENOUGH or not all(rule.unseen for rule in unnoticed))


if __name__ == "__main__":
    sys.exit(main())
