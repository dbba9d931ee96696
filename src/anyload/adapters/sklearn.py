"""The module ``sklearn``: an estimator of scikit-learn, saved with skops or joblib."""

from __future__ import annotations

import bz2
import hashlib
import io
import lzma
import os
import pickle
import re
import struct
import sys
import weakref
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from types import MappingProxyType
from typing import IO, Any, Self

from .. import report_warning
from ..errors import ConfigError, IntegrityError, Problem, UnsafePickleError
from ..model_config import ModelConfig
from ..registry import Registry
from ._framework import Released, one_file, one_line, options, require, weight_files
from ._memory import TrimOptions, give_back_memory

CHUNK = 1 << 20
LOOKED_THROUGH = 256 * CHUNK
"""How far into a file its version is looked for; it stands with the first estimator."""

# Each has the text's length, where that stands before it, and the text.
VERSION_IN_SKOPS = re.compile(
    rb'"_sklearn_version":\s*\{[^{}]{,300}?"content":\s*"\\"()([\w.+-]{1,40})\\""'
)
VERSION_IN_PICKLE = re.compile(
    rb"_sklearn_version(?:\x94|q.|r.{4})?(?:\x8c|X(?=.\0\0\0))(.)(?:\0\0\0)?([\w.+-]{1,40})",
    re.DOTALL,
)

DECOMPRESSORS = MappingProxyType(
    {
        b"\x1f\x8b": lambda: zlib.decompressobj(wbits=47),
        b"\x78": lambda: zlib.decompressobj(wbits=47),
        b"BZ": bz2.BZ2Decompressor,
        b"\xfd7zXZ": lzma.LZMADecompressor,
        b"\x5d\x00": lzma.LZMADecompressor,
    }
)
"""What undoes joblib's compression, by how the file begins."""


class SklearnModel:
    """An estimator of scikit-learn.

    Attributes:
        estimator: the estimator; `predict` is a short way to it.
        device: where it runs.
    """

    class Options(TrimOptions):
        """The fields of a model config, beside ``trim_memory``.

        What is in a ``.skops`` file is made only of types that skops knows as safe, and of those
        in ``trusted``. A ``.joblib`` file is a pickle: to load it is to run it. It is loaded only
        where ``allow_pickle`` is true and its content is the one that ``sha256`` names. None of
        these three counts where only the model's own config.yml says it.

        Args:
            trusted: types that a ``.skops`` file may hold beside the safe ones, by full name.
            allow_pickle: whether a ``.joblib`` file may be loaded.
            sha256: the file's checksum, in hexadecimal; it is checked for ``.skops`` too.
            mmap: whether the arrays of an uncompressed ``.joblib`` file stay in the file and are
                read when they are used; each of them keeps the file open. On Linux the checksum
                is of that same open file, so that another one in its place is never loaded; but
                whoever writes into it later, in place, changes the model, and ends the process if
                the file gets shorter. Without it the file is read once into memory, and what is
                checked is what is loaded.
        """

        trusted: list[str] = []
        allow_pickle: bool = False
        sha256: str | None = None
        mmap: bool = False

    device = "cpu"

    weight_files = weight_files((".skops", ".joblib"))

    def __init__(self, estimator: Any, size: int, opts: Options) -> None:
        self.estimator = estimator
        self._size = size
        self._options = opts
        self._mapped: weakref.finalize[..., SklearnModel] | None = None

    @classmethod
    def prepare(cls) -> None:
        """Import scikit-learn, skops and joblib."""
        require("sklearn", "skops.io", "joblib", extra="scikit-learn")

    @classmethod
    def load(cls, config: ModelConfig) -> Self:
        """Load a ``.skops`` or ``.joblib`` file, or the one in a directory.

        Another version of scikit-learn than the one that saved it is a warning in the report.

        Raises:
            UnsafePickleError: the file needs an allowance that it has not.
            IntegrityError: the file has another checksum, or is not a model.
            ConfigError: a field of the config cannot be used.
        """
        opts = options(config, cls.Options)
        path = one_file(config, (".skops", ".joblib"))
        if path.suffix == ".skops":
            return cls._load_skops(path, opts, config)
        if path.suffix == ".joblib":
            return cls._load_joblib(path, opts, config)
        raise IntegrityError(str(path), "expected a file that ends in .skops or .joblib")

    @classmethod
    def _load_skops(cls, path: Path, opts: Options, config: ModelConfig) -> Self:
        import skops.io
        from skops.io.exceptions import UntrustedTypesFoundException

        if opts.mmap:
            raise ConfigError(str(config), [Problem("mmap", "a .skops file cannot be mapped")])
        with path.open("rb") as file:
            _check_sum(file, path, opts)
            try:
                with zipfile.ZipFile(file) as members, members.open("schema.json") as schema:
                    size = sum(member.file_size for member in members.infolist())
                    _report_version(schema, VERSION_IN_SKOPS)
                trusted = opts.trusted if config.from_operator else []
                estimator = skops.io.load(file, trusted=trusted)
            except UntrustedTypesFoundException as error:
                how = "put those that you trust into 'trusted'"
                if not config.from_operator:
                    how += " in the catalogue; the model's own config.yml cannot say it"
                raise UnsafePickleError(str(path), f"{one_line(error)} {how}") from error
            except (zipfile.BadZipFile, zlib.error, EOFError) as error:
                raise IntegrityError(str(path), one_line(error)) from error
            except KeyError as error:
                if "in the archive" not in str(error):
                    raise
                raise IntegrityError(str(path), one_line(error)) from error
        return cls(estimator, size, opts)

    @classmethod
    def _load_joblib(cls, path: Path, opts: Options, config: ModelConfig) -> Self:
        import joblib

        if not config.from_operator:
            how = "a model's own config.yml cannot allow it; put allow_pickle: true and sha256"
            raise _refusal(path, f"{how} into the catalogue")
        if not opts.allow_pickle:
            raise _refusal(path, "where you trust it, allow_pickle: true and its sha256 allow it")
        if opts.sha256 is None:
            raise _refusal(path, "allow_pickle needs its sha256 too")
        with path.open("rb") as opened:
            if opts.mmap and opened.read(8).startswith(tuple(DECOMPRESSORS)):
                what = "a compressed file cannot be mapped"
                raise ConfigError(str(config), [Problem("mmap", what)])
            opened.seek(0)
            file: IO[bytes] = opened if opts.mmap else io.BytesIO(opened.read())
            _check_sum(file, path, opts)
            _report_version(file, VERSION_IN_PICKLE)
            model = cls(None, path.stat().st_size, opts)
            try:
                if opts.mmap:
                    name, model._mapped = _lasting_name(opened.fileno(), path, model)
                    model.estimator = joblib.load(name, mmap_mode="r")
                else:
                    model.estimator = joblib.load(file)
            except (
                EOFError,
                IndexError,
                ValueError,
                pickle.UnpicklingError,
                struct.error,
            ) as error:
                if isinstance(error, ValueError) and not str(error).startswith("EOF"):
                    raise
                what = f"this is no joblib file, or not all of one: {one_line(error)}"
                raise IntegrityError(str(path), what) from error
        return model

    def predict(self, rows: Any) -> Any:
        """Return the predictions for an array of rows."""
        return self.estimator.predict(rows)

    def memory_bytes(self) -> int:
        """Return the size of the file, or of what is in its archive: what it holds at least."""
        return self._size

    def release(self) -> None:
        """Drop the estimator; what came in small pieces goes back only with a trim."""
        self.estimator = Released()
        if self._mapped is not None:
            self._mapped()
        if self._options.trim_memory:
            give_back_memory()


