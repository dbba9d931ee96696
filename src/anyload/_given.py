"""What a caller may give beside a model: it is checked before anything begins."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping
from typing import Any

from ._reading.problems import shown


def require_models(models: object) -> None:
    """Refuse one model where many are asked for: a name is an iterable of letters."""
    if isinstance(models, str | bytes | os.PathLike) or not isinstance(models, Iterable):
        raise TypeError(f"many models are a list of them, not {shown(models)}")


def require_name(name: object) -> None:
    """Refuse what is no text where a model of a catalogue is asked for by its name."""
    if not isinstance(name, str):
        raise TypeError(f"the name of a model is text, not {shown(name)}")


def require_priority(priority: object) -> None:
    """Refuse what is no whole number."""
    if type(priority) is not int:
        raise TypeError(f"priority is a whole number, not {shown(priority)}")


def require_timeout(timeout: object) -> None:
    """Refuse what is no number of seconds; None is no limit."""
    if timeout is not None and not _is_number(timeout):
        raise ValueError(f"timeout is a number of seconds or None, not {shown(timeout)}")


def require_drain_timeout(timeout: Any) -> None:
    """Refuse what is no number of seconds, 0 or more; None is what the configuration says."""
    if timeout is not None and not (_is_number(timeout) and timeout >= 0):
        what = "a number of seconds, 0 or more, or None"
        raise ValueError(f"drain_timeout is {what}, not {shown(timeout)}")


def require_grace(grace: Any) -> None:
    """Refuse what is no number of seconds, 0 or more."""
    if not (_is_number(grace) and grace >= 0):
        raise ValueError(f"grace is a number of seconds, 0 or more, not {shown(grace)}")


def require_error(error: object) -> None:
    """Refuse what tells of no failure: neither an exception nor a text."""
    if not isinstance(error, BaseException | str):
        raise TypeError(f"the error is an exception or text, not {shown(error)}")


def require_sizes(sizes: object) -> None:
    """Refuse what is no mapping by the names of devices."""
    if not isinstance(sizes, Mapping):
        raise TypeError(f"what is needed is bytes by device, not {shown(sizes)}")
    for device in sizes:
        if not isinstance(device, str):
            raise TypeError(f"the name of a device is text, not {shown(device)}")


def _is_number(value: Any) -> bool:
    """Return whether it is a number that a clock can add, and no bool, and no NaN."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return False
    try:
        return not math.isnan(value)
    except OverflowError:  # an integer that is no float
        return False
