"""How much memory there is, for a budget that is a share of it."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from .._cards import card_memory
from ..errors import ConfigError, Problem
from .budget import Sizes

CGROUP_LIMITS = (
    "/sys/fs/cgroup/memory.max",
    "/sys/fs/cgroup/memory/memory.limit_in_bytes",
)

_CARD = re.compile(r"cuda:(\d{1,4})", re.ASCII)


class Meter(Protocol):
    """Tells how much memory a device has."""

    def total(self, device: str) -> int | None:
        """Return the bytes of a device, or None if that cannot be told."""
        ...


class SystemMeter:
    """The memory of this machine, or of the container that the process is in, and of its cards.

    Args:
        cgroup_limits: the files in which a container's limit may be.
    """

    def __init__(self, cgroup_limits: tuple[str, ...] = CGROUP_LIMITS) -> None:
        self._cgroup_limits = cgroup_limits

    def total(self, device: str) -> int | None:
        """Return the bytes of ``cpu``, or of an NVIDIA card such as ``cuda:0``."""
        if card := _CARD.fullmatch(device):
            return card_memory(int(card[1]))
        if device != "cpu":
            return None
        sizes = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
        for path in self._cgroup_limits:
            # "max" is no limit, and is no number.
            with contextlib.suppress(OSError, ValueError):
                sizes.append(int(Path(path).read_text()))
        return min(sizes)


def limits_of(budget: Mapping[str, int | float], meter: Meter) -> Sizes:
    """Return a budget in bytes; shares are of what there is.

    Raises:
        ConfigError: a share is of a device whose memory cannot be told.
    """
    limits: dict[str, int] = {}
    problems: list[Problem] = []
    for device, amount in budget.items():
        if isinstance(amount, int):
            limits[device] = amount
        elif (total := meter.total(device)) is not None:
            limits[device] = int(total * amount)
        else:
            what = f"how much memory {device} has cannot be told; give the budget in bytes"
            problems.append(Problem(f"repository.budget.{device}", what))
    if problems:
        raise ConfigError("the configuration", problems)
    return limits
