"""Every row of the table of semantics, on asyncio, uvloop and trio.

The order of things is made by gates; what sleeps here, sleeps to let a limit pass.
"""

from __future__ import annotations

import asyncio
import inspect
import os
import threading
import warnings
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import anyio
import pytest
from anyio import create_task_group, fail_after
from calls import GPU_THEN_LOCAL
from scenes import (
    LIMIT,
    Caller,
    Clock,
    error_of_late,
    let_pass,
    model_on_disk,
    no_thread_left,
    registry_of,
    registry_of_two,
)

from anyload import (
    ClosedError,
    Initializer,
    LoadCancelled,
    LoadError,
    LoadTimeoutError,
    ModelConfig,
    ReentrantLoadError,
    SaturatedError,
    WrongTypeError,
    check_cancelled,
)
from anyload.testing import (
    FakeModel,
    Gate,
    checks_cancelled,
    raises,
    returns,
    returns_at_once,
    settled,
    until,
    waits_at,
)

SHORT = 0.05
"""A limit that is to pass, in seconds."""


@pytest.fixture
def model(tmp_path: Path) -> str:
    return model_on_disk(tmp_path)


def rests_with(initializer: Initializer, **figures: int) -> Callable[[], bool]:
    """Return a condition: the statistics have these figures."""

    def holds() -> bool:
        statistics = initializer.statistics()
        return all(getattr(statistics, name) == value for name, value in figures.items())

    return holds


# Callers that are cancelled


@pytest.mark.parametrize("leaver", [0, 1, 2])
async def test_a_cancelled_caller_disturbs_no_other(gate: Gate, model: str, leaver: int) -> None:
    """A first or later caller is cancelled at once; the others get the model of one load."""
    registry = registry_of(m=waits_at(gate))
    async with Initializer(registry) as initializer, create_task_group() as tasks:
        callers = [Caller(tasks, initializer, model) for _ in range(3)]
        await gate.entered()
        await until(rests_with(initializer, waiters=3))
        await callers.pop(leaver).cancel()
        assert initializer.statistics().running == 1
        gate.open()
        first, second = [await caller.result() for caller in callers]
        assert first is second
        assert first.released == 0
        assert gate.count == 1
        await settled(initializer)


async def test_a_queued_load_that_everybody_left_never_starts(
    gate: Gate, model: str, tmp_path: Path
) -> None:
    """When all callers of a queued load are cancelled, it never starts; the next call is fresh."""
    entered = Gate(open=True)
    registry = registry_of(m=waits_at(entered), blocker=waits_at(gate))
    options: dict[str, Any] = {"max_concurrent_loads": 1}
    async with Initializer(registry, **options) as initializer, create_task_group() as tasks:
        blocker = Caller(tasks, initializer, model_on_disk(tmp_path, "blocker"))
        await gate.entered()
        callers = [Caller(tasks, initializer, model) for _ in range(2)]
        await until(rests_with(initializer, waiters=3, queued=1))
        for caller in callers:
            await caller.cancel()
        assert initializer.statistics().queued == 0
        gate.open()
        await blocker.result()
        await settled(initializer)
        assert entered.count == 0
        assert initializer.statistics().cancelled == 1
        await initializer.init(model)
        assert entered.count == 1
        await settled(initializer)


async def test_a_running_load_that_everybody_left_is_told_and_keeps_its_slot(
    gate: Gate, model: str
) -> None:
    """When all callers are cancelled, ``check_cancelled`` raises, and the slot stays taken."""
    registry = registry_of(m=checks_cancelled(gate))
    async with Initializer(registry) as initializer, create_task_group() as tasks:
        callers = [Caller(tasks, initializer, model) for _ in range(2)]
        await gate.entered()
        await until(rests_with(initializer, waiters=2))
        for caller in callers:
            await caller.cancel()
        figures = initializer.statistics()
        assert (figures.running, figures.free_slots) == (1, figures.slots - 1)
        gate.open()
        await settled(initializer)
        assert initializer.statistics().cancelled == 1


