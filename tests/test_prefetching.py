"""Reading ahead: whose files are read while other models load, and when that ends."""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from anyio import create_task_group
from made_archives import write_archive
from scenes import Caller, registry_of

from anyload import Initializer, ModelConfig
from anyload._load import tasks
from anyload.testing import FakeModel, Gate, at_rest, settled, until

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reading ahead is for Linux")


class Ahead:
    """Stands in for the reading: what was asked for, and a gate to hold it at."""

    def __init__(self) -> None:
        self.gate = Gate(open=True)
        self.paths: list[str] = []
        self.wanted: list[bool] = []
        self.threads: set[str] = set()

    def read(self, paths: list[str], wanted: Callable[[], bool]) -> int:
        self.paths += paths
        self.threads.add(threading.current_thread().name)
        self.gate.enter()
        self.wanted.append(wanted())
        return 0


@pytest.fixture
def ahead(monkeypatch: pytest.MonkeyPatch) -> Ahead:
    made = Ahead()
    monkeypatch.setattr(tasks, "read_ahead", made.read)
    return made


@pytest.fixture
def gate() -> Iterator[Gate]:
    """Holds loads in their threads."""
    made = Gate()
    yield made
    made.open()


def named(gate: Gate, **attributes: Any) -> type[FakeModel]:
    """Return a module that names its files, and whose loads wait at a gate."""

    class Named(FakeModel):
        @classmethod
        def weight_files(cls, config: ModelConfig) -> list[Path]:
            return [Path(config) / "weights"]

        @classmethod
        def load(cls, config: ModelConfig, **kwargs: Any) -> Any:
            gate.enter()
            return cls(config, kwargs)

    for name, value in attributes.items():
        setattr(Named, name, value)
    return Named


def models(parent: Path, count: int) -> list[ModelConfig]:
    """Return models on disk, of sizes that fall."""
    made = []
    for number in range(count):
        directory = parent / f"model-{number}"
        directory.mkdir()
        (directory / "weights").write_bytes(bytes(1000 - number))
        made.append(ModelConfig("m", directory))
    return made


def names(paths: list[str]) -> list[str]:
    return [Path(path).parent.name for path in paths]


async def test_the_next_ones_are_read_while_one_loads(
    ahead: Ahead, gate: Gate, tmp_path: Path
) -> None:
    """As many as can load at once and two more, in their order; then one for each that begins."""
    async with (
        Initializer(registry_of(m=named(gate)), max_concurrent_loads=1) as initializer,
        create_task_group() as group,
    ):
        callers = [Caller(group, initializer, model) for model in models(tmp_path, 6)]
        await gate.entered()
        await until(lambda: len(ahead.paths) == 3)
        await until(lambda: initializer._core.flights.prefetching.running == set())
        await until(lambda: initializer.statistics().queued == 5)
        assert len(set(names(ahead.paths))) == 3
        gate.let_through()
        await until(lambda: len(ahead.paths) == 4)
        gate.open()
        for caller in callers:
            await caller.result()
        await settled(initializer)
        assert len(ahead.paths) == len(set(ahead.paths)) <= 6
        assert at_rest(initializer.statistics())
    assert all(name.startswith("anyload-worker") for name in ahead.threads)


async def test_in_the_order_of_the_queue(ahead: Ahead, gate: Gate, tmp_path: Path) -> None:
    """The largest of a bulk first, across lanes; who is more urgent goes before."""
    registry = registry_of(m=named(gate), g=named(gate, exclusive_group="g"))
    first, *others = models(tmp_path, 6)
    ahead.gate = Gate()
    async with (
        Initializer(registry, max_concurrent_loads=1, prefetch_streams=2) as initializer,
        create_task_group() as group,
    ):
        callers = [Caller(group, initializer, first)]
        await gate.entered()
        for number, model in enumerate(others):
            asked = ModelConfig("g" if number % 2 else "m", model.model_path)
            priority = 1 if number == 4 else 0
            callers.append(Caller(group, initializer, asked, priority=priority))
            await until(partial(lambda count: initializer.statistics().queued == count, number + 1))
        # Two were taken before the others came.
        await ahead.gate.entered(2)
        ahead.gate.open()
        await until(lambda: len(ahead.paths) == 3)
        assert set(names(ahead.paths[:2])) == {"model-1", "model-2"}
        assert names(ahead.paths[2:]) == ["model-5"]
        gate.open()
        for caller in callers:
            await caller.result()


async def test_while_they_import(ahead: Ahead, gate: Gate, tmp_path: Path) -> None:
    """An import does not need the disk for long."""
    importing = Gate()
    module = named(gate, prepare=classmethod(lambda cls: importing.enter()))
    gate.open()
    async with (
        Initializer(registry_of(m=module)) as initializer,
        create_task_group() as group,
    ):
        callers = [Caller(group, initializer, model) for model in models(tmp_path, 2)]
        await importing.entered()
        await until(lambda: len(ahead.paths) == 2)
        importing.open()
        for caller in callers:
            await caller.result()
        await settled(initializer)


