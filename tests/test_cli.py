"""The command line: what it prints, where, and the exit codes that a script relies on."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from interrupting import interrupt

import anyload
from anyload.cli import main

MODULES = """
import os, time
from anyload import Backend, report_warning

class Noisy:
    device = "cpu"

    @classmethod
    def load(cls, config):
        report_warning("it is noisy")
        print("a module prints")
        os.system("echo and so does its child")
        return cls()

class OutOfMemory:
    @classmethod
    def load(cls, config):
        raise MemoryError("out of [red]memory[/red]\\nat byte 7")

class Hung:
    @classmethod
    def load(cls, config):
        print("hung", flush=True)
        while True:
            time.sleep(0.01)
            print("a hung module prints", flush=True)

class Gpu(Backend):
    backend_type = "GPU"

class Tpu(Backend):
    backend_type = "TPU"

    def available(self):
        return "there is no TPU"

class Fragile(Backend):
    backend_type = "GPU"

    def __init__(self, config):
        raise OSError("no driver")
"""

CONFIG = """
backend_priority: [{type: TPU}, {type: GPU}, {type: LOCAL}]
backend_types: {GPU: "cli_modules:Gpu", TPU: "cli_modules:Tpu"}
modules:
  noisy: {LOCAL: "cli_modules:Noisy"}
  fallback: {GPU: "cli_modules:OutOfMemory", LOCAL: "cli_modules:Noisy"}
  broken: {GPU: "cli_modules:OutOfMemory"}
  elsewhere: {TPU: "cli_modules:Noisy"}
models:
  plain: {module_id: noisy}
  second: {module_id: fallback}
"""

HUNG = """
backend_priority: [{type: LOCAL, timeout: %s}]
modules: {hung: "cli_modules:Hung", noisy: "cli_modules:Noisy"}
models: {stuck: {module_id: hung}, plain: {module_id: noisy}}
"""


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A directory with a configuration and its modules, which we are in."""
    (tmp_path / "cli_modules.py").write_text(MODULES)
    (tmp_path / "models.yml").write_text(CONFIG)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    for variable in ("ANYLOAD__ON_ERROR", "FORCE_COLOR", "NO_COLOR"):
        monkeypatch.delenv(variable, raising=False)
    yield tmp_path
    sys.modules.pop("cli_modules", None)


def run(
    *argv: str, prelude: str = "", expect: int = 0, **options: Any
) -> subprocess.CompletedProcess[str]:
    """Run ``python -m anyload`` in a fresh interpreter, after a prelude."""
    program = f"import runpy, sys\n{prelude}\nrunpy.run_module('anyload', run_name='__main__')"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program, *argv],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        **options,
    )
    assert done.returncode == expect, done.stderr
    assert "Traceback" not in done.stderr
    return done


def add_to_catalogue(project: Path, name: str, module_id: str) -> None:
    with (project / "models.yml").open("a") as config:
        config.write(f"  {name}: {{module_id: {module_id}}}\n")


def rows(text: str) -> list[list[str]]:
    """Return the words of each line of a plain table, below its head."""
    return [line.split() for line in text.partition("\n\n")[0].splitlines()[2:]]


# load


