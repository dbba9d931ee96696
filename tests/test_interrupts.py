"""A Ctrl-C wherever it may come as threads are called, started and sent home."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextvars import Context, copy_context
from pathlib import Path
from typing import Any

import anyio
import pytest
import trio
from interrupts import Interrupter, at_each_place, press
from scenes import registry_of, until_sync
from test_watchdog import Ringer
from test_workers import Source

from anyload import Initializer, ModelConfig
from anyload._load import parking
from anyload._load import watchdog as watchdog_thread
from anyload._load import workers as worker_threads
from anyload._load.core import Core
from anyload._load.own_threads import on_own_thread
from anyload._load.watchdog import Watchdog
from anyload._load.workers import Workers
from anyload.testing import FakeClock, Gate, at_rest, returns_at_once

LOAD = str(Path(worker_threads.__file__).parent)
TRIO_EVENT = str(Path(trio.__file__).with_name("_sync.py"))


def threads_named(name: str) -> int:
    return sum(thread.name.startswith(name) for thread in threading.enumerate())


@pytest.fixture(autouse=True)
def nothing_helps(no_collection: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """No thread ends because it was idle for long, and none is interrupted in a collection."""
    monkeypatch.setattr(worker_threads, "IDLE_SECONDS", 1000.0)
    monkeypatch.setattr(watchdog_thread, "IDLE_SECONDS", 1000.0)


@pytest.mark.parametrize("idle", [0, 1])
def test_calling_a_worker(idle: int) -> None:
    """The next call has one look, and none is left behind, whether there was an idle one."""
    for interrupt in at_each_place(worker_threads.__file__, parking.__file__):
        call_a_worker(idle, interrupt)


def call_a_worker(idle: int, interrupt: Interrupter) -> None:
    workers = Workers(source := Source(Gate(open=True)), "called")
    if idle:
        workers.call()
        until_sync(lambda: bool(workers._idle))
    interrupt(workers.call)
    assert not on_own_thread()
    workers.call()
    source.gate.entered_sync(idle + 1)
    until_sync(lambda: not workers.coming)
    workers.dismiss()
    until_sync(lambda: workers.count == 0)
    until_sync(lambda: threads_named("called") == 0)


def test_dismissing_workers() -> None:
    """Those that were told leave and are called no more, and the next tells the others."""
    for interrupt in at_each_place(worker_threads.__file__, parking.__file__):
        dismiss_workers(interrupt)


def dismiss_workers(interrupt: Interrupter) -> None:
    workers = Workers(source := Source(Gate()), "dismissed")
    for number in range(2):
        workers.call()
        source.gate.entered_sync(number + 1)
    source.gate.open()
    until_sync(lambda: len(workers._idle) == 2)
    interrupt(workers.dismiss)
    until_sync(lambda: workers.count == len(workers._idle))
    workers.call()
    until_sync(lambda: not workers.coming)
    workers.dismiss()
    until_sync(lambda: workers.count == 0)
    assert not workers._idle


@pytest.mark.parametrize("asleep", [False, True])
def test_calling_the_watchdog(asleep: bool) -> None:
    """The next deadline is not missed, and no thread is left behind."""
    for interrupt in at_each_place(watchdog_thread.__file__, parking.__file__):
        call_the_watchdog(asleep, interrupt)


def call_the_watchdog(asleep: bool, interrupt: Interrupter) -> None:
    ringer = Ringer(Gate(open=True))
    watchdog = Watchdog(ringer, "watches", FakeClock())
    if asleep:
        ringer.next_at = [1e9]
        watchdog.expect(0.0)
        until_sync(lambda: watchdog.wakes_at == 1e9)
    looks = ringer.gate.count
    interrupt(lambda: watchdog.expect(-1.0))
    assert not on_own_thread()
    watchdog.expect(-1.0)
    ringer.gate.entered_sync(looks + 1)
    watchdog.dismiss()
    until_sync(lambda: not watchdog.running)
    until_sync(lambda: threads_named("watches") == 0)


def test_loading() -> None:
    """Wherever a load was interrupted, the next one is a load, and the close after it ends."""
    for interrupt in at_each_place(LOAD):
        load(interrupt)


def load(interrupt: Interrupter) -> None:
    initializer = Initializer(registry_of(m=returns_at_once()), load_timeout=1000.0)
    interrupt(lambda: initializer.init_sync(ModelConfig("m")))
    assert initializer.init_sync(ModelConfig("m"), timeout=20.0) is not None
    until_sync(lambda: at_rest(initializer.statistics()))
    assert initializer.close() == ()
    assert initializer.statistics().threads == 0


def test_closing() -> None:
    """Wherever a close was interrupted, the next one ends, and nothing is left behind."""
    for interrupt in at_each_place(LOAD):
        close(interrupt)


def close(interrupt: Interrupter) -> None:
    initializer = Initializer(registry_of(m=returns_at_once()), load_timeout=1000.0)
    initializer.init_sync(ModelConfig("m"))
    interrupt(initializer.close)
    assert initializer.close() == ()
    assert at_rest(initializer.statistics())
    assert initializer.statistics().threads == 0


@pytest.mark.parametrize(
    ("backend", "options"),
    [("asyncio", {}), ("asyncio", {"use_uvloop": True}), ("trio", {})],
    ids=["asyncio", "asyncio+uvloop", "trio"],
)
def test_on_a_loop(backend: str, options: dict[str, Any]) -> None:
    """It ends the loop as it ends any, and leaves nothing behind; not even in trio's own event."""
    for interrupt in at_each_place(LOAD, TRIO_EVENT, act=press):
        load_and_close_on(backend, options, interrupt)


def load_and_close_on(backend: str, options: dict[str, Any], interrupt: Interrupter) -> None:
    initializer = Initializer(registry_of(m=returns_at_once()), load_timeout=1000.0)

    async def main() -> None:
        await initializer.init(ModelConfig("m"))
        await initializer.aclose()

    interrupt(lambda: anyio.run(main, backend=backend, backend_options=options))
    until_sync(lambda: at_rest(initializer.statistics()))
    assert initializer.close() == ()
    assert initializer.statistics().threads == 0


STARTS: dict[str, Callable[[Core], None]] = {
    "a worker": lambda core: core.workers.call(),
    "the watchdog": lambda core: core.watchdog.expect(0.0),
}


@pytest.mark.parametrize("what", STARTS)
def test_a_close_in_the_middle_of_a_start_does_not_wait(
    what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A signal's handler may close: the frame that starts the thread is below its own."""
    initializer = Initializer(registry_of(m=returns_at_once()))
    really, closed, contexts = threading.Thread.start, list[object](), list[Context]()

    def start(thread: threading.Thread) -> None:
        closed.append(initializer.close())
        contexts.append(copy_context())
        really(thread)

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", start)
        STARTS[what](initializer._core)
    # A task that such a handler makes may wait.
    assert not contexts[0].run(on_own_thread)
    assert set(closed) == {()}  # the grace of a close has the watchdog started, if it was not
    assert initializer.close() == ()
    assert at_rest(initializer.statistics())
    assert initializer.statistics().threads == 0
