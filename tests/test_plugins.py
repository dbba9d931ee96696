"""An adapter that somebody else ships: a package with entry points, found once it is installed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

MODULE = """
from anyload import Backend


class Loud(Backend):
    backend_type = "LOUD"


class Shout:
    def __init__(self, words):
        self.words = words

    @classmethod
    def load(cls, config, load_backend):
        return cls(f"{config.words} on {load_backend.backend_type}")


def register(registry):
    for backend_type in ("LOUD", "LOCAL"):
        registry.module("shout", backend_type)(Shout)
"""

ENTRY_POINTS = """\
[anyload.modules]
shout = shouting:register
nothing = shouting:absent

[anyload.backends]
LOUD = shouting:Loud
"""

PROGRAM = """\
import anyio, json
from anyload import Initializer, Registry

registry = Registry.discover()

async def main():
    async with Initializer.from_config("models.yml", registry=registry) as initializer:
        return await initializer.init("greeting")

model = anyio.run(main)
print(json.dumps([model.words, [(one.name, one.reason) for one in registry.broken_plugins]]))
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory into which pip has installed the package, and a catalogue beside it."""
    root = tmp_path_factory.mktemp("plugin")
    wheel = root / "shouting-1.0-py3-none-any.whl"
    info = "shouting-1.0.dist-info"
    files = {
        "shouting.py": MODULE,
        f"{info}/METADATA": "Metadata-Version: 2.1\nName: shouting\nVersion: 1.0\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/entry_points.txt": ENTRY_POINTS,
    }
    files[f"{info}/RECORD"] = "".join(f"{name},,\n" for name in (*files, f"{info}/RECORD"))
    with zipfile.ZipFile(wheel, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    options = ("--no-index", "--no-deps", "--quiet", "--disable-pip-version-check")
    subprocess.run(
        [sys.executable, "-m", "pip", "install", *options, "--target", root / "site", wheel],
        check=True,
        timeout=60,
    )
    (root / "models.yml").write_text(
        "backend_priority: [{type: LOUD}, {type: LOCAL}]\n"
        "models:\n  greeting: {module_id: shout, words: hello}\n"
    )
    return root


def run(root: Path, *arguments: str) -> str:
    """Run Python where the package is installed, and return what it prints."""
    environment = {**os.environ, "PYTHONPATH": str(root / "site")}
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=root,
        env=environment,
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    )
    return done.stdout


def test_its_module_and_its_backend_are_discovered(installed: Path) -> None:
    """A catalogue names them; one of its entry points that is broken is told of, and no more."""
    words, broken = json.loads(run(installed, "-c", PROGRAM))
    assert words == "hello on LOUD"
    assert "AttributeError" in dict(broken)["nothing"]


def test_the_command_line_discovers_it(installed: Path) -> None:
    """Nobody has to write any code to use it."""
    document = json.loads(run(installed, "-m", "anyload", "load", "models.yml", "--json"))
    assert document["models"][0]["backend"] == "LOUD"
