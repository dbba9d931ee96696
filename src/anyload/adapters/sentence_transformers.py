"""The module ``sentence-transformers``: a model that makes vectors of sentences."""

from __future__ import annotations

import gc
import re
from itertools import chain
from pathlib import Path
from typing import Any, ClassVar, Self

from ..config import BackendConfig
from ..contracts import Backend
from ..errors import IntegrityError
from ..guard import ProcessGlobal
from ..model_config import ModelConfig
from ..registry import Registry
from ._directories import (
    check_adapters,
    check_index,
    check_no_code,
    files_in,
    naming_broken_files,
    pairs_in,
    pickle_allowed,
    read_json,
    require_allowed,
    require_vocabulary,
)
from ._first_run import first_run
from ._framework import Released, device_of, options, register_for_card, require, weight_files
from ._hub import nothing_fetched
from ._torch import (
    GROUP,
    TORCH_GLOBALS,
    Dtype,
    bytes_of,
    check_devices,
    emptying_card,
    give_back_card,
    import_transformers,
    require_device,
)


class SentenceTransformersModel:
    """A model of sentence-transformers.

    Attributes:
        model: the ``SentenceTransformer``; `encode` is a short way to it.
        device: where it is.
    """

    exclusive_group: ClassVar[str] = GROUP
    process_globals: ClassVar[tuple[ProcessGlobal, ...]] = TORCH_GLOBALS

    class Options(BackendConfig):
        """The fields of a model config.

        Args:
            dtype: the type of its weights; by default what transformers chooses.
            allow_pickle: whether weights in pickled files, ``.bin``, are taken too. They are read
                with ``weights_only``, which is less than a pickle can do and more than
                safetensors can.
        """

        dtype: Dtype | None = None
        allow_pickle: bool = False

    weight_files = weight_files((".safetensors",), (".bin", ".pt"))

    def __init__(self, model: Any, device: str) -> None:
        self.model = model
        self.device = device

    @classmethod
    def prepare(cls) -> None:
        """Import sentence-transformers."""
        import_transformers("sentence-transformers")
        require("sentence_transformers", extra="sentence-transformers")

    @classmethod
    @emptying_card
    def load(cls, config: ModelConfig, load_backend: Backend) -> Self:
        """Load a directory as ``SentenceTransformer.save`` writes it.

        Raises:
            WrongDeviceError: torch has no such device.
            IntegrityError: the directory is none of sentence-transformers, a file in it is
                broken, or it wants code of its own to be run.
            UnsafePickleError: its weights are pickled, and that is not allowed, or a file in it
                asks for code to be run.
            ConfigError: a field of the config cannot be used.
        """
        from sentence_transformers import SentenceTransformer

        opts = options(config, cls.Options)
        device = device_of(load_backend)
        require_device(device)
        allowed = pickle_allowed(config, opts.allow_pickle)
        directory = Path(config)
        model_options: dict[str, Any] = {} if allowed else {"use_safetensors": True}
        if opts.dtype is not None:
            model_options["dtype"] = opts.dtype
        _check_modules(directory)
        _check_settings(directory)
        check_no_code(directory)
        _check_weights(config, opts, directory)
        check_adapters(config, directory, opts.allow_pickle)
        with nothing_fetched(directory), naming_broken_files(directory):
            # Always with a device: without one it takes whatever card there is.
            model = SentenceTransformer(
                str(directory),
                device=device,
                local_files_only=True,
                trust_remote_code=False,
                model_kwargs=model_options,
            )
        for part in model:
            tokenizer = getattr(part, "tokenizer", None)
            require_vocabulary(tokenizer, Path(getattr(tokenizer, "name_or_path", directory)))
        model.eval()
        check_devices(device, model.parameters())
        return cls(model, str(model.device))

    def encode(self, sentences: Any, **arguments: Any) -> Any:
        """Return the vectors of these sentences, a numpy array with a row for each."""
        return self.model.encode(sentences, show_progress_bar=False, **arguments)

    def warmup(self) -> None:
        """Encode one word: the first run reads the weights from disk."""
        with first_run():  # it may be a model of something else than text
            self.encode(["a"])

    def memory_bytes(self) -> int:
        """Return the size of its weights and buffers."""
        return bytes_of(chain(self.model.parameters(), self.model.buffers()))

    def release(self) -> None:
        """Drop the model; its weights are pages of the file, which the system takes back."""
        self.model = Released()
        gc.collect()  # its parts refer to each other
        give_back_card(self.device)


