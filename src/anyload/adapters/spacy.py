"""The module ``spacy``: a pipeline that spaCy saved into a directory."""

from __future__ import annotations

import configparser
import json
import os
from pathlib import Path
from typing import Any, Self

from .. import report_warning
from ..errors import ConfigError, IntegrityError, Problem
from ..model_config import ModelConfig
from ..registry import Registry
from ._directories import pairs_in
from ._framework import Released, one_line, options, require, total_size, weight_files
from ._memory import TrimOptions, give_back_memory

NOT_THE_FILES = ("[E002]", "[E893]", "[E1042]")
"""spaCy's codes for a component or function that no installed package registers, and for options
that contradict each other."""

FOR_TRAINING = ("@readers", "@loggers", "@batchers", "@augmenters", "@datasets")
"""Registries whose functions a pipeline has no use for that is trained: they take paths."""

ELSEWHERE = ("spacy.copy_from_base_model.", "spacy.KBFromFile.")
"""Functions of other registries that load what is in another place."""


class SpacyModel:
    """A pipeline of spaCy, on the processor.

    Attributes:
        nlp: the ``Language``; `pipe` is a short way to it.
        device: where it runs.
    """

    class Options(TrimOptions):
        """The fields of a model config, beside ``trim_memory``; each name must be a component's.

        Args:
            disable: components that are loaded and do not run until they are enabled.
            exclude: components that are not loaded.
            enable: the only components that run; empty for all.
        """

        disable: list[str] = []
        exclude: list[str] = []
        enable: list[str] = []

    device = "cpu"

    weight_files = weight_files(("",))

    def __init__(self, nlp: Any, path: Path, opts: Options) -> None:
        self.nlp = nlp
        self._path = path
        self._options = opts

    @classmethod
    def prepare(cls) -> None:
        """Import spaCy."""
        require("spacy", extra="spacy")

    @classmethod
    def load(cls, config: ModelConfig) -> Self:
        """Load a pipeline directory; never a package of that name, nor another directory.

        Its components are made by functions that installed packages register with spaCy.

        Raises:
            IntegrityError: the directory is not a pipeline, a file of it is broken, or one of its
                components is to come from elsewhere.
            ConfigError: a field of the config cannot be used, or names no component.
        """
        import spacy

        opts = options(config, cls.Options)
        path = Path(os.fspath(config))
        meta, names = _description(path)
        _check_names(opts, names, str(config))
        _report_version(meta)
        chosen = {name: getattr(opts, name) for name in ("disable", "exclude", "enable")}
        try:
            # An empty `enable` would disable everything.
            nlp = spacy.load(path, **{name: given for name, given in chosen.items() if given})
        except (OSError, ValueError) as error:
            if str(error).startswith(NOT_THE_FILES):
                raise
            raise IntegrityError(str(path), one_line(error)) from error
        return cls(nlp, path, opts)

    def pipe(self, texts: Any) -> list[Any]:
        """Return the documents of these texts."""
        return list(self.nlp.pipe(texts))

    def memory_bytes(self) -> int:
        """Return the size of the directory's files: about what it holds."""
        return total_size(file for file in self._path.rglob("*") if file.is_file())

    def release(self) -> None:
        """Drop the pipeline, whose parts refer to each other, and its many small strings."""
        self.nlp = Released()
        if self._options.trim_memory:
            give_back_memory()


def _description(path: Path) -> tuple[dict[str, Any], list[str]]:
    """Return a pipeline's meta.json and the names of its components.

    Raises:
        IntegrityError: a file is missing, is none or is not what spaCy needs, or a component is
            to come from elsewhere: another directory, or a package that would be imported.
    """
    from spacy.util import load_config

    if not path.is_dir():
        raise IntegrityError(str(path), "a spaCy pipeline is a directory")
    for name in ("meta.json", "config.cfg"):
        if not (path / name).is_file():
            raise IntegrityError(str(path / name), "there is no such file")
    try:
        place = path / "meta.json"
        meta = json.loads(place.read_bytes())
        place = path / "config.cfg"
        config = load_config(place)
        names, components = config["nlp"]["pipeline"], config.get("components", {})
        whole = config.interpolate()
    except (OSError, ValueError, KeyError, TypeError, configparser.Error) as error:
        raise IntegrityError(str(place), one_line(error)) from error
    _check_meta(path / "meta.json", meta)
    _check_components(place, names, components)
    # What a load calls functions for; the others are for training.
    _check_functions(place, {section: whole.get(section) for section in ("nlp", "components")})
    return meta, names


def _check_meta(place: Path, meta: object) -> None:
    """Raise for a meta.json that spaCy would only stumble over."""
    if not isinstance(meta, dict):
        raise IntegrityError(str(place), "its document is not an object")
    for kind, what, keys in (
        (str, "a text", ("lang", "name", "version", "spacy_version")),
        (dict, "an object", ("vectors", "_sourced_vectors_hashes")),
    ):
        for key in keys:
            if key in meta and not isinstance(meta[key], kind):
                raise IntegrityError(str(place), f"its {key!r} is not {what}")


def _check_components(place: Path, names: object, components: object) -> None:
    """Raise for what is no list of components, and for a component that is loaded from elsewhere.

    Nothing is interpolated here: a section that stands for another one is not taken.
    """
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise IntegrityError(str(place), "its nlp.pipeline is not a list of names")
    if not isinstance(components, dict):
        raise IntegrityError(str(place), "its components are not a section")
    for name, fields in components.items():
        if not isinstance(fields, dict):
            raise IntegrityError(str(place), f"its component {name!r} is not a section")
        if "source" in fields and "factory" not in fields:
            what = f"its component {name!r} has a source: it would be loaded from elsewhere"
            raise IntegrityError(str(place), what)
        if "/" in name or "\\" in name:
            raise IntegrityError(str(place), f"its component {name!r} leaves the directory")


def _check_functions(place: Path, sections: object) -> None:
    """Raise for a function that reads or writes what is elsewhere; spaCy calls it as it is met.

    Raises:
        IntegrityError: there is one.
    """
    for key, value in pairs_in(sections):
        if key in FOR_TRAINING or (key.startswith("@") and str(value).startswith(ELSEWHERE)):
            what = f"its {key} = {value!r} may read or write files that are not in this directory"
            raise IntegrityError(str(place), what)


def _check_names(opts: SpacyModel.Options, names: list[str], source: str) -> None:
    """Raise for names of components that the pipeline has not: spaCy ignores most of them."""
    known = ", ".join(names) or "none"
    problems = [
        Problem(f"{field}[{place}]", f"the pipeline has no {name!r}; its components are {known}")
        for field in ("disable", "exclude", "enable")
        for place, name in enumerate(getattr(opts, field))
        if name not in names
    ]
    if problems:
        raise ConfigError(source, problems)


def _report_version(meta: dict[str, Any]) -> None:
    """Report a pipeline that was made for other versions of spaCy, as its meta.json says."""
    from spacy import __version__
    from spacy.util import is_compatible_version

    wanted = meta.get("spacy_version")
    if wanted and not is_compatible_version(__version__, wanted):
        report_warning(f"saved for spaCy {wanted}, loaded with {__version__}")


def register(registry: Registry) -> None:
    """Add the module."""
    registry.module("spacy")(SpacyModel)
