"""Zip and tar archives that somebody else made: looked through whole, then unpacked.

Python's own readers take them apart; what becomes of a member is not left to them. `zipfile`
rewrites names, `tarfile` follows links, and both believe sizes.
"""

from __future__ import annotations

import bz2
import io
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO, NamedTuple

from ..errors import AnyloadError, IntegrityError, describe
from .files import FileRefused, open_regular_file
from .members import ArchiveLimits, Inspection, Member
from .model_files import CONFIG_FILE, LONGEST_CONFIG
from .packed import Gzip, Unpacked, xz
from .tars import tar_members
from .zips import zip_members

GZIP, BZIP2, XZ = (".tar.gz", ".tgz"), (".tar.bz2", ".tbz2"), (".tar.xz", ".txz")
SUFFIXES = (".zip", ".tar", *GZIP, *BZIP2, *XZ)


class Contents(NamedTuple):
    """What of an archive matters before it is unpacked.

    ``base`` is the directory in it that is the model's: its top, or the one directory there;
    ``config`` is what the ``config.yml`` in that holds.
    """

    base: str
    config: bytes


def is_archive(path: str) -> bool:
    """Return whether a path has the name of an archive."""
    return path.lower().endswith(SUFFIXES)


def stem(path: str) -> str:
    """Return the name of an archive without what says that it is one."""
    name = os.path.basename(path)
    suffix = next(suffix for suffix in SUFFIXES if name.lower().endswith(suffix))
    bare = name[: -len(suffix)]
    return "model" if bare in ("", ".", "..") else bare


def look_through(
    path: str, limits: ArchiveLimits, between: Callable[[], object] = lambda: None
) -> Contents:
    """Check every member of an archive, and read its ``config.yml``. Nothing is written.

    Args:
        path: the archive.
        limits: how much it may hold.
        between: called from time to time; what it raises ends this.

    Raises:
        UnsafeArchiveError: a member must not be extracted, or there is too much of them.
        IntegrityError: the file is no such archive, or a broken one, or has no config.yml.
    """
    configs: dict[str, bytes] = {}
    directories: set[str] = set()
    for member in _members(path, limits, between):
        between()
        top, _, rest = member.path.partition("/")
        if rest or member.directory:
            directories.add(top)
        if not member.directory and CONFIG_FILE in (member.path, rest):
            configs[top if rest else ""] = _config(path, member)
    # What begins with __ is left behind by tools that make archives: __MACOSX.
    inside = [name for name in directories if name and not name.startswith("__")]
    bases = ["", *inside] if len(inside) == 1 else [""]
    base = next((base for base in bases if base in configs), None)
    if base is None:
        raise IntegrityError(path, f"no {CONFIG_FILE} at its top or in the one directory there")
    return Contents(base, configs[base])


def unpack(path: str, limits: ArchiveLimits, directory: str, between: Callable[[], object]) -> None:
    """Write the members of an archive into an empty directory.

    Each is checked once more: the file may be another one by now. Their modes, owners and times
    are ours, not those of the archive.

    Args:
        path: the archive.
        limits: how much it may hold.
        directory: where they go; nobody else may have access to it.
        between: called from time to time; what it raises ends this.

    Raises:
        UnsafeArchiveError: as in `look_through`.
        IntegrityError: the file is a broken archive.
        OSError: the files could not be written.
    """
    for member in _members(path, limits, between):
        between()
        target = os.path.join(directory, *member.path.split("/"))
        os.makedirs(target if member.directory else os.path.dirname(target), exist_ok=True)
        if not member.directory:
            with open(target, "xb") as file:
                for chunk in _content(path, member):
                    file.write(chunk)
                    between()


def _members(path: str, limits: ArchiveLimits, between: Callable[[], object]) -> Iterator[Member]:
    """Yield the members of an archive, which are checked as they are taken."""
    with _naming(path), open_regular_file(path, follow_links=True) as file:
        inspection = Inspection(path, os.fstat(file.fileno()).st_size, limits)
        if path.lower().endswith(".zip"):
            yield from zip_members(file, inspection, between)
            return
        unpacked = _unpacked(path, file, between)
        if unpacked is None:
            with io.BufferedReader(file) as buffered:
                yield from tar_members(buffered, inspection)
        else:
            yield from tar_members(unpacked, inspection)
            unpacked.finish()


def _unpacked(path: str, file: IO[bytes], between: Callable[[], object]) -> Unpacked | None:
    """Return what a compressed tar holds; None for one that is not compressed."""
    name = path.lower()
    if name.endswith(GZIP):
        return Unpacked(file, Gzip, between)
    if name.endswith(BZIP2):
        return Unpacked(file, bz2.BZ2Decompressor, between)
    return Unpacked(file, xz, between) if name.endswith(XZ) else None


def _config(path: str, member: Member) -> bytes:
    if member.size > LONGEST_CONFIG:
        what = f"its {member.path} has {member.size} bytes: at most {LONGEST_CONFIG}"
        raise IntegrityError(path, what)
    return b"".join(_content(path, member))


def _content(path: str, member: Member) -> Iterator[bytes]:
    """Yield what a member holds, as much of it as was promised."""
    left = member.size
    with _naming(path):
        for chunk in member.read():
            left -= len(chunk)
            yield chunk
    if left:
        raise IntegrityError(path, f"a broken archive: {member.path} is cut short")


@contextmanager
def _naming(path: str) -> Iterator[None]:
    """Say of whatever the readers raise which archive it is about."""
    try:
        yield
    except AnyloadError:
        raise
    except FileRefused as refused:
        raise IntegrityError(path, refused.reason) from refused
    except Exception as error:  # of any kind: the readers are not made for what is hostile
        # With a number it is the system's word: bz2 has its own OSErrors for what is damaged.
        ours = isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno)
        what = "unreadable" if ours else "a broken archive"
        raise IntegrityError(path, f"{what}: {describe(error)}") from error
