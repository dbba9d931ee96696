"""``caikit.load`` for async servers: finders, archives and singletons, off the event loop.

It does what ``ModelManager.load`` of caikit 0.29.0 does, and gives its errors. It differs where
that is to the caller's good: singletons wait for their own model only, an archive can be one, a
file that the module misses is not taken for a missing ``config.yml``, and a module that raises
what is no Exception ends its load and nothing else.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import zipfile
from io import BytesIO
from typing import Any, NoReturn
from weakref import finalize

import caikit
from anyio.to_thread import run_sync
from caikit.core import MODEL_MANAGER, ModuleBase, ModuleConfig
from caikit.core.model_management import ModelFinderBase, ModelInitializerBase
from caikit.core.model_manager import error

from .._load.flight import Known
from .._load.process import process
from ..errors import LoadError
from ._found import Found, Singleton
from ._initializer import AnyloadInitializer


async def load(
    module_path: str | BytesIO | bytes,
    *,
    load_singleton: bool = False,
    finder: str | ModelFinderBase = "default",
    initializer: str | ModelInitializerBase = "default",
    **kwargs: Any,
) -> ModuleBase:
    """Load a model as ``caikit.load`` does, without keeping the event loop from anything.

    Cancelling it is immediate; where nobody else waits for the load, what it gives is dropped.

    Args:
        module_path: a directory, a zip archive by path or content, or what the finder understands.
        load_singleton: whether to load it only once in this process; see caikit.
        finder: the finder, or its name in the configuration.
        initializer: the initializer, or its name in the configuration; an AnyloadInitializer.
        kwargs: passed on to the finder and to the module's ``load``.

    Raises:
        TypeError: an argument is of a wrong type; the initializer is not an AnyloadInitializer.
        ValueError: there is no such model, or no backend that can load it.
        FileNotFoundError: there is no ``config.yml``.
        Exception: what the module's ``load`` raised, as it was raised.
        LoadError: as from `AnyloadInitializer.init`; also for a ``load`` that raised what is no
            Exception, or a StopIteration.
    """
    error.type_check("<COR98255724E>", bool, load_singleton=load_singleton)
    error.type_check("<COR98255419E>", str, BytesIO, bytes, module_path=module_path)
    if isinstance(initializer, str):
        name, initializer = initializer, MODEL_MANAGER._initializers.get(initializer)
        if initializer is None:
            initializer = await run_sync(_make, name, abandon_on_cancel=True)
    if not isinstance(initializer, AnyloadInitializer):
        raise TypeError(
            f"anyload.caikit.load needs an AnyloadInitializer, not {type(initializer).__name__}: "
            "set type: ANYLOAD and import_class: anyload.caikit.AnyloadInitializer in its section "
            "of model_management.initializers"
        )
    model = module_path if isinstance(module_path, str) else "an archive in memory"
    key = ("singleton", module_path) if load_singleton and model is module_path else None
    search = Search(module_path, finder, kwargs, singleton=load_singleton)
    try:
        return await initializer.load(model, key, search.find, kwargs)
    except LoadError as failure:
        # Its frames lead to the archive's files, and it may be kept for long.
        raise failure.with_traceback(None)  # noqa: B904  # it is the same error


def _make(name: str) -> ModelInitializerBase:
    """Return the initializer of a name; making it imports what the configuration names."""
    with process.making:  # caikit's manager, asked twice at once, makes two
        return MODEL_MANAGER.get_initializer(name)


class Search:
    """Looks for a model; every method may block.

    Args:
        module_path: as in `load`.
        finder: likewise.
        kwargs: likewise.
        singleton: whether it may be known already, and will be known from now on.
    """

    def __init__(
        self,
        module_path: str | BytesIO | bytes,
        finder: str | ModelFinderBase,
        kwargs: dict[str, Any],
        *,
        singleton: bool,
    ) -> None:
        self._asked = module_path
        self._finder = finder
        self._kwargs = kwargs
        self._singleton = singleton

    def find(self) -> Found | Known:
        """Return the model's config, or the model, if it is a singleton that is there."""
        path = BytesIO(self._asked) if isinstance(self._asked, bytes) else self._asked
        singleton = None
        if isinstance(path, str):
            path = _normal(path)
            if self._singleton:
                singleton = Singleton(MODEL_MANAGER._singleton_module_cache, path)
                if known := singleton.known():
                    return known
        if zipfile.is_zipfile(path):
            unpacked = Unpacked(path)
            config, inside = self._look_inside(unpacked.path, path)
            return Found(config, inside, singleton, unpacked)
        try:
            return Found(self._look(path), path, singleton)
        except FileNotFoundError:
            _missing(
                "<COR80419785E>", f"Module load path `{path}` does not contain a `config.yml` file."
            )

    def _look(self, path: Any) -> ModuleConfig:
        config = MODEL_MANAGER.get_finder(self._finder).find_model(path, **self._kwargs)
        error.value_check(
            "<COR92173495E>", config is not None, "Unable to find a ModuleConfig for {}", path
        )
        return config

    def _look_inside(self, root: str, archive: Any) -> tuple[ModuleConfig, str]:
        """Return the config at the top of an unpacked archive, or in its one directory."""
        try:
            return self._look(root), root
        except FileNotFoundError:
            inside = [os.path.join(root, name) for name in os.listdir(root)]
            # What begins with __ is left behind by the tools that make archives: __MACOSX.
            directories = [
                path
                for path in inside
                if os.path.isdir(path) and not os.path.basename(path).startswith("__")
            ]
            if len(directories) != 1:
                _missing("<COR06761097E>", "Unable to locate archive config due to nested dirs")
            try:
                return self._look(directories[0]), directories[0]
            except FileNotFoundError:
                _missing(
                    "<COR84410081E>",
                    f"Unable to locate archive config within top two levels of {archive}",
                )


class Unpacked:
    """An archive's files in a directory, for as long as this is there.

    Args:
        archive: the archive, a path or a file.
    """

    def __init__(self, archive: Any) -> None:
        self.path = tempfile.mkdtemp()
        finalize(self, shutil.rmtree, self.path, ignore_errors=True)
        with zipfile.ZipFile(archive) as opened:
            opened.extractall(self.path)  # it keeps every member inside


def _normal(path: str) -> str:
    """Return a path as caikit keeps it, looked for below ``load_path`` too."""
    root = caikit.get_config().load_path
    if root is not None and not os.path.exists(path):
        below = os.path.join(root, path)
        path = below if os.path.exists(below) else path
    return os.path.normpath(path)


def _missing(code: str, what: str) -> NoReturn:
    error(code, FileNotFoundError(what))
    raise AssertionError("caikit's error() has raised")
