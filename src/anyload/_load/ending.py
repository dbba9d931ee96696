"""Closing an initializer and waiting until it is closed, as a task or as a plain thread."""

from __future__ import annotations

from ..reports import StuckLoad
from .core import Core
from .figures import abandoned
from .flight import Seat
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
        self.begin(grace)
        bell = current_bell()
        try:
            while not self.step(seat := AsyncSeat(bell)):
                await seat.wait()
        except BaseException:
            self._at_once()
            raise
        return abandoned(self._core)

    def close(self, grace: float) -> tuple[StuckLoad, ...]:
        """Close, in a plain thread."""
        self.begin(grace)
        try:
            while not self.step(seat := ThreadSeat(self._core.flights)):
                seat.wait(None)
        except BaseException:
            self._at_once()
            raise
        return abandoned(self._core)

    def begin(self, grace: float) -> None:
        """Refuse new loads and give those that run their grace, in seconds."""
        with self._core.transition() as todo:
            self._core.closing.begin(grace, todo)

    def step(self, seat: Seat) -> bool:
        """Go on as far as possible; return whether that was all, else have the seat woken."""
        core = self._core
        with core.transition() as todo:
            core.closing.advance(todo)
            leaving = core.closing.stage == "leaving"
            seen = core.closers.wakes + 1  # this very step is a change, and counts as one
        if leaving:
            core.workers.dismiss()
            core.watchdog.dismiss()
            if core.workers.count + core.watchdog.running <= core.closing.left_behind:
                return True
        core.closers.sit(seat, seen)
        return False

    def _at_once(self) -> None:
        """Give up on waiting: leave everything that still runs."""
        self.begin(0.0)
        with self._core.transition() as todo:
            self._core.closing.advance(todo)
        self._core.workers.dismiss()
        self._core.watchdog.dismiss()
