"""Environment overrides: ``ANYLOAD__BACKEND_PRIORITY__0__TIMEOUT=30``."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ..errors import ConfigError, Problem
from .problems import Place, dotted, shown
from .yaml import DEEPEST, read_yaml_scalar

PREFIX = "ANYLOAD__"
MOST_VARIABLES = 1000
KEYED_BY_NAME = (("models",), ("modules",), ("backend_types",), ("repository", "models"))
"""Mappings whose keys somebody chose, which may be numbers: they are made as no list."""


def apply_environment(
    data: dict[str, Any], environ: Mapping[str, str]
) -> tuple[dict[Place, str], list[Problem]]:
    """Set what the ``ANYLOAD__`` variables say in a configuration.

    A variable names a key at any depth, or an index of a list, whatever its case; ``-`` in a key
    may be written ``_``. Its value is a YAML scalar. An index may be one past the end: the entry
    is added.

    Args:
        data: the configuration, changed in place.
        environ: the variables; those with another prefix are ignored.

    Returns:
        The places that were set, and the mappings and lists that were made for them, each with its
        variable; and what is wrong with the variables. Their values are in no problem: an
        environment holds secrets.
    """
    origins: dict[Place, str] = {}
    problems: list[Problem] = []
    variables = [key for key in environ if key.startswith(PREFIX)]
    if len(variables) > MOST_VARIABLES:
        what = f"limits: more than {MOST_VARIABLES} variables"
        return origins, [Problem(f"{PREFIX}*", what)]
    for variable in sorted(variables, key=_natural):
        if not variable.isprintable():
            problems.append(Problem(variable, "its name cannot be printed: no key is like that"))
            continue
        try:
            value = read_yaml_scalar(environ[variable], variable)
        except ConfigError:
            problems.append(Problem(variable, "expected a YAML scalar"))
            continue
        try:
            place, made = _put(data, variable.removeprefix(PREFIX).split("__"), value)
        except LookupError as error:
            problems.append(Problem(variable, str(error.args[0])))
            continue
        if place in origins:
            problems.append(Problem(variable, f"names the same key as {origins[place]}"))
        origins |= dict.fromkeys((*made, place), variable)
    return origins, problems


def _natural(variable: str) -> list[tuple[int, str]]:
    """Sort by name, and numbers by size, so that entries are added in order."""
    return [(int(digits or 0), text) for text, digits in re.findall(r"(\D*)(\d{0,9})", variable)]


def _put(data: dict[str, Any], keys: list[str], value: object) -> tuple[Place, list[Place]]:
    """Set one value; return where it is, and where mappings and lists were made on the way."""
    if len(keys) > DEEPEST:
        raise LookupError(f"limits: deeper than {DEEPEST} levels")
    place: Place = ()
    made: list[Place] = []
    slot: Any
    here: Any = data
    for key, following in zip(keys, [*keys[1:], None], strict=True):
        slot = _slot(here, key, place)
        place = (*place, slot)
        if isinstance(here, list) and slot == len(here):
            here.append(None)
        if following is None:
            here[slot] = value
        elif (here[slot] if isinstance(here, list) else here.get(slot)) is None:
            here[slot] = [] if following.isdecimal() and place not in KEYED_BY_NAME else {}
            made.append(place)
        here = here[slot]
    return place, made


def _slot(here: object, key: str, place: Place) -> str | int:
    if isinstance(here, list):
        if not (key.isascii() and key.isdecimal() and len(key) < 10 and int(key) <= len(here)):
            raise LookupError(f"{dotted(place)} has no entry {shown(key)}")
        return int(key)
    if not isinstance(here, dict):
        raise LookupError(f"{dotted(place)} has no keys")
    if not key:
        raise LookupError("an empty key")
    folded = _folded(key)
    return next((name for name in here if _folded(name) == folded), _new_key(key, place))


def _folded(key: object) -> str:
    return str(key).lower().replace("-", "_")


def _new_key(key: str, place: Place) -> str:
    """Return how a key that is not there yet is spelled: backend types are upper case."""
    names_types = place == ("backend_types",) or (len(place) == 2 and place[0] == "modules")
    return key.upper() if names_types else key.lower()
