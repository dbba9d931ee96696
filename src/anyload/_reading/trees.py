"""What there is below a model's directory."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable

from ..errors import IntegrityError


def files_of(
    model: str, manifest: str, between: Callable[[], object] = lambda: None
) -> dict[str, str]:
    """Return the files of a model but for its manifest, by their names with slashes.

    Args:
        model: its directory or file.
        manifest: the path of its manifest.
        between: called for each file and directory; what it raises ends this.

    Raises:
        IntegrityError: a directory cannot be read, or is a link, which may lead anywhere.
    """
    if not os.path.isdir(model):
        return {os.path.basename(model): model}
    files = {}
    todo = [("", model)]
    while todo:
        base, directory = todo.pop()
        try:
            with os.scandir(directory) as entries:
                for entry in entries:
                    between()
                    if entry.is_dir(follow_symlinks=False):
                        todo.append((f"{base}{entry.name}/", entry.path))
                    elif entry.is_dir():
                        raise IntegrityError(entry.path, "a link to a directory")
                    elif entry.path != manifest:
                        files[base + entry.name] = entry.path
        except OSError as error:
            raise IntegrityError(directory, f"unreadable: {error.strerror}") from error
    return files


def size_on_disk(
    directory: str,
    follow: Callable[[str], str] | None = None,
    between: Callable[[], object] = lambda: None,
) -> int:
    """Return the bytes of all files below a directory.

    What vanishes or cannot be read while we look is left to the load to complain of.

    Args:
        directory: the directory; its real path where links are followed.
        follow: returns the real path that a link leads to, or raises if it must not lead there.
            None for following links to files only.
        between: called for each file and directory; what it raises ends this.
    """
    total, todo, known = 0, [directory], {directory}
    while todo:
        with contextlib.suppress(OSError), os.scandir(todo.pop()) as entries:
            for entry in entries:
                between()
                with contextlib.suppress(OSError):
                    path, linked = entry.path, False
                    if follow is not None and entry.is_symlink():
                        path, linked = follow(entry.path), True
                    if not entry.is_dir(follow_symlinks=linked):
                        total += entry.stat().st_size
                    elif path not in known:
                        known.add(path)
                        todo.append(path)
    return total
