"""What goes wrong in and around a load stays there: no slot, thread or model is lost to it."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import sys
import threading
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from anyio import create_task_group, fail_after
from calls import GPU_THEN_LOCAL, arrived, error_of
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
    Initializer,
    LoadCancelled,
    LoadError,
    ModelConfig,
    check_cancelled,
)
from anyload._load.core import Core
from anyload.events import Discarded, Event, Started
from anyload.testing import (
    FakeModel,
    Gate,
    raises,
    returns,
    returns_at_once,
    settled,
    until,
    waits_at,
)

SHORT = 0.05
"""A limit that is to pass, in seconds."""

on_asyncio = pytest.mark.parametrize(
    "anyio_backend",
    [
        pytest.param(("asyncio", {"use_uvloop": False, "debug": True}), id="asyncio"),
        pytest.param(("asyncio", {"use_uvloop": True}), id="asyncio+uvloop"),
    ],
)
"""For what only asyncio has."""


@pytest.fixture
def model(tmp_path: Path) -> str:
    return model_on_disk(tmp_path)


def has(initializer: Initializer, **figures: int) -> Callable[[], bool]:
    """Return a condition: the statistics have these figures."""

    def holds() -> bool:
        statistics = initializer.statistics()
        return all(getattr(statistics, name) == value for name, value in figures.items())

    return holds


# What a load may raise


class BrokenText(Exception):
    def __str__(self) -> str:
        raise ZeroDivisionError


class ExitingText(Exception):
    def __str__(self) -> str:
        raise SystemExit


class NoText(Exception):
    def __str__(self) -> str:
        return 3  # type: ignore[return-value]  # noqa: PLE0307


class LongText(str):
    __slots__ = ()

    def __len__(self) -> int:
        raise ZeroDivisionError

    def __format__(self, spec: str) -> str:
        raise ZeroDivisionError


class TextOfItsOwn(Exception):
    def __str__(self) -> str:
        return LongText("no")


class Nameless(type):
    @property
    def __name__(cls) -> str:  # type: ignore[override]
        raise ZeroDivisionError


class OfNoName(Exception, metaclass=Nameless):
    pass


class CauseOfItsOwn(Exception):
    __cause__ = __context__ = __traceback__ = property(lambda self: "text")


class GroupOfItsOwn(ExceptionGroup[Exception]):
    exceptions = ("text",)  # type: ignore[assignment]


def chained() -> Exception:
    error = ValueError("outer")
    error.__cause__ = error.__context__ = KeyError("inner")
    error.__cause__.__cause__ = error
    return error


FAULTS: dict[str, tuple[Callable[[], BaseException], str]] = {
    "ordinary": (lambda: ValueError("no"), "ValueError: no"),
    "no memory": (lambda: MemoryError("CUDA out of memory"), "MemoryError: CUDA out of memory"),
    "empty": (MemoryError, "MemoryError"),
    "broken text": (BrokenText, "BrokenText: <its text could not be made: ZeroDivisionError>"),
    "exiting text": (ExitingText, "ExitingText: <its text could not be made: SystemExit>"),
    "no text": (NoText, "NoText: <its text could not be made: TypeError>"),
    "a text of its own kind": (TextOfItsOwn, "TextOfItsOwn: no"),
    "a name of its own kind": (OfNoName, "OfNoName"),
    "causes of its own kind": (CauseOfItsOwn, "CauseOfItsOwn"),
    "a group of its own kind": (
        lambda: GroupOfItsOwn("one", [ValueError()]),
        "GroupOfItsOwn: one (1 sub-exception)",
    ),
    "cycle of causes": (chained, "ValueError: outer"),
    "group": (
        lambda: BaseExceptionGroup("both", [SystemExit(1), ValueError()]),
        "BaseExceptionGroup: both (2 sub-exceptions)",
    ),
    "exit": (lambda: SystemExit(3), "SystemExit: 3"),
    "interrupt": (KeyboardInterrupt, "KeyboardInterrupt"),
    "cancelled": (asyncio.CancelledError, "CancelledError"),
}


@pytest.mark.parametrize("fault", FAULTS)
async def test_whatever_is_raised_is_reported_and_passed(model: str, fault: str) -> None:
    """What a load raises is in the report, never raw; the next backend and the next load work."""
    make, reason = FAULTS[fault]
    good = returns_at_once()
    async with Initializer(registry_of(m=raises(make)), max_concurrent_loads=1) as initializer:
        for _ in range(2):
            with pytest.raises(LoadError) as caught:
                await initializer.init(model)
            (attempt,) = caught.value.attempts
            assert (attempt.outcome, attempt.reason) == ("raised", reason)
            assert reason in str(caught.value)
        await settled(initializer)
    registry = registry_of_two(raises(make), good)
    async with Initializer(registry, backend_priority=GPU_THEN_LOCAL) as initializer:
        assert type(await initializer.init(model)) is good
        await settled(initializer)


async def test_what_fails_outside_of_a_load_ends_it_too(
    model: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A bug of ours around a load costs its callers that load, and no slot and no thread."""

    def run_turn(*args: object, **kwargs: object) -> None:
        raise AttributeError("a bug")

    with monkeypatch.context() as patch:
        patch.setattr("anyload._load.tasks.run_turn", run_turn)
        async with Initializer(registry_of(m=returns_at_once())) as initializer:
            error = await error_of(initializer, model)
            assert [attempt.reason for attempt in error.attempts] == ["AttributeError: a bug"]
            await settled(initializer)
    assert "ended outside of it" in caplog.text