@pytest.mark.parametrize("streams", [1, 3])
async def test_by_so_many_streams(streams: int, ahead: Ahead, gate: Gate, tmp_path: Path) -> None:
    """No more threads read ahead at once than are allowed; they take no slots."""
    ahead.gate = Gate()
    async with (
        Initializer(
            registry_of(m=named(gate)), max_concurrent_loads=2, prefetch_streams=streams
        ) as initializer,
        create_task_group() as group,
    ):
        callers = [Caller(group, initializer, model) for model in models(tmp_path, 6)]
        await gate.entered(2)
        await ahead.gate.entered(streams)
        assert initializer.statistics().running == 2
        ahead.gate.open()
        await until(lambda: len(ahead.paths) >= 4)
        assert ahead.gate.most_inside == streams
        gate.open()
        for caller in callers:
            await caller.result()


@pytest.mark.parametrize("why", ["no streams", "no files named", "archives"])
async def test_not_at_all(why: str, ahead: Ahead, gate: Gate, tmp_path: Path) -> None:
    """An archive is read by its load, which unpacks it."""
    module = named(gate, weight_files=None) if why == "no files named" else named(gate)
    asked: list[Any] = list(models(tmp_path, 3))
    if why == "archives":
        files = {"config.yml": b"module_id: m"}
        asked = [write_archive(tmp_path / f"{number}.zip", files) for number in range(3)]
    async with (
        Initializer(
            registry_of(m=module),
            max_concurrent_loads=1,
            prefetch_streams=0 if why == "no streams" else 1,
        ) as initializer,
        create_task_group() as group,
    ):
        callers = [Caller(group, initializer, model) for model in asked]
        await gate.entered()
        await until(lambda: initializer.statistics().queued == 2)
        gate.open()
        for caller in callers:
            await caller.result()
        await settled(initializer)
    assert ahead.paths == []


async def test_where_memory_is_short(
    ahead: Ahead, gate: Gate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is ahead takes a quarter of what is free at most; when one has begun there is room."""
    free = [0]
    monkeypatch.setattr(tasks, "free_memory", lambda: free[0])
    async with (
        Initializer(registry_of(m=named(gate)), max_concurrent_loads=1) as initializer,
        create_task_group() as group,
    ):
        callers = [Caller(group, initializer, model) for model in models(tmp_path, 5)]
        await gate.entered()
        prefetching = initializer._core.flights.prefetching
        await until(lambda: initializer.statistics().queued == 4)
        await until(lambda: not prefetching.useful)
        assert ahead.paths == []
        free[0] = 4 * 1001 * 2
        gate.let_through()
        await until(lambda: len(ahead.paths) >= 1)
        gate.open()
        for caller in callers:
            await caller.result()
        await settled(initializer)


@pytest.mark.parametrize("error", [OSError("disk"), SystemExit(3)])
async def test_what_goes_wrong_is_left_to_the_load(
    error: BaseException,
    ahead: Ahead,
    gate: Gate,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It is a line of the log, for those who debug."""

    def raises(config: ModelConfig) -> list[str]:
        raise error

    module = named(gate, weight_files=staticmethod(raises))
    with caplog.at_level(logging.DEBUG, "anyload.loads"):
        async with (
            Initializer(registry_of(m=module), max_concurrent_loads=1) as initializer,
            create_task_group() as group,
        ):
            callers = [Caller(group, initializer, model) for model in models(tmp_path, 2)]
            await gate.entered()
            await until(lambda: "reading ahead for" in caplog.text)
            gate.open()
            for caller in callers:
                await caller.result()
            await settled(initializer)
            assert at_rest(initializer.statistics())
    assert ahead.paths == []


async def test_nobody_wants_the_model_any_more(ahead: Ahead, gate: Gate, tmp_path: Path) -> None:
    """The reading hears of it; a load that has begun still wants it."""
    ahead.gate = Gate()
    first, second, third = models(tmp_path, 3)
    async with (
        Initializer(registry_of(m=named(gate)), max_concurrent_loads=1) as initializer,
        create_task_group() as group,
    ):
        one = Caller(group, initializer, first)
        await gate.entered()
        two = Caller(group, initializer, second)
        await ahead.gate.entered()
        await two.cancel()
        ahead.gate.let_through()
        await until(lambda: ahead.wanted == [False])
        three = Caller(group, initializer, third)
        await ahead.gate.entered(2)
        gate.let_through()
        await gate.entered(2)
        ahead.gate.open()
        await until(lambda: ahead.wanted == [False, True])
        gate.open()
        await one.result()
        await three.result()
        await settled(initializer)


async def test_a_close_does_not_wait_for_it(ahead: Ahead, gate: Gate, tmp_path: Path) -> None:
    """A disk that hangs holds up nobody; the thread goes when it can."""
    ahead.gate = Gate()
    first, second = models(tmp_path, 2)
    initializer = Initializer(registry_of(m=named(gate)), max_concurrent_loads=1)
    async with create_task_group() as group:
        one = Caller(group, initializer, first)
        await gate.entered()
        two = Caller(group, initializer, second)
        await ahead.gate.entered()
        await two.cancel()
        gate.open()
        await one.result()
        await initializer.aclose()
        assert ahead.gate.inside == 1
        ahead.gate.open()
        await until(lambda: initializer.statistics().threads == 0)
        assert ahead.wanted == [False]
        assert at_rest(initializer.statistics())
