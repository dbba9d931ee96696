"""I18: does the loop tick on while 8 loads sleep, and are anyio's own threads left alone?"""

from __future__ import annotations

from statistics import median
from time import perf_counter

import anyio
from anyio.to_thread import current_default_thread_limiter

from anyload import ModelConfig
from anyload.testing import Gate, waits_at
from benchmarks.frame import Setting, initializer, interleave
from benchmarks.results import Row

BEAT = 0.01
LOADS = 8


async def longest_gap(seconds: float) -> float:
    end, longest, last = perf_counter() + seconds, 0.0, perf_counter()
    while last < end:
        await anyio.sleep(BEAT)
        now = perf_counter()
        longest, last = max(longest, now - last), now
    return longest


def measure(setting: Setting) -> list[Row]:
    seconds = setting.pick(10, 2) / 10
    borrowed = []

    async def main() -> tuple[list[float], list[float]]:
        async with initializer(waits_at(gate := Gate()), max_concurrent_loads=LOADS) as ours:

            async def loading() -> float:
                nonlocal gate
                before = gate.count
                async with anyio.create_task_group() as tasks:
                    for _ in range(LOADS):
                        tasks.start_soon(ours.init, ModelConfig("m"))
                    await gate.entered(before + LOADS)
                    gap = await longest_gap(seconds)
                    borrowed.append(current_default_thread_limiter().borrowed_tokens)
                    gate.let_through(LOADS)
                return gap

            async def control() -> float:
                return await longest_gap(seconds)

            times = await interleave(setting.pick(5, 3), {"loading": loading, "control": control})
            return times["loading"], times["control"]

    gaps, control = ([1e3 * value for value in values] for values in setting.run(main))
    shown = f"worst {max(gaps):.1f} ms / without loads {median(control):.1f} ms"
    return [
        Row(f"I18 longest gap of a 10 ms beat, {LOADS} loads", median(gaps), 50, shown, "ms"),
        Row("I18 borrowed tokens of anyio's limiter", max(borrowed), 0, f"{LOADS} loads asleep"),
    ]
