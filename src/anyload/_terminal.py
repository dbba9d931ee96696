"""How the command line shows what it has: stdout for the result, stderr for everything else."""

from __future__ import annotations

import io
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout, suppress
from contextvars import ContextVar
from importlib import import_module
from itertools import count
from typing import Any, TextIO

from ._files import Refusal
from ._tables import Row, flat, paragraphs, plain_table, whole

BORDERS, WORDS = 3, 20
"""How much room of a table the border of a column takes; how little is enough for a last column
with more than a name or a figure in it."""

_kept: ContextVar[TextIO | None] = ContextVar("anyload.stderr", default=None)


@contextmanager
def stdout_reserved() -> Iterator[TextIO]:
    """Keep stdout for the result: what modules print, native code included, goes to stderr."""
    stdout, replaced = sys.stdout, sys.stdout is not sys.__stdout__
    if replaced:  # by a test or a caller; what is behind it is theirs
        with redirect_stdout(sys.stderr):
            yield stdout
        return
    stdout.flush()
    own = os.dup(1)
    # Names and figures of others go out in whatever encoding there is.
    with open(own, "w", encoding=stdout.encoding, errors="backslashreplace") as result:
        os.dup2(2, 1)
        try:
            with redirect_stdout(sys.stderr):
                yield result
        finally:
            os.dup2(own, 1)


class _Unfailing(io.FileIO):
    """A file to which what cannot be written is lost."""

    def write(self, data: Any, /) -> int:
        """Write it, or nothing of it."""
        try:
            written: int | None = super().write(data)
        except OSError:
            written = None
        return len(data) if written is None else written


@contextmanager
def stderr_kept() -> Iterator[None]:
    """Keep stderr for what is told: modules may close it, or put something else in its place."""
    stream, replaced = sys.stderr, sys.stderr is not sys.__stderr__
    if not replaced and os.name == "nt":  # pragma: no cover  # a console there is no FileIO
        stream = open(os.dup(2), "w", 1, stream.encoding, "backslashreplace")  # noqa: SIM115
    elif not replaced:
        raw = io.BufferedWriter(_Unfailing(os.dup(2), "w"))
        stream = io.TextIOWrapper(raw, stream.encoding, "backslashreplace", line_buffering=True)
    token = _kept.set(stream)
    try:
        yield
    finally:
        _kept.reset(token)
        if not replaced:
            with suppress(OSError):  # with what could not be written
                stream.close()
            _forget_unwritten()


def _forget_unwritten() -> None:
    """Have what modules could not write to stderr be no error again when the process ends."""
    try:
        sys.stderr.flush()
    except OSError:
        _lead_nowhere(2)
    except (AttributeError, ValueError):  # a module has taken it away, or closed it
        pass


def _lead_nowhere(number: int) -> None:
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, number)
    os.close(nowhere)


def open_closed_streams() -> None:
    """Have what is written to a stream that was closed at the start go nowhere."""
    for name, number in (("stdout", 1), ("stderr", 2)):
        if getattr(sys, name) is None:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            if nowhere != number:
                os.dup2(nowhere, number)
                os.close(nowhere)
            stream = open(number, "w", closefd=False, encoding="utf-8")  # noqa: SIM115  # it stays
            setattr(sys, name, stream)
            setattr(sys, f"__{name}__", stream)


def tell(text: str) -> None:
    """Write a line to stderr; where that cannot be, it is lost, and the result is not."""
    with suppress(OSError, ValueError):  # of a stream that a caller has put there
        _stderr().write(f"{text}\n")


def _stderr() -> TextIO:
    return _kept.get() or sys.stderr


def write_json(out: TextIO, document: dict[str, Any]) -> None:
    """Write a document as a person or a program reads it."""
    write_line(out, json.dumps(document, indent=2))


def write_line(out: TextIO, line: str) -> None:
    """Write a line of the result for somebody who waits for it.

    Raises:
        BrokenPipeError: who read it has gone.
        Refusal: it cannot be written.
    """
    with _reaching(out):
        out.write(line + "\n")


@contextmanager
def _reaching(out: TextIO) -> Iterator[None]:
    """Have what is written in here out when it ends."""
    try:
        yield
        out.flush()
    except OSError as error:
        # What is still in the buffer goes nowhere, and is no error again when it is closed.
        _lead_nowhere(out.fileno())
        if isinstance(error, BrokenPipeError):
            raise
        raise Refusal(f"the result cannot be written: {error.strerror}") from error


def write_table(out: TextIO, columns: Row, rows: Sequence[Row]) -> None:
    """Write a table, drawn where that can be seen."""
    if drawn_on(out):
        console = _console(out)
        with _reaching(out):
            console.print(_drawn(console, columns, rows))
    else:
        write_line(out, plain_table(columns, rows))


def drawn_on(out: TextIO) -> bool:
    """Return whether tables can be drawn there, and seen."""
    return out.isatty() and importable("rich")


def _console(out: TextIO) -> Any:
    from rich.console import Console

    # What is shown are names and errors of others: no markup in them is meant.
    return Console(file=out, markup=False, emoji=False, highlight=False)


def _drawn(console: Any, columns: Row, rows: Sequence[Row]) -> Any:
    from rich.cells import cell_len
    from rich.table import Table
    from rich.text import Text

    shown = [tuple(map(whole, row)) for row in rows]
    *names_and_figures, words = zip(columns, *shown, strict=True)
    room = console.width - BORDERS * len(columns) - 1
    room -= sum(max(map(cell_len, cells)) for cells in names_and_figures)
    if room < min(WORDS, max(map(cell_len, words))):
        return Text(paragraphs(columns, rows, console.width))
    table = Table(*columns)
    for column in table.columns[:-1]:
        column.no_wrap = True
    for row in shown:
        table.add_row(*row)
    return table


@contextmanager
def live_table(out: TextIO, columns: Row) -> Iterator[Callable[[Sequence[Row]], None]]:
    """Yield what to call with the rows of a table that changes: it is drawn in its place.

    It needs rich, and a terminal; see `drawn_on`.
    """
    from rich.live import Live

    console = _console(out)
    # What modules print stays where it goes.
    with Live(
        console=console, auto_refresh=False, redirect_stdout=False, redirect_stderr=False
    ) as live:
        yield lambda rows: live.update(_drawn(console, columns, rows), refresh=True)


@contextmanager
def progress(total: int, what: str) -> Iterator[Callable[[str], None]]:
    """Show on stderr how much is done: a bar where it can be drawn, else lines.

    Args:
        total: how much there is to do.
        what: what is being done.

    Yields:
        What to call when one more is done, with a line about it.
    """
    if not (_stderr().isatty() and importable("rich")):
        number = count(1)
        yield lambda line: tell(f"[{next(number)}/{total}] {flat(line)}")
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(file=_stderr()), transient=True) as bar:
        task = bar.add_task(what, total=total)
        yield lambda line: bar.advance(task)


def importable(package: str) -> bool:
    """Return whether a package is there; it is imported."""
    try:
        import_module(package)
    except ImportError:
        return False
    return True
