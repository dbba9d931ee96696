"""``anyload bench`` and the pictures of ``anyload load``, as they are called from a shell."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import Any

import pytest
from interrupting import interrupt

from anyload.cli import main

MODULES = """
import os, time
from pathlib import Path

class Reads:
    def __init__(self, data):
        self.data = data

    @classmethod
    def prepare(cls):
        time.sleep(0.02)

    @classmethod
    def load(cls, config):
        print("a module prints")
        return cls(Path(config.model_path).read_bytes())

    def warmup(self):
        time.sleep(0.01)

class Bare:
    @classmethod
    def load(cls, config):
        return cls()

class Raises:
    @classmethod
    def load(cls, config):
        raise ValueError("no <b>weights</b>")

class Exits:
    @classmethod
    def load(cls, config):
        os._exit(3)

class Wanders:
    @classmethod
    def load(cls, config):
        os.chdir("elsewhere")
        return cls()

class Hangs:
    @classmethod
    def load(cls, config):
        Path("hung.part").write_text(str(os.getpid()))
        Path("hung.part").rename("hung")
        time.sleep(600)
"""

CONFIG = """
max_concurrent_loads: 2
modules:
  reads: "bench_modules:Reads"
  raises: "bench_modules:Raises"
  exits: "bench_modules:Exits"
  hangs: "bench_modules:Hangs"
  wanders: "bench_modules:Wanders"
models:
  small: {module_id: reads, model_path: small.bin}
  large: {module_id: reads, model_path: large.bin}
"""


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A directory with a configuration, its modules and models, which we are in."""
    (tmp_path / "bench_modules.py").write_text(MODULES)
    (tmp_path / "models.yml").write_text(CONFIG)
    (tmp_path / "small.bin").write_bytes(b"x" * 10_000)
    (tmp_path / "large.bin").write_bytes(b"x" * 1_000_000)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    for variable in ("ANYLOAD__ON_ERROR", "FORCE_COLOR", "NO_COLOR"):
        monkeypatch.delenv(variable, raising=False)
    yield tmp_path
    for module in ("bench_modules", "slow_modules"):
        sys.modules.pop(module, None)


def add_to_catalogue(project: Path, name: str, module_id: str) -> None:
    with (project / "models.yml").open("a") as config:
        config.write(f"  {name}: {{module_id: {module_id}, model_path: small.bin}}\n")


