"""The files of models for ``anyload bench``: where they are, their sizes, and the page cache."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from anyload._bench import disk, measuring
from anyload._bench.disk import files_of, make_cold, seconds_to_read, size_of
from anyload._bench.measuring import path_of
from anyload.config import load_config


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with a configuration and models, which we are in."""
    (tmp_path / "models.yml").write_text("models: {large: {module_id: m, model_path: large.bin}}\n")
    (tmp_path / "large.bin").write_bytes(b"x" * 1_000_000)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_paths_of_a_catalogue_begin_at_its_file(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wherever the command is called."""
    (project / "elsewhere").mkdir()
    monkeypatch.chdir(project / "elsewhere")
    config = load_config("../models.yml")
    assert size_of(files_of(path_of(config, "large"))) == 1_000_000
    assert path_of(config, "../small.bin") == "../small.bin"


def test_paths_begin_at_the_root(project: Path) -> None:
    """That is where their files are, too."""
    model = project / "models" / "m1"
    model.mkdir(parents=True)
    (model / "config.yml").write_text("module_id: reads\n")
    (model / "weights").write_bytes(b"x" * 1000)
    (project / "rooted.yml").write_text("model_root: models\n")
    assert size_of(files_of(path_of(load_config("rooted.yml"), "m1"))) == 1017


def test_the_files_of_a_model(project: Path) -> None:
    """A file is itself, a directory what is below it, and a path to nothing has none."""
    inner = project / "model" / "inner"
    inner.mkdir(parents=True)
    (inner / "a").write_bytes(b"12")
    (project / "model" / "b").write_bytes(b"345")
    found = files_of(str(project / "model"))
    assert sorted(map(os.path.basename, found)) == ["a", "b"]
    assert size_of(found) == 5
    assert files_of(str(inner / "a")) == [str(inner / "a")]
    assert files_of(str(project / "nowhere")) == []
    assert size_of([str(project / "nowhere")]) == 0


def test_files_are_made_cold_and_warm_again(project: Path) -> None:
    """Or it says why not: that depends on the file system."""
    files = [str(project / "large.bin")]
    reason = make_cold(files)
    assert reason in ("", "large.bin stays in the page cache")
    assert seconds_to_read(files) > 0
    assert make_cold([]) == ""
    (project / "empty").touch()
    assert make_cold([str(project / "empty")]) == ""
    assert make_cold([str(project / "nowhere")]) == "nowhere: No such file or directory"
    assert seconds_to_read([str(project / "nowhere")]) >= 0


def test_a_pipe_in_place_of_a_file_does_not_stop_it(project: Path) -> None:
    """Somebody may have put one there."""
    os.mkfifo(project / "pipe")
    files = [str(project / "pipe")]
    assert make_cold(files).startswith("pipe: ")
    assert seconds_to_read(files) >= 0


def test_where_the_page_cache_is_out_of_reach_it_says_so(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not every system has the call."""
    monkeypatch.delattr(os, "posix_fadvise")
    assert make_cold([str(project / "large.bin")]) == "this system has no posix_fadvise"


def test_more_than_enough_is_not_read(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The speed of a part stands for the rest."""
    monkeypatch.setattr(disk, "MOST_BYTES", 100)
    monkeypatch.setattr(disk, "BLOCK", 100)
    clock = iter([0.0, 1.0])
    monkeypatch.setattr(time, "perf_counter", lambda: next(clock))
    assert seconds_to_read([str(project / "large.bin")]) == 10_000


def test_bytes_read_are_known_or_not(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nobody counts them they are None."""
    found = measuring.bytes_read()
    assert found is None or found >= 0
    monkeypatch.setattr("builtins.open", lambda *args, **options: (_ for _ in ()).throw(OSError))
    assert measuring.bytes_read() is None
