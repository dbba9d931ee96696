"""The backend type ``CUDA``: an NVIDIA card, for every adapter that can use one."""

from __future__ import annotations

import ctypes
import os
import sys
from typing import ClassVar

from ..config import BackendConfig, Count
from ..contracts import Backend


class CudaBackend(Backend):
    """One card, by its number; what is on it is the framework's own affair.

    It is skipped, with the reason, where there is no driver or no such card. The driver's
    management library is asked, which initialises nothing: a process that forks workers later
    can still do so.
    """

    backend_type: ClassVar[str] = "CUDA"

    class Config(BackendConfig):
        """What ``config:`` of this backend may say.

        Args:
            device: the number of the card, counted as CUDA counts: among the visible ones.
        """

        device: Count = 0

    config: Config

    @property
    def device(self) -> str:
        """The card as frameworks spell it."""
        return f"cuda:{self.config.device}"

    def available(self) -> str | None:
        """Return why this card cannot be used here, or None if it can."""
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        count = _cards() if visible is None else visible_cards(visible, _cards())
        if count > self.config.device:
            return None
        if visible is not None and _cards():
            return f"there is no {self.device} among CUDA_VISIBLE_DEVICES={visible}"
        return f"there is no {self.device}: {count} NVIDIA cards on this machine"


def visible_cards(visible: str, cards: int) -> int:
    """Return how many cards CUDA sees. Pure.

    It stops at the first entry that is no card or that was there before. An identifier is taken for
    one card each: whether there is such a card is not checked.

    Args:
        visible: the variable ``CUDA_VISIBLE_DEVICES``.
        cards: how many cards the driver knows.
    """
    seen = set[str]()
    for entry in visible.split(","):
        one = entry.strip()
        if one.isascii() and one.isdecimal():
            one = str(int(one[:9]))
            known = int(one) < cards
        else:
            known = cards > 0 and one.startswith(("GPU-", "MIG-"))
        if not known or one in seen:
            break
        seen.add(one)
    return len(seen)


def _cards() -> int:
    """Return how many NVIDIA cards the driver knows; 0 without a driver."""
    name = "nvml.dll" if sys.platform == "win32" else "libnvidia-ml.so.1"
    try:
        library = ctypes.CDLL(name)
    except OSError:
        return 0
    count = ctypes.c_uint(0)
    if library.nvmlInit_v2() != 0:
        return 0
    try:
        failed = library.nvmlDeviceGetCount_v2(ctypes.byref(count)) != 0
    finally:
        library.nvmlShutdown()
    return 0 if failed else count.value
