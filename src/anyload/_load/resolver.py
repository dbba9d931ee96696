"""From what a caller names to what will be loaded: reads the disk, in a reader thread of ours."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from difflib import get_close_matches
from pathlib import PurePath
from types import MappingProxyType
from typing import TypeVar

from .._reading.archives import is_archive, look_through
from .._reading.manifests import Stamp, stamp_of
from .._reading.model_files import CONFIG_FILE
from .._reading.names import path_text
from .._reading.problems import problem_at, shown
from .._reading.trees import size_on_disk
from .._text import one_line
from ..contracts import Backend
from ..errors import AnyloadError, ConfigError, ModelNotFoundError, Problem, describe
from ..model_config import Model, ModelConfig
from ..registry import Implementation, Registry
from .files import Care, PackedFiles, PlainFiles
from .flight import Files, Resolved
from .keys import Unshareable, freeze_mapping
from .plan import Choice, Plan, make_plan

NOTHING: Hashable = frozenset()

LONGEST_PATH, LONGEST_SEGMENT = 4080, 255
"""Bytes: what is longer than this no file system has, with the config.yml in it."""

MOST_NAMED, MOST_COMPARED = 20, 1000
"""Names that an error tells, and names that a wrong one is compared with."""

MOST_CACHED = 10_000
"""How many models are remembered; a cache that is full is begun anew."""

K = TypeVar("K")
T = TypeVar("T")


class Source:
    """A model config, and what of it is worth keeping for the next time.

    Args:
        config: the config; its path is absolute.
        key: what it says, as a part of a key; None where that cannot be.
        file: the config.yml it was read from, if it was.
        stamp: what that file was then.
        files: what has to be done with the model's files.
    """

    __slots__ = ("config", "file", "files", "key", "stamp")

    def __init__(
        self,
        config: ModelConfig,
        file: str = "",
        stamp: Stamp | None = None,
        files: Files | None = None,
    ) -> None:
        self.config = config
        self.key = _key_of(config)
        self.file = file
        self.stamp = stamp
        self.files = files


class Resolver:
    """Finds the config, the real path, the size, the plan and the key of a model.

    Args:
        registry: what implements the modules.
        choices: the backend priority.
        catalogue: the configured models, by name.
        root: where relative paths begin.
        confined: whether every model must lie inside the root.
        catalogue_only: whether paths are refused. A config that code gives is no path: who
            writes code decides, as who writes the catalogue does.
        care: what is done with a model's files before its load.
        variables: which variables of the environment named a module id, by catalogue name; no
            error may show what it is.
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
        care: Care = Care(),  # noqa: B008  # it cannot be changed
        variables: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        self._registry = registry
        self._choices = tuple(choices)
        self._asked = [
            (place, choice.backend)
            for place, choice in enumerate(self._choices)
            if type(choice.backend).available is not Backend.available
        ]
        self._root = root
        self._care = care
        self._variables = variables
        self._untold = {catalogue[name].module_id for name in variables}
        self._plain = None if care.none else PlainFiles(care, {})
        self._catalogue = {name: self._given(entry) for name, entry in catalogue.items()}
        self._real_root = os.path.realpath(root) if confined else None
        self._catalogue_only = catalogue_only
        self._directories: dict[str, Source] = {}
        self._places: dict[str, tuple[Stamp, Hashable, int]] = {}
        self._plans: dict[tuple[str, str | None, int], Plan] = {}

    # In the caller's thread: no I/O

    def label(self, model: Model) -> str:
        """Return a model as its caller spells it."""
        if isinstance(model, ModelConfig):
            return str(model)
        return name_of(model)

    def spelling(self, model: Model) -> Hashable:
        """Return what is equal for two spellings of one path, as far as their text tells.

        What ``link/..`` is, only the disk can tell: ``..`` stays.
        """
        if isinstance(model, ModelConfig):
            return model
        if isinstance(model, str) and model in self._catalogue:
            return model
        name = name_of(model)
        return str(PurePath(self._root, name)) if name else name, "path"

    def reads(self, model: Model, label: str) -> str | None:
        """Return the path that a look-up of a model reads, as far as its text tells."""
        if isinstance(model, ModelConfig):
            path = model.model_path
        else:
            entry = self._catalogue.get(label) if isinstance(model, str) else None
            path = label if entry is None else entry.config.model_path
        return None if path is None else os.path.join(self._root, path).rstrip("/")

    def plan_at_once(self, config: ModelConfig) -> Plan | None:
        """Return the plan of a config that needs nothing from the disk; else None."""
        if config.model_path is not None or self._asked:
            return None
        plan = self._plans.get(self._kind(config))
        if plan is not None:
            return plan
        known = self._registry.implementations(config.module_id)
        if not known or self._registry.varies(config.module_id):
            return None
        return self._plan(config, str(config), {})

    # In a reader thread

    def resolve(
        self,
        model: Model,
        kwargs: Mapping[str, object],
        shared: bool,
        between: Callable[[], object] = lambda: None,
    ) -> Resolved:
        """Read what there is to know of a model; it blocks.

        Args:
            model: a catalogue name, a path or a config.
            kwargs: the load kwargs, a part of the key.
            shared: whether to make a key.
            between: called from time to time while an archive is read or a directory is measured;
                what it raises ends this.

        Raises:
            ModelNotFoundError: there is no such model, or it lies outside the root.
            ConfigError: its config.yml cannot be used.
        """
        label = self.label(model)
        source = self._source(model, label, between)
        config = source.config
        place, size = None, 0
        if config.model_path is not None:
            place, found = self._place(config.model_path, label, between)
            if found is None and not isinstance(model, ModelConfig):
                raise ModelNotFoundError(label, f"there is no {config.model_path}")
            size = found or 0
        unavailable = self._unavailable() if self._asked else {}
        if isinstance(source.files, PackedFiles) and self._registry.varies(config.module_id):
            # Which variant of a module it is for is to be told by its files.
            with source.files.opened(config, between) as unpacked:
                plan = self._plan(unpacked, label, unavailable)
        else:
            plan = self._plan(config, label, unavailable)
        key = _key(source, place, kwargs) if shared and place is not None else None
        return Resolved(config, plan, key, size, files=source.files)

    def _given(self, config: ModelConfig) -> Source:
        """Return what a config of the operator's says, its path, if it has one, made absolute."""
        if config.model_path is None:
            return Source(config)
        path = os.path.join(self._root, config.model_path)
        rooted = config if path == config.model_path else config.at(path)
        return Source(rooted, files=self._plain)

    def _source(self, model: Model, label: str, between: Callable[[], object]) -> Source:
        if isinstance(model, ModelConfig):
            return self._given(model)
        entry = self._catalogue.get(label) if isinstance(model, str) else None
        if entry is not None:
            return entry
        if self._catalogue_only:
            known = _some(self._catalogue) or "nothing"
            raise ModelNotFoundError(label, f"the catalogue has {known}, and paths are refused")
        return self._from_disk(label, between)

    def _from_disk(self, label: str, between: Callable[[], object]) -> Source:
        """Return what a directory's config.yml says, or that of an archive."""
        known = self._directories.get(label)
        file = self._file_to_read(label) if known is None else known.file
        if self._real_root is not None:
            self._real_path(_model_of(file), label)
        try:
            # A config.yml that is a link is refused; an archive may be one.
            stamp = stamp_of((os.stat if _model_of(file) == file else os.lstat)(file))
        except (OSError, ValueError):
            stamp = None  # reading it says what is wrong with it
        if known is not None and known.stamp == stamp:
            return known
        if known is not None:
            # Gone, perhaps. What is not asked for again is dropped when the cache is full.
            self._directories.pop(label, None)
            self._places.pop(_model_of(file), None)
        source = self._read(file, label, stamp, between)
        if stamp is not None:
            _remember(self._directories, label, source)
        return source

    def _read(
        self, file: str, label: str, stamp: Stamp | None, between: Callable[[], object]
    ) -> Source:
        model = _model_of(file)
        if model == file:
            if not os.path.exists(file):
                raise ModelNotFoundError(label, "there is no such archive" + self._meant(label))
            contents = look_through(file, self._care.limits, between)
            inside = os.path.join(file, contents.base, CONFIG_FILE)
            config = ModelConfig.from_text(contents.config, inside, file)
            read = {} if stamp is None else {file: stamp}
            return Source(config, file, stamp, PackedFiles(self._care, contents.base, read))
        try:
            config = ModelConfig.from_directory(model)
        except ModelNotFoundError as error:
            raise ModelNotFoundError(label, error.reason + self._meant(label)) from error.__cause__
        read = {} if stamp is None else {file: stamp}
        return Source(
            config, file, stamp, None if self._care.none else PlainFiles(self._care, read)
        )

    def _meant(self, label: str) -> str:
        """Return what is to be said, behind a reason, of the name that this may have meant."""
        if self._real_root is not None and not os.path.isdir(self._real_root):
            return f"; nor is there the model root {self._real_root}"
        if not self._catalogue or os.path.basename(label) != label:
            return ""
        few = len(self._catalogue) <= MOST_COMPARED  # each takes its time
        close = get_close_matches(label, self._catalogue, 3) if few else ()
        names = ", ".join(close)
        return f"; the catalogue has {names}" if names else "; nor is it in the catalogue"

    def _file_to_read(self, label: str) -> str:
        """Return the file that says what a model is: a config.yml, or an archive with one."""
        if not label:
            raise ModelNotFoundError(label, "the name is empty")
        if "\0" in label or "\n" in label:
            raise ModelNotFoundError(label, "a path cannot hold a NUL or a newline")
        path = os.path.join(self._root, label)
        encoded = path.encode(errors="replace")  # a lone surrogate is one byte, or no path at all
        if len(encoded) > LONGEST_PATH or max(map(len, encoded.split(b"/"))) > LONGEST_SEGMENT:
            raise ModelNotFoundError(label, "the name is too long")
        if is_archive(path) and not os.path.isdir(path):
            return path
        return os.path.join(path, CONFIG_FILE)

    def _place(
        self, path: str, label: str, between: Callable[[], object]
    ) -> tuple[Hashable, int | None]:
        """Return where the model is, as a part of a key, and its size; None if nothing is there."""
        try:
            status = os.stat(path)
        except (OSError, ValueError):
            self._places.pop(path, None)
            return self._real_path(path, label), None
        # The size of a file that grows inside an unchanged directory is noticed late; it only
        # orders loads. Where paths are confined, a cached real path would not do.
        stamp = stamp_of(status)
        cached = self._places.get(path)
        if cached is not None and cached[0] == stamp and self._real_root is None:
            return cached[1], cached[2]
        # The path alone would not do either: a directory above may have been renamed, and another
        # model may be where this one was. The inode alone would not: a new model may get it.
        place = self._real_path(path, label), *stamp[:2]
        size = status.st_size
        if stat.S_ISDIR(status.st_mode):
            size = size_on_disk(place[0], self._following(label), between)
        _remember(self._places, path, (stamp, place, size))
        return place, size

    def _following(self, label: str) -> Callable[[str], str] | None:
        """Return what follows the links in a model; where models are confined none leads out."""
        if self._real_root is None:
            return None
        return lambda link: self._real_path(link, label, f"its link {os.path.basename(link)} leads")

    def _real_path(self, path: str, label: str, what: str = "it lies") -> str:
        """Return the real path; where models are confined it lies inside the root."""
        try:
            real = os.path.realpath(path)
        except ValueError as error:  # a NUL or a lone surrogate
            raise ModelNotFoundError(label, "not a valid path") from error
        root = self._real_root
        if root is not None and os.path.commonpath([root, real]) != root:
            raise ModelNotFoundError(label, f"{what} outside the model root {root}")
        return real

    def _unavailable(self) -> dict[int, str]:
        """Return why backends cannot be used now, by their place in the priority."""
        reasons = ((place, _unavailable(backend)) for place, backend in self._asked)
        return {place: reason for place, reason in reasons if reason is not None}

    def _plan(self, config: ModelConfig, label: str, unavailable: Mapping[int, str]) -> Plan:
        """Return the plan of a model, which bears no name: a module's models share it."""
        kind = self._kind(config)
        plan = None if unavailable else self._plans.get(kind)
        if plan is None:
            plan = self._make_plan(config, label, unavailable)
            if not (unavailable or self._registry.varies(config.module_id)):
                _remember(self._plans, kind, plan)
        return plan

    def _kind(self, config: ModelConfig) -> tuple[str, str | None, int]:
        """Return what the plan of a model depends on, as long as its module does not vary."""
        return config.module_id, config.model_backend, self._registry.version

    def _make_plan(self, config: ModelConfig, label: str, unavailable: Mapping[int, str]) -> Plan:
        implementations = self._registry.implementations(config.module_id)
        if not implementations:
            known = _some(self._registry.modules) or "none"
            what = f"not registered; registered modules are {known}"
            if config.module_id not in self._untold:
                what = f"{shown(config.module_id)} is {what}"
            raise ConfigError(label, [problem_at("module_id", what, self._variables.get(label))])
        return make_plan(
            config.module_id,
            config.model_backend,
            self._choices,
            unavailable,
            {name: _variant(known, config, label) for name, known in implementations.items()},
            self._registry.accepted_types(config.module_id),
        )


