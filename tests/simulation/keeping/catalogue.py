"""The catalogue of the simulation: which models there are, how large, and how they are kept."""

from __future__ import annotations

import random
from typing import Any

KIB = 1024
SIZES: dict[str, dict[str, int]] = {
    "small-1": {"cpu": 1 * KIB},
    "small-2": {"cpu": 1 * KIB},
    "small-3": {"cpu": 2 * KIB},
    "middle-1": {"cpu": 3 * KIB},
    "middle-2": {"cpu": 3 * KIB},
    "large-1": {"cpu": 5 * KIB},
    "large-2": {"cpu": 6 * KIB},
    "card-1": {"cuda:0": 4 * KIB},
    "card-2": {"cuda:0": 3 * KIB},
    "both-1": {"cpu": 2 * KIB, "cuda:0": 2 * KIB},
    "broken": {"cpu": 2 * KIB},
    "missing": {"cpu": 1 * KIB},
}
"""What each model holds at first; a reload may make it another size."""

BUDGET = {"cpu": 9 * KIB, "cuda:0": 5 * KIB}
"""A third of them fits on the CPU, and about half on the card."""

HOT = ("small-1", "middle-1", "large-1", "card-1", "both-1", "broken")
"""Those that are asked for most."""

ALIAS = "first"
MODULES = ("plain", "grouped", "measures", "warms up")
REMOVABLE = ("small-3", "middle-2", "card-2", "large-2")


def catalogue(dice: random.Random | None = None) -> dict[str, Any]:
    """Return a catalogue as a file would have it: the first one, or one that dice have changed."""
    models: dict[str, Any] = {}
    kept: dict[str, Any] = {}
    for number, (name, sizes) in enumerate(SIZES.items()):
        size, also = dict(sizes), {}
        if dice is not None:
            if name in REMOVABLE and dice.random() < 0.2:
                continue
            if dice.random() < 0.2:
                size = {device: dice.choice([1, 2]) * KIB + one for device, one in size.items()}
            if dice.random() < 0.05:
                also["keep_alive"] = "no time at all"  # the entry cannot be used
        models[name] = {"module_id": MODULES[number % len(MODULES)], "name": name, "size": size}
        if name == "missing":
            models[name]["model_path"] = "nowhere/to be found"
        kept[name] = {"memory": size, "upgrade": number % 2 == 0, **also}
    kept["small-1"]["aliases"] = [ALIAS]
    kept["small-2"].setdefault("keep_alive", 0)
    kept["middle-1"].setdefault("keep_alive", -1)
    return {"models": models, "repository": {"models": kept}}
