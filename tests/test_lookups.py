"""Looking models up: one that hangs holds up itself, however often it is asked for, and no more."""

from __future__ import annotations

import threading
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from anyio import create_task_group
from calls import Calls
from scenes import LIMIT, Caller, let_pass, model_on_disk, no_thread_left, registry_of

from anyload import Initializer, LoadError, LoadTimeoutError, ModelConfig, ModelRepository
from anyload._load.alarms import Alarms
from anyload._load.lookups import MOST_READERS, SLOW_SECONDS, Lookups
from anyload._load.process import Process
from anyload._load.todo import Todo
from anyload.testing import FakeModel, Gate, settled, until


def told_apart_at(gate: Gate) -> type:
    """Return a module whose variant, which a look-up asks for, is told at a gate."""

    class Varies(FakeModel):
        @classmethod
        def variant(cls, config: ModelConfig) -> Any:
            gate.enter()
            return cls

    return Varies


def models_of(module: str, number: int, parent: Path) -> list[str]:
    return [model_on_disk(parent, module, f"{module} {each}") for each in range(number)]


async def refused(initializer: Initializer, models: list[str], gate: Gate) -> None:
    """Ask for models whose look-ups hang until they are given up."""
    async with create_task_group() as tasks:
        calls, before = Calls(tasks), gate.count
        for model in models:
            calls.start(model, initializer, model)
        await gate.entered(before + len(models))
        let_pass(initializer, 2 * LIMIT)
        for model in models:
            error = await calls.result(model)
            assert isinstance(error, LoadTimeoutError)
            assert str(error).endswith(": it was still being looked up")


async def test_those_that_hang_hold_up_no_other(gate: Gate, tmp_path: Path) -> None:
    """Look-ups that nobody waits for any more leave room for those of other models."""
    registry = registry_of(hangs=told_apart_at(gate), m=FakeModel)
    hanging = models_of("hangs", 2 * MOST_READERS, tmp_path)
    async with Initializer(registry, load_timeout=LIMIT) as initializer:
        await refused(initializer, hanging[:MOST_READERS], gate)
        assert await initializer.init(model_on_disk(tmp_path)) is not None
        await refused(initializer, hanging[MOST_READERS:], gate)
        assert await initializer.init(model_on_disk(tmp_path, name="other")) is not None
        gate.open()
        await settled(initializer)


async def test_one_that_hangs_takes_one_thread(gate: Gate, tmp_path: Path) -> None:
    """Who asks for it again waits for the thread that is in there; another begins after that."""
    registry = registry_of(hangs=told_apart_at(gate), m=FakeModel)
    (model,) = models_of("hangs", 1, tmp_path)
    async with (
        Initializer(registry, load_timeout=LIMIT) as initializer,
        create_task_group() as tasks,
    ):
        await refused(initializer, [model], gate)
        calls = Calls(tasks)
        for number in range(3):
            calls.start(f"late {number}", initializer, model)
            await until(lambda: initializer.statistics().resolving == 1)
            assert await initializer.init(model_on_disk(tmp_path, name=f"{number}")) is not None
            let_pass(initializer, 2 * LIMIT)
            error = await calls.result(f"late {number}")
            assert isinstance(error, LoadTimeoutError)
            assert str(error).endswith(": it still waited to be looked up")
        calls.start("patient", initializer, model)
        await until(lambda: initializer.statistics().resolving == 1)
        assert gate.count == 1
        gate.open()
        assert not isinstance(await calls.result("patient"), Exception)
        assert gate.count == 2
        await settled(initializer)


ASKED: dict[str, Callable[[Initializer, str, int], Coroutine[Any, Any, Any]]] = {
    "by path": lambda initializer, path, number: initializer.init(path),
    "with a slash": lambda initializer, path, number: initializer.init(path + "/" * number),
    "as a path": lambda initializer, path, number: initializer.init(Path(path)),
    "by a config": lambda initializer, path, number: initializer.init(ModelConfig("hangs", path)),
    "by a key": lambda initializer, path, number: initializer.init(path, key=number),
    "with what is no key": lambda initializer, path, number: initializer.init(path, x=object()),
}