async def test_the_result_that_nobody_waits_for_is_released(gate: Gate, model: str) -> None:
    """What a load returns after its last caller was cancelled is discarded, released once."""
    loaded: list[FakeModel] = []

    class Remembered(FakeModel):
        @classmethod
        def load(cls, config: ModelConfig, **kwargs: Any) -> Any:
            gate.enter()
            loaded.append(cls(config, kwargs))
            return loaded[-1]

    async with (
        Initializer(registry_of(m=Remembered)) as initializer,
        create_task_group() as tasks,
    ):
        caller = Caller(tasks, initializer, model)
        await gate.entered()
        await caller.cancel()
        gate.open()
        await settled(initializer)
        assert [model.released for model in loaded] == [1]
        figures = initializer.statistics()
        assert (figures.loaded, figures.discarded, figures.cancelled) == (0, 1, 1)


async def test_who_comes_back_in_time_joins_the_same_thread(gate: Gate, model: str) -> None:
    """A caller who comes before the load has seen its flag clears it, and gets its model."""

    class Checks(FakeModel):
        @classmethod
        def load(cls, config: ModelConfig, **kwargs: Any) -> Any:
            gate.enter()
            check_cancelled()
            return cls(config, kwargs)

    async with Initializer(registry_of(m=Checks)) as initializer, create_task_group() as tasks:
        caller = Caller(tasks, initializer, model)
        await gate.entered()
        await caller.cancel()
        second = Caller(tasks, initializer, model)
        await until(rests_with(initializer, waiters=1, resolving=0))
        gate.open()
        assert (await second.result()).released == 0
        assert gate.count == 1
        await settled(initializer)


async def test_who_comes_after_the_flag_was_seen_gets_a_fresh_load(gate: Gate, model: str) -> None:
    """A load that has seen its flag is not joined; a fresh one starts when its thread has left."""
    told = Gate()

    class Checks(FakeModel):
        @classmethod
        def load(cls, config: ModelConfig, **kwargs: Any) -> Any:
            gate.enter()
            try:
                check_cancelled()
            except LoadCancelled:
                told.enter()
                raise
            return cls(config, kwargs)

    async with Initializer(registry_of(m=Checks)) as initializer, create_task_group() as tasks:
        caller = Caller(tasks, initializer, model)
        await gate.entered()
        await caller.cancel()
        gate.open()
        await told.entered()
        second = Caller(tasks, initializer, model)
        await until(rests_with(initializer, queued=1))
        assert (gate.count, initializer.statistics().running) == (1, 1)
        told.open()
        assert (await second.result()).released == 0
        assert gate.count == 2
        await settled(initializer)


async def test_the_deadline_of_a_load_that_everybody_left_still_applies(
    gate: Gate, model: str
) -> None:
    """A load whose callers were all cancelled is abandoned at its limit, and frees its slot."""
    options: dict[str, Any] = {"backend_priority": [{"type": "LOCAL", "timeout": LIMIT}]}
    async with (
        Initializer(registry_of(m=waits_at(gate)), **options) as initializer,
        create_task_group() as tasks,
    ):
        caller = Caller(tasks, initializer, model)
        await gate.entered()
        await caller.cancel()
        let_pass(initializer, 2 * LIMIT)
        await until(rests_with(initializer, abandoned=1, running=0))
        assert initializer.statistics().free_slots == initializer.statistics().slots
        gate.open()
        await settled(initializer)
        assert initializer.statistics().discarded == 1


async def test_a_callers_own_limit_is_its_own(gate: Gate, model: str) -> None:
    """A caller's ``fail_after`` ends its waiting alone; the load runs on for the others."""
    async with (
        Initializer(registry_of(m=waits_at(gate))) as initializer,
        create_task_group() as tasks,
    ):
        other = Caller(tasks, initializer, model)
        await gate.entered()
        with pytest.raises(TimeoutError), fail_after(SHORT):
            await initializer.init(model)
        assert initializer.statistics().running == 1
        gate.open()
        await other.result()
        assert gate.count == 1
        await settled(initializer)


# Attempts that do not load


