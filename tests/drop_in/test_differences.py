"""Every case gives the same with caikit's own class and with ours."""

from __future__ import annotations

from pathlib import Path

import pytest
from _pytest.mark.structures import ParameterSet
from caikit.core.model_management.local_model_initializer import LocalModelInitializer
from cases import CASES, KNOWN
from worlds import Case, in_workers, observe

from anyload.caikit import AnyloadInitializer


def marked(name: str, case: Case) -> ParameterSet:
    """Return a case as pytest takes it, for loads in worker threads."""
    known = KNOWN.get(name)
    return pytest.param(case, id=name, marks=pytest.mark.xfail(reason=known) if known else ())


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_as_with_caikit(case: Case, tmp_path: Path) -> None:
    """What a case returns, raises, calls, logs and leaves behind is what it is with caikit."""
    expected = observe(case, LocalModelInitializer, tmp_path)
    assert observe(case, AnyloadInitializer, tmp_path) == expected


@pytest.mark.parametrize("case", [marked(name, case) for name, case in CASES.items()])
def test_as_with_caikit_in_worker_threads(case: Case, tmp_path: Path) -> None:
    """So it is where a key is set that needs other threads, but for what is known."""
    expected = observe(case, LocalModelInitializer, tmp_path)
    assert observe(case, in_workers(AnyloadInitializer), tmp_path) == expected
