"""What the tests of loading share: callers in tasks of their own, models on disk, registries."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from anyio import CancelScope, Event, create_task_group
from anyio.abc import TaskGroup
from calls import Calls, two_backends

from anyload import AnyloadError, Initializer, LoadError, Registry
from anyload.testing import Gate


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


async def error_of_late(initializer: Initializer, model: Any, gate: Gate, **options: Any) -> Any:
    """Load, have its limit pass once it has come to the gate, and return what it ends with.

    A limit that is really short may be over before the thread has come anywhere.
    """
    async with create_task_group() as tasks:
        calls, come = Calls(tasks), gate.count
        calls.start("it", initializer, model, **options)
        await gate.entered(come + 1)
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