async def test_after_a_timed_out_attempt_the_next_backend_takes_the_slot(
    gate: Gate, model: str
) -> None:
    """An attempt past its limit is abandoned and counted, and its slot serves the next load."""
    late: list[FakeModel] = []

    class Late(FakeModel):
        @classmethod
        def load(cls, config: ModelConfig, **kwargs: Any) -> Any:
            gate.enter()
            late.append(cls(config, kwargs))
            return late[-1]

    here = returns_at_once()
    options: dict[str, Any] = {
        "backend_priority": [{"type": "GPU", "timeout": LIMIT}, {"type": "LOCAL"}],
        "max_concurrent_loads": 1,
    }
    registry = registry_of_two(Late, here)
    async with Initializer(registry, **options) as initializer, create_task_group() as tasks:
        callers = [Caller(tasks, initializer, model) for _ in range(2)]
        await gate.entered()
        let_pass(initializer, 2 * LIMIT)
        first, second = [await caller.result() for caller in callers]
        assert first is second
        assert type(first) is here
        figures = initializer.statistics()
        assert (figures.abandoned, figures.free_slots, figures.discarded) == (1, 1, 0)
        gate.open()
        await settled(initializer)
        assert [model.released for model in late] == [1]
        assert first.released == 0
        assert initializer.statistics().discarded == 1


async def test_the_error_of_a_timed_out_load_shows_where_its_thread_is(
    gate: Gate, model: str
) -> None:
    """With no backend left, a timed-out attempt is a LoadError with the stuck thread's stack."""
    options: dict[str, Any] = {"backend_priority": [{"type": "LOCAL", "timeout": LIMIT}]}
    async with Initializer(registry_of(m=waits_at(gate)), **options) as initializer:
        error = await error_of_late(initializer, model, gate)
        assert isinstance(error, LoadError)
        assert not isinstance(error, LoadTimeoutError)
        (attempt,) = error.attempts
        assert attempt.outcome == "timed_out"
        assert attempt.stack is not None
        assert " enter" in attempt.stack
        assert "its thread is still running, in" in attempt.reason
        gate.open()
        await settled(initializer)


async def test_time_in_the_queue_is_not_time_in_the_load(gate: Gate, tmp_path: Path) -> None:
    """The limit of an attempt starts when the load starts, not when it queues."""
    registry = registry_of(blocker=waits_at(gate))
    registry.module("m", "GPU")(returns_at_once())
    options: dict[str, Any] = {
        "backend_priority": [{"type": "GPU", "timeout": LIMIT}, {"type": "LOCAL"}],
        "max_concurrent_loads": 1,
    }
    async with Initializer(registry, **options) as initializer, create_task_group() as tasks:
        clock = Clock(initializer)
        blocker = Caller(tasks, initializer, model_on_disk(tmp_path, "blocker"))
        await gate.entered()
        queued = Caller(tasks, initializer, model_on_disk(tmp_path))
        await until(rests_with(initializer, queued=1))
        clock.forward(2 * LIMIT)
        gate.open()
        await blocker.result()
        await queued.result()
        await settled(initializer)


async def test_load_timeout_covers_the_queue(gate: Gate, model: str) -> None:
    """A queued load ends with LoadTimeoutError after ``load_timeout``, for joiners too."""
    holder = Initializer(registry_of(m=waits_at(gate, exclusive_group="a group")))
    registry = registry_of(m=returns_at_once(exclusive_group="a group"))
    async with (
        holder,
        Initializer(registry, load_timeout=SHORT) as initializer,
        create_task_group() as tasks,
    ):
        holding = Caller(tasks, holder, ModelConfig("m"))
        await gate.entered()
        callers = [Caller(tasks, initializer, model) for _ in range(2)]
        for caller in callers:
            error = await caller.failure()
            assert isinstance(error, LoadTimeoutError)
            assert not isinstance(error, TimeoutError)
            assert error.limit == SHORT
            assert error.attempts == ()
        await settled(initializer)
        gate.open()
        await holding.result()
        await settled(holder)


async def test_load_timeout_covers_all_attempts(gate: Gate, model: str) -> None:
    """``load_timeout`` ends a load that runs, whatever backends are left, and shows its thread."""
    registry = registry_of_two(waits_at(gate), returns_at_once())
    options: dict[str, Any] = {"backend_priority": GPU_THEN_LOCAL, "load_timeout": 60.0}
    async with Initializer(registry, **options) as initializer, create_task_group() as tasks:
        caller = Caller(tasks, initializer, model)
        await gate.entered()
        let_pass(initializer, 60.0)
        error = await caller.load_error()
        assert isinstance(error, LoadTimeoutError)
        (attempt,) = error.attempts
        assert (attempt.backend, attempt.outcome) == ("GPU", "timed_out")
        assert "load_timeout" in attempt.reason
        assert rests_with(initializer, abandoned=1, running=0)()
        gate.open()
        await settled(initializer)


