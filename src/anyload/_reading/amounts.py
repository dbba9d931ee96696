"""Amounts as people write them: bytes, shares of what is there, durations."""

from __future__ import annotations

import math
import re
import sys
from types import MappingProxyType

_AMOUNT = re.compile(r"(\d+(?:\.\d+)?)\s*([A-Za-z%]*)", re.ASCII)
_BYTES = MappingProxyType(
    {
        "": 1,
        "B": 1,
        **{f"{letter}B": 1000**power for power, letter in enumerate("kMGT", 1)},
        **{f"{letter}iB": 1024**power for power, letter in enumerate("KMGT", 1)},
    }
)
_SECONDS = MappingProxyType({"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400})
MOST_BYTES = 2**63 - 1


def byte_size(value: object) -> int:
    """Return a number of bytes: ``2147483648``, ``"2GiB"``, ``"1.5 GB"``."""
    number = _whole(value)
    if isinstance(value, str) and (found := _AMOUNT.fullmatch(value.strip())):
        amount = float(found[1]) * _BYTES.get(found[2], math.inf)
        number = int(amount) if amount <= MOST_BYTES else None  # infinite is no integer
    if number is None or not 0 <= number <= MOST_BYTES:
        raise ValueError("expected a size, such as 2147483648 or 2GiB")
    return number


def budget(value: object) -> int | float:
    """Return bytes, or a share of what is there as a fraction: ``"8GiB"``, ``"80%"``."""
    if isinstance(value, float) and 0 < value <= 1:
        return value
    if isinstance(value, str) and (found := _AMOUNT.fullmatch(value.strip())) and found[2] == "%":
        share = float(found[1]) / 100
        if 0 < share <= 1:
            return share
        raise ValueError("expected a share of more than 0% and at most 100%")
    try:
        return byte_size(value)
    except ValueError:
        raise ValueError("expected a size, such as 8GiB, or a share, such as 80%") from None


def keep_alive(value: object) -> float:
    """Return seconds: ``300``, ``"5m"``, 0 for not at all; ``-1``, for ever, is infinite."""
    seconds: float | None = None
    if isinstance(value, str) and (found := _AMOUNT.fullmatch(value.strip())):
        amount = float(found[1]) * _SECONDS.get(found[2], math.inf)
        seconds = amount if amount < math.inf else None  # too long for a float is not for ever
    elif isinstance(value, str) and value.strip() == "-1":
        seconds = math.inf
    elif isinstance(value, int | float) and not isinstance(value, bool):
        seconds = math.inf if value == -1 else value
    if seconds is None or not (0 <= seconds <= sys.float_info.max or seconds == math.inf):
        raise ValueError("expected a duration, such as 5m, 0, or -1 for ever")
    return float(seconds)


def _whole(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def bytes_text(size: int) -> str:
    """Return a size as people write it: ``512 B``, ``1.5 GiB``."""
    amount, unit = float(size), "B"
    for bigger in ("KiB", "MiB", "GiB", "TiB"):
        if abs(amount) < 1024:
            break
        amount, unit = amount / 1024, bigger
    return f"{amount:.4g} {unit}"
