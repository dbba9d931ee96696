"""The adapters are tested on the real frameworks; what their tests share is here."""

from __future__ import annotations

from pathlib import Path

import pytest
from loading import Loader


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory for models that the tests of a session share."""
    return tmp_path_factory.mktemp("made")


@pytest.fixture
def loader() -> Loader:
    """The adapters, and a short way to load with them."""
    return Loader()