async def test_a_huge_message_is_cut(model: str) -> None:
    """A message of many megabytes is cut to 4 kB."""
    registry = registry_of(m=raises(lambda: ValueError("x" * 50_000_000)))
    async with Initializer(registry) as initializer:
        with pytest.raises(LoadError) as caught:
            await initializer.init(model)
        reason = caught.value.attempts[0].reason
        assert reason.startswith("ValueError: xxx")
        assert len(reason) < 4200
        await settled(initializer)


async def test_a_model_of_a_foreign_type_is_given_back(model: str) -> None:
    """What is loaded and then found to be of a foreign type is released, and reported."""
    foreign = FakeModel(ModelConfig("other"), {})
    async with Initializer(registry_of(m=returns(foreign))) as initializer:
        with pytest.raises(LoadError, match="WrongTypeError"):
            await initializer.init(model)
        assert foreign.released == 1
        await settled(initializer)


async def test_a_slow_load_within_its_limit_is_a_load(gate: Gate, model: str) -> None:
    """A load that takes nine tenths of its limit succeeds."""
    options: dict[str, Any] = {"backend_priority": [{"type": "LOCAL", "timeout": 10 * LIMIT}]}
    async with (
        Initializer(registry_of(m=waits_at(gate)), **options) as initializer,
        create_task_group() as tasks,
    ):
        clock, caller = Clock(initializer), Caller(tasks, initializer, model)
        await gate.entered()
        clock.forward(9 * LIMIT)
        gate.open()
        await caller.result()
        assert initializer.statistics().abandoned == 0
        await settled(initializer)


# Threads that cannot start


