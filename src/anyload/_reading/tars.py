"""The members of a tar archive, which may be compressed."""

from __future__ import annotations

import re
import tarfile
from collections.abc import Iterator
from functools import partial
from typing import Protocol

from .members import Inspection, Member

LONGEST_HEADER = 16 * 1024
"""The most bytes of one header block; names and their like take a few hundred."""
HEADERS = 1024 * 1024
HEADERS_PER_MEMBER = 4 * 1024
"""The most bytes that the headers of an archive may have whatever it holds, and with each member
more; an extended one with the usual lines takes half of that."""
COST_OF_A_LINE = 64
"""For how many bytes a line of a header counts: reading it takes that much longer."""
KIND = 156
"""Where in a header the byte is that says what it is about."""
EXTENDED = (tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE)
LONG_NAMES = (tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK)
LINE = re.compile(rb"([1-9][0-9]{0,5}) [^=\n]+=")
LONG_NUMBER = re.compile(rb"[0-9]{64}")
CHUNK = 1024 * 1024


class Source(Protocol):
    """An open file, or what unpacks one."""

    def read(self, size: int, /) -> bytes: ...
    def seek(self, position: int, /) -> object: ...


def tar_members(file: Source, inspection: Inspection) -> Iterator[Member]:
    """Yield the members of an open archive, each once it is found to be harmless.

    Args:
        file: the archive, or what decompresses it.
        inspection: takes each member.

    Raises:
        UnsafeArchiveError: one is not.
        Exception: of all kinds, from `tarfile` and decompressors: the archive is broken.
    """
    forward = _Forward(file)
    # What cannot be decoded becomes a lone surrogate, and is refused for that.
    with tarfile.TarFile(
        fileobj=forward,  # type: ignore[arg-type]  # never written to, nor closed
        encoding="utf-8",
        errors="surrogateescape",
    ) as archive:
        for info in archive:
            forward.allowed += HEADERS_PER_MEMBER
            if info.issparse() or not (info.isreg() or info.isdir()):
                raise inspection.refuse(info.name, "is neither a file nor a directory")
            path = inspection.place(info.name, info.size, directory=info.isdir())
            read = partial(forward.content, info.offset_data, info.size)
            yield Member(path, info.size, info.isdir(), read)
        if forward.header != bytes(tarfile.BLOCKSIZE):
            # To tarfile a header that is cut short, or none, is as good an end as any.
            raise EOFError("it has no end")


class _Forward:
    """A file that is read from front to back, with little of its headers at once, or ever.

    It is what keeps `tarfile` from going in circles, from reading on for ever behind the end, and
    from having a header of any length in memory: CVE-2019-20907, CVE-2024-6232, CVE-2025-8194 and
    what is like them.
    """

    def __init__(self, file: Source) -> None:
        self._file = file
        self._wanted = self._at = 0
        self._kind = b""
        self.header = b""
        self.allowed = HEADERS

    def tell(self) -> int:
        return self._wanted

    def seek(self, position: int) -> None:
        self._wanted = position

    def read(self, size: int) -> bytes:
        """Return bytes of headers."""
        if not 0 <= size <= LONGEST_HEADER:
            raise ValueError("a header is too long")
        data = self._take(size)
        self.allowed -= size + COST_OF_A_LINE * data.count(b"\n")
        if self.allowed < 0:
            raise ValueError("its headers are too long, for so few members")
        if size > tarfile.BLOCKSIZE and LONG_NUMBER.search(data):
            raise ValueError("a header has a number of 64 digits")
        if self._kind in EXTENDED:
            _require_lines(data)
        # What follows on such a header is what it holds, and after that comes a header.
        self._kind = b"" if self._kind in (*EXTENDED, *LONG_NAMES) else data[KIND : KIND + 1]
        self.header = data
        return data

    def content(self, start: int, size: int) -> Iterator[bytes]:
        """Yield the bytes of a member."""
        self.seek(start)
        while size and (chunk := self._take(min(size, CHUNK))):
            size -= len(chunk)
            yield chunk

    def _take(self, size: int) -> bytes:
        if self._wanted < self._at:
            raise ValueError("its headers lead backwards")
        if self._wanted > self._at:
            self._file.seek(self._wanted)
        data = self._file.read(size)
        self._at = self._wanted = self._wanted + len(data)
        return data


def _require_lines(content: bytes) -> None:
    """Raise if the lines of an extended header are not as long as they say.

    `tarfile` would read them all the same, some of them again and again.
    """
    at = 0
    while content[at : at + 1].strip(b"\0"):
        line = LINE.match(content, at)
        end = at + int(line[1]) if line else at
        if not line or end <= line.end() or content[end - 1 : end] != b"\n":
            raise ValueError("a line of an extended header is not as long as it says")
        at = end
