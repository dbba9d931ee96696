"""Child processes that end in the middle of a load."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import sysconfig
import textwrap
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

CEILING = 60.0
"""How long a child may take before it counts as hung, in seconds."""

NUDGE_SECONDS = 1.0
"""How often a child is sent a signal that means nothing, in seconds.

CPython's handlers only leave a note, for the main thread to read before its next instruction. A
signal that comes between that look and the system call in which the thread then sleeps is not seen
until something else wakes it: asyncio sleeps until its next timer, and a lock for ever. A person
presses Ctrl-C once more. By then the tests expect the first one to have been heard."""

LOOPS = {
    "asyncio": "import asyncio\ndef run(main): return asyncio.run(main())",
    "uvloop": "import uvloop\ndef run(main): return uvloop.run(main())",
    "trio": "import trio\ndef run(main): return trio.run(main)",
}

HANGS = {
    "in Python": "hang = threading.Event().wait",
    # As numpy does in a long operation: C code without the GIL.
    "in C without the GIL": "import ctypes\ndef hang():\n    while True: ctypes.CDLL(None).pause()",
    "in native code that comes back for the GIL": "from native import hang",
}

PRELUDE = """
import logging, os, signal, sys, threading, time
import anyio
from anyload import Initializer, ModelConfig, Registry, exit_process
from anyload.testing import FakeModel, at_rest

logging.disable()  # abandoned loads are warned of
signal.signal(signal.SIGWINCH, lambda *_: None)  # see NUDGE_SECONDS

def say(*words):  # in one piece: print writes the end of a line by itself
    os.write(1, (" ".join(map(str, words)) + "\\n").encode())

class Hangs(FakeModel):
    @classmethod
    def load(cls, config, **kwargs):
        say("in the load")
        hang()

registry = Registry()
registry.module("hangs")(Hangs)
registry.module("free")(FakeModel)
HANGS = ModelConfig("hangs")

def opened(**options):
    return Initializer(registry, max_concurrent_loads=1, **options)

async def ask(initializer):
    try:
        await initializer.init(HANGS)
    except Exception as error:
        say(type(error).__name__)

def limited():
    return opened(backend_priority=[{"type": "LOCAL", "timeout": 0.1}])
"""


@dataclass(frozen=True)
class End:
    """How a child ended.

    Args:
        code: its exit code; of a signal, that of the signal below zero.
        out: what it wrote, by lines.
        err: what it complained of.
        seconds: how long it took from the signal on, or from the start.
    """

    code: int
    out: list[str]
    err: str
    seconds: float


def end_of(
    script: str,
    *,
    loop: str = "asyncio",
    hangs: str = "in Python",
    signals: tuple[signal.Signals, ...] = (),
    path: Path | None = None,
) -> End:
    """Run a script in a child, and return how it ended.

    Args:
        script: what follows the prelude; ``run(main)`` runs a coroutine function on the loop.
        loop: the event loop.
        hangs: what its loads hang in.
        signals: what it is sent, one after each line that it writes.
        path: where what it imports is found.
    """
    code = "\n".join([PRELUDE, HANGS[hangs], LOOPS[loop], textwrap.dedent(script)])
    child = subprocess.Popen(
        [sys.executable, "-W", "error", "-c", code],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=path,
    )
    done = threading.Event()
    nudger = threading.Thread(target=_nudge, args=(child, done))
    try:
        lines = []
        began = time.monotonic()
        assert child.stdout is not None
        for number in signals:
            lines.append(child.stdout.readline())
            began = time.monotonic()
            child.send_signal(number)
            if not nudger.ident:
                nudger.start()
        out, err = child.communicate(timeout=CEILING)
    except subprocess.TimeoutExpired:
        child.send_signal(signal.SIGABRT)  # which shows its threads, if it can
        out, err = child.communicate()
        pytest.fail(f"the child hangs; it wrote {out!r} and {err}")
    finally:
        done.set()
        child.kill()
        child.wait()
        if nudger.ident:
            nudger.join()
    written = "".join([*lines, out]).splitlines()
    return End(child.returncode, written, err, time.monotonic() - began)


def _nudge(child: subprocess.Popen[str], done: threading.Event) -> None:
    """Have the main thread of a child look for signals, again and again."""
    while not done.wait(NUDGE_SECONDS):
        child.send_signal(signal.SIGWINCH)


def build_native(directory: Path) -> None:
    """Build the extension ``native``, or skip the test."""
    compiler = shutil.which("g++") or shutil.which("clang++")
    include = sysconfig.get_path("include")
    if compiler is None or not Path(include, "Python.h").exists():
        pytest.skip("there is no compiler for C++ here, or no Python.h")
    source = Path(__file__).with_name("native.cpp")
    target = directory / f"native{sysconfig.get_config_var('EXT_SUFFIX')}"
    flags = ["-std=c++17", "-shared", "-fPIC", f"-I{include}"]
    if sys.platform == "darwin":
        flags += ["-undefined", "dynamic_lookup"]
    subprocess.run([compiler, *flags, str(source), "-o", str(target)], check=True)