async def test_a_load_waits_for_a_busy_thread_when_no_other_can_start(
    gate: Gate, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When no more threads can start, a load is done by one of those that there are."""
    async with (
        Initializer(registry_of(m=waits_at(gate))) as initializer,
        create_task_group() as tasks,
    ):
        first = Caller(tasks, initializer, ModelConfig("m"))
        await gate.entered()
        monkeypatch.setattr(threading.Thread, "start", no_thread_left)
        second = Caller(tasks, initializer, ModelConfig("m"))
        await until(has(initializer, queued=1))
        gate.open()
        assert await first.result() is not await second.result()
        await settled(initializer)


async def test_a_fallback_that_gets_no_thread_is_an_error(
    gate: Gate, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the only thread hangs and no other can start, the fallback is a LoadError."""
    options: dict[str, Any] = {
        "backend_priority": [{"type": "GPU", "timeout": LIMIT}, {"type": "LOCAL"}],
        "max_concurrent_loads": 1,
    }
    registry = registry_of_two(waits_at(gate), returns_at_once())
    async with Initializer(registry, **options) as initializer, create_task_group() as tasks:
        caller = Caller(tasks, initializer, model)
        await gate.entered()
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", no_thread_left)
            let_pass(initializer, 2 * LIMIT)
            error = await caller.load_error()
        assert [(a.backend, a.outcome) for a in error.attempts] == [
            ("GPU", "timed_out"),
            ("LOCAL", "raised"),
        ]
        assert "no worker thread could be started" in error.attempts[1].reason
        assert error.attempts[1].queue_seconds == 0.0  # no thread took it
        await until(has(initializer, free_slots=1, running=0))
        gate.open()
        await settled(initializer)
        assert await initializer.init(ModelConfig("m")) is not None
        await settled(initializer)


# Release


async def test_a_release_that_raises_is_logged(
    gate: Gate, model: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A discarded model whose ``release`` raises is logged and counted, and nothing else."""

    def release(model: FakeModel) -> None:
        raise SystemExit("cannot let go")

    registry = registry_of(m=waits_at(gate, release=release), good=returns_at_once())
    with caplog.at_level(logging.ERROR, "anyload"):
        async with Initializer(registry) as initializer, create_task_group() as tasks:
            caller = Caller(tasks, initializer, model)
            await gate.entered()
            await caller.cancel()
            gate.open()
            await settled(initializer)
            assert initializer.statistics().discarded == 1
            await initializer.init(ModelConfig("good"))
            await settled(initializer)
    assert "cannot let go" in caplog.text


async def test_a_release_that_hangs_is_abandoned(gate: Gate, model: str) -> None:
    """A ``release`` past ``release_timeout`` counts as abandoned; loads go on."""
    hanging = Gate()
    registry = registry_of(
        m=waits_at(gate, release=lambda model: hanging.enter()), good=returns_at_once()
    )
    options: dict[str, Any] = {"release_timeout": SHORT, "max_concurrent_loads": 1}
    async with Initializer(registry, **options) as initializer, create_task_group() as tasks:
        caller = Caller(tasks, initializer, model)
        await gate.entered()
        await caller.cancel()
        gate.open()
        await hanging.entered()
        await until(has(initializer, abandoned=1, releasing=0, free_slots=1))
        await initializer.init(ModelConfig("good"))
        hanging.open()
        await settled(initializer)


# Hooks and the log


async def test_a_hook_that_raises_does_no_harm(
    model: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A broken hook is logged, and the other hooks hear of everything."""
    seen: list[str] = []

    def broken(event: Event) -> None:
        raise ZeroDivisionError

    hooks = [broken, lambda event: seen.append(type(event).__name__)]
    registry = registry_of(m=returns_at_once())
    with caplog.at_level(logging.ERROR, "anyload"):
        async with Initializer(registry, hooks=hooks) as initializer:
            await initializer.init(model)
            await settled(initializer)
    assert seen == ["Queued", "Started", "AttemptEnded", "Loaded"]
    assert "ZeroDivisionError" in caplog.text


async def test_a_hook_that_raises_system_exit_costs_no_thread() -> None:
    """Whatever a hook raises, the load that it heard of goes on and its slot comes back."""

    def hook(event: Event) -> None:
        if isinstance(event, Started):
            raise SystemExit("out of a hook")

    async with Initializer(registry_of(m=returns_at_once()), hooks=[hook]) as initializer:
        assert isinstance(await initializer.init(ModelConfig("m")), FakeModel)
        await settled(initializer)


async def test_a_hook_that_cannot_be_told_of_costs_no_load() -> None:
    """What its repr raises when it is logged stays there too, SystemExit included."""

    class Hook:
        def __call__(self, event: Event) -> None:
            raise ZeroDivisionError

        def __repr__(self) -> str:
            raise SystemExit("out of a repr")

    async with Initializer(registry_of(m=returns_at_once()), hooks=[Hook()]) as initializer:
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
        priority = [{"type": "LOCAL", "timeout": SHORT}]
        registry = registry_of(m=waits_at(gate))
        async with Initializer(registry, backend_priority=priority) as initializer:
            for _ in range(2):
                error = await error_of(initializer, ModelConfig("m"))
                assert [attempt.outcome for attempt in error.attempts] == ["timed_out"]
            gate.open()
            await settled(initializer)
    finally:
        logger.removeHandler(handler)


async def test_an_alarm_that_fails_costs_no_other_timeout(
    gate: Gate, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """An error in the watchdog is logged, and it goes on: the limits after that are kept."""
    bugs, really = [KeyError("a bug")], Core.ring

    def ring(core: Core) -> float | None:
        if bugs:
            raise bugs.pop()
        return really(core)

    monkeypatch.setattr(Core, "ring", ring)
    priority = [{"type": "LOCAL", "timeout": SHORT}]
    async with Initializer(registry_of(m=waits_at(gate)), backend_priority=priority) as initializer:
        for _ in range(2):
            with fail_after(20.0):
                error = await error_of(initializer, ModelConfig("m"))
            assert [attempt.outcome for attempt in error.attempts] == ["timed_out"]
        gate.open()
        await settled(initializer)
    assert bugs == []
    assert "the watchdog goes on after an error" in caplog.text
    assert "a bug" in caplog.text


# Many callers


async def test_a_hundred_callers_share_one_load(gate: Gate, model: str) -> None:
    """100 callers are one load; 99 cancelled ones, the first included, leave it running."""
    told = threading.Event()

    class Checks(FakeModel):
        @classmethod
        def load(cls, config: ModelConfig, **kwargs: Any) -> Any:
            gate.enter()
            check_cancelled()
            gate.enter()
            try:
                check_cancelled()
            except LoadCancelled:
                told.set()
                raise
            return cls(config, kwargs)

    async with Initializer(registry_of(m=Checks)) as initializer, create_task_group() as tasks:
        callers = [Caller(tasks, initializer, model) for _ in range(100)]
        await gate.entered()
        await until(has(initializer, waiters=100))
        for caller in callers[:99]:
            await caller.cancel()
        assert has(initializer, waiters=1, running=1)()
        gate.let_through()
        await gate.entered(2)
        assert not told.is_set()
        await callers[99].cancel()
        assert has(initializer, waiters=0, running=1)()
        gate.open()
        await settled(initializer)
        assert told.is_set()
        assert gate.count == 2


async def test_a_hundred_callers_get_one_model(gate: Gate, model: str) -> None:
    """100 callers of one load get the same object."""
    async with (
        Initializer(registry_of(m=waits_at(gate))) as initializer,
        create_task_group() as tasks,
    ):
        callers = [Caller(tasks, initializer, model) for _ in range(100)]
        await gate.entered()
        await until(has(initializer, waiters=100))
        gate.open()
        assert len({id(await caller.result()) for caller in callers}) == 1
        assert gate.count == 1
        await settled(initializer)


# Native asyncio


@on_asyncio
async def test_a_native_cancel_ends_one_caller(gate: Gate, model: str) -> None:
    """``Task.cancel`` takes effect at once and leaves the other callers alone."""
    async with Initializer(registry_of(m=waits_at(gate))) as initializer:
        tasks = [asyncio.create_task(initializer.init(model)) for _ in range(2)]
        await gate.entered()
        await until(has(initializer, waiters=2))
        tasks[0].cancel()
        with pytest.raises(asyncio.CancelledError):
            await tasks[0]
        assert has(initializer, waiters=1, running=1)()
        gate.open()
        assert (await tasks[1]).released == 0
        assert gate.count == 1
        await settled(initializer)


@on_asyncio
async def test_native_limits_end_one_caller(gate: Gate, model: str) -> None:
    """``asyncio.timeout`` and ``wait_for`` end their caller; the load goes on for the other."""
    async with Initializer(registry_of(m=waits_at(gate))) as initializer:
        other = asyncio.create_task(initializer.init(model))
        await gate.entered()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(initializer.init(model), SHORT)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(SHORT):
                await initializer.init(model)
        assert has(initializer, waiters=1, running=1)()
        gate.open()
        assert (await other).released == 0
        assert gate.count == 1
        await settled(initializer)


@on_asyncio
async def test_a_native_cancel_of_the_last_caller_sets_the_flag(gate: Gate, model: str) -> None:
    """When the last native caller is cancelled, the load is told, and nothing is left behind."""
    told = threading.Event()

    class Checks(FakeModel):
        @classmethod
        def load(cls, config: ModelConfig, **kwargs: Any) -> Any:
            gate.enter()
            try:
                check_cancelled()
            except LoadCancelled:
                told.set()
                raise
            return cls(config, kwargs)

    async with Initializer(registry_of(m=Checks)) as initializer:
        task = asyncio.create_task(initializer.init(model))
        await gate.entered()
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()
        gate.open()
        await settled(initializer)
        assert told.is_set()


# Nothing is kept


async def test_nothing_keeps_a_model(tmp_path: Path) -> None:
    """No worker, flight, event or report keeps a model that its caller has dropped."""
    events: list[Event] = []
    registry = registry_of(m=returns_at_once())
    async with Initializer(registry, hooks=[events.append]) as initializer:
        path = model_on_disk(tmp_path)
        model = await initializer.init(path)
        references = [weakref.ref(model)]
        del model
        models = await initializer.init_many([path, ModelConfig("m")])
        references += [weakref.ref(model) for model in models.values()]
        models.clear()
        async with initializer.init_each([path]) as outcomes:
            outcome = await anext(outcomes)
            references.append(weakref.ref(outcome.value))
            report = outcome.report
            del outcome
        references.append(weakref.ref(await initializer.init(path)))
        await settled(initializer)
        gc.collect()
        assert [reference() for reference in references] == [None] * 5
        assert report in [getattr(event, "report", None) for event in events]


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


async def test_nothing_keeps_a_discarded_model(gate: Gate, model: str) -> None:
    """A model that came too late is released and gone."""
    references: list[weakref.ref[FakeModel]] = []

    class Remembered(FakeModel):
        @classmethod
        def load(cls, config: ModelConfig, **kwargs: Any) -> Any:
            gate.enter()
            model = cls(config, kwargs)
            references.append(weakref.ref(model))
            return model

    options: dict[str, Any] = {"backend_priority": [{"type": "LOCAL", "timeout": LIMIT}]}
    events: list[Event] = []
    registry = registry_of(m=Remembered)
    async with Initializer(registry, hooks=[events.append], **options) as initializer:
        error = await error_of_late(initializer, model, gate)
        assert type(error) is LoadError
        gate.open()
        await settled(initializer)
        # Hooks may hear of it a moment later, and what tells them has no model.
        await arrived(Discarded, events)
        gc.collect()
        assert [reference() for reference in references] == [None]
        assert error.attempts[0].outcome == "timed_out"
        names = [type(event).__name__ for event in events]
        assert names.index("Abandoned") < names.index("ThreadEnded") < names.index("Discarded")


class Tensor:
    """Something large that a load makes on its way to failing."""


async def test_a_failed_attempt_keeps_nothing_alive(gate: Gate, model: str) -> None:
    """What a failed load had made so far is gone before the next backend starts."""
    references: list[weakref.ref[Tensor]] = []
    gone: list[bool] = []

    def inner() -> None:
        tensor = Tensor()
        references.append(weakref.ref(tensor))
        raise MemoryError("CUDA out of memory")

    class Fails(FakeModel):
        @classmethod
        def load(cls, config: ModelConfig, **kwargs: Any) -> Any:
            tensor = Tensor()
            references.append(weakref.ref(tensor))
            try:
                inner()
            except MemoryError as error:
                raise ValueError("cannot load") from error

    class Follows(FakeModel):
        @classmethod
        def load(cls, config: ModelConfig, **kwargs: Any) -> Any:
            gone.extend(reference() is None for reference in references)
            raise OSError("neither")

    events: list[Event] = []
    registry = registry_of_two(Fails, Follows)
    async with Initializer(
        registry, backend_priority=GPU_THEN_LOCAL, hooks=[events.append]
    ) as initializer:
        with pytest.raises(LoadError) as caught:
            await initializer.init(model)
        assert gone == [True, True]
        attempt = caught.value.attempts[0]
        assert attempt.reason == "ValueError: cannot load"
        assert attempt.stack is not None
        assert attempt.stack.endswith(" load")
        assert isinstance(attempt.error, ValueError)
        await settled(initializer)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="counts /proc/self/fd")
async def test_loads_leave_no_thread_and_no_descriptor(tmp_path: Path) -> None:
    """After a close there is no thread more, and there are as many open files as before."""
    model = model_on_disk(tmp_path)
    # Those that another test has left to themselves may end meanwhile.
    before, files = set(threading.enumerate()), len(os.listdir("/proc/self/fd"))
    options: dict[str, Any] = {"backend_priority": [{"type": "LOCAL", "timeout": 30}]}
    registry = registry_of(m=returns_at_once(), bad=raises(lambda: ValueError("no")))
    async with Initializer(registry, **options) as initializer:
        await initializer.init_many([model, *(ModelConfig("m") for _ in range(50))])
        with pytest.raises(LoadError):
            await initializer.init(ModelConfig("bad"))
        await settled(initializer)
    # A thread that has told of its end may take a moment to be gone.
    await until(lambda: set(threading.enumerate()) <= before)
    assert len(os.listdir("/proc/self/fd")) == files
