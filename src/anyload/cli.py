"""The command line: ``anyload load`` and ``anyload plan``.

The result goes to stdout and everything else to stderr. A command gathers on an event loop, shows
what it found when the loop has ended, and returns its exit code.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from functools import partial
from importlib import import_module
from itertools import count
from typing import Any, TextIO

import anyio

from ._load.exit import exit_process
from ._tables import (
    JSON_KEYS,
    LOAD_COLUMNS,
    PLAN_COLUMNS,
    Planned,
    Row,
    error_text,
    load_document,
    load_rows,
    plain_table,
    plan_document,
    plan_rows,
)
from .bulk import LoadOutcome
from .errors import AnyloadError, ConfigError, Problem
from .initializer import Initializer
from .registry import Registry
from .reports import StuckLoad, seconds

OK, FAILED, REFUSED, INTERRUPTED = 0, 1, 2, 130

GRACE_SECONDS = 2.0
"""How long loads that are past their limit may still take at the end."""

EPILOG = f"""\
exit codes:
  0    load: every model loaded; plan: every model has a backend to try
  1    at least one has not
  2    the command line or the configuration cannot be used
  130  interrupted, as by Ctrl-C

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
        return (_load if args.command == "load" else _plan)(args, out)
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
        description="Load the models of a configuration, or see how they would be loaded.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("command", choices=("load", "plan"), help="plan shows what would be tried, loads nothing")
    add("config", metavar="CONFIG", help="a YAML file, flat or in caikit's shape")
    add("models", metavar="NAME", nargs="*", help="models or paths; default: the catalogue")
    add("--json", action="store_true", help="one JSON document instead of a table")
    add("--loop", type=_loop, default="asyncio", help="asyncio (the default), uvloop or trio")
    add("--name", default="default", help="which initializer of a caikit file; default: default")
    # Intermixed, so that options may stand between CONFIG and the names.
    return parser.parse_intermixed_args(argv)


def _loop(name: str) -> str:
    if name not in ("asyncio", "uvloop", "trio"):
        raise argparse.ArgumentTypeError(f"{name!r} is not asyncio, uvloop or trio")
    if not _importable(name):
        raise argparse.ArgumentTypeError(f"{name} is not installed; run: pip install {name}")
    return name
