"""The adapters are tested on the real frameworks; what their tests share is here."""

from __future__ import annotations

from pathlib import Path

import made as make
import made_tabular as make_tabular
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


@pytest.fixture(scope="session")
def forests(made: Path) -> Path:
    """A directory with the same forest in both formats."""
    return make_tabular.forests(made / "sklearn")


@pytest.fixture
def skops_file(forests: Path) -> Path:
    return forests / "forest.skops"


@pytest.fixture
def joblib_file(forests: Path) -> Path:
    return forests / "forest.joblib"
