"""What an operator may configure, and how it is read: the only file that imports pydantic.

A configuration comes from a YAML file or a mapping, with environment variables and keywords of
the code laid over it. Every problem of it is reported at once, by its place.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias, TypeVar

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PrivateAttr,
    ValidationError,
)

from ._reading import amounts, checks
from ._reading.documents import Document, read_document
from ._reading.environment import apply_environment
from ._reading.problems import Place, dotted, problem_at, shown
from ._reading.validation import problems_of
from .errors import ConfigError, Problem

T = TypeVar("T")

Seconds: TypeAlias = Annotated[float, Field(gt=0), BeforeValidator(checks.seconds)]
Text: TypeAlias = Annotated[str, Field(min_length=1), BeforeValidator(checks.text)]
Count: TypeAlias = Annotated[int, Field(ge=0, le=1024), BeforeValidator(checks.integer(0, 1024))]
Slots: TypeAlias = Annotated[int, Field(ge=1, le=1024), BeforeValidator(checks.integer(1, 1024))]
ImportPath: TypeAlias = Annotated[str, BeforeValidator(checks.import_path)]
Ample: TypeAlias = Annotated[
    int, Field(ge=1, le=2**63 - 1), BeforeValidator(checks.integer(1, 2**63 - 1))
]
CatalogueName: TypeAlias = Annotated[str, BeforeValidator(checks.catalogue_name)]
KeepAlive: TypeAlias = Annotated[float, BeforeValidator(amounts.keep_alive)]
Priority: TypeAlias = Annotated[int, BeforeValidator(checks.integer(-(2**31), 2**31))]


class BackendConfig(BaseModel):
    """What a backend can be configured with; a backend's own ``Config`` is a subclass."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, protected_namespaces=())


class BackendEntry(BackendConfig):
    """One backend of the priority list.

    Args:
        type: its registered backend type, such as ``LOCAL``.
        config: what its own ``Config`` is made from.
        timeout: how long one attempt on it may take, in seconds; None for no limit.
        stall_timeout: how long a load that reports progress may be silent, in seconds.
    """

    type: Text
    config: Annotated[dict[str, Any], BeforeValidator(checks.none_is_empty)] = Field(
        default={}, repr=False
    )
    timeout: Seconds | None = None
    stall_timeout: Seconds | None = None


class CatalogueEntry(BackendConfig):
    """One model of the catalogue; further keys are free fields, in ``model_extra``.

    Args:
        module_id: the module that loads it.
        model_path: the directory or file, relative to the file that says so.
        model_backend: the backend type it was created with.
    """

    model_config = ConfigDict(extra="allow")

    module_id: Text
    model_path: Annotated[str, BeforeValidator(checks.path_text)] | None = None
    model_backend: Text | None = None


class ArchiveConfig(BackendConfig):
    """How much an archive may hold that a model comes in, and where it is unpacked.

    Args:
        directory: where; the system's directory for temporary files where it is None.
        max_files: the most files and directories.
        max_bytes: the most bytes of all files together, unpacked.
        max_ratio: the most bytes, unpacked, for each byte of the archive.
    """

    directory: Annotated[Path, BeforeValidator(checks.path)] | None = None
    max_files: Ample = 10_000
    max_bytes: Ample = 64 * 1024**3
    max_ratio: Ample = 200


class KeptModel(BackendConfig):
    """How a repository keeps one model of the catalogue.

    Args:
        memory: what it holds at least, on its device, or by device. A model that measures itself
            may say more; where nothing is said, the size of its files counts until then.
        device: whose budget it counts in, ``cpu`` or ``cuda:0``, where nothing else tells.
        keep_alive: how long it is kept while nobody uses it: seconds, ``5m``, 0 for not at all, -1
            for ever; None for the repository's own.
        pin: whether it is never evicted.
        preload: whether ``load_preloaded`` loads it.
        required: whether the repository is not ready without it; it is preloaded and pinned.
        upgrade: whether a better backend is tried behind it while it serves on another one.
        priority: preloads of higher priority go first.
        version: what this version of it is called; None for a number.
        aliases: other names for it.
    """

    memory: Annotated[int | dict[Text, int] | None, BeforeValidator(checks.memory)] = None
    device: Text = "cpu"
    keep_alive: KeepAlive | None = None
    pin: bool = False
    preload: bool = False
    required: bool = False
    upgrade: bool = False
    priority: Priority = 0
    version: Text | None = None
    aliases: Annotated[tuple[CatalogueName, ...], BeforeValidator(checks.listed)] = ()