@pytest.mark.parametrize("how", ASKED)
async def test_however_it_is_asked_for(how: str, gate: Gate, tmp_path: Path) -> None:
    """Its path is what hangs, whatever else a caller says."""
    (model,) = models_of("hangs", 1, tmp_path)
    registry = registry_of(hangs=told_apart_at(gate), m=FakeModel)
    async with Initializer(registry, load_timeout=LIMIT) as initializer:
        for number in range(3):
            async with create_task_group() as tasks:
                tasks.start_soon(times_out, ASKED[how](initializer, model, number))
                await until(lambda: initializer.statistics().resolving == 1)
                await gate.entered()
                let_pass(initializer, 2 * LIMIT)
            assert await initializer.init(model_on_disk(tmp_path, name=f"{number}")) is not None
        assert initializer.statistics().stuck_lookups == 1
        gate.open()
        await settled(initializer)
    assert gate.count == 1


async def times_out(load: Coroutine[Any, Any, Any]) -> None:
    with pytest.raises(LoadTimeoutError):
        await load


async def test_in_a_repository(gate: Gate, tmp_path: Path) -> None:
    """A model that hangs there costs a thread, and is tried again; the others are loaded."""
    (model,) = models_of("hangs", 1, tmp_path)
    registry = registry_of(hangs=told_apart_at(gate), m=FakeModel)
    catalogue = {
        "hangs": {"module_id": "hangs", "model_path": model},
        "m": {"module_id": "m", "model_path": model_on_disk(tmp_path)},
    }
    keeping = {"cool_down": 1e-6, "max_cool_down": 1e-6}
    options: dict[str, Any] = {"models": catalogue, "repository": keeping, "load_timeout": LIMIT}
    async with ModelRepository(registry, **options) as models:
        for _ in range(3):
            async with create_task_group() as tasks:
                tasks.start_soon(times_out, lease(models, "hangs"))
                await until(lambda: models.initializer.statistics().resolving == 1)
                await gate.entered()
                let_pass(models.initializer, 2 * LIMIT)
        await lease(models, "m")
        assert models.initializer.statistics().stuck_lookups == 1
        gate.open()
        await settled(models.initializer)
    assert gate.count == 1


async def lease(models: ModelRepository, name: str) -> None:
    async with models.lease(name):
        pass


async def test_there_is_an_end_to_it(gate: Gate, tmp_path: Path, monkeypatch: Any) -> None:
    """When as many threads as there may be are left to themselves, others wait for one of them."""
    monkeypatch.setattr("anyload._load.lookups.MOST_STUCK", 2)
    registry = registry_of(hangs=told_apart_at(gate), m=FakeModel)
    async with (
        Initializer(registry, load_timeout=LIMIT) as initializer,
        create_task_group() as tasks,
    ):
        await refused(initializer, models_of("hangs", 2, tmp_path), gate)
        calls = Calls(tasks)
        calls.start("m", initializer, model_on_disk(tmp_path))
        await until(lambda: initializer.statistics().resolving == 1)
        assert await initializer.init(ModelConfig("m")) is not None
        assert initializer.statistics().resolving == 1
        assert initializer.statistics().stuck_lookups == 2
        gate.let_through()
        assert not isinstance(await calls.result("m"), Exception)
        gate.open()
        await settled(initializer)


