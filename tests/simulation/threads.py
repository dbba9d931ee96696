"""What ``threading`` is to the core in the simulation: the same words, over fibers."""

from __future__ import annotations

import _thread
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from types import SimpleNamespace, TracebackType
from typing import Any
from unittest import mock

from anyload._load.core import Core
from anyload._load.process import Lock as ProcessLock
from anyload._load.process import Process

from .fibers import Fiber, Machine

USERS = ("outbox", "parking", "watchdog", "workers")
"""The files of the core that make locks or threads."""


class Switching(_thread.RLock):  # type: ignore[misc]  # final in typeshed, not in CPython
    """A lock before and after which another thread may go first.

    Nothing blocks or switches while one is held, so nobody ever has to wait for it.
    """

    machine: Machine

    def enter(self) -> None:
        """Take it, with no other thread going first."""
        self.acquire()
        self.machine.held += 1

    def leave(self) -> None:
        """Give it back, likewise."""
        self.machine.held -= 1
        self.release()

    @contextmanager
    def taken(self) -> Iterator[None]:
        """Hold it, with nobody going first."""
        self.enter()
        try:
            yield
        finally:
            self.leave()

    def __enter__(self, blocking: bool = True, timeout: float = -1) -> bool:
        self.machine.switch()
        self.enter()
        return True

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.leave()
        self.machine.switch()


class SwitchingProcessLock(Switching, ProcessLock):  # type: ignore[misc]  # as above
    """Likewise, for the lock of the process."""


class Lock:
    """A lock that one fiber may wait for, and another let go of."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self._held = False
        self._waiting: deque[Fiber] = deque()

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        self._machine.switch()
        if not self._held:
            self._held = True
            return True
        if not blocking:
            return False
        fiber = self._machine.current()
        self._waiting.append(fiber)
        got = self._machine.block(None if timeout < 0 else self._machine.now() + timeout)
        if not got and fiber in self._waiting:
            self._waiting.remove(fiber)
        return got

    def release(self) -> None:
        self._machine.switch()
        if not self._held:
            raise RuntimeError("release unlocked lock")
        # It goes from hand to hand; who has given up meanwhile is passed over.
        while self._waiting:
            if self._machine.wake(self._waiting.popleft()):
                break
        else:
            self._held = False
        self._machine.switch()


class Thread:
    """A thread, which is a fiber."""

    def __init__(
        self,
        machine: Machine,
        target: Callable[..., object],
        name: str,
        daemon: bool,
        args: Iterable[Any] = (),
    ) -> None:
        assert daemon, f"{name} would keep the process from ending"
        self._machine = machine
        self._target = target
        self._args = tuple(args)

    def start(self) -> None:
        self._machine.spawn(lambda: self._target(*self._args), owner=next(iter(self._args), None))
        self._machine.switch()


def switching_lock(machine: Machine) -> Switching:
    lock = Switching()
    lock.machine = machine
    return lock


def own_process() -> Process:
    """Return a process of the simulation's own: no initializer of another test is in it."""
    process = Process()
    process.lock = SwitchingProcessLock()
    return process


@contextmanager
def in_fibers(machine: Machine, process: Process) -> Iterator[None]:
    """Have initializers that are made inside live in a process of their own, on fibers."""
    process.lock.machine = machine  # type: ignore[attr-defined]  # see `own_process`
    module = SimpleNamespace(
        Lock=partial(Lock, machine),
        RLock=partial(switching_lock, machine),
        Thread=partial(Thread, machine),
        TIMEOUT_MAX=threading.TIMEOUT_MAX,
    )
    with ExitStack() as patches:
        for user in USERS:
            patches.enter_context(mock.patch(f"anyload._load.{user}.threading", module))
        patches.enter_context(mock.patch("anyload.initializer.process", process))
        core = partial(Core, clock=machine.now)
        patches.enter_context(mock.patch("anyload.initializer.Core", core))
        yield