class RepositoryConfig(BackendConfig):
    """How a repository keeps models. An initializer takes no notice of it.

    Args:
        budget: the memory that models may take on each device, ``cpu`` or ``cuda:0``: bytes,
            ``8GiB``, or a share of what is there, ``80%``. A device that is not named has no limit.
        eviction: which idle model goes first where memory is needed: the least recently used
            (``lru``), the one idle longest for what a reload of its bytes costs (``cost``), or the
            largest.
        minimum_stay: how long a model is not evicted after its load, in seconds.
        keep_alive: how long a model is kept while nobody uses it; -1 is for ever.
        memory_timeout: how long a load waits for memory, in seconds; None for as long as somebody
            waits for it.
        max_queued: how many loads may wait to start before requests for others are refused, 1 to
            1024; None for any number.
        cool_down: how long a failure is remembered that may pass, in seconds; each further one in
            a row doubles it.
        max_cool_down: how long at most, in seconds.
        upgrade_interval: how long after one try of better backends the next one is, in seconds,
            less some jitter; for models with ``upgrade`` only.
        drain_timeout: how long ``unload`` waits for leases, in seconds; None for as long as it
            takes.
        swap: what happens where a new version does not fit beside the old one: the swap is refused,
            or the old one goes first.
        ready_without_required: whether a repository that requires no model is ready.
        models: how each model of the catalogue is kept.
    """

    budget: dict[Text, Annotated[int | float, BeforeValidator(amounts.budget)]] = {}
    eviction: Literal["lru", "cost", "largest"] = "lru"
    minimum_stay: Annotated[float, BeforeValidator(checks.seconds_or_none_at_all)] = 0.0
    keep_alive: KeepAlive = math.inf
    memory_timeout: Seconds | None = None
    max_queued: Slots | None = None
    cool_down: Seconds = 1.0
    max_cool_down: Seconds = 300.0
    upgrade_interval: Seconds = 300.0
    drain_timeout: Seconds | None = None
    swap: Literal["refuse", "recreate"] = "refuse"
    ready_without_required: bool = False
    models: dict[CatalogueName, KeptModel] = {}


class InitializerConfig(BackendConfig):
    """How an initializer loads models.

    Args:
        backend_priority: the backends, tried from first to last.
        load_timeout: queueing and all attempts of a load together, in seconds; None is no limit.
        prepare_timeout: the imports of one implementation, in seconds.
        release_timeout: one call of a module's ``release``, in seconds.
        max_concurrent_loads: slots, 1 to 1024.
        max_abandoned_loads: threads that may be left running past their limit, 0 to 1024.
        on_error: whether a failed attempt is followed by the next backend or ends the load.
        prefetch_streams: how many threads read ahead the files of the models that load next, of
            modules that name them (``weight_files``), 0 to 1024; 0 for none. Linux only.
        gil_switch_interval: how long a load that holds the GIL may keep it from other threads that
            want it, in seconds, while it runs Python; None leaves that as it is (Python's default
            is 0.005).
        warmup: whether a module's ``warmup`` runs as the last step of an attempt.
        guard: which loads are checked for process-wide state that they leave changed: those of
            exclusive groups, all, or none.
        model_root: the directory that every path must resolve inside, and every link in a model.
        catalogue_only: whether names that are paths are refused; a ModelConfig given in code is
            the operator's own and passes (``model_root`` confines it all the same).
        manifests: whether the files of a model are compared with its manifest, ``SHA256SUMS`` in
            its directory or ``<file>.sha256`` beside a file or an archive: where there is one,
            always (and a model without one is refused), or never.
        strict: whether a model that everybody may write to is refused.
        archives: how much an archive may hold, and where it is unpacked.
        modules: the class for each module id and backend type, by import path. A plain import
            path is the one for ``LOCAL``.
        backend_types: the class for each backend type, by import path.
        models: the catalogue.
        repository: how a repository keeps the models of the catalogue.
    """

    backend_priority: Annotated[
        tuple[BackendEntry, ...],
        Field(json_schema_extra={"minItems": 1}),
        BeforeValidator(checks.priority),
    ] = (BackendEntry(type="LOCAL"),)
    load_timeout: Seconds | None = None
    prepare_timeout: Seconds | None = None
    release_timeout: Seconds | None = None
    max_concurrent_loads: Slots = 4
    max_abandoned_loads: Count = 4
    on_error: Literal["next", "raise"] = "next"
    prefetch_streams: Count = 1
    gil_switch_interval: Seconds | None = None
    warmup: bool = True
    guard: Literal["groups", "all", "off"] = "groups"
    model_root: Annotated[Path, BeforeValidator(checks.path)] | None = None
    catalogue_only: bool = False
    manifests: Literal["check", "require", "off"] = "check"
    strict: bool = False
    archives: ArchiveConfig = ArchiveConfig()
    modules: dict[
        Text, Annotated[dict[Text, ImportPath], BeforeValidator(checks.by_backend_type)]
    ] = {}
    backend_types: dict[Text, ImportPath] = {}
    # Free fields may hold secrets, so a repr does not show them.
    models: dict[CatalogueName, CatalogueEntry] = Field(default={}, repr=False)
    repository: RepositoryConfig = RepositoryConfig()

    _variables: dict[Place, str] = PrivateAttr(default_factory=dict)

    def variable_of(self, place: Place) -> str | None:
        """Return the variable of the environment that said this, whose value no error may show."""
        return _variable_of(self._variables, place)


