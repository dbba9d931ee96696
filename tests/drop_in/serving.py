"""What the tests of ``anyload.caikit.load`` share: modules, models on disk, archives, callers."""

from __future__ import annotations

import io
import os
import tempfile
import uuid
import zipfile
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from typing import Any
from unittest.mock import patch

import aconfig
import caikit
from anyio import CancelScope, Event
from anyio.abc import TaskGroup
from caikit.core import MODEL_MANAGER, ModuleBase, ModuleConfig, registries
from caikit.core.model_management import ModelFinderBase, model_initializer_factory
from caikit.core.modules import module

import anyload.caikit
from anyload._load.figures import statistics
from anyload.caikit import AnyloadInitializer
from anyload.testing import at_rest, until

MANAGEMENT = {
    "initializers": {
        "ours": {"type": "ANYLOAD", "import_class": "anyload.caikit.AnyloadInitializer"},
        "caikits": {"type": "LOCAL"},
    },
    "finders": {"other": {"type": "LOCAL"}},
}


class Model(ModuleBase):  # type: ignore[misc]  # caikit has no types
    """What the modules here load; it remembers what it was loaded from."""

    def __init__(self, given: Any, kwargs: dict[str, Any]) -> None:
        super().__init__()
        self.given = given
        self.kwargs = kwargs


class Finder(ModelFinderBase):  # type: ignore[misc]  # caikit has no types
    """A finder that finds what a function says; it is constructed by hand only."""

    name = "FUNCTION"

    def __init__(self, find: Callable[..., Any]) -> None:
        self._find = find

    def find_model(self, model_path: Any, **kwargs: Any) -> Any:
        return self._find(model_path, **kwargs)


class Site:
    """Where caikit has two initializers, ``ours`` and ``caikits``, and no models yet.

    Args:
        directory: where models are made.
        unpacked: where archives are unpacked.
    """

    def __init__(self, directory: Path, unpacked: Path) -> None:
        self.directory = directory
        self._unpacked = unpacked

    def module(
        self, body: Callable[[Any], object] = lambda given: None, backend: str = "LOCAL"
    ) -> str:
        """Register a module and return its id.

        Args:
            body: is called first in each load; what it returns, if anything, is the model.
            backend: the backend type that its models are made with.
        """

        class Loaded(Model):
            SUPPORTED_LOAD_BACKENDS = [backend]  # noqa: RUF012  # caikit's name and kind

            @classmethod
            def load(cls, given: Any, **kwargs: Any) -> Any:
                made = body(given)
                return cls(given, kwargs) if made is None else made

        module_id = str(uuid.uuid4())
        module(module_id, "Loaded", "0.0.1")(Loaded)
        return module_id

    def model(self, module_id: str, name: str = "model") -> str:
        """Make a model directory, and return its path."""
        return self.text(f"module_id: {module_id}\n", name)

    def text(self, text: str, name: str = "model") -> str:
        """Make a directory with this as its ``config.yml``, and return its path."""
        directory = self.directory / name
        directory.mkdir()
        (directory / "config.yml").write_text(text)
        return str(directory)

    def file(self, content: bytes, name: str = "model.zip") -> str:
        """Make a file, and return its path."""
        (self.directory / name).write_bytes(content)
        return str(self.directory / name)

    def unpacked(self) -> list[str]:
        """Return the directories of archives that are there."""
        return os.listdir(self._unpacked)


@contextmanager
def opened(directory: Path) -> Iterator[Site]:
    """Give a site; caikit's configuration and what it knows are as before afterwards."""
    models, unpacked = directory / "models", directory / "unpacked"
    models.mkdir()
    unpacked.mkdir()
    module_registry, backends = registries.module_registry(), registries.module_backend_registry()
    with (
        patch.dict(module_registry),
        patch.dict(backends),
        patch.dict(model_initializer_factory._registered_types),
        patch.object(caikit.config.config, "_CONFIG", deepcopy(caikit.config.config._CONFIG)),
        patch.object(caikit.config.config, "_IMMUTABLE_CONFIG", None),
        patch.object(MODEL_MANAGER, "_initializers", {}),
        patch.object(MODEL_MANAGER, "_finders", {}),
        patch.object(MODEL_MANAGER, "_singleton_module_cache", {}),
        patch.object(tempfile, "tempdir", str(unpacked)),
    ):
        configure(model_management=MANAGEMENT)
        yield Site(models, unpacked)


def configure(**sections: Any) -> None:
    """Add to caikit's configuration."""
    caikit.configure(config_dict=deepcopy(sections))


def zipped(module_id: str, *members: str) -> bytes:
    """Return an archive of files, all of which say that they are of this module."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for member in members:
            archive.writestr(member, f"module_id: {module_id}\n")
    return content.getvalue()


def named(module_id: str, **fields: Any) -> ModuleConfig:
    """Return the config of a model that is nowhere on disk."""
    return ModuleConfig({"module_id": module_id, **fields})


def ours(**options: Any) -> AnyloadInitializer:
    """Return an initializer of ours with these options."""
    return AnyloadInitializer(aconfig.Config(options, override_env_vars=False), "ours")


def singletons() -> dict[str, Any]:
    """Return the models that caikit keeps."""
    kept: dict[str, Any] = MODEL_MANAGER._singleton_module_cache
    return kept


async def waiting(callers: int) -> None:
    """Wait until so many callers wait for loads of ``ours``."""
    core = MODEL_MANAGER.get_initializer("ours")._core
    await until(lambda: statistics(core).waiters == callers)


async def rests(initializer: AnyloadInitializer | None = None) -> None:
    """Wait until every slot of an initializer, ``ours`` if none, is free and every table empty."""
    core = (initializer or MODEL_MANAGER.get_initializer("ours"))._core
    await until(lambda: at_rest(statistics(core)))


async def outcome_of(load: Callable[[], Awaitable[Any]]) -> Any:
    """Return a model, or what its load raised."""
    try:
        return await load()
    except Exception as error:
        return error


async def both(asked: Any, **arguments: Any) -> tuple[Any, Any]:
    """Return what comes of a load with caikit's own, and what comes of it with ours."""

    async def caikits() -> Any:
        return caikit.load(asked, **{"initializer": "caikits", **arguments})

    async def mine() -> Any:
        return await anyload.caikit.load(asked, **{"initializer": "ours", **arguments})

    return await outcome_of(caikits), await outcome_of(mine)


class Caller:
    """One load in a task of its own, and what came of it."""

    def __init__(self, tasks: TaskGroup, asked: Any, **arguments: Any) -> None:
        self.outcome: Any = None
        self._scope = CancelScope()
        self._ended = Event()
        tasks.start_soon(self._call, asked, {"initializer": "ours", **arguments})

    async def _call(self, asked: Any, arguments: dict[str, Any]) -> None:
        with self._scope:
            self.outcome = await outcome_of(lambda: anyload.caikit.load(asked, **arguments))
        self._ended.set()

    async def cancel(self) -> None:
        """Cancel it, and wait until it has gone."""
        self._scope.cancel()
        await self._ended.wait()
        assert self._scope.cancelled_caught

    async def model(self) -> Any:
        """Return its model."""
        outcome = await self.ended()
        assert isinstance(outcome, Model), outcome
        return outcome

    async def ended(self) -> Any:
        """Return its model, or what its load raised."""
        await self._ended.wait()
        return self.outcome
