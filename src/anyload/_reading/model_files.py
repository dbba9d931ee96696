"""Read the ``config.yml`` of a model directory."""

from __future__ import annotations

import os
from typing import Any

from ..errors import ConfigError, ModelNotFoundError, Problem
from .files import FileRefused, read_regular_file

CONFIG_FILE = "config.yml"
LONGEST_CONFIG = 1024 * 1024


def read_model_fields(directory: str) -> dict[str, Any]:
    """Return the fields of a model directory's ``config.yml``.

    Raises:
        ModelNotFoundError: there is no such directory, or no config.yml in it.
        ConfigError: the file cannot be used.
    """
    from .model_fields import parse_model_fields  # imports yaml, which a name alone need not

    path = os.path.join(directory, CONFIG_FILE)
    try:
        text, _ = read_regular_file(path, limit=LONGEST_CONFIG)
    except FileRefused as refused:
        if refused.reason not in ("not found", "not a valid path"):
            raise ConfigError(path, [Problem("", refused.reason)]) from refused
        raise ModelNotFoundError(directory, _missing(directory)) from refused
    return parse_model_fields(text, path)


def _missing(directory: str) -> str:
    if os.path.isdir(directory):
        return f"the directory has no {CONFIG_FILE}"
    if os.path.exists(directory):
        return "a file, not a model directory"
    return "there is no such directory"
