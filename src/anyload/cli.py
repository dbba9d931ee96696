"""The command line: ``anyload load``, ``plan``, ``doctor`` and ``bench``.

The result goes to stdout and everything else to stderr. A command gathers on an event loop, shows
what it found when the loop has ended, and returns its exit code.
"""

from __future__ import annotations

import argparse
import faulthandler
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from typing import Any, TextIO

import anyio

from ._arguments import arguments
from ._bench.command import earlier, run_bench
from ._files import Refusal, require_apart, require_writable, write_each
from ._load.exit import exit_process
from ._setup import import_named
from ._tables import (
    DOCTOR_COLUMNS,
    LOAD_COLUMNS,
    PLAN_COLUMNS,
    Planned,
    diagnosis_paragraph,
    doctor_document,
    doctor_rows,
    error_text,
    flat,
    load_document,
    load_rows,
    plan_document,
    plan_rows,
    whole,
)
from ._terminal import (
    open_closed_streams,
    progress,
    stderr_kept,
    stdout_reserved,
    tell,
    write_json,
    write_line,
    write_table,
)
from ._watching import Changes, showing, watch
from .bench import turned
from .bulk import LoadOutcome
from .config import load_config
from .doctor import Doctor
from .errors import AnyloadError, BulkLoadError, ConfigError, Problem
from .initializer import Initializer
from .recorder import Recorder
from .registry import Registry
from .reports import StuckLoad, seconds
from .repository import ModelRepository

OK, FAILED, REFUSED, INTERRUPTED = 0, 1, 2, 130

GRACE_SECONDS = 2.0
"""How long loads that are past their limit may still take at the end."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code.

    Args:
        argv: the arguments. Without them they are those of the process, which is then ours to
            end: this does not return, and a load that hangs cannot keep the process.

    Raises:
        SystemExit: by argparse, after ``--help`` or ``--version``, and for arguments that cannot
            be used.
    """
    args = arguments(argv)
    open_closed_streams()
    with stderr_kept(), stdout_reserved() as out:
        code = _run(args, out)
        if argv is None:
            exit_process(code)
    return code


def _run(args: argparse.Namespace, out: TextIO) -> int:
    try:
        _find_modules_here()
        if args.examine is not None or args.measure is not None:
            return _be_part(args, out)
        command = {"load": _load, "plan": _plan, "doctor": _doctor, "bench": _bench}[args.command]
        _settle_files(args)
        return command(args, out)
    except BrokenPipeError:  # nobody reads it any more, and nobody has to be told
        return INTERRUPTED
    except KeyboardInterrupt:
        tell("interrupted")
        return INTERRUPTED
    except Refusal as refusal:
        tell(f"error: {refusal}")
        return REFUSED


# The commands


def _load(args: argparse.Namespace, out: TextIO) -> int:
    if args.keep:
        return _keep(args, out)
    recorder = Recorder() if args.timeline or args.trace else None
    initializer, names = _open(args, recorder)
    gather = partial(_load_all, initializer, names, recorder)
    try:
        return _show_load(args, out, *_on_loop(args.loop, gather))
    finally:  # of a load that hangs, and is interrupted, a picture is wanted most
        if recorder is not None:
            _draw(recorder, args)


def _show_load(
    args: argparse.Namespace,
    out: TextIO,
    outcomes: Sequence[LoadOutcome],
    elapsed: float,
    abandoned: Sequence[StuckLoad],
) -> int:
    loaded = sum(outcome.error is None for outcome in outcomes)
    if args.json:
        write_json(out, load_document(args.config, outcomes, abandoned, elapsed))
    else:
        write_table(out, LOAD_COLUMNS, load_rows(outcomes))
        write_line(out, f"\n{loaded} of {len(outcomes)} models loaded in {seconds(elapsed)}")
    for outcome in outcomes:
        if outcome.error is not None:
            tell(f"error: {error_text(outcome.error)}")
        for warning in outcome.report.observed.warnings:
            tell(f"warning: {whole(outcome.report.model)}: {flat(warning)}")
    for load in abandoned:
        tell(f"warning: still running: {load}")
    return OK if loaded == len(outcomes) else FAILED


