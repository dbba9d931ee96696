"""Runs the large storms and prints what they came to: ``python -m tests.storm``."""

from __future__ import annotations

import faulthandler
import logging
import os
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial

from .crowds import LOOPS, cancelled_around_completion, many_models, on_all_loops_and_in_threads
from .forks import forks_in_a_storm

AT_MOST = 300.0
"""How long one storm may take before it counts as hung, in seconds."""


def storms() -> Iterator[tuple[str, Callable[[], str]]]:
    for loop in LOOPS:
        # In debug mode each takes ten times as long.
        requests = 20_000 if "debug" in loop else 100_000
        yield (
            f"{requests:,} requests for 10,000 models, {loop}",
            partial(many_models, loop, requests, 10_000),
        )
        cancelled = partial(cancelled_around_completion, loop, 20_000)
        yield f"20,000 callers cancelled around completion, {loop}", cancelled
        if loop != "trio" and sys.version_info >= (3, 12):
            yield f"the same with eager tasks, {loop}", partial(cancelled, eager=True)
    yield (
        "all loops and as many threads at once, 20,000 requests each",
        partial(on_all_loops_and_in_threads, 20_000, 1_000),
    )
    if hasattr(os, "fork"):
        yield "100 forks in the middle of loads", partial(forks_in_a_storm, 100, 5_000)


def main() -> None:
    logging.getLogger("asyncio").setLevel(logging.ERROR)  # in debug mode it tells of slow steps
    for name, storm in storms():
        faulthandler.dump_traceback_later(AT_MOST, exit=True)
        began = time.monotonic()
        figures = storm()
        print(f"{name}: {figures}; {time.monotonic() - began:.1f} s", flush=True)
    faulthandler.cancel_dump_traceback_later()


if __name__ == "__main__":
    main()
