"""What the command line understands, and what its ``--help`` says."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from . import __version__
from ._bench.tables import BENCH_KEYS
from ._listing import LISTING_KEYS
from ._tables import JSON_KEYS
from ._terminal import importable

ROUNDS, REPEATS, PROCESS_SECONDS, MOST_SECONDS = 10, 5, 300.0, 1e6

EPILOG = f"""\
exit codes:
  0    load and bench: every model loaded; plan: every model has a backend to try;
       doctor: every model loads, and what its module declares is enough
  1    that is not so of at least one
  2    the command line, the configuration or a file cannot be used
  130  interrupted, as by Ctrl-C; 143 by SIGTERM, of doctor and bench; load --keep is ended by
       either, and what it ends with is as of load

The result is on stdout; progress, warnings and errors are on stderr. With exit code 130 there is
no result, with 2 only where a file could not be written at the end.

{JSON_KEYS}
{LISTING_KEYS}
{BENCH_KEYS}"""

ONLY_FOR = (
    (("doctor",), ("rounds", "examine")),
    (("bench",), ("repeats", "at_once", "compare", "measure", "turn")),
    (("doctor", "bench"), ("timeout",)),
    (("load",), ("keep",)),
    (("load", "bench"), ("timeline", "trace")),
)
"""Which options are for which commands only."""


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """Return what the command line asks for.

    Raises:
        SystemExit: after ``--help`` and ``--version``, and for arguments that cannot be used.
    """
    parser = argparse.ArgumentParser(
        "anyload",
        description="Load the models of a configuration, see how they would be loaded, find out"
        " what their modules have to declare, or how long it all takes.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add(
        "command",
        choices=("load", "plan", "doctor", "bench"),
        help="plan shows what would be tried, loads nothing; doctor examines each model; bench"
        " measures each, and all together",
    )
    add("config", metavar="CONFIG", help="a YAML file, flat or in caikit's shape")
    add("models", metavar="NAME", nargs="*", help="models or paths; default: the catalogue")
    add("--model", metavar="NAME", action="append", help="the same as NAME; may be repeated")
    add("--json", action="store_true", help="one JSON document instead of a table")
    add("--loop", type=_loop, default="asyncio", help="asyncio (the default), uvloop or trio")
    add("--name", default="default", help="which initializer of a caikit file; default: default")
    add("--version", action="version", version=f"anyload {__version__}")
    add = parser.add_argument_group("load only").add_argument
    what = "keep the models in a repository, and show what changes, until Ctrl-C or SIGTERM"
    add("--keep", action="store_true", default=None, help=what)
    add = parser.add_argument_group("load and bench only").add_argument
    add("--timeline", metavar="HTML", help="write a picture of it: one file, for a browser")
    add("--trace", metavar="JSON", help="write Chrome trace events of it, for Perfetto")
    add = parser.add_argument_group("doctor and bench only").add_argument
    limit = f"limit of one process, in seconds; default: {PROCESS_SECONDS:.0f}"
    add("--timeout", type=_timeout, metavar="SECONDS", help=limit)
    add = parser.add_argument_group("doctor only").add_argument
    add("--rounds", type=_count, help=f"rounds of loads at once, per model; default: {ROUNDS}")
    # How the doctor starts itself as the process of one examination.
    add("--examine", choices=("alone", "together"), help=argparse.SUPPRESS)
    add = parser.add_argument_group("bench only").add_argument
    add("--repeats", type=_count, help=f"how often each figure is taken; default: {REPEATS}")
    add("--at-once", type=_counts, metavar="N,N", help="the numbers of slots to try")
    add("--compare", metavar="JSON", help="say what is different from an earlier bench --json")
    # How the bench starts itself as the process of one measurement.
    add("--measure", choices=("alone", "bulk"), help=argparse.SUPPRESS)
    add("--turn", type=int, help=argparse.SUPPRESS)
    # Intermixed, so that options may stand between CONFIG and the names.
    args = parser.parse_intermixed_args(argv)
    for commands, options in ONLY_FOR:
        for option in options:
            if args.command not in commands and getattr(args, option) is not None:
                name = option.replace("_", "-")
                parser.error(f"--{name} is for {' and '.join(commands)} only")
    if args.keep and (args.timeline or args.trace):
        parser.error("--keep goes with neither --timeline nor --trace")
    args.models = [*args.models, *(args.model or ())]
    if (args.examine or args.measure == "alone") and len(args.models) != 1:
        parser.error("--examine and --measure=alone go with one NAME")
    if args.measure == "bulk" and (not args.at_once or args.turn is None):
        parser.error("--measure=bulk goes with --at-once and --turn")
    args.rounds = args.rounds or ROUNDS
    args.repeats = args.repeats or REPEATS
    args.timeout = args.timeout or PROCESS_SECONDS
    return args


def _count(text: str) -> int:
    if not (text.isdecimal() and int(text) > 0):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of times")
    return int(text)


def _counts(text: str) -> tuple[int, ...]:
    found = text.split(",")
    if not all(one.isdecimal() and 0 < int(one) <= 1024 for one in found):
        raise argparse.ArgumentTypeError(f"{text!r} is not numbers of slots, such as 1,2,4")
    return tuple(sorted({int(one) for one in found}))


def _timeout(text: str) -> float:
    try:
        limit = float(text)
    except ValueError:
        limit = 0
    if not 0 < limit < MOST_SECONDS:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds")
    return limit


def _loop(name: str) -> str:
    if name not in ("asyncio", "uvloop", "trio"):
        raise argparse.ArgumentTypeError(f"{name!r} is not asyncio, uvloop or trio")
    if not importable(name):
        raise argparse.ArgumentTypeError(f"{name} is not installed; run: pip install {name}")
    return name
