"""Ctrl-C for a child process."""

from __future__ import annotations

import signal
import subprocess

HEARD_SECONDS = 10.0
"""After how long one presses it again.

CPython's handlers leave a note, for the main thread to read before its next instruction. A signal
that comes between that look and the system call in which asyncio then sleeps is read when the loop
wakes up for something else, and where all wait for a load that hangs, nothing else comes."""


def interrupt(process: subprocess.Popen[bytes]) -> tuple[bytes, bytes]:
    """Press Ctrl-C, and return what the process has written when it has ended."""
    process.send_signal(signal.SIGINT)
    try:
        return process.communicate(timeout=HEARD_SECONDS)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGINT)
        return process.communicate(timeout=HEARD_SECONDS)
