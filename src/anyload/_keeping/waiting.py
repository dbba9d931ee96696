"""Waiting for something that another thread brings about."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from typing import Any, NoReturn, TypeVar

from .._load.waiters import AsyncSeat, ThreadSeat, current_bell
from .core import KeepingCore
from .records import Version

T = TypeVar("T")


class Watching(AsyncSeat):
    """A task that waits for what becomes of something."""

    __slots__ = ()

    def wake(self) -> bool:
        """Wake it; where its loop has ended, there is nobody to wake."""
        self.bell.ring(self)
        return True


async def become(core: KeepingCore, version: Version, done: Callable[[Version], bool]) -> None:
    """Wait in a task until something has become of a version."""
    seat = Watching(current_bell())
    try:
        while not _watch(core, version, done, seat):
            await seat.wait()
    finally:
        _rise(core, version, seat)


def become_sync(
    core: KeepingCore, version: Version, done: Callable[[Version], bool], timeout: float
) -> bool:
    """Wait in a plain thread likewise; return False once ``timeout`` seconds have passed."""
    until = core.loading.clock() + timeout
    seat = ThreadSeat(core.loading.flights)
    try:
        while not _watch(core, version, done, seat):
            if not seat.wait(until - core.loading.clock()):
                return False
        return True
    finally:
        _rise(core, version, seat)


def _watch(core: KeepingCore, version: Version, done: Callable[[Version], bool], seat: Any) -> bool:
    """Return whether it is done; if not, have the seat woken when it may be."""
    with core.step(), core.lock:
        if done(version):
            return True
        version.watchers.append(seat)
        return False


def _rise(core: KeepingCore, version: Version, seat: Any) -> None:
    if core.lock.mine():
        # The garbage collector, run by an allocation under the lock, has closed a coroutine.
        core.lock.put_off(partial(_rise, core, version, seat))
        return
    with core.step(), core.lock:
        if seat in version.watchers:
            version.watchers.remove(seat)


async def in_a_thread(call: Callable[[], T]) -> T:
    """Return what a function returns that blocks, called in a thread that keeps no process alive.

    Cancelling leaves the thread to its end.
    """
    seat, outcome = Watching(current_bell()), list[Callable[[], T]]()

    def run() -> None:
        try:
            value = call()
            outcome.append(lambda: value)
        except BaseException as error:
            outcome.append(partial(_raise, error))
        seat.wake()

    threading.Thread(target=run, name="anyload-reader", daemon=True).start()
    await seat.wait()
    return outcome.pop()()


def _raise(error: BaseException) -> NoReturn:
    raise error
