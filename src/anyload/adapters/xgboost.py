"""The module ``xgboost``: boosted trees in XGBoost's own formats."""

from __future__ import annotations

import json
import re
from pathlib import Path
from types import MappingProxyType
from typing import Any, Self

from ..contracts import Backend
from ..errors import IntegrityError
from ..model_config import ModelConfig
from ..registry import Registry
from ._first_run import first_run
from ._framework import (
    Released,
    check_device,
    device_of,
    one_file,
    options,
    register_for_card,
    require,
    weight_files,
)
from ._memory import TrimOptions, give_back_memory

STARTS = MappingProxyType(
    {".ubj": re.compile(rb"\{[UIilL]"), ".json": re.compile(rb"\{\s*\"")},
)
"""How the content of a file begins, by its suffix: in UBJSON a type stands before a key's text."""

WHERE_IN_XGBOOST = re.compile(r"^\[[\d:]+\] \S+:\d+: (Check failed: )?")


class XgboostModel:
    """A booster of XGBoost.

    Attributes:
        booster: the ``Booster``; `predict` is a short way to it.
        device: where it runs.
    """

    class Options(TrimOptions):
        """The fields of a model config: ``trim_memory``."""

    weight_files = weight_files((".ubj", ".json"))

    def __init__(self, booster: Any, path: Path, device: str, opts: Options) -> None:
        self.booster = booster
        self.device = device
        self._path = path
        self._options = opts

    @classmethod
    def prepare(cls) -> None:
        """Import xgboost."""
        require("xgboost", extra="xgboost")

    @classmethod
    def load(cls, config: ModelConfig, load_backend: Backend) -> Self:
        """Load a ``.ubj`` or ``.json`` file, or the one in a directory.

        Raises:
            IntegrityError: the file is not a model, or not all of one.
            WrongDeviceError: XGBoost took another device, as it does where there is no card.
            ConfigError: a field of the config cannot be used.
        """
        import xgboost

        opts = options(config, cls.Options)
        path = one_file(config, STARTS)
        _check_ends(path)
        booster = xgboost.Booster()
        try:
            booster.load_model(path)
        except (xgboost.core.XGBoostError, UnicodeDecodeError) as error:
            raise IntegrityError(str(path), _plain(error)) from error
        asked = device_of(load_backend)
        booster.set_param({"device": asked})
        # Asking makes it choose; that it takes the processor it only warns of. The verbosity is
        # this thread's own.
        with xgboost.config_context(verbosity=0):
            took = json.loads(booster.save_config())["learner"]["generic_param"]["device"]
        check_device(asked, took)
        return cls(booster, path, took, opts)

    def predict(self, rows: Any) -> Any:
        """Return the predictions for an array of rows.

        Raises:
            ValueError: the rows have another number of features than the model.
        """
        import xgboost

        wanted = self.booster.num_features()
        given = xgboost.DMatrix(rows)
        # XGBoost would predict something.
        if given.num_col() != wanted:
            raise ValueError(f"expected rows of {wanted} features, got {given.num_col()}")
        return self.booster.predict(given)

    def warmup(self) -> None:
        """Predict one row of zeros: the first prediction starts the threads."""
        import numpy
        import xgboost

        zeros = numpy.zeros((1, self.booster.num_features()), numpy.float32)
        with first_run():
            self.booster.predict(xgboost.DMatrix(zeros), validate_features=False)

    def memory_bytes(self) -> int:
        """Return the size of the file: what it holds at least."""
        return self._path.stat().st_size

    def release(self) -> None:
        """Drop the booster; its trees are small pieces, which only a trim gives back."""
        self.booster = Released()
        if self._options.trim_memory:
            give_back_memory()


def _check_ends(path: Path) -> None:
    """Raise unless a file begins and ends as its suffix says.

    XGBoost reads past the end of a UBJSON file that was cut short, which can kill the process or
    never end. Where the cut happens to fall behind a brace it notices.
    """
    if path.suffix not in STARTS:
        raise IntegrityError(str(path), f"expected a file that ends in {' or '.join(STARTS)}")
    with path.open("rb") as file:
        first = file.read(64)
        file.seek(-min(64, path.stat().st_size), 2)
        last = file.read()
    if not STARTS[path.suffix].match(first):
        what = f"this is no XGBoost model in the format of {path.suffix}: it begins {first[:8]!r}"
        raise IntegrityError(str(path), what)
    if not (last.rstrip() if path.suffix == ".json" else last).endswith(b"}"):
        raise IntegrityError(str(path), "the file is cut short: its last brace is missing")


def _plain(error: Exception) -> str:
    """Return what XGBoost says, without where in its C++ code and the stack trace of that."""
    said = str(error).partition("Stack trace:")[0]
    return " ".join(WHERE_IN_XGBOOST.sub("", said.strip()).split())[:500]


def register(registry: Registry) -> None:
    """Add the module, for the processor and for a card."""
    register_for_card(registry, "xgboost", XgboostModel)
