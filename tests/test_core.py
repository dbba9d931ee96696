"""What happens between threads, in the moment in which it can go wrong."""

import _thread
import gc
import logging
import sys
import threading
from collections import deque
from collections.abc import Callable
from os import PathLike
from pathlib import Path
from typing import Any
from weakref import ref

import anyio
import pytest
from anyio import create_task_group
from calls import Calls, arrived, does, error_of, of_type
from scenes import (
    LIMIT,
    Caller,
    error_of_late,
    error_of_queued,
    let_pass,
    model_on_disk,
    no_thread_left,
    registry_of,
)

from anyload import (
    Backend,
    ClosedError,
    Initializer,
    LoadError,
    LoadTimeoutError,
    ModelConfig,
    ModelNotFoundError,
    Registry,
    WrongTypeError,
    check_cancelled,
    report_progress,
)
from anyload._load import closing
from anyload._load.call import run_turn as run_turn_really
from anyload._load.core import Core
from anyload._load.flight import Flight, Known
from anyload._load.process import Lock, process
from anyload._load.requests import Request
from anyload._load.resolver import Resolver
from anyload._load.waiters import ThreadSeat
from anyload.events import Cancelled, Discarded, Event, Failed, Loaded
from anyload.testing import (
    FakeModel,
    Gate,
    at_rest,
    raises,
    returns,
    returns_at_once,
    settled,
    until,
    waits_at,
)

SHORT = 0.05


# The lock


def test_the_process_lock_is_entered_and_left_in_c() -> None:
    """A KeyboardInterrupt inside of an ``__exit__`` in Python would leave it locked for ever."""
    assert Lock.__enter__ is _thread.RLock.__enter__
    assert Lock.__exit__ is _thread.RLock.__exit__


def test_what_is_put_off_is_done_by_who_lets_go_of_the_lock() -> None:
    """What wants the lock while its own thread holds it is done right after, without it."""
    done = list[bool]()
    with Initializer(registry_of(m=returns_at_once())) as initializer:
        core = initializer._core
        with core.transition(), core.lock:
            core.lock.put_off(lambda: done.append(core.lock.mine()))
            assert done == []
        assert done == [False]


def test_what_is_put_off_is_done_once() -> None:
    """Of two threads that come to do what was put off, one does it; the other goes on."""
    lock, done = Lock(), list[threading.Thread]()
    faster = threading.Thread(target=lock.catch_up)

    class Raced(deque[Callable[[], None]]):
        """Has another thread be the faster one, between the look and the call."""

        def popleft(self) -> Callable[[], None]:
            if not faster.ident:
                faster.start()
                faster.join(30.0)
            return super().popleft()

    lock._put_off = Raced()
    with lock:
        lock.put_off(lambda: done.append(threading.current_thread()))
    lock.catch_up()
    assert done == [faster]


def test_what_is_put_off_may_raise(caplog: pytest.LogCaptureFixture) -> None:
    """It is nobody's error but its own, and the next one is done all the same."""
    lock, done = Lock(), list[str]()

    def broken() -> None:
        raise ValueError("broken")

    with lock:
        lock.put_off(broken)
        lock.put_off(lambda: done.append("the next"))
    lock.catch_up()
    assert done == ["the next"]
    assert "ValueError: broken" in caplog.text


# Joining and leaving


