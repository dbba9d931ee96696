"""The command line: ``anyload load``, ``anyload plan`` and ``anyload doctor``.

The result goes to stdout and everything else to stderr. A command gathers on an event loop, shows
what it found when the loop has ended, and returns its exit code.
"""

from __future__ import annotations

import argparse
import faulthandler
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import asdict
from functools import partial
from importlib import import_module
from itertools import count
from typing import Any, TextIO

import anyio

from ._load.exit import exit_process
from ._tables import (
    DOCTOR_COLUMNS,
    JSON_KEYS,
    LOAD_COLUMNS,
    PLAN_COLUMNS,
    Planned,
    Row,
    diagnosis_paragraph,
    doctor_document,
    doctor_rows,
    error_text,
    load_document,
    load_rows,
    plain_table,
    plan_document,
    plan_rows,
)
from .bulk import LoadOutcome
from .doctor import Doctor
from .errors import AnyloadError, ConfigError, Problem
from .initializer import Initializer
from .registry import Registry
from .reports import StuckLoad, seconds

OK, FAILED, REFUSED, INTERRUPTED = 0, 1, 2, 130

ROUNDS, EXAMINATION_SECONDS, MOST_SECONDS = 10, 300.0, 1e6

GRACE_SECONDS = 2.0
"""How long loads that are past their limit may still take at the end."""

EPILOG = f"""\
exit codes:
  0    load: every model loaded; plan: every model has a backend to try;
       doctor: every model loads, and what its module declares is enough
  1    that is not so of at least one
  2    the command line or the configuration cannot be used
  130  interrupted, as by Ctrl-C; 143 by SIGTERM, of the doctor

The result is on stdout; progress, warnings and errors are on stderr. With exit code 2 or 130
there is no result.

{JSON_KEYS}"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code.

    Args:
        argv: the arguments. Without them they are those of the process, which is then ours to
            end: this does not return, and a load that hangs cannot keep the process.

    Raises:
        SystemExit: by argparse, after ``--help`` and for arguments that cannot be used.
    """
    args = _arguments(argv)
    with _stdout_reserved() as out:
        code = _run(args, out)
        out.flush()
        if argv is None:
            exit_process(code)
    return code


def _run(args: argparse.Namespace, out: TextIO) -> int:
    _find_modules_here()
    try:
        if args.examine is not None:
            return _examine(args, out)
        command = {"load": _load, "plan": _plan, "doctor": _doctor}[args.command]
        return command(args, out)
    except KeyboardInterrupt:
        _tell("interrupted")
        return INTERRUPTED
    except _Refusal as refusal:
        _tell(str(refusal))
        return REFUSED


# The commands


def _load(args: argparse.Namespace, out: TextIO) -> int:
    initializer, names = _open(args)
    outcomes, elapsed, abandoned = _on_loop(args.loop, partial(_load_all, initializer, names))
    loaded = sum(outcome.error is None for outcome in outcomes)
    if args.json:
        _write_json(out, load_document(args.config, outcomes, abandoned, elapsed))
    else:
        _write_table(out, LOAD_COLUMNS, load_rows(outcomes))
        out.write(f"\n{loaded} of {len(outcomes)} models loaded in {seconds(elapsed)}\n")
    for outcome in outcomes:
        if outcome.error is not None:
            _tell(f"error: {error_text(outcome.error)}")
        for warning in outcome.report.observed.warnings:
            _tell(f"warning: {outcome.report.model}: {warning}")
    for load in abandoned:
        _tell(f"warning: still running: {load}")
    return OK if loaded == len(outcomes) else FAILED


def _plan(args: argparse.Namespace, out: TextIO) -> int:
    initializer, names = _open(args)
    planned = _on_loop(args.loop, partial(_plan_all, initializer, names))
    if args.json:
        _write_json(out, plan_document(args.config, planned))
    else:
        _write_table(out, PLAN_COLUMNS, plan_rows(planned))
    for one in planned:
        if one.error is not None:
            _tell(f"error: {error_text(one.error)}")
        elif not one.loadable:
            _tell(f"error: {one.model!r} has no backend to try")
    return OK if all(one.loadable for one in planned) else FAILED


