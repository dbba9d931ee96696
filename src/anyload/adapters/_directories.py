"""What directories of transformers and its kin may say, looked at before they lead a framework."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from ..errors import AnyloadError, IntegrityError, UnsafePickleError
from ..model_config import ModelConfig
from ._framework import one_line

# The JSON files that transformers and sentence-transformers read.
_READ = (
    *("config.json", "generation_config.json", "*.index.json", "tokenizer*.json"),
    *("special_tokens_map.json", "modules.json", "config_sentence_transformers.json"),
    *("sentence_bert_config.json", "preprocessor_config.json", "processor_config.json"),
)
# Keys with which a file of the model asks for code, wherever in it they are.
_CODE_KEYS = ("trust_remote_code", "use_kernels", "kernel_config")
_VOCABULARIES = ("tokenizer.json", "vocab.json")
# What a tokenizer of any kind is made of too: of other versions, and of other libraries.
_ANY_VOCABULARY = ("tokenizer*.json", "tokenizer.model*", "tekken.json", "tiktoken.model")


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


def pairs_in(content: Any) -> Iterator[tuple[str, Any]]:
    """Yield the keys of a JSON document with their values, at any depth.

    What is in a list goes by the key of the list.
    """
    todo = [("", content)]
    while todo:
        key, value = todo.pop()
        if isinstance(value, dict):
            yield from value.items()
            todo += value.items()
        elif isinstance(value, list):
            yield from ((key, item) for item in value)
            todo += [(key, item) for item in value]


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
    for key, value in pairs_in(content):
        kernel = "_implementation" in key and "/" in json.dumps(value)
        whole = key == "weights_only" and value is False
        if (key in _CODE_KEYS and value) or kernel or whole:
            return key
    return None


def require_vocabulary(tokenizer: Any, directory: Path) -> None:
    """Raise for a tokenizer of transformers without a vocabulary, if its kind has one.

    Where there is none the framework makes one up, of the special tokens, and says nothing. Kinds
    that compute it from the text, such as ByT5's, name no files.

    Args:
        tokenizer: any; what names no files, or is none of transformers, is fine.
        directory: what it was loaded from.

    Raises:
        IntegrityError: none of the files that could have it is there.
    """
    kinds = getattr(type(tokenizer), "vocab_files_names", None) or {}
    # The others say how to cut words up, or are settings.
    wanted = {name for kind, name in kinds.items() if "vocab" in kind or kind == "tokenizer_file"}
    known = (*wanted, *_ANY_VOCABULARY)
    here = {file.name for file in directory.iterdir() if file.is_file()} - {"tokenizer_config.json"}
    if wanted and not any(fnmatch(name, one) for name in here for one in known):
        what = f"there is no vocabulary for its {type(tokenizer).__name__}"
        names = " or ".join(sorted({*wanted, "tokenizer.json"}))
        raise IntegrityError(str(directory), f"{what}, no {names}")


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
