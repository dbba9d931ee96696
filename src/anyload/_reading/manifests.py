"""A model's manifest: the sha256 of each of its files, in the format of ``sha256sum``."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TypeAlias

from ..errors import IntegrityError
from .files import FileRefused, open_regular_file, read_regular_file
from .problems import shown
from .trees import files_of

MANIFEST = "SHA256SUMS"
BESIDE = ".sha256"
LONGEST_MANIFEST = 4 * 1024 * 1024
CHUNK = 1024 * 1024

Stamp: TypeAlias = tuple[int, int, int, int, int]
"""What a file was: device, inode, size, and when it was written and changed. The last is what
``cp -p``, ``rsync -t`` and ``tar`` cannot set, and what a rename sets."""

_LINE = re.compile(r"(\\?)([0-9a-fA-F]{64})(?: [ *](.+))?")
_ESCAPE = re.compile(r"\\[\\nr]")
_ESCAPES = MappingProxyType({r"\\": "\\", r"\n": "\n", r"\r": "\r"})
"""How ``sha256sum`` writes a name with such a character; the line then begins with a backslash."""


def stamp_of(status: os.stat_result) -> Stamp:
    """Return what tells a file from what it was before."""
    return (
        status.st_dev,
        status.st_ino,
        status.st_size,
        status.st_mtime_ns,
        status.st_ctime_ns,
    )


def manifest_path(model: str) -> str:
    """Return where a model's manifest is, if it has one: in its directory, or beside the file."""
    return os.path.join(model, MANIFEST) if os.path.isdir(model) else model + BESIDE


def check_manifest(model: str, manifest: str, between: Callable[[], object]) -> dict[str, Stamp]:
    """Compare every file of a model with its manifest; it reads all of them.

    Args:
        model: the model's directory or file.
        manifest: the path of its manifest.
        between: called from time to time; what it raises ends this.

    Returns:
        What each file was when it was read, to be looked at again after the load.

    Raises:
        IntegrityError: a file is missing, differs, or is not in the manifest; or that cannot be
            used.
    """
    said = _read(manifest, os.path.isdir(model), os.path.basename(model))
    found = files_of(model, manifest, between)
    directory, its_name = os.path.split(manifest)
    for name in sorted(said.keys() - found.keys()):
        raise IntegrityError(os.path.join(directory, name), f"it is missing, and in {its_name}")
    for name in sorted(found.keys() - said.keys()):
        raise IntegrityError(found[name], f"it is not in {its_name}")
    stamps = {}
    for name, path in found.items():
        digest, stamps[path] = _digest(path, between)
        if digest != said[name]:
            what = f"its sha256 is {digest} ({stamps[path][2]} bytes); {its_name} says"
            raise IntegrityError(path, f"{what} {said[name]}")
    return stamps


def check_unchanged(stamps: Mapping[str, Stamp]) -> None:
    """Raise if a file is not what it was.

    Raises:
        IntegrityError: naming it.
    """
    for path, stamp in stamps.items():
        try:
            same = stamp_of(os.stat(path)) == stamp
        except OSError:
            same = False
        if not same:
            raise IntegrityError(path, "it was changed while it was loaded")


def _read(path: str, directory: bool, alone: str) -> dict[str, str]:
    """Return the digests in a manifest, by name."""
    try:
        text, _ = read_regular_file(path, limit=LONGEST_MANIFEST)
        lines = text.decode().removesuffix("\n").split("\n") if text else []
    except FileRefused as refused:
        raise IntegrityError(path, refused.reason) from refused
    except UnicodeDecodeError as error:
        raise IntegrityError(path, "it is not UTF-8") from error
    said: dict[str, str] = {}
    for number, line in enumerate(lines, 1):
        match = _LINE.fullmatch(line.removesuffix("\r"))
        name = match and _name(match, "" if directory else alone)
        if not match or not name:
            what = f"line {number}: expected a sha256, two spaces and a name, not {shown(line)}"
            raise IntegrityError(path, what)
        if not {"", ".", ".."}.isdisjoint(name.split("/")):
            what = f"line {number}: expected a plain relative name, not {shown(match[3])}"
            raise IntegrityError(path, what)
        if name == os.path.basename(path):
            raise IntegrityError(path, f"line {number}: a manifest cannot list itself")
        if name in said:
            raise IntegrityError(path, f"line {number}: {shown(name)} is there twice")
        said[name] = match[2].lower()
    if not said:
        raise IntegrityError(path, "the manifest is empty")
    return said


def _name(line: re.Match[str], alone: str) -> str:
    """Return the name in a line of a manifest; empty if it has none, or one that is spelled wrong.

    Args:
        line: the line.
        alone: what the model's one file is called, which a line need not name.
    """
    escaped, _, name = line.groups(default="")
    if escaped:
        if not name or "\\" in _ESCAPE.sub("", name):
            return ""
        name = _ESCAPE.sub(lambda found: _ESCAPES[found[0]], name)
    return (name or alone).removeprefix("./")


def _digest(path: str, between: Callable[[], object]) -> tuple[str, Stamp]:
    try:
        with open_regular_file(path, follow_links=True) as file:
            before = stamp_of(os.fstat(file.fileno()))
            digest = hashlib.sha256()
            while chunk := file.read(CHUNK):
                digest.update(chunk)
                between()
            return digest.hexdigest(), before
    except FileRefused as refused:
        raise IntegrityError(path, refused.reason) from refused
    except OSError as error:
        raise IntegrityError(path, f"unreadable: {error.strerror}") from error
