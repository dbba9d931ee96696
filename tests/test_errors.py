"""Every error: its fields, its text, and that it survives pickling."""

from __future__ import annotations

import copy
import pickle
import threading
from typing import Any

import pytest

import anyload
from anyload import (
    AnyloadError,
    Attempt,
    BulkLoadError,
    ClosedError,
    ConfigError,
    DrainTimeoutError,
    IntegrityError,
    LoadCancelled,
    LoadError,
    LoadReport,
    LoadTimeoutError,
    MemoryBudgetError,
    MissingExtraError,
    ModelNotFoundError,
    ModelUnavailableError,
    QueueFullError,
    ReentrantLoadError,
    RegistrationError,
    SaturatedError,
    StuckLoad,
    UnsafeArchiveError,
    UnsafePickleError,
    WrongDeviceError,
    WrongTypeError,
)
from anyload._text import LONGEST_TEXT
from anyload.errors import Problem, describe

RAISED = Attempt("GPU", "raised", "MemoryError: full", "m.Model", 0.5, 0.41, "stack", MemoryError())
DECLINED = Attempt("LOCAL", "timed_out", "no answer in 3 s", "m.Model", 0.0, 3.0)
ATTEMPTS = (RAISED, DECLINED)
REPORT = LoadReport("x", "m", None, ATTEMPTS, 0.5, 3.41, 4.0)
STUCK = StuckLoad("y", "LOCAL", 90.0, False, "a.py:1 f\nb.py:88 read_block")

ROWS = """
  1. GPU    raised     MemoryError: full (0.41 s)
  2. LOCAL  timed out  no answer in 3 s"""

