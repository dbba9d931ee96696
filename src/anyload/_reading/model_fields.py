"""Check what a model directory's ``config.yml`` says."""

from __future__ import annotations

from typing import Any

from ..errors import ConfigError, Problem
from .problems import shown
from .yaml import read_yaml_mapping


def parse_model_fields(text: bytes, source: str) -> dict[str, Any]:
    """Return the fields of a model directory's ``config.yml``.

    Nothing in it is ever imported or followed: it comes with the model, not from the operator.

    Args:
        text: what the file holds.
        source: the name of the file, for the error.

    Raises:
        ConfigError: it is no YAML mapping, ``module_id`` is missing or no text,
            ``model_backend`` is no text, or it names a ``model_path``.
    """
    fields = read_yaml_mapping(text, source)
    problems = []
    if "module_id" not in fields:
        problems.append(Problem("module_id", "missing"))
    for key, optional in (("module_id", False), ("model_backend", True)):
        value = fields.get(key)
        # An empty `model_backend:` says as little as none.
        unset = key not in fields or (optional and value is None)
        if not unset and not (isinstance(value, str) and value):
            problems.append(Problem(key, f"expected a non-empty string, not {shown(value)}"))
    if "model_path" in fields:
        what = "reserved; the path of a model is the directory its config.yml is in"
        problems.append(Problem("model_path", what))
    if problems:
        raise ConfigError(source, problems)
    return fields
