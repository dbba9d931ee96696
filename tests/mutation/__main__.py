"""Runs the tests against mutants of the core: ``python -m tests.mutation [word ...]``.

First each rule in ``rules/`` is broken, then as many of the mutants that mutmut makes are tried as
``--sample`` says. Of each kind 95 % have to be noticed, and every other one needs its reason. Given
words, only mutants with one of them in their description or place are tried.
"""

from __future__ import annotations

import argparse
import functools
import multiprocessing
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import NamedTuple

from .judging import ROOT, Limits, Verdict, judge, warm_up
from .mutants import Mutant
from .remembered import Remembered
from .rules import broken_rules
from .sampling import sampled

ENOUGH = 95.0
"""How many of the mutants of a kind have to be noticed, in percent."""


class Run(NamedTuple):
    """What every look at a mutant has in common."""

    sources: Path
    limits: Limits
    until: float
    remembered: Remembered


def look_at(mutant: Mutant, run: Run) -> Verdict | None:
    """Return who notices a mutant; None if the time is up."""
    if noticed_by := run.remembered.noticed_by(mutant):
        return Verdict(noticed_by, 0.0)
    if time.monotonic() > run.until:
        return None
    verdict = judge(run.sources, mutant, run.limits)
    run.remembered.add(mutant, verdict.noticed_by)
    return verdict


def main() -> int:
    options = _options()
    os.chdir(ROOT)
    warm_up()
    with tempfile.TemporaryDirectory() as directory:
        # What is tested is what is there now, whoever goes on working on it.
        sources = Path(directory)
        shutil.copytree("src", sources, dirs_exist_ok=True)
        return _run(options, sources)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.mutation", description=__doc__)
    parser.add_argument("words", nargs="*", help="only mutants with one of these")
    parser.add_argument("--no-rules", action="store_true", help="leave out those in rules/")
    parser.add_argument("--sample", default="100", help="how many of mutmut's; ALL is all of them")
    parser.add_argument("--seed", type=int, default=0, help="which of mutmut's")
    parser.add_argument("--minutes", type=float, default=90.0, help="when to begin no other one")
    parser.add_argument("--jobs", type=int, default=min(2, os.cpu_count() or 1), help="at once")
    parser.add_argument("--seconds", type=float, default=300.0, help="how long tests may take")
    parser.add_argument("--model-only", action="store_true", help="run the model test only")
    parser.add_argument("--resume", type=Path, help="a file to remember in what was noticed")
    return parser.parse_args()


def _run(options: argparse.Namespace, sources: Path) -> int:
    def read(file: str) -> str:
        return (sources / "anyload" / "_load" / f"{file}.py").read_text()

    until = time.monotonic() + options.minutes * 60
    size = None if options.sample == "ALL" else int(options.sample)
    rules, moved = _parted(broken_rules(read))
    made, gone = _parted(sampled(read, options.words, size, options.seed))
    if wrong := [*moved, *gone]:
        print("the core has changed, and these have to be written anew:", *wrong, sep="\n  ")
        return 2
    limits = Limits(options.seconds, options.model_only)
    if who := judge(sources, None, limits).noticed_by:
        print(f"without a mutant, the tests do not pass: {who}")
        return 2
    run = Run(sources, limits, until, Remembered(options.resume, sources))
    if options.words:
        rules = [rule for rule in rules if any(word in str(rule) for word in options.words)]
    kinds = {"that mutmut made": made}
    if not options.no_rules:
        kinds = {"of the rules": rules, **kinds}
    failed = False
    with ProcessPoolExecutor(options.jobs, multiprocessing.get_context("fork")) as pool:
        for kind, mutants in kinds.items():
            look = functools.partial(look_at, run=run)
            verdicts = []
            for mutant, verdict in zip(mutants, pool.map(look, mutants), strict=True):
                verdicts.append((mutant, verdict))
                if verdict is not None:
                    who = verdict.noticed_by or "NO TEST"
                    print(f"{verdict.seconds:6.1f} s  {mutant}\n    {who}", flush=True)
            failed |= not is_enough(kind, verdicts)
    return int(failed)


def _parted(found: Iterable[Mutant | str]) -> tuple[list[Mutant], list[str]]:
    both = list(found)
    return (
        [mutant for mutant in both if isinstance(mutant, Mutant)],
        [problem for problem in both if isinstance(problem, str)],
    )


def is_enough(kind: str, tried: list[tuple[Mutant, Verdict | None]]) -> bool:
    """Print what came of the mutants of a kind; return whether enough of them were noticed."""
    verdicts = [(mutant, verdict) for mutant, verdict in tried if verdict is not None]
    noticed = [verdict.noticed_by for _, verdict in verdicts if verdict.noticed_by]
    unnoticed = [mutant for mutant, verdict in verdicts if not verdict.noticed_by]
    share = 100.0 * len(noticed) / max(len(verdicts), 1)
    played = noticed.count("model") + noticed.count("simulation")
    print(
        f"{len(verdicts)} mutants {kind}: {played} noticed by the model test or the simulation, "
        f"{len(noticed) - played} by other tests, {len(unnoticed)} by none; {share:.1f} % noticed"
    )
    if len(verdicts) < len(tried):
        print(f"  the time was up before {len(tried) - len(verdicts)} others")
    for mutant in unnoticed:
        print(f"  {mutant}\n    {mutant.unseen}" if mutant.unseen else f"@ {mutant.change}")
    for mutant, verdict in verdicts:
        if mutant.unseen and verdict.noticed_by:
            print(f"  noticed after all, its reason can go: {mutant}")
    return not verdicts or (share >= ENOUGH and all(mutant.unseen for mutant in unnoticed))


if __name__ == "__main__":
    sys.exit(main())
