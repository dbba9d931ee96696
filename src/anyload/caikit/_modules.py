"""How a module of caikit's is called, and what is made of its answer: caikit's rules.

The rules, and the texts of errors, are those of ``LocalModelInitializer.init`` in caikit 0.29.0.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from caikit.core import ModuleBase, ModuleConfig
from caikit.core.model_management.local_model_initializer import error, log
from caikit.core.module_backends import BackendBase

from ..contracts import Backend
from ..model_config import ModelConfig
from ..registry import Implementation, argument_of, resources_of
from ._options import Rule

SupportsArg = Callable[[Callable[..., Any], str], bool]
"""Tells whether a ``load`` has an argument of a name, as ``LocalModelInitializer`` asks it."""


class CaikitBackend(Backend):
    """A backend of caikit's, as a load's plan knows it. Starting it is its modules' own affair.

    Args:
        wrapped: the backend.
    """

    def __init__(self, wrapped: BackendBase) -> None:
        self.wrapped = wrapped
        self.backend_type = wrapped.backend_type  # type: ignore[misc]  # here each has its own


class Loaded:
    """A model that has been loaded.

    What anyload asks other models for, such as ``release``, ``device`` and ``memory_bytes``, has
    no meaning in caikit: a model may have methods of these names. In here they are not found.

    Args:
        model: the model.

    ``dropped`` is what was loaded where another is the model after all.
    """

    __slots__ = ("dropped", "model")

    def __init__(self, model: ModuleBase) -> None:
        self.model = model
        self.dropped: ModuleBase | None = None


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class CaikitImplementation(Implementation):
    """The class of a caikit module for one backend type."""

    rule: Rule
    supports_arg: SupportsArg

    @classmethod
    def of_class(
        cls,
        module: type,
        module_id: str,
        backend_type: str,
        group: str | None,
        rule: Rule,
        supports_arg: SupportsArg,
    ) -> CaikitImplementation:
        """Return what calls a module.

        Args:
            module: the class.
            module_id: its module id.
            backend_type: the backend type it is registered for.
            group: the group of loads that must not overlap; by default what the class declares.
            rule: what its ``load`` is given.
            supports_arg: tells whether a ``load`` names an argument.
        """
        declared = getattr(module, "exclusive_group", None)
        group = group or (declared if isinstance(declared, str) and declared else None)
        holds_gil = getattr(module, "holds_gil", False) is True
        return cls(
            module_id,
            backend_type,
            module,
            supported_load_backends=frozenset(),  # asked for anew in each load, as caikit does
            backend_config_override={},
            exclusive_group=group,
            holds_gil=holds_gil,
            argument="config",
            wants_backend=False,
            resources=resources_of(group, holds_gil),
            prepare=None,  # a method of this name is the module's own affair
            rule=rule,
            supports_arg=supports_arg,
        )

    def load(self, config: ModelConfig, backend: Backend, kwargs: Mapping[str, Any]) -> Loaded:
        """Call the module's ``load`` by caikit's rules, and tell the model its backend."""
        assert isinstance(backend, CaikitBackend)
        load: Callable[..., Any] = self.cls.load  # type: ignore[attr-defined]  # every module has
        named = self.supports_arg(load, "load_backend")
        further = {"load_backend": backend.wrapped} if named else {}
        first, *second = arguments(self.rule, load, config["model_config"])
        try:
            model = load(first, **further, **kwargs)
        except Exception as raised:
            if not second:
                raise
            log.warning(  # alog takes a code first
                "<COR98539580W>",
                "DEPRECATION: Loading %s failed with ModuleConfig. Using model_path. %s",
                self.cls.MODULE_ID,  # type: ignore[attr-defined]  # every module has
                raised,
            )
            model = load(*second, **further, **kwargs)
        error.type_check("<COR40080753E>", ModuleBase, model=model)
        model.set_load_backend(backend.wrapped)
        return Loaded(model)


def arguments(rule: Rule, load: Callable[..., Any], config: ModuleConfig) -> tuple[Any, ...]:
    """Return what to call a ``load`` with, and where there are two, what to call it with next.

    Args:
        rule: the configured rule. ``auto`` goes by the annotation of the first parameter, as
            text, and does not try twice where that names a path or the config, or where there
            is no path.
        load: what is called.
        config: the model's config.
    """
    path = config.model_path
    if rule == "config":
        return (config,)
    if rule == "path":
        return (path,)
    if rule is None:
        return config, path
    if path is None:
        return (config,)
    first = next(iter(inspect.signature(load).parameters.values()), None)
    annotation = inspect.Parameter.empty if first is None else first.annotation
    takes = argument_of(annotation)
    if takes == "config" and ModuleConfig.__name__ not in str(annotation):
        return config, path  # it may be a path by another name, such as `str | None`
    return (config if takes == "config" else Path(path) if takes == "Path" else path,)
