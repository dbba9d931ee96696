"""What the front door does that the table of semantics does not tell."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest
from anyio import create_task_group, move_on_after
from calls import Calls, Gpu
from scenes import model_on_disk, registry_of

from anyload import ClosedError, Initializer, ModelConfig, Registry
from anyload.testing import FakeModel, Gate, settled, until, waits_at


@pytest.fixture
def own_sigint() -> Iterator[None]:
    # The runner of the async tests may have a handler of its own, which keeps the signal.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("name", ["load_backend", "timeout"])
async def test_a_reserved_name_is_no_load_kwarg(name: str) -> None:
    """It is the library's own; nothing is begun."""
    async with Initializer(registry_of(m=FakeModel)) as initializer:
        with pytest.raises(TypeError, match=f"{name!r} is a reserved name"):
            await initializer.init(ModelConfig("m"), **{name: 1})
        assert initializer.statistics().flights == 0


async def test_one_config_with_a_path_is_one_load(gate: Gate, tmp_path: Path) -> None:
    """Callers with the same config share a load; a config without a path is never shared."""
    on_disk = ModelConfig("m", model_on_disk(tmp_path))
    async with Initializer(registry_of(m=waits_at(gate))) as initializer:
        async with create_task_group() as tasks:
            calls = Calls(tasks)
            for name in ("one", "two"):
                calls.start(name, initializer, on_disk)
            bare = ModelConfig("m")
            for name in ("three", "four"):
                calls.start(name, initializer, bare)
            await until(lambda: initializer.statistics().running == 3)
            gate.open()
            results = [await calls.result(name) for name in ("one", "two", "three", "four")]
        assert results[0] is results[1]
        assert len(set(map(id, results))) == 3


class SlowToAsk(Gpu):
    gate: Gate

    def available(self) -> str | None:
        self.gate.enter()
        return None


async def test_a_plan_can_be_cancelled(gate: Gate) -> None:
    """Its caller leaves at once, also while a backend is asked, and nothing is left behind."""
    SlowToAsk.gate = gate
    registry = Registry()
    registry.backend_type(SlowToAsk)
    registry.module("m", "GPU")(FakeModel)
    async with Initializer(registry, backend_priority=[{"type": "GPU"}]) as initializer:
        with move_on_after(0.05) as scope:
            await initializer.plan(ModelConfig("m"))
        assert scope.cancelled_caught
        assert initializer.statistics().waiters == 0
        gate.open()
        assert len((await initializer.plan(ModelConfig("m"))).candidates) == 1
        await settled(initializer)


def test_ctrl_c_ends_the_grace_of_close(gate: Gate, own_sigint: None) -> None:
    """An interrupted close() gives the callers their ClosedError and says so to its caller."""
    initializer = Initializer(registry_of(m=waits_at(gate)))
    errors: list[Exception] = []

    def call() -> None:
        try:
            initializer.init_sync(ModelConfig("m"))
        except ClosedError as error:
            errors.append(error)

    def interrupt() -> None:
        while "closed" not in repr(initializer):
            time.sleep(0.005)
        time.sleep(0.05)
        signal.pthread_kill(main, signal.SIGINT)

    main = threading.main_thread().ident or 0
    caller, interrupter = threading.Thread(target=call), threading.Thread(target=interrupt)
    caller.start()
    gate.entered_sync()
    interrupter.start()
    with pytest.raises(KeyboardInterrupt):
        initializer.close(grace=60)
    interrupter.join()
    caller.join(10)
    assert [type(error) for error in errors] == [ClosedError]
    gate.open()
    while initializer.statistics().abandoned:  # until its thread has left the load
        time.sleep(0.005)
    assert initializer.close() == ()


async def test_a_loop_inside_a_load_loads_there() -> None:
    """init() on a loop that a load runs takes that load's thread, and gives the model."""
    threads: list[int] = []

    class Inner(FakeModel):
        @classmethod
        def load(cls, config: ModelConfig, **kwargs: Any) -> Any:
            threads.append(threading.get_ident())
            return cls(config, kwargs)

    class Outer(FakeModel):
        @classmethod
        def load(cls, config: ModelConfig, **kwargs: Any) -> Any:
            threads.append(threading.get_ident())
            inner = anyio.run(initializer.init, ModelConfig("inner"))
            return cls(config, {"inner": inner})

    registry = registry_of(inner=Inner, outer=Outer)
    async with Initializer(registry, max_concurrent_loads=1) as initializer:
        loaded = await initializer.init(ModelConfig("outer"))
        assert type(loaded.kwargs["inner"]) is Inner
        assert threads[0] == threads[1]


async def test_its_repr_counts() -> None:
    """The figures and the state are in the repr, and no path or field."""
    async with Initializer(registry_of(m=FakeModel)) as initializer:
        await initializer.init(ModelConfig("m", token="secret"))
        expected = "running=0 queued=0 abandoned=0 loaded=1 failed=0>"
        assert repr(initializer) == f"<Initializer {expected}"
    assert repr(initializer) == f"<Initializer closed {expected}"


@pytest.mark.parametrize("grace", [10**400, 10**5000], ids=["of 400 digits", "of 5000 digits"])
async def test_a_grace_that_no_clock_can_add(grace: int) -> None:
    """It is refused before anything is closed, in a text that has an end."""
    async with Initializer(registry_of(m=FakeModel)) as initializer:
        with pytest.raises(ValueError, match="grace is a number of seconds, 0 or more, not"):
            await initializer.aclose(grace)
        with pytest.raises(ValueError, match="grace is a number of seconds, 0 or more, not"):
            initializer.close(grace)
        assert await initializer.init(ModelConfig("m")) is not None
