"""Errors are fields; the text is derived from them, and they pickle."""

from __future__ import annotations

import pickle

import pytest

from anyload import (
    AnyloadError,
    Attempt,
    BulkLoadError,
    ClosedError,
    ConfigError,
    IntegrityError,
    LoadError,
    LoadReport,
    LoadTimeoutError,
    ModelNotFoundError,
    ReentrantLoadError,
    RegistrationError,
    SaturatedError,
    StuckLoad,
    UnsafeArchiveError,
    WrongTypeError,
)
from anyload.errors import LONGEST_TEXT, Problem, describe

ATTEMPTS = (
    Attempt("GPU", "raised", "MemoryError: CUDA out of memory", "m.Gpu", 0.0, 0.41, "a.py:1 f"),
    Attempt("ONNX", "skipped", "module 's' has no ONNX implementation"),
    Attempt("LOCAL", "timed_out", "after 30 s", "m.Local", 0.0, 30.0, "w.py:88 read_block"),
)
REPORT = LoadReport("models/s", "s", None, ATTEMPTS, 0.0, 30.41, 30.5)
STUCK = StuckLoad("models/s", "GPU", 12.0, False, "a.py:1 f\nw.py:88 read_block")

EVERY: list[AnyloadError] = [
    ConfigError("models.yml", [Problem("a", "unknown key"), Problem("b.c", "missing")]),
    RegistrationError("the registry", [Problem("x.Y", "it has no load classmethod")]),
    ModelNotFoundError("models/s", "there is no such directory"),
    LoadError("models/s", "s", ATTEMPTS, REPORT),
    LoadTimeoutError("models/s", "s", ATTEMPTS, REPORT, limit=60.0),
    SaturatedError("models/s", [STUCK]),
    ReentrantLoadError("a", ["a", "b", "a"]),
    WrongTypeError("x.Y", "an int", "an instance of x.Y"),
    ClosedError("models/s"),
    IntegrityError("weights.bin", "sha256 differs"),
    UnsafeArchiveError("m.zip", "../evil", "leads out of the directory"),
]


@pytest.mark.parametrize("error", EVERY, ids=lambda error: type(error).__name__)
def test_every_error_pickles(error: AnyloadError) -> None:
    """A pickled error comes back with its fields and its text."""
    twin = pickle.loads(pickle.dumps(error))
    assert type(twin) is type(error)
    assert vars(twin) == vars(error)
    assert str(twin) == str(error)


def test_a_load_error_reads_as_a_table() -> None:
    """It says what was asked, then one aligned row per attempt."""
    assert str(LoadError("models/s", "s", ATTEMPTS)).splitlines() == [
        "no backend could load 'models/s' (module 's')",
        "  1. GPU    raised     MemoryError: CUDA out of memory (0.41 s)",
        "  2. ONNX   skipped    module 's' has no ONNX implementation",
        "  3. LOCAL  timed out  after 30 s",
    ]


def test_a_load_timeout_is_not_a_timeout_error() -> None:
    """Callers tell it from their own fail_after."""
    error = LoadTimeoutError("models/s", limit=60.0)
    assert not isinstance(error, TimeoutError)
    assert "within load_timeout, 60 s" in str(error)


def test_a_saturated_error_names_the_stuck() -> None:
    """It says which loads hold the slots, for how long and where they are."""
    text = str(SaturatedError("models/t", [STUCK]))
    assert "'models/s' on GPU, overdue for 12 s, in w.py:88 read_block" in text


def test_a_config_error_lists_its_problems() -> None:
    """Each problem has a row; a single one that concerns the whole file has none."""
    assert str(EVERY[0]).splitlines() == [
        "models.yml has 2 problems",
        "  a    unknown key",
        "  b.c  missing",
    ]
    assert str(ConfigError("x.yml", [Problem("", "empty")])) == "x.yml: empty"


def test_an_attempt_leaves_its_exception_behind_when_pickled() -> None:
    """Exceptions of other libraries often do not survive pickling; the text of them does."""
    attempt = Attempt("GPU", "raised", "ValueError: x", error=ValueError("x"))
    twin = pickle.loads(pickle.dumps(attempt))
    assert twin == attempt
    assert twin.error is None
    assert str(twin) == "GPU  raised  ValueError: x"


def test_a_report_reads_as_a_table() -> None:
    """The first line is the outcome."""
    loaded = Attempt("LOCAL", "loaded", "", "m.Local", 0.0, 0.02)
    report = LoadReport("models/s", "s", "LOCAL", (loaded,), 0.0, 0.02, 0.03)
    assert str(report).splitlines() == [
        "models/s: loaded on LOCAL in 30 ms",
        "  1. LOCAL  loaded  in 20 ms",
    ]
    assert str(REPORT).startswith("models/s: not loaded in 30.5 s")


def test_a_bulk_error_is_a_group_and_keeps_what_loaded() -> None:
    """Splitting it keeps the models; pickling leaves them behind, they belong to this process."""
    closed, missing = ClosedError("a"), ModelNotFoundError("b", "gone")
    error = BulkLoadError("2 of 3", [closed, missing], {"c": 3}, {"a": closed, "b": missing})
    some, rest = error.split(ClosedError)
    assert isinstance(some, BulkLoadError)
    assert isinstance(rest, BulkLoadError)
    assert (some.failed, rest.failed) == ({"a": closed}, {"b": missing})
    assert some.models == {"c": 3}
    twin = pickle.loads(pickle.dumps(error))
    assert twin.models == {}
    assert [type(one) for one in twin.exceptions] == [ClosedError, ModelNotFoundError]
    assert BulkLoadError("none", [closed]).models == {}


def test_describe_cuts_what_is_endless() -> None:
    """A huge message is cut to 4 kB and says so."""
    text = describe(ValueError("x" * 10 * LONGEST_TEXT))
    assert len(text) < LONGEST_TEXT + 100
    assert "more characters" in text
    assert describe(ValueError()) == "ValueError"
