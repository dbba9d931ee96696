"""Holes that a review found, each mended: what would bring one of them back fails here."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import threading
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import pytest
from anyio import create_task_group
from calls import Calls, does, error_of
from scenes import model_on_disk, registry_of

from anyload import (
    Backend,
    BackendConfig,
    BulkLoadError,
    ClosedError,
    Initializer,
    LoadCancelled,
    LoadError,
    ModelConfig,
    ModelNotFoundError,
    ReentrantLoadError,
    Registry,
    check_cancelled,
)
from anyload.events import Event, Started
from anyload.testing import (
    FakeModel,
    Gate,
    at_rest,
    checks_cancelled,
    returns_at_once,
    settled,
    until,
    waits_at,
)


async def test_a_hook_that_raises_system_exit_costs_no_thread() -> None:
    """Whatever a hook raises, the load that it heard of goes on and its slot comes back."""

    def hook(event: Event) -> None:
        if isinstance(event, Started):
            raise SystemExit("out of a hook")

    async with Initializer(registry_of(m=returns_at_once()), hooks=[hook]) as initializer:
        assert isinstance(await initializer.init(ModelConfig("m")), FakeModel)
        await settled(initializer)


async def test_a_log_handler_that_raises_costs_no_timeout(gate: Gate) -> None:
    """A full disk under the log does not end the watchdog: the next limit is kept too."""

    class FullDisk(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            raise OSError("no space left on device")

    logger, handler = logging.getLogger("anyload"), FullDisk()
    logger.addHandler(handler)
    try:
        priority = [{"type": "LOCAL", "timeout": 0.05}]
        registry = registry_of(m=waits_at(gate))
        async with Initializer(registry, backend_priority=priority) as initializer:
            for _ in range(2):
                error = await error_of(initializer, ModelConfig("m"))
                assert [attempt.outcome for attempt in error.attempts] == ["timed_out"]
            gate.open()
            await settled(initializer)
    finally:
        logger.removeHandler(handler)


async def test_a_system_exit_out_of_reading_ends_that_load_only(tmp_path: Path) -> None:
    """What a user's path object raises in the reader thread is the error of its load."""
    here = model_on_disk(tmp_path)

    class Odd(os.PathLike[str]):
        def __fspath__(self) -> str:
            if threading.current_thread() is not threading.main_thread():
                raise SystemExit("out of __fspath__")
            return here

    async with Initializer(registry_of(m=returns_at_once())) as initializer:
        with pytest.raises(ModelNotFoundError, match="SystemExit: out of __fspath__"):
            await initializer.init(Odd())
        assert await initializer.init(here) is not None
        await settled(initializer)


async def test_a_flight_hears_when_its_predecessor_is_overdue(gate: Gate, tmp_path: Path) -> None:
    """Waiting for a cancelled load of one's own model is on the clock once that is overdue."""
    here, told = model_on_disk(tmp_path), threading.Event()

    def load(config: ModelConfig) -> None:
        gate.enter()
        try:
            while True:
                check_cancelled()
        except LoadCancelled:
            told.set()
            stuck.enter()
            raise

    stuck = Gate()
    priority = [{"type": "LOCAL", "timeout": 0.3}]
    async with Initializer(
        registry_of(m=does(load)), backend_priority=priority, max_abandoned_loads=0
    ) as initializer:
        async with create_task_group() as tasks:
            tasks.start_soon(initializer.init, here)
            await gate.entered()
            gate.open()
            tasks.cancel_scope.cancel()
        await until(told.is_set)
        error = await error_of(initializer, here)
        assert "waited for the load of" in error.attempts[0].reason
        stuck.open()
        await settled(initializer)


async def test_a_given_key_keeps_one_load_at_a_time(tmp_path: Path) -> None:
    """A fresh flight of a given key waits until the cancelled one's thread has left."""
    here, overlap = model_on_disk(tmp_path), Gate(open=True)
    first, seen, leave = Gate(), threading.Event(), Gate()

    def load(config: ModelConfig) -> None:
        with_gate = not seen.is_set()
        if with_gate:
            first.enter()
            try:
                while True:
                    check_cancelled()
            except LoadCancelled:
                seen.set()
                leave.enter()
                overlap.enter()
                raise
        assert overlap.count == 1

    async with Initializer(registry_of(m=does(load))) as initializer:
        async with create_task_group() as tasks:
            tasks.start_soon(lambda: initializer.init(here, key="k"))
            await first.entered()
            first.open()
            tasks.cancel_scope.cancel()
        await until(seen.is_set)
        async with create_task_group() as tasks:
            calls = Calls(tasks)
            calls.start("again", initializer, here, key="k")
            await until(lambda: initializer.statistics().queued == 1)
            leave.open()
            assert isinstance(await calls.result("again"), FakeModel)
        await settled(initializer)


