"""A model's files, and whether they are in the page cache."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterable, Iterator

BLOCK = 1 << 20
TRIES, TRY_SECONDS = 5, 0.02
"""What another core has just read can be dropped a moment later."""
MOST_BYTES = 4 << 30
"""Of more than this, the speed of the disk is measured by a part."""


def files_of(path: str) -> list[str]:
    """Return the files of a model: all that is below its directory, or itself."""
    if not os.path.isdir(path):
        return [path] if os.path.isfile(path) else []
    return [
        os.path.join(directory, name) for directory, _, names in os.walk(path) for name in names
    ]


def size_of(files: Iterable[str]) -> int:
    """Return how many bytes they have; what cannot be looked at has none."""
    total = 0
    for file in files:
        with contextlib.suppress(OSError):
            total += os.stat(file).st_size
    return total


def make_cold(files: Iterable[str]) -> str:
    """Take files out of the page cache; return why that cannot be done, empty if it was.

    It needs no more than the right to read them. What another process has mapped stays.
    """
    if not hasattr(os, "posix_fadvise"):
        return "this system has no posix_fadvise"
    held = ""
    for file in files:
        try:
            with _opened(file) as descriptor:
                os.fsync(descriptor)  # what is not written yet would stay
                if not _dropped(descriptor):
                    held = f"{os.path.basename(file)} stays in the page cache"
        except OSError as error:
            held = f"{os.path.basename(file)}: {error.strerror}"
    return held


def _dropped(descriptor: int) -> bool:
    for _ in range(TRIES):
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        if not _cached(descriptor):
            return True
        time.sleep(TRY_SECONDS)
    return False


def _cached(descriptor: int) -> bool:
    """Return whether the middle of a file is in the page cache; False where nobody knows."""
    size = os.fstat(descriptor).st_size
    if size == 0 or not hasattr(os, "RWF_NOWAIT"):
        return False
    try:
        return os.preadv(descriptor, [bytearray(1)], size // 2, os.RWF_NOWAIT) == 1
    except OSError:  # it would have to wait, or the file system cannot tell
        return False


def seconds_to_read(files: Iterable[str]) -> float:
    """Read files from first to last byte, one after another, and return how long that takes.

    Of more than `MOST_BYTES` it is as long as it would take at the speed of these.
    """
    block, done, began = memoryview(bytearray(BLOCK)), 0, time.perf_counter()
    files = list(files)
    for file in files:
        with contextlib.suppress(OSError), _opened(file) as descriptor:
            while done < MOST_BYTES and (number := os.readv(descriptor, [block])):
                done += number
    took = time.perf_counter() - began
    return took * max(1.0, size_of(files) / done) if done else took


@contextlib.contextmanager
def _opened(file: str) -> Iterator[int]:
    # It may be a pipe or a device, if somebody has put one there: that must not stop us.
    descriptor = os.open(file, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    try:
        yield descriptor
    finally:
        os.close(descriptor)
