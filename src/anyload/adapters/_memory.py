"""Memory: how frameworks say that it ran out, and how it is given back to the system."""

from __future__ import annotations

import ctypes
import gc
import sys

from ..config import BackendConfig
from ._framework import says

NO_MEMORY = (
    *("out of memory", "out_of_memory", "not enough memory", "can't allocate memory"),
    *("failed to allocate memory", "bad_alloc", "bad allocation", "alloc_failed"),
)
"""What frameworks, and libraries below them, say where memory runs out; few have a type for it."""


class TrimOptions(BackendConfig):
    """What the adapters let a model config say whose models come in many small pieces.

    Args:
        trim_memory: whether `release` gives free memory back to the system.
    """

    trim_memory: bool = True


def ran_out_of_memory(error: Exception) -> bool:
    """Return whether an error is about memory, of the processor or of a card."""
    # torch's type, without an import of torch.
    typed = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
    return typed or says(error, NO_MEMORY)


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
