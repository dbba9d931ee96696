"""For tests of code that loads models: gates to hold a load at, and modules that misbehave.

::

    gate = Gate()
    registry = Registry()
    registry.module("slow")(waits_at(gate))

    async with Initializer(registry) as initializer, create_task_group() as tasks:
        tasks.start_soon(initializer.init, ModelConfig("slow"))
        await gate.entered()        # the load is in its thread
        gate.open()                 # ... and now it may end

Order tests by gates and by `settled`, not by sleeping.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

from anyio import sleep

from ._load.call import check_cancelled, report_progress
from .initializer import Initializer
from .model_config import ModelConfig
from .reports import Statistics

PATIENCE = 30.0
"""How long anything here waits before it fails, in seconds: so that a hang ends a test."""


class Gate:
    """A place in a load where it waits until the test lets it go on.

    Args:
        open: whether it is open from the start; then it only counts.
    """

    def __init__(self, *, open: bool = False) -> None:  # noqa: A002  # it is the gate's word
        self._changed = threading.Condition()
        self._open = open
        self._let_through = 0
        self.count = 0
        self.inside = 0
        self.most_inside = 0

    def enter(self) -> None:
        """Wait here until the gate is open; call it in a load."""
        with self._changed:
            self.count += 1
            self.inside += 1
            self.most_inside = max(self.most_inside, self.inside)
            self._changed.notify_all()
            passed = self._changed.wait_for(self._may_pass, PATIENCE)
            self.inside -= 1
            self._changed.notify_all()
        if not passed:
            raise TimeoutError(f"nobody opened the gate for {PATIENCE} s")

    def _may_pass(self) -> bool:
        if self._open:
            return True
        if self._let_through:
            self._let_through -= 1
            return True
        return False

    def open(self) -> None:
        """Let everything through from now on."""
        with self._changed:
            self._open = True
            self._changed.notify_all()

    def let_through(self, number: int = 1) -> None:
        """Let this many through, and hold the others."""
        with self._changed:
            self._let_through += number
            self._changed.notify_all()

    async def entered(self, number: int = 1) -> None:
        """Wait until this many loads have come to the gate, in all."""
        await until(lambda: self.count >= number)

    def entered_sync(self, number: int = 1) -> None:
        """Wait until this many loads have come to the gate; for plain threads."""
        with self._changed:
            if not self._changed.wait_for(lambda: self.count >= number, PATIENCE):
                raise TimeoutError(f"{self.count} loads came to the gate, not {number}")


async def until(condition: Callable[[], bool]) -> None:
    """Wait until a condition holds that another thread will bring about.

    Raises:
        TimeoutError: it did not come to hold within 30 seconds.
    """
    deadline = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError("the condition did not come to hold")
        await sleep(0.001)


class FakeClock:
    """A monotonic clock that stands still until the test moves it; for `ModelRepository`.

    ::

        clock = FakeClock()
        models = ModelRepository(registry, clock=clock, ...)
        clock.advance(300)
        models.reconsider()         # what was due in that time is done
    """

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        """Return the time, in seconds."""
        return self.now

    def advance(self, seconds: float) -> None:
        """Let this much time pass."""
        self.now += seconds


class FakeMeter:
    """Tells how much memory there is, for budgets that are shares of it; for `ModelRepository`.

    Args:
        totals: the bytes of each device.
    """

    def __init__(self, **totals: int) -> None:
        self.totals = {device.replace("_", ":"): size for device, size in totals.items()}

    def total(self, device: str) -> int | None:
        """Return the bytes of a device, or None for one that was not named."""
        return self.totals.get(device)


def at_rest(statistics: Statistics) -> bool:
    """Return whether nothing runs, waits, or was left behind, and every slot is free."""
    return (
        statistics.free_slots == statistics.slots
        and statistics.waiters == 0
        and statistics.flights == 0
        and statistics.running == 0
        and statistics.overdue == 0
        and statistics.abandoned == 0
        and statistics.stuck_lookups == 0
        and statistics.stuck_preparations == 0
        and statistics.releasing == 0
    )


async def settled(initializer: Initializer) -> None:
    """Wait until an initializer is at rest: slots back, tables empty, nothing left behind."""
    await until(lambda: at_rest(initializer.statistics()))


class FakeModel:
    """What the modules here load; it remembers how it was loaded and whether it was released."""

    exclusive_group: str | None = None
    holds_gil = False

    def __init__(self, config: ModelConfig, kwargs: dict[str, Any]) -> None:
        self.config = config
        self.kwargs = kwargs
        self.released = 0

    @classmethod
    def load(cls, config: ModelConfig, **kwargs: Any) -> Any:
        """Return a model at once."""
        return cls(config, kwargs)

    def release(self) -> None:
        """Count the release."""
        self.released += 1


def _module(name: str, load: Callable[..., Any], attributes: dict[str, Any]) -> type[FakeModel]:
    def load_method(cls: Any, config: ModelConfig, /, **kwargs: Any) -> Any:
        return load(cls, config, kwargs)

    return type(name, (FakeModel,), {"load": classmethod(load_method), **attributes})


def returns_at_once(**attributes: Any) -> type[FakeModel]:
    """Return a module that loads at once; attributes such as ``exclusive_group`` are set on it."""
    return _module("ReturnsAtOnce", lambda cls, config, kwargs: cls(config, kwargs), attributes)


def waits_at(gate: Gate, **attributes: Any) -> type[FakeModel]:
    """Return a module that loads when the gate lets it."""

    def load(cls: type[FakeModel], config: ModelConfig, kwargs: dict[str, Any]) -> FakeModel:
        gate.enter()
        return cls(config, kwargs)

    return _module("WaitsAt", load, attributes)


def sleeps(seconds: float, **attributes: Any) -> type[FakeModel]:
    """Return a module that sleeps before it loads."""

    def load(cls: type[FakeModel], config: ModelConfig, kwargs: dict[str, Any]) -> FakeModel:
        time.sleep(seconds)
        return cls(config, kwargs)

    return _module("Sleeps", load, attributes)


def hangs(**attributes: Any) -> type[FakeModel]:
    """Return a module that never comes back, and hears of nothing."""

    def load(cls: type[FakeModel], config: ModelConfig, kwargs: dict[str, Any]) -> FakeModel:
        threading.Event().wait()
        raise AssertionError("unreachable")

    return _module("Hangs", load, attributes)


def raises(error: Callable[[], BaseException], **attributes: Any) -> type[FakeModel]:
    """Return a module that raises; ``error`` makes the exception, anew for each load."""

    def load(cls: type[FakeModel], config: ModelConfig, kwargs: dict[str, Any]) -> FakeModel:
        raise error()

    return _module("Raises", load, attributes)


def returns(value: Any, **attributes: Any) -> type[FakeModel]:
    """Return a module whose load returns this, whatever it is: None, a class, a foreign thing."""
    return _module("Returns", lambda cls, config, kwargs: value, attributes)


def holds_gil(seconds: float, **attributes: Any) -> type[FakeModel]:
    """Return a module that keeps the GIL while it loads, as far as pure Python can."""

    def load(cls: type[FakeModel], config: ModelConfig, kwargs: dict[str, Any]) -> FakeModel:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            sum(range(200_000))  # one call into C, which does not let go of the GIL
        return cls(config, kwargs)

    return _module("HoldsGil", load, {"holds_gil": True, **attributes})


def reports(gate: Gate, steps: int = 3, **attributes: Any) -> type[FakeModel]:
    """Return a module that reports progress, and comes to the gate before each report."""

    def load(cls: type[FakeModel], config: ModelConfig, kwargs: dict[str, Any]) -> FakeModel:
        for step in range(steps):
            gate.enter()
            report_progress((step + 1) / steps, stage=f"step {step + 1}")
        return cls(config, kwargs)

    return _module("Reports", load, attributes)


def checks_cancelled(gate: Gate, **attributes: Any) -> type[FakeModel]:
    """Return a module that comes to the gate, and then loads until it is told to stop."""

    def load(cls: type[FakeModel], config: ModelConfig, kwargs: dict[str, Any]) -> FakeModel:
        gate.enter()
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            check_cancelled()
            time.sleep(0.001)
        raise TimeoutError("nobody cancelled the load")

    return _module("ChecksCancelled", load, attributes)
