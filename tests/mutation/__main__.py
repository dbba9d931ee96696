"""Runs the tests against mutants of the core: ``python -m tests.mutation [word ...]``.

Each rule in ``rules/`` is broken in a copy of the sources. The model test goes first; what it does
not notice, the other tests of loading have to. Given words, only rules whose text has one of them
are broken.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
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


class Verdict(NamedTuple):
    """What came of one mutant: who has noticed it, and after how long."""

    rule: Rule
    noticed_by: str
    seconds: float


class Copies:
    """Copies of the sources, one for each mutant that is looked at at a time.

    Args:
        directory: where they are.
        number: how many.
        seconds: how long one run of tests may take; one that hangs has noticed.
        model_only: whether no other test is run.
    """

    def __init__(self, directory: Path, number: int, seconds: float, model_only: bool) -> None:
        self._seconds = seconds
        self._model_only = model_only
        self._free: SimpleQueue[Path] = SimpleQueue()
        for place in range(number):
            copy = directory / str(place)
            shutil.copytree(ROOT / "src", copy)
            self._free.put(copy)

    def look_at(self, rule: Rule) -> Verdict:
        """Return who notices that a rule is broken."""
        copy, began = self._free.get(), time.monotonic()
        file = copy / "anyload" / "_load" / f"{rule.file}.py"
        text = file.read_text()
        file.write_text(rule.broken(text))
        try:
            noticed_by = self.noticed_by(copy)
        finally:
            file.write_text(text)
            self._free.put(copy)
        return Verdict(rule, noticed_by, time.monotonic() - began)

    def noticed_by(self, copy: Path | None = None) -> str:
        """Return which tests do not pass with a copy: model, others, or none."""
        copy = copy or self._free.get()
        if not self._passes(copy, MODEL):
            return "model"
        others = [f"tests/test_{name}.py" for name in OTHERS]
        if not self._model_only and not self._passes(copy, others):
            return "others"
        return ""

    def _passes(self, copy: Path, tests: list[str]) -> bool:
        command = [sys.executable, "-m", "pytest", "-qx", "-p", "no:cacheprovider"]
        environment = {
            "MODEL_RUNS": "500",
            "MODEL_STEPS": "60",
            **os.environ,
            "PYTHONPATH": str(copy),
            "PYTHONDONTWRITEBYTECODE": "1",
            "MODEL_SHRINKS": "no",
            "HYPOTHESIS_STORAGE_DIRECTORY": str(copy / ".hypothesis"),
        }
        try:
            done = subprocess.run(
                [*command, "--hypothesis-seed=0", f"--basetemp={copy / 'temp'}", *tests],
                cwd=ROOT,
                env=environment,
                capture_output=True,
                text=True,
                timeout=self._seconds,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return False
        if done.returncode in (4, 5):  # there was nothing to run, or not like this
            raise RuntimeError(done.stdout + done.stderr)
        return done.returncode == 0


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.mutation", description=__doc__)
    parser.add_argument("words", nargs="*", help="only rules whose text has one of these")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="how many at once")
    parser.add_argument("--seconds", type=float, default=150.0, help="how long a run may take")
    parser.add_argument("--model-only", action="store_true", help="run the model test only")
    options = parser.parse_args()
    rules = [
        rule
        for rule in read_rules()
        if not options.words or any(word in str(rule) for word in options.words)
    ]
    for rule in rules:
        rule.broken((ROOT / "src" / "anyload" / "_load" / f"{rule.file}.py").read_text())
    with tempfile.TemporaryDirectory() as directory:
        limits = options.seconds, options.model_only
        copies = Copies(Path(directory) / "mutants", options.jobs, *limits)
        sane = Copies(Path(directory) / "sane", 1, *limits)
        if noticed_by := sane.noticed_by():
            print(f"without a mutant, the tests do not pass: {noticed_by}")
            return 2
        verdicts = []
        with ThreadPoolExecutor(options.jobs) as pool:
            for verdict in pool.map(copies.look_at, rules):
                verdicts.append(verdict)
                noticed_by = verdict.noticed_by or "NOBODY"
                print(f"{noticed_by:7} {verdict.seconds:6.1f} s  {verdict.rule}", flush=True)
    return summed_up(verdicts)


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