def load_config(
    source: str | os.PathLike[str] | Mapping[str, Any] | InitializerConfig,
    *,
    name: str = "default",
    environ: Mapping[str, str] | None = None,
    overrides: Mapping[str, Any] | None = None,
    known_types: Collection[str] | None = None,
) -> InitializerConfig:
    """Return the configuration that a file or mapping, the environment and the code make.

    A key of the code replaces that key of the environment, which replaces that of the file. It
    reads the file, so it blocks.

    Args:
        source: a YAML file, a mapping, or a configuration that is already made; the environment
            does not change the last. A caikit file is read unchanged.
        name: the initializer of a caikit file.
        environ: where ``ANYLOAD__`` variables are looked up; None for nowhere.
        overrides: keys given in code.
        known_types: the registered backend types, to check the entries against; those under
            ``backend_types`` are added. None for no check.

    Raises:
        ConfigError: with every problem, not only the first.
    """
    if isinstance(source, InitializerConfig):
        if not overrides and known_types is None:
            return source
        variables = source._variables
        document = Document("the configuration", (), source.model_dump(exclude_unset=True))
        environ = None
    else:
        document = read_document(source, name)
        variables = {}
    data = document.data
    # Written out, so that a variable can name the entry that is there by default.
    data.setdefault("backend_priority", [{"type": "LOCAL"}])
    said, problems = apply_environment(data, environ or {})
    variables = {**variables, **said}
    for key, value in (overrides or {}).items():
        data[key] = value
        variables = {place: name for place, name in variables.items() if place[0] != key}
    return _checked(document, variables, problems, overrides or {}, known_types)


def _checked(
    document: Document,
    variables: dict[Place, str],
    problems: list[Problem],
    overrides: Collection[str] = (),
    known_types: Collection[str] | None = None,
) -> InitializerConfig:
    """Return the configuration that a document is.

    Args:
        document: what the file, the environment and the code say.
        variables: which variable of the environment said what.
        problems: what has been found wrong already.
        overrides: the keys that the code gave.
        known_types: as in `load_config`.

    Raises:
        ConfigError: with every problem.
    """
    data = document.data
    known = None if known_types is None else {*known_types, *_keys(data.get("backend_types"))}

    def variable_of(place: Place) -> str | None:
        return _variable_of(variables, place)

    def problem(place: Place, what: str) -> Problem:
        if known and what == "missing" and place[-1] == "type":
            what = f"missing; {_registered(known)}"
        variable = variable_of(place)
        inside = place[:1] and place[0] in overrides
        outer = () if variable or inside else document.place
        return problem_at(dotted((*outer, *place)), what, variable)

    config = None
    try:
        config = InitializerConfig.model_validate(data)
        config._variables = variables
    except ValidationError as error:
        # The values of variables are not shown: an environment holds secrets.
        wrong = problems_of(error, InitializerConfig, lambda place: variable_of(place) is not None)
        problems += [problem(place, what) for place, what in wrong]
    if known is not None:
        unknown = _unknown_types(data, known, variable_of)
        problems += [problem(place, what) for place, what in unknown]
    if problems or config is None:
        raise ConfigError(document.source, problems)
    return config


def load_catalogue(
    source: str | os.PathLike[str] | Mapping[str, Any],
    *,
    name: str = "default",
    environ: Mapping[str, str] | None = None,
) -> tuple[dict[str, CatalogueEntry], dict[str, KeptModel], dict[str, ConfigError]]:
    """Return the catalogue of a configuration and how it is kept, each entry checked by itself.

    Args:
        source: a YAML file or a mapping.
        name: the initializer of a caikit file.
        environ: where ``ANYLOAD__`` variables are looked up; None for nowhere.

    Returns:
        The models and how they are kept, by name; and what is wrong with the others.

    Raises:
        ConfigError: it cannot be read, or has no such part.
    """
    document = read_document(source, name)
    variables, problems = apply_environment(document.data, environ or {})
    listed = checks.none_is_empty(document.data.get("models"))
    repository = checks.none_is_empty(document.data.get("repository"))
    kept = checks.none_is_empty(_item(repository, "models"))
    if problems:
        raise ConfigError(document.source, problems)
    if not (isinstance(listed, Mapping) and isinstance(kept, Mapping)):
        raise ConfigError(document.source, [Problem("models", "expected a mapping")])
    models: dict[str, CatalogueEntry] = {}
    how: dict[str, KeptModel] = {}
    errors: dict[str, ConfigError] = {}
    for one in dict.fromkeys([*listed, *kept]):
        entry = {
            "models": {one: listed[one]} if one in listed else {},
            "repository": {"models": {one: kept[one]} if one in kept else {}},
        }
        try:
            config = _checked(Document(document.source, (), entry), variables, [])
        except ConfigError as error:
            errors[one] = error
        else:
            models.update(config.models)
            how.update(config.repository.models)
    return models, how, errors


