"""How a repository ends: models drain and go, and then its initializer closes."""

from __future__ import annotations

from anyio import move_on_after

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
    """Close, in a plain thread."""
    begin(core)
    until = core.loading.clock() + grace
    try:
        while (version := _still_there(core)) is not None:
            if not become_sync(core, version, gone, until - core.loading.clock()):
                break
        return core.initializer.close(max(0.0, until - core.loading.clock()))
    finally:
        core.dismiss()


def gone(version: Version) -> bool:
    """Whether a version is out of memory."""
    return version.life.phase == "unloaded"


def _still_there(core: KeepingCore) -> Version | None:
    tables = core.house.tables
    with core.step(), core.lock:
        return next(iter((*tables.releasing, *tables.draining)), None)