async def test_an_exception_leads_to_the_next_backend(model: str) -> None:
    """A load that raises is followed by the next backend."""
    here = returns_at_once()
    registry = registry_of_two(raises(lambda: ValueError("no")), here)
    async with Initializer(registry, backend_priority=GPU_THEN_LOCAL) as initializer:
        assert type(await initializer.init(model)) is here
        await settled(initializer)


async def test_each_caller_gets_its_own_error_with_every_attempt(gate: Gate, model: str) -> None:
    """When the last backend raises, each caller gets a LoadError of its own with all attempts."""

    class Breaks(FakeModel):
        @classmethod
        def load(cls, config: ModelConfig, **kwargs: Any) -> Any:
            gate.enter()
            raise ValueError("broken weights")

    registry = registry_of_two(Breaks, raises(lambda: OSError("no such file")))
    async with (
        Initializer(registry, backend_priority=GPU_THEN_LOCAL) as initializer,
        create_task_group() as tasks,
    ):
        callers = [Caller(tasks, initializer, model) for _ in range(2)]
        await gate.entered()
        await until(rests_with(initializer, waiters=2))
        gate.open()
        first, second = [await caller.load_error() for caller in callers]
        assert first is not second
        assert str(first) == str(second)
        assert [(a.backend, a.outcome, a.reason) for a in first.attempts] == [
            ("GPU", "raised", "ValueError: broken weights"),
            ("LOCAL", "raised", "OSError: no such file"),
        ]
        assert isinstance(first.__cause__, OSError)
        assert first.__cause__ is second.__cause__
        with pytest.raises(LoadError):
            await initializer.init(model)
        assert gate.count == 2, "a failure is not remembered"
        await settled(initializer)


@pytest.mark.parametrize(
    "kind",
    [
        SystemExit,
        KeyboardInterrupt,
        GeneratorExit,
        asyncio.CancelledError,
        StopIteration,
        StopAsyncIteration,
        BaseException,
    ],
)
async def test_no_exception_of_a_load_is_raised_raw(model: str, kind: type[BaseException]) -> None:
    """Whatever a load raises is an attempt that ``raised``, in a LoadError; the next one works."""
    registry = registry_of(m=raises(lambda: kind("told you")), good=returns_at_once())
    async with Initializer(registry) as initializer:
        with pytest.raises(LoadError) as caught:
            await initializer.init(model)
        (attempt,) = caught.value.attempts
        assert (attempt.outcome, attempt.reason) == ("raised", f"{kind.__name__}: told you")
        await initializer.init(ModelConfig("good"))
        await settled(initializer)


async def test_none_declines(model: str) -> None:
    """A load that returns None has declined, and the next backend is tried."""
    registry = registry_of_two(returns(None), returns_at_once())
    async with Initializer(registry, backend_priority=GPU_THEN_LOCAL) as initializer:
        await initializer.init(model)
        await settled(initializer)
    async with Initializer(registry, backend_priority=[{"type": "GPU"}]) as initializer:
        with pytest.raises(LoadError) as caught:
            await initializer.init(model)
        assert [a.outcome for a in caught.value.attempts] == ["declined"]
        await settled(initializer)


async def _coroutine() -> None:
    raise AssertionError("nobody awaits it")


@pytest.mark.parametrize("what", ["coroutine", "class", "foreign"])
async def test_what_is_no_model_is_a_wrong_type(model: str, what: str) -> None:
    """A coroutine, a class or a foreign type is an attempt that ``raised`` WrongTypeError."""
    makers: dict[str, Callable[[], Any]] = {
        "coroutine": _coroutine,
        "class": lambda: FakeModel,
        "foreign": object,
    }
    value = makers[what]()
    good = returns_at_once()
    registry = registry_of_two(returns(value), good)
    async with Initializer(registry, backend_priority=GPU_THEN_LOCAL) as initializer:
        assert type(await initializer.init(model)) is good
        await settled(initializer)
    async with Initializer(registry, backend_priority=[{"type": "GPU"}]) as initializer:
        with pytest.raises(LoadError) as caught:
            await initializer.init(model)
        (attempt,) = caught.value.attempts
        assert attempt.outcome == "raised"
        assert isinstance(attempt.error, WrongTypeError)
        await settled(initializer)
    if what == "coroutine":
        assert inspect.getcoroutinestate(value) == inspect.CORO_CLOSED


