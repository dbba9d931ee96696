"""The module ``transformers``: nothing is fetched, whatever a model or its catalogue says."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import fetching
import pytest

NO_FLASH = "ImportError: FlashAttention{} has been toggled on"
"""What transformers says where package kernels is not installed."""


@pytest.fixture(scope="module")
def outcomes(bert: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """What came of each case, in a process with a package ``kernels``."""
    place = tmp_path_factory.mktemp("fetching")
    command = [sys.executable, fetching.__file__, str(bert), str(place)]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=110)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize(
    ("case", "says"),
    [
        ("as it is", None),
        ("attention", NO_FLASH.format(2)),
        ("attention, version 3", NO_FLASH.format(3)),
        ("attention of its own", NO_FLASH.format(2)),
        ("attention of its own, public", NO_FLASH.format(2)),
        ("attention of a part", NO_FLASH.format(2)),
        ("as it is imported", None),
        ("backbone", "IntegrityError: "),
    ],
)
def test_a_load_asks_for_nothing(case: str, says: str | None, outcomes: Any) -> None:
    """No kernel, no other model: it does without, or is an error."""
    came = outcomes[case]
    assert came["asked"] == []
    assert came["error"] is None if says is None else came["error"].startswith(says)


def test_what_was_to_be_fetched_is_named(outcomes: Any) -> None:
    """With the model that says so."""
    error = outcomes["backbone"]["error"]
    assert "backbone: something in it is to come from elsewhere, and nothing is fetched" in error
    assert fetching.SOME_OTHER_MODEL in error


def test_transformers_loads_no_kernel_later_either(outcomes: Any) -> None:
    """Quantized models ask for one as they run first."""
    came = outcomes["at any time"]
    assert came["asked"] == []
    assert came["error"].startswith("ImportError: someone/kernel is a kernel from the Hub")


def test_what_others_fetch_is_not_concerned(outcomes: Any) -> None:
    """A server may use both packages for itself, outside of a load."""
    assert outcomes["by others"]["asked"] == ["someone/kernel"]
    assert outcomes["outside of a load"]["asked"] == ["huggingface.co"]
