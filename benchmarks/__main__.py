"""``python -m benchmarks [names] [--loop asyncio|uvloop|trio] [--quick]``."""

from __future__ import annotations

import argparse
import os
import platform
import sys
from collections.abc import Callable
from importlib.metadata import version
from importlib.util import find_spec
from types import MappingProxyType

from benchmarks import (
    bulk,
    caikit_drop_in,
    callers,
    cancel,
    configs,
    exits,
    heartbeat,
    imports,
    keys,
    late,
    one_load,
)
from benchmarks.frame import LOOPS, Row, Setting, show

Measure = Callable[[Setting], list[Row]]

ON_A_LOOP: MappingProxyType[str, Measure] = MappingProxyType(
    {
        "one_load": one_load.measure,
        "callers": callers.measure,
        "bulk": bulk.measure,
        "late": late.measure,
        "cancel": cancel.measure,
        "exits": exits.measure,
        "heartbeat": heartbeat.measure,
        "caikit_loads": caikit_drop_in.measure,
    }
)
WITHOUT: MappingProxyType[str, Measure] = MappingProxyType(
    {
        "imports": imports.measure,
        "configs": configs.measure,
        "keys": keys.measure,
        "caikit_init": caikit_drop_in.measure_init,
    }
)
NEEDS = MappingProxyType({"caikit_loads": "caikit", "caikit_init": "caikit"})


def main() -> int:
    """Measure, print, and return how many targets were missed, as far as a status can say."""
    known = (*ON_A_LOOP, *WITHOUT)
    parser = argparse.ArgumentParser("python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="name", help=f"one of {', '.join(known)}")
    parser.add_argument("--loop", choices=tuple(LOOPS), action="append", help="default: all")
    parser.add_argument("--quick", action="store_true", help="to see that it runs")
    arguments = parser.parse_args()
    names = arguments.names or known
    if unknown := set(names).difference(known):
        parser.error(f"there is no {', '.join(sorted(unknown))}; there are {', '.join(known)}")

    print(
        f"CPython {platform.python_version()}, anyio {version('anyio')}, {os.cpu_count()} cores."
        " Measured and absolute are medians; only ratios hold on a busy machine."
    )
    for name in sorted(set(names).intersection(NEEDS)):
        if not find_spec(NEEDS[name]):
            print(f"{name}: skipped, {NEEDS[name]} is not installed; see its docstring")
            names = [other for other in names if other != name]
    missed = 0
    for title, loop, table in (
        *((loop, loop, ON_A_LOOP) for loop in arguments.loop or LOOPS),
        ("without a loop", "asyncio", WITHOUT),
    ):
        setting = Setting(loop, arguments.quick)
        rows = [row for name in names if name in table for row in table[name](setting)]
        if rows:
            show(title, rows)
        missed += sum(row.missed for row in rows)
    print(f"\n{missed} of the targets missed." if missed else "\nEvery target met.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
