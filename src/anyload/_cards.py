"""NVIDIA cards, as the driver's management library tells of them.

Asking it initialises nothing: a process that forks workers later can still do so. Numbers are
those of CUDA, which counts the visible cards only.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class Memory(ctypes.Structure):
    """``nvmlMemory_t``."""

    _fields_ = (
        ("total", ctypes.c_ulonglong),
        ("free", ctypes.c_ulonglong),
        ("used", ctypes.c_ulonglong),
    )


def card_count() -> int:
    """Return how many cards the driver knows, visible or not; 0 without a driver."""
    with _driver() as library:
        return _count(library)


def visible_cards(visible: str | None, cards: int) -> tuple[str, ...]:
    """Return the cards that CUDA sees, each as a number or an identifier. Pure.

    It stops at the first entry that is no card or that was there before. An identifier is taken for
    one card each: whether there is such a card is not checked.

    Args:
        visible: the variable ``CUDA_VISIBLE_DEVICES``; None where it is not set.
        cards: how many cards the driver knows.
    """
    if visible is None:
        return tuple(map(str, range(cards)))
    seen: dict[str, None] = {}
    for entry in visible.split(","):
        one = entry.strip()
        if one.isascii() and one.isdecimal():
            one = str(int(one[:9]))
            known = int(one) < cards
        else:
            known = cards > 0 and one.startswith(("GPU-", "MIG-"))
        if not known or one in seen:
            break
        seen[one] = None
    return tuple(seen)


def card_memory(number: int) -> int | None:
    """Return the bytes of memory that a card has, whoever uses them; None if nobody can tell."""
    with _driver() as library:
        cards = _count(library)
        seen = visible_cards(os.environ.get("CUDA_VISIBLE_DEVICES"), cards)
        if number >= len(seen):
            return None
        if not seen[number].isdecimal():
            return _memory_of(library, library.nvmlDeviceGetHandleByUUID, seen[number].encode())
        by_index = library.nvmlDeviceGetHandleByIndex_v2
        sizes = [_memory_of(library, by_index, index) for index in range(cards)]
        # CUDA counts the fastest card first, unless it is told to count as the driver does.
        if os.environ.get("CUDA_DEVICE_ORDER") == "PCI_BUS_ID" or len(set(sizes)) == 1:
            return sizes[int(seen[number])]
        return None


@contextmanager
def _driver() -> Iterator[Any]:
    """Yield the library, or None where there is no driver."""
    name = "nvml.dll" if sys.platform == "win32" else "libnvidia-ml.so.1"
    try:
        library = ctypes.CDLL(name)
    except OSError:
        yield None
        return
    if library.nvmlInit_v2() != 0:
        yield None
        return
    try:
        yield library
    finally:
        library.nvmlShutdown()


def _count(library: Any) -> int:
    count = ctypes.c_uint(0)
    if library is None or library.nvmlDeviceGetCount_v2(ctypes.byref(count)) != 0:
        return 0
    return count.value


def _memory_of(library: Any, find: Any, name: int | bytes) -> int | None:
    handle, memory = ctypes.c_void_p(), Memory()
    if find(name, ctypes.byref(handle)) != 0:
        return None
    if library.nvmlDeviceGetMemoryInfo(handle, ctypes.byref(memory)) != 0:
        return None
    return int(memory.total)
