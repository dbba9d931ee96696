"""Settings of the interpreter that loads ask for, in force while any of them runs."""

from __future__ import annotations

import gc
import sys
from typing import NamedTuple


class Wish(NamedTuple):
    """What a load wants of the interpreter while it runs.

    Args:
        pause_gc: whether the garbage collector is off.
        switch_interval: how long a thread may keep the GIL from others that want it, in seconds;
            None for no wish.
    """

    pause_gc: bool
    switch_interval: float | None


class Interpreter:
    """Who wants what of the interpreter, and how it was set before anybody did."""

    def __init__(self) -> None:
        self._wishes: dict[object, Wish] = {}
        self._collected = True
        self._interval = 0.0

    def collects(self) -> bool:
        """Return whether the garbage collector is on, or would be without these loads."""
        return self._collected if self._paused else gc.isenabled()

    def switch_interval(self) -> float:
        """Return the switch interval, as it is or would be without these loads."""
        return self._interval if self._hastened else sys.getswitchinterval()

    def begin(self, owner: object, wish: Wish) -> None:
        """Set what a load wants, if no other has it set already."""
        self._collected, self._interval = self.collects(), self.switch_interval()
        self._wishes[owner] = wish
        self._set()

    def end(self, owner: object) -> None:
        """Set it back, unless another load wants it still."""
        if owner not in self._wishes:
            return
        collects, interval = self.collects(), self.switch_interval()
        paused, hastened = self._paused, self._hastened
        del self._wishes[owner]
        if paused and not self._paused and collects:
            gc.enable()
        if hastened and not self._hastened:
            sys.setswitchinterval(interval)
        self._set()

    def end_all(self) -> None:
        """Set all back: in a forked child there are no such loads."""
        for owner in list(self._wishes):
            self.end(owner)

    @property
    def _paused(self) -> bool:
        return any(wish.pause_gc for wish in self._wishes.values())

    @property
    def _hastened(self) -> bool:
        return any(wish.switch_interval is not None for wish in self._wishes.values())

    def _set(self) -> None:
        if self._paused:
            gc.disable()
        intervals = [wish.switch_interval for wish in self._wishes.values()]
        known = [interval for interval in intervals if interval is not None]
        if known:
            sys.setswitchinterval(min(known))
