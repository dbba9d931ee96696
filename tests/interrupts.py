"""An interrupt at each place where one may come: as a call begins, and as it comes back."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from itertools import count
from types import FrameType


def at_each_place(path: str) -> Iterator[Interrupter]:
    """Yield what interrupts a call at a place in a file or directory, each time one further on."""
    for place in count(1):
        interrupter = Interrupter(path, place)
        yield interrupter
        if not interrupter.came:
            return


class Interrupter:
    """Runs a call with an interrupt in the middle.

    CPython runs the handlers of signals where a function begins and where a call has just come
    back, and there it calls a profiler too. (It also does at the end of each turn of a loop.)

    Args:
        path: the file, or the directory of the files, whose places count.
        place: which of them it is, from 1 on.
    """

    def __init__(self, path: str, place: int) -> None:
        self._path = path
        self._left = place
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
        if event == "c_call" or where is None or self.came:
            return
        if where.f_code.co_filename.startswith(self._path):
            self._left -= 1
            if self._left == 0:
                self.came = True
                raise KeyboardInterrupt
