"""From a configuration to what an initializer works with: registry, backends, catalogue, limits."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from importlib import import_module
from typing import Any, TypeVar

from ._load.files import Care
from ._load.plan import Choice
from ._load.slots import Limits
from ._reading.members import ArchiveLimits
from ._reading.problems import Place, dotted, problem_at, shown
from ._registration import class_name
from .config import (
    InitializerConfig,
    check_backend_types,
    in_our_words,
    validate_backend_config,
)
from .contracts import Backend
from .errors import ConfigError, Problem, describe
from .events import Prepared
from .model_config import ModelConfig
from .registry import Implementation, Registry

T = TypeVar("T")


def import_named(config: InitializerConfig, source: str) -> list[Prepared]:
    """Import the modules that a configuration names, one by one, and tell how long each took.

    What cannot be imported is left to `extended`, which says why. There is nothing to tell of what
    was imported before.
    """
    paths = [*config.backend_types.values()]
    for implementations in config.modules.values():
        paths += implementations.values()
    told = []
    for module in dict.fromkeys(path.partition(":")[0] for path in paths):
        if module in sys.modules:
            continue
        began = time.monotonic()
        try:
            import_module(module)
        except KeyboardInterrupt:
            raise
        except BaseException:  # as there
            continue
        ended = time.monotonic()
        told.append(Prepared(source, ended, f"import of {module}", ended - began, ""))
    return told


def extended(registry: Registry, config: InitializerConfig, source: str) -> Registry:
    """Return a registry with what the configuration names by import path; it imports that.

    Raises:
        ConfigError: something could not be imported or registered.
    """
    if not (config.modules or config.backend_types):
        return registry
    registry = registry.copy()
    problems: list[Problem] = []

    def add(place: Place, path: str, register: Callable[[Any], object]) -> None:
        where = dotted(place[:2])  # a path that stands alone is of LOCAL, which nobody wrote
        variable = config.variable_of(place)
        module, _, name = path.partition(":")
        try:
            found: Any = import_module(module)
            for part in name.split("."):
                found = getattr(found, part)
            register(found)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # SystemExit of a script, a panic of Rust
            if variable:  # whose value is in the text of most errors
                told = [f"what it names cannot be used: {type(error).__name__}"]
            elif isinstance(error, ConfigError):
                told = [what for _, what in error.problems]
            else:
                told = [f"{shown(path)}: {describe(error)}"]
            problems.extend(problem_at(where, what, variable) for what in told)

    def of_type(name: str, cls: Any) -> None:
        registry.backend_type(cls)
        if cls.backend_type != name:
            what = f"{class_name(cls)} is of backend type {cls.backend_type}, not {shown(name)}"
            raise ConfigError(source, [Problem("", what)])

    for backend_type, path in config.backend_types.items():
        add(("backend_types", backend_type), path, partial(of_type, backend_type))
    for module_id, paths in config.modules.items():
        for backend_type, path in paths.items():
            register = registry.module(module_id, backend_type)
            add(("modules", module_id, backend_type), path, register)
    if problems:
        raise ConfigError(source, problems)
    return registry


def make_choices(registry: Registry, config: InitializerConfig, source: str) -> tuple[Choice, ...]:
    """Make the backends, and let modules adjust the config of those of their type.

    Raises:
        ConfigError: a backend type is not registered, or a backend's config does not fit it.
    """
    check_backend_types(config, registry.backend_types, source)
    choices = []
    for place, entry in enumerate(config.backend_priority):
        cls = registry.backend_types[entry.type]
        where = f"backend_priority[{place}]"
        at: Place = ("backend_priority", place, "config")
        values = validate_backend_config(
            cls.Config,
            entry.config,
            where=f"{where}.config",
            source=source,
            variable_of=lambda inside, at=at: config.variable_of((*at, *inside)),  # type: ignore[misc]  # mypy cannot infer `at`
        )
        backend = _called(partial(_made, cls, values), cls, where, "made", source)
        for module in _overriding(registry, entry.type):
            override = partial(backend.register_config, module.backend_config_override)
            of = f"{module.name}.backend_config_override"
            _called(override, cls, of, "changed", source)
        choices.append(Choice(backend, entry.timeout, entry.stall_timeout))
    return tuple(choices)


def _made(cls: type[Backend], values: Any) -> Backend:
    """Return a backend whose type is that of its class: what was checked, and is text."""
    backend = cls(values)
    if backend.backend_type != cls.backend_type:
        found, known = shown(backend.backend_type), shown(cls.backend_type)
        raise TypeError(f"its backend_type is {found}, and its class says {known}")
    return backend


def _called(call: Callable[[], T], cls: type[Backend], where: str, done: str, source: str) -> T:
    """Return what a call of a backend's own code returns."""
    try:
        return in_our_words(call, cls.Config, where=where, source=source)
    except (ConfigError, KeyboardInterrupt):
        raise
    except BaseException as error:  # as above
        what = f"backend {cls.backend_type} cannot be {done}: {describe(error)}"
        raise ConfigError(source, [Problem(where, what)]) from error


