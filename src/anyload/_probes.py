"""How to look at a process: its event loop, what it holds, what is patched."""

from __future__ import annotations

import os
import re
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from types import BuiltinFunctionType, FunctionType
from typing import Any, NamedTuple

from anyio import sleep

from .guard import PYTHON, ProcessGlobal, Snapshot
from .registry import Registry
from .reports import GlobalChange

TICK_SECONDS = 0.001
STOPPED_SECONDS = 0.02
"""A gap from which on the event loop was stopped, and not only late."""

ADDRESS = re.compile(r" at 0x[0-9a-f]+")
FUNCTIONS = (FunctionType, BuiltinFunctionType, classmethod, staticmethod, property, type)


class Heartbeat:
    """Ticks on the event loop, and notices how long it was kept from that.

    Args:
        ticked: hears of each tick: when it was, and how long after the one before.
    """

    def __init__(self, ticked: Callable[[float, float], None] | None = None) -> None:
        self._last = time.monotonic()
        self._ticked = ticked
        self._longest = self._stopped = 0.0

    async def beat(self) -> None:
        """Tick until cancelled."""
        while True:
            await sleep(TICK_SECONDS)
            self._tick()

    def _tick(self) -> None:
        now = time.monotonic()
        gap, self._last = now - self._last, now
        self._longest = max(self._longest, gap)
        if gap >= STOPPED_SECONDS:
            self._stopped += gap
        if self._ticked is not None:
            self._ticked(now, gap)

    def listen(self) -> None:
        """Begin anew."""
        self._last = time.monotonic()
        self._longest = self._stopped = 0.0

    def longest(self) -> float:
        """Return the longest gap since then, in seconds."""
        self._tick()
        return self._longest

    def stopped(self) -> float:
        """Return how long the event loop was stopped since then, all such gaps together."""
        self._tick()
        return self._stopped


class Footprint(NamedTuple):
    """What a process holds: resident bytes, threads that are not ours, file descriptors."""

    memory: int | None
    threads: int
    files: int | None


def footprint() -> Footprint:
    """Return what this process holds now."""
    ours = sum(thread.name.startswith("anyload-") for thread in threading.enumerate())
    memory = files = None
    threads = threading.active_count()
    if os.path.isdir("/proc/self/task"):  # else there is no cheap way to tell
        threads = len(os.listdir("/proc/self/task"))
        files = len(os.listdir("/proc/self/fd"))
        with open("/proc/self/statm", encoding="ascii") as statm:
            memory = int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return Footprint(memory, threads - ours, files)


class Watch:
    """Process-wide state from now on: what is known to be changed by loads, and every function.

    Args:
        registry: its modules say what their loads change; all of them are looked at, as a module
            that says nothing may use the framework of one that does.
    """

    def __init__(self, registry: Registry) -> None:
        self._snapshot = Snapshot(dict.fromkeys((*PYTHON, *_declared(registry))))
        self._functions = dict(_functions())

    def changes(self) -> dict[str, str]:
        """Return what is different now, by name."""
        now = dict(_functions())
        patched = {
            name: f"{name} was replaced by {getattr(now[name], '__qualname__', now[name])!s:.100}"
            for name, function in self._functions.items()
            if name in now and now[name] is not function
        }
        return {**patched, **told(change.told() for change in self._snapshot.changes())}


def told(changes: Iterable[GlobalChange]) -> dict[str, str]:
    """Return changes as text, by name; without addresses."""
    texts = {change.name: str(change) for change in changes}
    return {name: ADDRESS.sub("", text) for name, text in texts.items()}


def _declared(registry: Registry) -> Iterator[ProcessGlobal]:
    for implementations in registry.modules.values():
        for known in implementations.values():
            for one in (known, *known.variants.values()):
                yield from one.process_globals


def _functions() -> Iterator[tuple[str, Any]]:
    """Yield the functions and classes of all modules, and the functions of these classes."""
    for module, found in list(sys.modules.items()):
        for name, value in list(getattr(found, "__dict__", {}).items()):
            # Once each, where it is defined: others have imported it.
            if isinstance(value, FUNCTIONS):
                yield f"{module}.{name}", value
            if isinstance(value, type) and value.__module__ == module:
                for inner, function in list(vars(value).items()):
                    if isinstance(function, FUNCTIONS):
                        yield f"{module}.{name}.{inner}", function
