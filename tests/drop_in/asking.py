"""What the tests of the options share: an initializer of ours, and callers in threads."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from scenes import LIMIT, let_pass
from worlds import Call, Does, Outcome, World

from anyload import Statistics
from anyload._load.figures import statistics
from anyload.testing import PATIENCE, Gate, at_rest

SHORT = 0.05


def gpu_then_local(**gpu: Any) -> list[dict[str, Any]]:
    """Return a ``backend_priority``, with further keys for its first entry."""
    return [{"type": "GPU", **gpu}, {"type": "LOCAL"}]


def on_two_backends(world: World, does: Does) -> tuple[Any, Any]:
    """Register a module on GPU that does this, and one on LOCAL that loads; return both."""
    world.backend_type("GPU")
    return world.module("GPU", does=does, SUPPORTED_LOAD_BACKENDS=["LOCAL"]), world.module()


def waits_at(gate: Gate) -> Does:
    """Return what loads when the gate lets it."""

    def does(call: Call) -> Any:
        gate.enter()
        return call.cls()

    return does


def figures(world: World) -> Statistics:
    """Return what the newest initializer is doing."""
    return statistics(world.initializer._core)


def until(condition: Callable[[], bool]) -> None:
    """Wait in a plain thread until another thread has brought something about."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError("the condition did not come to hold")
        time.sleep(0.001)


def settled(world: World) -> None:
    """Wait until every slot is free, every table empty, and nothing is left behind."""
    until(lambda: at_rest(figures(world)))


class Asking:
    """Callers of ``init`` in threads of their own; leaving it waits for them.

    Args:
        world: where the newest initializer is asked.
    """

    def __init__(self, world: World) -> None:
        self._world = world
        self._threads = ThreadPoolExecutor(8)

    def __enter__(self) -> Asking:
        return self

    def __exit__(self, *error: object) -> None:
        self._threads.shutdown()

    def ask(self, config: Any = None, /, **kwargs: Any) -> Future[Any]:
        """Ask for a model, and return what will come of it."""
        config = self._world.config() if config is None else config
        return self._threads.submit(self._world.initializer.init, config, **kwargs)


def load_late(world: World, gate: Gate) -> Outcome:
    """Load, have the limit pass once the load has come to the gate, and return what comes of it."""
    with Asking(world) as asking:
        asked = asking.ask()
        gate.entered_sync()
        let_pass(world.initializer, 2 * LIMIT)
        return world.tries(asked.result)