ERRORS: list[tuple[AnyloadError, dict[str, Any], str]] = [
    (
        ConfigError("a.yml", [Problem("", "empty")]),
        {"source": "a.yml", "problems": (("", "empty"),)},
        "a.yml: empty",
    ),
    (
        ConfigError("a.yml", [Problem("key", "bad")]),
        {"source": "a.yml", "problems": (("key", "bad"),)},
        "a.yml has 1 problem\n  key  bad",
    ),
    (
        ConfigError("a.yml", iter([Problem("longer", "bad"), Problem("b", "worse")])),
        {"source": "a.yml", "problems": (("longer", "bad"), ("b", "worse"))},
        "a.yml has 2 problems\n  longer  bad\n  b       worse",
    ),
    (ConfigError("a.yml", []), {"source": "a.yml", "problems": ()}, "a.yml has 0 problems"),
    (
        RegistrationError("the registry", [Problem("pkg.Cls", "no load")]),
        {"source": "the registry", "problems": (("pkg.Cls", "no load"),)},
        "the registry has 1 problem\n  pkg.Cls  no load",
    ),
    (
        ModelNotFoundError("x\n", "nothing there"),
        {"model": "x\n", "reason": "nothing there"},
        "model 'x\\n' not found: nothing there",
    ),
    (
        LoadError("x"),
        {"model": "x", "module_id": None, "attempts": (), "report": None},
        "no backend could load 'x'",
    ),
    (
        LoadError("x", "m", iter(ATTEMPTS), REPORT),
        {"model": "x", "module_id": "m", "attempts": ATTEMPTS, "report": REPORT},
        "no backend could load 'x' (module 'm')" + ROWS,
    ),
    (
        LoadTimeoutError("x", "m", ATTEMPTS, REPORT, limit=30),
        {
            "model": "x",
            "module_id": "m",
            "attempts": ATTEMPTS,
            "report": REPORT,
            "limit": 30,
            "waited": "",
        },
        "'x' (module 'm') was not loaded within load_timeout, 30 s" + ROWS,
    ),
    (
        LoadTimeoutError("x", limit=30, waited="it waited"),
        {
            "model": "x",
            "module_id": None,
            "attempts": (),
            "report": None,
            "limit": 30,
            "waited": "it waited",
        },
        "'x' was not loaded within load_timeout, 30 s: it waited",
    ),
    (
        SaturatedError("x", [STUCK]),
        {"model": "x", "stuck": (STUCK,)},
        (
            "cannot load 'x': every slot is held by a load that is past its limit\n"
            "  'y' on LOCAL, overdue, running for 90 s, in b.py:88 read_block\n"
            "restart the process, or raise max_abandoned_loads to go on without those threads"
        ),
    ),
    (
        ReentrantLoadError("x", iter(["x", "group g", "x"])),
        {"model": "x", "chain": ("x", "group g", "x")},
        "loading 'x' would wait for itself: x -> group g -> x",
    ),
    (
        WrongTypeError("m.Model", "an int", "m.Model"),
        {"implementation": "m.Model", "returned": "an int", "expected": "m.Model"},
        "m.Model.load returned an int; expected m.Model",
    ),
    (ClosedError("x"), {"model": "x"}, "cannot load 'x': the initializer is closed"),
    (
        IntegrityError("w.bin", "size 1, not 2"),
        {"path": "w.bin", "reason": "size 1, not 2"},
        "w.bin: size 1, not 2",
    ),
    (
        UnsafeArchiveError("a.tar", "../x", "leaves the directory"),
        {"archive": "a.tar", "member": "../x", "reason": "leaves the directory"},
        "a.tar: member '../x' leaves the directory",
    ),
    (
        UnsafePickleError("m.joblib", "set allow_pickle"),
        {"path": "m.joblib", "reason": "set allow_pickle"},
        "m.joblib: set allow_pickle",
    ),
    (
        MissingExtraError("skops", "scikit-learn"),
        {"package": "skops", "extra": "scikit-learn"},
        "skops is not installed; pip install 'anyload[scikit-learn]'",
    ),
    (
        WrongDeviceError("cuda:0", "cpu"),
        {"asked": "cuda:0", "got": "cpu"},
        "asked for cuda:0, got cpu",
    ),
    (
        ModelUnavailableError("a", "ValueError: broken", 2.5),
        {"model": "a", "reason": "ValueError: broken", "retry_after": 2.5},
        "'a' is unavailable for another 2.5 s: ValueError: broken",
    ),
    (
        ModelUnavailableError("a", "gone"),
        {"model": "a", "reason": "gone", "retry_after": None},
        "'a' is unavailable until its catalogue entry or its files change: gone",
    ),
    (
        MemoryBudgetError("a", {"cpu": 2}, {"cpu": 1}, "too large"),
        {"model": "a", "need": {"cpu": 2}, "limits": {"cpu": 1}, "reason": "too large"},
        "no room for 'a': too large",
    ),
    (
        QueueFullError("a", 3, 60.0),
        {"model": "a", "queued": 3, "retry_after": 60.0},
        "cannot load 'a' now: 3 models wait to be loaded; try again in 60 s",
    ),
    (
        DrainTimeoutError("a", 2, 30.0),
        {"model": "a", "leases": 2, "timeout": 30.0},
        (
            "'a' is still in use after 30 s: 2 leases are out; "
            "it is unloaded when the last of them is returned"
        ),
    ),
]


@pytest.mark.parametrize(
    ("error", "fields", "text"), ERRORS, ids=[type(row[0]).__name__ for row in ERRORS]
)
@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_an_error_is_its_fields_here_and_in_another_process(
    error: AnyloadError, fields: dict[str, Any], text: str, protocol: int
) -> None:
    """The fields and the text of an error are the same after pickling."""
    for twin in (error, pickle.loads(pickle.dumps(error, protocol))):
        assert type(twin) is type(error)
        assert {name: getattr(twin, name) for name in fields} == fields
        assert str(twin) == text


class OwnBulkError(BulkLoadError):
    """Made by a user of the library."""


class OwnError(AnyloadError):
    def __init__(self, number: int) -> None:
        self.text = f"number {number}"
        super().__init__()


TWINS = [copy.copy, lambda error: pickle.loads(pickle.dumps(error))]


