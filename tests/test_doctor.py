"""``anyload doctor``: what it sees of modules that misbehave, and what it says to declare."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from anyload import LoadReport, ModelConfig, ProcessGlobal, Registry, _probes
from anyload._children import Unfinished, result, where
from anyload._examination import NotLoadedError, Undeclared, Usual, likeness, release
from anyload._probes import Heartbeat, Watch
from anyload._processes import run_alone
from anyload._tables import diagnosis_paragraph, doctor_document, doctor_rows
from anyload.cli import main
from anyload.doctor import (
    Alone,
    Diagnosis,
    Together,
    diagnose,
    gil_of,
    too_slow,
)
from anyload.events import Failed
from anyload.testing import returns_at_once

MODULES = """
import ctypes, os, subprocess, sys, threading, time
from pathlib import Path

lock, inside, kept = threading.Lock(), [], []

class Fine:
    @classmethod
    def load(cls, config):
        print("a module prints")
        time.sleep(0.15)
        return cls()

class Keeps:
    @classmethod
    def load(cls, config):
        sum(range(6_000_000))  # one call into C
        return cls()

class Patched:
    def make(self):
        return self

class Patches:
    @classmethod
    def load(cls, config):
        with lock:
            before, earlier, me = Patched.make, list(inside), object()
            Patched.make = lambda self: None
            inside.append(me)
        time.sleep(0.05)
        while set(earlier) & set(inside):  # in the order in which they came
            time.sleep(0.001)
        with lock:
            Patched.make = before
            inside.remove(me)
        return cls()

class PatchesInAGroup(Patches):
    exclusive_group = "patching"

class Leaks:
    @classmethod
    def load(cls, config):
        kept.append(open(os.devnull))
        threading.Thread(target=threading.Event().wait, daemon=True).start()
        return cls()

class Moves:
    @classmethod
    def load(cls, config):
        os.chdir("/")
        return cls()

class Crashes:
    @classmethod
    def load(cls, config):
        ctypes.string_at(1)

class Exits:
    @classmethod
    def load(cls, config):
        os._exit(3)

class Raises:
    @classmethod
    def load(cls, config):
        raise ValueError("no such [weights]")

class Alone:
    @classmethod
    def load(cls, config):
        if not lock.acquire(blocking=False):
            cls.beside_another()
        try:
            time.sleep(0.05)
        finally:
            lock.release()
        return cls()

class Clashes(Alone):
    @classmethod
    def beside_another(cls):
        raise RuntimeError("the deserializer is already set")

class Deadlocks(Alone):
    @classmethod
    def beside_another(cls):
        threading.Event().wait()

class Tensor:
    dtype, device = "torch.float32", "cpu"

class Mixes:
    def __init__(self, device):
        self.tensor = Tensor()
        self.tensor.device = device

    @classmethod
    def load(cls, config):
        first = lock.acquire(blocking=False)
        time.sleep(0.05)
        if first:
            lock.release()
        return cls("cpu" if first else "meta")

    def parameters(self):
        return [self.tensor]

class Hangs:
    @classmethod
    def load(cls, config):
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        Path("pids").write_text(f"{os.getpid()} {child.pid}")
        os.rename("pids", "running")
        threading.Event().wait()
