"""An interrupt at each place where one may come: as a call begins, and as it comes back."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator
from dis import opname
from itertools import count
from types import FrameType

_SLEEPS = ("YIELD_VALUE", "RESUME")


def interrupt() -> None:
    raise KeyboardInterrupt


def press() -> None:
    """Leave it to the handler of the signal, which on an event loop is the loop's."""
    signal.raise_signal(signal.SIGINT)


def at_each_place(*paths: str, act: Callable[[], None] = interrupt) -> Iterator[Interrupter]:
    """Yield what interrupts a call at a place in files or directories, each time one further on."""
    for place in count(1):
        interrupter = Interrupter(paths, place, act)
        yield interrupter
        if not interrupter.came:
            return


class Interrupter:
    """Runs a call with an interrupt in the middle.

    CPython runs the handlers of signals where a function begins and where a call has just come
    back, and there it calls a profiler too. (It also does at the end of each turn of a loop.) A
    coroutine that goes to sleep is a return to the profiler only.

    Args:
        paths: the files, or the directories of the files, whose places count.
        place: which of them it is, from 1 on.
        act: interrupts.
    """

    def __init__(self, paths: tuple[str, ...], place: int, act: Callable[[], None]) -> None:
        self._paths = paths
        self._left = place
        self._act = act
        self.came = False
        """Whether the call has come to that place."""

    def __call__(self, call: Callable[[], object]) -> None:
        """Run it, and take the interrupt."""
        before = sys.getprofile()
        try:
            sys.setprofile(self._look)
            call()
        except KeyboardInterrupt:
            pass
        finally:
            sys.setprofile(before)

    def _look(self, frame: FrameType, event: str, _: object) -> None:
        where = frame.f_back if event == "return" else frame
        if event == "c_call" or where is None or self.came or _asleep(frame, event):
            return
        if where.f_code.co_filename.startswith(self._paths):
            self._left -= 1
            if self._left == 0:
                self.came = True
                self._act()


def _asleep(frame: FrameType, event: str) -> bool:
    # From 3.13 on the frame stands at what comes next.
    return event == "return" and opname[frame.f_code.co_code[frame.f_lasti]] in _SLEEPS
