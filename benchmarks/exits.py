"""P6: do loads that hang in Python code hold up a close, and the end of the process?"""

from __future__ import annotations

import subprocess
import sys
from time import monotonic

from benchmarks.frame import MS, Setting, Times, compared, interleave_sync, side_by_side
from benchmarks.results import Comparison, Row

HANG_SECONDS = 2
LATE = "when the loads end"
HANGS, RETURNS = "anyload, 8 loads hang", "anyload, no load hangs"
THREADS, ABANDONED, OWN = (
    "anyio.to_thread, 8 hang",
    "the same, abandoned, 8 hang",
    "the loop's own to_thread, 8 hang",
)

# The child says how long its close took, and when its work was done; what comes after is its exit.
CHILD = """
import asyncio, logging, sys, time, anyio, trio
from functools import partial
from anyio.to_thread import run_sync
from anyload import Initializer, ModelConfig, Registry
from benchmarks.exits import ABANDONED, HANG_SECONDS, HANGS, OWN, RETURNS, THREADS
from benchmarks.frame import Setting

kind, loop = sys.argv[1:]
logging.disable()  # a thread that is abandoned is warned of

class Model:
    @classmethod
    def load(cls, config):
        end = time.monotonic() + HANG_SECONDS
        while kind != RETURNS and time.monotonic() < end:
            time.sleep(0.01)
        return cls()

async def with_anyload():
    registry = Registry()
    registry.module("m")(Model)
    initializer = Initializer(registry, max_concurrent_loads=8, max_abandoned_loads=8)
    await leave(lambda: initializer.init(ModelConfig("m")))
    began = time.monotonic()
    stuck = await initializer.aclose(grace=0)
    assert len(stuck) == (8 if kind == HANGS else 0)
    print(time.monotonic() - began)

async def leave(load):
    with anyio.move_on_after(0.2):
        async with anyio.create_task_group() as tasks:
            for _ in range(8):
                tasks.start_soon(load)
    if kind == RETURNS:
        await anyio.sleep(0.2)

async def by_hand():
    own = trio.to_thread.run_sync if loop == "trio" else asyncio.to_thread
    load = partial(own, Model.load, None)
    if kind != OWN:
        load = partial(run_sync, Model.load, None, abandon_on_cancel=kind == ABANDONED)
    await leave(load)

if kind in (HANGS, RETURNS):
    Setting(loop).run(with_anyload)
else:
    began = time.monotonic()
    Setting(loop).run(by_hand)
    print(time.monotonic() - began)
print(time.monotonic(), flush=True)
"""


class Exit:
    """Measures the exit of a child, and notes how long its close took."""

    def __init__(self, kind: str, loop: str) -> None:
        self.command = [sys.executable, "-c", CHILD, kind, loop]
        self.closes: list[float] = []

    def __call__(self) -> float:
        # The monotonic clock is one for all processes.
        with subprocess.Popen(self.command, stdout=subprocess.PIPE, text=True) as child:
            assert child.stdout is not None
            self.closes.append(float(child.stdout.readline()))
            done = float(child.stdout.readline())
            assert child.wait() == 0
            return monotonic() - done


def measure(setting: Setting) -> list[Row | Comparison]:
    ways = {kind: Exit(kind, setting.loop) for kind in (HANGS, RETURNS, THREADS, ABANDONED, OWN)}
    instead = {}
    for kind in (THREADS, ABANDONED, OWN):
        took = ways[kind]()
        if took + ways[kind].closes[-1] > HANG_SECONDS / 2:
            instead[kind] = LATE
            del ways[kind]
    for kind in (HANGS, RETURNS):
        ways[kind].closes.clear()
    times = interleave_sync(setting.pick(7, 3), ways)
    closes: Times = {kind: ways[kind].closes for kind in (HANGS, RETURNS)}
    figure = "P6 exit with a hung Python load"
    return [
        compared(figure, 1.5, times, HANGS, RETURNS, MS),
        side_by_side("hung", "exit of the process", times, RETURNS, MS, instead),
        side_by_side("hung", "close(grace=0)", closes, RETURNS, MS),
    ]
