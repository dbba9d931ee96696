"""P14: what does it cost to find a flight by its key?"""

from __future__ import annotations

from collections.abc import Callable
from timeit import Timer

from anyload._load.keys import freeze_mapping
from benchmarks.frame import Setting, compared, interleave_sync
from benchmarks.results import Row

KWARGS = {"device": 0, "dtype": "float16"}


def measure(setting: Setting) -> list[Row]:
    number = setting.pick(100_000, 10_000)
    table = {"models/a": 1, ("models/a", freeze_mapping(KWARGS)): 2}
    names = {"table": table, "name": "models/a", "kwargs": KWARGS, "freeze": freeze_mapping}

    def timed(statement: str) -> Callable[[], float]:
        timer = Timer(statement, globals=names)
        return lambda: timer.timeit(number) / number

    ways = {
        "key": timed("table.get((name, freeze(kwargs)))"),
        "str": timed("table.get(name)"),
    }
    times = interleave_sync(setting.pick(21, 5), ways)
    return [compared("P14 key with two kwargs", 12.0, times, "key", "str", (1e9, "ns"))]
