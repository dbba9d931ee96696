"""What the tests of loading share: callers in tasks of their own, models on disk, registries."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from time import monotonic
from typing import Any

import anyio
import pytest
from anyio import CancelScope, Event, create_task_group
from anyio.abc import TaskGroup
from calls import Calls, two_backends

from anyload import AnyloadError, Initializer, LoadError, Registry
from anyload.testing import Gate, until


def no_thread_left(thread: threading.Thread) -> None:
    """What `threading.Thread.start` does on a machine that has no thread left."""
    raise RuntimeError("can't start new thread")


def start_interrupted(
    monkeypatch: pytest.MonkeyPatch, call: Callable[[], object]
) -> threading.Thread:
    """Interrupt a call as it starts a thread, and return the thread, which has yet to start."""
    threads = list[threading.Thread]()

    def interrupted(thread: threading.Thread) -> None:
        threads.append(thread)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", interrupted)
        with pytest.raises(KeyboardInterrupt):
            call()
    (thread,) = threads
    return thread


def until_sync(condition: Callable[[], bool]) -> None:
    """Wait likewise, in a plain thread; see `until`."""
    anyio.run(until, condition)


def registry_of(**modules: type) -> Registry:
    """Return a registry with these modules, all of them on LOCAL."""
    registry = two_backends()
    for module_id, cls in modules.items():
        registry.module(module_id)(cls)
    return registry


def registry_of_two(first: type, second: type) -> Registry:
    """Return a registry with one module ``m``: the first class on GPU, the second on LOCAL."""
    registry = registry_of(m=second)
    registry.module("m", "GPU")(first)
    return registry


def model_on_disk(parent: Path, module_id: str = "m", name: str | None = None) -> str:
    """Make a model directory, named like its module if not otherwise, and return its path."""
    directory = parent / (name or module_id)
    directory.mkdir()
    (directory / "config.yml").write_text(f"module_id: {module_id}\n")
    return str(directory)


LIMIT = 30.0
"""A limit that no load comes to by itself, in seconds; see `error_of_late`."""


def let_pass(initializer: Initializer, seconds: float) -> None:
    """Have an initializer act, now, on the limits that will have passed in so many seconds."""
    core = initializer._core
    clock = core.clock
    core.clock = lambda: clock() + seconds
    try:
        core.ring()
    finally:
        core.clock = clock


class Clock:
    """The clock of an initializer that has not loaded yet: it goes on, and can be put forward.

    For what was waited, or how long something took; `let_pass` changes nothing of that.
    """

    def __init__(self, initializer: Initializer) -> None:
        self._core = initializer._core
        self._ahead = 0.0
        self._core.clock = self
        self._core._start_afresh()  # with all that has the clock

    def __call__(self) -> float:
        return monotonic() + self._ahead

    def forward(self, seconds: float) -> None:
        """Let this much time pass, and have the initializer act on what is due then."""
        self._ahead += seconds
        self._core.ring()

    def pass_for_the_watchdog(self, seconds: float) -> None:
        """Let this much time pass, and leave it to the watchdog to act, on its thread."""
        self._ahead += seconds
        self._core.watchdog.expect(0.0)


async def error_of_late(initializer: Initializer, model: Any, gate: Gate, **options: Any) -> Any:
    """Load, have its limit pass once it has come to the gate, and return what it ends with.

    A limit that is really short may be over before the thread has come anywhere.
    """
    come = gate.count + 1
    return await _error_after(initializer, model, lambda: gate.count >= come, **options)


async def error_of_queued(initializer: Initializer, model: Any, **options: Any) -> Any:
    """Load what has to queue, have its limit pass there, and return what it ends with."""
    queued = initializer.statistics().queued + 1

    def is_queued() -> bool:
        return initializer.statistics().queued >= queued

    return await _error_after(initializer, model, is_queued, **options)


async def _error_after(
    initializer: Initializer, model: Any, condition: Callable[[], bool], **options: Any
) -> Any:
    async with create_task_group() as tasks:
        calls = Calls(tasks)
        calls.start("it", initializer, model, **options)
        await until(condition)
        let_pass(initializer, 2 * LIMIT)
        error = await calls.result("it")
    assert isinstance(error, AnyloadError), error
    return error


class Caller:
    """One ``init`` in a task of its own, and what came of it."""

    def __init__(
        self, tasks: TaskGroup, initializer: Initializer, model: Any, **kwargs: Any
    ) -> None:
        self.value: Any = None
        self.error: AnyloadError | None = None
        self.cancelled = False
        self._scope = CancelScope()
        self._ended = Event()
        tasks.start_soon(self._call, initializer, model, kwargs)

    async def _call(self, initializer: Initializer, model: Any, kwargs: dict[str, Any]) -> None:
        with self._scope:
            try:
                self.value = await initializer.init(model, **kwargs)
            except AnyloadError as error:
                self.error = error
        self.cancelled = self._scope.cancelled_caught
        self._ended.set()

    async def cancel(self) -> None:
        """Cancel it, and wait until it has gone."""
        self._scope.cancel()
        await self._ended.wait()
        assert self.cancelled

    async def result(self) -> Any:
        """Return its model."""
        await self._ended.wait()
        assert self.error is None, self.error
        assert not self.cancelled
        return self.value

    async def failure(self) -> AnyloadError:
        """Return its error."""
        await self._ended.wait()
        assert self.error is not None
        return self.error

    async def load_error(self) -> LoadError:
        """Return its error, a LoadError."""
        error = await self.failure()
        assert isinstance(error, LoadError)
        return error
