"""Find the initializer's keys in a file or a mapping."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, NamedTuple

from ..errors import ConfigError, Problem
from .files import FileRefused, read_regular_file
from .names import path_text
from .problems import Place, dotted, encodes, shown
from .yaml import DEEPEST, LONGEST_YAML, read_yaml_mapping


class Document(NamedTuple):
    """The initializer's keys, and where they come from.

    Args:
        source: what they were read from, for errors.
        place: where in it they are: caikit nests them.
        data: the keys, a copy that may be changed.
    """

    source: str
    place: Place
    data: dict[str, Any]


def read_document(source: str | os.PathLike[str] | Mapping[str, Any], name: str) -> Document:
    """Return the keys of the initializer with this name.

    Paths that a file gives are made relative to that file.

    Raises:
        ConfigError: the file cannot be read, or has no such initializer.
        TypeError: the source is neither.
    """
    if isinstance(source, Mapping):
        place, section = _section(source, name, "the configuration")
        return Document("the configuration", place, _copied(section, "the configuration"))
    path = path_text(source, "a configuration is the path of a file, or a mapping")
    try:
        # The operator chose this path, so a link to it is followed, as in a mounted ConfigMap.
        text, _ = read_regular_file(path, limit=LONGEST_YAML, follow_links=True)
    except FileRefused as refused:
        raise ConfigError(path or "''", [Problem("", refused.reason)]) from refused
    place, section = _section(read_yaml_mapping(text, path), name, path)
    return Document(path, place, _resolved(_copied(section, path), os.path.dirname(path)))


def _section(
    document: Mapping[str, Any], name: str, source: str
) -> tuple[Place, Mapping[str, Any]]:
    if "model_management" not in document:
        return (), document
    initializers: Place = ("model_management", "initializers")
    section: Any = document
    for place in (initializers[:1], initializers, (*initializers, name)):
        if place[-1] not in section:
            there = ", ".join(sorted(shown(key) for key in section))
            what = f"missing; it has {there}" if there else "missing"
            raise ConfigError(source, [Problem(dotted(place), what)])
        section = _mapping(section[place[-1]], place, source)
    place = (*initializers, name, "config")
    return place, _without_local(_mapping(section.get("config") or {}, place, source))


def _without_local(section: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a section of caikit's without the config of LOCAL: caikit takes no notice of it."""
    entries = section.get("backend_priority")
    if not isinstance(entries, list):
        return section
    return {**section, "backend_priority": [_entry(entry) for entry in entries]}


def _entry(entry: Any) -> Any:
    if not (isinstance(entry, Mapping) and entry.get("type") == "LOCAL"):
        return entry
    return {key: value for key, value in entry.items() if key != "config"}


def _mapping(value: object, place: Place, source: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        what = f"expected a mapping, not {shown(value)}"
        raise ConfigError(source, [Problem(dotted(place), what)])
    return value


def _copied(section: Mapping[str, Any], source: str) -> dict[str, Any]:
    """Return plain dicts and lists of our own, so that the caller's are never changed."""

    def copied(value: Any, place: Place) -> Any:
        if not isinstance(value, Mapping | list | tuple):
            return value
        if len(place) == DEEPEST:  # of a caller's own making: it may hold itself
            what = f"limits: deeper than {DEEPEST} levels"
            raise ConfigError(source, [Problem("", what)])
        if isinstance(value, Mapping):
            return {key: copied(item, within(place, key)) for key, item in value.items()}
        return [copied(item, (*place, index)) for index, item in enumerate(value)]

    def within(place: Place, key: Any) -> Place:
        inside = (*place, key)
        if isinstance(key, str) and not encodes(key):  # pydantic would not tell which key it is
            raise ConfigError(source, [Problem(dotted(inside), "key must be valid text")])
        return inside

    plain: dict[str, Any] = copied(section, ())
    return plain


def _resolved(data: dict[str, Any], directory: str) -> dict[str, Any]:
    models = data.get("models")
    for holder, key in [
        (data, "model_root"),
        *((entry, "model_path") for entry in (models.values() if isinstance(models, dict) else ())),
    ]:
        # What is no text is refused later, with its place.
        if isinstance(holder, dict) and isinstance(holder.get(key), str) and holder[key]:
            holder[key] = os.path.join(os.path.abspath(directory), holder[key])
    return data
