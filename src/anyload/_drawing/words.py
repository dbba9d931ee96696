"""What of a picture is text: escaping, durations, sizes, the marks of an axis. Pure."""

from __future__ import annotations

import math
from html import escape

from ..reports import seconds

MARKS = 8
"""About how many marks an axis has."""


def safe(text: str) -> str:
    """Return a text as HTML, for elements and attributes: what models are called is not ours.

    Control characters, and what is no character at all, are shown as such.
    """
    clean = text.encode("utf-8", "replace").decode("utf-8")
    return escape("".join(one if one.isprintable() or one == "\n" else "\ufffd" for one in clean))


def duration(value: float) -> str:
    """Return a duration in few characters; nothing at all is ``0``."""
    return seconds(value) if value > 0 else "0"


def size(count: float | None) -> str:
    """Return a number of bytes as people write it; ``-`` where it is not known."""
    if count is None:
        return "-"
    if abs(count) < 1e6:
        return f"{count / 1e3:.3g} kB"
    return f"{count / 1e6:.3g} MB" if abs(count) < 1e9 else f"{count / 1e9:.3g} GB"


def counted(number: int, what: str) -> str:
    """Return ``1 model``, ``2 models``."""
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def marks(end: float, most: int = MARKS) -> list[float]:
    """Return round values from 0 on, for an axis that goes to ``end``."""
    if end <= 0:
        return [0.0]
    rough = end / most
    power = 10.0 ** math.floor(math.log10(rough))
    step = power * next(one for one in (1, 2, 5, 10) if one * power >= rough * 0.999)
    return [round(number * step, 12) for number in range(int(end / step + 1e-9) + 1)]
