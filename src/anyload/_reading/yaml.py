"""Read one YAML document into plain data, within limits: the only file that imports yaml.

The parser's events are turned into data directly. There is no node tree and no constructor, so
tags, merge keys and exponential aliases have nothing to run on, and a small file reads faster
than through ``yaml.load``.

The types are JSON's: mapping, list, string, integer, float, boolean, null. A date stays the text
it is, so that a free field can be hashed, compared and written as JSON, and the module that reads
it sees what the file says.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, TypeAlias

import yaml

from ..errors import ConfigError, Problem
from .problems import dotted, shown

Data: TypeAlias = dict[str, Any] | list[Any] | str | int | float | bool | None

LONGEST_YAML = 1024 * 1024
DEEPEST = 64
MOST_ALIASES = 64
MOST_NODES = 100_000
LONGEST_NUMBER = 100
"""Characters: to read a number takes the square of how many it has."""

_Parser: type[Any] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

_CORE = "tag:yaml.org,2002:"
_WORDS = MappingProxyType(
    {
        **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
        **{
            form: True
            for word in ("yes", "true", "on")
            for form in (word, word.title(), word.upper())
        },
        **{
            form: False
            for word in ("no", "false", "off")
            for form in (word, word.title(), word.upper())
        },
    }
)
_NUMBERS: Mapping[str, Callable[[yaml.ScalarNode], int | float]] = MappingProxyType(
    {
        f"{_CORE}int": yaml.constructor.SafeConstructor().construct_yaml_int,
        f"{_CORE}float": yaml.constructor.SafeConstructor().construct_yaml_float,
    }
)
_SMALL_INTEGER = re.compile(r"-?(?:0|[1-9][0-9]{0,17})", re.ASCII)
_NOT_YAML = re.compile(
    "[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]"
)


def read_yaml_mapping(text: bytes, source: str) -> dict[str, Any]:
    """Return the one mapping that a YAML text holds.

    Args:
        text: UTF-8, at most 1 MiB.
        source: the name of the file, for the error.

    Raises:
        ConfigError: the text is empty, is no YAML, holds anything but one mapping with unique
            string keys and plain values, or passes a limit on its size, depth or aliases.
    """
    value = _read(text, source)
    if not isinstance(value, dict):
        raise ConfigError(source, [Problem("", f"expected a mapping, not {shown(value)}")])
    return value


def read_yaml_scalar(text: str, source: str) -> str | int | float | bool | None:
    """Return the one scalar that a YAML text holds; an empty text is null.

    Args:
        text: the text, such as the value of an environment variable.
        source: the name of what holds it, for the error.

    Raises:
        ConfigError: it is no YAML, or it is a list or a mapping. The text is not repeated.
    """
    value = _read(text.encode(errors="surrogatepass"), source) if text.strip() else None
    if isinstance(value, dict | list):
        raise ConfigError(source, [Problem("", "expected a scalar, not a list or a mapping")])
    return value


def _read(text: bytes, source: str) -> Data:
    if len(text) > LONGEST_YAML:
        raise ConfigError(source, [Problem("", "limits: longer than 1 MiB")])
    try:
        return _Reading(_Parser(_decoded(text)).get_event).document()
    except _Refused as refused:
        raise ConfigError(source, [Problem(refused.where, refused.what)]) from None
    except yaml.MarkedYAMLError as error:
        what = " ".join(filter(None, (error.context, error.problem)))
        raise ConfigError(source, [Problem(_position(error.problem_mark), what)]) from None
    except (ValueError, OverflowError):  # from chr(), in the parser without libyaml
        raise ConfigError(source, [Problem("", "an escape that is no character")]) from None


class _Refused(Exception):
    def __init__(self, where: str, what: str) -> None:
        self.where = where
        self.what = what


def _decoded(text: bytes) -> str:
    try:
        decoded = text.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = text[: error.start].decode("utf-8-sig")
        raise _Refused(_end_of(before), f"invalid UTF-8: {error.reason}") from None
    if found := _NOT_YAML.search(decoded):
        where = _end_of(decoded[: found.start()])
        raise _Refused(where, f"the character {found[0]!r} is not allowed")
    return decoded


def _end_of(text: str) -> str:
    lines = text.split("\n")
    return f"line {len(lines)}, column {len(lines[-1]) + 1}"


def _position(mark: Any) -> str:
    return f"line {mark.line + 1}, column {mark.column + 1}"


class _Reading:
    """One pass over the events of a document, with what the limits count."""

    def __init__(self, next_event: Callable[[], Any]) -> None:
        self._next = next_event
        self._path: list[str | int] = []
        self._anchors: dict[str, tuple[Any, int]] = {}
        self._aliases = 0
        self._nodes = 0

    def document(self) -> Data:
        self._next()  # the start of the stream
        if type(self._next()) is yaml.StreamEndEvent:
            raise _Refused("", "empty")
        value: Data = self._value(self._next())
        self._next()  # the end of the document
        if type(event := self._next()) is not yaml.StreamEndEvent:
            raise self._refused("expected one document; another one starts", event)
        return value

    def _value(self, event: Any) -> Any:
        self._nodes += 1
        if self._nodes > MOST_NODES:
            raise self._refused(f"limits: more than {MOST_NODES} values", event)
        kind = type(event)
        if kind is yaml.AliasEvent:
            return self._alias(event)
        if event.tag is not None:
            tag = event.tag.replace(_CORE, "!!", 1)
            raise self._refused(f"tag not allowed: {shown(tag)}", event)
        before = self._nodes
        value: Any
        if kind is yaml.ScalarEvent:
            value = self._scalar(event)
        elif len(self._path) >= DEEPEST:
            raise self._refused(f"limits: deeper than {DEEPEST} levels", event)
        elif kind is yaml.MappingStartEvent:
            value = self._mapping()
        else:
            value = self._sequence()
        if event.anchor is not None:
            self._anchors[event.anchor] = value, self._nodes - before
        return value

    def _mapping(self) -> dict[str, Any]:
        mapping: dict[str, Any] = {}
        path = self._path
        while type(event := self._next()) is not yaml.MappingEndEvent:
            key = self._key(event)
            path.append(key)
            if key in mapping:
                raise self._refused(f"duplicate key {shown(key)}", event)
            mapping[key] = self._value(self._next())
            path.pop()
        return mapping

    def _sequence(self) -> list[Any]:
        sequence: list[Any] = []
        path = self._path
        while type(event := self._next()) is not yaml.SequenceEndEvent:
            path.append(len(sequence))
            sequence.append(self._value(event))
            path.pop()
        return sequence

    def _key(self, event: Any) -> str:
        if type(event) is yaml.ScalarEvent and event.value == "<<" and event.implicit[0]:
            raise self._refused("merge keys are not allowed", event)
        if type(event) not in (yaml.ScalarEvent, yaml.AliasEvent):
            raise self._refused("key must be a string, not a list or a mapping", event)
        key = self._value(event)
        if type(key) is not str:
            raise self._refused(f"key must be a string, not {shown(key)}", event)
        return key

    def _alias(self, event: Any) -> Any:
        self._aliases += 1
        if self._aliases > MOST_ALIASES:
            raise self._refused(f"limits: more than {MOST_ALIASES} aliases", event)
        # An anchor is known only once its value is complete, so a value never contains itself.
        if event.anchor not in self._anchors:
            raise self._refused(f"alias {shown(event.anchor)} without an anchor before it", event)
        value, nodes = self._anchors[event.anchor]
        # What an alias repeats counts as if it were written out: that bounds whoever copies it.
        self._nodes += nodes
        return value

    def _scalar(self, event: Any) -> str | int | float | bool | None:
        text: str = event.value
        if not event.implicit[0]:
            return text
        if text in _WORDS:
            return _WORDS[text]
        if text[0] not in "+-.0123456789":
            return text
        if _SMALL_INTEGER.fullmatch(text):
            return int(text)
        kind = _kind_of_number(text)
        if kind is None:
            return text
        if len(text) > LONGEST_NUMBER:
            raise self._refused(f"limits: a number of more than {LONGEST_NUMBER} characters", event)
        try:
            return _NUMBERS[kind](yaml.ScalarNode(kind, text))
        except ValueError:
            raise self._refused(f"not a number that can be read: {shown(text)}", event) from None

    def _refused(self, what: str, event: Any) -> _Refused:
        return _Refused(dotted(tuple(self._path)), f"{what}, line {event.start_mark.line + 1}")


def _kind_of_number(text: str) -> str | None:
    """Return the tag that the safe loader reads a plain scalar by, where it is a number."""
    for tag, form in yaml.SafeLoader.yaml_implicit_resolvers.get(text[0], ()):
        if tag in _NUMBERS and form.match(text):
            return str(tag)
    return None
