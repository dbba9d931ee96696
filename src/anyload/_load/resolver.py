"""From what a caller names to what will be loaded: reads the disk, in a reader thread of ours."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Hashable, Mapping, Sequence

from ..contracts import Backend
from ..errors import AnyloadError, ConfigError, ModelNotFoundError, Problem, describe
from ..model_config import Model, ModelConfig
from ..registry import Implementation, Registry
from .flight import Resolved
from .keys import Unshareable, freeze_mapping
from .plan import Choice, Plan, make_plan

CONFIG_FILE = "config.yml"
NOTHING: Hashable = frozenset()

# What a cached fact was read from: another device, inode, size or time means another file.
Stamp = tuple[int, int, int]


class Source:
    """A model config, and what of it is worth keeping for the next time.

    Args:
        config: the config; its path is absolute.
        fields: its own fields as a part of a key; None where they cannot be.
        file: the config.yml it was read from, if it was.
        stamp: what that file was then.
    """

    __slots__ = ("config", "fields", "file", "stamp")

    def __init__(self, config: ModelConfig, file: str = "", stamp: Stamp | None = None) -> None:
        self.config = config
        self.fields = _frozen(config.fields)
        self.file = file
        self.stamp = stamp


class Resolver:
    """Finds the config, the real path, the size, the plan and the key of a model.

    Args:
        registry: what implements the modules.
        choices: the backend priority.
        catalogue: the configured models, by name.
        root: where relative paths begin.
        confined: whether every model must lie inside the root.
        catalogue_only: whether paths are refused.
    """

    def __init__(
        self,
        registry: Registry,
        choices: Sequence[Choice],
        catalogue: Mapping[str, ModelConfig],
        root: str,
        *,
        confined: bool = False,
        catalogue_only: bool = False,
    ) -> None:
        self._registry = registry
        self._choices = tuple(choices)
        self._asked = [
            (place, choice.backend)
            for place, choice in enumerate(self._choices)
            if type(choice.backend).available is not Backend.available
        ]
        self._root = root
        self._catalogue = {name: Source(self._rooted(entry)) for name, entry in catalogue.items()}
        self._real_root = os.path.realpath(root) if confined else None
        self._catalogue_only = catalogue_only
        self._directories: dict[str, Source] = {}
        self._places: dict[str, tuple[Stamp, str, int]] = {}
        self._plans: dict[tuple[str, str | None, int], Plan] = {}

    # In the caller's thread: no I/O

    def label(self, model: Model) -> str:
        """Return a model as its caller spells it."""
        if isinstance(model, ModelConfig):
            return str(model)
        return model if isinstance(model, str) else os.fspath(model)

    def spelling(self, model: Model) -> Hashable:
        """Return what is equal for two spellings of one path, as far as their text tells."""
        if isinstance(model, ModelConfig):
            return model
        if isinstance(model, str) and model in self._catalogue:
            return model
        return os.path.normpath(os.path.join(self._root, os.fspath(model))), "path"

    def at_once(self, config: ModelConfig) -> Resolved | None:
        """Resolve a config that needs nothing from the disk; None if it cannot be done here."""
        if config.model_path is not None or self._asked:
            return None
        known = self._registry.implementations(config.module_id)
        if not known or self._registry.varies(config.module_id):
            return None
        return Resolved(config, self._plan(config, str(config), {}), None, 0)

    # In a reader thread

    def resolve(
        self,
        model: Model,
        kwargs: Mapping[str, object],
        shared: bool,
    ) -> Resolved:
        """Read what there is to know of a model; it blocks.

        Args:
            model: a catalogue name, a path or a config.
            kwargs: the load kwargs, a part of the key.
            shared: whether to make a key.

        Raises:
            ModelNotFoundError: there is no such model, or it lies outside the root.
            ConfigError: its config.yml cannot be used.
        """
        label = self.label(model)
        source = self._source(model, label)
        config = source.config
        real, size = None, 0
        if config.model_path is not None:
            real, found = self._place(config.model_path, label)
            if found is None and not isinstance(model, ModelConfig):
                raise ModelNotFoundError(label, f"there is no {config.model_path}")
            size = found or 0
        plan = self._plan(config, label, self._unavailable() if self._asked else {})
        key = _key(source, real, kwargs) if shared and real is not None else None
        return Resolved(config, plan, key, size)

    def _rooted(self, config: ModelConfig) -> ModelConfig:
        """Return a config with its path, if it has one, made absolute."""
        if config.model_path is None:
            return config
        path = os.path.join(self._root, config.model_path)
        return config if path == config.model_path else config.at(path)

    def _source(self, model: Model, label: str) -> Source:
        if isinstance(model, ModelConfig):
            return Source(self._rooted(model))
        entry = self._catalogue.get(label) if isinstance(model, str) else None
        if entry is not None:
            return entry
        if self._catalogue_only:
            known = ", ".join(sorted(self._catalogue)) or "nothing"
            raise ModelNotFoundError(label, f"the catalogue has {known}, and paths are refused")
        if not label:
            raise ModelNotFoundError(label, "the name is empty")
        if "\0" in label or "\n" in label:
            raise ModelNotFoundError(label, "a path cannot hold a NUL or a newline")
        return self._from_directory(label)

    def _from_directory(self, label: str) -> Source:
        known = self._directories.get(label)
        file = known.file if known else os.path.join(self._root, label, CONFIG_FILE)
        if self._real_root is not None:
            self._real_path(os.path.dirname(file), label)
        try:
            status = os.lstat(file)
            stamp = (status.st_ino, status.st_size, status.st_mtime_ns)
        except (OSError, ValueError):
            stamp = None  # reading it says what is wrong with it
        if known is not None and known.stamp == stamp:
            return known
        self._directories.pop(label, None)
        source = Source(_read(os.path.dirname(file), label), file, stamp)
        if stamp is not None:
            self._directories[label] = source
        return source

    def _place(self, path: str, label: str) -> tuple[str, int | None]:
        """Return the real path and the size of what is there, None if nothing is."""
        try:
            status = os.stat(path)
        except (OSError, ValueError):
            self._places.pop(path, None)
            return self._real_path(path, label), None
        # The size of a file that grows inside an unchanged directory is noticed late; it only
        # orders loads. Where paths are confined, a cached real path would not do.
        stamp = (status.st_dev, status.st_ino, status.st_mtime_ns)
        cached = self._places.get(path)
        if cached is not None and cached[0] == stamp and self._real_root is None:
            return cached[1], cached[2]
        real = self._real_path(path, label)
        size = size_on_disk(real) if stat.S_ISDIR(status.st_mode) else status.st_size
        self._places[path] = stamp, real, size
        return real, size

    def _real_path(self, path: str, label: str) -> str:
        """Return the real path; where models are confined it lies inside the root."""
        try:
            real = os.path.realpath(path)
        except ValueError as error:  # a NUL or a lone surrogate
            raise ModelNotFoundError(label, "not a valid path") from error
        root = self._real_root
        if root is not None and os.path.commonpath([root, real]) != root:
            raise ModelNotFoundError(label, f"it lies outside the model root {root}")
        return real

    def _unavailable(self) -> dict[int, str]:
        """Return why backends cannot be used now, by their place in the priority."""
        reasons = ((place, _unavailable(backend)) for place, backend in self._asked)
        return {place: reason for place, reason in reasons if reason is not None}

    def _plan(self, config: ModelConfig, label: str, unavailable: Mapping[int, str]) -> Plan:
        """Return the plan of a model, which bears no name: a module's models share it."""
        kind = (config.module_id, config.model_backend, self._registry.version)
        plan = None if unavailable else self._plans.get(kind)
        if plan is None:
            plan = self._make_plan(config, label, unavailable)
            if not (unavailable or self._registry.varies(config.module_id)):
                self._plans[kind] = plan
        return plan

    def _make_plan(self, config: ModelConfig, label: str, unavailable: Mapping[int, str]) -> Plan:
        implementations = self._registry.implementations(config.module_id)
        if not implementations:
            known = ", ".join(sorted(self._registry.modules)) or "none"
            what = f"{config.module_id!r} is not registered; registered modules are {known}"
            raise ConfigError(label, [Problem("module_id", what)])
        return make_plan(
            config.module_id,
            config.model_backend,
            self._choices,
            unavailable,
            {name: _variant(known, config, label) for name, known in implementations.items()},
            self._registry.accepted_types(config.module_id),
        )


