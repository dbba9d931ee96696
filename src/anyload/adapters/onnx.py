"""The module ``onnx``: a model that onnxruntime runs."""

from __future__ import annotations

import warnings
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar, Literal, Self

from ..config import BackendConfig, Count, validate_backend_config
from ..contracts import Backend
from ..errors import ConfigError, IntegrityError, Problem, WrongDeviceError
from ..model_config import ModelConfig
from ..registry import Registry
from ._first_run import first_run
from ._framework import Released, one_file, one_line, options, require, says, weight_files
from ._memory import TrimOptions, give_back_memory

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

NOT_A_MODEL = ("InvalidArgument", "InvalidProtobuf", "InvalidGraph")
"""The errors of onnxruntime that say so by their type."""

BROKEN_WEIGHTS = ("external data", "external initializer")
"""What onnxruntime says, in an error of any type, of weights in files of their own that are
missing, too short or outside of the model's directory."""


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


class SessionOptions(BackendConfig):
    """The attributes of ``onnxruntime.SessionOptions`` that a model config may set.

    A model's directory can have a config of its own, and may come from anyone. So there is nothing
    here that writes a file, such as ``optimized_model_filepath``, or that loads code.
    """

    enable_cpu_mem_arena: bool | None = None
    enable_mem_pattern: bool | None = None
    enable_mem_reuse: bool | None = None
    execution_mode: Literal["ORT_SEQUENTIAL", "ORT_PARALLEL"] | None = None
    execution_order: Literal["DEFAULT", "PRIORITY_BASED"] | None = None
    graph_optimization_level: (
        Literal[
            "ORT_DISABLE_ALL",
            "ORT_ENABLE_BASIC",
            "ORT_ENABLE_EXTENDED",
            "ORT_ENABLE_LAYOUT",
            "ORT_ENABLE_ALL",
        ]
        | None
    ) = None
    log_severity_level: Literal[0, 1, 2, 3, 4] = 3  # errors
    log_verbosity_level: Count | None = None
    use_deterministic_compute: bool | None = None


SESSION_ENUMS = MappingProxyType(
    {
        "execution_mode": "ExecutionMode",
        "execution_order": "ExecutionOrder",
        "graph_optimization_level": "GraphOptimizationLevel",
    }
)
"""The attributes whose values onnxruntime has as members of its own classes."""


class OnnxModel:
    """A session of onnxruntime.

    Attributes:
        session: the ``InferenceSession``; `run` is a short way to it.
        device: where it runs.
    """

    class Options(TrimOptions):
        """The fields of a model config, beside ``trim_memory``.

        Args:
            intra_op_threads: threads for one operator; 0 lets onnxruntime choose.
            inter_op_threads: threads for operators side by side; 0 likewise.
            session_options: further attributes of ``onnxruntime.SessionOptions``, those of
                `SessionOptions` here.
        """

        intra_op_threads: Count = 0
        inter_op_threads: Count = 0
        session_options: dict[str, Any] = {}  # checked by _session_options

    weight_files = weight_files(("",))

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
            IntegrityError: the file is not a model, or its weights beside it are not there.
            ConfigError: a field of the config cannot be used.
        """
        import onnxruntime

        opts = options(config, cls.Options)
        path = one_file(config, (".onnx", ".ort"))
        provider, provider_options = _provider(load_backend)
        if provider not in onnxruntime.get_available_providers():
            here = ", ".join(onnxruntime.get_available_providers())
            raise WrongDeviceError(provider, f"this onnxruntime has {here}")
        session_options = _session_options(opts, str(config))
        try:
            session = onnxruntime.InferenceSession(
                str(path), session_options, providers=[(provider, provider_options)]
            )
        except Exception as error:
            if type(error).__name__ in NOT_A_MODEL or says(error, BROKEN_WEIGHTS):
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
        with first_run():
            self.session.run(None, inputs)

    def memory_bytes(self) -> int:
        """Return the size of the file, and of the weights beside it: what it holds at least."""
        beside = self._path.parent.glob(f"{self._path.name}*data")
        return sum(file.stat().st_size for file in {self._path, *beside})

    def release(self) -> None:
        """Drop the session; its arena goes back to the system."""
        self.session = Released()
        if self._options.trim_memory:
            give_back_memory()


def _session_options(opts: OnnxModel.Options, source: str) -> Any:
    """Return the ``onnxruntime.SessionOptions`` that a model config asks for.

    Raises:
        ConfigError: it names an attribute that it may not set, or a value that does not fit.
    """
    import onnxruntime

    where, known = "session_options", SessionOptions.model_fields
    unknown = [name for name in opts.session_options if name not in known]
    if unknown:
        what = f"not to be set by a model's config; allowed are {', '.join(known)}"
        raise ConfigError(source, [Problem(f"{where}.{name}", what) for name in unknown])
    chosen = validate_backend_config(
        SessionOptions, opts.session_options, where=where, source=source
    )
    made = onnxruntime.SessionOptions()
    made.intra_op_num_threads = opts.intra_op_threads
    made.inter_op_num_threads = opts.inter_op_threads
    for name, value in chosen.model_dump(exclude_none=True).items():
        members = SESSION_ENUMS.get(name)
        setattr(made, name, getattr(getattr(onnxruntime, members), value) if members else value)
    return made


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
