"""What of a process may grow, sampled; and whether it does."""

from __future__ import annotations

import asyncio
import os
import statistics
import threading
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import sniffio
import trio

from anyload.adapters._memory import give_back_memory

MEGABYTE = 1024 * 1024


class Held(NamedTuple):
    """What a process holds at one moment."""

    threads: int
    fds: int
    tasks: int
    children: int

    @classmethod
    def now(cls) -> Held:
        """Look at this process, in a task of the loop that runs."""
        return cls(threading.active_count(), _fds(), _tasks(), _children())


class Round(NamedTuple):
    """What was held in a round, and how much memory was taken when all was at rest after it."""

    held: list[Held]
    at: float
    megabytes: float


def _fds() -> int:
    return len(os.listdir("/dev/fd")) - 1  # less the one of looking


def _tasks() -> int:
    if sniffio.current_async_library() == "trio":
        return trio.lowlevel.current_statistics().tasks_living
    return len(asyncio.all_tasks())


def _children() -> int:
    try:
        lists = [file.read_text() for file in Path("/proc/self/task").glob("*/children")]
    except OSError:  # a thread that has ended meanwhile
        return 0
    return sum(len(text.split()) for text in lists)


def megabytes() -> float:
    """Return the resident memory of this process, less what is free already."""
    give_back_memory()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / MEGABYTE


def growth(rounds: Sequence[Round]) -> float:
    """Return the megabytes that memory grows by in a minute.

    It is the median of the slopes between any two rests: single ones do not move it.
    """
    slopes = [
        (late.megabytes - early.megabytes) / (late.at - early.at)
        for number, early in enumerate(rounds)
        for late in rounds[number + 1 :]
    ]
    return 60 * statistics.median(slopes)


def spread(values: Iterable[float]) -> str:
    """Return the least and the most of a figure."""
    low, *_, high = sorted([*map(round, values)] * 2)
    return f"{low}" if low == high else f"{low}..{high}"
