"""Soaks for so many seconds, on one loop after the other: ``python -m tests.soak 60``."""

from __future__ import annotations

import faulthandler
import logging
import sys

from .figures import Held, growth, spread
from .run import CLIENTS, LOOPS, Soak

MOST_GROWTH = 1.0
"""Megabytes in a minute."""


def main() -> int:
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 60.0
    faulthandler.dump_traceback_later(2 * seconds + 120, exit=True)
    logging.disable()  # abandoned loads are warned of
    soak, wrong = Soak(seed=1), []
    columns = (*Held._fields, "RSS MB", "MB/min")
    print(f"{'loop':<8}", *(f"{name:>10}" for name in ("calls", "loads", "models", *columns)))
    # With more clients in the warm-up memory has its size soon; then nothing has to grow.
    for name, loop in {"warm-up": "asyncio", **{loop: loop for loop in LOOPS}}.items():
        before = soak.done
        rounds = soak.on(
            loop, seconds / (len(LOOPS) + 1), CLIENTS if name in LOOPS else 4 * CLIENTS
        )
        done = [f"{now - then}" for now, then in zip(soak.done, before, strict=True)]
        held = zip(*(one for each in rounds for one in each.held), strict=True)
        memory = [spread(each.megabytes for each in rounds), f"{growth(rounds):.2f}"]
        print(f"{name:<8}", *(f"{text:>10}" for text in (*done, *map(spread, held), *memory)))
        sys.stdout.flush()
        if name in LOOPS and growth(rounds) >= MOST_GROWTH:
            wrong.append(f"{loop}: memory grows by {growth(rounds):.2f} MB a minute")
    print(soak.close())
    print(*wrong, sep="\n")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
