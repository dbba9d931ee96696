"""How the errors of a configuration name a place and show a value."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from typing import TypeAlias

from ..errors import Problem

LONGEST_VALUE = 80
LONGEST_PLACE = 160

Place: TypeAlias = tuple[str | int, ...]

_PLAIN_KEY = re.compile(r"[A-Za-z0-9_-]{1,80}", re.ASCII)


def dotted(place: Place) -> str:
    """Return the place of a value as text: ``backend_priority[0].timeout``.

    A key that could be misread, or that could forge a line of a log, is repr'd in brackets.
    """
    text = ""
    for part in place:
        if isinstance(part, str) and _PLAIN_KEY.fullmatch(part):
            text += f".{part}" if text else part
        else:
            text += f"[{shown(part)}]"
    return text if len(text) <= LONGEST_PLACE else f"{text[:LONGEST_PLACE]}..."


def shown(value: object) -> str:
    """Return a scalar's repr cut to 80 characters; of a list or mapping only what it is."""
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list | tuple):
        return "a list"
    if isinstance(value, str | bytes):
        # Cut before the repr, so that a long text is never copied whole.
        text = repr(value[:LONGEST_VALUE])
        return f"{text}..." if len(value) > LONGEST_VALUE else text
    if value is None or isinstance(value, int | float):
        return _number(value)
    return f"a {type(value).__name__}"


def problem_at(where: str, what: str, variable: str | None) -> Problem:
    """Return what is wrong at a place, by the name of the variable that said it, if one did."""
    return Problem(variable, f"{where}: {what}") if variable else Problem(where, what)


def encodes(text: str) -> bool:
    """Return whether a text has no lone surrogate, which neither UTF-8 nor JSON can hold."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def unknown_key(key: str, known: Iterable[str]) -> str:
    """Return what is wrong with a key that nobody knows, with the nearest known one."""
    near = difflib.get_close_matches(key, sorted(known), n=1)
    return f"unknown key; did you mean {near[0]!r}?" if near else "unknown key"


def _number(value: float | None) -> str:
    try:
        text = repr(value)
    except ValueError:  # Python refuses to write an integer of more than 4300 digits.
        return "an integer of thousands of digits"
    except Exception:  # of a subclass
        return f"a {type(value).__name__}"
    return text if len(text) <= LONGEST_VALUE else f"{text[:LONGEST_VALUE]}..."
