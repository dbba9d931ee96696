"""What the adapters of the torch family share: group, globals, devices, types, broken files."""

from __future__ import annotations

import gc
import json
import os
import re
import struct
import sys
import zipfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from fnmatch import fnmatch
from functools import wraps
from json import JSONDecodeError
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, Literal, ParamSpec, TypeAlias, TypeVar

from .._load.stacks import forget_frames
from ..errors import AnyloadError, IntegrityError, UnsafePickleError, WrongDeviceError
from ..guard import ProcessGlobal, attribute
from ..model_config import ModelConfig
from ._framework import check_device, one_line, require

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

# The JSON files that transformers and sentence-transformers read.
_READ = (
    *("config.json", "generation_config.json", "*.index.json", "tokenizer*.json"),
    *("special_tokens_map.json", "modules.json", "config_sentence_transformers.json"),
    *("sentence_bert_config.json", "preprocessor_config.json", "processor_config.json"),
)
# Keys with which a file of the model asks for code, wherever in it they are.
_CODE_KEYS = ("trust_remote_code", "use_kernels", "kernel_config")
_VOCABULARIES = ("tokenizer.json", "vocab.json")

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


def pickle_allowed(config: ModelConfig, allowed: bool) -> bool:
    """Return whether pickled weights may be read: what a model's own config.yml says is nothing."""
    return allowed and config.from_operator


def read_json(path: Path) -> Any:
    """Return what is in a JSON file of a model.

    Raises:
        IntegrityError: it is broken.
    """
    try:
        return json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        reason = "the file is empty" if path.stat().st_size == 0 else one_line(error)
        raise IntegrityError(str(path), reason) from error


def check_index(config: ModelConfig, path: Path, allowed: bool) -> None:
    """Raise unless an index of weights names files beside it, and they are there.

    Raises:
        IntegrityError: it names a file that is elsewhere or missing, or is of a wrong shape.
        UnsafePickleError: it names a pickle, and that is not allowed.
    """
    index = read_json(path)
    places = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(places, dict) or not all(isinstance(one, str) for one in places.values()):
        raise IntegrityError(str(path), "it is no index of weights; it has no weight_map of names")
    for name in sorted(set(places.values())):
        if "/" in name or "\\" in name or name in ("", ".", ".."):
            raise IntegrityError(str(path), f"it names {name!r}, which leaves the directory")
        if not name.endswith(".safetensors"):
            require_allowed(config, path, allowed, f"it names {name}, and such weights are pickled")
        if not (path.parent / name).is_file():
            raise IntegrityError(str(path.parent / name), f"it is missing; {path.name} names it")


def files_in(directory: Path, *names: str) -> list[Path]:
    """Return the files below a directory with such names, patterns of them, wherever in it.

    Files may be links to anywhere, as they are in the cache of the Hub. A folder may not: what is
    looked through here must be all that a framework can be led to.

    Raises:
        IntegrityError: a folder is a link that leaves the directory.
    """
    whole, found = directory.resolve(), list[Path]()
    for place, folders, files in os.walk(directory):
        for folder in (Path(place, name) for name in folders):
            if not folder.resolve().is_relative_to(whole):
                what = "it is a link that leaves the model's directory; put the folder itself there"
                raise IntegrityError(str(folder), what)
        found += [Path(place, name) for name in files if any(fnmatch(name, one) for one in names)]
    return sorted(one for one in found if one.is_file())


def check_adapters(config: ModelConfig, directory: Path, allowed: bool) -> None:
    """Raise unless the adapters of peft in a directory are for the model that is in there too.

    The frameworks load the model that such an adapter names from wherever that is. And they take
    its weights from a pickle where there are no safetensors, whatever they are asked for.

    Raises:
        IntegrityError: one is for a model that is elsewhere.
        UnsafePickleError: the weights of one are pickled, and that is not allowed.
    """
    for path in files_in(directory, "adapter_config.json"):
        settings = read_json(path)
        base = settings.get("base_model_name_or_path") if isinstance(settings, dict) else None
        # A relative path is one of the process, or a name on the Hub.
        inside = isinstance(base, str) and Path(base).is_absolute()
        if base is not None and not (
            inside and Path(base).resolve().is_relative_to(directory.resolve())
        ):
            what = f"its base_model_name_or_path is {base!r}, which is not in this directory"
            how = "save the model with the adapter merged into it: merge_and_unload() of peft"
            raise IntegrityError(str(path), f"{what}; {how}")
        pickled = path.with_name("adapter_model.bin")
        if pickled.is_file() and not path.with_name("adapter_model.safetensors").is_file():
            require_allowed(config, pickled, allowed, "the weights are pickled")


def check_no_code(directory: Path) -> None:
    """Raise if a JSON file in a directory has the framework run code that is not the framework's.

    Some model classes of transformers take what a nested config says for what the caller says.

    Raises:
        UnsafePickleError: there is such a file.
    """
    words = (*(key.encode() for key in _CODE_KEYS), b"_implementation", b"weights_only", b"\\u")
    for path in files_in(directory, "*.json"):
        if path.name in _VOCABULARIES:
            continue
        raw = path.read_bytes()
        if not any(word in raw for word in words):  # most are, and some are large
            continue
        try:
            content = json.loads(raw)
        except ValueError:  # no framework can read it either
            continue
        key = _code_key(content)
        if key is not None:
            raise UnsafePickleError(str(path), f"its {key} asks for code to be run; never allowed")


def _code_key(content: Any) -> str | None:
    """Return the first key, at any depth, that asks for code."""
    todo = [content]
    while todo:
        one = todo.pop()
        if isinstance(one, dict):
            for key, value in one.items():
                kernel = "_implementation" in key and "/" in json.dumps(value)
                whole = key == "weights_only" and value is False
                if (key in _CODE_KEYS and value) or kernel or whole:
                    return str(key)
        if isinstance(one, dict | list):
            todo += one.values() if isinstance(one, dict) else one
    return None


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
        for path in files_in(directory, *_READ, "*.safetensors"):
            reason = _broken(path)
            if reason is not None:
                raise IntegrityError(str(path), reason) from error
        raise


def _broken(path: Path) -> str | None:
    """Return what is wrong with a file of weights or of configuration, if that can be told."""
    try:
        if path.suffix == ".json":
            json.loads(path.read_bytes())
        else:
            import safetensors

            with safetensors.safe_open(path, "pt"):
                pass
    except Exception as error:
        return "the file is empty" if path.stat().st_size == 0 else one_line(error)
    return None


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