@pytest.mark.parametrize("loop", ["asyncio", "uvloop", "trio"])
def test_load_shows_every_model_and_its_fallbacks(
    loop: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each model is a row, with the attempts that failed; the exit code is 0."""
    assert main(["load", "models.yml", "--loop", loop]) == 0
    out, err = capsys.readouterr()
    assert out.splitlines()[0].split() == [
        "model",
        "module",
        "backend",
        "device",
        "memory",
        "load",
        "queued",
        "attempts",
    ]
    plain, second = rows(out)
    assert plain[:3] == ["plain", "noisy", "LOCAL"]
    assert second[:3] == ["second", "fallback", "LOCAL"]
    assert (
        "TPU skipped there is no TPU; GPU raised MemoryError: out of [red]memory[/red]\\nat byte 7"
        in out
    )
    assert "2 of 2 models loaded in" in out
    assert plain[3] == "cpu"
    assert "[2/2] " in err
    assert "warning: plain: it is noisy" in err
    assert "prints" not in out


def test_load_as_json_keeps_its_promise(capsys: pytest.CaptureFixture[str]) -> None:
    """The document has the keys that ``--help`` names."""
    assert main(["load", "models.yml", "--json", "second"]) == 0
    document = json.loads(capsys.readouterr().out)
    (model,) = document.pop("models")
    assert document.pop("seconds") > 0
    assert document == {"config": "models.yml", "abandoned": []}
    for key in ("load_seconds", "queue_seconds", "total_seconds"):
        assert model.pop(key) >= 0
    attempts = model.pop("attempts")
    assert model == {
        "model": "second",
        "loaded": True,
        "module_id": "fallback",
        "backend": "LOCAL",
        "warmup_seconds": None,
        "error": None,
        "device": "cpu",
        "memory_bytes": None,
        "warnings": ["it is noisy"],
        "changes": [],
    }
    assert [(a["backend"], a["outcome"], a["implementation"]) for a in attempts] == [
        ("TPU", "skipped", None),
        ("GPU", "raised", "cli_modules.OutOfMemory"),
        ("LOCAL", "loaded", "cli_modules.Noisy"),
    ]
    assert attempts[1]["reason"] == "MemoryError: out of [red]memory[/red]\nat byte 7"
    assert attempts[0]["load_seconds"] is None
    assert attempts[1]["queue_seconds"] >= 0


def test_a_model_that_does_not_load_is_exit_code_1(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its error is on stderr in full; the other models are loaded."""
    add_to_catalogue(project, "hopeless", "broken")
    assert main(["load", "models.yml"]) == 1
    out, err = capsys.readouterr()
    assert rows(out)[2][:3] == ["hopeless", "broken", "-"]
    assert "2 of 3 models loaded" in out
    assert "error: no backend could load 'hopeless' (module 'broken')\n  1. TPU" in err


def test_a_missing_model_is_exit_code_1(capsys: pytest.CaptureFixture[str]) -> None:
    """A name that is neither in the catalogue nor a path is told of, in table and JSON."""
    assert main(["load", "models.yml", "plain", "nowhere"]) == 1
    out, err = capsys.readouterr()
    assert rows(out)[1][:3] == ["nowhere", "-", "-"]
    assert "not found: there is no such directory" in out
    assert "error: model" in err
    assert main(["load", "models.yml", "nowhere", "--json"]) == 1
    (model,) = json.loads(capsys.readouterr().out)["models"]
    assert (model["loaded"], model["module_id"], model["attempts"]) == (False, None, [])
    assert "not found" in model["error"]


def test_models_come_in_the_order_asked_for_and_once(capsys: pytest.CaptureFixture[str]) -> None:
    """Whatever lands first, the table is in the order of the names; a name twice is one row."""
    assert main(["load", "models.yml", "second", "plain", "second"]) == 0
    assert [row[0] for row in rows(capsys.readouterr().out)] == ["second", "plain"]


def test_nothing_but_the_document_is_on_stdout() -> None:
    """What modules and their child processes print goes to stderr."""
    done = run("load", "models.yml", "--json")
    assert len(json.loads(done.stdout)["models"]) == 2
    assert "a module prints" in done.stderr
    assert "and so does its child" in done.stderr


def test_a_hung_load_does_not_keep_the_process(project: Path) -> None:
    """At its limit it is told of, with where it hangs, and the process ends with exit code 1."""
    (project / "hung.yml").write_text(HUNG % "0.2")
    done = run("load", "hung.yml", "--json", expect=1)
    document = json.loads(done.stdout)
    assert [model["loaded"] for model in document["models"]] == [False, True]
    assert document["models"][0]["attempts"][0]["outcome"] == "timed_out"
    (stuck,) = document["abandoned"]
    assert (stuck["model"], stuck["backend"]) == ("stuck", "LOCAL")
    assert "cli_modules.py" in stuck["stack"]
    assert "warning: still running: 'stuck' on LOCAL" in done.stderr


def test_the_last_line_is_there_though_a_load_hangs(project: Path) -> None:
    """The process ends without flushing what is buffered; stdout, a pipe here, has it all."""
    (project / "hung.yml").write_text(HUNG % "0.2")
    done = run("load", "hung.yml", expect=1)
    assert "\n\n1 of 2 models loaded in " in done.stdout
    assert done.stdout.endswith(" s\n")


@pytest.mark.parametrize("loop", ["asyncio", "uvloop", "trio"])
def test_ctrl_c_is_exit_code_130(project: Path, loop: str) -> None:
    """An interrupted load ends at once, though its thread hangs."""
    (project / "hung.yml").write_text(HUNG % "null")
    argv = ["load", "hung.yml", "stuck", "--json", "--loop", loop]
    process = subprocess.Popen(
        [sys.executable, "-m", "anyload", *argv], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stderr is not None
    assert process.stderr.readline() == b"hung\n"
    out, err = interrupt(process)
    assert process.returncode == 130
    assert out == b""
    assert b"interrupted" in err
    assert b"Traceback" not in err


def test_ctrl_c_while_the_command_line_is_imported_is_exit_code_130() -> None:
    """That takes a moment; nothing is told but that."""
    prelude = (
        "class Interrupts:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'anyload.cli':\n"
        "            raise KeyboardInterrupt\n"
        "sys.meta_path.insert(0, Interrupts())"
    )
    done = run("load", "models.yml", prelude=prelude, expect=130)
    assert (done.stdout, done.stderr) == ("", "interrupted\n")


# plan


@pytest.mark.parametrize("loop", ["asyncio", "uvloop", "trio"])
def test_plan_shows_what_would_be_tried_and_loads_nothing(
    loop: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each backend of each model is a row: tried with which class, or skipped and why."""
    assert main(["plan", "models.yml", "--loop", loop]) == 0
    out, err = capsys.readouterr()
    assert [" ".join(row) for row in rows(out)[:3]] == [
        "plain noisy TPU skip there is no TPU",
        "plain noisy GPU skip module 'noisy' has no GPU implementation (it has LOCAL)",
        "plain noisy LOCAL try cli_modules.Noisy",
    ]
    assert "prints" not in out + err


def test_plan_as_json_keeps_its_promise(capsys: pytest.CaptureFixture[str]) -> None:
    """The document has the keys that ``--help`` names; options may precede the names."""
    assert main(["plan", "models.yml", "--json", "second"]) == 0
    assert json.loads(capsys.readouterr().out) == {
        "config": "models.yml",
        "models": [
            {
                "model": "second",
                "loadable": True,
                "module_id": "fallback",
                "error": None,
                "steps": [
                    {
                        "backend": "TPU",
                        "decision": "skip",
                        "implementation": None,
                        "reason": "there is no TPU",
                    },
                    {
                        "backend": "GPU",
                        "decision": "try",
                        "implementation": "cli_modules.OutOfMemory",
                        "reason": "",
                    },
                    {
                        "backend": "LOCAL",
                        "decision": "try",
                        "implementation": "cli_modules.Noisy",
                        "reason": "",
                    },
                ],
            }
        ],
    }


@pytest.mark.parametrize(
    ("module_id", "told"),
    [
        ("elsewhere", "error: 'odd' has no backend to try"),
        ("unknown", "'unknown' is not registered"),
    ],
)
def test_a_model_without_a_candidate_is_exit_code_1(
    module_id: str, told: str, project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A plan that skips every backend, or cannot be made, fails the command."""
    add_to_catalogue(project, "odd", module_id)
    assert main(["plan", "models.yml", "odd"]) == 1
    assert told in capsys.readouterr().err
    assert main(["plan", "models.yml", "odd", "--json"]) == 1
    (model,) = json.loads(capsys.readouterr().out)["models"]
    assert model["loadable"] is False


# What cannot begin


@pytest.mark.parametrize(
    ("config", "told"),
    [
        ("max_concurrent_load: 4", "did you mean 'max_concurrent_loads'?"),
        ('modules: {a: "no_such_module:A"}', "ModuleNotFoundError"),
        ("max_concurrent_loads: 2", "empty, and no NAME is given"),
        (
            'backend_types: {GPU: "cli_modules:Fragile"}\nbackend_priority: [{type: GPU}]',
            "no driver",
        ),
    ],
)
@pytest.mark.parametrize("command", ["load", "plan"])
def test_a_configuration_that_cannot_be_used_is_exit_code_2(
    command: str, config: str, told: str, project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The error is its own text on stderr, and stdout stays empty."""
    (project / "bad.yml").write_text(config)
    assert main([command, "bad.yml", "--json"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert told in err


def test_a_missing_configuration_is_exit_code_2() -> None:
    """So it is in a process of its own, without a traceback."""
    done = run("load", "nowhere.yml", expect=2)
    assert done.stdout == ""
    assert "nowhere.yml: not found" in done.stderr


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        ([], "required"),
        (["unload", "models.yml"], "invalid choice"),
        (["load", "models.yml", "--loop", "curio"], "'curio' is not asyncio, uvloop or trio"),
        (["load", "models.yml", "--jso"], "unrecognized"),
    ],
)
def test_a_wrong_command_line_is_exit_code_2(
    argv: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is wrong with it is told by argparse."""
    with pytest.raises(SystemExit) as ended:
        main(argv)
    assert ended.value.code == 2
    assert told in capsys.readouterr().err


@pytest.mark.parametrize("loop", ["uvloop", "trio"])
def test_a_loop_that_is_not_installed_says_what_to_install(
    loop: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A missing loop is a usage error."""
    monkeypatch.setitem(sys.modules, loop, None)
    with pytest.raises(SystemExit) as ended:
        main(["plan", "models.yml", "--loop", loop])
    assert ended.value.code == 2
    assert f"{loop} is not installed; run: pip install {loop}" in capsys.readouterr().err


def test_help_documents_the_exit_codes_and_the_keys(capsys: pytest.CaptureFixture[str]) -> None:
    """A script's author finds everything in ``--help``."""
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    assert ended.value.code == 0
    out = capsys.readouterr().out
    for word in ("0 ", "1 ", "2 ", "130 ", "queue_seconds", "abandoned", "decision"):
        assert f"  {word}" in out or f" {word}" in out


def test_the_version_is_that_of_the_package(capsys: pytest.CaptureFixture[str]) -> None:
    """Whatever else is on the command line."""
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"anyload {anyload.__version__}\n"


# The rest


def test_a_caikit_file_has_initializers_by_name(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """``--name`` takes one of them."""
    lines = "".join(f"        {line}\n" for line in CONFIG.strip().splitlines())
    nested = f"model_management:\n  initializers:\n    other:\n      config:\n{lines}"
    (project / "caikit.yml").write_text(nested)
    assert main(["plan", "caikit.yml", "--name", "other"]) == 0
    assert "cli_modules.Noisy" in capsys.readouterr().out
    assert main(["plan", "caikit.yml"]) == 2


def test_a_broken_plug_in_is_a_warning(project: Path) -> None:
    """It is named on stderr and stops nothing."""
    info = project / "plugins" / "broken_plugin-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: broken-plugin\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[anyload.modules]\nlost = no_such_package:Lost\n")
    path = os.pathsep.join([str(info.parent), os.environ.get("PYTHONPATH", "")])
    done = run("plan", "models.yml", env={**os.environ, "PYTHONPATH": path})
    assert "warning: plug-in lost of anyload.modules is left out: ModuleNotFound" in done.stderr


def test_modules_are_found_in_the_current_directory(project: Path) -> None:
    """Also when it is not on the path, as for an installed ``anyload`` command."""
    run("plan", "models.yml", prelude="sys.path = [p for p in sys.path if p]")


def test_rich_is_not_needed() -> None:
    """Without it, and away from a terminal, the same is told as plain text."""
    done = run("load", "models.yml", prelude="sys.modules['rich'] = None")
    assert "2 of 2 models loaded" in done.stdout
    assert "[2/2]" in done.stderr
    assert done.stdout.isascii()


@pytest.mark.parametrize("rich", [True, False])
def test_on_a_terminal_rich_draws_where_it_is_installed(
    rich: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bar and a table with borders, or plain text; an error's brackets are no markup."""
    out, err = Terminal(), Terminal()
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("TERM", "xterm")
    if not rich:
        monkeypatch.setitem(sys.modules, "rich", None)
    assert main(["load", "models.yml"]) == 0
    assert ("│" in out.getvalue()) is rich
    assert ("100%" in err.getvalue()) is rich
    assert ("[2/2]" in err.getvalue()) is not rich
    assert "[red]memory[/red]" in out.getvalue()
