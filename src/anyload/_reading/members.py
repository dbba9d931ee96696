"""What the members of an archive may be: decided by their headers, before anything is written."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from ..errors import UnsafeArchiveError

DEEPEST = 32
LONGEST_NAME = 2048
"""Bytes of a name: the directory that it is unpacked into takes some of those that a path has."""
LONGEST_SEGMENT = 255
SMALL = 1024 * 1024
"""Bytes that an archive may hold whatever it is packed into."""


@dataclass(frozen=True)
class ArchiveLimits:
    """How much an archive may hold.

    Args:
        max_files: files and directories, those included that no member stands for.
        max_bytes: bytes of all files together.
        max_ratio: how many times the archive's own size that may be; an archive that holds less
            than 1 MiB is not asked.
    """

    max_files: int = 10_000
    max_bytes: int = 64 * 1024**3
    max_ratio: int = 200


class Member(NamedTuple):
    """A file or a directory of an archive, found to be harmless.

    ``path`` is where it belongs below the model's directory, ``read`` yields what it holds.
    """

    path: str
    size: int
    directory: bool
    read: Callable[[], Iterator[bytes]]


class Inspection:
    """The members of one archive, looked at one after the other.

    Args:
        archive: the archive's path, for the errors.
        packed: its own size, in bytes.
        limits: how much it may hold.
    """

    def __init__(self, archive: str, packed: int, limits: ArchiveLimits) -> None:
        self._archive = archive
        self._packed = packed
        self._limits = limits
        self.most = limits.max_files
        self._made = 0
        self._directories: set[str] = set()
        self.bytes = 0
        # By the spelling that file systems which ignore case, or how an accent is written, use:
        # the path, whether it is a directory, and whether the archive lists it.
        self._seen: dict[str, tuple[str, bool, bool]] = {}

    def refuse(self, name: str, reason: str) -> UnsafeArchiveError:
        """Return the error for a member."""
        return UnsafeArchiveError(self._archive, name[:LONGEST_SEGMENT], reason)

    def one_too_many(self, name: str) -> UnsafeArchiveError:
        """Return the error for a member that has too many before it."""
        return self.refuse(name, f"is one too many: at most {self.most}, max_files")

    def place(self, name: str, size: int, *, directory: bool) -> str:
        """Return where a member belongs below the model's directory; empty for that itself.

        Args:
            name: its name, as the archive spells it.
            size: the bytes that its header promises.
            directory: whether it is a directory; if not, it is a regular file.

        Raises:
            UnsafeArchiveError: it must not be extracted.
        """
        self._count(name)
        self._weigh(name, size)
        segments = self._segments(name, directory)
        for length in range(1, len(segments)):
            around = "/".join(segments[:length])
            if around not in self._directories:
                self._count(name)
                self._settle(name, around, directory=True, listed=False)
        path = "/".join(segments)
        if segments:
            self._settle(name, path, directory=directory, listed=True)
        return path

    def _count(self, name: str) -> None:
        """Count a member, or a directory that one lies in."""
        self._made += 1
        if self._made > self.most:
            raise self.one_too_many(name)

    def _weigh(self, name: str, size: int) -> None:
        limits = self._limits
        if size < 0:
            raise self.refuse(name, f"has a size of {size} bytes")
        self.bytes += size
        if self.bytes > limits.max_bytes:
            what = f"makes it {self.bytes} bytes: at most {limits.max_bytes}, max_bytes"
            raise self.refuse(name, what)
        if self.bytes > max(SMALL, self._packed * limits.max_ratio):
            what = f"makes it {self.bytes} bytes, of {self._packed} packed ones"
            raise self.refuse(name, f"{what}: at most {limits.max_ratio} for one, max_ratio")

    def _segments(self, name: str, directory: bool) -> list[str]:
        """Return the parts of a name, of which none may mean anything but itself.

        What is wrong is refused, not put right: what reads the archive next may read it otherwise.
        """
        if "\\" in name or ":" in name:  # a separator, a drive or a stream on Windows
            raise self.refuse(name, "has a backslash or a colon in its name")
        if not name.isprintable():  # so neither NUL, newline nor lone surrogate
            raise self.refuse(name, "has a name that cannot be printed")
        if name.startswith("/"):
            raise self.refuse(name, "has an absolute name")
        segments = name.split("/")
        if directory and segments[-1] == "":
            segments.pop()
        if segments[0] == ".":  # what `tar -C model .` writes
            segments.pop(0)
        if ".." in segments:
            raise self.refuse(name, "leaves the archive's directory")
        if "" in segments or "." in segments or not (segments or directory):
            raise self.refuse(name, "has an empty segment in its name")
        if len(segments) > DEEPEST:
            raise self.refuse(name, f"is too deep: more than {DEEPEST} segments")
        if any(len(segment.encode()) > LONGEST_SEGMENT for segment in segments):
            raise self.refuse(name, f"has a segment of more than {LONGEST_SEGMENT} bytes")
        if sum(len(segment.encode()) + 1 for segment in segments) > LONGEST_NAME:
            raise self.refuse(name, f"has a name of more than {LONGEST_NAME} bytes")
        if any(segment.endswith((".", " ")) for segment in segments):
            raise self.refuse(name, "has a segment that ends in a dot or a space")
        return segments

    def _settle(self, name: str, path: str, *, directory: bool, listed: bool) -> None:
        """Give a path to a member, or to a directory that it lies in."""
        folded = unicodedata.normalize("NFC", unicodedata.normalize("NFC", path).casefold())
        known, known_directory, known_listed = self._seen.get(folded, (path, directory, False))
        if known != path:
            raise self.refuse(name, f"differs from {known!r} in case or accents only")
        if known_directory != directory:
            raise self.refuse(name, f"makes {path!r} a file and a directory")
        if known_listed and listed:
            raise self.refuse(name, "is there twice")
        self._seen[folded] = path, directory, listed or known_listed
        if directory:
            self._directories.add(path)
