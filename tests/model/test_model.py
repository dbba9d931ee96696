"""The synchronous core keeps its promises in any history of threads, callers and time.

``MODEL_RUNS`` histories of ``MODEL_STEPS`` steps each; ``make torture`` plays many and long ones.
One that fails is printed as a program, shrunk, with a blob in ``@reproduce_failure(...)``. To play
that history alone, give the blob: ``MODEL_REPLAY="b'...'" make test ARGS=tests/model``. The next
run tries it first, too.
"""

from __future__ import annotations

import ast
import faulthandler
import os

import hypothesis
import pytest
from hypothesis.stateful import get_state_machine_test
from machine import Machine
from moves import histories

RUNS = int(os.environ.get("MODEL_RUNS", "250"))
STEPS = int(os.environ.get("MODEL_STEPS", "50"))
REPLAY = os.environ.get("MODEL_REPLAY")
MOST_SECONDS = 900.0
"""How long it may take: hypothesis shrinks what fails for up to five minutes."""


@pytest.fixture(autouse=True)
def quiet(caplog: pytest.LogCaptureFixture) -> None:
    """Abandoned loads and broken releases are told of in the log, and here there are thousands."""
    for name in ("anyload.loads", "anyload.hooks"):
        caplog.set_level("CRITICAL", name)


def test_every_history_keeps_the_promises() -> None:
    """Whatever threads, callers and the time do, in any order, the invariants hold."""
    faulthandler.dump_traceback_later(MOST_SECONDS, exit=True)
    play = get_state_machine_test(Machine, settings=histories(RUNS, STEPS))
    if REPLAY is not None:
        play = hypothesis.reproduce_failure(hypothesis.__version__, ast.literal_eval(REPLAY))(play)
    play()