def _check_modules(directory: Path) -> None:
    """Raise unless a directory says what the parts of its model are, and all are known ones.

    Without a modules.json sentence-transformers puts mean pooling on top of whatever is there: a
    download that was cut short would load, and give vectors that are wrong without a sign of it.

    Raises:
        IntegrityError: it does not.
    """
    listing = directory / "modules.json"
    if not listing.is_file():
        what = "there is no modules.json in it; the module transformers loads models without one"
        raise IntegrityError(str(directory), what)
    parts = read_json(listing)
    if not isinstance(parts, list) or not all(isinstance(part, dict) for part in parts):
        raise IntegrityError(str(listing), "it is no list of parts, each with a type and a path")
    for part in parts:
        _check_part(listing, part.get("type"), part.get("path"))
    # The latter is what the former was before.
    for path in files_in(directory, "router_config.json", "config.json"):
        router = read_json(path)
        types = router.get("types") if isinstance(router, dict) else None
        if isinstance(types, dict):
            for place, kind in types.items():
                _check_part(path, kind, place)
        elif path.name == "router_config.json":
            raise IntegrityError(str(path), "it has no types, one for each part")


def _check_part(listing: Path, kind: Any, place: Any) -> None:
    """Raise unless a part is one of the framework's classes, and below the directory.

    Before version 6 sentence-transformers runs code of a local directory without asking. The name
    of a module that it has imported itself, such as pickle, is not one of a class.

    Raises:
        IntegrityError: it is not.
    """
    if not isinstance(kind, str) or not isinstance(place, str):
        raise IntegrityError(str(listing), "one of its parts has no type or no path")
    if not re.fullmatch(r"sentence_transformers(\.\w+)*\.[A-Z]\w*", kind):
        what = f"its part {kind} is code that comes with the model; it is never run"
        raise IntegrityError(str(listing), what)
    if Path(place).is_absolute() or ".." in re.split(r"[/\\]", place):
        raise IntegrityError(str(listing), f"its part {place!r} leaves the directory")


def _check_settings(directory: Path) -> None:
    """Raise if the settings of a part lead to files elsewhere: a tokenizer, weights, a subfolder.

    Raises:
        IntegrityError: they do.
    """
    for path in files_in(directory, "sentence_*_config.json"):
        for key, value in pairs_in(read_json(path)):
            tokenizer = key == "tokenizer_name_or_path" and value is not None
            if tokenizer or (isinstance(value, str) and re.search(r"[/\\]", value)):
                raise IntegrityError(str(path), f"its {key} is {value!r}, which leads elsewhere")


def _check_weights(
    config: ModelConfig, opts: SentenceTransformersModel.Options, directory: Path
) -> None:
    """Raise unless all weights are safetensors, or allowed to be pickled.

    Raises:
        IntegrityError: weights are missing, or elsewhere.
        UnsafePickleError: some are pickled, and that is not allowed.
    """
    for index in files_in(directory, "*.safetensors.index*.json"):
        check_index(config, index, opts.allow_pickle)
    for pickled in files_in(directory, "pytorch_model*.bin", "pytorch_model.bin.index*.json"):
        beside = ["model.safetensors"]
        if pickled.name != "pytorch_model.bin":  # one of many, which only transformers reads
            beside.append("model.safetensors.index.json")
        if not any((pickled.parent / name).is_file() for name in beside):
            require_allowed(config, pickled, opts.allow_pickle, "the weights are pickled")
            if pickled.suffix == ".json":
                check_index(config, pickled, opts.allow_pickle)


def register(registry: Registry) -> None:
    """Add the module, for the processor and for a card."""
    register_for_card(registry, "sentence-transformers", SentenceTransformersModel)
