"""The differential suite notices when one thing is wrong."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from caikit.core.model_management.local_model_initializer import LocalModelInitializer
from cases import CASES, KNOWN
from mutants import MUTANTS, Mutant
from worlds import in_workers, observe

Expected = Callable[[str], list[object]]


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One place for the files of all runs, so that their paths are the same."""
    return tmp_path_factory.mktemp("mutants")


@pytest.fixture(scope="module")
def expected(directory: Path) -> Expected:
    """What a case comes to with caikit's own class."""
    return cache(lambda name: observe(CASES[name], LocalModelInitializer, directory))


def notices(name: str, kind: Any, expected: Expected, directory: Path) -> bool:
    """Return whether a case tells a class from caikit's own."""
    try:
        return observe(CASES[name], kind, directory) != expected(name)
    except Exception:  # the case expects something of the log, or of what it loads
        return True


@pytest.mark.parametrize("mutant", MUTANTS.values(), ids=MUTANTS)
def test_it_is_noticed(mutant: Mutant, expected: Expected, directory: Path) -> None:
    """A copy of our class with one thing wrong differs from caikit's in a case at least."""
    kind = in_workers(mutant.make())
    names = (name for name in CASES if name not in KNOWN)
    assert any(notices(name, kind, expected, directory) for name in names)


def test_nothing_is_noticed_where_nothing_is_wrong(expected: Expected, directory: Path) -> None:
    """A copy of our class with nothing wrong does not differ in any case."""
    kind = in_workers(Mutant("_modules", "import inspect\n", "import inspect\n\n").make())
    names = [name for name in CASES if name not in KNOWN]
    assert [name for name in names if notices(name, kind, expected, directory)] == []
