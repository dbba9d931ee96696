"""Parked threads: they end when idle, miss no call, and keep no dropped initializer."""

import gc
import threading
from typing import Any

import anyio
import pytest
from calls import Calls, two_backends
from scenes import LIMIT, let_pass, no_thread_left, registry_of, start_interrupted, until_sync

from anyload import Initializer, ModelConfig
from anyload._load import workers as worker_threads
from anyload._load.parking import Parked
from anyload._load.workers import Workers
from anyload.testing import Gate, returns_at_once, settled, until, waits_at


class Source:
    """Comes to a gate for every look that a worker takes."""

    def __init__(self, gate: Gate) -> None:
        self.gate = gate
        self.left = Gate(open=True)

    def work(self) -> None:
        self.gate.enter()

    def thread_left(self) -> None:
        self.left.enter()


def kept_back(monkeypatch: pytest.MonkeyPatch, workers: Workers) -> threading.Thread:
    """Call a worker, and return its thread, which has yet to be started."""
    threads = list[threading.Thread]()
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", lambda thread: threads.append(thread))
        workers.call()
    (thread,) = threads
    return thread


def comes_and_leaves(thread: threading.Thread, workers: Workers, source: Source) -> None:
    """Start a thread that was kept back, and see it counted from its first step to its last."""
    thread.start()
    source.gate.entered_sync()
    assert (workers.count, workers.coming) == (1, False)
    workers.dismiss()
    source.gate.open()
    source.left.entered_sync()
    assert (workers.count, workers.coming) == (0, False)


async def test_an_idle_thread_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker with nothing to do ends after a while, and the next load has one all the same."""
    monkeypatch.setattr(worker_threads, "IDLE_SECONDS", 0.05)
    async with Initializer(registry_of(m=returns_at_once())) as initializer:
        first = await initializer.init(ModelConfig("m"))
        await settled(initializer)
        await until(lambda: initializer.statistics().threads == 0)
        assert await initializer.init(ModelConfig("m")) is not first
        await settled(initializer)


def test_a_call_to_a_worker_that_gives_up_is_not_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that is called in the moment it gives up waiting comes back to work."""
    source = Source(Gate(open=True))
    workers = Workers(source, "test")
    parked = list[bool]()

    class Hasty(Parked):
        def park(self, seconds: float | None) -> bool:
            if not parked:
                workers.call()
                parked.append(False)
                return False
            parked.append(super().park(seconds))
            return parked[-1]

    monkeypatch.setattr(worker_threads, "Parked", Hasty)
    workers.call()
    source.gate.entered_sync(2)
    assert workers.count == 1  # the one thread took both calls
    workers.dismiss()
    source.left.entered_sync()
    assert (workers.count, workers.coming) == (0, False)
    assert parked[:2] == [False, True]


def test_a_thread_that_finds_its_source_gone_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker on its way to an initializer that is dropped meanwhile does nothing and ends."""
    source = Source(gate := Gate(open=True))
    workers = Workers(source, "test")
    thread = kept_back(monkeypatch, workers)
    del source
    thread.start()
    thread.join(30.0)
    assert (workers.count, workers.coming) == (0, False)
    assert gate.count == 0


def test_a_worker_is_known_to_come_until_it_has_come(
    gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever asks between a call and the thread's first step is told of it, by both figures."""
    workers = Workers(source := Source(gate), "test")
    thread = kept_back(monkeypatch, workers)
    assert (workers.count, workers.coming) == (1, True)
    comes_and_leaves(thread, workers, source)


def test_a_worker_that_could_not_be_started_is_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine has no thread left: then none is there and none is to come."""
    monkeypatch.setattr(threading.Thread, "start", no_thread_left)
    workers = Workers(Source(Gate()), "test")
    with pytest.raises(RuntimeError, match="new thread"):
        workers.call()
    assert (workers.count, workers.coming) == (0, False)


def test_a_thread_that_started_all_the_same_enters_itself(
    gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its start was interrupted, and it takes its first step after the call has given it up."""
    workers = Workers(source := Source(gate), "test")
    thread = start_interrupted(monkeypatch, workers.call)
    assert (workers.count, workers.coming) == (0, False)
    comes_and_leaves(thread, workers, source)


