"""A part of a command in a process of its own, in which a model may crash, hang or do harm."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from ._processes import run_alone
from .reports import seconds

START_SECONDS = 5.0
TIMED_OUT = re.compile(r"^Timeout \(\d+:\d\d:\d\d", re.MULTILINE)
"""What faulthandler prints first."""


@dataclass(frozen=True, slots=True)
class Unfinished:
    """A part that did not come to its end.

    Args:
        how: the load or the part itself raised; its process ended; it took too long and was
            killed.
        reason: what is known of it.
    """

    how: Literal["failed", "crashed", "hung"]
    reason: str

    def __str__(self) -> str:
        return f"{self.how}, {self.reason}"


def run_part(options: Sequence[str], timeout: float) -> dict[str, Any] | Unfinished:
    """Run the command line in a process of its own; return its document, or how it ended without.

    On Ctrl-C or SIGTERM it ends the process group of that, and raises.

    Args:
        options: the command and its options, without ``--timeout``.
        timeout: its limit, in seconds; it is ended then, with all that it has started.
    """
    command = [sys.executable, "-X", "faulthandler", *(["-P"] * sys.flags.safe_path)]
    command += ["-m", "anyload", *options, f"--timeout={timeout}"]
    # Files and not pipes: what a model's load has started may hold on to a pipe for ever.
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        # It ends by itself at its limit, which begins when it has started.
        code = run_alone(command, out, err, timeout + START_SECONDS)
        return result(code, _read(out), _read(err), timeout)


def _read(file: Any) -> str:
    file.seek(0)
    return str(file.read().decode(errors="replace"))


def result(code: int | None, out: str, err: str, timeout: float) -> dict[str, Any] | Unfinished:
    """Return what such a process has to say. Pure.

    Args:
        code: its exit code; None if it was killed at its limit.
        out: its stdout: one JSON document, if it came to its end.
        err: its stderr.
        timeout: its limit.
    """
    try:
        document = json.loads(out)
    except ValueError:
        if code is None or TIMED_OUT.search(err):
            return Unfinished("hung", f"no end after {seconds(timeout)}{where(err)}")
        if code == 2:  # as for a configuration that cannot be used
            return Unfinished("failed", err.strip())
        last = err.strip().rpartition("\n")[2] if code > 0 else ""
        words = where(err) or (f": {last}" if last else "")
        return Unfinished("crashed", f"{_exit_text(code)}{words}")
    if "error" in document:
        return Unfinished("failed", document["error"])
    return {
        name: tuple(value) if isinstance(value, list) else value for name, value in document.items()
    }


def _exit_text(code: int) -> str:
    if code < 0:
        with contextlib.suppress(ValueError):
            return signal.Signals(-code).name
    return f"exit code {code}"


def where(err: str) -> str:
    """Return where a load was, by what faulthandler has printed: ``, in my_modules.py:12 load``."""
    inside = os.path.join("anyload", "_load", "call.py")
    stacks = [stack for stack in re.split(r"\n(?=\S)", err) if inside in stack]
    # Of a crash, the thread that crashed; its innermost frame is the first.
    stacks.sort(key=lambda stack: not stack.startswith("Current thread"))
    found = re.search(r'File "([^"]+)", line (\d+) in (.+)', stacks[0]) if stacks else None
    return f", in {os.path.basename(found[1])}:{found[2]} {found[3]}" if found else ""