def name_of(model: object) -> str:
    """Return the name or path that a caller gave, as text."""
    return path_text(model, "a model is a name, a path or a ModelConfig")


def _some(names: Iterable[str]) -> str:
    """Return the first of these names in alphabetical order, and how many more there are."""
    ordered = sorted(names)
    first = ", ".join(map(one_line, ordered[:MOST_NAMED]))
    more = len(ordered) - MOST_NAMED
    return first if more <= 0 else f"{first} and {more} more"


def _model_of(file: str) -> str:
    """Return the model that a file describes: an archive itself, or the config.yml's directory."""
    directory, name = os.path.split(file)
    return directory if name == CONFIG_FILE else file


def _variant(known: Implementation, config: ModelConfig, label: str) -> Implementation:
    try:
        return known.of(config)
    except (AnyloadError, KeyboardInterrupt):  # a Ctrl-C in the caller's thread is no ConfigError
        raise
    except BaseException as error:  # not even a SystemExit is to pass for something else
        what = f"variant() of {known.name} raised {describe(error)}"
        raise ConfigError(label, [Problem("", what)]) from error


def _unavailable(backend: Backend) -> str | None:
    try:
        answer: object = backend.available()
    except BaseException as error:
        return f"available() raised {describe(error)}"
    if answer is None or isinstance(answer, str):
        return answer if answer is None else str.__str__(answer)  # which may be of an odd class
    return f"available() returned {shown(answer)}; it returns a reason, or None"


def _remember(cache: dict[K, T], name: K, fact: T) -> None:
    if len(cache) >= MOST_CACHED:
        cache.clear()
    cache[name] = fact


def _key(source: Source, place: Hashable, kwargs: Mapping[str, object]) -> Hashable | None:
    if source.key is None:
        return None
    try:
        return place, source.key, freeze_mapping(kwargs) if kwargs else NOTHING
    except Unshareable:
        return None


def _key_of(config: ModelConfig) -> Hashable | None:
    try:
        return freeze_mapping(
            {
                **config.fields,
                "module_id": config.module_id,
                "model_backend": config.model_backend,
            }
        )
    except Unshareable:
        return None
