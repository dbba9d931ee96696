"""A pytest plug-in, for those who ask for it: ``pytest_plugins = ["anyload.pytest_plugin"]``.

It gives two fixtures: ``registry``, empty, and ``gate``, closed and opened at the end of the
test, so that no load outlives its test.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from .registry import Registry
from .testing import Gate


@pytest.fixture
def registry() -> Registry:
    """An empty registry."""
    return Registry()


@pytest.fixture
def gate() -> Iterator[Gate]:
    """A closed gate, opened when the test has ended."""
    gate = Gate()
    yield gate
    gate.open()
