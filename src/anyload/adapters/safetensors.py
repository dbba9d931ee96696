"""The module ``safetensors``: tensors by their names, for torch or for numpy."""

from __future__ import annotations

import os
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

from ..config import BackendConfig
from ..contracts import Backend
from ..errors import ConfigError, IntegrityError, Problem, WrongDeviceError
from ..model_config import ModelConfig
from ..registry import Registry
from ._framework import (
    Released,
    device_of,
    one_file,
    one_line,
    options,
    register_for_card,
    require,
    total_size,
    weight_files,
)
from ._torch import check_devices, emptying_card, give_back_card, require_device


class SafetensorsModel:
    """The tensors of one file, or of all ``.safetensors`` files in a directory.

    Attributes:
        tensors: the tensors, by name.
        device: where they are.
    """

    class Options(BackendConfig):
        """The fields of a model config.

        Args:
            framework: whose tensors to make; by default those of torch, where that is installed.
        """

        framework: Literal["torch", "numpy"] | None = None

    weight_files = weight_files((".safetensors",))

    def __init__(self, tensors: dict[str, Any], size: int, device: str) -> None:
        self.tensors: Any = tensors
        self.device = device
        self._size = size

    @classmethod
    def variant(cls, config: ModelConfig) -> type[SafetensorsModel]:
        """Return the class that makes the tensors that a config asks for."""
        if cls is not SafetensorsModel:
            return cls
        wanted = options(config, cls.Options).framework
        return NumpyTensors if wanted == "numpy" or not (wanted or _has_torch()) else TorchTensors

    @classmethod
    @emptying_card
    def load(cls, config: ModelConfig, load_backend: Backend) -> Self:
        """Load the tensors.

        Raises:
            WrongDeviceError: there is no such device, or numpy cannot use it.
            IntegrityError: a file is broken, or two have a tensor of the same name.
            ConfigError: a field of the config cannot be used, or numpy lacks a type.
        """
        options(config, cls.Options)
        device = device_of(load_backend)
        cls.check(device)
        files = _files(config)
        _check_files(files)
        tensors: dict[str, Any] = {}
        for file in files:
            tensors.update(cls.read(file, device))
        return cls(tensors, total_size(files), device)

    @classmethod
    def check(cls, device: str) -> None:
        """Raise unless tensors can be put on a device."""
        raise NotImplementedError

    @classmethod
    def read(cls, file: Path, device: str) -> dict[str, Any]:
        """Return the tensors of one file, on a device."""
        raise NotImplementedError

    def memory_bytes(self) -> int:
        """Return the size of the files; what torch has of it in memory comes as it is used."""
        return self._size

    def release(self) -> None:
        """Drop the tensors; those that others still hold stay."""
        self.tensors = Released()
        give_back_card(self.device)


class TorchTensors(SafetensorsModel):
    """Tensors of torch. On the processor they are pages of the file, read as they are used."""

    @classmethod
    def prepare(cls) -> None:
        """Import safetensors and torch."""
        require("safetensors", extra="safetensors")
        require("torch", "safetensors.torch", extra="torch")

    @classmethod
    def check(cls, device: str) -> None:
        """Raise unless torch has this device: safetensors itself would talk of pinned memory."""
        require_device(device)

    @classmethod
    def read(cls, file: Path, device: str) -> dict[str, Any]:
        """Return the tensors of one file, on a device."""
        from safetensors.torch import load_file

        tensors: dict[str, Any] = load_file(file, device=device)
        check_devices(device, tensors.values())
        return tensors


class NumpyTensors(SafetensorsModel):
    """Arrays of numpy, copied from the file; the copying keeps the GIL."""

    holds_gil: ClassVar[bool] = True

    @classmethod
    def prepare(cls) -> None:
        """Import safetensors and numpy."""
        require("numpy", "safetensors", "safetensors.numpy", extra="safetensors")

    @classmethod
    def check(cls, device: str) -> None:
        """Raise unless the device is the processor."""
        if device != "cpu":
            raise WrongDeviceError(device, "arrays of numpy are on the processor")

    @classmethod
    def read(cls, file: Path, device: str) -> dict[str, Any]:
        """Return the arrays of one file."""
        from safetensors.numpy import load_file

        try:
            arrays: dict[str, Any] = load_file(file)
        except TypeError as error:  # data type 'bfloat16' not understood
            what = f"numpy cannot load {file.name}: {one_line(error)}; 'torch' can"
            raise ConfigError(str(file), [Problem("framework", what)]) from error
        return arrays


def _has_torch() -> bool:
    try:
        return find_spec("torch") is not None
    except ValueError:  # imported without a spec, or barred from being imported
        return sys.modules.get("torch") is not None


def _files(config: ModelConfig) -> list[Path]:
    """Return the files that a config means: one, or all of a directory."""
    path = Path(os.fspath(config))
    files = sorted(path.glob("*.safetensors")) if path.is_dir() else []
    return files if len(files) > 1 else [one_file(config, (".safetensors",))]


def _check_files(files: list[Path]) -> None:
    """Raise if a file is broken, or a tensor is in two of them; reads no more than the headers."""
    import safetensors

    seen: dict[str, Path] = {}
    for file in files:
        try:
            with safetensors.safe_open(file, "np") as opened:
                names = list(opened.keys())
        except safetensors.SafetensorError as error:
            reason = "the file is empty" if file.stat().st_size == 0 else one_line(error)
            raise IntegrityError(str(file), reason) from error
        for name in names:
            other = seen.setdefault(name, file)
            if other is not file:
                raise IntegrityError(str(file), f"the tensor {name!r} is in {other.name} too")


def register(registry: Registry) -> None:
    """Add the module, for the processor and for a card."""
    register_for_card(registry, "safetensors", SafetensorsModel)
