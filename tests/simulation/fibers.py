"""Threads that run one at a time, each when its turn comes, in an order that a seed decides.

A fiber is a real thread, so that code which blocks can run in it as it is. But whoever runs holds
the only baton: the thread of the trio run stands still while a fiber runs, and a fiber while
anybody else does. So there is no moment at which trio is idle and a thread at work, which is
what forbids real threads under a clock that jumps; and what happens is a function of the seed.
"""

from __future__ import annotations

import heapq
import random
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from types import FrameType
from typing import Any

import trio
from trio.testing import MockClock

SWITCHING = 0.2
"""How often another thread goes first, at a place where one may."""

SWITCHING_ON_LINES = 0.02
"""Likewise, before a line of code, of which there are many more."""


TICK = 0.125
"""All that happens in fibers happens on a tick, in seconds: then much happens at the same time, and
a binary fraction adds up exactly."""


class Over(BaseException):
    """The simulation is over: what still blocks is to end."""


class Fiber:
    """One thread.

    Args:
        machine: what it is a part of.
        body: what it runs.
        owner: whose thread it is.
    """

    def __init__(self, machine: Machine, body: Callable[[], object], owner: object) -> None:
        self._machine = machine
        self._body = body
        self.owner = owner
        self.go = threading.Lock()
        self.go.acquire()
        self.thread_id = 0
        self.blocked = False
        self.woken = False
        self.blocks = 0

    def start(self) -> None:
        """Start the real thread, which waits for its turn at once."""
        thread = threading.Thread(target=self._run, name="fiber", daemon=True)
        thread.start()
        assert thread.ident is not None
        self.thread_id = thread.ident

    def _run(self) -> None:
        self.go.acquire()
        try:
            with self._machine.switching_on_lines():
                self._body()
        except Over:
            pass
        except BaseException as error:
            self._machine.complaints.append(f"a thread ended with {error!r}")
        finally:
            self._machine.ended(self)


