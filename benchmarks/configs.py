"""P12: what does it cost to read 1,000 config.yml, and to find those models again?"""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

import yaml

from anyload import ModelConfig, Registry
from anyload._load.resolver import Resolver
from benchmarks.frame import Setting, Trivial, compared, interleave_sync
from benchmarks.results import Row

CONFIG = """\
module_id: m
name: sentiment-{0}
description: Tells good from bad, version {0}
labels: [negative, neutral, positive]
threshold: 0.5
max_tokens: 512
tokenizer: {{file: tokenizer.json, lower_case: true}}
weights: model.safetensors
"""


def measure(setting: Setting) -> list[Row]:
    number = setting.pick(1_000, 200)
    registry = Registry()
    registry.module("m")(Trivial)
    loader: Any = yaml.CSafeLoader
    with TemporaryDirectory() as root:
        names = [f"model-{place}" for place in range(number)]
        for place, name in enumerate(names):
            Path(root, name).mkdir()
            Path(root, name, "config.yml").write_text(CONFIG.format(place), encoding="utf-8")
        found = Resolver(registry, (), {}, root)

        def bare() -> float:
            began = perf_counter()
            for name in names:
                with open(f"{root}/{name}/config.yml", "rb") as file:
                    yaml.load(file, loader)
            return (perf_counter() - began) / number

        def read() -> float:
            began = perf_counter()
            for name in names:
                ModelConfig.from_directory(f"{root}/{name}")
            return (perf_counter() - began) / number

        def resolve(resolver: Resolver) -> float:
            began = perf_counter()
            for name in names:
                resolver.resolve(name, {}, shared=True)
            return (perf_counter() - began) / number

        ways = {
            "read": read,
            "resolved": lambda: resolve(Resolver(registry, (), {}, root)),
            "again": lambda: resolve(found),
            "CSafeLoader": bare,
        }
        times = interleave_sync(setting.pick(15, 5), ways)
    return [
        compared(f"P12 {number:,} config.yml read", 1.3, times, "read", "CSafeLoader"),
        # Their real paths and sizes and plans and keys too.
        compared(f"P12 {number:,} models resolved", None, times, "resolved", "CSafeLoader"),
        compared("P12 resolved again, unchanged", 0.1, times, "again", "CSafeLoader"),
    ]
