"""The watchdog: it looks when it is to, ends when idle or dismissed, and keeps no ringer alive."""

from __future__ import annotations

import math
import threading
from contextvars import copy_context

import pytest
from interrupts import at_each_place
from scenes import no_thread_left, start_interrupted, until_sync

from anyload._load import watchdog as watchdog_thread
from anyload._load.parking import Parked
from anyload._load.watchdog import Watchdog
from anyload.testing import FakeClock, Gate


class Ringer:
    """Comes to a gate for every look, and says what the next deadline is."""

    def __init__(self, gate: Gate) -> None:
        self.gate = gate
        self.left = Gate(open=True)
        self.next_at: list[float | Exception] = []

    def ring(self) -> float | None:
        self.gate.enter()
        answer = self.next_at.pop(0) if self.next_at else None
        if isinstance(answer, Exception):
            raise answer
        return answer

    def thread_left(self) -> None:
        self.left.enter()


class Guarded(Watchdog):
    """Asserts that what threads share of it changes under its lock."""

    def __setattr__(self, name: str, value: object) -> None:
        if hasattr(self, "_watching") and hasattr(self, "wakes_at"):
            assert self._lock._is_owned(), name  # type: ignore[attr-defined]  # as a condition asks
        super().__setattr__(name, value)


def test_a_watchdog_that_could_not_start_begins_with_the_next_deadline(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The machine had no thread left; now it has, and the next deadline is later than that one."""
    time, ringer = FakeClock(), Ringer(Gate(open=True))
    watchdog = Watchdog(ringer, "test", time)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", no_thread_left)
        watchdog.expect(1.0)
    assert "timeouts are late" in caplog.text
    assert (watchdog.running, watchdog.wakes_at) == (False, math.inf)
    time.advance(3.0)
    watchdog.expect(2.0)
    ringer.gate.entered_sync()
    watchdog.dismiss()
    ringer.left.entered_sync()
    assert not watchdog.running


def test_a_dismissed_watchdog_starts_no_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody is left whose deadlines they could be."""
    started = list[threading.Thread]()
    monkeypatch.setattr(threading.Thread, "start", lambda thread: started.append(thread))
    watchdog = Watchdog(Ringer(Gate()), "test", FakeClock())
    watchdog.dismiss()
    watchdog.expect(0.0)
    assert (watchdog.running, watchdog.wakes_at) == (False, math.inf)
    assert started == []


def test_one_that_started_though_its_start_was_interrupted_ends(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """By the time that it comes there is another."""
    ringer = Ringer(Gate(open=True))
    ringer.next_at = [1e9]
    watchdog = Watchdog(ringer, "test", FakeClock())
    thread = start_interrupted(monkeypatch, lambda: watchdog.expect(0.0))
    assert (watchdog.running, watchdog.wakes_at) == (False, math.inf)
    watchdog.expect(0.0)
    until_sync(lambda: watchdog.wakes_at == 1e9)
    thread.start()
    thread.join(20.0)
    assert (watchdog.running, watchdog.wakes_at, ringer.gate.count) == (True, 1e9, 1)
    watchdog.dismiss()
    ringer.left.entered_sync(2)
    assert not watchdog.running


def test_a_nearer_deadline_wakes_it() -> None:
    """It sleeps until another one, which is far away; and it stays one thread."""
    ringer = Ringer(gate := Gate(open=True))
    ringer.next_at = [1e9, 1e9]
    watchdog = Watchdog(ringer, "nearer", FakeClock())
    watchdog.expect(0.0)
    gate.entered_sync()
    until_sync(lambda: watchdog.wakes_at == 1e9)
    watchdog.expect(-1.0)
    gate.entered_sync(2)
    assert [one.name for one in threading.enumerate()].count("nearer") == 1
    watchdog.dismiss()
    ringer.left.entered_sync()
    assert not watchdog.running


def test_a_deadline_that_comes_up_while_it_looks_is_not_missed(gate: Gate) -> None:
    """It may have been set after the look, and before the watchdog sleeps until the next one."""
    ringer = Ringer(gate)
    ringer.next_at = [1000.0]
    watchdog = Watchdog(ringer, "test", FakeClock())
    watchdog.expect(0.0)
    gate.entered_sync()
    watchdog.expect(-1.0)
    gate.let_through()
    gate.entered_sync(2)
    watchdog.dismiss()
    gate.open()
    ringer.left.entered_sync()
    assert not watchdog.running


def test_a_look_that_tells_of_the_next_deadline_is_one_look() -> None:
    """As a core's is: at the end of each transition it says when the next one is."""

    class Telling(Ringer):
        def ring(self) -> float | None:
            super().ring()
            watchdog.expect(1e9)
            return 1e9

    ringer = Telling(gate := Gate(open=True))
    watchdog = Watchdog(ringer, "test", FakeClock())
    watchdog.expect(0.0)
    until_sync(lambda: watchdog.wakes_at == 1e9)
    watchdog.dismiss()
    ringer.left.entered_sync()
    assert gate.count == 1


def test_it_looks_again_at_what_the_last_look_said() -> None:
    """Nobody calls it for the deadlines that were there already."""
    ringer = Ringer(gate := Gate(open=True))
    ringer.next_at = [-1.0, -1.0]
    watchdog = Watchdog(ringer, "test", FakeClock())
    watchdog.expect(-2.0)
    gate.entered_sync(3)
    watchdog.dismiss()
    ringer.left.entered_sync()
    assert gate.count == 3


def test_after_an_error_it_looks_again(caplog: pytest.LogCaptureFixture) -> None:
    """What it failed to look at is still due."""
    ringer = Ringer(gate := Gate(open=True))
    ringer.next_at = [ValueError("a bug")]
    watchdog = Watchdog(ringer, "test", FakeClock())
    watchdog.expect(0.0)
    gate.entered_sync(2)
    watchdog.dismiss()
    ringer.left.entered_sync()
    assert "the watchdog goes on after an error" in caplog.text
    assert not watchdog.running


def test_a_dismissal_wakes_it() -> None:
    """It would sleep until the next deadline, which is far away."""
    ringer = Ringer(gate := Gate(open=True))
    ringer.next_at = [1e9]
    watchdog = Watchdog(ringer, "test", FakeClock())
    watchdog.expect(0.0)
    gate.entered_sync()
    until_sync(lambda: watchdog.wakes_at == 1e9)
    watchdog.dismiss()
    ringer.left.entered_sync()
    assert not watchdog.running


def test_a_dismissal_while_it_looks_ends_it(gate: Gate) -> None:
    """It does not go to sleep first."""
    ringer = Ringer(gate)
    ringer.next_at = [1e9]
    watchdog = Watchdog(ringer, "test", FakeClock())
    watchdog.expect(0.0)
    gate.entered_sync()
    watchdog.dismiss()
    gate.open()
    ringer.left.entered_sync()
    assert (gate.count, watchdog.running) == (1, False)


def test_an_idle_watchdog_ends_and_begins_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is no deadline there is no thread, and one for the first that comes."""
    monkeypatch.setattr(watchdog_thread, "IDLE_SECONDS", 0.01)
    ringer = Ringer(gate := Gate(open=True))
    watchdog = Watchdog(ringer, "test", FakeClock())
    for times in (1, 2):
        watchdog.expect(0.0)
        ringer.left.entered_sync(times)
        assert (watchdog.running, watchdog.wakes_at) == (False, math.inf)
        assert gate.count == times


def test_the_watchdog_of_a_dropped_ringer_ends() -> None:
    """It sleeps until a deadline that is far away, and keeps nothing alive meanwhile."""
    ringer = Ringer(gate := Gate(open=True))
    ringer.next_at = [1e9]
    left = ringer.left
    watchdog = Watchdog(ringer, "dropped", FakeClock())
    watchdog.expect(0.0)
    gate.entered_sync()
    until_sync(lambda: watchdog.wakes_at == 1e9)
    (thread,) = (one for one in threading.enumerate() if one.name == "dropped")
    del ringer
    thread.join(20.0)
    assert not thread.is_alive()
    assert (watchdog.running, left.count) == (False, 0)


def test_a_deadline_that_is_set_on_its_own_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """By a finalizer, wherever it comes: the watchdog looks at it before it sleeps."""
    threads, watchdogs, due = list[threading.Thread](), list[Watchdog](), list[float]()
    monkeypatch.setattr(threading.Thread, "start", lambda thread: threads.append(thread))

    class Telling(Ringer):
        """As a core, it says at the end of each look when the next one is due."""

        def ring(self) -> float | None:
            super().ring()
            due[:] = [at for at in due if at > 0.0]
            next_at = min(due, default=None)
            if next_at is not None:
                watchdogs[-1].expect(next_at)
            return next_at

    class Awake(Parked):
        def park(self, seconds: float | None) -> bool:
            called = super().park(0.0)
            assert seconds is not None
            if seconds > 0 and not called:
                assert seconds <= min(due, default=math.inf), "it would sleep through a deadline"
                due.clear()
            return called

    monkeypatch.setattr(watchdog_thread, "Parked", Awake)

    def collect() -> None:
        due.append(1.0)
        watchdogs[-1].expect(1.0)

    for interrupt in at_each_place(watchdog_thread.__file__, act=collect):
        ringer = Telling(Gate(open=True))
        watchdogs.append(Guarded(ringer, "test", FakeClock()))
        due[:] = [100.0]
        watchdogs[-1].expect(0.0)
        interrupt(lambda: copy_context().run(threads.pop().run))
        while threads:
            copy_context().run(threads.pop().run)
        assert (watchdogs[-1].running, due) == (False, [])
