"""What there is below a model's directory."""

from __future__ import annotations

import contextlib
import os

from ..errors import IntegrityError


def files_of(model: str, manifest: str) -> dict[str, str]:
    """Return the files of a model but for its manifest, by their names with slashes.

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
                    if entry.is_dir(follow_symlinks=False):
                        todo.append((f"{base}{entry.name}/", entry.path))
                    elif entry.is_dir():
                        raise IntegrityError(entry.path, "a link to a directory")
                    elif entry.path != manifest:
                        files[base + entry.name] = entry.path
        except OSError as error:
            raise IntegrityError(directory, f"unreadable: {error.strerror}") from error
    return files


def size_on_disk(directory: str) -> int:
    """Return the bytes of all files below a directory.

    What vanishes or cannot be read while we look is left to the load to complain of.
    """
    total, todo = 0, [directory]
    while todo:
        with contextlib.suppress(OSError), os.scandir(todo.pop()) as entries:
            for entry in entries:
                with contextlib.suppress(OSError):
                    if entry.is_dir(follow_symlinks=False):
                        todo.append(entry.path)
                    else:
                        total += entry.stat().st_size
    return total
