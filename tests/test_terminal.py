"""What is shown on a terminal: one line where one is meant, whatever others have written in it."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

from anyload._bench.tables import MODEL_COLUMNS
from anyload._children import Unfinished
from anyload._tables import diagnosis_paragraph, flat, plain_table
from anyload._terminal import progress, write_table
from anyload.cli import main
from anyload.doctor import Diagnosis

FORGED = "a\nERROR: forged\x1b[31m"
SHOWN = "a\\nERROR: forged\\x1b[31m"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_name_forges_no_row_of_a_table(monkeypatch: pytest.MonkeyPatch) -> None:
    """What cannot be printed is escaped, in plain tables and in those that rich draws."""
    assert plain_table(("model",), [(FORGED,)]).splitlines() == ["model", "-----", SHOWN]
    monkeypatch.setenv("COLUMNS", "200")
    drawn = Terminal()
    write_table(drawn, ("model",), [(FORGED,)])
    assert SHOWN in drawn.getvalue()


def test_a_table_that_has_no_room_is_told_in_paragraphs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rather than with words cut short; what there is nothing of is left out."""
    columns = ("model", "cold load", "warm load", "warm-up", "reason")
    rows = [("mood", "0.41 s (0.39 to 0.52)", "20 ms", "-", "many words, as many as there are")]
    drawn = {}
    for width in (120, 80, 40):
        monkeypatch.setenv("COLUMNS", str(width))
        drawn[width] = Terminal()
        write_table(drawn[width], columns, rows)
    for width in (120, 80):
        line = "│ mood  │ 0.41 s (0.39 to 0.52) │ 20 ms     │ -       │ many words, as"
        assert line in drawn[width].getvalue()
    assert drawn[40].getvalue() == (
        "mood\n  cold load 0.41 s (0.39 to 0.52), warm\n  load 20 ms, reason many words, as many\n"
        "  as there are\n"
    )
    monkeypatch.setenv("COLUMNS", "80")
    bench = Terminal()
    write_table(bench, MODEL_COLUMNS, [("mood", *["20.7 ms"] * 11)])
    assert "cold load 20.7 ms, warm load 20.7 ms" in bench.getvalue()


def test_a_long_cell_is_whole() -> None:
    """Only its characters are changed."""
    assert plain_table(("reason",), [("x" * 100_000,)]).endswith("x" * 100_000)


def test_progress_is_a_line_for_each(capsys: pytest.CaptureFixture[str]) -> None:
    """An error of several lines is one here."""
    with progress(1, "loading") as done:
        done("a: failed, no backend could load it\n  1. LOCAL raised \x1b[31m")
    told = "[1/1] a: failed, no backend could load it 1. LOCAL raised \\x1b[31m\n"
    assert capsys.readouterr().err == told
    assert flat(None) == ""


def test_the_doctor_has_a_line_for_each_model() -> None:
    """So it is in what it says of one."""
    unfinished = Unfinished("failed", "no weights")
    diagnosis = Diagnosis(FORGED, unfinished, None, "failed", (), ("no\nweights",))
    assert diagnosis_paragraph(diagnosis) == f"\n{SHOWN}: no weights"


