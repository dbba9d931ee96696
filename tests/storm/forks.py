"""Forks in the middle of a storm: the child starts empty, and the parent does not notice."""

from __future__ import annotations

import os
import random
import threading
import time
import traceback
import warnings
from typing import Any

from anyload import ModelConfig
from anyload.testing import PATIENCE, Gate, at_rest, waits_at

from .crowds import LOOPS, run_on, waves
from .models import MODEL, Storm


def forks_in_a_storm(forks: int, requests: int) -> str:
    """Fork while loops and a slow load go on; each child loads models of its own and exits."""
    storm, gate = Storm(), Gate()
    storm.registry.module("slow")(waits_at(gate))
    asking = [
        threading.Thread(
            target=run_on, args=(loop, waves, storm, random.Random(seed), requests, 100)
        )
        for seed, loop in enumerate(LOOPS)
    ]
    got: list[Any] = []
    slow = threading.Thread(
        target=lambda: got.append(storm.initializer.init_sync(ModelConfig("slow")))
    )
    slow.start()
    gate.entered_sync()
    for thread in asking:
        thread.start()
    for _ in range(forks):
        with warnings.catch_warnings():
            # From Python 3.12 on it warns of just what is shown here to work.
            warnings.simplefilter("ignore", DeprecationWarning)
            child = os.fork()
        if child == 0:  # pragma: no cover  # coverage of a child that ends like this is lost
            _be_a_child(storm)
        assert _exit_code(child) == 0
    gate.open()
    for thread in (slow, *asking):
        thread.join()
    assert len(got) == 1
    storm.check(requests * len(asking))
    return f"{forks} children; {storm.figures}"


def _be_a_child(storm: Storm) -> None:
    """Find an empty initializer, load with it, close it, and end."""
    code = 1
    try:
        initializer = storm.initializer
        assert at_rest(initializer.statistics()), initializer
        for number in range(1, 6):
            initializer.init_sync(MODEL, key=number, timeout=PATIENCE)
        assert initializer.close() == ()
        assert at_rest(initializer.statistics()), initializer
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def _exit_code(child: int) -> int:
    """Wait for a child, but not for ever."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.001)
    os.kill(child, 9)
    os.waitpid(child, 0)
    raise TimeoutError("a forked child did not end")
