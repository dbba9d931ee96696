"""What a configured value may be: each function returns the value, or says what was expected."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TypeGuard

from .amounts import byte_size
from .names import wrong_with_name

MOST_BACKENDS = 1024

_IMPORT_PATH = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)*")


def seconds(value: object) -> float:
    # A nan compares false, and what is too big for a float is no duration.
    if _number(value) and 0 < value <= sys.float_info.max:
        return float(value)
    raise ValueError("expected a positive number of seconds")


def seconds_or_none_at_all(value: object) -> float:
    if _number(value) and 0 <= value <= sys.float_info.max:
        return float(value)
    raise ValueError("expected a number of seconds, 0 or more")


def _number(value: object) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def integer(low: int, high: int) -> Callable[[object], int]:
    def check(value: object) -> int:
        if not (isinstance(value, int) and not isinstance(value, bool) and low <= value <= high):
            raise ValueError(f"expected an integer {low}..{high}")
        return value

    return check


def text(value: object) -> str:
    if not (isinstance(value, str) and value):
        raise ValueError("expected a non-empty string")
    return value


def path_text(value: object) -> str:
    spelled = os.fspath(value) if isinstance(value, str | os.PathLike) else None
    if not (isinstance(spelled, str) and spelled and "\0" not in spelled and _encodes(spelled)):
        raise ValueError("expected a path")
    return spelled


def _encodes(path: str) -> bool:
    try:
        os.fsencode(path)
    except UnicodeEncodeError:  # a lone surrogate
        return False
    return True


def path(value: object) -> Path:
    return Path(path_text(value))


def import_path(value: object) -> str:
    if not (isinstance(value, str) and _IMPORT_PATH.fullmatch(value)):
        raise ValueError("expected an import path, 'package.module:Class'")
    return value


def by_backend_type(value: object) -> object:
    return {"LOCAL": import_path(value)} if isinstance(value, str) else value


def priority(value: object) -> object:
    if not (isinstance(value, list | tuple) and value):
        raise ValueError("expected a list with at least one backend")
    if len(value) > MOST_BACKENDS:
        raise ValueError(f"expected a list of at most {MOST_BACKENDS} backends")
    return tuple(value)


def catalogue_name(value: object) -> str:
    name = text(value)
    if wrong := wrong_with_name(name):
        raise ValueError(wrong)
    return name


def none_is_empty(value: object) -> object:
    return {} if value is None else value


def listed(value: object) -> object:
    if not isinstance(value, list | tuple):
        raise ValueError("expected a list")
    return tuple(value)


def memory(value: object) -> object:
    if isinstance(value, dict):
        return {device: byte_size(size) for device, size in value.items()}
    return None if value is None else byte_size(value)
