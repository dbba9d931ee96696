"""Loads what would have transformers fetch something, and tells what it has asked for.

Run as a program, because what is asked for here is decided as transformers is imported: with a
package ``kernels`` that tells of each call, and a network that tells of each connection. It takes
the directory of a model, and prints what came of each case as JSON.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable
from functools import partial
from importlib import import_module
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

ASKED: list[str] = []
"""What was asked for, in the case that runs."""

SOME_OTHER_MODEL = "microsoft/resnet-50"

CASES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "as it is": ({}, {}),
    "attention": ({}, {"attention": "flash_attention_2"}),
    "attention, version 3": ({}, {"attention": "flash_attention_3"}),
    "attention of its own": ({"_attn_implementation": "flash_attention_2"}, {}),
    "attention of its own, public": ({"attn_implementation": "flash_attention_2"}, {}),
    "attention of a part": (
        {"model_type": "clip", "attn_implementation": {"text_config": "flash_attention_2"}},
        {},
    ),
    "as it is imported": (
        {"model_type": "falcon", "hidden_size": 32, "num_attention_heads": 2},
        {},
    ),
    "backbone": (
        {"model_type": "dpt", "backbone": SOME_OTHER_MODEL, "use_pretrained_backbone": True},
        {},
    ),
}
"""Cases of a model: what its config.json says instead, and the fields for anyload."""

KERNELS = '''
import types

ASKED = []


def get_kernel(name, *arguments, **named):
    ASKED.append(name)
    raise FileNotFoundError(name)


def __getattr__(name):
    """Whatever else is imported from here decorates a class or function, and leaves it as it is."""
    return lambda *arguments, **named: lambda decorated: decorated
'''


def install_kernels(place: Path) -> None:
    """Make a package that passes for kernels, of a version that this transformers takes."""
    source = Path(str(distribution("transformers").locate_file("transformers/utils")))
    (line,) = [
        line
        for line in (source / "import_utils.py").read_text().splitlines()
        if line.startswith("KERNELS_MIN_VERSION")
    ]
    version = line.partition('"')[2].partition('"')[0]
    (place / "kernels").mkdir()
    (place / "kernels" / "__init__.py").write_text(KERNELS)
    info = place / f"kernels-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: kernels\nVersion: {version}\n")
    sys.path.insert(0, str(place))
    vars(import_module("kernels"))["ASKED"] = ASKED


def watch_the_network() -> None:
    """Have each connection told of, and refused."""

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "socket.getaddrinfo":
            ASKED.append(str(arguments[0]))
            raise OSError("there is no network here")

    sys.addaudithook(hook)


def outcome(act: Callable[[], Any]) -> dict[str, Any]:
    """Return what an act came to, and what was asked for in it."""
    ASKED.clear()
    try:
        act()
        error = None
    except Exception as failed:
        error = f"{type(failed).__name__}: {failed}"
    return {"error": error, "asked": list(ASKED)}


def main(model: Path, place: Path) -> dict[str, Any]:
    """Return what came of each case."""
    install_kernels(place)
    watch_the_network()
    from anyload import LocalBackend, ModelConfig
    from anyload.adapters.transformers import TransformersModel
    from anyload.config import BackendConfig

    TransformersModel.prepare()
    backend = LocalBackend(BackendConfig())
    found = {}
    for name, (settings, fields) in CASES.items():
        copy = Path(shutil.copytree(model, place / name.replace(" ", "-")))
        whole = json.loads((copy / "config.json").read_text())
        (copy / "config.json").write_text(json.dumps({**whole, **settings}))
        config = ModelConfig("transformers", copy, **fields)
        found[name] = outcome(partial(TransformersModel.load, config, backend))
    for name, module, function, what in (
        ("at any time", "transformers.integrations.hub_kernels", "get_kernel", "someone/kernel"),
        ("by others", "kernels", "get_kernel", "someone/kernel"),
        ("outside of a load", "huggingface_hub", "model_info", SOME_OTHER_MODEL),
    ):
        found[name] = outcome(partial(getattr(import_module(module), function), what))
    return found


if __name__ == "__main__":
    os.environ.pop("HF_HUB_OFFLINE", None)
    json.dump(main(Path(sys.argv[1]), Path(sys.argv[2])), sys.stdout)