def _doctor(args: argparse.Namespace, out: TextIO) -> int:
    _, names = _open(args)
    doctor = Doctor(args.config, args.name, args.loop, args.rounds, args.timeout)
    began, diagnoses = time.monotonic(), []
    for number, name in enumerate(names, 1):
        _tell(f"[{number}/{len(names)}] {name}: ...")
        diagnoses.append(doctor.examine(name))
        _tell(f"[{number}/{len(names)}] {name}: {diagnoses[-1].verdict}")
    if args.json:
        _write_json(out, doctor_document(args.config, diagnoses, time.monotonic() - began))
    else:
        _write_table(out, DOCTOR_COLUMNS, doctor_rows(diagnoses))
        for diagnosis in diagnoses:
            out.write(diagnosis_paragraph(diagnosis))
    return OK if all(one.verdict == "ok" for one in diagnoses) else FAILED


def _examine(args: argparse.Namespace, out: TextIO) -> int:
    """Be the process of one examination, which ``_doctor`` has started."""
    from . import _examination as examination

    # It says where it hangs, and ends; even where no Python runs, and nobody is there to kill it.
    faulthandler.dump_traceback_later(args.timeout, exit=True)
    (model,) = args.models
    asked = (args.config, args.name, model, args.timeout)
    gather: Callable[[], Any] = (
        partial(examination.examine_alone, *asked)
        if args.examine == "alone"
        else partial(examination.examine_together, *asked, args.rounds)
    )
    try:
        document = asdict(_on_loop(args.loop, gather))
    except* Exception as group:
        (error, *_) = group.exceptions
        document = {"error": error_text(error)}
    faulthandler.cancel_dump_traceback_later()
    _write_json(out, document)
    return OK


async def _load_all(
    initializer: Initializer, names: Sequence[str]
) -> tuple[list[LoadOutcome], float, tuple[StuckLoad, ...]]:
    """Load the models, all in memory at the end as in a server.

    Returns:
        What came of each, the seconds they took together, and the loads that never ended.
    """
    outcomes: dict[Any, LoadOutcome] = {}
    began = time.monotonic()
    try:
        with _progress(len(names)) as landed:
            async with initializer.init_each(names) as each:
                async for outcome in each:
                    outcomes[outcome.model] = outcome
                    landed(outcome)
    except BaseException:
        await initializer.aclose(grace=0)
        raise
    elapsed = time.monotonic() - began
    return [outcomes[name] for name in names], elapsed, await initializer.aclose(GRACE_SECONDS)


async def _plan_all(initializer: Initializer, names: Sequence[str]) -> list[Planned]:
    try:
        return [await _plan_one(initializer, name) for name in names]
    finally:
        await initializer.aclose(grace=0)


async def _plan_one(initializer: Initializer, name: str) -> Planned:
    try:
        return Planned(name, await initializer.plan(name), None)
    except AnyloadError as error:
        return Planned(name, None, error)


# What a command begins with


class _Refusal(Exception):
    """The command cannot begin; the text says why."""


def _open(args: argparse.Namespace) -> tuple[Initializer, tuple[str, ...]]:
    """Return the configured initializer and the models that are asked for."""
    registry = Registry.discover()
    for plugin in registry.broken_plugins:
        _tell(f"warning: plug-in {plugin.name} of {plugin.group} is left out: {plugin.reason}")
    try:
        initializer = Initializer.from_config(args.config, registry=registry, name=args.name)
        names = tuple(dict.fromkeys(args.models)) or initializer.catalogue
        if not names:
            raise ConfigError(args.config, [Problem("models", "empty, and no NAME is given")])
    except Exception as error:  # a backend of the user's is made here, and may raise anything
        raise _Refusal(f"error: {error_text(error)}") from error
    return initializer, names


def _find_modules_here() -> None:
    """Let the configuration name modules in the current directory, as ``python -m`` does."""
    here = os.getcwd()
    if not sys.flags.safe_path and here not in sys.path:
        sys.path.insert(0, here)


