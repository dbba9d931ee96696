"""The module ``transformers``: a model and its tokenizer, from a directory."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

from .. import report_warning
from ..config import BackendConfig
from ..contracts import Backend
from ..errors import ConfigError, IntegrityError, Problem
from ..guard import ProcessGlobal
from ..model_config import ModelConfig
from ..registry import Registry
from ._directories import (
    check_adapters,
    check_index,
    check_no_code,
    naming_broken_files,
    pickle_allowed,
    read_json,
    require_allowed,
    require_vocabulary,
)
from ._first_run import first_run
from ._framework import Released, device_of, options, register_for_card, weight_files
from ._hub import nothing_fetched
from ._torch import (
    GROUP,
    TORCH_GLOBALS,
    Dtype,
    check_devices,
    emptying_card,
    give_back_card,
    import_transformers,
    require_device,
)

TOKENIZER_FILES = (
    *("tokenizer.json", "tokenizer_config.json", "vocab.txt", "vocab.json"),
    *("tokenizer.model", "spiece.model", "sentencepiece.bpe.model"),
)

# What model_options must not say, and why.
REFUSED: tuple[tuple[tuple[str, ...], str], ...] = (
    (("trust_remote_code",), "runs code that comes with the model; anyload never does"),
    (("use_kernels", "kernel_config"), "loads code from the Hub; anyload never does"),
    (("local_files_only", "token"), "local files are all that anyload loads"),
    (("subfolder", "config", "cache_dir"), "model_path says where the model is"),
    (("use_safetensors", "weights_only", "gguf_file"), "see the field allow_pickle"),
    (
        ("device_map", "tp_plan", "tp_size", "device_mesh", "offload_folder"),
        "the backend says on which device",
    ),
    (("dtype", "torch_dtype"), "use the field dtype"),
    (("adapter_kwargs",), "model_path says where the weights are"),
    (("output_loading_info",), "anyload asks for it, and reports what is missing"),
)


class TransformersModel:
    """A model of transformers.

    Attributes:
        model: the ``PreTrainedModel``, ready for inference.
        processor: what makes its inputs: a tokenizer, a processor, or None.
        device: where it is.
    """

    exclusive_group: ClassVar[str] = GROUP
    process_globals: ClassVar[tuple[ProcessGlobal, ...]] = TORCH_GLOBALS

    class Options(BackendConfig):
        """The fields of a model config.

        Args:
            auto_class: the class of transformers that loads it, such as
                ``AutoModelForSequenceClassification``.
            processor: what to load beside it; ``auto`` loads a tokenizer where there is one.
            dtype: the type of its weights; by default what transformers chooses.
            attention: its ``attn_implementation``, such as ``eager`` or ``sdpa``.
            allow_pickle: whether weights in pickled files, ``.bin``, are taken too. They are read
                with ``weights_only``, which is less than a pickle can do and more than
                safetensors can.
            model_options: further arguments of ``from_pretrained``; not in a model's own
                config.yml.
        """

        auto_class: str = "AutoModel"
        processor: Literal["auto", "tokenizer", "processor", "none"] = "auto"
        dtype: Dtype | None = None
        attention: str | None = None
        allow_pickle: bool = False
        model_options: dict[str, Any] = {}

    weight_files = weight_files((".safetensors",), (".bin", ".pt"))

    def __init__(self, model: Any, processor: Any, device: str) -> None:
        self.model = model
        self.processor = processor
        self.device = device

    @classmethod
    def prepare(cls) -> None:
        """Import transformers."""
        import_transformers("transformers")

    @classmethod
    @emptying_card
    def load(cls, config: ModelConfig, load_backend: Backend) -> Self:
        """Load a directory as ``save_pretrained`` writes it.

        Weights that are not in the files, and so are random, are a warning in the report.

        Raises:
            WrongDeviceError: torch has no such device.
            IntegrityError: the directory is none of transformers, or a file in it is broken.
            UnsafePickleError: its weights are pickled, and that is not allowed, or a file in it
                asks for code to be run.
            ConfigError: a field of the config cannot be used.
        """
        opts = options(config, cls.Options)
        device = device_of(load_backend)
        require_device(device)
        allowed = pickle_allowed(config, opts.allow_pickle)
        directory = _directory(config)
        auto_class = _auto_class(config, opts)
        arguments: dict[str, Any] = dict(opts.model_options)
        if opts.dtype is not None:
            arguments["dtype"] = opts.dtype
        if opts.attention is not None:
            arguments["attn_implementation"] = opts.attention
        check_no_code(directory)
        _check_weights(config, opts, directory)
        check_adapters(config, directory, opts.allow_pickle)
        with nothing_fetched(directory), naming_broken_files(directory):
            # On the processor first: transformers itself can only load elsewhere with accelerate.
            model, info = auto_class.from_pretrained(
                str(directory),
                local_files_only=True,
                trust_remote_code=False,
                use_safetensors=None if allowed else True,
                output_loading_info=True,
                **arguments,
            )
            processor = _processor(directory, opts.processor)
        # A processor is of several parts.
        require_vocabulary(getattr(processor, "tokenizer", processor), directory)
        _report(info)
        model = model.eval().to(device)
        check_devices(device, model.parameters())
        return cls(model, processor, str(model.device))

    def warmup(self) -> None:
        """Run it once on a word: the first run reads the weights from disk.

        A model whose inputs are not tokens is left alone: what would be a valid input for it is
        not to be guessed.
        """
        import torch
        import transformers

        if self.model.main_input_name != "input_ids":
            return
        with first_run(), torch.inference_mode():
            if isinstance(self.processor, transformers.PreTrainedTokenizerBase):
                tokens = self.processor("a", return_tensors="pt")
                names = [name for name in ("input_ids", "attention_mask") if name in tokens]
                inputs = {name: tokens[name].to(self.device) for name in names}
            else:
                inputs = {"input_ids": torch.zeros((1, 1), dtype=torch.int64, device=self.device)}
            if self.model.config.is_encoder_decoder:
                inputs["decoder_input_ids"] = inputs["input_ids"]
            self.model(**inputs)

    def memory_bytes(self) -> int:
        """Return the size of its weights and buffers."""
        return int(self.model.get_memory_footprint())

    def release(self) -> None:
        """Drop the model; its weights are pages of the file, which the system takes back."""
        self.model = self.processor = Released()
        give_back_card(self.device)


def _directory(config: ModelConfig) -> Path:
    """Return the model's directory, if it is one that could be loaded."""
    directory = Path(config)
    if not directory.is_dir():
        # transformers would take the path for a name on the Hub, and say that it is no valid one.
        raise IntegrityError(
            str(directory), "it is a file; expected a directory with a config.json"
        )
    if not (directory / "config.json").is_file():
        raise IntegrityError(str(directory), "there is no config.json in it")
    return directory