"""

NAMES = (
    *("fine", "keeps", "patches-in-a-group", "leaks", "moves"),
    *("crashes", "exits", "raises", "clashes", "mixes"),
)


def config(*names: str) -> str:
    classes = {name: name.title().replace("-", "") for name in names}
    modules = [f'  {name}: "doctor_modules:{cls}"' for name, cls in classes.items()]
    models = [f"  {name}: {{module_id: {name}}}" for name in names]
    return "\n".join(["modules:", *modules, "models:", *models, ""])


class Run:
    """A doctor at work; several wait for each other's sleeps that way."""

    def __init__(self, project: Path, *argv: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "anyload", "doctor", *argv],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=project,
        )

    def ended(self, expect: int) -> tuple[str, str]:
        out, err = self._process.communicate(timeout=110)
        assert self._process.returncode == expect, err
        assert "Traceback" not in err
        return out, err

    def stop(self) -> None:
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)
        out = self._process.stdout
        if out is not None and not out.closed:  # nobody has read it
            self._process.communicate(timeout=30)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the modules."""
    path = tmp_path_factory.mktemp("doctor")
    (path / "doctor_modules.py").write_text(MODULES)
    return path


@pytest.fixture(scope="module")
def hanging(project: Path) -> Iterator[tuple[Run, Run]]:
    """Runs over what hangs, as JSON, and over what hangs only at once, as a table."""
    (project / "hanging.yml").write_text(config("hangs", "deadlocks"))
    runs = (
        Run(project, "hanging.yml", "--timeout=5", "hangs", "--json"),
        Run(project, "hanging.yml", "--timeout=5", "deadlocks"),
    )
    yield runs
    for run in runs:
        run.stop()


@pytest.fixture(scope="module")
def examined(project: Path, hanging: tuple[Run, Run]) -> tuple[str, str]:
    """What a run over all modules that come to an end wrote to stdout and to stderr."""
    (project / "models.yml").write_text(config(*NAMES))
    return Run(project, "models.yml", "--json", "--rounds=2", "--timeout=60").ended(expect=1)


@pytest.fixture(scope="module")
def models(examined: tuple[str, str]) -> dict[str, Any]:
    document = json.loads(examined[0])
    assert document["config"] == "models.yml"
    assert document["seconds"] > 0
    return {model["model"]: model for model in document["models"]}


# What it sees


def test_every_model_is_examined_and_told_of(
    examined: tuple[str, str], models: dict[str, Any]
) -> None:
    """In the order of the catalogue; the document alone is on stdout, the progress on stderr."""
    assert tuple(models) == NAMES
    assert "[1/10] fine: ok\n" in examined[1]
    assert "prints" not in examined[0]


@pytest.mark.parametrize(
    ("name", "verdict", "declare"),
    [
        ("fine", "ok", []),
        ("keeps", "declare", ["holds_gil"]),
        ("patches-in-a-group", "ok", []),
        ("leaks", "ok", []),
        ("moves", "declare", ["exclusive_group"]),
        ("crashes", "failed", []),
        ("exits", "failed", []),
        ("raises", "failed", []),
        ("clashes", "declare", ["exclusive_group"]),
        ("mixes", "declare", ["exclusive_group"]),
    ],
)
def test_the_verdict(name: str, verdict: str, declare: list[str], models: dict[str, Any]) -> None:
    """What each module has to declare, and whether it does."""
    found = models[name]
    assert (found["verdict"], found["declare"]) == (verdict, declare), found


def test_a_load_alone_is_measured(models: dict[str, Any]) -> None:
    """Its time, the gaps of the event loop, its memory, and what loads leave behind."""
    alone = models["fine"]["alone"]
    assert (alone["module_id"], alone["backend"]) == ("fine", "LOCAL")
    assert alone["implementation"] == "doctor_modules.Fine"
    assert (alone["exclusive_group"], alone["holds_gil"]) == (None, False)
    assert len(alone["load_seconds"]) == len(alone["gaps"]) == 5
    assert min(alone["load_seconds"]) >= 0.15
    assert alone["gil"] == "not held"
    assert alone["threads_left"] == 0
    if sys.platform == "linux":
        assert alone["files_left"] == 0
        assert alone["memory_before"] > 1 << 20
    together = models["fine"]["together"]
    assert (together["loads"], together["at_once"], together["unsafe"]) == (8, 4, False)


def test_keeping_the_gil_is_seen_in_the_gaps(models: dict[str, Any]) -> None:
    """A load that is one call into C keeps the event loop from running all the while."""
    assert models["keeps"]["alone"]["gil"] == "held"
    assert "It keeps the GIL" in models["keeps"]["remarks"][0]
    assert models["moves"]["alone"]["gil"] == "too short"


def test_a_patch_that_two_loads_leave_behind_is_found(models: dict[str, Any]) -> None:
    """Nobody has to say which function it is; the declared group does not hide it."""
    found = models["patches-in-a-group"]
    (change,) = found["together"]["changes"]
    assert change.startswith("doctor_modules.Patched.make was replaced by")
    assert found["together"]["unsafe"]
    assert found["alone"]["changes"] == []
    assert "'patching' is needed" in found["remarks"][-1]


def test_what_each_load_leaves_open_is_counted(models: dict[str, Any]) -> None:
    """A thread and a file descriptor for each load."""
    alone = models["leaks"]["alone"]
    if sys.platform == "linux":
        assert (alone["threads_left"], alone["files_left"]) == (5, 5)
        told = " ".join(models["leaks"]["remarks"])
        assert "5 threads by 5 loads" in told
        assert "5 file descriptors by 5 loads" in told


def test_what_a_load_alone_leaves_changed_is_named(models: dict[str, Any]) -> None:
    """The first load moves the process for good; nobody puts that back."""
    (change,) = models["moves"]["alone"]["changes"]
    assert change.startswith("the working directory changed from")
    assert change.endswith("to '/'")


def test_the_end_of_a_process_is_a_finding(models: dict[str, Any]) -> None:
    """It says how the process ended and, for a signal, where the load was."""
    crashed, left = models["crashes"]["alone"], models["exits"]["alone"]
    assert crashed["how"] == left["how"] == "crashed"
    if sys.platform == "linux":
        assert crashed["reason"].startswith("SIGSEGV, in ")
        assert "string_at" in crashed["reason"]
    assert left["reason"] == "exit code 3"
    assert models["crashes"]["together"] is None


def test_an_error_is_told_as_it_is(models: dict[str, Any]) -> None:
    """With the attempts."""
    assert models["raises"]["alone"]["how"] == "failed"
    assert "LOCAL  raised  ValueError: no such [weights]" in models["raises"]["alone"]["reason"]


def test_errors_and_wrong_models_of_loads_at_once_are_counted(models: dict[str, Any]) -> None:
    """It ends with the first round in which there is one."""
    clashes, mixes = models["clashes"]["together"], models["mixes"]["together"]
    (error,) = clashes["errors"]
    assert error.endswith("RuntimeError: the deserializer is already set")
    assert clashes["loads"] in {4, 8}
    (wrong,) = mixes["wrong"]
    assert "1 float32 on meta, where a load alone gives Mixes with 1 float32 on cpu" in wrong


# What hangs


def test_what_hangs_is_killed_and_leaves_nothing_running(
    project: Path, hanging: tuple[Run, Run]
) -> None:
    """It says where it hung; what it has started is ended too."""
    (hangs,) = json.loads(hanging[0].ended(expect=1)[0])["models"]
    assert hangs["alone"]["how"] == "hung"
    assert "no end after 5 s, in threading.py" in hangs["alone"]["reason"]
    assert all(gone(int(pid)) for pid in (project / "running").read_text().split())


def test_the_table_has_a_row_and_a_paragraph_for_loads_that_hang_at_once(
    hanging: tuple[Run, Run],
) -> None:
    """A row for each model; a paragraph for each that needs attention."""
    out, _ = hanging[1].ended(expect=1)
    table, paragraph = out.split("\n\n")
    head, _, row = table.splitlines()
    assert head.split()[:4] == ["model", "verdict", "declare", "declared"]
    assert row.split()[:4] == ["deadlocks", "declare", "exclusive_group", "-"]
    assert row.split()[-1] == "hung"
    paragraph = " ".join(paragraph.split())
    assert paragraph.startswith("deadlocks: Loads at once are unsafe: it hung, no end after 5 s")
    assert 'Declare exclusive_group = "..."' in paragraph
    assert out.isascii()


@pytest.mark.skipif(sys.platform == "win32", reason="there are no such signals")
@pytest.mark.parametrize(
    ("number", "code", "last"),
    [(signal.SIGINT, 130, b"interrupted\n"), (signal.SIGTERM, 143, b"hangs: ...\n")],
    ids=["Ctrl-C", "SIGTERM"],
)
def test_a_doctor_that_is_told_to_end_leaves_nothing_running(
    number: signal.Signals, code: int, last: bytes, tmp_path: Path
) -> None:
    """The process of the examination ends with the doctor, with all that it has started."""
    (tmp_path / "doctor_modules.py").write_text(MODULES)
    (tmp_path / "hanging.yml").write_text(config("hangs"))
    running = tmp_path / "running"
    process = subprocess.Popen(
        [sys.executable, "-m", "anyload", "doctor", "hanging.yml", "--model", "hangs"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=tmp_path,
    )
    deadline = time.monotonic() + 30
    while not running.exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(number)
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out) == (code, b"")
    assert err.endswith(last)
    assert b"Traceback" not in err
    assert all(gone(int(pid)) for pid in running.read_text().split())


def gone(pid: int) -> bool:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        # Its parent was killed with it, and whoever inherited it may be slow to bury it.
        if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
            return True
        time.sleep(0.01)
    return False


# The command


def test_models_that_need_nothing_are_exit_code_0(project: Path) -> None:
    """Models may be named; nothing but the table is shown. It works on trio likewise."""
    (project / "two.yml").write_text(config("raises", "fine"))
    argv = ["--rounds=1", "--loop=trio", "--model", "fine"]
    out, _ = Run(project, "two.yml", *argv).ended(expect=0)
    (_, _, row) = out.splitlines()
    assert row.split()[:2] == ["fine", "ok"]
    assert row.endswith("seen fine in 4 loads")


def test_a_configuration_that_cannot_be_used_is_exit_code_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As for the other commands."""
    (tmp_path / "bad.yml").write_text("max_concurrent_load: 4")
    assert main(["doctor", str(tmp_path / "bad.yml")]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "did you mean 'max_concurrent_loads'?" in err


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        (["load", "models.yml", "--rounds", "2"], "--rounds is for doctor only"),
        (["plan", "models.yml", "--timeout", "2"], "--timeout is for doctor and bench only"),
        (["doctor", "models.yml", "--rounds", "0"], "'0' is not a number of times"),
        (["doctor", "models.yml", "--timeout", "soon"], "'soon' is not a number of seconds"),
        (["doctor", "models.yml", "--timeout", "-1"], "'-1' is not a number of seconds"),
    ],
)
def test_a_wrong_command_line_is_exit_code_2(
    argv: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(argv)
    assert ended.value.code == 2
    assert told in capsys.readouterr().err


def test_help_documents_the_keys(
    capsys: pytest.CaptureFixture[str], models: dict[str, Any]
) -> None:
    """Every key of the document is in ``--help``."""
    with pytest.raises(SystemExit):
        main(["--help"])
    out = capsys.readouterr().out
    model = models["fine"]
    for key in (*model, *model["alone"], *model["together"], "how", "reason"):
        assert key in out, key


# The decisions, by themselves

ALONE = Alone(
    *("m", "LOCAL", "p.M", None, False),
    *(0.5, 1.0, (1.0, 1.0, 1.0), (0.01, 0.01, 0.9), "not held"),
)
FINE = Together(40, 4)


@pytest.mark.parametrize(
    ("stopped", "loads", "gil"),
    [
        ((0.9, 0.95, 0.6), (1.0, 1.0, 1.0), "held"),
        ((0.9, 0.95, 0.01), (1.0, 1.0, 1.0), "not held"),
        ((0.6,), (1.0,), "held"),
        ((0.02, 0.02), (0.02, 0.02), "too short"),
    ],
)
def test_whether_it_holds_the_gil(
    stopped: tuple[float, ...], loads: tuple[float, ...], gil: str
) -> None:
    """The loop stands still for half of every load, in however many gaps; else it is chance."""
    assert gil_of(stopped, loads) == gil


@pytest.mark.parametrize(
    ("alone", "together", "verdict", "declare"),
    [
        (ALONE, FINE, "ok", ()),
        (ALONE, replace(FINE, wrong=("a",)), "declare", ("exclusive_group",)),
        (ALONE, replace(FINE, afterwards=("a",)), "declare", ("exclusive_group",)),
        (ALONE, Unfinished("crashed", "SIGSEGV"), "declare", ("exclusive_group",)),
        (ALONE, Unfinished("failed", "why"), "failed", ()),
        (ALONE, None, "failed", ()),
        (replace(ALONE, changes=("a",)), FINE, "declare", ("exclusive_group",)),
        (replace(ALONE, changes=("a",), exclusive_group="g"), FINE, "ok", ()),
        (replace(ALONE, exclusive_group="g", holds_gil=True), FINE, "ok", ()),
        (
            replace(ALONE, gil="held"),
            replace(FINE, errors=("a",)),
            "declare",
            ("exclusive_group", "holds_gil"),
        ),
        (Unfinished("hung", "no end"), None, "failed", ()),
    ],
)
def test_what_to_declare(alone: Any, together: Any, verdict: str, declare: tuple[str, ...]) -> None:
    """Measurements in, verdict out."""
    found = diagnose("m", alone, together)
    assert (found.verdict, found.declare) == (verdict, declare)
    assert bool(found.remarks) is (found != Diagnosis("m", alone, together, "ok", (), ()))


def test_memory_that_a_release_keeps_is_told() -> None:
    """Where it is much, and more than half of what the load took."""
    kept = replace(ALONE, memory_before=0, memory_loaded=200 << 20, memory_released=150 << 20)
    (remark,) = diagnose("m", kept, FINE).remarks
    assert remark.startswith("Its release keeps 150 of 200 MB")
    assert diagnose("m", replace(kept, memory_released=60 << 20), FINE).remarks == ()
    assert doctor_rows([diagnose("m", kept, FINE)])[0][8:10] == ("200 MB", "150 MB")


def test_loads_that_take_long_are_not_taken_for_hung() -> None:
    """Loads at once may take turns; where that could pass the limit it is not tried."""
    assert too_slow(ALONE, 300) is None
    slow = too_slow(replace(ALONE, load_seconds=(60.0,)), 300)
    assert slow == Unfinished("failed", "with 60 s a load that needs --timeout 843")


def test_a_heartbeat_tells_how_long_the_loop_was_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    """All gaps together that are more than a delay; listening anew forgets them."""
    clock = iter([0.0, 0.01, 0.05, 0.06, 0.16, 0.16, 1.0, 1.01, 1.01])
    monkeypatch.setattr(_probes, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    heartbeat = Heartbeat()
    told = [heartbeat.stopped() for _ in range(4)]
    assert told == pytest.approx([0.0, 0.04, 0.04, 0.14])
    assert heartbeat.longest() == pytest.approx(0.1)
    heartbeat.listen()
    assert heartbeat.stopped() == 0.0
    assert heartbeat.longest() == pytest.approx(0.01)


def test_it_watches_what_any_module_says_is_changed() -> None:
    """A module that says nothing may load with the framework of one that does; so may a variant."""
    state = {"dtype": "float32", "format": "binary"}
    dtype, form = (
        ProcessGlobal(name, partial(state.__getitem__, name), show=str) for name in state
    )
    registry = Registry()
    registry.module("says")(returns_at_once(process_globals=(dtype,)))
    module = returns_at_once()
    other = type("Other", (module,), {"process_globals": (form,)})
    module.variant = classmethod(lambda cls, config: other)  # type: ignore[attr-defined]
    registry.module("says nothing")(module)
    registry.implementations("says nothing")["LOCAL"].of(ModelConfig("says nothing"))
    watch = Watch(registry)
    state.update(dtype="float16", format="text")
    assert watch.changes() == {
        "dtype": "dtype changed from float32 to float16",
        "format": "format changed from binary to text",
    }


STACK = """\
Timeout (0:00:02)!
Thread 0x01 (most recent call first):
  File "/x/anyload/_load/call.py", line 1 in _load

Current thread 0x02 (most recent call first):
  File "/x/my_modules.py", line 12 in read_block
  File "/x/anyload/_load/call.py", line 1 in _load
"""


def test_where_a_load_was_is_read_from_its_stack() -> None:
    """The innermost frame, of the thread that crashed if there is one."""
    assert where(STACK) == ", in my_modules.py:12 read_block"
    assert where("Killed\n") == ""


@pytest.mark.parametrize(
    ("code", "out", "expected"),
    [
        (0, '{"a": [1], "b": 2}', {"a": (1,), "b": 2}),
        (0, '{"error": "why"}', Unfinished("failed", "why")),
        (2, "", Unfinished("failed", "error: why")),
        (1, "", Unfinished("crashed", "exit code 1: error: why")),
        (-9, "", Unfinished("crashed", "SIGKILL")),
        (-999, "", Unfinished("crashed", "exit code -999")),
        (None, "", Unfinished("hung", "no end after 3 s")),
        (1, "timed out", Unfinished("hung", "no end after 3 s")),
    ],
)
def test_what_a_process_had_to_say(code: int | None, out: str, expected: Any) -> None:
    """A document, an error, or how it ended without either."""
    err = "Timeout (0:00:03)!\n" if out == "timed out" else "error: why\n"
    assert result(code, out, err, 3) == expected


def test_tables_of_unfinished_examinations() -> None:
    """They say how it ended, in the place of what was seen."""
    whole = replace(ALONE, exclusive_group="g", holds_gil=True)
    found = [
        diagnose("a", Unfinished("hung", "why"), None),
        diagnose("b", ALONE, None),
        diagnose("c", whole, Unfinished("crashed", "why")),
        diagnose("d", whole, replace(FINE, errors=("why",))),
    ]
    rows = doctor_rows(found)
    assert [row[-1] for row in rows] == ["hung", "-", "crashed", "unsafe"]
    assert [row[3] for row in rows] == ["-", "-", "g, holds_gil", "g, holds_gil"]
    assert all(diagnosis_paragraph(one).startswith(f"\n{one.model}: ") for one in found)
    entries = doctor_document("c.yml", found, 1.0)["models"]
    assert entries[0]["alone"] == {"how": "hung", "reason": "why"}
    assert entries[3]["together"]["unsafe"]


def test_a_registry_may_be_seen_as_if_nothing_were_declared() -> None:
    """Groups and holds_gil are gone, of variants too; everything else is as it was."""
    registry = Registry()
    module = returns_at_once(exclusive_group="g", holds_gil=True)
    other = type("Other", (module,), {})
    module.variant = classmethod(lambda cls, config: other)  # type: ignore[attr-defined]
    registry.module("m", returns=dict)(module)
    seen = Undeclared(registry)
    known = seen.implementations("m")["LOCAL"]
    chosen = known.of(None)  # type: ignore[arg-type]
    assert (known.cls, chosen.cls) == (module, other)
    for one in (known, chosen, seen.modules["m"]["LOCAL"]):
        assert (one.exclusive_group, one.holds_gil, one.resources) == (None, False, ())
    assert registry.implementations("m")["LOCAL"].resources != ()
    assert seen.accepted_types("m") == (module, dict)
    assert seen.backend_types == registry.backend_types


def test_a_model_is_like_another_by_its_type_and_its_weights() -> None:
    """Weights are those of the model, or of what it wraps; anything else has none."""

    class Weights:
        dtype, device = "torch.float32", "cpu"

    class Network:
        def parameters(self) -> list[type[Weights]]:
            return [Weights, Weights]

    class Wraps:
        model = Network()

    class Odd:
        parameters = staticmethod(lambda: 1)

    assert likeness(Network()).endswith("Network with 2 float32 on cpu")
    assert likeness(Wraps()).endswith("Wraps with 2 float32 on cpu")
    assert likeness(1) == "int"
    assert likeness(Odd()).endswith("Odd")
    assert Usual().unlike(1) == ["int, where a load alone gives "]


def test_a_release_that_raises_is_told() -> None:
    """Models without one are dropped; the error of one that raises is named."""

    class Kept:
        def release(self) -> None:
            raise OSError("still in use")

    models: list[Any] = [1]
    release(models)
    assert models == []
    with pytest.raises(NotLoadedError, match="its release raised OSError: still in use"):
        release([Kept()])


def test_a_load_that_came_to_no_attempt_is_an_error_of_its_own() -> None:
    """What its event says, in one line."""
    report = LoadReport("m", None, None, (), 0, 0, 0)
    assert Usual().errors(Failed("m", 0, report, "not found:\nno such file")) == ["not found:"]


def test_a_process_that_does_not_end_by_itself_is_killed() -> None:
    """A child that is stopped before it has set a limit of its own."""
    waits = [sys.executable, "-c", "import time; time.sleep(600)"]
    began = time.monotonic()
    assert run_alone(waits, subprocess.DEVNULL, subprocess.DEVNULL, 0.1) is None
    assert time.monotonic() - began < 60