@pytest.mark.parametrize("twin_of", TWINS)
def test_a_twin_is_made_without_the_constructor(twin_of: Any) -> None:
    """So an error of your own may take what it likes, and a note goes along."""
    error = OwnError(3)
    error.add_note("seen twice")
    twin = twin_of(error)
    assert (type(twin), twin.text, twin.__notes__) == (OwnError, "number 3", ["seen twice"])
    twin.add_note("of the twin")
    assert error.__notes__ == ["seen twice"]


@pytest.mark.parametrize("twin_of", TWINS)
def test_a_bulk_error_keeps_its_notes_and_its_kind(twin_of: Any) -> None:
    """What somebody has made of it, or added to it, goes along; the models stay behind."""
    error = OwnBulkError("two", [ValueError("a")], {"b": 1}, {"a": ValueError("a")})
    error.add_note("seen twice")
    twin = twin_of(error)
    assert (type(twin), twin.__notes__, twin.models) == (OwnBulkError, ["seen twice"], {})
    assert list(twin.failed) == ["a"]


def test_every_error_is_tested() -> None:
    """The table above misses no error that anyload has."""
    known = {
        value
        for value in vars(anyload.errors).values()
        if isinstance(value, type) and issubclass(value, BaseException)
    }
    tested = {type(row[0]) for row in ERRORS}
    assert known - tested == {AnyloadError, BulkLoadError, LoadCancelled}
    assert {kind for kind in known if not issubclass(kind, AnyloadError)} == {LoadCancelled}


def test_a_load_timeout_is_no_timeout_error() -> None:
    """A caller's own fail_after can be told from load_timeout."""
    assert not issubclass(LoadTimeoutError, TimeoutError)
    assert issubclass(LoadTimeoutError, LoadError)
    assert not issubclass(LoadCancelled, Exception)


def test_a_pickled_attempt_leaves_the_exception_behind() -> None:
    """Its text stays; exceptions of other libraries often cannot be pickled."""

    class Local(Exception):
        """It cannot be pickled."""

    attempt = Attempt("GPU", "raised", "Local: no", "m.Model", 0.5, 0.41, "stack", Local("no"))
    twin = pickle.loads(pickle.dumps(attempt))
    assert twin == attempt
    assert (twin.reason, twin.stack, twin.error) == ("Local: no", "stack", None)
    assert pickle.loads(pickle.dumps(STUCK)) == STUCK
    again = pickle.loads(pickle.dumps(REPORT))
    assert again == REPORT
    assert again.attempts[0].error is None


@pytest.mark.parametrize(
    ("attempt", "text"),
    [
        (RAISED, "GPU  raised  MemoryError: full (0.41 s)"),
        (DECLINED, "LOCAL  timed out  no answer in 3 s"),
        (Attempt("LOCAL", "loaded", load_seconds=0.003), "LOCAL  loaded (3 ms)"),
        (Attempt("TPU", "skipped", "no card"), "TPU  skipped  no card"),
    ],
)
def test_an_attempt_reads_as_one_row(attempt: Attempt, text: str) -> None:
    """Backend, outcome, reason, and how long it took where that says anything."""
    assert str(attempt) == text


def test_a_report_says_what_came_of_it() -> None:
    """The first line is the outcome, and then the attempts are listed."""
    assert str(REPORT) == "x: not loaded in 4 s" + ROWS
    loaded = Attempt("LOCAL", "loaded", load_seconds=1234.5)
    report = LoadReport("x", "m", "LOCAL", (loaded,), 0, 1234.5, 1234.5)
    assert str(report) == "x: loaded on LOCAL in 1234 s\n  1. LOCAL  loaded  in 1234 s"


def test_a_stuck_load_says_where_it_is() -> None:
    """Without a stack it says the rest."""
    assert str(StuckLoad("y", "GPU", 0.5, True, "")) == "'y' on GPU, abandoned, running for 0.5 s"


# Bulk


def bulk() -> BulkLoadError:
    failed = {"a": ClosedError("a"), "b": ModelNotFoundError("b", "gone"), "c": ClosedError("c")}
    return BulkLoadError("3 of 4 failed", list(failed.values()), {"d": object()}, failed)


