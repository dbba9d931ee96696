"""A repository's close on a thread that it would have to wait for: it goes on by itself."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Generator
from typing import Any

import pytest
from anyio import fail_after
from keeping import Kept, Shelf, emptied

from anyload import ClosedError, ModelRepository
from anyload.events import Event, StateChanged
from anyload.testing import PATIENCE, FakeClock, until

LONG = 1000.0
"""A grace that no test can wait for."""

Close = Callable[[ModelRepository], object]
CLOSES: dict[str, Close] = {
    "close": lambda models: models.close(LONG),
    "aclose": lambda models: asyncio.run(models.aclose(LONG)),
}
every_close = pytest.mark.parametrize("how", CLOSES)


async def gone(models: ModelRepository) -> None:
    """Wait until all of its threads have ended, with nobody closing it again."""
    await emptied(models)
    await until(lambda: models.initializer.statistics().threads == 0)
    await until(lambda: not models.initializer._core.watchdog.running)
    await until(lambda: not models._core._watchdog.running)


class Closing:
    """A hook that closes a repository when a model comes to a phase.

    Args:
        how: the close.
        name: the model.
        phase: its phase.
    """

    def __init__(self, how: str, name: str, phase: str) -> None:
        self.models: ModelRepository
        self._close = CLOSES[how]
        self._when = name, phase
        self.told: list[tuple[str, object]] = []

    def __call__(self, event: Event) -> None:
        if isinstance(event, StateChanged) and (event.model, event.phase) == self._when:
            self.told.append((threading.current_thread().name, self._close(self.models)))


@every_close
async def test_by_a_release(how: str) -> None:
    """A model that closes its repository as it is released holds up nothing, itself included."""
    told: list[object] = []

    def release(model: Any) -> None:
        told.append(CLOSES[how](models))
        Kept.release(model)

    shelf = Shelf()
    module = shelf.module(release=release)
    # The keep-alive of the other one has the watchdog there when it closes.
    models = shelf.repository("a", "b", module=module, repository={"keep_alive": "1h"})
    with fail_after(PATIENCE):
        await models.load("a")
        await models.load("b")
        assert models._core._watchdog.running
        await models.unload("a")
        await gone(models)
    assert told == [(), ()], "b is released for the close, and closes likewise"
    assert [model.released for model in shelf.made] == [1, 1]
    with pytest.raises(ClosedError):
        await models.load("a")
    assert await models.aclose() == ()


@every_close
async def test_by_a_hook_on_a_worker(how: str) -> None:
    """It waits for no lease; one that is out keeps its model until it is back."""
    hook, shelf = Closing(how, "b", "loading"), Shelf()
    hook.models = models = shelf.repository("a", "b", hooks=[hook])
    with fail_after(PATIENCE):
        await models.load("a")
        lease = models.try_lease("a")
        assert lease is not None
        with pytest.raises(ClosedError):
            await models.load("b")
        await until(lambda: hook.told != [])
        await until(lambda: models.initializer.statistics().threads == 0)
        lease.model.use()
        lease.release()
        await gone(models)
    ((thread, returned),) = hook.told
    assert thread.startswith("anyload-worker")
    assert returned == ()
    assert [model.released for model in shelf.made] == [1, 1]


@every_close
async def test_by_a_hook_on_the_watchdog(how: str) -> None:
    """A model that nobody wants any longer goes on the watchdog's thread, and so may all of it."""
    clock, hook, shelf = FakeClock(), Closing(how, "a", "releasing"), Shelf()
    kept = {"keep_alive": "1h", "b": {"keep_alive": -1}}
    hook.models = models = shelf.repository("a", "b", repository=kept, hooks=[hook], clock=clock)
    with fail_after(PATIENCE):
        await models.load("a")
        lease = models.lease_sync("b")
        clock.advance(3601.0)
        models._core._watchdog.expect(0.0)
        await until(lambda: hook.told != [])
        assert hook.told == [("anyload-keeper", ())]
        lease.release()
        await gone(models)
    assert [model.released for model in shelf.made] == [1, 1]


async def test_by_a_generator_that_is_closed_under_the_lock() -> None:
    """The garbage collector may close one inside of ``with``; what is on its way out goes then."""
    shelf = Shelf()
    models = shelf.repository("a")

    def serves() -> Generator[None, None, None]:
        with models:
            yield

    with fail_after(PATIENCE):
        await models.load("a")
        lease = models.try_lease("a")
        assert lease is not None
        generator = serves()
        next(generator)
        with models._core.step() as todo, models._core.lock:
            models._core.keeper.unload("a", todo)
            generator.close()
        lease.release()
        await gone(models)
    assert shelf.live == 0
