"""How a repository ends: models drain and go, and then its initializer closes."""

from __future__ import annotations

from anyio import move_on_after

from .._load.own_threads import on_own_thread
from ..reports import StuckLoad
from .core import KeepingCore
from .records import Version
from .waiting import become, become_sync


def begin(core: KeepingCore) -> None:
    """Refuse new leases, and let every model go. Synchronous."""
    if core.lock.mine():
        # The garbage collector, run by an allocation under the lock, has closed a coroutine.
        core.lock.put_off(lambda: begin(core))
        return
    with core.step() as todo, core.lock:
        core.keeper.close(todo)


async def aclose(core: KeepingCore, grace: float) -> tuple[StuckLoad, ...]:
    """Close, as a task; cancelling it ends the grace at once."""
    if on_own_thread():
        return _begin_only(core, grace)
    begin(core)
    until = core.loading.clock() + grace
    try:
        with move_on_after(grace):
            while (version := _still_there(core)) is not None:
                await become(core, version, gone)
        return await core.initializer.aclose(max(0.0, until - core.loading.clock()))
    finally:
        core.dismiss()


def close(core: KeepingCore, grace: float) -> tuple[StuckLoad, ...]:
    """Close, in a plain thread; where that cannot wait, without waiting."""
    if core.lock.mine() or on_own_thread():
        return _begin_only(core, grace)
    begin(core)
    until = core.loading.clock() + grace
    try:
        while (version := _still_there(core)) is not None:
            if not become_sync(core, version, gone, until - core.loading.clock()):
                break
        return core.initializer.close(max(0.0, until - core.loading.clock()))
    finally:
        core.dismiss()


def _begin_only(core: KeepingCore, grace: float) -> tuple[StuckLoad, ...]:
    """Close on a thread that this would wait for: the initializer's close goes on by itself.

    A version that is leased goes when its lease is back, as after any grace.
    """
    begin(core)
    core.dismiss()  # nothing that is closed has deadlines
    return core.initializer.close(grace)


def gone(version: Version) -> bool:
    """Whether a version is out of memory."""
    return version.life.phase == "unloaded"


def _still_there(core: KeepingCore) -> Version | None:
    tables = core.house.tables
    with core.step(), core.lock:
        return next(iter((*tables.releasing, *tables.draining)), None)
