"""What may be a path, and what may be a name of a catalogue."""

from __future__ import annotations

import os
import re

from .problems import shown

LONGEST_SEGMENT = 128
MOST_SEGMENTS = 8

_SEGMENT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*", re.ASCII)


def path_text(path: object, expected: str) -> str:
    """Return a path as text.

    Args:
        path: what was given.
        expected: what should have been, as a clause.

    Raises:
        TypeError: it is no path, or one of bytes.
    """
    text = os.fspath(path) if isinstance(path, str | os.PathLike) else path
    if not isinstance(text, str):
        raise TypeError(f"{expected}, not {shown(path)}")
    return text


def wrong_with_name(name: str) -> str | None:
    """Return what is wrong with a catalogue name, or None.

    A name is at most 8 segments, joined by ``/``, of at most 128 letters, digits, ``.``, ``_``
    and ``-`` each, that start with a letter or digit. So it can be a path below a root, a part of
    a URL and a word in a log.
    """
    segments = name.split("/")
    if name.startswith("/") or ".." in segments:
        return "outside the root"
    if "" in segments or "." in segments:
        return "empty segment"
    if len(segments) > MOST_SEGMENTS:
        return f"too deep: more than {MOST_SEGMENTS} segments"
    if any(len(segment) > LONGEST_SEGMENT for segment in segments):
        return f"too long: a segment of more than {LONGEST_SEGMENT} characters"
    if not all(_SEGMENT.fullmatch(segment) for segment in segments):
        return "invalid name"
    return None
