"""Ending the process when a load's thread cannot be ended."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from typing import NoReturn

from .process import process


def exit_process(status: int = 0) -> NoReturn:
    """End the process; at once and by force if any load is still stuck in its thread.

    A normal exit with a daemon thread in native code can abort the process, or hang it
    (pybind11: SIGABRT in 44 of 45 runs). So while a load is abandoned or overdue, this flushes
    stdout, stderr and the log handlers and calls ``os._exit``, which skips ``atexit`` functions
    and ``finally`` blocks: call it last, after `Initializer.aclose`. With no such load it is
    ``sys.exit``.

    Args:
        status: the exit status.
    """
    if not any(core.has_stuck_threads for core in process.all_cores()):
        sys.exit(status)
    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        # There may be no such stream, or nobody who reads it any more.
        with contextlib.suppress(AttributeError, OSError, ValueError):
            stream.flush()
    os._exit(status)