def _on_loop(loop: str, gather: Callable[[], Any]) -> Any:
    if loop == "trio":
        return anyio.run(gather, backend="trio")
    return anyio.run(gather, backend_options={"use_uvloop": loop == "uvloop"})


# What is shown


@contextmanager
def _stdout_reserved() -> Iterator[TextIO]:
    """Keep stdout for the result: what modules print, native code included, goes to stderr."""
    stdout, replaced = sys.stdout, sys.stdout is not sys.__stdout__
    if replaced:  # by a test or a caller; what is behind it is theirs
        with redirect_stdout(sys.stderr):
            yield stdout
        return
    stdout.flush()
    own = os.dup(1)
    with open(own, "w", encoding=stdout.encoding, errors=stdout.errors) as result:
        os.dup2(2, 1)
        try:
            with redirect_stdout(sys.stderr):
                yield result
        finally:
            os.dup2(own, 1)


def _tell(text: str) -> None:
    print(text, file=sys.stderr)


def _write_json(out: TextIO, document: dict[str, Any]) -> None:
    json.dump(document, out, indent=2)
    out.write("\n")


def _write_table(out: TextIO, columns: Row, rows: Sequence[Row]) -> None:
    if not (out.isatty() and _importable("rich")):
        out.write(plain_table(columns, rows) + "\n")
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(*columns)
    for row in rows:
        table.add_row(*row)
    # The cells are names and errors of others: no markup in them is meant.
    Console(file=out, markup=False, emoji=False, highlight=False).print(table)


@contextmanager
def _progress(total: int) -> Iterator[Callable[[LoadOutcome], None]]:
    """Show on stderr how many models have landed: a bar where it can be drawn, else lines."""
    if not (sys.stderr.isatty() and _importable("rich")):
        number = count(1)

        def landed(outcome: LoadOutcome) -> None:
            headline = str(outcome.report).partition("\n")[0]
            _tell(f"[{next(number)}/{total}] {headline}")

        yield landed
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("loading", total=total)
        yield lambda outcome: bar.advance(task)


def _importable(package: str) -> bool:
    try:
        import_module(package)
    except ImportError:
        return False
    return True


# The arguments


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        "anyload",
        description="Load the models of a configuration, see how they would be loaded, or find out"
        " what their modules have to declare.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add(
        "command",
        choices=("load", "plan", "doctor"),
        help="plan shows what would be tried, loads nothing; doctor examines each model",
    )
    add("config", metavar="CONFIG", help="a YAML file, flat or in caikit's shape")
    add("models", metavar="NAME", nargs="*", help="models or paths; default: the catalogue")
    add("--model", metavar="NAME", action="append", help="the same as NAME; may be repeated")
    add("--json", action="store_true", help="one JSON document instead of a table")
    add("--loop", type=_loop, default="asyncio", help="asyncio (the default), uvloop or trio")
    add("--name", default="default", help="which initializer of a caikit file; default: default")
    group = parser.add_argument_group("doctor only")
    add = group.add_argument
    add("--rounds", type=_rounds, help=f"rounds of loads at once, per model; default: {ROUNDS}")
    limit = f"limit of one examination, in seconds; default: {EXAMINATION_SECONDS:.0f}"
    add("--timeout", type=_timeout, metavar="SECONDS", help=limit)
    # How the doctor starts itself as the process of one examination.
    add("--examine", choices=("alone", "together"), help=argparse.SUPPRESS)
    # Intermixed, so that options may stand between CONFIG and the names.
    args = parser.parse_intermixed_args(argv)
    if args.command != "doctor":
        for option in ("rounds", "timeout", "examine"):
            if getattr(args, option) is not None:
                parser.error(f"--{option} is for doctor only")
    args.models = [*args.models, *(args.model or ())]
    args.rounds = args.rounds or ROUNDS
    args.timeout = args.timeout or EXAMINATION_SECONDS
    return args


def _rounds(text: str) -> int:
    if not (text.isdecimal() and int(text) > 0):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of rounds")
    return int(text)


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
    if not _importable(name):
        raise argparse.ArgumentTypeError(f"{name} is not installed; run: pip install {name}")
    return name
