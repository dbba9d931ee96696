"""What modules and backends run outside of a load: it waits for no load, and cannot stop one."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import pytest
from anyio import create_task_group
from calls import error_of
from scenes import LIMIT, Caller, let_pass, model_on_disk, registry_of

from anyload import Backend, Initializer, LoadError, ModelConfig, ReentrantLoadError, Registry
from anyload._load.core import Core
from anyload._load.todo import Todo
from anyload.testing import FakeModel, Gate, returns_at_once, settled, until, waits_at

OTHER = ModelConfig("other")


class Asks:
    """Asks for a model where it must not, and keeps what it got."""

    def __init__(self, ask: Callable[[Initializer], object]) -> None:
        self._ask = ask
        self.initializer: Initializer | None = None
        self.error: BaseException | None = None

    def __call__(self) -> None:
        assert self.initializer is not None
        try:
            self._ask(self.initializer)
        except ReentrantLoadError as error:
            self.error = error


def asks_for_one(initializer: Initializer) -> object:
    return initializer.init_sync(OTHER)


def asks_for_many(initializer: Initializer) -> object:
    return initializer.init_each([OTHER])


def asks_on_a_loop(initializer: Initializer) -> object:
    return asyncio.run(initializer.init(OTHER))


ASKING = pytest.mark.parametrize("ask", [asks_for_one, asks_for_many, asks_on_a_loop])


class TestAModule:
    @ASKING
    async def test_prepare(self, ask: Callable[[Initializer], object]) -> None:
        """A ``prepare`` that waited for a load would hold up the imports that this needs."""
        asks = Asks(ask)
        module = returns_at_once(prepare=classmethod(lambda cls: asks()))
        async with Initializer(registry_of(m=module, other=returns_at_once())) as initializer:
            asks.initializer = initializer
            await initializer.init(ModelConfig("m"))
            await settled(initializer)
        assert "would wait for itself: prepare() of " in str(asks.error)

    async def test_release(self) -> None:
        """A ``release`` holds the group that a load may need."""
        asks = Asks(asks_for_one)
        registry = registry_of(
            m=returns_at_once(release=lambda model: asks()), other=returns_at_once()
        )
        async with Initializer(registry) as initializer:
            asks.initializer = initializer
            async with initializer.init_each([ModelConfig("m")]):
                await until(lambda: initializer.statistics().loaded == 1)
            await until(lambda: asks.error is not None)
            await settled(initializer)
        assert "the release of 'm' -> other" in str(asks.error)


async def test_a_backend(tmp_path: Path) -> None:
    """``available``, ``start`` and ``stop`` are asked while loads wait."""
    names = ("available", "start", "stop")
    asks = {name: Asks(asks_for_one) for name in names}
    calls: dict[str, Any] = {name: lambda self, name=name: asks[name]() for name in names}
    registry = registry_of(m=returns_at_once(), other=returns_at_once())
    registry.backend_type(type("Odd", (Backend,), {"backend_type": "ODD", **calls}))
    registry.module("m", "ODD")(returns_at_once())
    async with Initializer(registry, backend_priority=[{"type": "ODD"}]) as initializer:
        for one in asks.values():
            one.initializer = initializer
        await initializer.init(model_on_disk(tmp_path))
        await settled(initializer)
    assert [type(one.error) for one in asks.values()] == 3 * [ReentrantLoadError]


class SlowText(Exception):
    """An error whose text is made by code that asks who holds the lock."""

    lock: Any
    held: list[bool] = []  # noqa: RUF012  # read by the test

    def __str__(self) -> str:
        self.held.append(self.lock.mine())
        return "slow"


async def test_texts_of_errors_are_made_without_the_lock() -> None:
    """An error's text is somebody else's code: it must not keep every load of the process."""

    def fails(cls: type[FakeModel]) -> None:
        raise SlowText

    SlowText.held.clear()
    module = returns_at_once(prepare=classmethod(fails))
    async with Initializer(registry_of(m=module), hooks=[lambda event: None]) as initializer:
        SlowText.lock = initializer._core.lock
        error = await error_of(initializer, ModelConfig("m"))
        assert isinstance(error, LoadError)
        assert error.attempts[0].reason.endswith("raised SlowText: slow")
        await settled(initializer)
    assert True not in SlowText.held


async def test_what_a_caller_gave_goes_without_the_lock(gate: Gate) -> None:
    """A load kwarg of a load that was given up goes with its thread; its code is not ours."""
    held = list[bool]()

    class Given:
        def __del__(self) -> None:
            held.append(initializer._core.lock.mine())

    class Waits(FakeModel):
        @classmethod
        def load(cls, config: ModelConfig, **kwargs: Any) -> FakeModel:
            kwargs.clear()
            gate.enter()
            return cls(config, {})

    priority = [{"type": "LOCAL", "timeout": LIMIT}]
    async with Initializer(registry_of(m=Waits), backend_priority=priority) as initializer:
        async with create_task_group() as tasks:
            caller = Caller(tasks, initializer, ModelConfig("m"), given=Given())
            await gate.entered()
            await caller.cancel()
        del tasks, caller
        let_pass(initializer, 2 * LIMIT)
        gate.open()
        await settled(initializer)
        await until(lambda: bool(held))
    assert held == [False]


request: ContextVar[object] = ContextVar("request")

GIVEN: dict[str, Callable[[Any, str], Any]] = {
    "a path": lambda given, path: given,
    "a field": lambda given, path: ModelConfig("m", path, given=given),
    "a context": lambda given, path: [request.set(given), path][1],
}


@pytest.mark.usefixtures("no_collection")
@pytest.mark.parametrize("left", ["while it was looked up", "while it was loaded"])
@pytest.mark.parametrize("how", GIVEN)
async def test_what_a_caller_gave_goes_without_the_lock_when_all_have_left(
    how: str, left: str, gate: Gate, tmp_path: Path
) -> None:
    """As with a request's session in its context: it may take its time to close."""
    held, path = list[bool](), model_on_disk(tmp_path)

    class Given:
        def __fspath__(self) -> str:
            return path

        def __del__(self) -> None:
            held.append(initializer._core.lock.mine())

    class Waits(FakeModel):
        @classmethod
        def variant(cls, config: ModelConfig) -> type:
            if left == "while it was looked up":
                gate.enter()
            return cls

        @classmethod
        def load(cls, config: ModelConfig, **kwargs: Any) -> FakeModel:
            gate.enter()
            return cls(config, {})

    async def ask() -> None:
        await initializer.init(GIVEN[how](Given(), path))

    async with Initializer(registry_of(m=Waits)) as initializer:
        async with create_task_group() as tasks:
            tasks.start_soon(ask)
            await gate.entered()
            tasks.cancel_scope.cancel()
        del tasks
        gate.open()
        await settled(initializer)
    gc.collect()  # an error leads to some of them
    assert held == [False]


async def test_a_flight_that_has_ended_is_let_go_of_without_the_lock(
    gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the context of who began it, whoever else holds them, or no longer does."""
    dropped, perform = list[Any](), Core.perform

    def noting(core: Core, todo: Todo) -> None:
        dropped.extend(todo.dropped)
        perform(core, todo)

    monkeypatch.setattr(Core, "perform", noting)
    async with Initializer(registry_of(m=waits_at(gate))) as initializer:
        async with create_task_group() as tasks:
            caller = Caller(tasks, initializer, ModelConfig("m"))
            await gate.entered()
            (flight,) = initializer._core.flights.live
            context = flight.context
            gate.open()
            await caller.result()
        await settled(initializer)
    assert flight in dropped
    assert context in dropped


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"hooks": [5]}, "a hook is called with each event, and 5 cannot be called"),
        ({"admission": 5}, "an admission has a method may_start, and 5 has none"),
    ],
)
def test_what_cannot_be_called_is_refused(given: dict[str, Any], text: str) -> None:
    """In a load it would be too late."""
    with pytest.raises(TypeError, match=text):
        Initializer(Registry(), **given)
