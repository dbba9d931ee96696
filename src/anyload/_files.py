"""The files that a command reads and writes beside its result, and how it refuses them."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager

from ._tables import whole


class Refusal(Exception):
    """A command cannot do what it is asked to do; the text says why."""


@contextmanager
def usable(path: str, what: str) -> Iterator[None]:
    """Refuse a file that cannot be read, or written.

    Args:
        path: the file.
        what: "read" or "written".
    """
    try:
        yield
    except OSError as error:
        why = error.strerror or str(error)
        raise Refusal(f"{whole(path)} cannot be {what}: {why}") from error


def require_writable(path: str) -> None:
    """Refuse a file now, and not when all has been measured; it is not made yet.

    A pipe would wait for somebody who reads it.
    """
    with usable(path, "written"):
        there = os.path.exists(path)
        if there and stat.S_ISFIFO(os.stat(path).st_mode):
            raise OSError(errno.ESPIPE, "it is a pipe")
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT, 0o666))
        if not there:
            os.unlink(os.path.realpath(path))


def require_apart(read: Mapping[str, str | None], written: Mapping[str, str | None]) -> None:
    """Refuse to write a file that is also read, or written under another name: one is lost.

    Args:
        read: the paths of what is read, by how the command line names each.
        written: the same for what is written.
    """
    known: dict[str, str] = {}
    for name, path in (*read.items(), *written.items()):
        if path is None:
            continue
        for other, its in known.items():
            if name in written and _is_same(path, its):
                raise Refusal(f"{name} {whole(path)} is the file of {other} too: give it another")
        known[name] = path


def _is_same(path: str, other: str) -> bool:
    try:
        return os.path.samefile(path, other)
    except OSError:  # one is not there yet
        return os.path.realpath(path) == os.path.realpath(other)


def write_each(files: Iterable[tuple[str | None, Callable[[], object]]]) -> None:
    """Write files, each whatever becomes of the others.

    Args:
        files: of each its path, or None where it is not asked for, and what writes it.

    Raises:
        Refusal: some could not be written.
    """
    refused = []
    for path, write in files:
        if path is not None:
            try:
                with usable(path, "written"):
                    write()
            except Refusal as refusal:
                refused.append(str(refusal))
    if refused:
        raise Refusal("; ".join(refused))
