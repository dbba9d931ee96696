"""Whether the files of a model have changed since a load of it began."""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import islice

from .._reading.manifests import stamp_of
from ..model_config import ModelConfig

MOST_FILES = 1000


def stamp_of_files(config: ModelConfig) -> object:
    """Return what is another after the files of a model have changed; it reads the disk.

    Args:
        config: the model's config.
    """
    if config.model_path is None:
        return None
    stamps: list[tuple[str, object]] = []
    for path in _files(config.model_path):
        try:
            status = os.stat(path)
        except (OSError, ValueError):
            stamps.append((path, None))
        else:
            stamps.append((path, stamp_of(status)))
        if len(stamps) == MOST_FILES:
            break
    return tuple(sorted(stamps, key=lambda stamp: stamp[0]))


def _files(path: str) -> Iterator[str]:
    yield path
    for directory, _, names in islice(os.walk(path), MOST_FILES):
        for name in names:
            yield os.path.join(directory, name)