def check_backend_types(config: InitializerConfig, known: Collection[str], source: str) -> None:
    """Raise unless every backend of the priority list has a registered type.

    Args:
        config: the configuration.
        known: the registered backend types.
        source: what the configuration was read from, for the error.

    Raises:
        ConfigError: naming the index of each unknown one.
    """
    data = {"backend_priority": config.backend_priority}
    found = _unknown_types(data, known, config.variable_of)
    problems = [problem_at(dotted(place), what, config.variable_of(place)) for place, what in found]
    if problems:
        raise ConfigError(source, problems)


def validate_backend_config(
    model: type[BaseModel],
    values: Mapping[str, Any],
    *,
    where: str,
    source: str,
    variable_of: Callable[[Place], str | None] = lambda place: None,
) -> Any:
    """Return a backend's own ``Config`` made from plain values.

    Args:
        model: the backend's ``Config``.
        values: what the configuration says.
        where: the place of the values, such as ``backend_priority[0].config``.
        source: what the configuration was read from, for the error.
        variable_of: returns the variable of the environment that said what is at a place in it.

    Raises:
        ConfigError: the values do not fit. Values of secret fields are not shown.
    """

    def made() -> BaseModel:
        try:
            text = json.dumps(dict(values), allow_nan=False)
        except (TypeError, ValueError):  # values that only code can give, such as a SecretStr
            return model.model_validate(dict(values))
        # As JSON, so that a strict Config still takes a path, a tuple or an enum from a file.
        return model.model_validate_json(text)

    try:
        return made()
    except ValidationError as error:
        wrong = problems_of(error, model, lambda place: variable_of(place) is not None)
        problems = [
            problem_at(_within(where, place), what, variable_of(place)) for place, what in wrong
        ]
        raise ConfigError(source, problems) from None
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # of a validator's; without its text, which may tell a secret
        what = f"a check of {model.__qualname__} raised {type(error).__name__}"
        raise ConfigError(source, [Problem(where, what)]) from error


def in_our_words(make: Callable[[], T], model: type[BaseModel], *, where: str, source: str) -> T:
    """Return what is made by a call that pydantic may have its objections to.

    Raises:
        ConfigError: it has; no value is shown, and the arguments are as in
            `validate_backend_config`.
    """
    try:
        return make()
    except ValidationError as error:
        wrong = problems_of(error, model, lambda place: True)
        problems = [Problem(_within(where, place), what) for place, what in wrong]
        raise ConfigError(source, problems) from None


def _within(where: str, place: Place) -> str:
    return ".".join(filter(None, (where, dotted(place))))


def _variable_of(variables: Mapping[Place, str], place: Place) -> str | None:
    return next((variables[part] for part in _outwards(place) if part in variables), None)


def _outwards(place: Place) -> Iterator[Place]:
    return (place[:length] for length in range(len(place), 0, -1))


def _keys(value: object) -> Collection[str]:
    return value.keys() if isinstance(value, Mapping) else ()


def _item(value: object, key: str) -> object:
    return value.get(key) if isinstance(value, Mapping) else value


def _registered(known: Collection[str]) -> str:
    return f"registered types are {', '.join(sorted(map(str, known)))}"


def _unknown_types(
    data: Mapping[str, Any],
    known: Collection[str],
    variable_of: Callable[[Place], str | None],
) -> Iterator[tuple[Place, str]]:
    """Yield the place of each unknown backend type; what is no type at all is told elsewhere."""
    entries = data["backend_priority"]
    for index, entry in enumerate(entries if isinstance(entries, list | tuple) else ()):
        kind = entry.get("type") if isinstance(entry, Mapping) else getattr(entry, "type", None)
        if isinstance(kind, str) and kind and kind not in known:
            place = ("backend_priority", index, "type")
            said = "" if variable_of(place) else f" {shown(kind)}"
            yield place, f"unknown backend type{said}; {_registered(known)}"
