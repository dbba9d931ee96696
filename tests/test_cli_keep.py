"""``anyload load --keep``: what it shows while it keeps models, and how it ends."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from anyload._keeping.index import ModelStatus
from anyload._listing import LISTING_COLUMNS, aligned, change_document, change_row, listing_rows
from anyload.cli import main
from anyload.events import StateChanged
from anyload.reports import Attempt, LoadReport, Observed

MODULES = """
import os, time

class Words:
    device = "cpu"

    @classmethod
    def load(cls, config):
        print("a module prints")
        return cls()

    def memory_bytes(self):
        return 2048

class Broken:
    @classmethod
    def load(cls, config):
        raise ValueError("broken weights")

class Waits:
    @classmethod
    def load(cls, config):
        while not os.path.exists("go"):
            time.sleep(0.001)
        return cls()

class Hung:
    @classmethod
    def load(cls, config):
        while True:
            time.sleep(0.01)
"""

CONFIG = """
modules:
  words: "kept_modules:Words"
  broken: "kept_modules:Broken"
  waits: "kept_modules:Waits"
  hung: "kept_modules:Hung"
models:
  first: {module_id: words}
  second: {module_id: words}
repository:
  budget: {cpu: 8KiB}
"""

SIZES = """
  models:
    first: {memory: 2KiB, priority: 1}
    third: {memory: 2KiB}
"""

PATIENCE = 60.0


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A directory with a configuration and its modules, which we are in."""
    (tmp_path / "kept_modules.py").write_text(MODULES)
    (tmp_path / "models.yml").write_text(CONFIG)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield tmp_path
    sys.modules.pop("kept_modules", None)


@contextmanager
def keeping(*argv: str, prelude: str = "", **options: Any) -> Iterator[subprocess.Popen[str]]:
    """Run ``anyload load models.yml --keep`` in a process, which is gone afterwards."""
    program = f"import runpy, sys\n{prelude}\nrunpy.run_module('anyload', run_name='__main__')"
    how: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    command = [sys.executable, "-W", "error", "-c", program, "load", "models.yml", "--keep", *argv]
    process = subprocess.Popen(command, **{**how, **options})
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def documents(process: subprocess.Popen[str]) -> Iterator[dict[str, Any]]:
    assert process.stdout is not None
    for line in process.stdout:
        yield json.loads(line)


def end(process: subprocess.Popen[str], how: int = signal.SIGTERM) -> tuple[str, str]:
    process.send_signal(how)
    out, err = process.communicate(timeout=PATIENCE)
    assert "Traceback" not in err
    return out, err


@pytest.mark.parametrize("loop", ["asyncio", "uvloop", "trio"])
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_each_change_is_a_document(loop: str, how: int) -> None:
    """Every phase of every model is one line of JSON, in order; a signal ends it in order."""
    with keeping("--json", "--loop", loop) as process:
        changes = documents(process)
        seen = [next(changes) for _ in range(6)]
        out, err = end(process, how)
    seen += map(json.loads, out.splitlines())
    assert process.returncode == 0
    for name in ("first", "second"):
        mine = [one for one in seen if one["name"] == name]
        assert [(one["before"], one["phase"], one["state"]) for one in mine] == [
            ("known", "queued", "LOADING"),
            ("queued", "loading", "LOADING"),
            ("loading", "active", "READY"),
            ("active", "releasing", "UNLOADING"),
            ("releasing", "unloaded", "UNAVAILABLE"),
        ]
        assert mine[-1]["reason"] == "the repository is closed"
        assert sorted(mine[0]) == sorted(
            [
                *("seconds", "name", "version", "before", "phase", "state", "reason"),
                *("backend", "device", "memory", "leases", "idle_seconds"),
            ]
        )
        assert 0 <= mine[0]["seconds"] <= mine[-1]["seconds"]
    assert "2 of 2 models loaded in" in err
    assert "a module prints" in err


def test_a_row_for_each_change() -> None:
    """Without a terminal it is plain text: the head, and the row of a model when it changes."""
    with keeping("first", prelude="sys.modules['rich'] = None") as process:
        assert process.stdout is not None
        head = process.stdout.readline()
        rows = [process.stdout.readline() for _ in range(3)]
        out, err = end(process)
    rows += out.splitlines(keepends=True)
    assert tuple(head.split()) == LISTING_COLUMNS
    assert [row.split()[:3] for row in rows] == [
        ["first", "1", state]
        for state in ("LOADING", "LOADING", "READY", "UNLOADING", "UNAVAILABLE")
    ]
    assert rows[-1].rstrip().endswith("the repository is closed")
    assert all(head.index("state") == row.index(row.split()[2]) for row in rows)
    assert process.returncode == 0
    assert "1 of 1 models loaded" in err


@pytest.mark.skipif(not hasattr(os, "openpty"), reason="this system has no pseudo-terminals")
def test_a_table_is_drawn_in_its_place() -> None:
    """On a terminal, with rich, the table of all models is drawn anew with each change."""
    ours, theirs = os.openpty()
    environ = {**os.environ, "COLUMNS": "160", "TERM": "xterm"}
    with keeping(stdout=theirs, env=environ) as process:
        os.close(theirs)
        shown = drawn(ours, "READY", 2)
        assert "│" in shown
        assert "idle" in shown
        assert "2 KiB" in shown
        process.send_signal(signal.SIGINT)
        shown = drawn(ours, "UNAVAILABLE", 2)
        assert process.wait(timeout=PATIENCE) == 0
    os.close(ours)


