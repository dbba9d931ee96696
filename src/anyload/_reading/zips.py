"""The members of a zip archive."""

from __future__ import annotations

import io
import stat
import struct
import zipfile
from collections.abc import Callable, Iterator
from functools import partial
from types import MappingProxyType

from .members import Inspection, Member

LONGEST_READ = 16 * 1024 * 1024
"""The most bytes of a table of contents: more than 10,000 members with long names need."""

LONGEST_EXTRAS = 1024 * 1024
"""The most bytes of extra fields in it: two or three for each of 10,000 members. They are taken
apart in Python, and a million of the smallest take seconds."""

ENTRY = b"PK\1\2"
"""What each entry of a table of contents begins with."""
ENCRYPTED = 0x1 | 0x40 | 0x2000
METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
"""The ones that `zipfile` unpacks in steps; what it makes of others at once has no limit."""
OTHERS = MappingProxyType({9: "Deflate64", 12: "bzip2", 14: "LZMA", 93: "Zstandard"})
CHUNK = 1024 * 1024


def zip_members(
    file: io.FileIO, inspection: Inspection, between: Callable[[], object]
) -> Iterator[Member]:
    """Yield the members of an open archive, each once it is found to be harmless.

    Args:
        file: the archive.
        inspection: takes each member.
        between: called whenever some of the archive is read; what it raises ends this.

    Raises:
        UnsafeArchiveError: one is not.
        Exception: of all kinds, from `zipfile`: the archive is broken.
    """
    with _Sparing(file, inspection, between) as sparing, zipfile.ZipFile(sparing) as archive:
        sparing.opened = True
        for info in archive.infolist():
            name = info.orig_filename  # `filename` ends at a NUL
            kind = stat.S_IFMT(info.external_attr >> 16)
            if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
                raise inspection.refuse(name, "is neither a file nor a directory")
            if info.flag_bits & ENCRYPTED:
                raise inspection.refuse(name, "is encrypted")
            if info.compress_type not in METHODS:
                method = OTHERS.get(info.compress_type, f"method {info.compress_type}")
                what = f"is compressed by {method}: only stored and deflated ones are read"
                raise inspection.refuse(name, what)
            directory = name.endswith("/")
            path = inspection.place(name, info.file_size, directory=directory)
            yield Member(path, info.file_size, directory, partial(_read, archive, info))


def _read(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Iterator[bytes]:
    with archive.open(info) as member:  # which ends it at the size that was inspected
        while chunk := member.read(CHUNK):
            yield chunk


class _Sparing(io.BufferedReader):
    """A file that is never read in one piece, however long the archive says its contents are.

    Nor is a table of contents with too many entries taken apart, which takes seconds.
    """

    def __init__(
        self, file: io.FileIO, inspection: Inspection, between: Callable[[], object]
    ) -> None:
        super().__init__(file)
        self._inspection = inspection
        self._between = between
        self.opened = False

    def read(self, size: int | None = -1, /) -> bytes:
        if size is not None and size > LONGEST_READ:
            raise ValueError(f"its table of contents has {size} bytes: at most {LONGEST_READ}")
        self._between()  # here, as a member may have much that unpacks to nothing
        data = super().read(size)
        if not self.opened and data.count(ENTRY) > self._inspection.most:
            last = data.rpartition(ENTRY)[2]  # without the four bytes that it begins with
            name = last[42 : 42 + int.from_bytes(last[24:26], "little")]
            raise self._inspection.one_too_many(name.decode(errors="replace"))
        if not self.opened and (extras := _extras_of(data)) > LONGEST_EXTRAS:
            what = f"its table of contents has {extras} bytes of extra fields"
            raise ValueError(f"{what}: at most {LONGEST_EXTRAS}")
        return data


def _extras_of(contents: bytes) -> int:
    """Return the length of the extra fields of all entries, in bytes."""
    at = extras = 0
    while contents.startswith(ENTRY, at):
        lengths = struct.iter_unpack("<H", contents[at + 28 : at + 34])
        name, extra, comment = (length for (length,) in lengths)
        extras += extra
        at += 46 + name + extra + comment
    return extras
