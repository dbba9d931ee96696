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
        wanted: asked before each portion of 8 MiB is looked at or read whether to go on.

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
    # What memory cannot hold would push out what was read before it; and a file may have grown.
    total, size = 0, min(os.fstat(descriptor).st_size, free_memory())
    chunks = [(start, min(start + CHUNK, size)) for start in range(0, size, CHUNK)]
    # All are looked at first: what the kernel itself reads ahead of us would be found as we go, and
    # stepping over it is a jump to the kernel, which then reads in small pieces.
    for start, end in [one for one in chunks if wanted() and not _cached(descriptor, *one)]:
        at = start
        while at < end:
            # Into /dev/null: the kernel reads the pages and copies none of them.
            sent = os.sendfile(nowhere, descriptor, at, end - at) if wanted() else 0
            if sent == 0:  # nobody wants it any more, or the file was cut
                return total
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