async def test_a_thread_that_hangs_is_not_waited_for(
    gate: Gate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where no other thread can start, who comes is told so at once."""
    registry = registry_of(hangs=told_apart_at(gate), m=FakeModel)
    async with Initializer(registry, load_timeout=LIMIT) as initializer:
        await refused(initializer, models_of("hangs", 1, tmp_path), gate)
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", no_thread_left)
            with pytest.raises(LoadError, match="no worker thread could be started"):
                await initializer.init(ModelConfig("m"))
        gate.open()
        await settled(initializer)


# Who begins next


async def test_one_that_is_given_up_lets_in_who_waits_already(
    gate: Gate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not only who comes later: nobody else would call a thread for it."""
    monkeypatch.setattr("anyload._load.lookups.MOST_READERS", 1)
    (model,) = models_of("hangs", 1, tmp_path)
    registry = registry_of(hangs=told_apart_at(gate), m=FakeModel)
    async with Initializer(registry) as initializer, create_task_group() as tasks:
        hangs = Caller(tasks, initializer, model)
        await gate.entered()
        waits = Caller(tasks, initializer, model_on_disk(tmp_path))
        # Until its thread has looked, found no room and gone to rest.
        await until(lambda: bool(initializer._core.workers._idle))
        assert initializer.statistics().resolving == 2
        await hangs.cancel()
        assert isinstance(await waits.result(), FakeModel)
        assert gate.inside == 1
        gate.open()
        await settled(initializer)


@dataclass(eq=False)
class Asked:
    """As much of a flight as a look-up needs."""

    reads: str
    phase: str = "resolving"


class PlayedLookups:
    """Look-ups on a clock that does not move, whose alarms ring when the test says so."""

    def __init__(self) -> None:
        self.process, self.alarms = Process(), Alarms()
        self.lookups = Lookups(self.process, self.alarms, lambda: 0.0)
        self.dropped = set[Any]()

    def add(self, asked: Any) -> None:
        with self.process.lock:
            self.lookups.add(asked, Todo())

    def take(self) -> Any:
        todo = Todo()
        with self.process.lock:
            taken = self.lookups.take(todo)
        self.dropped.update(todo.dropped)
        return taken

    def ended(self, asked: Any) -> None:
        with self.process.lock:
            self.lookups.ended(asked)

    def ring(self) -> None:
        with self.process.lock:
            due = self.alarms.due(SLOW_SECONDS)
            assert due is not None
            act, subject = due
            act(subject, Todo())


def test_there_is_an_end_to_readers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also when the queue was empty for a while, with as many at work as may be."""
    monkeypatch.setattr("anyload._load.lookups.MOST_READERS", 2)
    played, models = PlayedLookups(), [Asked(str(number)) for number in range(3)]
    for model in models[:2]:
        played.add(model)
    assert played.take() is models[0]
    assert played.take() is None
    played.ring()
    assert played.take() is models[1]
    played.add(models[2])
    assert played.take() is None
    played.ring()
    assert played.take() is None
    assert len(played.lookups.readers) == 2


def test_nobody_watches_for_what_cannot_begin() -> None:
    """All that is queued waits for a look-up that hangs, however the readers come and go."""
    played = PlayedLookups()
    hangs, first, second = (Asked(path) for path in "abc")
    played.add(hangs)
    assert played.take() is hangs
    hangs.phase = "settled"
    played.add(first)
    assert played.take() is first
    played.add(second)
    assert played.take() is None
    assert played.alarms.next_at is not None
    played.ended(first)
    assert played.take() is second
    played.add(Asked("a"))
    played.ring()
    assert played.alarms.next_at is None


def test_no_thread_takes_what_nobody_waits_for() -> None:
    """Neither as the first in the queue nor behind one; it goes when the lock is free."""
    played = PlayedLookups()
    hangs, left, again, left_too = (Asked(path) for path in "abac")
    played.add(hangs)
    assert played.take() is hangs
    played.add(left)
    hangs.phase = left.phase = "settled"
    assert played.take() is None
    played.add(again)
    played.add(left_too)
    left_too.phase = "settled"
    assert played.take() is None
    played.ended(hangs)
    first = Asked("d")
    played.add(first)
    again.phase = "settled"
    assert played.take() is first
    assert {left, again, left_too} <= played.dropped
