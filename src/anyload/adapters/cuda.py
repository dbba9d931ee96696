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
        if visible is None:
            count = _cards()
        else:
            # CUDA stops at the first number that is none.
            listed = [one.strip() for one in visible.split(",")]
            stop = next((i for i, one in enumerate(listed) if one in ("", "-1")), len(listed))
            count = min(stop, _cards()) if stop else 0
        if count > self.config.device:
            return None
        if visible is not None and _cards():
            return f"there is no {self.device} among CUDA_VISIBLE_DEVICES={visible}"
        return f"there is no {self.device}: {count} NVIDIA cards on this machine"


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