def test_a_worker_that_was_sent_home_is_not_called() -> None:
    """It may have looked for the last time, and have yet to leave: then another comes."""
    source = Source(Gate(open=True))

    class CalledAtTheLastMoment(Workers):
        def rest(self, worker: Parked) -> bool:
            rests = super().rest(worker)
            if not rests and source.gate.count == 2:
                self.call()
            return rests

    workers = CalledAtTheLastMoment(source, "test")
    workers.call()
    until_sync(lambda: bool(workers._idle))
    workers.dismiss()
    source.gate.entered_sync(3)
    source.left.entered_sync(2)
    assert (workers.count, workers.coming) == (0, False)


class Watched(Workers):
    """Notes what was changed without the lock."""

    changed: list[str] | None = None

    def __init__(self, source: Source, name: str) -> None:
        super().__init__(source, name)
        self._idle = self._noting(list)
        self._alive = self._noting(set)
        self._called = self._noting(set)
        self.changed = []

    def __setattr__(self, name: str, value: Any) -> None:
        self._note(name)
        super().__setattr__(name, value)

    def _note(self, change: str) -> None:
        # What threading.Condition asks of its lock; typeshed does not know it.
        if self.changed is not None and not self._lock._is_owned():  # type: ignore[attr-defined]
            self.changed.append(change)

    def _noting(self, kind: Any) -> Any:
        """Return an empty collection that notes in the same way."""

        def noting(name: str) -> Any:
            def change(collection: Any, *values: Any) -> Any:
                self._note(name)
                return getattr(kind, name)(collection, *values)

            return change

        changes = {"__delitem__", "append", "remove", "clear", "add", "discard"} & set(dir(kind))
        return type("Noting", (kind,), {name: noting(name) for name in changes})()