async def test_no_worker_keeps_the_last_model_alive(gate: Gate, tmp_path: Path) -> None:
    """A model that its caller has dropped is gone while the worker is in its next load."""
    registry = registry_of(m=returns_at_once(), slow=waits_at(gate))
    async with Initializer(registry, max_concurrent_loads=1) as initializer:
        gone = weakref.ref(await initializer.init(model_on_disk(tmp_path)))
        async with create_task_group() as tasks:
            tasks.start_soon(initializer.init, ModelConfig("slow"))
            await gate.entered()
            gc.collect()
            assert gone() is None
            gate.open()
        await settled(initializer)


async def test_an_overdue_load_is_abandoned_once_a_release_has_ended(tmp_path: Path) -> None:
    """A thread that leaves its release makes room for one that is overdue."""
    hang, load = Gate(), Gate()

    class Hangs(FakeModel):
        def release(self) -> None:
            hang.enter()

    registry = registry_of(m=returns_at_once(), h=waits_at(load))
    registry.module("d")(Hangs)
    priority = [{"type": "LOCAL", "timeout": 0.05}]
    async with Initializer(
        registry,
        backend_priority=priority,
        max_concurrent_loads=1,
        max_abandoned_loads=1,
        release_timeout=0.05,
    ) as initializer:
        with pytest.raises(BulkLoadError):
            # The failure leaves the other model, which has landed or will, to be released.
            await initializer.init_many([ModelConfig("d"), ModelConfig("absent")])
        async with initializer.init_each([ModelConfig("d")]):
            await until(lambda: initializer.statistics().loaded == 2)
        await until(lambda: initializer.statistics().abandoned == 1)
        assert isinstance(await error_of(initializer, ModelConfig("h")), LoadError)
        assert initializer.statistics().overdue == 1
        hang.open()
        await until(lambda: initializer.statistics().overdue == 0)
        assert isinstance(await initializer.init(ModelConfig("m")), FakeModel)
        load.open()
        await settled(initializer)


def test_a_hung_release_does_not_keep_a_close(tmp_path: Path) -> None:
    """A close ends while the release of a discarded model is past its limit."""
    hang = Gate()

    class Hangs(FakeModel):
        def release(self) -> None:
            hang.enter()

    async def main() -> None:
        initializer = Initializer(registry_of(m=Hangs), release_timeout=0.05)
        async with initializer.init_each([ModelConfig("m")]):
            await until(lambda: initializer.statistics().loaded == 1)
        await until(lambda: initializer.statistics().abandoned == 1)
        with anyio.fail_after(20):
            await initializer.aclose(grace=0.1)
        hang.open()
        await until(lambda: at_rest(initializer.statistics()))

    anyio.run(main)


