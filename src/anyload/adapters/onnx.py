"""The module ``onnx``: a model that onnxruntime runs."""

from __future__ import annotations

import warnings
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar, Self

from ..config import BackendConfig, Count
from ..contracts import Backend
from ..errors import IntegrityError, WrongDeviceError
from ..model_config import ModelConfig
from ..registry import Registry
from ._framework import Released, give_back_memory, one_file, one_line, options, require

PROVIDERS: tuple[tuple[str, str], ...] = (
    ("LOCAL", "CPUExecutionProvider"),
    ("CUDA", "CUDAExecutionProvider"),
)

NUMPY_TYPES = MappingProxyType(
    {
        "tensor(float)": "float32",
        "tensor(float16)": "float16",
        "tensor(double)": "float64",
        "tensor(int32)": "int32",
        "tensor(int64)": "int64",
        "tensor(uint8)": "uint8",
        "tensor(bool)": "bool",
    }
)
"""The numpy types of inputs that can be made up."""


class OnnxBackend(Backend):
    """Any execution provider of onnxruntime, for those that neither LOCAL nor CUDA stands for."""

    backend_type: ClassVar[str] = "ONNX"

    class Config(BackendConfig):
        """What ``config:`` of this backend may say.

        Args:
            provider: the provider's name, such as ``OpenVINOExecutionProvider``.
            options: its own options, such as ``{device_type: CPU}``.
        """

        provider: str
        options: dict[str, str | int | float | bool] = {}

    config: Config


class OnnxModel:
    """A session of onnxruntime.

    Attributes:
        session: the ``InferenceSession``; `run` is a short way to it.
        device: where it runs.
    """

    class Options(BackendConfig):
        """The fields of a model config.

        Args:
            intra_op_threads: threads for one operator; 0 lets onnxruntime choose.
            inter_op_threads: threads for operators side by side; 0 likewise.
            session_options: further attributes of ``onnxruntime.SessionOptions``.
            trim_memory: whether `release` gives free memory back to the system.
        """

        intra_op_threads: Count = 0
        inter_op_threads: Count = 0
        session_options: dict[str, str | int | float | bool] = {}
        trim_memory: bool = True

    def __init__(self, session: Any, path: Path, device: str, opts: Options) -> None:
        self.session = session
        self.device = device
        self._path = path
        self._options = opts

    @classmethod
    def prepare(cls) -> None:
        """Import onnxruntime."""
        require("onnxruntime", extra="onnxruntime")
        # It only warns that it takes another provider than asked for; load makes that an error.
        warnings.filterwarnings("ignore", "Specified provider", UserWarning)

    @classmethod
    def load(cls, config: ModelConfig, load_backend: Backend) -> Self:
        """Load a ``.onnx`` file, or the one in a directory.

        Raises:
            WrongDeviceError: onnxruntime has no such provider here, or took another one.
            IntegrityError: the file is not a model.
            ConfigError: a field of the config cannot be used.
        """
        import onnxruntime

        opts = options(config, cls.Options)
        path = one_file(config, (".onnx", ".ort"))
        provider, provider_options = _provider(load_backend)
        if provider not in onnxruntime.get_available_providers():
            here = ", ".join(onnxruntime.get_available_providers())
            raise WrongDeviceError(provider, f"this onnxruntime has {here}")
        session_options = onnxruntime.SessionOptions()
        session_options.intra_op_num_threads = opts.intra_op_threads
        session_options.inter_op_num_threads = opts.inter_op_threads
        session_options.log_severity_level = 3  # errors
        for name, value in opts.session_options.items():
            setattr(session_options, name, value)
        try:
            session = onnxruntime.InferenceSession(
                str(path), session_options, providers=[(provider, provider_options)]
            )
        except Exception as error:
            if type(error).__name__ in ("InvalidArgument", "InvalidProtobuf", "InvalidGraph"):
                raise IntegrityError(str(path), one_line(error)) from error
            raise
        took = session.get_providers()[0]
        if took != provider:
            raise WrongDeviceError(provider, took)
        device = getattr(load_backend, "device", "cpu" if provider == PROVIDERS[0][1] else provider)
        return cls(session, path, device, opts)

    def run(self, inputs: dict[str, Any]) -> list[Any]:
        """Return every output of the model for these inputs, numpy arrays by name."""
        outputs: list[Any] = self.session.run(None, inputs)
        return outputs

    def warmup(self) -> None:
        """Run it once on zeros: the first run plans its memory.

        A model whose inputs are not plain tensors is left alone: what would be a valid input for
        it is not to be guessed.
        """
        import numpy

        inputs = {}
        for one in self.session.get_inputs():
            kind = NUMPY_TYPES.get(one.type)
            if kind is None:
                return
            shape = [size if isinstance(size, int) else 1 for size in one.shape]
            inputs[one.name] = numpy.zeros(shape, kind)
        try:
            self.session.run(None, inputs)
        except Exception:  # zeros of these shapes are no valid input
            return

    def memory_bytes(self) -> int:
        """Return the size of the file, and of the weights beside it: what it holds at least."""
        beside = self._path.parent.glob(f"{self._path.name}*data")
        return sum(file.stat().st_size for file in {self._path, *beside})

    def release(self) -> None:
        """Drop the session; its arena goes back to the system."""
        self.session = Released()
        if self._options.trim_memory:
            give_back_memory()


def _provider(backend: Backend) -> tuple[str, dict[str, Any]]:
    """Return the provider that a backend stands for, and its options."""
    if isinstance(backend, OnnxBackend):
        return backend.config.provider, dict(backend.config.options)
    name = dict(PROVIDERS)[backend.backend_type]
    number = getattr(backend.config, "device", None)
    return name, {} if number is None else {"device_id": number}


def register(registry: Registry) -> None:
    """Add the module, and the backend type for other providers."""
    registry.backend_type(OnnxBackend)
    for backend_type in (*dict(PROVIDERS), OnnxBackend.backend_type):
        registry.module("onnx", backend_type)(OnnxModel)
