"""The module ``lightgbm``: boosted trees in LightGBM's text format."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Self

from ..errors import IntegrityError
from ..model_config import ModelConfig
from ..registry import Registry
from ._framework import Released, one_file, one_line, options, require, weight_files
from ._memory import TrimOptions, give_back_memory

BEGINNING = b"tree"
LANDMARKS = (b"\nend of trees", b"\nparameters:", b"\nend of parameters")
"""What a whole file has, in this order."""

SIZES = re.compile(rb"\ntree_sizes=([\d ]*)\n")
NUMBERS = b"0123456789+-.e naif"  # nan and inf too
OF_SPLITS = (b"split_feature", b"threshold", b"decision_type", b"left_child", b"right_child")
OF_LEAVES = (b"leaf_value",)
"""What a tree cannot do without: a number for each of its splits, or of its leaves."""


class LightgbmModel:
    """A booster of LightGBM; it predicts on the processor, whatever it was trained on.

    Attributes:
        booster: the ``Booster``; `predict` is a short way to it.
        device: where it runs.
    """

    class Options(TrimOptions):
        """The fields of a model config: ``trim_memory``."""

    device = "cpu"

    weight_files = weight_files((".txt",))

    def __init__(self, booster: Any, path: Path, opts: Options) -> None:
        self.booster = booster
        self._path = path
        self._options = opts

    @classmethod
    def prepare(cls) -> None:
        """Import lightgbm."""
        require("lightgbm", extra="lightgbm")

    @classmethod
    def load(cls, config: ModelConfig) -> Self:
        """Load a ``.txt`` file, or the one in a directory.

        Raises:
            IntegrityError: the file is not a model, or not all of one.
            ConfigError: a field of the config cannot be used.
        """
        import lightgbm

        opts = options(config, cls.Options)
        path = one_file(config, (".txt",))
        _check_whole(path)
        try:
            booster = lightgbm.Booster(model_file=path)
        except (lightgbm.basic.LightGBMError, UnicodeDecodeError) as error:
            raise IntegrityError(str(path), one_line(error)) from error
        return cls(booster, path, opts)

    def predict(self, rows: Any) -> Any:
        """Return the predictions for an array of rows."""
        return self.booster.predict(rows)

    def memory_bytes(self) -> int:
        """Return the size of the file: about what it holds."""
        return self._path.stat().st_size

    def release(self) -> None:
        """Drop the booster; its trees are small pieces, which only a trim gives back."""
        self.booster = Released()
        if self._options.trim_memory:
            give_back_memory()


def _check_whole(path: Path) -> None:
    """Raise unless a file has everything that LightGBM writes, to its end.

    LightGBM reads the trees of a damaged file in several threads, where an error ends the process;
    or it takes what is there without a word. A number that is another number is not to be seen.
    """
    content = path.read_bytes()
    if not content.startswith(BEGINNING):
        what = f"this is no LightGBM model in text: it begins {content[:8]!r}"
        raise IntegrityError(str(path), what)
    place = 0
    for landmark in LANDMARKS:
        place = content.find(landmark, place)
        if place < 0:
            what = f"the file is cut short: {landmark.decode().strip()!r} is missing"
            raise IntegrityError(str(path), what)
    sizes = SIZES.search(content)
    place = content.find(b"\nTree=0\n") + 1
    for number, size in enumerate(sizes[1].split() if sizes else ()):
        end = place + int(size)
        if not _is_tree(content[place:end], number):
            raise IntegrityError(str(path), f"its tree {number} is damaged")
        place = end


def _is_tree(text: bytes, number: int) -> bool:
    """Return whether a text is one tree: numbers by name, as many as its leaves want."""
    first, *lines = text.rstrip().split(b"\n")
    fields = dict(line.partition(b"=")[::2] for line in lines)
    if first != b"Tree=%d" % number or any(one.translate(None, NUMBERS) for one in fields.values()):
        return False
    leaves = fields.get(b"num_leaves", b"")
    if not leaves.isdigit():
        return False
    wanted = int(leaves)
    if wanted == 1:  # nothing is split, and what is not needed is not written
        return True
    return all(
        len(fields.get(name, b"").split()) == count
        for names, count in ((OF_SPLITS, wanted - 1), (OF_LEAVES, wanted))
        for name in names
    )


def register(registry: Registry) -> None:
    """Add the module."""
    registry.module("lightgbm")(LightgbmModel)