def _refusal(path: Path, how: str) -> UnsafePickleError:
    return UnsafePickleError(str(path), f"a .joblib file is a pickle, which is code; {how}")


def _check_sum(file: IO[bytes], path: Path, opts: SklearnModel.Options) -> None:
    """Raise unless a file has the checksum that it should have, where one is named."""
    if opts.sha256 is None:
        return
    got = hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]
    file.seek(0)
    if got != opts.sha256.lower():
        raise IntegrityError(str(path), f"its sha256 is {got}, expected {opts.sha256}")


def _lasting_name(
    descriptor: int, path: Path, model: SklearnModel
) -> tuple[str, weakref.finalize[..., SklearnModel] | None]:
    """Return a name of an open file that stays its name while the model lives, and what ends it.

    joblib opens it by name, once for the pickle and once for each array, and another process does
    so when it is sent such an array. On Linux this name is that of the file that was checked,
    whatever its path means by then.
    """
    if sys.platform != "linux":
        return str(path), None
    kept = os.dup(descriptor)
    return f"/proc/{os.getpid()}/fd/{kept}", weakref.finalize(model, os.close, kept)


def _report_version(file: IO[bytes], pattern: re.Pattern[bytes]) -> None:
    """Report the version that a file was saved with, if it is another one and can be found.

    scikit-learn itself only warns, and catching a warning would change all threads' filters.
    """
    from sklearn import __version__

    end = b""
    for chunk in _chunks(file):
        end += chunk
        found = pattern.search(end)
        if found:
            length = found[1][0] if found[1] else len(found[2])
            if len(found[2]) >= length:  # else the rest is in the next chunk
                saved = found[2][:length].decode()
                if saved != __version__:
                    report_warning(f"saved with scikit-learn {saved}, loaded with {__version__}")
                break
        end = end[-1000:]
    file.seek(0)


def _chunks(file: IO[bytes]) -> Iterator[bytes]:
    """Yield the first part of a file, decompressed if the standard library can do that."""
    raw = file.read(CHUNK)
    begins = (make for magic, make in DECOMPRESSORS.items() if raw.startswith(magic))
    decompressor: Any = next(begins, lambda: None)()
    seen = 0
    while raw and seen < LOOKED_THROUGH:
        try:
            chunk = decompressor.decompress(raw) if decompressor else raw
        except (OSError, EOFError, zlib.error, lzma.LZMAError):  # joblib will say what is wrong
            return
        yield chunk
        seen += len(chunk)
        raw = file.read(CHUNK)


def register(registry: Registry) -> None:
    """Add the module."""
    registry.module("sklearn")(SklearnModel)
