"""Text that somebody else wrote, in errors and logs."""

from __future__ import annotations

import pytest

from anyload import (
    ClosedError,
    ConfigError,
    IntegrityError,
    LoadError,
    LoadReport,
    ModelNotFoundError,
    UnsafeArchiveError,
    UnsafePickleError,
)
from anyload._text import one_line, quoted
from anyload.errors import Problem
from anyload.reports import Attempt, StuckLoad

FORGED = "a\nERROR forged\x1b[2J\u2028\u202e\ud800"
ATTEMPT = Attempt("LOCAL", "raised", FORGED, load_seconds=1.0)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain, ünïcödé", "plain, ünïcödé"),
        ("a\nb\r\tc\0", "a\\nb\\r\\tc\\x00"),
        ("\u2028\u202e\ud800", "\\u2028\\u202e\\ud800"),
        ("x" * 11, "x" * 10 + "..."),
    ],
)
def test_a_text_is_one_line_that_can_be_printed(text: str, shown: str) -> None:
    """What cannot be printed is escaped, and what is too long is cut."""
    assert one_line(text, 10 if len(text) == 11 else 1000) == shown
    one_line(text).encode()


def test_a_name_is_quoted_and_cut() -> None:
    """A caller may ask for a name of megabytes."""
    assert quoted("a\n") == "'a\\n'"
    assert len(quoted("x" * 10_000_000)) < 1100


@pytest.mark.parametrize(
    ("error", "lines"),
    [
        (ConfigError(FORGED, [Problem("", FORGED)]), 1),
        (ConfigError(FORGED, [Problem(FORGED, FORGED), Problem("b", "c")]), 3),
        (ConfigError("s", [Problem(f"key{n}", "unknown key") for n in range(1000)]), 102),
        (ModelNotFoundError(FORGED, FORGED), 1),
        (ClosedError(FORGED * 100_000), 1),
        (IntegrityError(FORGED * 100_000, FORGED * 100_000), 1),
        (UnsafeArchiveError(FORGED, FORGED, "is bad"), 1),
        (UnsafePickleError(FORGED, FORGED), 1),
        (LoadError(FORGED * 100_000, FORGED, [ATTEMPT, ATTEMPT]), 3),
        (LoadReport(FORGED, None, None, (ATTEMPT,), 0, 1, 1), 2),
        (ATTEMPT, 1),
        (StuckLoad(FORGED, "LOCAL", 1, True, ""), 1),
    ],
    ids=lambda value: type(value).__name__,
)
def test_no_text_forges_a_line(error: object, lines: int) -> None:
    """Whatever a name, a path or a message holds: a problem is a line, and there is an end."""
    text = str(error)
    assert len(text.splitlines()) == lines
    assert all(line.isprintable() for line in text.splitlines())
    assert len(text) < 20_000