def test_a_close_waits_without_spinning(gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    """A close that has to wait for a load looks at it a few times, not all the time."""
    initializer = Initializer(registry_of(m=waits_at(gate)))
    core: Any = initializer._core
    looks: list[None] = []
    real = core.close_step

    def close_step(seat: Any) -> bool:
        looks.append(None)
        return bool(real(seat))

    monkeypatch.setattr(core, "close_step", close_step)
    thread = threading.Thread(target=initializer.init_sync, args=(ModelConfig("m"),))
    thread.start()
    gate.entered_sync()
    threading.Timer(0.2, gate.open).start()
    assert initializer.close(30) == ()
    thread.join()
    assert len(looks) < 50


def _bulk_inside(build: Callable[[], Any]) -> Any:
    """Return a module that runs this coroutine function on a loop of its own while it loads."""

    class Outer(FakeModel):
        @classmethod
        def load(cls, config: ModelConfig, **kwargs: Any) -> Any:
            model = cls(config, kwargs)
            model.kwargs = {"inside": asyncio.run(build())}
            return model

    return Outer


async def test_errors_of_a_bulk_inside_a_load_are_outcomes(tmp_path: Path) -> None:
    """A model that would wait for itself is a failed outcome; the other one is there."""
    other = ModelConfig("other")
    here = model_on_disk(tmp_path, "outer")

    async def build() -> list[Any]:
        async with initializer.init_each([here, other]) as outcomes:
            each = [outcome async for outcome in outcomes]
        try:
            await initializer.init_many([here, other])
        except BulkLoadError as error:
            return [*each, error]
        raise AssertionError("the bulk did not fail")

    registry = registry_of(outer=_bulk_inside(build), other=returns_at_once())
    initializer = Initializer(registry, max_concurrent_loads=1)
    async with initializer:
        model = await initializer.init(here)
        first, second, error = model.kwargs["inside"]
        assert isinstance(first.error, ReentrantLoadError)
        assert first.report.attempts == ()
        assert isinstance(second.value, FakeModel)
        assert list(error.failed) == [here]
        assert list(error.models) == [other]
        await settled(initializer)


async def test_a_bulk_inside_a_load_that_is_not_wanted_releases_what_it_has(
    gate: Gate,
) -> None:
    """Cancelled between two of its models, it gives the first one back."""
    made: list[FakeModel] = []

    class Made(FakeModel):
        @classmethod
        def load(cls, config: ModelConfig, **kwargs: Any) -> Any:
            made.append(cls(config, kwargs))
            return made[-1]

    async def build() -> Any:
        return await initializer.init_many([ModelConfig("made"), ModelConfig("slow")])

    registry = registry_of(outer=_bulk_inside(build), made=Made, slow=checks_cancelled(gate))
    initializer = Initializer(registry)
    async with initializer:
        async with create_task_group() as tasks:
            tasks.start_soon(initializer.init, ModelConfig("outer"))
            await gate.entered()
            tasks.cancel_scope.cancel()
        gate.open()
        await settled(initializer)
        assert [model.released for model in made] == [1]


async def test_a_nested_load_that_fails_after_its_initializer_was_cut_is_no_harm(
    gate: Gate,
) -> None:
    """Closed under a load that runs inside another initializer's, it ends with ClosedError."""

    def fail(config: ModelConfig) -> None:
        gate.enter()
        raise ValueError("too late to matter")

    inner = Initializer(registry_of(m=does(fail)))
    outer = Initializer(registry_of(o=does(lambda config: inner.init_sync(ModelConfig("m")))))
    async with outer, create_task_group() as tasks:
        calls = Calls(tasks)
        calls.start("outer", outer, ModelConfig("o"))
        await gate.entered()
        await inner.aclose(grace=0)
        gate.open()
        error = await calls.result("outer")
        assert isinstance(error.__cause__, ClosedError | LoadCancelled)
        await settled(outer)


async def test_a_step_that_is_queued_at_a_close_does_not_begin(gate: Gate) -> None:
    """After a close no prepare begins, though one may still be running."""

    class First(FakeModel):
        @classmethod
        def prepare(cls) -> None:
            gate.enter()

    class Second(FakeModel):
        prepared = False

        @classmethod
        def prepare(cls) -> None:
            cls.prepared = True

    initializer = Initializer(registry_of(a=First, b=Second))
    async with create_task_group() as tasks:
        calls = Calls(tasks)
        calls.start("a", initializer, ModelConfig("a"))
        await gate.entered()
        calls.start("b", initializer, ModelConfig("b"))
        await until(lambda: initializer.statistics().preparing == 2)
        await initializer.aclose(grace=0)
        assert isinstance(await calls.result("b"), ClosedError)
        gate.open()
        await until(lambda: initializer.statistics().threads == 0)
    assert not Second.prepared


async def test_a_backend_that_starts_after_the_close_is_stopped(gate: Gate) -> None:
    """A start that ends when nobody waits for it any more is followed by its stop."""
    done: list[str] = []

    class Slow(Backend):
        backend_type = "SLOW"

        def __init__(self, config: BackendConfig) -> None:
            super().__init__(config)

        def start(self) -> None:
            gate.enter()
            done.append("start")

        def stop(self) -> None:
            done.append("stop")

    registry = Registry()
    registry.backend_type(Slow)
    registry.module("m", "SLOW")(returns_at_once())
    initializer = Initializer(registry, backend_priority=[{"type": "SLOW"}])
    async with create_task_group() as tasks:
        calls = Calls(tasks)
        calls.start("m", initializer, ModelConfig("m"))
        await gate.entered()
        await initializer.aclose(grace=0)
        gate.open()
        await until(lambda: done == ["start", "stop"])
        assert isinstance(await calls.result("m"), ClosedError)


async def test_no_thread_for_a_preparation_is_the_error_of_its_load(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Where no thread can be started, a load that waits for its prepare ends too."""

    class Prepared(FakeModel):
        @classmethod
        def prepare(cls) -> None:
            """Import nothing."""

    def start(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    async with Initializer(registry_of(m=Prepared)) as initializer:
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", start)
            error = await error_of(initializer, ModelConfig("m"))
        assert "can't start new thread" in str(error)
        assert isinstance(await initializer.init(ModelConfig("m")), Prepared)
        await settled(initializer)


def test_a_backend_is_available_unless_it_says_otherwise() -> None:
    """The default of available() is that nothing stands in the way."""
    assert Backend(BackendConfig()).available() is None