def test_the_command_line_has_a_line_for_each_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Names that are asked for may hold anything, and so may warnings."""
    (tmp_path / "odd_modules.py").write_text(
        "from anyload import report_warning\n"
        "class Odd:\n"
        "    @classmethod\n"
        "    def load(cls, config):\n"
        "        report_warning('it is\\nERROR: forged')\n"
        "        return cls()\n"
    )
    (tmp_path / "models.yml").write_text(
        'modules: {odd: "odd_modules:Odd"}\nmodels: {plain: {module_id: odd}}\n'
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    for command in (["load"], ["plan"], ["bench", "--repeats", "1", "--at-once", "1"]):
        assert main([command[0], "models.yml", *command[1:], "plain", FORGED]) == 1
        shown = "".join(capsys.readouterr())
        assert SHOWN in shown
        assert not [line for line in shown.splitlines() if line.startswith("ERROR")]
        assert "\x1b" not in shown
    sys.modules.pop("odd_modules", None)


# Where the result goes


PLAIN = """
class Plain:
    device = "cpü"

    @classmethod
    def load(cls, config):
        return cls()
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A directory with a catalogue of one model."""
    (tmp_path / "plain.py").write_text(PLAIN, encoding="utf-8")
    text = '{"modules": {"m": "plain:Plain"}, "models": {"a": {"module_id": "m"}}}'
    (tmp_path / "models.yml").write_text(text, encoding="utf-8")
    return tmp_path


def in_a_shell(project: Path, line: str, **environ: str) -> tuple[int, str, str]:
    """Run a line in which ``$LOAD`` loads the catalogue; return its exit code and its output."""
    load = f"{sys.executable} -W error -m anyload load models.yml"
    done = subprocess.run(
        ["sh", "-c", line.replace("$LOAD", load)],
        cwd=project,
        env={**os.environ, **environ},
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=60,
        check=False,
    )
    assert "Traceback" not in done.stderr
    return done.returncode, done.stdout, done.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="nothing is full here")
@pytest.mark.parametrize("form", ["", "--json"])
def test_a_result_that_cannot_be_written_is_refused(project: Path, form: str) -> None:
    """With one line, and the exit code that says so."""
    code, _, err = in_a_shell(project, f"$LOAD {form} > /dev/full")
    assert code == 2
    assert err.endswith("error: the result cannot be written: No space left on device\n")


@pytest.mark.parametrize("form", ["", "--json"])
def test_a_reader_that_has_gone_is_told_nothing(project: Path, form: str) -> None:
    """It wanted no more; the exit code is that of an interrupt."""
    code, out, _ = in_a_shell(project, f"{{ $LOAD {form}; echo $? >&3; }} 3>code | true; cat code")
    assert (code, out) == (0, "130\n")


def test_streams_that_are_closed(project: Path) -> None:
    """What would go there goes nowhere; the rest is as it is."""
    code, out, err = in_a_shell(project, "$LOAD >&-")
    assert (code, out) == (0, "")
    assert "a: loaded on LOCAL" in err
    code, out, err = in_a_shell(project, "$LOAD 2>&-")
    assert (code, err) == (0, "")
    assert "1 of 1 models loaded" in out


TAKEN_AWAY = {
    "none": "sys.stdout = sys.stderr = sys.__stdout__ = sys.__stderr__ = None",
    "closed": "sys.stdout.close(); sys.stderr.close()",
    "descriptors": "os.close(0); os.close(1); os.close(2)",
}


@pytest.mark.parametrize("how", TAKEN_AWAY)
def test_a_module_that_takes_the_streams_away(project: Path, how: str) -> None:
    """The result is shown all the same, and so is what is told beside it."""
    body = f"\n        import os, sys; {TAKEN_AWAY[how]}\n        return cls()"
    module = PLAIN.replace("\n        return cls()", body)
    (project / "plain.py").write_text(module, encoding="utf-8")
    code, out, err = in_a_shell(project, "$LOAD")
    assert code == 0
    assert "1 of 1 models loaded" in out
    assert "a: loaded on LOCAL" in err


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="nothing is full here")
@pytest.mark.parametrize("body", ["", "with contextlib.suppress(OSError): print('here')"])
def test_a_result_is_shown_though_nothing_can_be_told(project: Path, body: str) -> None:
    """What is told beside it is lost; what a module could not print changes no exit code."""
    body = f"\n        import contextlib\n        {body}\n        return cls()"
    module = PLAIN.replace("\n        return cls()", body)
    (project / "plain.py").write_text(module, encoding="utf-8")
    code, out, _ = in_a_shell(project, "$LOAD nowhere a 2> /dev/full")
    assert code == 1
    assert "1 of 2 models loaded" in out


def test_a_terminal_that_has_not_all_letters(project: Path) -> None:
    """What cannot be shown is escaped."""
    code, out, _ = in_a_shell(project, "$LOAD", PYTHONIOENCODING="ascii", PYTHONUTF8="0")
    assert code == 0
    assert "cp\\xfc" in out


def test_a_directory_that_is_gone(project: Path) -> None:
    """Nothing can be found from there."""
    line = "mkdir gone && cd gone && rmdir ../gone && $LOAD"
    code, _, err = in_a_shell(project, line)
    assert code == 2
    assert err.endswith("error: the current directory is gone: No such file or directory\n")
