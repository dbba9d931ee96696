"""The module ``torch``: state dicts, TorchScript and exported programs."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any, ClassVar, Self

from ..config import BackendConfig
from ..contracts import Backend
from ..errors import ConfigError, IntegrityError, Problem
from ..guard import ProcessGlobal
from ..model_config import ModelConfig
from ..registry import Registry
from ._directories import (
    require_allowed,
)
from ._first_run import first_run
from ._framework import (
    Released,
    device_of,
    one_file,
    options,
    register_for_card,
    require,
    weight_files,
)
from ._memory import TrimOptions, give_back_memory
from ._torch import (
    BROKEN,
    GROUP,
    TORCH_GLOBALS,
    Format,
    bytes_of,
    check_devices,
    emptying_card,
    explain,
    format_of,
    give_back_card,
    is_archive,
    require_device,
)


class TorchModel:
    """A model that torch has written, of one of three formats; a config is loaded by its subclass.

    Attributes:
        model: what to call; None for a state dict without a factory.
        device: where it is.
    """

    format: ClassVar[str]
    suffixes: ClassVar[tuple[str, ...]]

    class Options(BackendConfig):
        """The fields of a model config.

        Args:
            format: what the file is; by default its name tells.
        """

        format: Format | None = None

    weight_files = weight_files((".pt", ".pth", ".jit", ".ts", ".torchscript", ".pt2"))

    model: Any
    device: str

    @classmethod
    def variant(cls, config: ModelConfig) -> type[TorchModel]:
        """Return the class for the format that a config says, or that the file's name tells.

        Raises:
            ConfigError: there is no such format.
            IntegrityError: there is no such file, or more than one.
        """
        if cls is not TorchModel:
            return cls
        variants = (StateDict, TorchScript, ExportedProgram)
        said = config.get("format")
        if said is None:
            suffix = one_file(config, chain.from_iterable(one.suffixes for one in variants)).suffix
            found = [one for one in variants if suffix in one.suffixes]
        else:
            found = [one for one in variants if said == one.format]
        if not found:
            known = ", ".join(one.format for one in variants)
            raise ConfigError(
                str(config), [Problem("format", f"say which of these it is: {known}")]
            )
        return found[0]

    @classmethod
    def prepare(cls) -> None:
        """Import torch."""
        require("torch", extra="torch")

    @classmethod
    def load(cls, config: ModelConfig, load_backend: Backend) -> Self:
        """Load the file; each format has its own way."""
        raise NotImplementedError

    @classmethod
    def file(cls, config: ModelConfig) -> Path:
        """Return the file that a config means, if it is one of this format.

        Raises:
            IntegrityError: it is none, or of another format.
        """
        path = one_file(config, dict.fromkeys((*cls.suffixes, *StateDict.suffixes)))
        found = format_of(path)
        if found is None:
            raise IntegrityError(str(path), "it is cut short, or torch did not write it")
        if found != cls.format:
            what = f"it is of the format {found}, not {cls.format}; the field format says which"
            raise IntegrityError(str(path), what)
        return path


class StateDict(TorchModel):
    """Weights by name, and the module that they belong to where a factory makes it.

    It is in the group, as a factory makes tensors of torch's default dtype, which other loads of
    the group change while they run.

    A subclass with a ``factory`` is a module of its own::

        @registry.module("sentiment")
        class Sentiment(StateDict):
            factory = SentimentNet

    Attributes:
        state_dict: what the file holds.
        model: the module that the factory made, with these weights; None without a factory.
    """

    format = "state-dict"
    suffixes = (".pt", ".pth")
    exclusive_group: ClassVar[str] = GROUP
    process_globals: ClassVar[tuple[ProcessGlobal, ...]] = TORCH_GLOBALS
    factory: ClassVar[Callable[[], Any] | None] = None

    class Options(TorchModel.Options):
        """The fields of a model config.

        Args:
            mmap: whether the weights are pages of the file, read as they are used. The file must
                then not be changed while the model is in use: put a new one in its place.
        """

        mmap: bool = True

    def __init__(self, state_dict: Any, model: Any, device: str) -> None:
        self.state_dict = state_dict
        self.model = model
        self.device = device

    @classmethod
    @emptying_card
    def load(
        cls,
        config: ModelConfig,
        load_backend: Backend,
        factory: Callable[[], Any] | None = None,
    ) -> Self:
        """Load a state dict; nothing that is pickled in the file but tensors is ever loaded.

        Args:
            config: the model's config.
            load_backend: where to load it.
            factory: makes the module, without weights; by default that of the class.

        Raises:
            WrongDeviceError: torch has no such device.
            IntegrityError: the file is none of torch.save, or broken.
            UnsafePickleError: it is a pickled module, or holds other objects.
            ConfigError: a field of the config cannot be used.
        """
        import torch

        opts = options(config, cls.Options)
        device = device_of(load_backend)
        require_device(device)
        path = cls.file(config)
        # Files of torch before 1.6 are no archives, and cannot be mapped.
        mmap = opts.mmap and is_archive(path)
        try:
            weights = torch.load(path, map_location=device, weights_only=True, mmap=mmap)
        except (RuntimeError, *BROKEN) as error:
            explain(path, error)
            raise
        factory = factory or cls.factory
        model = None if factory is None else _filled(factory, weights, device)
        loaded = cls(weights, model, device)
        check_devices(device, loaded._tensors())
        return loaded

    def _tensors(self) -> Iterator[Any]:
        return _tensors(self.state_dict if self.model is None else self.model.state_dict())

    def memory_bytes(self) -> int:
        """Return the size of its tensors."""
        return bytes_of(self._tensors())

    def release(self) -> None:
        """Drop the weights."""
        self.state_dict = self.model = Released()
        give_back_card(self.device)


class _Trimmed(TorchModel):
    """What the two formats share whose weights are copied into memory of the C library."""

    class Options(TrimOptions, TorchModel.Options):
        """The fields of a model config: ``format`` and ``trim_memory``."""

    def __init__(self, model: Any, size: int, device: str, opts: Options) -> None:
        self.model = model
        self.device = device
        self._size = size
        self._options = opts

    def memory_bytes(self) -> int:
        """Return the size of the file, most of which are its weights."""
        return self._size

    def release(self) -> None:
        """Drop the model."""
        self.model = Released()
        give_back_card(self.device)
        if self._options.trim_memory:
            give_back_memory()


class TorchScript(_Trimmed):
    """A module of TorchScript, ready for inference."""

    format = "torchscript"
    suffixes = (".jit", ".ts", ".torchscript")
    holds_gil: ClassVar[bool] = True

    @classmethod
    def prepare(cls) -> None:
        """Import torch."""
        super().prepare()
        # The models are there, deprecated or not, and it says so for each load.
        warnings.filterwarnings("ignore", "`torch.jit.load` is deprecated", DeprecationWarning)

    @classmethod
    @emptying_card
    def load(cls, config: ModelConfig, load_backend: Backend) -> Self:
        """Load a module of TorchScript.

        Raises:
            WrongDeviceError: torch has no such device.
            IntegrityError: the file is no module of TorchScript, or broken.
            ConfigError: a field of the config cannot be used.
        """
        import torch

        opts = options(config, cls.Options)
        device = device_of(load_backend)
        require_device(device)
        path = cls.file(config)
        try:
            model = torch.jit.load(str(path), map_location=device)
        except RuntimeError as error:
            explain(path, error)
            raise
        check_devices(device, chain(model.parameters(), model.buffers()))
        return cls(model.eval(), path.stat().st_size, device, opts)


class ExportedProgram(_Trimmed):
    """A program of torch.export.

    Attributes:
        program: the ``ExportedProgram``.
        model: its module, to be called.
    """

    format = "export"
    suffixes = (".pt2",)
    exclusive_group: ClassVar[str] = GROUP
    process_globals: ClassVar[tuple[ProcessGlobal, ...]] = TORCH_GLOBALS

    class Options(_Trimmed.Options):
        """The fields of a model config, beside ``format`` and ``trim_memory``.

        Args:
            allow_pickle: must be true: ``torch.export.load`` evaluates the expressions in a file
                as Python, and unpickles whatever does not load as tensors.
        """

        allow_pickle: bool = False

    program: Any

    @classmethod
    def prepare(cls) -> None:
        """Import torch, and what it imports when it first loads a program."""
        require("torch", "torch.export", "torch.export.passes", extra="torch")
        require("torch._export.serde.serialize", extra="torch")

    @classmethod
    @emptying_card
    def load(cls, config: ModelConfig, load_backend: Backend) -> Self:
        """Load an exported program.

        Raises:
            WrongDeviceError: torch has no such device.
            IntegrityError: the file is no exported program, or broken.
            UnsafePickleError: nobody has allowed to load what is code.
            ConfigError: a field of the config cannot be used.
        """
        import torch
        from torch.export.passes import move_to_device_pass

        opts = options(config, cls.Options)
        device = device_of(load_backend)
        require_device(device)
        path = cls.file(config)
        require_allowed(config, path, opts.allow_pickle, "loading a .pt2 file runs code in it")
        try:
            program = torch.export.load(path)
        except (RuntimeError, *BROKEN) as error:
            explain(path, error)
            raise
        if any(str(one.device) != device for one in _held(program)):
            program = move_to_device_pass(program, device)
        check_devices(device, _held(program))
        loaded = cls(program.module(), path.stat().st_size, device, opts)
        loaded.program = program
        return loaded

    def warmup(self) -> None:
        """Run it once on the inputs that it was exported with, where they are in the file."""
        import torch

        if self.program.example_inputs is None:
            return
        arguments, named = self.program.example_inputs
        with first_run(), torch.inference_mode():  # saved without their data, perhaps
            self.model(*arguments, **named)

    def release(self) -> None:
        """Drop the program."""
        self.program = Released()
        super().release()


def _filled(factory: Callable[[], Any], weights: Any, device: str) -> Any:
    """Return the module of a factory with these weights, which are not copied."""
    # Made in full, although its weights are replaced at once. On the device meta it could not look
    # at values, as many networks do, and tensors that are neither weights nor buffers stay there.
    model = factory()
    model.load_state_dict(weights, assign=True)
    return model.to(device).eval()


def _held(program: Any) -> Iterator[Any]:
    """Yield the tensors of an exported program; its constants are some of them."""
    yield from _tensors([program.state_dict, program.constants])


def _tensors(found: Any) -> Iterator[Any]:
    """Yield the tensors in what was loaded: a checkpoint may be a dict of state dicts."""
    import torch

    if isinstance(found, torch.Tensor):
        yield found
    elif isinstance(found, dict):
        for one in found.values():
            yield from _tensors(one)
    elif isinstance(found, list | tuple):
        for one in found:
            yield from _tensors(one)


def register(registry: Registry) -> None:
    """Add the module, for the processor and for a card."""
    register_for_card(registry, "torch", TorchModel)
