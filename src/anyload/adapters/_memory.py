"""How memory is given back to the system."""

from __future__ import annotations

import ctypes
import gc
import sys

from ..config import BackendConfig


class TrimOptions(BackendConfig):
    """What the adapters let a model config say whose models come in many small pieces.

    Args:
        trim_memory: whether `release` gives free memory back to the system.
    """

    trim_memory: bool = True


def give_back_memory() -> None:
    """Collect garbage and have the C library give free memory back to the system.

    glibc keeps what was freed for the next allocation; for models that came in many small pieces
    that is most of their memory. The free ends of the arenas of other threads stay, which
    ``MALLOC_TRIM_THRESHOLD_`` or ``MALLOC_ARENA_MAX`` in the environment can prevent: see
    docs/frameworks.md. Elsewhere than on Linux with glibc only garbage is collected.
    """
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:
        trim(0)
