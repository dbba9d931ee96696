"""Nothing comes from the Hub: no file while a model is loaded, and no kernel at any time.

``local_files_only`` does not reach everything. A ``backbone`` in a config.json, for one, is looked
up on the Hub without it, and kernels have no such argument.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn

from ..errors import IntegrityError

_loading: ContextVar[bool] = ContextVar("anyload.adapters.loading", default=False)


class OfflineInLoads:
    """Says for huggingface_hub whether it is offline: in loads it is, otherwise as it said before.

    Args:
        otherwise: what said so before.
    """

    def __init__(self, otherwise: Callable[[], bool]) -> None:
        self._otherwise = otherwise

    def __call__(self) -> bool:
        return _loading.get() or self._otherwise()


def keep_from_hub() -> None:
    """Have transformers load no kernels from the Hub, and huggingface_hub ask `nothing_fetched`.

    Both are for the whole process, and are done once. What asks the package kernels itself is not
    concerned, nor is what fetches outside of a load.
    """
    constants: Any = import_module("huggingface_hub.constants")
    if not isinstance(constants.is_offline_mode, OfflineInLoads):
        constants.is_offline_mode = OfflineInLoads(constants.is_offline_mode)
    kernels: Any = import_module("transformers.integrations.hub_kernels")
    if hasattr(kernels, "get_kernel_hub"):  # not without the package kernels
        kernels.get_kernel_hub = _no_kernel
    # Some models ask for one as they are imported, and ask the package itself.
    utils: Any = import_module("transformers.utils.import_utils")
    utils.is_flash_attn_kernel_fallback_available = _no_fallback


@contextmanager
def nothing_fetched(directory: Path) -> Iterator[None]:
    """Have huggingface_hub fetch nothing for a directory's model, in this thread.

    Raises:
        IntegrityError: it was to.
    """
    token = _loading.set(True)
    try:
        yield
    except Exception as error:
        refused = _refused(error)
        if refused is None:
            raise
        what = "something in it is to come from elsewhere, and nothing is fetched"
        raise IntegrityError(str(directory), f"{what}: {refused}") from error
    finally:
        _loading.reset(token)


def _refused(error: BaseException) -> str | None:
    """Return what huggingface_hub did not fetch, if that is what an error comes from."""
    one: BaseException | None = error
    while one is not None:
        if type(one).__name__ == "OfflineModeIsEnabled":
            return str(one).partition(": offline mode")[0]
        one = one.__cause__ or one.__context__
    return None


def _no_kernel(name: str, *arguments: object, **named: object) -> NoReturn:
    what = f"{name} is a kernel from the Hub, which is code: anyload has transformers load none"
    how = "choose another attention or quantization, or install a package that has it"
    raise ImportError(f"{what}; {how}")


def _no_fallback(fa_version: object) -> bool:
    return False