async def test_a_coroutine_is_no_model_even_where_anything_is() -> None:
    """A ``load`` that calls an async function has forgotten to run it."""
    registry = registry_of()
    value = _coroutine()
    registry.module("m", returns=object)(returns(value))
    async with Initializer(registry) as initializer:
        with pytest.raises(LoadError, match="WrongTypeError"):
            await initializer.init(ModelConfig("m"))
        await settled(initializer)
    assert inspect.getcoroutinestate(value) == inspect.CORO_CLOSED


# Closing


async def test_close_ends_what_is_queued_and_lets_what_runs_finish(
    gate: Gate, tmp_path: Path
) -> None:
    """A queued load gets ClosedError at once; a running one may finish within the grace."""
    registry = registry_of(m=waits_at(gate))
    initializer = Initializer(registry, max_concurrent_loads=1)
    async with create_task_group() as tasks:
        running = Caller(tasks, initializer, model_on_disk(tmp_path, name="running"))
        await gate.entered()
        queued = Caller(tasks, initializer, model_on_disk(tmp_path, name="queued"))
        await until(rests_with(initializer, queued=1))
        tasks.start_soon(initializer.aclose, 30.0)
        assert isinstance(await queued.failure(), ClosedError)
        assert initializer.statistics().running == 1
        gate.open()
        assert (await running.result()).released == 0
    await settled(initializer)
    with pytest.raises(ClosedError):
        await initializer.init(str(tmp_path / "running"))
    assert initializer.statistics().threads == 0


async def test_after_the_grace_a_running_load_is_abandoned(gate: Gate, model: str) -> None:
    """At the end of the grace the callers get ClosedError and the thread is left and counted."""
    initializer = Initializer(registry_of(m=waits_at(gate)))
    async with create_task_group() as tasks:
        callers = [Caller(tasks, initializer, model) for _ in range(2)]
        await gate.entered()
        await until(rests_with(initializer, waiters=2))
        (left,) = await initializer.aclose(SHORT)
        assert left.model == model
        assert left.abandoned
        for caller in callers:
            assert isinstance(await caller.failure(), ClosedError)
        assert initializer.statistics().abandoned == 1
        with pytest.raises(ClosedError):
            await initializer.init(model)
        gate.open()
        await settled(initializer)
        assert initializer.statistics().discarded == 1


# Loads inside loads


class Nests(FakeModel):
    """Loads, inside its own load, the model that the file ``next`` in its directory names."""

    initializer: Initializer
    threads: list[int]

    def __init__(self, config: ModelConfig, kwargs: dict[str, Any], inner: Any) -> None:
        super().__init__(config, kwargs)
        self.inner = inner

    @classmethod
    def load(cls, config: ModelConfig, **kwargs: Any) -> Any:
        cls.threads.append(threading.get_ident())
        following = Path(config) / "next"
        inner = following.exists() and cls.initializer.init_sync(following.read_text())
        return cls(config, kwargs, inner)


def nests() -> type[Nests]:
    return type("Nests", (Nests,), {"threads": []})


def chain(tmp_path: Path, *names: str) -> list[str]:
    """Make models of which each loads the following one."""
    paths = {name: model_on_disk(tmp_path, name=name) for name in dict.fromkeys(names)}
    for name, following in pairwise(names):
        (Path(paths[name]) / "next").write_text(paths[following])
    return [paths[name] for name in names]


@pytest.mark.parametrize("names", ["AA", "ABA"])
async def test_a_load_cannot_wait_for_itself(tmp_path: Path, names: str) -> None:
    """A load for a key of its own call stack gets ReentrantLoadError, and the flight fails."""
    cls = nests()
    models = chain(tmp_path, *names)
    async with Initializer(registry_of(m=cls), max_concurrent_loads=1) as initializer:
        cls.initializer = initializer
        with pytest.raises(LoadError) as caught:
            await initializer.init(models[0])
        error: BaseException | None = caught.value
        while isinstance(error, LoadError):
            assert [a.outcome for a in error.attempts] == ["raised"]
            error = error.attempts[0].error
        assert isinstance(error, ReentrantLoadError)
        assert error.model == models[0]
        assert error.chain[-1] == models[0]
        assert len(cls.threads) == len(set(names))
        await settled(initializer)