def _check_weights(config: ModelConfig, opts: TransformersModel.Options, directory: Path) -> None:
    """Raise unless the weights are there, and are safetensors or allowed to be pickled.

    Raises:
        IntegrityError: they are missing, or elsewhere.
        UnsafePickleError: they are pickled, and that is not allowed.
    """
    variant = opts.model_options.get("variant")
    more = f".{variant}" if variant else ""
    names = [f"model{more}.safetensors", f"model.safetensors.index{more}.json"]
    settings = read_json(directory / "config.json")
    named = settings.get("transformers_weights") if isinstance(settings, dict) else None
    if named is not None:  # then it is this file, whatever else there is
        if not isinstance(named, str) or "/" in named or "\\" in named:
            what = f"its transformers_weights is {named!r}, which is no file's name"
            raise IntegrityError(str(directory / "config.json"), what)
        names = [named]
    found = next((path for name in names if (path := directory / name).is_file()), None)
    if found is None:
        pickled = sorted([*directory.glob("*.bin"), *directory.glob("*.pt")])
        if not pickled:
            what = f"there are no weights in it, no {' or '.join(names)}"
            raise IntegrityError(str(directory), what)
        require_allowed(config, pickled[0], opts.allow_pickle, "the weights are pickled")
        for index in sorted(directory.glob("pytorch_model.bin.index*.json")):
            check_index(config, index, opts.allow_pickle)
    elif found.suffix == ".json":
        check_index(config, found, opts.allow_pickle)
    elif found.suffix != ".safetensors":
        require_allowed(config, found, opts.allow_pickle, "the weights are pickled")


def _auto_class(config: ModelConfig, opts: TransformersModel.Options) -> Any:
    """Return the class that loads the model, after a look at what it is to be given."""
    import transformers

    found = getattr(transformers, opts.auto_class, None)
    problems = [
        Problem(f"model_options.{name}", f"not allowed here: {why}")
        for names, why in REFUSED
        for name in names
        if name in opts.model_options
    ]
    if opts.model_options and not config.from_operator:
        what = "not allowed in a model's own config.yml; put it into the catalogue"
        problems.append(Problem("model_options", what))
    problems += [
        Problem(f"model_options.{name}", "not allowed here: use the field attention")
        for name in opts.model_options
        if "attn_implementation" in name
    ]
    if re.search(r"[/\\]", str(opts.model_options.get("variant"))):
        problems.append(Problem("model_options.variant", "it is a part of a file's name"))
    if opts.attention is not None and "/" in opts.attention:
        problems.append(Problem("attention", "a kernel from the Hub is code; anyload loads none"))
    # Not any class with a from_pretrained: some load pickles, or fetch what they need.
    if not opts.auto_class.startswith("AutoModel") and not (
        isinstance(found, type) and issubclass(found, transformers.PreTrainedModel)
    ):
        found = None
    if not hasattr(found, "from_pretrained"):
        what = f"transformers has no model class {opts.auto_class!r}; the default is 'AutoModel'"
        problems.append(Problem("auto_class", what))
    if problems:
        raise ConfigError(str(config), problems)
    return found


def _processor(directory: Path, kind: str) -> Any:
    """Return the tokenizer or processor beside a model, or None."""
    import transformers

    if kind == "auto":
        here = any((directory / name).is_file() for name in TOKENIZER_FILES)
        kind = "tokenizer" if here else "none"
    if kind == "none":
        return None
    loads = transformers.AutoTokenizer if kind == "tokenizer" else transformers.AutoProcessor
    return loads.from_pretrained(str(directory), local_files_only=True, trust_remote_code=False)


def _report(info: dict[str, Any]) -> None:
    """Put weights that are not those of the files into the report: they are random."""
    for kind, what in (
        ("missing_keys", "are not in the files"),
        ("mismatched_keys", "have another shape in the files"),
    ):
        found = sorted(one if isinstance(one, str) else one[0] for one in info.get(kind) or ())
        if found:
            more = f" and {len(found) - 3} more" if len(found) > 3 else ""
            names = f"{', '.join(found[:3])}{more}"
            report_warning(f"{len(found)} weights {what}, and were made at random: {names}")


def register(registry: Registry) -> None:
    """Add the module, for the processor and for a card."""
    register_for_card(registry, "transformers", TransformersModel)
