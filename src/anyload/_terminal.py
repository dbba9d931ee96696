"""How the command line shows what it has: stdout for the result, stderr for everything else."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from importlib import import_module
from itertools import count
from typing import Any, TextIO

from ._tables import Row, plain_table


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
    with open(own, "w", encoding=stdout.encoding, errors=stdout.errors) as result:
        os.dup2(2, 1)
        try:
            with redirect_stdout(sys.stderr):
                yield result
        finally:
            os.dup2(own, 1)


def tell(text: str) -> None:
    """Write a line to stderr."""
    sys.stderr.write(f"{text}\n")


def write_json(out: TextIO, document: dict[str, Any]) -> None:
    """Write a document as a person or a program reads it."""
    json.dump(document, out, indent=2)
    out.write("\n")


def write_table(out: TextIO, columns: Row, rows: Sequence[Row]) -> None:
    """Write a table, drawn where that can be seen."""
    if not (out.isatty() and importable("rich")):
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
def progress(total: int, what: str) -> Iterator[Callable[[str], None]]:
    """Show on stderr how much is done: a bar where it can be drawn, else lines.

    Args:
        total: how much there is to do.
        what: what is being done.

    Yields:
        What to call when one more is done, with a line about it.
    """
    if not (sys.stderr.isatty() and importable("rich")):
        number = count(1)
        yield lambda line: tell(f"[{next(number)}/{total}] {line}")
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=total)
        yield lambda line: bar.advance(task)


def importable(package: str) -> bool:
    """Return whether a package is there; it is imported."""
    try:
        import_module(package)
    except ImportError:
        return False
    return True