def test_an_interrupt_before_a_caller_has_its_seat_leaves_no_caller_behind(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A Ctrl-C in the middle of joining is an interrupt, and nothing is left."""

    def join_all(*_: object) -> None:
        raise KeyboardInterrupt

    with Initializer(registry_of(m=returns_at_once())) as initializer:
        with monkeypatch.context() as patch:
            patch.setattr(initializer._callers, "join_all", join_all)
            with pytest.raises(KeyboardInterrupt):
                initializer.init_sync(ModelConfig("m"))
        assert initializer.init_sync(ModelConfig("m")) is not None
        assert at_rest(initializer.statistics())


@pytest.mark.parametrize("priority", [None, "high", 1.0, True])
async def test_a_priority_that_is_no_whole_number_is_a_type_error(priority: Any) -> None:
    """Whoever loads hears of it at once, before a queue has to put it in order."""
    wrong = pytest.raises(TypeError, match="priority is a whole number, not")
    config = ModelConfig("m")
    async with Initializer(registry_of(m=returns_at_once())) as initializer:
        with wrong:
            await initializer.init(config, priority=priority)
        with wrong:
            initializer.init_sync(config, priority=priority)
        with wrong:
            await initializer.init_many([config], priority=priority)
        with wrong:
            initializer.init_each([config], priority=priority)
        assert at_rest(initializer.statistics())
        assert initializer.statistics().threads == 0


def test_two_threads_that_begin_at_once_share_a_load(tmp_path: Path) -> None:
    """Who finds, after making its load, that another thread was faster, joins that one."""
    gate = Gate()
    path = model_on_disk(tmp_path)
    initializer = Initializer(registry_of(m=waits_at(gate)))
    got = list[Any]()
    faster = threading.Thread(target=lambda: got.append(initializer.init_sync(path, key="k")))

    class Slow(PathLike[str]):
        """A path whose text is not there before the other thread has begun."""

        def __fspath__(self) -> str:
            if not faster.ident:
                faster.start()
                gate.entered_sync()
            return path

    async def slower() -> None:
        async with create_task_group() as tasks:
            calls = Calls(tasks)
            calls.start("slower", initializer, Slow(), key="k")
            await until(lambda: initializer.statistics().waiters == 2)
            gate.open()
            got.append(await calls.result("slower"))

    anyio.run(slower)
    faster.join(30.0)
    assert got[0] is got[1]
    assert gate.count == 1
    initializer.close()


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_the_garbage_collector_may_drop_a_caller_under_the_lock(gate: Gate) -> None:
    """A caller that is collected in the middle of a transition leaves right after it."""
    collected = list[str]()

    class Collects:
        def may_start(self, config: ModelConfig, size: int) -> bool:
            if config.module_id == "free":
                gc.collect()
                collected.append(config.module_id)
            return True

        def started(self, config: ModelConfig, size: int) -> None: ...

        def ended(self, config: ModelConfig, size: int) -> None: ...

    registry = registry_of(m=waits_at(gate), free=returns_at_once())
    async with Initializer(registry, admission=Collects()) as initializer:
        caller = initializer.init(ModelConfig("m"))
        caller.send(None)
        await gate.entered()
        assert initializer.statistics().waiters == 1
        gc.disable()
        try:
            cycle: list[Any] = [caller]
            cycle.append(cycle)
            del caller, cycle
            assert await initializer.init(ModelConfig("free")) is not None
        finally:
            gc.enable()
        assert collected
        await until(lambda: initializer.statistics().waiters == 0)
        gate.open()
        await settled(initializer)
        assert initializer.statistics().discarded == 1


async def test_a_joiner_at_the_last_moment_keeps_the_load(
    gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A load that finds no caller, and then one after all, is not told to stop."""
    check, real = Gate(), Core.told_to_stop

    def told(core: Core, turn: Any) -> bool:
        check.enter()
        return real(core, turn)

    monkeypatch.setattr(Core, "told_to_stop", told)

    def body(_: ModelConfig) -> None:
        gate.enter()
        check_cancelled()

    module = does(body)
    async with (
        Initializer(registry_of(m=module)) as initializer,
        create_task_group() as tasks,
    ):
        first = Caller(tasks, initializer, ModelConfig("m"), key="k")
        await gate.entered()
        await first.cancel()
        gate.open()
        await check.entered()
        second = Caller(tasks, initializer, ModelConfig("m"), key="k")
        await until(lambda: initializer.statistics().waiters == 1)
        check.open()
        assert await second.result() is module.made[0]
        assert len(module.made) == 1
        await settled(initializer)


async def test_a_model_goes_without_the_lock(gate: Gate) -> None:
    """A model that goes with its last caller, who was cancelled, may take its time in __del__."""
    held = list[bool]()
    module = waits_at(gate, __del__=lambda model: held.append(process.lock.mine()))
    async with (
        Initializer(registry_of(m=module)) as initializer,
        create_task_group() as tasks,
    ):

        def takes_and_drops() -> None:
            initializer.init_sync(ModelConfig("m"), key="k")

        caller = Caller(tasks, initializer, ModelConfig("m"), key="k")
        await gate.entered()
        thread = threading.Thread(target=takes_and_drops)
        thread.start()
        await until(lambda: initializer.statistics().waiters == 2)
        gate.open()
        thread.join(30.0)  # this loop is kept from waking the caller
        assert held == []
        await caller.cancel()
        await settled(initializer)
        gc.collect()
        assert held == [False]


class Given:
    """What a caller gives a load."""


async def test_an_error_that_is_kept_keeps_nothing_of_its_load() -> None:
    """The frames it leads to hold nothing, those of the worker included; there is no cycle."""
    registry = registry_of(m=raises(ValueError))
    async with Initializer(registry) as initializer:
        gc.disable()
        try:
            given = Given()
            watched = ref(given)
            error = await error_of(initializer, ModelConfig("m"), given=given)
            kept = error.attempts[0].error
            del error, given
            await until(lambda: watched() is None)
        finally:
            gc.enable()
        assert isinstance(kept, ValueError)
        assert kept.__traceback__ is not None


def _telling(initializer: Initializer, told: list[tuple[Any, bool]]) -> Request:
    """Return a request that notes its model, and whether its key still leads to its flight."""
    key, begin = initializer._requests.for_one(ModelConfig("m"), "key", 0, {})
    keys = initializer._core.flights.keys

    def begin_telling() -> Flight:
        flight = begin()
        flight.landed = lambda model: told.append((model, keys.find(key) is flight))
        return flight

    return key, begin_telling


async def test_who_keeps_models_hears_of_one_before_its_key_is_free() -> None:
    """Whoever comes next finds it kept, or finds its flight: there is no moment in between."""
    told: list[tuple[Any, bool]] = []
    async with Initializer(registry_of(m=returns_at_once())) as initializer:
        model = await initializer._callers.call(*_telling(initializer, told), 0)
        assert told == [(model, True)]
        await settled(initializer)


async def test_a_model_that_is_kept_is_not_released_with_its_last_caller(gate: Gate) -> None:
    """A caller who is cancelled when the model has landed leaves it to whoever keeps it."""
    told: list[tuple[Any, bool]] = []
    async with (
        Initializer(registry_of(m=waits_at(gate))) as initializer,
        create_task_group() as tasks,
    ):
        tasks.start_soon(initializer._callers.call, *_telling(initializer, told), 0)
        await gate.entered()
        gate.open()
        # Not awaited: the caller must not wake up between the landing and its cancelling.
        while initializer.statistics().loaded == 0:
            pass
        tasks.cancel_scope.cancel()
    assert initializer.statistics().discarded == 0
    ((model, _),) = told
    assert not model.released


@pytest.mark.parametrize("landed", [False, True])
async def test_what_landed_while_it_was_looked_for_is_not_loaded(
    tmp_path: Path, landed: bool
) -> None:
    """Who keeps models is asked once more when a name was read, and nobody can come between."""
    kept = FakeModel(ModelConfig("m"), {})

    async with Initializer(registry_of(m=returns_at_once())) as initializer:
        key, begin = initializer._requests.for_one(model_on_disk(tmp_path), None, 0, {})

        def begin_asking() -> Flight:
            flight = begin()
            read = flight.resolve

            def resolve() -> Any:
                found: Any = read and read()
                found.known = lambda: Known(kept) if landed else None
                return found

            flight.resolve = resolve
            return flight

        model = await initializer._callers.call(key, begin_asking, 0)
        assert (model is kept) is landed
        assert initializer.statistics().loaded == (not landed)
        await settled(initializer)


async def test_who_keeps_models_does_not_hear_of_one_that_is_late(gate: Gate) -> None:
    """A model that comes after its limit is released, so it must not be kept."""
    told: list[tuple[Any, bool]] = []
    registry = registry_of(m=waits_at(gate))
    priority = [{"type": "LOCAL", "timeout": LIMIT}]
    async with Initializer(registry, backend_priority=priority) as initializer:

        async def call() -> None:
            with pytest.raises(LoadError):
                await initializer._callers.call(*_telling(initializer, told), 0)

        async with create_task_group() as tasks:
            tasks.start_soon(call)
            await gate.entered()
            let_pass(initializer, 2 * LIMIT)
        gate.open()
        await until(lambda: initializer.statistics().discarded == 1)
        await settled(initializer)
    assert not told


async def test_a_more_urgent_caller_joins_a_load_that_runs(gate: Gate) -> None:
    """A higher priority changes nothing for a load that has begun; its caller gets that model."""
    async with (
        Initializer(registry_of(m=waits_at(gate))) as initializer,
        create_task_group() as tasks,
    ):
        first = Caller(tasks, initializer, ModelConfig("m"), key="k")
        await gate.entered()
        second = Caller(tasks, initializer, ModelConfig("m"), key="k", priority=9)
        await until(lambda: initializer.statistics().waiters == 2)
        gate.open()
        assert await first.result() is await second.result()
        assert gate.count == 1
        await settled(initializer)


async def test_a_load_that_nobody_wants_ends_as_cancelled_for_the_hooks(gate: Gate) -> None:
    """It is neither Loaded nor Failed; so each load that was Queued has an end, and just one."""
    events = list[Event]()
    registry = registry_of(m=waits_at(gate), free=returns_at_once())
    async with (
        Initializer(registry, max_concurrent_loads=1, hooks=[events.append]) as initializer,
        create_task_group() as tasks,
    ):
        running = Caller(tasks, initializer, ModelConfig("m"))
        await gate.entered()
        queued = Caller(tasks, initializer, ModelConfig("free"))
        await until(lambda: initializer.statistics().queued == 1)
        await queued.cancel()
        gate.open()
        await running.result()
        await settled(initializer)
        await arrived(Loaded, events)
        assert [event.model for event in of_type(Loaded, events)] == ["m"]
        assert of_type(Failed, events) == []
        cancelled = await arrived(Cancelled, events)
        assert (cancelled.model, cancelled.report.attempts) == ("free", ())
        assert initializer.statistics().cancelled == 1


async def test_a_load_that_was_left_while_it_ran_is_cancelled_when_it_ends(gate: Gate) -> None:
    """Its attempt ends as it would have; a model that it made is discarded."""
    events = list[Event]()
    registry = registry_of(m=waits_at(gate))
    async with (
        Initializer(registry, hooks=[events.append]) as initializer,
        create_task_group() as tasks,
    ):
        caller = Caller(tasks, initializer, ModelConfig("m"))
        await gate.entered()
        await caller.cancel()
        assert of_type(Cancelled, events) == []
        gate.open()
        await settled(initializer)
        cancelled = await arrived(Cancelled, events)
        assert [attempt.outcome for attempt in cancelled.report.attempts] == ["loaded"]
        assert len(of_type(Discarded, events)) == 1
        assert of_type(Loaded, events) == []


# Reading


async def test_a_slow_read_does_not_hold_up_the_others(
    gate: Gate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While one model is being read for long, another is read and loaded; who leaves, leaves."""
    slow, quick = model_on_disk(tmp_path, name="slow"), model_on_disk(tmp_path, name="quick")
    real = Resolver.resolve

    def resolve(resolver: Resolver, model: Any, *args: Any, **kwargs: Any) -> Any:
        if model == slow:
            gate.enter()
        return real(resolver, model, *args, **kwargs)

    monkeypatch.setattr(Resolver, "resolve", resolve)
    async with (
        Initializer(registry_of(m=returns_at_once())) as initializer,
        create_task_group() as tasks,
    ):
        caller = Caller(tasks, initializer, slow)
        await gate.entered()
        assert (await initializer.init(quick)).config.model_path == quick
        assert initializer.statistics().resolving == 1
        await caller.cancel()
        gate.open()
        await settled(initializer)
        assert initializer.statistics().loaded == 1


async def test_a_model_that_cannot_be_read_is_an_error_of_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What reading raises, and is no error of anyload, is told, and is the cause of what it is."""
    error = OSError("the disk is gone")

    def resolve(*args: Any, **kwargs: Any) -> Any:
        raise error

    monkeypatch.setattr(Resolver, "resolve", resolve)
    async with Initializer(registry_of(m=returns_at_once())) as initializer:
        with pytest.raises(ModelNotFoundError, match="OSError: the disk is gone") as raised:
            await initializer.init(model_on_disk(tmp_path))
        assert raised.value.__cause__ is error
        await settled(initializer)


async def test_a_model_that_no_thread_can_read_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where not even the first thread can start, a load of a path is a LoadError."""
    async with Initializer(registry_of(m=returns_at_once())) as initializer:
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", no_thread_left)
            error = await error_of(initializer, model_on_disk(tmp_path))
        assert type(error) is LoadError
        assert error.attempts == ()
        assert "can't start new thread" in str(error.__cause__)
        await settled(initializer)


# In the thread


def test_reports_outside_of_a_load_do_nothing() -> None:
    """A loader that is called without anyload may report and check all the same."""
    assert report_progress(0.5, "half") is None  # type: ignore[func-returns-value]
    assert check_cancelled() is None  # type: ignore[func-returns-value]


async def test_load_gets_what_it_is_annotated_with(tmp_path: Path) -> None:
    """A load that asks for a str or a Path gets the path of the model."""

    class Text:
        @classmethod
        def load(cls, path: str) -> "Text":
            loaded.append(path)
            return cls()

    class PathObject:
        @classmethod
        def load(cls, path: Path) -> "PathObject":
            loaded.append(path)
            return cls()

    loaded = list[Any]()
    async with Initializer(registry_of(text=Text, path=PathObject)) as initializer:
        text = model_on_disk(tmp_path, "text")
        path = model_on_disk(tmp_path, "path")
        assert type(await initializer.init(text)) is Text
        assert type(await initializer.init(path)) is PathObject
        assert loaded == [text, Path(path)]
        assert type(loaded[0]) is str
        await settled(initializer)


@pytest.mark.parametrize("kind", [ValueError, SystemExit])
@pytest.mark.parametrize("at", ["the call", "the look"])
async def test_an_unusable_model_whose_release_raises_is_logged(
    caplog: pytest.LogCaptureFixture, kind: type[BaseException], at: str
) -> None:
    """A model of a foreign type stays that error when giving it back fails as well."""

    def refuse(model: object) -> None:
        raise kind("cannot let go")

    release = refuse if at == "the call" else property(refuse)
    foreign = type("Foreign", (), {"release": release})()
    with caplog.at_level(logging.ERROR, "anyload"):
        async with Initializer(registry_of(m=returns(foreign))) as initializer:
            error = await error_of(initializer, ModelConfig("m"))
            assert isinstance(error.__cause__, WrongTypeError)
            await settled(initializer)
    assert "release of an unusable" in caplog.text
    assert "cannot let go" in caplog.text


def test_sniffio_is_not_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nobody has imported sniffio, a load works as well."""
    monkeypatch.delitem(sys.modules, "sniffio", raising=False)
    with Initializer(registry_of(m=returns_at_once())) as initializer:
        assert initializer.init_sync(ModelConfig("m")).config.module_id == "m"


async def test_a_load_that_is_late_before_it_begins_is_not_begun(
    gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A limit that passes between the thread and its load keeps the load from being called."""
    entered, real = Gate(open=True), run_turn_really

    def run_turn(*args: Any, **kwargs: Any) -> Any:
        gate.enter()
        return real(*args, **kwargs)

    monkeypatch.setattr("anyload._load.tasks.run_turn", run_turn)
    async with Initializer(registry_of(m=waits_at(entered)), load_timeout=LIMIT) as initializer:
        error = await error_of_late(initializer, ModelConfig("m"), gate)
        assert type(error) is LoadTimeoutError
        gate.open()
        await settled(initializer)
        assert entered.count == 0


# Loads inside loads


async def test_two_parents_share_one_nested_load(gate: Gate) -> None:
    """A load waits, inside itself, for one that runs inside another, and is no cycle."""
    inner = waits_at(gate)

    def nested(_: ModelConfig) -> None:
        got.append(initializer.init_sync(ModelConfig("inner"), key="inner"))

    got = list[Any]()
    async with (
        Initializer(registry_of(a=does(nested), b=does(nested), inner=inner)) as initializer,
        create_task_group() as tasks,
    ):
        a = Caller(tasks, initializer, ModelConfig("a"))
        await gate.entered()
        b = Caller(tasks, initializer, ModelConfig("b"))
        await until(lambda: initializer.statistics().waiters == 4)
        gate.open()
        await a.result()
        await b.result()
        assert got[0] is got[1]
        assert gate.count == 1
        await settled(initializer)


# Releases


async def discard(
    initializer: Initializer, gate: Gate, module_id: str, count: Callable[[], bool]
) -> None:
    """Load a model that nobody wants once it is there, and wait for what comes of it."""
    async with create_task_group() as tasks:
        caller = Caller(tasks, initializer, ModelConfig(module_id))
        await gate.entered()
        await caller.cancel()
    gate.open()
    await until(count)


async def test_a_model_without_release_is_dropped(gate: Gate) -> None:
    """A discarded model that has no ``release`` is counted, and that is all."""
    async with Initializer(registry_of(m=waits_at(gate, release=None))) as initializer:
        await discard(initializer, gate, "m", lambda: initializer.statistics().discarded == 1)
        await settled(initializer)


async def test_a_release_that_hangs_is_named_by_who_waits_for_its_group(gate: Gate) -> None:
    """An attempt that cannot start because of a hung release times out and says so."""
    held = Gate()
    group = "hung release"
    registry = registry_of(
        m=waits_at(gate, release=lambda model: held.enter(), exclusive_group=group),
        same=returns_at_once(exclusive_group=group),
    )
    backends = [{"type": "LOCAL", "timeout": LIMIT}]
    async with Initializer(
        registry, release_timeout=LIMIT, backend_priority=backends
    ) as initializer:
        async with create_task_group() as tasks:
            caller = Caller(tasks, initializer, ModelConfig("m"))
            await gate.entered()
            await caller.cancel()
        gate.open()
        await held.entered()
        let_pass(initializer, 2 * LIMIT)
        assert initializer.statistics().abandoned == 1
        error = await error_of_queued(initializer, ModelConfig("same"))
        assert error.attempts[0].outcome == "timed_out"
        assert "waited for the release of 'm'" in error.attempts[0].reason
        held.open()
        await settled(initializer)
        assert await initializer.init(ModelConfig("same")) is not None
        await settled(initializer)


async def test_a_nested_load_waits_for_a_release(gate: Gate) -> None:
    """A nested load whose group a release holds waits for that; it is no cycle."""
    held, group = Gate(), "release nested"

    def nested(_: ModelConfig) -> None:
        got.append(initializer.init_sync(ModelConfig("same")))

    got = list[Any]()
    same = returns_at_once(exclusive_group=group)
    registry = registry_of(
        m=waits_at(gate, release=lambda model: held.enter(), exclusive_group=group),
        same=same,
        outer=does(nested),
    )
    async with (
        Initializer(registry) as initializer,
        create_task_group() as tasks,
    ):
        await discard(initializer, gate, "m", lambda: held.count == 1)
        caller = Caller(tasks, initializer, ModelConfig("outer"))
        await until(lambda: initializer.statistics().queued == 1)
        assert got == []
        held.open()
        await caller.result()
        assert isinstance(got[0], same)
        await settled(initializer)


# Preparing


class Device(Backend):
    """A backend whose start and stop wait at gates."""

    backend_type = "DEVICE"
    starting = Gate(open=True)
    stopping = Gate(open=True)

    def start(self) -> None:
        self.starting.enter()

    def stop(self) -> None:
        self.stopping.enter()


def on_device(**gates: Gate) -> tuple[Registry, list[dict[str, Any]]]:
    registry = Registry()
    registry.backend_type(type("TestDevice", (Device,), gates))
    registry.module("m", "DEVICE")(returns_at_once())
    return registry, [{"type": "DEVICE"}]


async def test_a_start_that_hangs(gate: Gate) -> None:
    """A ``start`` past prepare_timeout ends the attempts that wait for it; later ones may load."""
    registry, backends = on_device(starting=gate)
    async with Initializer(
        registry, backend_priority=backends, prepare_timeout=SHORT
    ) as initializer:
        error = await error_of(initializer, ModelConfig("m"))
        assert error.attempts[0].outcome == "timed_out"
        assert error.attempts[0].reason.startswith("start() of backend DEVICE has been running")
        gate.open()
        await until(lambda: gate.inside == 0)
        await until(lambda: not initializer._core.flights.preparations.running)
        assert await initializer.init(ModelConfig("m")) is not None
        await settled(initializer)


async def test_who_waits_for_a_hung_import_keeps_waiting_when_asked_again(gate: Gate) -> None:
    """Within its limit, a prepare of a package whose import hangs waits, however often it asks."""

    def prepares(body: Callable[[], None]) -> Any:
        prepare = classmethod(lambda cls: body())
        return returns_at_once(prepare=prepare, __module__="sick.package")

    registry = registry_of(hung=prepares(gate.enter), same=prepares(lambda: None))
    async with (
        Initializer(registry, prepare_timeout=SHORT) as hasty,
        Initializer(registry, prepare_timeout=30.0) as patient,
        create_task_group() as tasks,
    ):
        await error_of(hasty, ModelConfig("hung"))
        caller = Caller(tasks, patient, ModelConfig("same"))
        await until(lambda: patient.statistics().preparing == 1)
        patient.reconsider()
        assert patient.statistics().preparing == 1
        gate.open()
        assert await caller.result() is not None
        await settled(hasty)
        await settled(patient)


# The end


async def test_a_stop_that_hangs_does_not_hold_up_a_close(
    gate: Gate, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A close waits only so long for ``stop``; it says so, and leaves that thread behind."""
    monkeypatch.setattr(closing, "STOP_SECONDS", SHORT)
    registry, backends = on_device(stopping=gate)
    initializer = Initializer(registry, backend_priority=backends)
    await initializer.init(ModelConfig("m"))
    with caplog.at_level(logging.WARNING, "anyload"), anyio.fail_after(20.0):
        assert await initializer.aclose() == ()
    assert "1 backends did not stop in time" in caplog.text
    await gate.entered()
    assert gate.inside == 1
    gate.open()
    await until(lambda: initializer.statistics().threads == 0)
    assert at_rest(initializer.statistics())
    assert await initializer.aclose() == ()


async def test_a_stop_in_time_is_no_news(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """When a backend has stopped, its limit passes unnoticed, however late the closer comes."""
    stopped = Gate(open=True)
    registry, backends = on_device(stopping=stopped)
    initializer = Initializer(registry, backend_priority=backends)
    await initializer.init(ModelConfig("m"))
    core, ending = initializer._core, initializer._ending
    with caplog.at_level(logging.WARNING, "anyload"):
        ending.begin(0.0)
        assert not ending.step(ThreadSeat(core.flights))
        await stopped.entered()
        await until(lambda: core.flights.preparations.stopping == 0)
        let_pass(initializer, 2 * closing.STOP_SECONDS)
        assert core.flights.alarms.next_at is None
        assert await initializer.aclose() == ()
    assert caplog.records == []


async def test_nothing_is_logged_under_the_lock(
    gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a close has to say of its backends is logged without the lock: a handler may ask us."""
    monkeypatch.setattr(closing, "STOP_SECONDS", SHORT)
    notes = list[tuple[str, bool]]()

    class Notes(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            notes.append((record.getMessage(), process.lock.mine()))

    logger, handler = logging.getLogger("anyload.loads"), Notes()
    logger.addHandler(handler)
    try:
        registry, backends = on_device(stopping=gate)
        hung = Initializer(registry, backend_priority=backends)
        await hung.init(ModelConfig("m"))
        await hung.aclose()
        registry, backends = on_device()
        registry.module("slow", "DEVICE")(waits_at(gate))
        busy = Initializer(registry, backend_priority=backends)
        async with create_task_group() as tasks:
            caller = Caller(tasks, busy, ModelConfig("slow"))
            await until(lambda: gate.inside == 2)
            await busy.aclose(grace=0)
            assert isinstance(await caller.failure(), ClosedError)
    finally:
        logger.removeHandler(handler)
    assert notes == [
        ("1 backends did not stop in time", False),
        ("the load of 'slow' on DEVICE is abandoned", False),
        ("stop() of backend DEVICE is skipped: an abandoned load still runs on it", False),
    ]
    gate.open()
    for initializer in (hung, busy):
        await settled(initializer)
        await until(lambda one=initializer: one.statistics().threads == 0)  # type: ignore[misc]


async def test_a_close_cuts_a_load_inside_a_load_of_another(gate: Gate) -> None:
    """A nested load of an initializer that closes is ClosedError; what it loads is released."""
    inner = does(lambda config: gate.enter())

    def nested(_: ModelConfig) -> None:
        with pytest.raises(ClosedError):
            cut.init_sync(ModelConfig("inner"))

    cut = Initializer(registry_of(inner=inner))
    async with (
        Initializer(registry_of(outer=does(nested))) as initializer,
        create_task_group() as tasks,
    ):
        caller = Caller(tasks, initializer, ModelConfig("outer"))
        await gate.entered()
        with anyio.fail_after(20.0):
            assert await cut.aclose(grace=0.0) == ()
        assert cut.statistics().failed == 1
        gate.open()
        await caller.result()
        await settled(initializer)
        await settled(cut)
        assert [model.released for model in inner.made] == [1]
        assert cut.statistics().loaded == 0


async def test_a_load_that_a_fork_interrupts_leaves_the_child_as_it_is(gate: Gate) -> None:
    """A load that goes on in a forked child hands nothing in, and the child loads afresh."""
    module = waits_at(gate, exclusive_group="forked")
    async with Initializer(registry_of(m=module)) as initializer:
        async with create_task_group() as tasks:
            caller = Caller(tasks, initializer, ModelConfig("m"))
            await gate.entered()
            process.after_fork()  # as the child of a fork in this load's thread sees it
            assert at_rest(initializer.statistics())
            await caller.cancel()
        gate.open()
        await until(lambda: gate.inside == 0)
        assert isinstance(await initializer.init(ModelConfig("m")), module)
        await settled(initializer)
        assert initializer.statistics().discarded == 0
