"""The members of a zip archive."""

from __future__ import annotations

import io
import stat
import zipfile
from collections.abc import Iterator
from functools import partial

from .members import Inspection, Member

LONGEST_READ = 16 * 1024 * 1024
"""The most bytes of a table of contents: more than 10,000 members with long names need."""

ENCRYPTED = 0x1 | 0x40 | 0x2000
METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
CHUNK = 1024 * 1024


def zip_members(file: io.FileIO, inspection: Inspection) -> Iterator[Member]:
    """Yield the members of an open archive, each once it is found to be harmless.

    Raises:
        UnsafeArchiveError: one is not.
        Exception: of all kinds, from `zipfile`: the archive is broken.
    """
    with _Sparing(file) as sparing, zipfile.ZipFile(sparing) as archive:
        for info in archive.infolist():
            name = info.orig_filename  # `filename` ends at a NUL
            kind = stat.S_IFMT(info.external_attr >> 16)
            if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
                raise inspection.refuse(name, "is neither a file nor a directory")
            if info.flag_bits & ENCRYPTED:
                raise inspection.refuse(name, "is encrypted")
            if info.compress_type not in METHODS:
                what = f"is compressed by method {info.compress_type}, which is not read here"
                raise inspection.refuse(name, what)
            directory = name.endswith("/")
            path = inspection.place(name, info.file_size, directory=directory)
            yield Member(path, info.file_size, directory, partial(_read, archive, info))


def _read(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Iterator[bytes]:
    with archive.open(info) as member:  # which ends it at the size that was inspected
        while chunk := member.read(CHUNK):
            yield chunk


class _Sparing(io.BufferedReader):
    """A file that is never read in one piece, however long the archive says its contents are."""

    def read(self, size: int | None = -1, /) -> bytes:
        if size is not None and size > LONGEST_READ:
            raise ValueError(f"its table of contents has {size} bytes: at most {LONGEST_READ}")
        return super().read(size)
