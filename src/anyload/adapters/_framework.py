"""What the adapters share: importing a framework, reading options, finding files, letting go."""

from __future__ import annotations

import os
from collections.abc import Iterable
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

from ..config import BackendConfig, validate_backend_config
from ..contracts import Backend
from ..errors import IntegrityError, MissingExtraError, WrongDeviceError
from ..model_config import ModelConfig
from ..registry import Registry

Options = TypeVar("Options", bound=BackendConfig)


def register_for_card(registry: Registry, module_id: str, cls: type) -> None:
    """Add a module, for the processor and for a card."""
    for backend_type in ("LOCAL", "CUDA"):
        registry.module(module_id, backend_type)(cls)


def require(*modules: str, extra: str) -> ModuleType:
    """Import a framework and return its first module.

    Args:
        modules: what to import, in order.
        extra: the extra of anyload that installs it.

    Raises:
        MissingExtraError: it is not installed. A module that it lacks itself is its own error.
    """
    try:
        first, *_ = map(import_module, modules)
    except ModuleNotFoundError as error:
        wanted = {module.partition(".")[0] for module in modules}
        if error.name is None or error.name.partition(".")[0] not in wanted:
            raise
        raise MissingExtraError(error.name, extra) from error
    return first


def options(config: ModelConfig, model: type[Options]) -> Options:
    """Return the model config's own fields as an adapter's options.

    Raises:
        ConfigError: a field is unknown or has a value that does not fit.
    """
    made: Options = validate_backend_config(model, config.fields, where="", source=str(config))
    return made


def one_file(config: ModelConfig, suffixes: Iterable[str]) -> Path:
    """Return the file that a model config means: its path, or the one such file in there.

    Args:
        config: the model's config.
        suffixes: what the file's name may end with, with the dot.

    Raises:
        IntegrityError: there is none, or more than one, or it is empty.
    """
    path, endings = Path(os.fspath(config)), tuple(suffixes)
    if path.is_dir():
        found = sorted(file for file in path.iterdir() if file.name.endswith(endings))
        if len(found) != 1:
            names = ", ".join(file.name for file in found) or "none"
            what = f"expected one file that ends in {' or '.join(endings)}, found {names}"
            raise IntegrityError(str(path), what)
        path = found[0]
    if not path.is_file():
        raise IntegrityError(str(path), "there is no such file")
    if path.stat().st_size == 0:
        raise IntegrityError(str(path), "the file is empty")
    return path


def weight_files(*kinds: tuple[str, ...]) -> Any:
    """Return the classmethod ``weight_files`` of an adapter, by the endings of its files.

    Args:
        kinds: which endings they may have; of those that are there, the files of the first kind.
            A model that is a file is that file.
    """

    def named(cls: type, config: ModelConfig) -> list[Path]:
        """Return the files that a load reads, for them to be read ahead."""
        path = Path(os.fspath(config))
        if path.is_file():
            return [path]
        files = sorted(file for file in path.rglob("*") if file.is_file())
        by_kind = ([file for file in files if file.name.endswith(kind)] for kind in kinds)
        return next(filter(None, by_kind), [])

    return classmethod(named)


def device_of(backend: Backend) -> str:
    """Return the device that a load runs on, as frameworks spell it: ``cpu``, ``cuda:0``."""
    return str(getattr(backend, "device", "cpu"))


def check_device(asked: str, got: object) -> None:
    """Raise unless the framework took the device it was asked for; ``cuda`` means any card.

    Raises:
        WrongDeviceError: it took another one, as many do without a word.
    """
    if str(got) != asked and str(got).partition(":")[0] != asked:
        raise WrongDeviceError(asked, str(got))


def says(error: Exception, words: Iterable[str]) -> bool:
    """Return whether an error's text has one of these words in it; they are in lower case."""
    text = str(error).lower()
    return any(one in text for one in words)


def one_line(error: BaseException) -> str:
    """Return the first line of an error's text, without the stack traces that C++ puts below."""
    text = str(error).strip() or type(error).__name__
    return text.partition("\n")[0][:500]


def total_size(paths: Iterable[Path]) -> int:
    """Return the bytes of some files together."""
    return sum(path.stat().st_size for path in paths)


class ReleasedError(RuntimeError, AttributeError):
    """A model was used after its release; an AttributeError too, for whoever asks ``hasattr``."""


class Released:
    """Stands where a model was before its release: every use of it says so."""

    def __getattr__(self, name: str) -> Any:
        raise ReleasedError("this model was released")

    def __getitem__(self, key: object) -> Any:
        raise ReleasedError("this model was released")

    def __call__(self, *args: object, **kwargs: object) -> Any:
        raise ReleasedError("this model was released")

    def __repr__(self) -> str:
        return "<a model that was released>"
