"""Leases: a promise that a model stays while it is in use."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from types import TracebackType
from typing import Any, NoReturn

from anyio.lowlevel import checkpoint

from .._load.waiters import AsyncSeat, Bell, ThreadSeat, current_bell
from .core import KeepingCore
from .records import Entry, Version

HITS_PER_CHECKPOINT = 256
"""After how many leases that need not wait the task lets others run, and can be cancelled."""


class TaskAsking(AsyncSeat):
    """A task that waits for a lease."""

    __slots__ = ("_core", "entry", "failure", "granted")

    def __init__(self, core: KeepingCore, bell: Bell) -> None:
        super().__init__(bell)
        self._core = core
        self.entry: Entry | None = None
        self.granted: Version | None = None
        self.failure: Callable[[], Exception] | None = None

    def wake(self) -> bool:
        """Wake the task; one whose loop has ended gives back what it was granted."""
        if not self.bell.ring(self):
            self.lose()
        return True

    def lose(self) -> None:
        """Its loop has ended: it will never take what it was granted."""
        leave(self._core, self)


class ThreadAsking(ThreadSeat):
    """A thread that waits for a lease."""

    __slots__ = ("entry", "failure", "granted")

    def __init__(self, core: KeepingCore) -> None:
        super().__init__(core.loading.flights)
        self.entry: Entry | None = None
        self.granted: Version | None = None
        self.failure: Callable[[], Exception] | None = None


def leave(core: KeepingCore, asking: TaskAsking | ThreadAsking) -> None:
    """Go without waiting any longer. Synchronous, so it is safe under any kind of cancelling."""
    if core.lock.mine():
        # The garbage collector, run by an allocation under the lock, has closed a coroutine.
        core.lock.put_off(partial(leave, core, asking))
        return
    with core.step() as todo, core.lock:
        core.wishes.leave(asking, todo)


# What every request comes by is written out where it is done, in `try_lease`, `Lease.release` and
# `LeaseRequest`: a call would cost as much as all else. `WaysOut` says why it needs no lock.


def give_back(core: KeepingCore, version: Version) -> None:
    """End a lease, without the lock unless something follows from that."""
    version.out.pop()
    if not version.out:
        version.idle_since = core.clock()
        if not version.calm or core.blocked:
            given_back(core, version)


def given_back(core: KeepingCore, version: Version) -> None:
    """Do what follows from a lease that was the last."""
    if core.lock.mine():
        core.lock.put_off(partial(given_back, core, version))
        return
    with core.step() as todo, core.lock:
        core.ways.given_back(version, todo)


class Lease:
    """A model that is READY, and stays while this lease is out.

    Use it in ``with``, or call `release`; one that is forgotten keeps its model for good.
    """

    __slots__ = ("_core", "_version")

    def __init__(self, core: KeepingCore, version: Version) -> None:
        self._core = core
        self._version: Version | None = version

    @property
    def model(self) -> Any:
        """The model.

        Raises:
            RuntimeError: the lease was released.
        """
        return self._held().value

    @property
    def version(self) -> str:
        """The version of the model that it is."""
        return self._held().life.version

    def _held(self) -> Version:
        if self._version is None:
            raise RuntimeError("this lease was released")
        return self._version

    def release(self) -> None:
        """Give the model back; a second time does nothing."""
        version = self._version
        if version is not None:
            self._version = None
            version.out.pop()
            if not version.out:
                core = self._core
                version.idle_since = core.clock()
                if not version.calm or core.blocked:
                    given_back(core, version)

    def __enter__(self) -> Any:
        return self.model

    def __exit__(self, *_: object) -> None:
        self.release()

    def __reduce__(self) -> NoReturn:
        raise TypeError("a lease is not copied or pickled: it is given back once; ask for another")

    def __repr__(self) -> str:
        if self._version is None:
            return "<Lease released>"
        life = self._version.life
        return f"<Lease {life.model!r} version {life.version}>"


def try_lease(core: KeepingCore, name: str) -> Lease | None:
    """Return a lease of a model that is READY, taken without the lock; else None."""
    entry = core.entries.get(name)
    if entry is not None:
        version = entry.current
        if version.ready:
            version.out.append(None)
            if version.ready:  # still
                entry.hits += 1
                return Lease(core, version)
            # Another thread has retired it in this moment, of which mypy knows nothing.
            give_back(core, version)  # type: ignore[unreachable]
    return None


class LeaseRequest:
    """What ``lease()`` returns: ``async with`` it, once."""

    __slots__ = ("_core", "_name", "_priority", "_version")

    def __init__(self, core: KeepingCore, name: str, priority: int) -> None:
        self._core = core
        self._name = name
        self._priority = priority
        self._version: Version | None = None

    async def __aenter__(self) -> Any:
        if self._version is not None:
            raise RuntimeError("this lease was taken; ask for another one")
        core = self._core
        entry = core.entries.get(self._name)
        if entry is not None:
            version = entry.current
            if version.ready:
                version.out.append(None)
                if version.ready:  # still
                    entry.hits += 1
                    if not entry.hits % HITS_PER_CHECKPOINT:
                        await self._let_others_run(version)
                    self._version = version
                    return version.value
                give_back(core, version)  # type: ignore[unreachable]  # as in `try_lease`
        bell = current_bell()
        return (await bell.protected(LeaseRequest._wait)(self, bell)).value

    async def _let_others_run(self, version: Version) -> None:
        try:
            await checkpoint()
        except BaseException:
            give_back(self._core, version)
            raise

    async def _wait(self, bell: Bell) -> Version:
        core = self._core
        asking = TaskAsking(core, bell)
        try:
            with core.step() as todo, core.lock:
                core.wishes.ask(self._name, self._priority, asking, todo)
            while asking.granted is None and asking.failure is None:
                await asking.wait()
        except BaseException:
            leave(core, asking)
            raise
        version = self._version = taken(asking)
        return version

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        version = self._version
        assert version is not None
        version.out.pop()
        if not version.out:
            core = self._core
            version.idle_since = core.clock()
            if not version.calm or core.blocked:
                given_back(core, version)


def lease_sync(core: KeepingCore, name: str, priority: int, timeout: float | None) -> Lease:
    """Wait for a lease in a plain thread.

    Raises:
        TimeoutError: ``timeout`` seconds have passed.
    """
    asking = ThreadAsking(core)
    until = None if timeout is None else core.loading.clock() + timeout
    try:
        with core.step() as todo, core.lock:
            core.wishes.ask(name, priority, asking, todo)
        while asking.granted is None and asking.failure is None:
            left = None if until is None else until - core.loading.clock()
            if not asking.wait(left):
                raise TimeoutError(f"a lease of {name!r} took over {timeout} s")
    except BaseException:
        leave(core, asking)
        raise
    return Lease(core, taken(asking))


def taken(asking: TaskAsking | ThreadAsking) -> Version:
    """Return the version that was granted, or raise why there is none."""
    if asking.failure is not None:
        raise asking.failure()
    # It is not the asker's any more: were the loop to end now, it must not be given back for it.
    version, asking.granted = asking.granted, None
    assert version is not None
    return version
