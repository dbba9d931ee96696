"""What the adapters of the torch family share: group, globals, devices, types, broken files."""

from __future__ import annotations

import gc
import json
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, TypeAlias

from ..errors import AnyloadError, IntegrityError, UnsafePickleError, WrongDeviceError
from ..guard import ProcessGlobal, attribute
from ..model_config import ModelConfig
from ._framework import check_device, one_line, require

GROUP = "torch-global"
"""The group of all loads that patch torch itself while they run."""

Dtype: TypeAlias = Literal["auto", "bfloat16", "float16", "float32", "float64"]
"""The types of weights that a config may ask for; ``auto`` is the one that they were saved in."""

_INITS = (
    *("uniform_", "normal_", "constant_", "ones_", "zeros_", "eye_", "dirac_", "sparse_"),
    *("xavier_uniform_", "xavier_normal_", "kaiming_uniform_", "kaiming_normal_"),
    *("trunc_normal_", "orthogonal_"),
)
# transformers replaces the functions of torch.nn.init, and each copy that was imported by name.
_COPIES = (
    *("activation", "transformer", "linear", "loss", "batchnorm", "conv", "normalization"),
    *("rnn", "sparse"),
)


def _default_dtype() -> Any:
    # Looked up, never imported: without torch there is none.
    return sys.modules["torch"].get_default_dtype()


def _put_default_dtype(dtype: Any) -> None:
    sys.modules["torch"].set_default_dtype(dtype)


def _patched() -> Iterator[ProcessGlobal]:
    yield ProcessGlobal("torch's default dtype", _default_dtype, _put_default_dtype)
    yield attribute("torch", "linspace")
    yield attribute("torch._export.serde.serialize", "_CURRENT_DESERIALIZER")
    yield attribute("transformers.modeling_utils", "PreTrainedModel.tie_weights")
    yield attribute("transformers.modeling_utils", "PreTrainedModel.init_weights")
    for module in ("torch.nn.init", *(f"torch.nn.modules.{copy}" for copy in _COPIES)):
        for name in _INITS:
            yield attribute(module, name)


TORCH_GLOBALS: tuple[ProcessGlobal, ...] = tuple(_patched())
"""What loads of the torch family are known to patch, and leave patched if two of them overlap."""


def import_transformers(extra: str) -> None:
    """Import transformers, and silence its bars: they would be drawn over a server's log.

    Raises:
        MissingExtraError: it is not installed.
    """
    require("torch", "safetensors", extra=extra)
    transformers: Any = require("transformers", "transformers.modeling_utils", extra=extra)
    # Imported as they are first asked for: better here than in a load, inside its limit.
    for name in ("AutoModel", "AutoTokenizer"):
        getattr(transformers, name)
    transformers.utils.logging.disable_progress_bar()


def require_device(device: str) -> None:
    """Raise unless torch has this device; asked before a load, which would notice it at its end.

    Raises:
        WrongDeviceError: it has not.
    """
    kind, _, number = device.partition(":")
    if kind != "cuda":
        return
    import torch

    if not torch.cuda.is_available():
        build = f"CUDA {torch.version.cuda}" if torch.version.cuda else "the processor only"
        raise WrongDeviceError(device, f"no card: this torch is built for {build}")
    count = torch.cuda.device_count()
    if int(number or 0) >= count:
        raise WrongDeviceError(device, f"torch sees {count} cards")


def check_devices(device: str, tensors: Iterable[Any]) -> None:
    """Raise unless all of these tensors are on a device.

    Raises:
        WrongDeviceError: one is elsewhere; on ``meta``, if it has no data at all, which is what
            loads leave behind that ran beside others outside of anyload.
    """
    for got in sorted({str(one.device) for one in tensors}):
        check_device(device, got)


def bytes_of(tensors: Iterable[Any]) -> int:
    """Return the bytes of some tensors; those that share memory count once."""
    storages = [one.untyped_storage() for one in tensors]
    return sum({one.data_ptr(): one.nbytes() for one in storages}.values())


def give_back_card(device: str) -> None:
    """Give memory that torch keeps for its next tensors on a card back to the card."""
    if device.startswith("cuda"):
        import torch

        gc.collect()
        torch.cuda.empty_cache()


def require_allowed(config: ModelConfig, path: Path, allowed: bool, what: str) -> None:
    """Raise unless the operator has allowed that a file be loaded that is code.

    Args:
        config: the model's config, which tells who said it.
        path: the file.
        allowed: its ``allow_pickle``.
        what: why the file is code.

    Raises:
        UnsafePickleError: nobody has allowed it, or only the model itself.
    """
    if not allowed:
        how = "allow_pickle: true in the catalogue allows it, if you trust where it is from"
    elif not config.from_operator:
        how = "a model's own config.yml cannot allow it; put allow_pickle: true into the catalogue"
    else:
        return
    raise UnsafePickleError(str(path), f"{what}; {how}")


@contextmanager
def naming_broken_files(directory: Path) -> Iterator[None]:
    """Have an error say which file of a directory is broken, where one is.

    What the frameworks raise for an empty file or half a file names no file, or no reason.

    Raises:
        IntegrityError: there is such a file; it is raised from the error.
    """
    try:
        yield
    except (AnyloadError, ImportError, MemoryError, RuntimeError, TypeError):
        raise  # about something else: an option, a missing package, too little memory
    except Exception as error:
        for path in sorted(directory.rglob("*")):
            reason = _broken(path)
            if reason is not None:
                raise IntegrityError(str(path), reason) from error
        raise


def _broken(path: Path) -> str | None:
    """Return what is wrong with a file of weights or of configuration, if that can be told."""
    try:
        if path.suffix == ".json" and path.is_file():
            json.loads(path.read_bytes())
        elif path.suffix == ".safetensors" and path.is_file():
            import safetensors

            with safetensors.safe_open(path, "pt"):
                pass
    except Exception as error:
        return "the file is empty" if path.stat().st_size == 0 else one_line(error)
    return None
