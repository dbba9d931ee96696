"""Plays seeds: ``python -m tests.simulation 1234``, or ``--seeds 200`` for many."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

from .keeping import play as keeping
from .play import play
from .stage import REQUESTS
from .world import make_models


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("seeds", nargs="*", type=int, help="which seeds; their traces are printed")
    parser.add_argument("--seeds", dest="many", type=int, default=0, help="how many, from 0")
    parser.add_argument("--requests", type=int, default=REQUESTS, help="how many for each seed")
    parser.add_argument("--repository", action="store_true", help="play one that keeps models")
    parser.add_argument("--lines", action="store_true", help="switch threads on any line, too")
    options = parser.parse_args()
    began, failed, steps, seconds = time.monotonic(), [], 0, 0.0
    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory)
        make_models(root)
        for seed in (*options.seeds, *range(options.many)):
            if options.repository:
                played = keeping.play(seed, size=options.requests, on_lines=options.lines)
            else:
                played = play(seed, root, size=options.requests, on_lines=options.lines)
            steps += played.steps
            seconds += played.seconds
            if seed in options.seeds:
                print("\n".join(played.trace))
                print(f"seed {seed}: {played.digest}")
            if played.wrong:
                failed.append(seed)
                print(f"seed {seed} failed:", *played.wrong[:10], sep="\n  ")
                kinds = {"--repository": options.repository, "--lines": options.lines}
                args = " ".join(kind for kind, wanted in kinds.items() if wanted)
                print(f"again: make simulation SEED={seed} ARGS='{args}'")
    number = len(options.seeds) + options.many
    print(
        f"{number} seeds of {options.requests} requests, {steps} steps of threads, "
        f"{seconds:.0f} virtual seconds in {time.monotonic() - began:.1f} s; {len(failed)} failed"
    )
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