def drawn(terminal: int, word: str, times: int) -> str:
    """Return the last screen that a terminal has got, once it has a word so many times."""
    shown, deadline = b"", time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        if select.select([terminal], [], [], 0.1)[0]:
            try:
                shown += os.read(terminal, 65536)
            except OSError:  # the other side is gone
                break
        # Each screen begins where the cursor goes up.
        for screen in shown.decode(errors="replace").split("\x1b[2K"):
            if screen.count(word) >= times:
                return screen
        last = shown.decode(errors="replace").rpartition("┏")[2]
        if last.count(word) >= times:
            return last
    raise AssertionError(shown.decode(errors="replace"))


def test_what_fails_and_what_does_not_fit(project: Path) -> None:
    """Errors are on stderr, the others are kept, nothing is evicted, and the exit code is 1."""
    config = CONFIG.replace("second: {module_id: words}", "second: {module_id: broken}")
    config = config.replace("cpu: 8KiB", "cpu: 3KiB") + SIZES
    config = config.replace("repository:", "  third: {module_id: words}\nrepository:")
    (project / "models.yml").write_text(config)
    with keeping("--json", "first", "second", "third", "--loop", "trio") as process:
        assert process.stderr is not None
        told = ""
        while "of 3 models loaded" not in told:
            told += process.stderr.readline()
        out, _ = end(process)
    assert process.returncode == 1
    assert "1 of 3 models loaded" in told
    assert "ValueError: broken weights" in told
    assert "a preload evicts nothing" in told
    last = {one["name"]: one for one in map(json.loads, out.splitlines())}
    assert last["second"]["phase"] == last["third"]["phase"] == "failed"
    assert last["first"]["reason"] == "the repository is closed"


@pytest.mark.parametrize("loop", ["asyncio", "uvloop", "trio"])
def test_who_reads_it_goes(project: Path, loop: str) -> None:
    """When nobody reads what it shows any more, it ends as if interrupted."""
    config = CONFIG.replace("first: {module_id: words}", "first: {module_id: waits}")
    (project / "models.yml").write_text(config)
    with keeping("--json", "--loop", loop) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline()
        process.stdout.close()
        (project / "go").touch()
        err = process.stderr.read()
        assert process.wait(timeout=PATIENCE) == 130
    assert "interrupted" in err
    assert "Traceback" not in err


def test_it_ends_while_a_load_hangs(project: Path) -> None:
    """A load that hangs is told of, and does not keep the process; not all have loaded."""
    (project / "models.yml").write_text(
        CONFIG.replace("first: {module_id: words}", "first: {module_id: hung}")
    )
    with keeping("--json") as process:
        changes = documents(process)
        while next(changes)["phase"] != "active":
            pass
        _, err = end(process)
    assert process.returncode == 1
    assert "warning: still running: 'first' on LOCAL" in err
    assert "models loaded" not in err


def test_what_cannot_begin(capsys: pytest.CaptureFixture[str]) -> None:
    """A configuration that cannot be used is exit code 2, and so is a wrong command line."""
    assert main(["load", "nowhere.yml", "--keep"]) == 2
    assert "nowhere.yml: not found" in capsys.readouterr().err
    for argv, told in (
        (["plan", "models.yml", "--keep"], "--keep is for load only"),
        (["load", "models.yml", "--keep", "--trace", "t.json"], "neither --timeline nor --trace"),
    ):
        with pytest.raises(SystemExit) as ended:
            main(argv)
        assert ended.value.code == 2
        assert told in capsys.readouterr().err


def status(**other: Any) -> ModelStatus:
    attempt = Attempt("GPU", "loaded", observed=Observed(device="cuda:0"))
    report = LoadReport("a", "m", "GPU", (attempt,), 0.0, 0.0, 0.0)
    fields: dict[str, Any] = {
        "name": "a",
        "version": "1",
        "state": "READY",
        "phase": "active",
        "reason": "",
        "leases": 1,
        "memory": {"cpu": 1024, "cuda:0": 2048},
        "backend": "GPU",
        "idle_seconds": None,
        "load_seconds": 1.0,
        "pinned": False,
        "report": report,
    }
    return ModelStatus(**{**fields, **other})


def test_cells() -> None:
    """A cell has what a person wants to know, in one line."""
    assert listing_rows([status(reason="two\nlines")]) == [
        ("a", "1", "READY", "GPU", "cuda:0", "1 KiB cpu, 2 KiB cuda:0", "1", "-", "two\\nlines")
    ]
    (row,) = listing_rows([status(idle_seconds=4.0, memory={}, report=None, backend=None)])
    assert row[3:8] == ("-", "-", "-", "-", "4 s")


def test_a_change_that_is_over() -> None:
    """What a model was like in a phase that has passed is not made up."""
    change = StateChanged("a", 5.0, "1", "queued", "loading", "LOADING", "")
    document = change_document(change, [status()], began=4.0)
    assert document["seconds"] == 1.0
    assert document["backend"] is document["leases"] is document["memory"] is None
    assert change_row(change, [status()]) == ("a", "1", "LOADING", *["-"] * 5, "")
    assert aligned(("a", "1", *"LRUGDM", "why"), ["a", "longer"]).startswith("a       1        L")