class Machine:
    """Runs fibers inside of a trio run.

    Args:
        seed: decides the order.
        clock: the clock of the trio run.
        code: where another thread may go first before any line, if no lock is held: the paths
            that its files begin with.
    """

    def __init__(self, seed: int, clock: MockClock, code: tuple[str, ...] = ()) -> None:
        self._dice = random.Random(seed)
        self._clock = clock
        self._code = code
        self._ready: list[Fiber] = []
        self._alarms: list[tuple[float, int, Fiber, int]] = []
        self._order = count()
        self._back = threading.Lock()
        self._back.acquire()
        self._current: Fiber | None = None
        self._there_is_work = trio.Event()
        self._to_tell: list[trio.Event] = []
        self._over = False
        # How many locks are held, by whoever runs: nobody else does before they are free.
        self.held = 0
        self.alive: dict[Fiber, None] = {}
        self.complaints: list[str] = []
        self.steps = 0
        self.after_step: Callable[[], object] = lambda: None

    def now(self) -> float:
        """Return the virtual time."""
        return self._clock.current_time()

    # In a fiber

    def spawn(self, body: Callable[[], object], owner: object = None) -> Fiber:
        """Begin a fiber; it runs when its turn comes."""
        fiber = Fiber(self, body, owner)
        self.alive[fiber] = None
        self._make_ready(fiber)
        return fiber

    def sleep(self, seconds: float) -> None:
        """Let virtual time pass, in whole ticks."""
        self.block(self.now() + on_tick(seconds))

    def block(self, until: float | None = None) -> bool:
        """Stand still until woken, or until a time; return whether woken."""
        fiber = self.current()
        assert not self.held, "a thread blocks under the lock"
        if self._over:
            raise Over
        fiber.blocked, fiber.woken = True, False
        fiber.blocks += 1
        if until is not None:
            heapq.heappush(self._alarms, (until, next(self._order), fiber, fiber.blocks))
            self._tell()
        self._hand_back(fiber)
        if self._over:
            raise Over
        return fiber.woken

    def current(self) -> Fiber:
        """Return the fiber that runs; the thread of the loop is none, and must not block."""
        assert self._current is not None, "the thread of the loop would block"
        return self._current

    def ended(self, fiber: Fiber) -> None:
        """A fiber is at its end."""
        del self.alive[fiber]
        self._current = None
        self._back.release()

    def _hand_back(self, fiber: Fiber) -> None:
        self._current = None
        self._back.release()
        fiber.go.acquire()

    # In any of them

    def switch(self) -> None:
        """Perhaps let another thread go first: a real one might be faster just here."""
        self._switch(SWITCHING)

    @contextmanager
    def switching_on_lines(self) -> Iterator[None]:
        """Have this real thread, while inside, let others go first before lines of the code."""
        before = sys.gettrace()
        if self._code:
            sys.settrace(self._at_call)
        try:
            yield
        finally:
            sys.settrace(before)

    def _at_call(self, frame: FrameType, event: str, arg: Any) -> Any:
        return self._at_line if frame.f_code.co_filename.startswith(self._code) else None

    def _at_line(self, frame: FrameType, event: str, arg: Any) -> Any:
        if event == "line":
            self._switch(SWITCHING_ON_LINES)
        return self._at_line

    def _switch(self, often: float) -> None:
        if self._over or self.held or self._dice.random() >= often:
            return
        if self._current is not None:
            fiber = self._current
            self._make_ready(fiber)
            self._hand_back(fiber)
        elif self._ready:
            self._step()

    @contextmanager
    def undisturbed(self) -> Iterator[None]:
        """Let no other thread go first while inside, as under a lock."""
        self.held += 1
        try:
            yield
        finally:
            self.held -= 1

    def wake(self, fiber: Fiber, woken: bool = True) -> bool:
        """Let a blocked fiber go on; return False if it does so already."""
        if not fiber.blocked:
            return False
        fiber.blocked, fiber.woken = False, woken
        self._make_ready(fiber)
        return True

    def tell(self, event: trio.Event) -> None:
        """Set an event of the trio run."""
        if self._current is None:
            event.set()
        else:  # once its own thread runs again
            self._to_tell.append(event)

    def _make_ready(self, fiber: Fiber) -> None:
        self._ready.append(fiber)
        self._tell()

    def _tell(self) -> None:
        self.tell(self._there_is_work)

    # In the thread of the loop

    async def run(self) -> None:
        """Run what is ready, and what becomes so; a task of the trio run, until cancelled."""
        while True:
            self._ring()
            if self._ready:
                self._step()
                await trio.lowlevel.checkpoint()
                continue
            self._there_is_work = trio.Event()
            with trio.move_on_at(self._alarms[0][0] if self._alarms else float("inf")):
                await self._there_is_work.wait()

    def _ring(self) -> None:
        while self._alarms and self._alarms[0][0] <= self.now():
            _, _, fiber, blocks = heapq.heappop(self._alarms)
            if fiber.blocks == blocks:
                self.wake(fiber, woken=False)
        while self._alarms and not self._is_awaited(self._alarms[0]):
            heapq.heappop(self._alarms)

    def _is_awaited(self, alarm: tuple[float, int, Fiber, int]) -> bool:
        _, _, fiber, blocks = alarm
        return fiber.blocked and fiber.blocks == blocks

    def _step(self) -> None:
        """Run one fiber until it comes to a place where another may go first."""
        place = self._dice.randrange(len(self._ready))
        fiber = self._ready.pop(place)
        self._resume(fiber)
        self.steps += 1
        with self.undisturbed():
            self.after_step()

    def _resume(self, fiber: Fiber) -> None:
        self._current = fiber
        if not fiber.thread_id:
            fiber.start()
        fiber.go.release()
        self._back.acquire()
        events, self._to_tell = self._to_tell, []
        for event in events:
            event.set()

    def end(self) -> None:
        """End every fiber, wherever it blocks."""
        self._over = True
        while self.alive:
            for fiber in list(self.alive):
                self._resume(fiber)


def on_tick(seconds: float) -> float:
    """Return the time rounded to a tick."""
    return round(seconds / TICK) * TICK