async def test_a_nested_load_runs_on_its_parents_thread_and_slot(tmp_path: Path) -> None:
    """With one slot, a load inside a load does not block: it runs where its parent does."""
    cls = nests()
    models = chain(tmp_path, *"ABC")
    async with Initializer(registry_of(m=cls), max_concurrent_loads=1) as initializer:
        cls.initializer = initializer
        model = await initializer.init(models[0])
        assert model.inner.inner.inner is False
        assert len(cls.threads) == 3
        assert len(set(cls.threads)) == 1
        await settled(initializer)


# At the caps


async def test_loads_past_their_limit_stay_on_their_slots_at_the_cap(
    gate: Gate, tmp_path: Path
) -> None:
    """At ``max_abandoned_loads`` a load past its limit is overdue on its slot; others still load.

    When every slot is overdue, loads get SaturatedError, until one thread ends.
    """
    passing = Gate()
    registry = registry_of(m=waits_at(gate), one=waits_at(passing), good=returns_at_once())
    options: dict[str, Any] = {
        "backend_priority": [{"type": "LOCAL", "timeout": LIMIT}],
        "max_concurrent_loads": 2,
        "max_abandoned_loads": 1,
    }
    async with Initializer(registry, **options) as initializer:
        error = await error_of_late(initializer, model_on_disk(tmp_path, "one"), passing)
        assert isinstance(error, LoadError)
        assert rests_with(initializer, abandoned=1, overdue=0, free_slots=2)()
        second = model_on_disk(tmp_path, name="second")
        assert isinstance(await error_of_late(initializer, second, gate), LoadError)
        assert rests_with(initializer, abandoned=1, overdue=1, free_slots=1)()
        await initializer.init(ModelConfig("good"))
        third = model_on_disk(tmp_path, name="third")
        assert isinstance(await error_of_late(initializer, third, gate), LoadError)
        assert rests_with(initializer, abandoned=1, overdue=2, free_slots=0)()
        with pytest.raises(SaturatedError) as caught:
            await initializer.init(ModelConfig("good"))
        assert {load.model for load in caught.value.stuck} == {second, third}
        for load in caught.value.stuck:
            assert load.age > 0
            assert not load.abandoned
            assert "enter" in load.stack
        assert gate.inside + passing.inside == 3
        passing.open()
        await until(lambda: initializer.statistics().free_slots > 0)
        await initializer.init(ModelConfig("good"))
        assert rests_with(initializer, abandoned=1, overdue=1)()
        gate.open()
        await settled(initializer)
        assert initializer.statistics().discarded == 3


async def test_with_no_abandoning_a_queued_load_is_refused_when_the_slots_are_overdue(
    gate: Gate, tmp_path: Path
) -> None:
    """``max_abandoned_loads=0`` never abandons; what is queued gets SaturatedError at once."""
    registry = registry_of(m=waits_at(gate))
    options: dict[str, Any] = {
        "backend_priority": [{"type": "LOCAL", "timeout": LIMIT}],
        "max_concurrent_loads": 1,
        "max_abandoned_loads": 0,
    }
    async with Initializer(registry, **options) as initializer, create_task_group() as tasks:
        first = model_on_disk(tmp_path, name="first")
        stuck = Caller(tasks, initializer, first)
        await gate.entered()
        queued = Caller(tasks, initializer, model_on_disk(tmp_path, name="queued"))
        await until(rests_with(initializer, queued=1))
        let_pass(initializer, 2 * LIMIT)
        error = await queued.failure()
        assert isinstance(error, SaturatedError)
        assert [load.model for load in error.stuck] == [first]
        assert [a.outcome for a in (await stuck.load_error()).attempts] == ["timed_out"]
        assert rests_with(initializer, abandoned=0, overdue=1, running=0)()
        assert gate.inside == 1
        gate.open()
        await settled(initializer)
        await initializer.init(first)
        await settled(initializer)