def events_of(trace: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(trace.read_text(encoding="utf-8"))["traceEvents"]
    return found


# bench


@pytest.mark.parametrize("loop", ["asyncio", "uvloop", "trio"])
def test_bench_measures_each_model_and_all_together(
    loop: str, project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A table of models, one of slots, a recommendation, a page, a trace, and lines meanwhile."""
    argv = ["bench", "models.yml", "--repeats", "1", "--at-once", "1,2", "--loop", loop]
    assert main([*argv, "--timeline", "b.html", "--trace", "b.json"]) == 0
    out, err = capsys.readouterr()
    assert out.split()[:3] == ["model", "backend", "import"]
    assert "\nsmall " in out
    assert "\nlarge " in out
    assert "1 MB" in out
    assert "Recommended: max_concurrent_loads: " in out
    assert "[1/3] small: " in err
    assert "[3/3] all models: " in err
    assert "prints" not in out
    page = (project / "b.html").read_text(encoding="utf-8")
    assert "<h2>All models, by the number of slots</h2>" in page
    assert "Boot as configured, 2 at once" in page
    assert "large" in page
    kinds = {event.get("cat") for event in events_of(project / "b.json")}
    assert {"load", "warm-up", "queue"} <= kinds


def test_bench_as_json_keeps_its_promise(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The document has the keys that ``--help`` names, and can be compared with the next one."""
    argv = ["bench", "models.yml", "large", "--repeats", "1", "--json"]
    assert main(argv) == 0
    out = capsys.readouterr().out
    (project / "old.json").write_text(out)
    document = json.loads(out)
    assert set(document) == {
        *("config", "made", "versions", "machine", "repeats", "not_cold", "models", "boot"),
        *("bulks", "ideals", "configured", "recommended", "disk_speed", "yardstick"),
        *("unfinished", "failed"),
    }
    assert set(document["machine"]) == {"cores", "system", "loop"}
    (model,) = document["models"]
    assert (model["model"], model["backend"], model["bytes_on_disk"]) == (
        "large",
        "LOCAL",
        1_000_000,
    )
    took = model["figures"]
    assert took["prepare_seconds"]["low"] >= 0.02
    assert took["warmup_seconds"]["low"] >= 0.01
    assert len(took["warm_seconds"]["samples"]) == 1
    assert [bulk["at_once"] for bulk in document["bulks"]] == [1]
    assert document["recommended"]["max_concurrent_loads"] == 1
    assert main([*argv, "--compare", "old.json"]) == 0
    changed = json.loads(capsys.readouterr().out)["comparison"]
    assert set(changed) == {"machine", "noise", "only_before", "only_after", "changes"}
    assert set(changed["changes"][0]) == {"what", "before", "after", "ratio", "verdict"}
    assert {change["verdict"] for change in changed["changes"]} <= {"noise", "too few repeats"}
    assert main([*argv[:-1], "--compare", "old.json", "--timeline", "b.html"]) == 0
    assert "figures have changed by more than noise." in capsys.readouterr().out
    assert "What has changed" in (project / "b.html").read_text(encoding="utf-8")


def test_without_files_there_is_nothing_cold(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nor a disk to speak of."""
    (project / "bare.yml").write_text(
        'modules: {bare: "bench_modules:Bare"}\nmodels: {a: {module_id: bare}}\n'
    )
    assert main(["bench", "bare.yml", "--repeats", "1", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert "cold_seconds" not in document["models"][0]["figures"]
    assert list(document["bulks"][0]["makespans"]) == list(document["ideals"]) == ["warm"]
    assert document["disk_speed"] is None
    assert document["recommended"]["max_concurrent_loads"] == 1


def test_what_the_modules_of_a_configuration_import_is_measured(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is at the top of their files: of a model its own, of a boot all that it names."""
    (project / "slow_modules.py").write_text(f"import time\ntime.sleep(0.2)\n{MODULES}")
    config = CONFIG.replace('raises: "bench_modules', 'raises: "slow_modules')
    (project / "models.yml").write_text(config)
    add_to_catalogue(project, "other", "exits")
    argv = ["bench", "models.yml", "small", "--repeats", "1", "--at-once", "1", "--json"]
    assert main([*argv, "--trace", "b.json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["models"][0]["figures"]["prepare_seconds"]["low"] < 0.2
    assert document["boot"]["prepare_seconds"]["low"] >= 0.22
    assert document["boot"]["seconds"]["low"] >= 0.22
    (project / "models.yml").write_text(
        CONFIG.replace('reads: "bench_modules', 'reads: "slow_modules')
    )
    assert main([*argv, "--timeline", "b.html"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["models"][0]["figures"]["prepare_seconds"]["low"] >= 0.22
    assert "import of slow_modules" in (project / "b.html").read_text(encoding="utf-8")


def test_models_that_do_not_load_are_told_of(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One that raises and one that ends its process cost nothing but their own figures."""
    add_to_catalogue(project, "broken", "raises")
    argv = ["bench", "models.yml", "--repeats", "1", "--at-once", "2", "--timeline", "b.html"]
    assert main(argv) == 1
    out, err = capsys.readouterr()
    assert "\nbroken  failed" in out
    assert "Recommended" in out
    why = "'broken' does not load: failed, LoadError: no backend could load 'broken' (module"
    assert f"error: {why} 'raises') 1. LOCAL" in err
    page = (project / "b.html").read_text(encoding="utf-8")
    assert escape(why) in page
    assert "no &lt;b&gt;weights&lt;/b&gt;" in page
    assert "<b>weights" not in page
    add_to_catalogue(project, "deadly", "exits")
    assert main(["bench", "models.yml", "deadly", "small", "--repeats", "1"]) == 1
    out, err = capsys.readouterr()
    assert "\ndeadly  crashed" in out
    assert "[3/3] all models: crashed, exit code 3" in err


def test_at_a_terminal_too_the_reasons_are_told(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a bar is drawn there are no lines meanwhile; on the page they are as well."""
    add_to_catalogue(project, "deadly", "exits")
    err = Terminal()
    monkeypatch.setattr(sys, "stderr", err)
    argv = ["bench", "models.yml", "deadly", "--repeats", "1", "--timeline", "b.html"]
    assert main(argv) == 1
    told = [
        "'deadly' does not load: crashed, exit code 3",
        "all models together: crashed, exit code 3; so how many at once is best is not known",
    ]
    page = (project / "b.html").read_text(encoding="utf-8")
    for line in told:
        assert f"error: {line}\n" in err.getvalue()
        assert f"<p>{escape(line)}</p>" in page


def test_a_measurement_stops_in_time(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A model that hangs is ended at the limit."""
    add_to_catalogue(project, "stuck", "hangs")
    argv = ["bench", "models.yml", "stuck", "--repeats", "1", "--timeout", "1"]
    assert main(argv) == 1
    out, err = capsys.readouterr()
    assert "\nstuck  hung" in out
    assert "no end after 1 s, in bench_modules.py:" in err


def test_ctrl_c_ends_the_bench_and_its_process(project: Path) -> None:
    """The exit code is 130, there is no result, and no process is left."""
    add_to_catalogue(project, "stuck", "hangs")
    process = subprocess.Popen(
        [sys.executable, "-m", "anyload", "bench", "models.yml", "stuck", "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    while not (project / "hung").exists():
        assert process.poll() is None
    out, err = interrupt(process)
    assert (process.returncode, out) == (130, b"")
    assert b"interrupted" in err
    with pytest.raises(ProcessLookupError):
        os.kill(int((project / "hung").read_text()), 0)


# load


@pytest.mark.parametrize("loop", ["asyncio", "uvloop", "trio"])
def test_load_draws_a_timeline_and_a_trace(loop: str, project: Path) -> None:
    """Of the same run that the table is about, the event loop's gaps included."""
    add_to_catalogue(project, "broken", "raises")
    argv = ["load", "models.yml", "--loop", loop]
    assert main([*argv, "--timeline", "t.html", "--trace", "t.json"]) == 1
    page = (project / "t.html").read_text(encoding="utf-8")
    assert "<h1>Loading models.yml</h1>" in page
    assert "2 models loaded in " in page
    assert "1 load failed" in page
    assert "event loop" in page
    names = {one["name"] for one in events_of(project / "t.json") if one["ph"] == "X"}
    assert {"small", "large", "failed: broken", "warm-up: small", "prepare: small"} <= names


def test_imports_of_the_modules_are_in_the_picture(project: Path) -> None:
    """What is at the top of their files, in the lane of imports."""
    for times in (1, 0):  # what is there already takes no time
        assert main(["load", "models.yml", "--trace", "t.json"]) == 0
        told = [one["args"]["text"] for one in events_of(project / "t.json") if one["ph"] == "X"]
        assert told.count("import of bench_modules") == times


@pytest.mark.parametrize("loop", ["asyncio", "uvloop", "trio"])
def test_an_interrupted_load_is_drawn_too(loop: str, project: Path) -> None:
    """Of a load that hangs a picture is wanted most: it has what ran until then."""
    add_to_catalogue(project, "stuck", "hangs")
    argv = ["load", "models.yml", "--loop", loop, "--timeline", "t.html", "--trace", "t.json"]
    process = subprocess.Popen(
        [sys.executable, "-m", "anyload", *argv], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    while not (project / "hung").exists():
        assert process.poll() is None
    out, err = interrupt(process)
    assert (process.returncode, out) == (130, b""), err
    names = {one["name"] for one in events_of(project / "t.json") if one["ph"] == "X"}
    assert "abandoned: stuck" in names
    assert "1 thread went on past the limit" in (project / "t.html").read_text(encoding="utf-8")


# What is refused


@pytest.mark.parametrize(
    ("argv", "complaint"),
    [
        (["bench", "--timeline", "nowhere/b.html"], "nowhere/b.html cannot be written"),
        (["load", "--trace", "nowhere/b.json"], "nowhere/b.json cannot be written"),
        (["bench", "--compare", "nowhere.json"], "nowhere.json cannot be read"),
        (["bench", "--compare", "models.yml"], "models.yml is no document of bench --json"),
        (["bench", "--compare", "list.json"], "list.json is no document of bench --json"),
        (["bench", "--compare", "deep.json"], "deep.json is no document of bench --json"),
        (["bench", "--compare", "pipe"], "pipe cannot be read: not a regular file"),
        (["bench", "--timeline", "pipe"], "pipe cannot be written: it is a pipe"),
        (["load", "--timeline", "pipe"], "pipe cannot be written: it is a pipe"),
        (["load", "--timeline", "no\nerror: b.html/x"], "error: no\\nerror: b.html/x cannot be"),
    ],
)
def test_files_that_cannot_be_used_are_refused_at_once(
    argv: list[str], complaint: str, project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before anything is measured."""
    (project / "list.json").write_text("[]")
    (project / "deep.json").write_text("[" * 100_000)
    os.mkfifo(project / "pipe")
    command, *options = argv
    assert main([command, "models.yml", *options]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert complaint in err


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["--trace", "models.yml"], "--trace models.yml is the file of CONFIG too"),
        (["--timeline", "linked.yml"], "--timeline linked.yml is the file of CONFIG too"),
        (["--timeline", "x", "--trace", "./x"], "--trace ./x is the file of --timeline too"),
        (["--compare", "old", "--trace", "./old"], "--trace ./old is the file of --compare too"),
    ],
)
def test_a_file_that_is_read_or_written_already_is_not_written_over(
    options: list[str], complaint: str, project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whatever it is called: it would be lost. A file may be read twice."""
    (project / "linked.yml").symlink_to("models.yml")
    before = (project / "models.yml").read_text()
    command = "bench" if "--compare" in options else "load"
    assert main([command, "models.yml", *options]) == 2
    assert f"error: {complaint}: give it another" in capsys.readouterr().err
    assert (project / "models.yml").read_text() == before
    assert not (project / "x").exists()
    assert main(["bench", "models.yml", "--compare", "models.yml"]) == 2
    assert "models.yml is no document" in capsys.readouterr().err


def test_files_are_written_where_the_command_began(project: Path) -> None:
    """Though a load changes the working directory."""
    (project / "elsewhere").mkdir()
    add_to_catalogue(project, "wanders", "wanders")
    argv = ["load", "models.yml", "wanders", "--timeline", "t.html", "--trace", "t.json"]
    assert main(argv) == 0
    assert os.getcwd() == str(project / "elsewhere")
    assert (project / "t.html").exists()
    assert events_of(project / "t.json")
    assert not os.listdir()


def test_a_refused_command_leaves_no_file(project: Path) -> None:
    """Neither does a benchmark that has nothing to draw; what is there already stays."""
    (project / "bad.yml").write_text("models: 7\n")
    (project / "old.html").write_text("old")
    argv = ["bad.yml", "--timeline", "old.html", "--trace", "new.json"]
    assert main(["load", *argv]) == main(["bench", *argv]) == 2
    assert (project / "old.html").read_text() == "old"
    add_to_catalogue(project, "deadly", "exits")
    assert main(["bench", "models.yml", "deadly", "--repeats", "1", "--trace", "new.json"]) == 1
    assert not (project / "new.json").exists()


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="this system has no /dev/full")
@pytest.mark.parametrize("command", [["load"], ["bench", "--repeats", "1", "--at-once", "1"]])
def test_a_full_disk_costs_a_picture_only(
    command: list[str], project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The result is shown, the other file is written, and one line says what is wrong."""
    add_to_catalogue(project, "broken", "raises")
    argv = [*command, "models.yml", "--timeline", "/dev/full", "--trace", "t.json"]
    assert main(argv) == 2
    out, err = capsys.readouterr()
    assert "\nsmall " in out
    assert "error: " in err.partition("\nerror: /dev/full")[0]
    assert err.splitlines()[-1] == "error: /dev/full cannot be written: No space left on device"
    assert events_of(project / "t.json")


@pytest.mark.parametrize(
    ("argv", "complaint"),
    [
        (["load", "models.yml", "--repeats", "2"], "--repeats is for bench only"),
        (["plan", "models.yml", "--at-once", "2"], "--at-once is for bench only"),
        (["doctor", "models.yml", "--timeline", "x"], "--timeline is for load and bench only"),
        (["bench", "models.yml", "--at-once", "0"], "'0' is not numbers of slots"),
        (["bench", "models.yml", "--at-once", "1,x"], "'1,x' is not numbers of slots"),
        (["bench", "models.yml", "--repeats", "-1"], "'-1' is not a number of times"),
        (["doctor", "models.yml", "--examine", "alone"], "go with one NAME"),
        (["doctor", "models.yml", "a", "b", "--examine", "together"], "go with one NAME"),
        (["bench", "models.yml", "--measure", "alone"], "go with one NAME"),
        (["bench", "models.yml", "--measure", "bulk"], "goes with --at-once and --turn"),
        (["bench", "models.yml", "--measure", "bulk", "--at-once", "1"], "--at-once and --turn"),
    ],
)
def test_options_that_cannot_be_used(
    argv: list[str], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each is for the commands that it means something to."""
    with pytest.raises(SystemExit) as raised:
        main(argv)
    assert raised.value.code == 2
    assert complaint in capsys.readouterr().err
