"""What a caller may give beside a model: it is checked before anything begins."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

from ._reading.problems import shown


def require_models(models: object) -> None:
    """Refuse one model where many are asked for: a name is an iterable of letters."""
    if isinstance(models, str | bytes | os.PathLike) or not isinstance(models, Iterable):
        raise TypeError(f"many models are a list of them, not {shown(models)}")


def require_priority(priority: object) -> None:
    """Refuse what is no whole number."""
    if type(priority) is not int:
        raise TypeError(f"priority is a whole number, not {priority!r}")


def require_timeout(timeout: object) -> None:
    """Refuse what is no number of seconds; None is no limit."""
    if timeout is not None and not _is_number(timeout):
        raise ValueError(f"timeout is a number of seconds or None, not {timeout!r}")


def require_grace(grace: Any) -> None:
    """Refuse what is no number of seconds, 0 or more."""
    if not (_is_number(grace) and grace >= 0):
        raise ValueError(f"grace is a number of seconds, 0 or more, not {grace!r}")


def _is_number(value: Any) -> bool:
    """Return whether it is a number, and no bool, and no NaN: that is on neither side of 0."""
    some = isinstance(value, int | float) and not isinstance(value, bool)
    return some and (value < 0 or value >= 0)