def _overriding(registry: Registry, backend_type: str) -> Iterator[Implementation]:
    """Yield the modules that want something changed in the config of a backend type."""
    for implementations in registry.modules.values():
        implementation = implementations.get(backend_type)
        if implementation is not None and implementation.backend_config_override:
            yield implementation


def make_catalogue(config: InitializerConfig) -> dict[str, ModelConfig]:
    """Return the configured models by name, in the order of the configuration."""
    return {
        name: ModelConfig(
            entry.module_id, entry.model_path, entry.model_backend, **(entry.model_extra or {})
        )
        for name, entry in config.models.items()
    }


def module_variables(config: InitializerConfig) -> dict[str, str]:
    """Return which variables of the environment named a module id, by catalogue name."""
    said = ((name, config.variable_of(("models", name, "module_id"))) for name in config.models)
    return {name: variable for name, variable in said if variable is not None}


def require_directories(config: InitializerConfig, source: str) -> None:
    """Raise where something else is than a directory, so that no model would ever load.

    Nothing may be there yet: a volume may be mounted later.

    Raises:
        ConfigError: naming each such key.
    """
    given = (
        (("model_root",), config.model_root),
        (("archives", "directory"), config.archives.directory),
    )
    problems = []
    for place, path in given:
        if path is not None and os.path.exists(path) and not os.path.isdir(path):
            variable = config.variable_of(place)
            what = "expected a directory" + ("" if variable else f", not {shown(str(path))}")
            problems.append(problem_at(dotted(place), what, variable))
    if problems:
        raise ConfigError(source, problems)


def absolute(path: str | os.PathLike[str], key: str, source: str) -> str:
    """Return a path from the current directory on.

    Args:
        path: the path.
        key: where it is configured.
        source: what the configuration was read from, for the error.

    Raises:
        ConfigError: the path is relative, and the current directory is gone.
    """
    try:
        return os.path.abspath(path)
    except OSError as error:
        what = (
            f"no absolute path, and the current directory cannot be told ({error.strerror}): set"
            " one, or change to a directory that is there"
        )
        raise ConfigError(source, [Problem(key, what)]) from error


def make_care(config: InitializerConfig, source: str) -> Care:
    """Return what is done with a model's files before its load.

    Raises:
        ConfigError: as in `absolute`.
    """
    archives, directory = config.archives, config.archives.directory
    return Care(
        config.manifests,
        config.strict,
        ArchiveLimits(archives.max_files, archives.max_bytes, archives.max_ratio),
        None if directory is None else absolute(directory, "archives.directory", source),
    )


def make_limits(config: InitializerConfig) -> Limits:
    """Return the configured limits."""
    return Limits(
        max_concurrent_loads=config.max_concurrent_loads,
        max_abandoned_loads=config.max_abandoned_loads,
        load_timeout=config.load_timeout,
        prepare_timeout=config.prepare_timeout,
        release_timeout=config.release_timeout,
        next_on_error=config.on_error == "next",
        warmup=config.warmup,
        guard=config.guard,
        prefetch_streams=config.prefetch_streams,
        gil_switch_interval=config.gil_switch_interval,
    )