def _keep(args: argparse.Namespace, out: TextIO) -> int:
    changes = Changes()
    with _refusing():
        models = ModelRepository.from_config(
            args.config, registry=_registry(), name=args.name, hooks=[changes]
        )
        names = _names(args, models.initializer)
    began, loaded = time.monotonic(), list[str]()

    def landed(error: BulkLoadError | None) -> None:
        failed = {} if error is None else error.failed
        for why in failed.values():
            tell(f"error: {error_text(why)}")
        loaded.extend(name for name in names if name not in failed)
        took = seconds(time.monotonic() - began)
        tell(f"{len(loaded)} of {len(names)} models loaded in {took}; Ctrl-C ends it")

    with showing(models, names, out, as_json=args.json) as show:
        gather = partial(watch, models, names, changes, show, landed, GRACE_SECONDS)
        for load in _on_loop(args.loop, gather):
            tell(f"warning: still running: {load}")
    return OK if len(loaded) == len(names) else FAILED


def _draw(recorder: Recorder, args: argparse.Namespace) -> None:
    title = f"Loading {args.config}"
    write_each(
        (
            (args.timeline, lambda: recorder.write_html(args.timeline, title=title)),
            (args.trace, lambda: recorder.write_trace(args.trace)),
        )
    )


def _plan(args: argparse.Namespace, out: TextIO) -> int:
    initializer, names = _open(args)
    planned = _on_loop(args.loop, partial(_plan_all, initializer, names))
    if args.json:
        write_json(out, plan_document(args.config, planned))
    else:
        write_table(out, PLAN_COLUMNS, plan_rows(planned))
    for one in planned:
        if one.error is not None:
            tell(f"error: {error_text(one.error)}")
        elif not one.loadable:
            tell(f"error: {one.model!r} has no backend to try")
    return OK if all(one.loadable for one in planned) else FAILED


def _doctor(args: argparse.Namespace, out: TextIO) -> int:
    _, names = _open(args)
    doctor = Doctor(args.config, args.name, args.loop, args.rounds, args.timeout)
    began, diagnoses = time.monotonic(), []
    for number, name in enumerate(names, 1):
        tell(f"[{number}/{len(names)}] {whole(name)}: ...")
        diagnoses.append(doctor.examine(name))
        tell(f"[{number}/{len(names)}] {whole(name)}: {diagnoses[-1].verdict}")
    if args.json:
        write_json(out, doctor_document(args.config, diagnoses, time.monotonic() - began))
    else:
        write_table(out, DOCTOR_COLUMNS, doctor_rows(diagnoses))
        for paragraph in filter(None, map(diagnosis_paragraph, diagnoses)):
            write_line(out, paragraph)
    return OK if all(one.verdict == "ok" for one in diagnoses) else FAILED


def _bench(args: argparse.Namespace, out: TextIO) -> int:
    initializer, names = _open(args)
    before = None if args.compare is None else earlier(args.compare)
    findings = run_bench(args, names, initializer.statistics().slots, before, out)
    return FAILED if findings.failed or findings.unfinished else OK


def _be_part(args: argparse.Namespace, out: TextIO) -> int:
    """Be the process of one examination or measurement, which a command has started."""
    # It says where it hangs, and ends; even where no Python runs, and nobody is there to kill it.
    faulthandler.dump_traceback_later(args.timeout, exit=True)
    gather = _measurement(args) if args.examine is None else _examination(args)
    try:
        document = asdict(_on_loop(args.loop, gather))
    except* Exception as group:
        (error, *_) = group.exceptions
        document = {"error": error_text(error)}
    faulthandler.cancel_dump_traceback_later()
    write_json(out, document)
    return OK