def test_a_bulk_error_holds_what_loaded_and_what_did_not() -> None:
    """It is a group of exceptions and an AnyloadError; its mappings are empty if not given."""
    error = bulk()
    assert isinstance(error, AnyloadError)
    assert isinstance(error, ExceptionGroup)
    assert list(error.failed.values()) == list(error.exceptions)
    assert list(error.models) == ["d"]
    assert str(error) == "3 of 4 failed (3 sub-exceptions)"
    bare = BulkLoadError("one", [ClosedError("a")])
    assert (bare.models, bare.failed) == ({}, {})


def test_the_parts_of_a_bulk_error_know_their_models() -> None:
    """split() and except* give errors of the same kind, each with its own failures."""
    error = bulk()
    closed, rest = error.split(ClosedError)
    assert isinstance(closed, BulkLoadError)
    assert isinstance(rest, BulkLoadError)
    assert (list(closed.failed), list(rest.failed)) == (["a", "c"], ["b"])
    assert list(closed.exceptions) == list(closed.failed.values())
    assert closed.models is rest.models is error.models
    seen: list[Any] = []
    try:
        raise error
    except* ModelNotFoundError as group:
        seen.append(group)
    except* ClosedError as group:
        seen.append(group)
    assert [type(part) for part in seen] == [BulkLoadError, BulkLoadError]
    assert [list(part.failed) for part in seen] == [["b"], ["a", "c"]]
    assert error.subgroup(KeyError) is None


def test_a_pickled_bulk_error_leaves_the_models_behind() -> None:
    """The failures go with it; models are large, and belong to their process."""
    twin = pickle.loads(pickle.dumps(bulk()))
    assert type(twin) is BulkLoadError
    assert twin.models == {}
    assert {name: str(error) for name, error in twin.failed.items()} == {
        name: str(error) for name, error in bulk().failed.items()
    }
    assert list(twin.exceptions) == list(twin.failed.values())
    assert twin.message == "3 of 4 failed"


class Held:
    """What somebody asked for, and what cannot go to another process."""

    def __init__(self, text: str | None) -> None:
        self.lock, self.text = threading.Lock(), text

    def __repr__(self) -> str:
        if self.text is None:
            raise ValueError("no text")
        return self.text


@pytest.mark.parametrize("twin_of", TWINS)
def test_a_bulk_error_pickles_whatever_was_asked_for(twin_of: Any) -> None:
    """What cannot go along is text there; what can is what it was."""
    held, silent = Held("held"), Held(None)
    failed: dict[Any, Exception] = {
        held: ClosedError("a"),
        silent: ClosedError("b"),
        ("c", 1): ClosedError("c"),
    }
    error = BulkLoadError("none loaded", list(failed.values()), {"d": threading.Lock()}, failed)
    twin = twin_of(error)
    first, second, third = twin.failed
    assert (first, third) == ("held", ("c", 1))
    assert second.startswith("<test_errors.Held object at")
    assert list(twin.failed.values()) == list(twin.exceptions)
    assert [str(one) for one in twin.exceptions] == [str(one) for one in error.exceptions]
    assert twin.models == {}
    assert list(error.failed) == [held, silent, ("c", 1)]


# Describing what others raise


class Broken(Exception):
    def __str__(self) -> str:
        raise KeyboardInterrupt


class NoText(Exception):
    def __str__(self) -> str:
        return None  # type: ignore[return-value]  # noqa: PLE0307


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (ValueError("bad"), "ValueError: bad"),
        (ValueError(), "ValueError"),
        (Broken(), "Broken: <its text could not be made: KeyboardInterrupt>"),
        (NoText(), "NoText: <its text could not be made: TypeError>"),
    ],
)
def test_any_exception_can_be_described(error: Exception, text: str) -> None:
    """An exception whose text is empty or broken is described all the same."""
    assert describe(error) == text


def test_an_endless_text_is_cut() -> None:
    """The beginning is kept, and how much is missing is said."""
    text = describe(ValueError("x" * 10_000))
    assert text.startswith("ValueError: xxx")
    assert text.endswith(f"... ({10_000 + len('ValueError: ') - LONGEST_TEXT} more characters)")
    assert len(text) < LONGEST_TEXT + 50
