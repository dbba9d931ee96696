"""P11: what does ``import anyload`` cost, in time and memory, against its three packages?"""

from __future__ import annotations

import mmap
import subprocess
import sys

from benchmarks.frame import MS, Setting, compared, interleave_sync, side_by_side
from benchmarks.results import Comparison, Row

# In pages of resident memory, where the system says so.
PROGRAM = """
from time import perf_counter
def resident():
    try:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1])
    except OSError:
        return 0
before = resident()
began = perf_counter()
{}
print(perf_counter() - began, resident() - before)
"""
OURS = "import anyload"
BASE = """
import anyio, pydantic, yaml
class Config(pydantic.BaseModel):
    name: str = ""
    timeout: float | None = None
"""
NAMES = "from anyload import Initializer, Registry, ModelConfig"


PACKAGES = "anyio, pydantic, yaml"
BASE_NAME = f"{PACKAGES}, a model class"


class Import:
    """Measures one import in a fresh interpreter, and keeps what memory it took, in bytes."""

    def __init__(self, what: str) -> None:
        self.command = [sys.executable, "-c", PROGRAM.format(what)]
        self.memory: list[float] = []

    def __call__(self) -> float:
        done = subprocess.run(self.command, capture_output=True, text=True, check=True)
        seconds, pages = map(float, done.stdout.split())
        self.memory.append(pages * mmap.PAGESIZE)
        return seconds


def measure(setting: Setting) -> list[Row | Comparison]:
    ways = {
        OURS: Import(OURS),
        NAMES: Import(NAMES),
        f"import {PACKAGES}": Import(f"import {PACKAGES}"),
        BASE_NAME: Import(BASE),
    }
    times = interleave_sync(setting.pick(15, 5), ways)
    results: list[Row | Comparison] = [
        compared("P11 import anyload", 0.5, times, OURS, BASE_NAME, MS),
        compared("P11 from anyload import Initializer", None, times, NAMES, BASE_NAME, MS),
        side_by_side("imports", "time", times, BASE_NAME, MS),
    ]
    memory = {name: way.memory for name, way in ways.items()}
    if all(map(all, memory.values())):
        results.append(side_by_side("imports_memory", "memory", memory, BASE_NAME, (2**-20, "MiB")))
    return results
