"""Runs the tests of concurrency again and again: ``python -m tests.repeat [times]``.

A test of threads that passes may have been lucky. Some runs go side by side, so that threads are
put off at places where they seldom are on a quiet machine. What fails even once is a bug.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

ROOT = Path(__file__).parents[1]
NAMES = (
    *("admission", "bulk", "closing", "closing_inside", "core", "faults", "groups", "interpreter"),
    *("interrupts", "invariants", "kept_apart", "limits", "lingering", "lookups", "loops"),
    *("model_files", "nested", "prefetching", "prepare", "queue", "semantics", "watchdog"),
    "workers",
)
DIRECTORIES = ("model", "simulation", "storm")
TESTS = [f"tests/test_{name}.py" for name in NAMES] + [f"tests/{name}" for name in DIRECTORIES]
SECONDS = 900
"""How long one run may take; it takes less than a tenth of that."""


def failed_in_one_run(number: int) -> list[str]:
    """Run all of them once, and return what failed: tests, or the end of the output."""
    with tempfile.TemporaryDirectory() as directory:
        options = ["-q", "-p", "no:cacheprovider", f"--basetemp={directory}/temp"]
        command = [sys.executable, "-m", "pytest", *options, *TESTS]
        try:
            done = subprocess.run(
                command, cwd=ROOT, capture_output=True, text=True, timeout=SECONDS, check=False
            )
        except subprocess.TimeoutExpired:
            return [f"run {number} did not end in {SECONDS} s"]
    if done.returncode == 0:
        return []
    failed = re.findall(r"^(?:FAILED|ERROR) (\S+)", done.stdout, re.MULTILINE)
    kept = Path(tempfile.mkdtemp(prefix="anyload-repeat-"), f"{number}.txt")
    kept.write_text(done.stdout + done.stderr)
    print(f"run {number} failed: {kept}", flush=True)
    return failed or [f"run {number} ended with {done.returncode}"]


def all_runs(times: int, side_by_side: int) -> Iterator[list[str]]:
    """Yield what failed in each run, as they end."""
    with ThreadPoolExecutor(side_by_side) as pool:
        runs = [pool.submit(failed_in_one_run, number) for number in range(times)]
        for done in as_completed(runs):
            yield done.result()


def main() -> int:
    """Run them, and say what failed how often."""
    parser = argparse.ArgumentParser(prog="python -m tests.repeat", description=__doc__)
    parser.add_argument("times", nargs="?", type=int, default=100)
    parser.add_argument("--side-by-side", type=int, default=3, help="so many runs at once")
    options = parser.parse_args()
    began, failures, passed = time.monotonic(), Counter[str](), 0
    for failed in all_runs(options.times, options.side_by_side):
        failures.update(failed)
        passed += not failed
        if not passed % 10 and not failed:
            print(f"{passed} passed so far", flush=True)
    for test, often in failures.most_common():
        print(f"{often:4} times: {test}")
    minutes = (time.monotonic() - began) / 60
    print(f"{passed} of {options.times} runs passed, in {minutes:.0f} minutes")
    return int(bool(failures))


if __name__ == "__main__":
    sys.exit(main())
