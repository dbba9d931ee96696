"""Two scenes: many models at once, and a backend that cannot serve."""

from __future__ import annotations

import argparse
import asyncio
import os
from collections.abc import Awaitable, Callable, Iterable, Mapping
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any, TypeAlias

import yaml

from anyload import Initializer, LoadOutcome
from demo.inferences import try_out
from demo.locate import write_catalogues
from demo.modules import registry

ROUNDS = 4

Load: TypeAlias = Callable[[Initializer, list[str]], Awaitable[Mapping[str, Any]]]


async def together_and_apart(catalogue: Path) -> None:
    """Scene 1: loads every model of the catalogue, one after another and all at once."""
    names = list(yaml.safe_load(catalogue.read_text(encoding="utf-8"))["models"])
    print(f"1. {len(names)} models, one after another and together\n")

    outcomes = await load_each(catalogue, names)  # also does the imports, before any timing
    show_outcomes(outcomes)

    apart: list[float] = []
    together: list[float] = []
    for turn in range(ROUNDS):
        ways = [(one_after_another, apart), (all_together, together)]
        for load, seconds in ways if turn % 2 == 0 else reversed(ways):
            seconds.append(await timed(load, catalogue, names))
    print(f"\none after another  {median(apart):5.2f} s   {spread(apart)}")
    print(f"together           {median(together):5.2f} s   {spread(together)}")
    print(f"ratio              {median(apart) / median(together):5.2f}")
    print(
        f"Medians of {ROUNDS} rounds in changing order on {os.cpu_count()} cores, each load with"
        " a fresh\ninitializer; imports and files were warm."
    )


async def load_each(catalogue: Path, names: list[str]) -> list[LoadOutcome]:
    """Loads the models and returns their outcomes, reports included, in the order of ``names``."""
    async with (
        Initializer.from_config(catalogue, registry=registry) as initializer,
        initializer.init_each(names) as outcomes,
    ):
        found = {outcome.model: outcome async for outcome in outcomes}
    return [found[name] for name in names]


async def one_after_another(initializer: Initializer, names: list[str]) -> Mapping[str, Any]:
    """Loads the models in order, as a server does that awaits each."""
    return {name: await initializer.init(name) for name in names}


async def all_together(initializer: Initializer, names: list[str]) -> Mapping[str, Any]:
    """Loads the models at once."""
    return await initializer.init_many(names)


async def timed(load: Load, catalogue: Path, names: list[str]) -> float:
    """Returns the seconds that ``load`` takes; freeing the models afterwards is not counted."""
    async with Initializer.from_config(catalogue, registry=registry) as initializer:
        start = perf_counter()
        models = await load(initializer, names)
        seconds = perf_counter() - start
        del models
    return seconds


async def fallback(catalogue: Path) -> None:
    """Scene 2: asks for a card first, and shows how the model came to the processor."""
    (outcome,) = await load_each(catalogue, ["squeezenet"])
    print(f"\n2. {outcome.model}, on a card if there is one\n")
    rows = [
        (
            attempt.backend,
            attempt.outcome,
            (attempt.implementation or "-").rpartition(".")[2],
            milliseconds(attempt.queue_seconds),
            milliseconds(attempt.load_seconds),
            attempt.reason,
        )
        for attempt in outcome.report.attempts
    ]
    print_table(("backend", "outcome", "class", "queued ms", "load ms", "reason"), rows)
    if outcome.error is not None:
        raise outcome.error
    print(f"\nIt serves from {outcome.report.backend}: {try_out(outcome.value)}")


def show_outcomes(outcomes: list[LoadOutcome]) -> None:
    """Prints one row for each model, with the result of one inference."""
    rows = []
    for outcome in outcomes:
        if outcome.error is not None:
            raise outcome.error
        report = outcome.report
        tried = [attempt for attempt in report.attempts if attempt.outcome != "skipped"]
        rows.append(
            (
                report.model,
                report.module_id or "-",
                report.backend or "-",
                milliseconds(report.load_seconds),
                str(len(tried)),
                try_out(outcome.value),
            )
        )
    print_table(("model", "module", "backend", "load ms", "attempts", "one inference"), rows)


def print_table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> None:
    """Prints rows under a head, each column as wide as it needs; numbers go to the right."""
    rows = list(rows)
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    for row in (head, tuple("-" * width for width in widths), *rows):
        cells = [
            cell.rjust(width) if cell.replace(".", "").isdigit() else cell.ljust(width)
            for cell, width in zip(row, widths, strict=True)
        ]
        print("  ".join(cells).rstrip())


def milliseconds(seconds: float | None) -> str:
    """Returns a duration as a table shows it."""
    return "-" if seconds is None else f"{seconds * 1000:.1f}"


def spread(seconds: list[float]) -> str:
    """Returns the range of the rounds."""
    return f"({min(seconds):.2f} to {max(seconds):.2f})"


async def scenes() -> None:
    """Plays both scenes."""
    models, models_with_card = write_catalogues()
    await together_and_apart(models)
    await fallback(models_with_card)


def main() -> None:
    """Runs the demo on the loop that ``--backend`` names."""
    parser = argparse.ArgumentParser(prog="python -m demo", description=__doc__)
    parser.add_argument("--backend", choices=("asyncio", "trio"), default="asyncio")
    if parser.parse_args().backend == "trio":
        import trio

        trio.run(scenes)
    else:
        asyncio.run(scenes())


main()