@pytest.mark.parametrize("ends", ["idle", "dismissed", "not started"])
def test_who_is_there_changes_under_the_lock(
    ends: str, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two calls, the second of which finds the worker of the first idle, and its end."""
    workers = Watched(source := Source(gate), "test")
    if ends == "not started":
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", no_thread_left)
            with pytest.raises(RuntimeError, match="new thread"):
                workers.call()
    workers.call()
    gate.let_through()
    until_sync(lambda: bool(workers._idle))
    workers.call()
    gate.entered_sync(2)
    assert workers.count == 1
    if ends == "idle":
        monkeypatch.setattr(worker_threads, "IDLE_SECONDS", 0.01)
    else:
        workers.dismiss()
    gate.open()
    source.left.entered_sync()
    assert (workers.count, workers.coming) == (0, False)
    assert workers.changed == []


def test_an_interrupt_as_a_thread_starts_loses_no_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """After a Ctrl-C in ``Thread.start``, which did start it, the next load is a load."""
    before, really = set(threading.enumerate()), threading.Thread.start
    interrupts = [KeyboardInterrupt()]

    def start(thread: threading.Thread) -> None:
        really(thread)
        if interrupts and thread.name.startswith("anyload-worker"):
            raise interrupts.pop()

    monkeypatch.setattr(threading.Thread, "start", start)
    initializer = Initializer(registry_of(m=returns_at_once()))
    workers = initializer._core.workers
    with pytest.raises(KeyboardInterrupt):
        initializer.init_sync(ModelConfig("m"))
    until_sync(lambda: bool(workers._idle))
    assert initializer.init_sync(ModelConfig("m"), timeout=20.0) is not None
    threads = set(threading.enumerate()) - before
    assert (len(threads), workers.count, workers.coming) == (1, 1, False)
    assert initializer.close() == ()
    for thread in threads:
        thread.join(30.0)
    assert (workers.count, workers.coming) == (0, False)


def test_an_interrupt_as_an_idle_worker_is_called_loses_no_worker(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """After a Ctrl-C just before the call, the worker, idle no more, is called all the same."""
    really, interrupts = Parked.call, [KeyboardInterrupt()]

    def call(worker: Parked) -> None:
        if interrupts:
            raise interrupts.pop()
        really(worker)

    initializer = Initializer(registry_of(m=returns_at_once()))
    workers = initializer._core.workers
    initializer.init_sync(ModelConfig("m"))
    until_sync(lambda: bool(workers._idle))
    with monkeypatch.context() as patch:
        patch.setattr(Parked, "call", call)
        with pytest.raises(KeyboardInterrupt):
            initializer.init_sync(ModelConfig("m"))
    until_sync(lambda: bool(workers._idle))
    assert initializer.init_sync(ModelConfig("m"), timeout=20.0) is not None
    assert workers.count == 1
    assert initializer.close() == ()
    assert (workers.count, workers.coming) == (0, False)


class Collects(list[Parked]):
    """A list of workers in the middle of whose changes the garbage collector comes by."""

    def __delitem__(self, index: Any) -> None:
        super().__delitem__(index)
        gc.collect()

    def remove(self, worker: Parked) -> None:
        super().remove(worker)
        gc.collect()


@pytest.mark.usefixtures("no_collection")
def test_the_garbage_collector_may_call_a_worker_in_the_middle_of_a_call() -> None:
    """What is collected there, a waiting coroutine for example, calls a worker of its own."""
    source = Source(Gate(open=True))
    workers = Workers(source, "test")

    class Waits:
        """Leaves its load when it is collected."""

        def __init__(self) -> None:
            self.cycle = self

        def __del__(self) -> None:
            workers.call()

    workers._idle = Collects()
    workers.call()
    source.gate.entered_sync()
    until_sync(lambda: bool(workers._idle))
    Waits()
    calling = threading.Thread(target=workers.call, daemon=True)
    calling.start()
    calling.join(20.0)
    assert not calling.is_alive()
    source.gate.entered_sync(3)
    workers.dismiss()
    source.left.entered_sync(2)
    assert (workers.count, workers.coming) == (0, False)


@pytest.mark.usefixtures("no_collection")
def test_the_garbage_collector_may_dismiss_a_worker_that_gives_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An initializer may be collected by its own worker, which ends all the same."""
    monkeypatch.setattr(worker_threads, "IDLE_SECONDS", 0.05)
    source = Source(gate := Gate())
    source.cycle = source  # type: ignore[attr-defined]
    workers = Workers(source, "retires")
    workers._idle = Collects()
    workers.call()
    gate.entered_sync()
    (thread,) = (one for one in threading.enumerate() if one.name == "retires-1")
    del source
    gate.open()
    thread.join(20.0)
    assert not thread.is_alive()
    assert workers._dismissed
    assert (workers.count, workers.coming) == (0, False)


async def test_a_thread_that_is_late_runs_no_load_that_nobody_wants(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A fallback whose callers have gone before its thread is there is never started."""
    entrance, stuck, fallback = Gate(), Gate(), Gate(open=True)
    live = worker_threads._live

    def late(workers: Workers, worker: Parked) -> None:
        entrance.enter()
        live(workers, worker)

    monkeypatch.setattr(worker_threads, "_live", late)
    registry = two_backends()
    registry.module("m", "GPU")(waits_at(stuck))
    registry.module("m")(waits_at(fallback))
    backends = [{"type": "GPU", "timeout": LIMIT}, {"type": "LOCAL"}]
    async with Initializer(
        registry, backend_priority=backends, max_concurrent_loads=1
    ) as initializer:
        entrance.let_through()
        async with anyio.create_task_group() as tasks:
            Calls(tasks).start("m", initializer, ModelConfig("m"))
            await stuck.entered()
            let_pass(initializer, 2 * LIMIT)
            await entrance.entered(2)  # the fallback's thread; the first one is stuck
            tasks.cancel_scope.cancel()
        assert initializer.statistics().abandoned == 1
        entrance.open()
        await until(lambda: initializer.statistics().free_slots == 1)
        stuck.open()
        await settled(initializer)
        assert fallback.count == 0
        assert initializer.statistics().cancelled == 1
