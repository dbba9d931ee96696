"""The demo's real models, leased by a skewed choice, under a budget that holds a third of them."""

from __future__ import annotations

import os
import random
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Self

import anyio

from anyload import Initializer, ModelConfig, Registry
from anyload.adapters._memory import give_back_memory
from anyload.events import Event, Loaded
from anyload.repository import ModelRepository
from benchmarks.demo_models import by_hand
from benchmarks.frame import Setting
from benchmarks.results import Cell, Comparison, Row, Spread

COPIES = 3
SKEW = 2.0
"""Of Zipf's law: the second is asked for a quarter as often as the first, and so on."""
TASKS = 4
SHARE = 3
LOOK_SECONDS = 0.002
LEAST_BYTES = 1 << 20
MIB = 1 << 20
MARGIN = 0.25
"""How far the process may be over the budget, as a part of it: what the frameworks take while they
load, and what the C library keeps of what was given back."""
POLICIES = ("lru", "cost")


def resident() -> int:
    """Return the bytes of memory that this process has."""
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@contextmanager
def highest() -> Iterator[list[int]]:
    """Yield a list whose one number is the most memory that there was, in bytes."""
    most, done = [resident()], threading.Event()

    def look() -> None:
        while not done.wait(LOOK_SECONDS):
            most[0] = max(most[0], resident())

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield most
    finally:
        done.set()
        thread.join()


def module_of(loads: dict[str, Callable[[], Any]]) -> type:
    """Return a module that loads the demo's models, and gives their memory back."""

    class Real:
        def __init__(self, model: Any) -> None:
            self.model = model

        @classmethod
        def load(cls, config: ModelConfig) -> Self:
            return cls(loads[config.fields["which"]]())

        def release(self) -> None:
            self.model = None
            give_back_memory()

    return Real


def bytes_of(load: Callable[[], Any]) -> int:
    """Return what the process grows by when a model is loaded."""
    load()
    give_back_memory()
    before = resident()
    kept = load()
    grown = resident() - before
    del kept
    return max(grown, LEAST_BYTES)


async def serve(module: type, sizes: dict[str, int], policy: str, leases: int) -> tuple[float, int]:
    """Return the seconds that loads took, and by how many bytes the process grew at most."""
    spent: list[float] = []

    def hear(event: Event) -> None:
        if isinstance(event, Loaded):
            spent.append(event.report.load_seconds)

    registry = Registry()
    registry.module("real")(module)
    models = {
        f"{name}-{copy}": {"module_id": "real", "which": name}
        for name in sizes
        for copy in range(COPIES)
    }
    kept = {name: {"memory": sizes[entry["which"]]} for name, entry in models.items()}
    budget = COPIES * sum(sizes.values()) // SHARE
    chance = random.Random(0)
    names = list(models)
    chance.shuffle(names)
    popular = [1 / (rank + 1) ** SKEW for rank in range(len(names))]
    asked = iter(chance.choices(names, popular, k=leases))

    async def client() -> None:
        for name in asked:
            async with repository.lease(name):
                await anyio.lowlevel.checkpoint()

    give_back_memory()
    before = resident()
    keeping = {"budget": {"cpu": budget}, "eviction": policy, "models": kept}
    with highest() as most:
        async with (
            ModelRepository(
                registry, models=models, repository=keeping, hooks=[hear]
            ) as repository,
            anyio.create_task_group() as tasks,
        ):
            for _ in range(TASKS):
                tasks.start_soon(client)
    return sum(spent), most[0] - before


def measure(setting: Setting) -> list[Row | Comparison]:
    """Serve the same requests under each policy."""
    from demo.locate import write_catalogues
    from demo.modules import registry

    catalogue, _ = write_catalogues()
    leases = setting.pick(10_000, 300)

    async def main() -> dict[str, tuple[float, int]]:
        async with Initializer.from_config(catalogue, registry=registry) as ours:
            names = list(ours.catalogue)
            await ours.init_many(names)  # the imports
            loads = by_hand(ours, names)
        sizes.update({name: bytes_of(load) for name, load in loads.items()})
        module = module_of(loads)
        return {policy: await serve(module, sizes, policy, leases) for policy in POLICIES}

    sizes: dict[str, int] = {}
    served = setting.run(main)
    return results(served, COPIES * sum(sizes.values()) // SHARE, leases)


def results(
    served: dict[str, tuple[float, int]], budget: int, leases: int
) -> list[Row | Comparison]:
    lru, cost = (served[policy][0] for policy in POLICIES)
    over = max(grown for _, grown in served.values()) / budget
    most = ", ".join(f"{policy} {grown / MIB:.0f}" for policy, (_, grown) in served.items())
    what = f"{leases:,} leases, a third fits"
    cells = tuple(
        Cell(policy, Spread.of([spent]), Spread.of([spent / lru]))
        for policy, (spent, _) in served.items()
    )
    return [
        Row(f"{what}: loading by cost against lru", cost / lru, 1.0, f"{cost:.1f} s / {lru:.1f} s"),
        Row(
            f"{what}: memory against the budget",
            over,
            1 + MARGIN,
            f"MiB: {most} / {budget / MIB:.0f}",
        ),
        Comparison("keeping", what, "s", "lru", cells),
    ]
