"""P6: does a load that hangs in Python code hold up the end of the process?"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from time import monotonic

from benchmarks.frame import Row, Setting, compared, interleave_sync

# The child says when its work is done; what comes after that is its exit.
CHILD = """
import sys, time, anyio
from anyload import Initializer, ModelConfig, Registry
from benchmarks.frame import Setting

class Model:
    @classmethod
    def load(cls, config):
        while hangs:
            time.sleep(0.01)
        return cls()

async def main():
    registry = Registry()
    registry.module("m")(Model)
    initializer = Initializer(registry)
    with anyio.move_on_after(0.1):
        await initializer.init(ModelConfig("m"))
    stuck = await initializer.aclose(grace=0)
    assert len(stuck) == hangs

hangs = sys.argv[1] == "hangs"
Setting(sys.argv[2]).run(main)
print(time.monotonic(), flush=True)
"""


def exit_of(kind: str, loop: str) -> Callable[[], float]:
    def way() -> float:
        # The monotonic clock is one for all processes.
        command = [sys.executable, "-c", CHILD, kind, loop]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
            assert child.stdout is not None
            done = float(child.stdout.readline())
            assert child.wait() == 0
            return monotonic() - done

    return way


def measure(setting: Setting) -> list[Row]:
    ways = {kind: exit_of(kind, setting.loop) for kind in ("hangs", "does not hang")}
    times = interleave_sync(setting.pick(9, 3), ways)
    figure = "P6 exit with a hung Python load"
    return [compared(figure, 1.5, times, "hangs", "does not hang", (1e3, "ms"))]
