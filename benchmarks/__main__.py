"""``python -m benchmarks [names] [--loop asyncio|uvloop|trio] [--quick]``."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Callable, Iterable, Sequence
from importlib.util import find_spec
from pathlib import Path
from time import perf_counter
from types import MappingProxyType

from benchmarks import (
    bulk,
    caikit_drop_in,
    callers,
    cancel,
    cold,
    configs,
    demo_models,
    exits,
    gaps,
    growth,
    heartbeat,
    imports,
    keeping,
    keys,
    late,
    leases,
    one_load,
    orders,
)
from benchmarks.environments import run_elsewhere, this_run
from benchmarks.frame import LOOPS, Setting
from benchmarks.page import PAGE, RESULTS, rewrite
from benchmarks.results import WITHOUT_A_LOOP, Comparison, Results, Row
from benchmarks.table import show

Measure = Callable[[Setting], Sequence[Row | Comparison]]

ON_A_LOOP: MappingProxyType[str, Measure] = MappingProxyType(
    {
        "one_load": one_load.measure,
        "callers": callers.measure,
        "bulk": bulk.measure,
        "late": late.measure,
        "leases": leases.measure,
        "cancel": cancel.measure,
        "exits": exits.measure,
        "gaps": gaps.measure,
        "heartbeat": heartbeat.measure,
        "demo": demo_models.measure,
        "caikit_loads": caikit_drop_in.measure,
    }
)
WITHOUT: MappingProxyType[str, Measure] = MappingProxyType(
    {
        "orders": orders.measure,
        "cold": cold.measure,
        "growth": growth.measure,
        "keeping": keeping.measure,
        "imports": imports.measure,
        "configs": configs.measure,
        "keys": keys.measure,
        "caikit_init": caikit_drop_in.measure_init,
    }
)
KNOWN = (*ON_A_LOOP, *WITHOUT)
NEEDS = MappingProxyType(
    {
        "demo": "onnxruntime",
        "keeping": "onnxruntime",
        "caikit_loads": "caikit",
        "caikit_init": "caikit",
    }
)


def main() -> int:
    """Measure, print, and write the results where that was asked for."""
    arguments = parsed()
    if arguments.render:
        rewrite(Results.read(RESULTS))
        return 0
    logging.getLogger("anyload").setLevel(logging.ERROR)  # it warns of each abandoned thread
    names, loops = arguments.names or KNOWN, arguments.loop or tuple(LOOPS)
    lacking = [name for name in names if name in NEEDS and not find_spec(NEEDS[name])]
    results = this_run()
    print(f"{results.where}. Medians; only ratios hold on a busy machine.", flush=True)
    measure(results, [name for name in names if name not in lacking], loops, arguments.quick)
    for python in arguments.also:
        lacking = run_elsewhere(python, lacking, loops, results, arguments.quick)
    for name in lacking:
        print(f"{name}: skipped, {NEEDS[name]} is not installed; see its docstring")
    missed = sum(row.missed for found in results.found.values() for row in found.rows)
    print(f"\n{missed} of the targets missed." if missed else "\nEvery target met.")
    if arguments.json:
        results.write(arguments.json)
    if arguments.write:
        if arguments.names or arguments.loop or arguments.quick:
            print(f"This was not a full run: {PAGE.name} is as it was.")
        else:
            results.write(RESULTS)
            rewrite(Results.read(RESULTS))  # rounded as they are there
    return 0


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="name", help=f"one of {', '.join(KNOWN)}")
    parser.add_argument("--loop", choices=tuple(LOOPS), action="append", help="default: all")
    parser.add_argument("--quick", action="store_true", help="to see that it runs")
    parser.add_argument(
        "--also",
        action="append",
        default=[],
        metavar="PYTHON",
        help="the interpreter of an environment that has what this one lacks",
    )
    parser.add_argument("--json", type=Path, help="write what is found to this file")
    parser.add_argument(
        "--write", action="store_true", help=f"write {RESULTS.name}, {PAGE.name} and the charts"
    )
    parser.add_argument(
        "--render", action="store_true", help="measure nothing; make the page from the results"
    )
    arguments = parser.parse_args()
    if unknown := set(arguments.names).difference(KNOWN):
        parser.error(f"there is no {', '.join(sorted(unknown))}; there are {', '.join(KNOWN)}")
    return arguments


def measure(results: Results, names: list[str], loops: Iterable[str], quick: bool) -> None:
    """Measure, and print what was found on each loop."""
    here = [loop for loop in loops if loop == "asyncio" or find_spec(loop)]
    for title, loop, table in (
        *((loop, loop, ON_A_LOOP) for loop in here),
        (WITHOUT_A_LOOP, "asyncio", WITHOUT),
    ):
        setting = Setting(loop, quick)
        found = results.on(title)
        for name in names:
            if name in table:
                began = perf_counter()
                found.add(table[name](setting))
                took = perf_counter() - began
                print(f"{title}: {name} took {took:.0f} s", file=sys.stderr, flush=True)
        if found:
            show(title, found)
    results.done += names


if __name__ == "__main__":
    sys.exit(main())
