"""Scenes that corrupt a process, played by hand, and the same loads through anyload.

Each scene is a function that is to run in a process of its own (`playing.py`), because by hand it
leaves that process broken: wrong functions in torch and transformers, another default dtype.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Awaitable, Callable
from itertools import count
from pathlib import Path
from typing import Any

from playing import PATIENCE
from subjects import Subject, Transformer, attempt
from witness import LATER, Seen, bystander, held, seen

LOADS = 100
"""Loads in a scene."""
AT_ONCE = 4
"""Threads by hand, slots with anyload."""

Loop = tuple[str, dict[str, Any]]


def parallel(make: Callable[[Path], Subject], models: Path, loop: Loop | None) -> Seen:
    """Many loads, four at once: by hand on threads of one's own, or with anyload on a loop."""
    subject = make(models)
    before, began = held(), time.perf_counter()
    with bystander() as meanwhile:
        if loop is None:
            results = _on_threads(subject)
        else:
            results = _run(loop, lambda: _with_anyload(subject))
    took = time.perf_counter() - began
    # Only now, so that what is wrong is the model itself, whatever else runs meanwhile.
    return seen(subject, results, before, meanwhile=meanwhile, seconds=took)


def stuck(models: Path, loop: Loop | None) -> Seen:
    """A first load hangs in its constructor and is past its limit; others are to go on.

    By hand, its caller gives up after the limit and loads in float32 what could not be had in
    bfloat16, again and again, while the first thread is where it was.
    """
    subject = Transformer(models / "masked", "AutoModelForMaskedLM")
    before, began = held(), time.perf_counter()
    if loop is not None:
        results, more = _run(loop, lambda: _stuck_with_anyload(subject))
        took = time.perf_counter() - began
        return seen(subject, results, before, later=more, seconds=took)
    from anyload.testing import Gate

    gate = Gate()
    _hold_up(subject.cls, gate)
    primary = _primary(models)
    gate.entered_sync()
    primary.join(0.05)
    results = [attempt(subject.by_hand, number) for number in range(LOADS)]
    gate.open()
    primary.join()
    return seen(subject, results, before, seconds=time.perf_counter() - began)


def crossed(models: Path, loop: Loop | None) -> Seen:
    """A first load is past its limit and ends while its fallback is at it.

    By hand, the first puts back what it found, and then the fallback what it found, which is
    what the first had put there. The loads that count are the fallback, and those after it; with
    anyload all of them are fallbacks.
    """
    subject = Transformer(models / "masked", "AutoModelForMaskedLM")
    before, began = held(), time.perf_counter()
    if loop is not None:
        results = _run(loop, lambda: _crossed_with_anyload(subject))
        return seen(subject, results, before, seconds=time.perf_counter() - began)
    from anyload.testing import Gate

    first, second = Gate(), Gate()
    _hold_up(subject.cls, first, second)
    primary = _primary(models)
    first.entered_sync()
    primary.join(0.05)
    results = []
    fallback = threading.Thread(target=lambda: results.append(attempt(subject.by_hand, 0)))
    fallback.start()
    second.entered_sync()
    first.open()
    primary.join()
    second.open()
    fallback.join()
    results += [attempt(subject.by_hand, number) for number in range(1, LOADS)]
    return seen(subject, results, before, seconds=time.perf_counter() - began)


# By hand


