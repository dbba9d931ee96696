"""P11: what does ``import anyload`` cost, against the packages that it is made of?"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

from benchmarks.frame import Row, Setting, compared, interleave_sync

PROGRAM = """
from time import perf_counter
began = perf_counter()
{}
print(perf_counter() - began)
"""
OURS = "import anyload"
BASE = """
import anyio, pydantic, yaml
class Config(pydantic.BaseModel):
    name: str = ""
    timeout: float | None = None
"""
NAMES = "from anyload import Initializer, Registry, ModelConfig"


def importing(what: str) -> Callable[[], float]:
    def way() -> float:
        command = [sys.executable, "-c", PROGRAM.format(what)]
        return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)

    return way


def measure(setting: Setting) -> list[Row]:
    ways = {"anyload": OURS, "Initializer": NAMES, "its packages": BASE}
    times = interleave_sync(
        setting.pick(15, 5), {name: importing(what) for name, what in ways.items()}
    )
    base, ms = "its packages", (1e3, "ms")
    return [
        compared("P11 import anyload", 0.5, times, "anyload", base, ms),
        compared("P11 from anyload import Initializer", None, times, "Initializer", base, ms),
    ]
