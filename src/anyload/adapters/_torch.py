"""What the adapters of the torch family share: group, globals, devices, and torch's own formats."""

from __future__ import annotations

import gc
import re
import struct
import sys
import zipfile
from collections.abc import Callable, Iterable, Iterator
from functools import wraps
from json import JSONDecodeError
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, Literal, ParamSpec, TypeAlias, TypeVar

from .._load.stacks import forget_frames
from ..errors import IntegrityError, UnsafePickleError, WrongDeviceError
from ..guard import ProcessGlobal, attribute
from ._framework import check_device, one_line, require
from ._hub import keep_from_hub

Arguments = ParamSpec("Arguments")
Model = TypeVar("Model")

GROUP = "torch-global"
"""The group of all loads that patch torch itself while they run."""

Dtype: TypeAlias = Literal["auto", "bfloat16", "float16", "float32", "float64"]
"""The types of weights that a config may ask for; ``auto`` is the one that they were saved in."""

Format: TypeAlias = Literal["state-dict", "torchscript", "export"]
"""The formats of files that torch itself writes."""

# What an archive has a member of this name for, in the order to look for them.
MEMBERS: tuple[tuple[str, Format], ...] = (
    ("archive_format", "export"),
    ("serialized_exported_program.json", "export"),  # before torch 2.8
    ("constants.pkl", "torchscript"),
    ("data.pkl", "state-dict"),
)

# What torch raises for a file that is cut short or is another's; it has no class of its own.
BROKEN = (
    *(EOFError, IndexError, KeyError, UnicodeDecodeError),
    *(JSONDecodeError, UnpicklingError, struct.error),
)


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
    """Import transformers, keep it from the Hub, and silence its bars.

    They would be drawn over a server's log.

    Raises:
        MissingExtraError: it is not installed.
    """
    require("torch", "safetensors", extra=extra)
    transformers: Any = require("transformers", "transformers.modeling_utils", extra=extra)
    # Imported as they are first asked for: better here than in a load, inside its limit.
    for name in ("AutoModel", "AutoTokenizer"):
        getattr(transformers, name)
    transformers.utils.logging.disable_progress_bar()
    keep_from_hub()


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


def emptying_card(load: Callable[Arguments, Model]) -> Callable[Arguments, Model]:
    """Have a load that fails give back what it has put on the card, for whoever loads next there.

    That can be done only from outside of it: its frames hold the tensors, and torch keeps the
    memory of those that are gone.
    """

    @wraps(load)
    def emptying(*arguments: Arguments.args, **named: Arguments.kwargs) -> Model:
        try:
            return load(*arguments, **named)
        except BaseException as error:
            torch = sys.modules.get("torch")
            if torch is not None and torch.cuda.is_initialized():
                forget_frames(error)
                give_back_card("cuda")
            raise

    return emptying


def give_back_card(device: str) -> None:
    """Give memory that torch keeps for its next tensors on a card back to the card."""
    if device.startswith("cuda"):
        import torch

        gc.collect()
        torch.cuda.empty_cache()


def is_archive(path: Path) -> bool:
    """Return whether a file is an archive to torch: zipfile would find one at its end too."""
    with path.open("rb") as file:
        return file.read(4) == b"PK\x03\x04"


def format_of(path: Path) -> Format | None:
    """Return the format that a file is of, by what is in it; None if it is of none."""
    if not is_archive(path):
        with path.open("rb") as file:
            return "state-dict" if file.read(1) == b"\x80" else None  # a bare pickle
    try:
        with zipfile.ZipFile(path) as archive:
            names = {name.rpartition("/")[2] for name in archive.namelist()}
    except zipfile.BadZipFile:
        return None
    return next((found for name, found in MEMBERS if name in names), None)


def explain(path: Path, error: Exception) -> None:
    """Raise what an error of torch says of a file, if it is about the file.

    Raises:
        IntegrityError: the file is broken.
        UnsafePickleError: it is a pickle that holds more than tensors.
    """
    if isinstance(error, UnpicklingError):
        found = re.search(r"GLOBAL (\S+\.\S+)", str(error))
        if found is None:  # what else it says is advice to load it as code
            raise IntegrityError(str(path), "it is broken, or torch did not write it") from error
        what = f"it is a pickle that holds {found[1]}, which is code and never loaded"
        wanted = "save a state dict: torch.save(model.state_dict(), path)"
        raise UnsafePickleError(str(path), f"{what}; {wanted}") from error
    about = ("PytorchStreamReader", "unexpected EOF", "pickle archive", "saved file")
    if isinstance(error, BROKEN) or any(words in str(error) for words in about):
        reason = f"it is broken: {type(error).__name__}: {one_line(error)}"
        raise IntegrityError(str(path), reason) from error