def _on_threads(subject: Subject) -> list[Any]:
    results: list[Any] = [None] * LOADS
    numbers, lock = iter(range(LOADS)), threading.Lock()
    start = threading.Barrier(AT_ONCE)

    def work() -> None:
        start.wait()
        while True:
            with lock:
                number = next(numbers, None)
            if number is None:
                return
            results[number] = attempt(subject.by_hand, number)

    threads = [threading.Thread(target=work) for _ in range(AT_ONCE)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def _primary(models: Path) -> threading.Thread:
    """Start the load that hangs: the same model, in bfloat16, as one would on another device."""

    def load() -> None:
        import torch
        from transformers import AutoModelForMaskedLM

        path = models / "masked"
        AutoModelForMaskedLM.from_pretrained(path, local_files_only=True, dtype=torch.bfloat16)

    thread = threading.Thread(target=load, daemon=True)
    thread.start()
    return thread


def _hold_up(cls: Any, *gates: Any) -> None:
    """Let the first models that are constructed from now on wait, each at its gate."""
    construct, numbers = cls.__init__, count()

    def slow(self: Any, *args: Any, **kwargs: Any) -> None:
        number = next(numbers)
        if number < len(gates):
            gates[number].enter()
        construct(self, *args, **kwargs)

    cls.__init__ = slow


# With anyload


def _run(loop: Loop, scene: Callable[[], Awaitable[Any]]) -> Any:
    import anyio

    backend, options = loop

    async def main() -> Any:
        with anyio.fail_after(PATIENCE / 2):
            return await scene()

    return anyio.run(main, backend=backend, backend_options=options)


async def _all_at_once(initializer: Any, subject: Subject, loads: int = LOADS) -> list[Any]:
    """Load so many models, all asked for at once and none shared."""
    from anyio import create_task_group

    from anyload import AnyloadError

    results: list[Any] = [None] * loads

    async def one(number: int) -> None:
        try:
            # A key of its own makes it a load of its own.
            loaded = await initializer.init(subject.config(number), key=number)
            results[number] = subject.framework_model(loaded)
        except AnyloadError as error:
            results[number] = error

    async with create_task_group() as tasks:
        for number in range(loads):
            tasks.start_soon(one, number)
    return results


async def _with_anyload(subject: Subject, loads: int = LOADS) -> list[Any]:
    from anyload import Initializer, Registry
    from anyload.testing import settled

    async with Initializer(Registry.discover(), max_concurrent_loads=AT_ONCE) as initializer:
        results = await _all_at_once(initializer, subject, loads)
        await settled(initializer)
    return results


def _first_and_second() -> Any:
    """Return a registry with two backends, the first of which loads in bfloat16."""
    from anyload import Backend, ModelConfig, Registry
    from anyload.adapters.transformers import TransformersModel

    class First(Backend):
        backend_type = "FIRST"

    class Second(Backend):
        backend_type = "SECOND"

    class InBfloat16(TransformersModel):
        @classmethod
        def load(cls, config: ModelConfig, load_backend: Backend) -> Any:
            fields = {**config.fields, "dtype": "bfloat16"}
            return super().load(
                ModelConfig(config.module_id, config.model_path, **fields), load_backend
            )

    registry = Registry()
    registry.backend_type(First)
    registry.backend_type(Second)
    registry.module("transformers", "FIRST")(InBfloat16)
    registry.module("transformers", "SECOND")(TransformersModel)
    return registry


def _limits(first: float, second: float) -> list[dict[str, Any]]:
    return [{"type": "FIRST", "timeout": first}, {"type": "SECOND", "timeout": second}]


async def _stuck_with_anyload(subject: Transformer) -> tuple[list[Any], list[Any]]:
    """Return what came of the loads while the first was stuck, and of some more afterwards."""
    from anyload import Initializer
    from anyload.testing import Gate, settled

    gate = Gate()
    _hold_up(subject.cls, gate)
    limits = _limits(0.3, 0.3)
    async with Initializer(_first_and_second(), backend_priority=limits) as initializer:
        results = await _all_at_once(initializer, subject)
        await gate.entered()
        assert gate.inside == 1
        assert initializer.statistics().abandoned == 1
        gate.open()
        await settled(initializer)
    return results, await _with_anyload(subject, LATER)


async def _crossed_with_anyload(subject: Transformer) -> list[Any]:
    """Return what came of the loads, whose fallbacks were waiting when the first one ended."""
    from anyio import create_task_group

    from anyload import Initializer
    from anyload.events import Event, Queued
    from anyload.testing import Gate, settled, until

    gate = Gate()
    falling_back: list[str] = []
    results: list[Any] = []

    def hook(event: Event) -> None:
        if isinstance(event, Queued) and event.backend == "SECOND":
            falling_back.append(event.model)

    _hold_up(subject.cls, gate)
    limits = _limits(0.3, PATIENCE)
    initializer = Initializer(_first_and_second(), backend_priority=limits, hooks=[hook])

    async def load() -> None:
        results.extend(await _all_at_once(initializer, subject))

    async with initializer:
        async with create_task_group() as tasks:
            tasks.start_soon(load)
            await gate.entered()
            await until(lambda: len(falling_back) == LOADS)
            assert gate.inside == 1
            gate.open()
        await settled(initializer)
    return results