def size_on_disk(directory: str) -> int:
    """Return the bytes of all files below a directory.

    What vanishes or cannot be read while we look is left to the load to complain of.
    """
    total, todo = 0, [directory]
    while todo:
        with contextlib.suppress(OSError), os.scandir(todo.pop()) as entries:
            for entry in entries:
                with contextlib.suppress(OSError):
                    if entry.is_dir(follow_symlinks=False):
                        todo.append(entry.path)
                    else:
                        total += entry.stat().st_size
    return total


def _read(directory: str, label: str) -> ModelConfig:
    try:
        return ModelConfig.from_directory(directory)
    except ModelNotFoundError as error:
        raise ModelNotFoundError(label, error.reason) from error.__cause__


def _variant(known: Implementation, config: ModelConfig, label: str) -> Implementation:
    try:
        return known.of(config)
    except AnyloadError:
        raise
    except Exception as error:
        what = f"variant() of {known.name} raised {describe(error)}"
        raise ConfigError(label, [Problem("", what)]) from error


def _unavailable(backend: Backend) -> str | None:
    try:
        return backend.available()
    except BaseException as error:
        return f"available() raised {describe(error)}"


def _key(source: Source, real: str, kwargs: Mapping[str, object]) -> Hashable | None:
    config, frozen = source.config, _frozen(kwargs) if kwargs else NOTHING
    if source.fields is None or frozen is None:
        return None
    return config.module_id, real, config.model_backend, source.fields, frozen


def _frozen(values: Mapping[str, object]) -> Hashable | None:
    try:
        return freeze_mapping(values)
    except Unshareable:
        return None
