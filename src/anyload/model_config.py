"""What is known of a model before it is loaded."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any, NoReturn, Self

from ._reading.names import path_text
from ._reading.problems import shown


class ModelConfig:
    """The module that loads a model, where the model is, and fields of the module's own.

    It is ``os.PathLike``, so a ``load`` written for a path works with it. Free fields are read as
    attributes, ``config.labels``, or as keys, ``config["labels"]``; one that has the name of
    something of this class, such as ``fields``, as a key only. It cannot be changed, and two
    configs are equal only if they are the same object.

    Args:
        module_id: the module that loads it.
        model_path: the directory or file; None for a model that is not on disk.
        model_backend: the backend type it was created with, where that limits what can load it.
        fields: whatever else the module wants to know.

    Raises:
        TypeError: one of the first three is not what it should be.
    """

    __slots__ = (
        "__weakref__",
        "_fields",
        "from_operator",
        "model_backend",
        "model_path",
        "module_id",
    )

    module_id: str
    model_path: str | None
    model_backend: str | None
    from_operator: bool
    """Whether code or the catalogue said this. A model directory's own config.yml comes with the
    model, from whoever made that, and must not allow anything that the operator has not."""
    _fields: dict[str, Any]

    def __init__(
        self,
        /,
        module_id: str,
        model_path: str | os.PathLike[str] | None = None,
        model_backend: str | None = None,
        **fields: Any,
    ) -> None:
        _require_text("module_id", module_id)
        if model_path is not None:
            model_path = path_text(model_path, "model_path is a path or None")
        if model_backend is not None:
            _require_text("model_backend", model_backend)
        put = object.__setattr__
        put(self, "module_id", module_id)
        put(self, "model_path", model_path)
        put(self, "model_backend", model_backend)
        put(self, "_fields", fields)
        put(self, "from_operator", True)

    @classmethod
    def from_directory(cls, path: str | os.PathLike[str]) -> Self:
        """Read the ``config.yml`` of a model directory. It blocks; ``init`` does it off the loop.

        Raises:
            ModelNotFoundError: there is no such directory, or no config.yml in it.
            ConfigError: the config.yml cannot be used.
        """
        from ._reading.model_files import read_model_fields  # the one import of yaml on this path

        directory = os.fspath(path)
        return cls._of_the_model(read_model_fields(directory), directory)

    @classmethod
    def from_text(cls, text: bytes, source: str, model_path: str) -> Self:
        """Make a config from what a model's own ``config.yml`` holds.

        Args:
            text: what it holds.
            source: the name of the file, for errors.
            model_path: where the model is.

        Raises:
            ConfigError: it cannot be used.
        """
        from ._reading.model_fields import parse_model_fields

        return cls._of_the_model(parse_model_fields(text, source), model_path)

    @classmethod
    def _of_the_model(cls, fields: Mapping[str, Any], model_path: str) -> Self:
        config = cls.from_fields(fields, model_path)
        object.__setattr__(config, "from_operator", False)
        return config

    @classmethod
    def from_fields(cls, fields: Mapping[str, Any], model_path: str | None) -> Self:
        """Make a config from the fields of a ``config.yml`` that were already checked."""
        free = dict(fields)
        return cls(free.pop("module_id"), model_path, free.pop("model_backend", None), **free)

    @property
    def fields(self) -> Mapping[str, Any]:
        """The module's own fields."""
        return MappingProxyType(self._fields)

    def at(self, model_path: str) -> Self:
        """Return the same config for another path."""
        moved = type(self)(self.module_id, model_path, self.model_backend, **self._fields)
        object.__setattr__(moved, "from_operator", self.from_operator)
        return moved

    def get(self, name: str, default: Any = None) -> Any:
        """Return a field, the named ones included, or a default where it is absent or None."""
        value = self._named().get(name)
        return default if value is None else value

    def _named(self) -> dict[str, Any]:
        return {
            **self._fields,
            "module_id": self.module_id,
            "model_path": self.model_path,
            "model_backend": self.model_backend,
        }

    def __getattr__(self, name: str) -> Any:
        # Copying and unpickling look up attributes before there is a `_fields`.
        if not name.startswith("__"):
            try:
                return self._fields[name]
            except (KeyError, AttributeError):
                pass
        raise AttributeError(f"the config of this model has no field {name!r}", name=name, obj=self)

    def __getitem__(self, name: str) -> Any:
        return self._named()[name]

    def __contains__(self, name: object) -> bool:
        return name in self._named()

    def __iter__(self) -> Iterator[str]:
        return iter(self._named())

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(f"a ModelConfig cannot be changed (setting {name!r})")

    def __fspath__(self) -> str:
        if self.model_path is None:
            raise TypeError(f"the config of module {self.module_id!r} has no model_path")
        return self.model_path

    def __str__(self) -> str:
        return self.model_path or self.module_id

    def __repr__(self) -> str:
        # Free fields may hold secrets, so their names are shown and their values are not.
        names = "".join(f", {name}=..." for name in self._fields)
        return f"ModelConfig({self.module_id!r}, {self.model_path!r}{names})"

    def __reduce__(self) -> tuple[Any, ...]:
        named = (self.module_id, self.model_path, self.model_backend)
        return _rebuild, (*named, self._fields, self.from_operator)


def _require_text(name: str, value: object) -> None:
    if not isinstance(value, str):
        raise TypeError(f"{name} is text, not {shown(value)}")


def _rebuild(
    module_id: str,
    path: str | None,
    backend: str | None,
    fields: dict[str, Any],
    from_operator: bool,
) -> ModelConfig:
    config = ModelConfig(module_id, path, backend, **fields)
    object.__setattr__(config, "from_operator", from_operator)
    return config


Model = str | os.PathLike[str] | ModelConfig
"""What names a model: a catalogue name, a path, or a config."""
