"""Whether the files of a model have changed since a load of it began."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from itertools import islice

from .._reading.manifests import Stamp, stamp_of
from ..model_config import ModelConfig

MOST_FILES = 1000
"""At how many files and directories it looks: each load begins with that."""


def stamp_of_files(config: ModelConfig) -> object:
    """Return what is another after the files of a model have changed; it reads the disk.

    Args:
        config: the model's config.
    """
    if config.model_path is None:
        return None
    found = islice(_found(config.model_path), MOST_FILES)
    return tuple(sorted(found, key=lambda each: each[0]))


def _found(path: str) -> Iterator[tuple[str, Stamp | None]]:
    """Yield what is at a path and below it; of directories there only that they are."""
    yield path, _stamp(path)
    directories = [path]
    while directories:
        # What cannot be listed is a file, or has nothing in it that a load could read.
        with suppress(OSError, ValueError), os.scandir(directories.pop()) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    directories.append(entry.path)
                    yield entry.path, None
                else:
                    yield entry.path, _stamp(entry.path)


def _stamp(path: str) -> Stamp | None:
    try:
        return stamp_of(os.stat(path))
    except (OSError, ValueError):
        return None
