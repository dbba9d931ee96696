"""Closing an initializer and waiting until it is closed, as a task or as a plain thread."""

from __future__ import annotations

from ..reports import StuckLoad
from .core import Core
from .figures import abandoned
from .flight import Seat
from .own_threads import on_own_thread
from .waiters import AsyncSeat, ThreadSeat, current_bell


class Ending:
    """The close of one initializer; it may be asked for more than once.

    Args:
        core: the core of the initializer.
    """

    def __init__(self, core: Core) -> None:
        self._core = core

    async def aclose(self, grace: float) -> tuple[StuckLoad, ...]:
        """Close, as a task; cancelling it ends the grace at once."""
        if on_own_thread():
            return self._begin_only(grace)
        self.begin(grace)
        bell = current_bell()
        try:
            while not self.step(seat := AsyncSeat(bell)):
                await seat.wait()
        except BaseException:
            self.at_once()
            raise
        return abandoned(self._core)

    def close(self, grace: float) -> tuple[StuckLoad, ...]:
        """Close, in a plain thread; where that cannot wait, without waiting."""
        if self._core.lock.mine():  # as in `at_once`: a generator, say, was inside ``with``
            self.at_once()
            return ()
        if on_own_thread():
            return self._begin_only(grace)
        self.begin(grace)
        try:
            while not self.step(seat := ThreadSeat(self._core.flights)):
                seat.wait(None)
        except BaseException:
            self.at_once()
            raise
        return abandoned(self._core)

    def _begin_only(self, grace: float) -> tuple[StuckLoad, ...]:
        """Close on a thread that this might wait for: in a hook, say, or in a ``release``.

        It may be another initializer's, which is closed by a hook on a thread of this one. In a
        load it may wait: there its thread is one that the end of the grace leaves behind.
        """
        self._core.closing.unattended = True
        self.begin(grace)
        return ()

    def begin(self, grace: float) -> None:
        """Refuse new loads and give those that run their grace, in seconds."""
        with self._core.transition() as todo, self._core.lock:
            self._core.closing.begin(grace, todo)
            todo.closers = True

    def step(self, seat: Seat) -> bool:
        """Go on as far as possible; return whether that was all, else have the seat woken."""
        core = self._core
        with core.transition() as todo, core.lock:
            todo.closers = core.closing.advance(todo)
            leaving = core.closing.stage == "leaving"
            # Where this very step is a change, it counts as one.
            seen = core.closers.wakes + todo.closers
        if leaving:
            core.dismiss()
            if core.workers.count + core.watchdog.running <= core.closing.left_behind:
                return True
        core.closers.sit(seat, seen)
        return False

    def at_once(self) -> None:
        """Close without waiting for anything: leave everything that still runs. Synchronous."""
        core = self._core
        if core.lock.mine():
            # The garbage collector, run by an allocation under the lock, has closed a coroutine
            # that was closing, or that was inside ``async with``.
            core.lock.put_off(self.at_once)
            return
        self.begin(0.0)
        with core.transition() as todo, core.lock:
            todo.closers = core.closing.advance(todo)
        core.dismiss()
