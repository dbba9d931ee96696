"""The adapters are tested on the real frameworks; what their tests share is here."""

from __future__ import annotations

from pathlib import Path

import made as make
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


@pytest.fixture(scope="session")
def bert(made: Path) -> Path:
    """A tiny BERT with its tokenizer, which nobody changes."""
    return make.bert(made / "bert")
