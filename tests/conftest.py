"""Every async test runs on three event loops; ``anyio_mode`` in pyproject marks them all."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any

import pytest
from hypothesis import settings

# The tests of the adapters and of the drop-in run where the frameworks, and caikit, are:
# `make frameworks` and `make caikit`.
NEEDED = {"frameworks": "torch", "drop_in": "caikit"}
collect_ignore = [tests for tests, package in NEEDED.items() if not find_spec(package)]

# No deadline per example: on a shared machine it measures the neighbours.
settings.register_profile("anyload", deadline=None, print_blob=True)
settings.load_profile("anyload")


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(("asyncio", {"use_uvloop": False, "debug": True}), id="asyncio"),
        pytest.param(("asyncio", {"use_uvloop": True}), id="asyncio+uvloop"),
        pytest.param(("trio", {}), id="trio"),
    ],
)
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    """The event loop and its options, as anyio's plug-in takes them."""
    backend: tuple[str, dict[str, Any]] = request.param
    return backend


@pytest.fixture
def no_collection() -> Iterator[None]:
    """What the test leaves as garbage is there until the test has it collected."""
    gc.disable()
    yield
    gc.enable()
