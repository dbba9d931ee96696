"""The storms in their small size; ``make torture`` runs the large ones."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator

import pytest

from .crowds import LOOPS, cancelled_around_completion, many_models, on_all_loops_and_in_threads
from .forks import forks_in_a_storm

on_each_loop = pytest.mark.parametrize("loop", LOOPS)


@pytest.fixture(autouse=True)
def no_complaints(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """No exception is left for a loop, or for anybody else, to report."""
    yield
    assert [r.getMessage() for r in caplog.records if r.levelno >= logging.ERROR] == []


@on_each_loop
def test_many_requests_for_many_models(loop: str) -> None:
    """With callers cancelled in the middle each ends in one way, and no model or slot is lost."""
    many_models(loop, requests=1_000, models=100)


@on_each_loop
def test_native_cancels_around_completion(loop: str) -> None:
    """A caller cancelled as its model lands has it or leaves it: what nobody has is released."""
    cancelled_around_completion(loop, callers=1_000)


@pytest.mark.skipif(sys.version_info < (3, 12), reason="eager tasks came with Python 3.12")
@pytest.mark.parametrize("loop", [loop for loop in LOOPS if loop != "trio"])
def test_native_cancels_of_eager_tasks(loop: str) -> None:
    """Likewise where the body of a task runs before ``create_task`` returns."""
    cancelled_around_completion(loop, callers=1_000, eager=True)


def test_all_loops_and_threads_at_once() -> None:
    """Loops of every kind and plain threads share one initializer, cancel and time out."""
    on_all_loops_and_in_threads(requests=500, models=50)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_forks_with_flights_in_progress() -> None:
    """Each child starts empty, loads and exits cleanly; the parent's callers are not disturbed."""
    forks_in_a_storm(forks=5, requests=500)
