"""Open or read one file that somebody else may have put there."""

from __future__ import annotations

import errno
import io
import os
import stat
from types import MappingProxyType

# A flag that the platform lacks is left out: Windows has neither FIFOs nor O_NOFOLLOW.
_READ = (
    os.O_RDONLY
    | getattr(os, "O_BINARY", 0)
    | getattr(os, "O_CLOEXEC", 0)
    | getattr(os, "O_NOCTTY", 0)
    # Opening a FIFO for reading blocks until somebody writes, for ever if nobody does.
    | getattr(os, "O_NONBLOCK", 0)
)
_NO_FOLLOW = getattr(os, "O_NOFOLLOW", 0)
_CHUNK = 64 * 1024

_REASONS = MappingProxyType(
    {
        errno.ENOENT: "not found",
        errno.ENOTDIR: "not found",
        errno.EISDIR: "a directory",
        errno.ENXIO: "not a regular file",  # a socket
        errno.ENODEV: "not a regular file",
        errno.EMLINK: "a symbolic link",  # what BSD says for ELOOP
        errno.ELOOP: "a symbolic link",
    }
)


class FileRefused(Exception):
    """A file cannot be read, or must not be.

    Args:
        reason: why, in words that fit after the path.
    """

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(reason)


def read_regular_file(
    path: str | os.PathLike[str], *, limit: int, follow_links: bool = False
) -> tuple[bytes, os.stat_result]:
    """Return what a regular file holds and its stat, both from one descriptor.

    It never waits: a FIFO, socket or device is refused at once.

    Args:
        path: the file.
        limit: the most bytes it may hold.
        follow_links: whether the last part of the path may be a symbolic link. Only for a path
            that the operator chose.

    Raises:
        FileRefused: the file is absent, unreadable, a directory, a symbolic link, not a regular
            file, or too large.
    """
    with open_regular_file(path, follow_links=follow_links) as file:
        try:
            return _content(file, limit), os.fstat(file.fileno())
        except OSError as error:
            raise FileRefused(_reason(error)) from error


def open_regular_file(path: str | os.PathLike[str], *, follow_links: bool = False) -> io.FileIO:
    """Open a regular file for reading; it never waits, as `read_regular_file` does not.

    Args:
        path: the file.
        follow_links: as in `read_regular_file`.

    Returns:
        The file, unbuffered.

    Raises:
        FileRefused: as in `read_regular_file`, but for its size.
    """
    try:
        descriptor = os.open(path, _READ if follow_links else _READ | _NO_FOLLOW)
    except OSError as error:
        raise FileRefused(_reason(error)) from error
    except ValueError as error:  # a NUL or a lone surrogate
        raise FileRefused("not a valid path") from error
    try:
        _require_regular(os.fstat(descriptor))
        return io.FileIO(descriptor)
    except BaseException:
        os.close(descriptor)
        raise


def _require_regular(status: os.stat_result) -> None:
    if stat.S_ISDIR(status.st_mode):
        raise FileRefused("a directory, not a file")
    if not stat.S_ISREG(status.st_mode):
        raise FileRefused("not a regular file")


def _content(file: io.FileIO, limit: int) -> bytes:
    # The stat's size is not trusted: the file may grow, and files in /proc say 0.
    content = b""
    while chunk := file.read(_CHUNK):
        content += chunk
        if len(content) > limit:
            raise FileRefused(f"too large: more than {limit} bytes")
    return content


def _reason(error: OSError) -> str:
    return _REASONS.get(error.errno or 0) or f"unreadable: {error.strerror or error}"