async def test_a_thread_that_cannot_start_costs_no_slot(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Without a thread to run it, a load ends as LoadError; the slots are all there."""
    registry = registry_of(m=returns_at_once())
    options: dict[str, Any] = {"backend_priority": [{"type": "LOCAL", "timeout": 30}]}
    async with Initializer(registry, **options) as initializer:
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", no_thread_left)
            for model in (ModelConfig("m"), model_on_disk(tmp_path)):
                with pytest.raises(LoadError) as caught:
                    await initializer.init(model)
                assert isinstance(caught.value.__cause__, RuntimeError)
            await settled(initializer)
        await initializer.init(ModelConfig("m"))
        await settled(initializer)


# Other loops, other processes


async def test_the_next_loop_picks_up_what_an_ended_loop_waited_for(
    gate: Gate, model: str, anyio_backend: tuple[str, dict[str, Any]]
) -> None:
    """A loop that ends with callers on it disturbs nobody, and the next loop joins the load."""
    registry = registry_of(m=waits_at(gate))
    name, options = anyio_backend
    async with Initializer(registry) as initializer, create_task_group() as tasks:

        async def leave_a_caller_behind() -> None:
            async with create_task_group() as others:
                others.start_soon(initializer.init, model)
                await gate.entered()
                others.cancel_scope.cancel()

        thread = threading.Thread(
            target=anyio.run,
            args=(leave_a_caller_behind,),
            kwargs={"backend": name, "backend_options": options},
        )
        thread.start()
        await until(lambda: not thread.is_alive())
        thread.join()
        caller = Caller(tasks, initializer, model)
        await until(rests_with(initializer, waiters=1, resolving=0))
        gate.open()
        await caller.result()
        assert gate.count == 1
        await settled(initializer)


async def test_a_loop_that_was_closed_under_its_callers_is_no_harm(gate: Gate, model: str) -> None:
    """Callers whose loop was closed without cancelling them count as gone; others are served."""
    loop = asyncio.new_event_loop()
    forgotten: list[asyncio.Task[Any]] = []
    registry = registry_of(m=waits_at(gate))
    async with Initializer(registry) as initializer, create_task_group() as tasks:

        async def begin() -> None:
            forgotten.append(asyncio.get_running_loop().create_task(initializer.init(model)))
            await asyncio.to_thread(gate.entered_sync)

        def run() -> None:
            loop.run_until_complete(begin())
            loop.run_until_complete(loop.shutdown_default_executor())
            loop.close()

        thread = threading.Thread(target=run)
        thread.start()
        await until(lambda: not thread.is_alive())
        thread.join()
        other = Caller(tasks, initializer, model)
        await until(rests_with(initializer, waiters=2, resolving=0))
        gate.open()
        assert (await other.result()).released == 0
        await settled(initializer)
        assert gate.count == 1
        # asyncio complains of a pending task that is destroyed; this one was left on purpose.
        forgotten[0]._log_destroy_pending = False  # type: ignore[attr-defined]
        forgotten.clear()
        await settled(initializer)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
async def test_a_forked_child_starts_empty(gate: Gate, model: str) -> None:
    """A child that is forked during a load has no flights and loads on threads of its own."""
    in_child = False

    class Forked(FakeModel):
        @classmethod
        def load(cls, config: ModelConfig, **kwargs: Any) -> Any:
            if not in_child:
                gate.enter()
            return cls(config, kwargs)

    async with Initializer(registry_of(m=Forked)) as initializer, create_task_group() as tasks:
        caller = Caller(tasks, initializer, model)
        await gate.entered()
        with warnings.catch_warnings():
            # From 3.12 on Python warns of what is tested here.
            warnings.simplefilter("ignore", DeprecationWarning)
            child = os.fork()
        if child == 0:
            code = 1
            try:
                in_child = True
                figures = initializer.statistics()
                if (figures.flights, figures.running, figures.threads) == (0, 0, 0):
                    code = 2
                    initializer.init_sync(model, timeout=20)
                    code = 0
            finally:
                os._exit(code)
        ended: list[int] = []

        def has_ended() -> bool:
            pid, status = os.waitpid(child, os.WNOHANG)
            if pid:
                ended.append(os.waitstatus_to_exitcode(status))
            return bool(pid)

        await until(has_ended)
        assert ended == [0]
        gate.open()
        await caller.result()
        await settled(initializer)
