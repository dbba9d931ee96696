"""Loads that cannot begin, or whose beginning is interrupted: nobody waits for them for ever."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import pytest
from anyio import fail_after
from keeping import Shelf, emptied, quiet

from anyload import ClosedError, LoadError, ModelRepository
from anyload.testing import until


async def test_with_a_closed_initializer() -> None:
    """The model is not LOADING, whoever asks is told the same, and what serves goes on."""
    async with Shelf().repository("a", "b") as models:
        await models.load("b")
        await models.initializer.aclose()
        for _ in range(2):
            with pytest.raises(ClosedError):
                await models.load("a")
            assert models.status("a").state == "UNAVAILABLE"
            assert models.status("a").reason.startswith("its load could not begin: ClosedError")
            assert models.statistics().loading == models.statistics().waiting == 0
        with pytest.raises(ClosedError):
            await models.swap("b")
        assert models.status("b").state == "READY"
    await emptied(models)


async def test_without_memory_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is raised before there is a flight leaves nothing either; the next one loads."""
    async with Shelf().repository("a") as models:
        with monkeypatch.context() as patch:
            patch.setattr(models.initializer._requests, "for_one", raising(MemoryError))
            with pytest.raises(MemoryError):
                await models.load("a")
        assert models.status("a").reason == "its load could not begin: MemoryError"
        assert quiet(models)
        await models.load("a")
    await emptied(models)


class Interrupted(dict[Any, Any]):
    """A table in which somebody presses Ctrl-C when something is put there."""

    def __setitem__(self, *_: object) -> None:
        raise KeyboardInterrupt


@pytest.mark.parametrize("where", ["orders", "move", "sit"])
async def test_an_interrupt_before_there_is_a_flight(
    where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wherever it comes, the order is gone, no flight ends that never began; the next one loads."""
    async with Shelf().repository("a") as models:
        core = models._core
        tell = core.house._tell

        def interrupted(event: Any) -> None:
            tell(event)
            if event.phase == "queued":
                raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            if where == "orders":
                patch.setattr(core.house.tables, "orders", Interrupted())
            elif where == "move":
                patch.setattr(core.house, "_tell", interrupted)
            else:
                patch.setattr(models.initializer._callers, "sit", raising(KeyboardInterrupt))
            with pytest.raises(KeyboardInterrupt):
                models.lease_sync("a")
        assert models.status("a").reason == "its load could not begin: KeyboardInterrupt"
        assert quiet(models)
        assert models.initializer.statistics().cancelled == 0
        await models.load("a")
    await emptied(models)


async def test_the_second_try_after_memory_ran_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """If there is no memory even to begin it, who waits gets the error of the first."""
    models: ModelRepository

    def runs_out(_: object) -> None:
        monkeypatch.setattr(models.initializer._requests, "for_one", raising(MemoryError))
        raise MemoryError("no")

    shelf = Shelf(runs_out)
    async with shelf.repository("a") as models:
        with fail_after(10), pytest.raises(LoadError, match="MemoryError: no"):
            await models.load("a")
        assert shelf.loads == ["a"]
        assert models.status("a").reason == "its load could not begin: MemoryError"
        await until(lambda: quiet(models))
    await emptied(models)


async def test_an_interrupt_before_a_worker_is_called(monkeypatch: pytest.MonkeyPatch) -> None:
    """The load is there and nobody is at it: the next one who asks calls a worker to it."""
    async with Shelf().repository("a") as models:
        with monkeypatch.context() as patch:
            patch.setattr(models.initializer._core, "_call_worker", raising(KeyboardInterrupt))
            with pytest.raises(KeyboardInterrupt):
                await models.load_preloaded(["a"])
        assert models.status("a").phase == "queued"
        with fail_after(10):
            await models.load("a")
    await emptied(models)


def test_near_the_recursion_limit() -> None:
    """Wherever the stack ends, the error leaves nothing, and the next one has the model."""

    def lease() -> None:
        with models.lease_sync("a", timeout=10):
            pass

    with Shelf().repository("a", repository={"keep_alive": 0}) as models:
        lease()
        raised = 0
        for spare in range(10, 150, 3):
            try:
                deep(sys.getrecursionlimit() - depth() - spare, lease)
            except RecursionError:
                raised += 1
                assert models.statistics().loading == models.statistics().waiting == 0
        assert 20 < raised < 40
        lease()


def deep(frames: int, call: Callable[[], None]) -> None:
    """Call something so many frames further down the stack."""
    if frames:
        deep(frames - 1, call)
    else:
        call()


def depth() -> int:
    """Return how many frames there are on the stack."""
    frames, frame = 0, sys._getframe()
    while frame.f_back is not None:
        frames, frame = frames + 1, frame.f_back
    return frames


def raising(error: type[BaseException]) -> Callable[..., Any]:
    """Return what raises this whenever it is called."""

    def call(*_: object) -> Any:
        raise error

    return call
