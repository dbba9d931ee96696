"""What the drop-in adds to the configuration of caikit's initializer; all of it off by default."""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any, Literal

from .._load.slots import Limits
from ..config import BackendConfig, Count, Seconds, Slots, Text, validate_backend_config

logger = logging.getLogger("anyload.caikit")

Rule = Literal["auto", "config", "path"] | None
"""What a module's ``load`` is given; None is caikit's rule: the config, and after any error the
path."""


class BackendLimits(BackendConfig):
    """What an entry of ``backend_priority`` may have beside caikit's ``type`` and ``config``.

    Args:
        timeout: how long one attempt on it may take, in seconds; None for no limit.
        stall_timeout: how long a load that reports progress may be silent, in seconds.
    """

    timeout: Seconds | None = None
    stall_timeout: Seconds | None = None


class Options(BackendConfig):
    """What an initializer's ``config`` may have beside caikit's ``backend_priority``.

    Args:
        on_error: whether a failed attempt is followed by the next backend; if so, a load that
            fails on all of them is a LoadError with every attempt.
        load_timeout: queueing and all attempts of a load together, in seconds.
        max_concurrent_loads: how many loads may run at once; None for as many as are asked for.
        max_abandoned_loads: threads that may be left running past their limit.
        share: whether concurrent loads of one model are one load.
        exclusive_groups: by module id, the group of modules whose loads must not overlap.
        argument: what a module's ``load`` is given.
    """

    on_error: Literal["next", "raise"] = "raise"
    load_timeout: Seconds | None = None
    max_concurrent_loads: Slots | None = None
    max_abandoned_loads: Count = 4
    share: bool = False
    exclusive_groups: dict[Text, Text] = {}  # noqa: RUF012  # pydantic copies it
    argument: Rule = None

    def limits(self) -> Limits:
        """Return the limits of the loads."""
        return Limits(
            max_concurrent_loads=self.max_concurrent_loads or sys.maxsize,
            max_abandoned_loads=self.max_abandoned_loads,
            load_timeout=self.load_timeout,
            next_on_error=self.on_error == "next",
        )


def read_options(config: Mapping[str, Any], source: str) -> Options:
    """Return the options in an initializer's ``config``.

    A key that is neither caikit's nor ours is ignored, as caikit does, and logged.

    Raises:
        ConfigError: a value cannot be used; all problems at once.
    """
    ours = _ours(config, Options, {"backend_priority"}, source)
    options: Options = validate_backend_config(Options, ours, where="", source=source)
    return options


def read_limits(entry: Mapping[str, Any], place: int, source: str) -> BackendLimits:
    """Return the limits in an entry of ``backend_priority``; other keys are as in `read_options`.

    Raises:
        ConfigError: a value cannot be used.
    """
    where = f"backend_priority[{place}]"
    ours = _ours(entry, BackendLimits, {"type", "config"}, f"{source}.{where}")
    limits: BackendLimits = validate_backend_config(BackendLimits, ours, where=where, source=source)
    return limits


def _ours(
    given: Mapping[str, Any], model: type[BackendConfig], caikits: set[str], source: str
) -> dict[str, Any]:
    """Return what is ours, and tell of what is neither ours nor caikit's."""
    for key in given.keys() - model.model_fields.keys() - caikits:
        close = get_close_matches(str(key), model.model_fields, 1)
        meant = f"; did you mean {close[0]!r}?" if close else ""
        logger.warning("%s: the key %r is unknown and ignored%s", source, key, meant)
    return {key: given[key] for key in model.model_fields if key in given}
