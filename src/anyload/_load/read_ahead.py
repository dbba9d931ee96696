"""Fill the page cache with files that are about to be read, without a copy and without the GIL."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable, Iterable

CHUNK = 8 * 1024 * 1024
PROBES = 4
"""Pages of a chunk that are looked at to see whether it is cached."""

MEMORY = "/proc/meminfo"

possible = sys.platform == "linux"
"""Elsewhere there is no way to read a file without copying it."""


def free_memory() -> int:
    """Return the bytes that could be used without taking them from anybody."""
    with open(MEMORY, encoding="ascii") as file:
        for line in file:
            name, _, rest = line.partition(":")
            if name == "MemAvailable":
                return int(rest.split()[0]) * 1024
    return 0


def read_ahead(paths: Iterable[str], wanted: Callable[[], bool]) -> int:
    """Read files into the page cache, but for what is there already; it blocks.

    Args:
        paths: the files, in the order in which they will be read.
        wanted: asked before each portion of 8 MiB whether to go on.

    Returns:
        The bytes read.

    Raises:
        OSError: a file cannot be read, or not in this way.
    """
    total = 0
    with open(os.devnull, "wb", buffering=0) as nowhere:
        for path in paths:
            descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            try:
                total += _fill(descriptor, nowhere.fileno(), wanted)
            finally:
                os.close(descriptor)
    return total


def _fill(descriptor: int, nowhere: int, wanted: Callable[[], bool]) -> int:
    total, at, size = 0, 0, os.fstat(descriptor).st_size
    while at < size and wanted():
        end = min(at + CHUNK, size)
        if _cached(descriptor, at, end):
            at = end
            continue
        # Into /dev/null: the kernel reads the pages and copies none of them.
        sent = os.sendfile(nowhere, descriptor, at, end - at)
        if sent == 0:  # the file was cut meanwhile
            break
        at += sent
        total += sent
    return total


def _cached(descriptor: int, start: int, end: int) -> bool:
    """Return whether a portion is in the page cache, going by a few pages of it."""
    page = bytearray(1)
    for probe in range(PROBES):
        at = start + (end - 1 - start) * probe // (PROBES - 1)
        try:
            os.preadv(descriptor, [page], at, os.RWF_NOWAIT)
        except OSError as error:
            if error.errno in (errno.EAGAIN, errno.EOPNOTSUPP, errno.EINVAL):
                return False
            raise
    return True