def _examination(args: argparse.Namespace) -> Callable[[], Any]:
    from . import _examination as examination

    (model,) = args.models
    asked = (args.config, args.name, model, args.timeout)
    if args.examine == "alone":
        return partial(examination.examine_alone, *asked)
    return partial(examination.examine_together, *asked, args.rounds)


def _measurement(args: argparse.Namespace) -> Callable[[], Any]:
    from ._bench import measuring

    if args.measure == "alone":
        (model,) = args.models
        return partial(measuring.measure_alone, args.config, args.name, model)
    at_once = turned(args.at_once, args.turn)
    return partial(
        measuring.measure_bulk, args.config, args.name, args.models, at_once, args.timeout
    )


async def _load_all(
    initializer: Initializer, names: Sequence[str], recorder: Recorder | None
) -> tuple[list[LoadOutcome], float, tuple[StuckLoad, ...]]:
    """Load the models, all in memory at the end as in a server.

    Returns:
        What came of each, the seconds they took together, and the loads that never ended.
    """
    outcomes: dict[Any, LoadOutcome] = {}
    began = time.monotonic()
    try:
        with progress(len(names), "loading") as landed:
            async with anyio.create_task_group() as tasks, initializer.init_each(names) as each:
                if recorder is not None:
                    tasks.start_soon(recorder.watch_loop)
                async for outcome in each:
                    outcomes[outcome.model] = outcome
                    landed(str(outcome.report).partition("\n")[0])
                tasks.cancel_scope.cancel()
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


def _open(
    args: argparse.Namespace, recorder: Recorder | None = None
) -> tuple[Initializer, tuple[str, ...]]:
    """Return the configured initializer and the models that are asked for."""
    hooks = [] if recorder is None else [recorder]
    with _refusing():
        registry = _registry()
        if recorder is not None:
            config = load_config(
                args.config,
                name=args.name,
                environ=os.environ,
                known_types=registry.backend_types,
            )
            for event in import_named(config, args.config):
                recorder(event)
        initializer = Initializer.from_config(
            args.config, registry=registry, name=args.name, hooks=hooks
        )
        return initializer, _names(args, initializer)


def _registry() -> Registry:
    registry = Registry.discover()
    for plugin in registry.broken_plugins:
        tell(f"warning: plug-in {plugin.name} of {plugin.group} is left out: {plugin.reason}")
    return registry


def _names(args: argparse.Namespace, initializer: Initializer) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(args.models)) or initializer.catalogue
    if not names:
        raise ConfigError(args.config, [Problem("models", "empty, and no NAME is given")])
    return names


@contextmanager
def _refusing() -> Iterator[None]:
    """Have whatever is wrong with a configuration end the command."""
    try:
        yield
    except Exception as error:  # a backend of the user's is made here, and may raise anything
        raise Refusal(error_text(error)) from error


def _settle_files(args: argparse.Namespace) -> None:
    """Refuse the files to write that cannot be; a load may change the working directory later."""
    written = {"--timeline": args.timeline, "--trace": args.trace}
    require_apart({"CONFIG": args.config, "--compare": args.compare}, written)
    for path in filter(None, written.values()):
        require_writable(path)
    args.timeline, args.trace = (path and os.path.abspath(path) for path in written.values())


def _find_modules_here() -> None:
    """Let the configuration name modules in the current directory, as ``python -m`` does."""
    try:
        here = os.getcwd()
    except OSError as error:
        raise Refusal(f"the current directory is gone: {error.strerror}") from error
    if not sys.flags.safe_path and here not in sys.path:
        sys.path.insert(0, here)


def _on_loop(loop: str, gather: Callable[[], Any]) -> Any:
    try:
        if loop == "trio":
            return anyio.run(gather, backend="trio")
        return anyio.run(gather, backend_options={"use_uvloop": loop == "uvloop"})
    except BaseExceptionGroup as group:
        # Where nobody reads what is shown any more, that is as good as Ctrl-C.
        if group.subgroup((KeyboardInterrupt, BrokenPipeError)) is None:
            raise
        raise KeyboardInterrupt from None
