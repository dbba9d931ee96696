"""Say in our words what pydantic found wrong."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, get_args, get_origin

from .problems import Place, shown, unknown_key

if TYPE_CHECKING:
    from pydantic import BaseModel, ValidationError

MOST_PROBLEMS = 20

_WORDS = MappingProxyType(
    {
        "bool_type": "expected true or false",
        "dict_type": "expected a mapping",
        "float_type": "expected a number",
        "int_type": "expected an integer",
        "invalid_key": "key must be a string",
        "missing": "missing",
        "model_type": "expected a mapping",
        "string_type": "expected a string",
        "string_unicode": "expected valid text",
    }
)


def problems_of(
    error: ValidationError,
    model: type[BaseModel],
    hidden: Callable[[Place], bool] = lambda place: False,
) -> Iterator[tuple[Place, str]]:
    """Yield each thing that is wrong: its place, and what is wrong there.

    A list or mapping is never shown, nor the value of an unknown key, of a field that may hold a
    secret, or of what is not a field at all.

    Args:
        error: what pydantic raised.
        model: the model it validated.
        hidden: whether the value at a place must not be shown either.
    """
    found = error.errors(include_url=False)
    for one in found[:MOST_PROBLEMS]:
        place = one["loc"]
        if place and place[-1] == "[key]":  # the key itself is wrong, not what it holds
            what = _WORDS["invalid_key"] if one["type"] == "string_type" else _reworded(one["msg"])
            yield place[:-1], what
        elif one["type"] == "extra_forbidden":
            yield place, unknown_key(str(place[-1]), _known_keys(model, place[:-1]))
        elif one["type"] in ("missing", "invalid_key"):
            yield place, _WORDS[one["type"]]
        else:
            what = _WORDS.get(one["type"]) or _reworded(one["msg"])
            value = shown(one["input"])
            expected = value in ("a list", "a mapping") and value in what  # but not such a one
            secret = hidden(place) or not _may_show(model, place)
            yield place, what if secret or expected else f"{what}, not {value}"
    if len(found) > MOST_PROBLEMS:
        yield (), f"and {len(found) - MOST_PROBLEMS} more problems"


def _reworded(message: str) -> str:
    message = message.removeprefix("Value error, ")
    if message.startswith("Input should be "):
        return f"expected {message.removeprefix('Input should be ')}"
    return message


def _known_keys(model: type[BaseModel], place: Place) -> set[str]:
    *_, (_, models) = _walk(model, place)
    return {name for found in models for name in found.model_fields}


def _may_show(model: type[BaseModel], place: Place) -> bool:
    fields: list[Any] = []
    for fields, _ in _walk(model, place):
        if any(hasattr(kind, "get_secret_value") for f in fields for kind in _types(f.annotation)):
            return False
    return bool(fields)


def _walk(model: Any, place: Place) -> Iterator[tuple[list[Any], list[Any]]]:
    """Yield, from the model down to a place, the fields met and the models that they lead to."""
    fields: list[Any] = []
    models = [model]
    yield fields, models
    for part in place:
        if isinstance(part, int):  # an entry of a list is what the list's field says
            continue
        met = [
            field
            for found in models
            for name, field in found.model_fields.items()
            if part in (name, field.alias, field.validation_alias)
        ]
        if met:
            fields = met
            models = [
                kind
                for field in met
                for kind in _types(field.annotation)
                if hasattr(kind, "model_fields")
            ]
        elif models or not all(map(_is_plain, fields)):
            fields = []  # Not a field, so nothing is known of what it may hold.
        yield fields, models


def _is_plain(field: Any) -> bool:
    """Whether a field holds values of Python's own types only, such as a mapping of strings."""
    modules = {kind.__module__ for kind in _types(field.annotation)}
    return modules <= {"builtins", "types", "typing"}


def _types(annotation: Any) -> Iterator[type[Any]]:
    """Yield every type that an annotation is made of."""
    annotation = getattr(annotation, "__value__", annotation)  # what `type X = ...` stands for
    for part in (annotation, get_origin(annotation)):
        if isinstance(part, type):
            yield part
    for argument in get_args(annotation):
        yield from _types(argument)
