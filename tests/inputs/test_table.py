"""The table of bad inputs, row by row: what is given, and what it gets.

It goes through the public front, as an operator or a caller would. Where a row has corners, other
files of tests look into them; here a reader sees the whole table.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
import os
import pickle
import socket
import sys
import tarfile
import types
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from made_archives import CONFIG, FIFO, SYMLINK, both_of, tar_of, write_archive, zip_of
from refusals import config_refusal, load_refusal, refusal, registry

from anyload import (
    ConfigError,
    Initializer,
    IntegrityError,
    LoadError,
    ModelConfig,
    ModelNotFoundError,
    Registry,
    UnsafeArchiveError,
)
from anyload.adapters import _framework as framework
from anyload.adapters.sklearn import SklearnModel
from anyload.testing import FakeModel, at_rest

SECONDS = "expected a positive number of seconds"
LOADS = "expected an integer 1..1024"
BOMB = "a: &a [x]\n" + "".join(
    f"{name}: &{name} [{f'*{before}, ' * 9}]\n"
    for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)


def timeout(value: str) -> str:
    return f"backend_priority: [{{type: LOCAL, timeout: {value}}}]"


FILES: dict[str, dict[str | bytes, str]] = {
    "empty file": {"": "empty", "# only a comment\n": "empty"},
    "list or bare string at top": {
        "- a": "expected a mapping, not a list",
        "bare": "expected a mapping, not 'bare'",
    },
    "duplicate key": {"warmup: true\nwarmup: false": "duplicate key 'warmup', line 2"},
    "two documents": {
        "warmup: true\n---\nwarmup: true": "one document; another one starts, line 2"
    },
    "unknown key": {"lode_timeout: 3": "lode_timeout  unknown key; did you mean 'load_timeout'?"},
    "timeout": {
        timeout("yes"): f"backend_priority[0].timeout  {SECONDS}, not True",
        timeout("0"): f"{SECONDS}, not 0",
        timeout("-1"): f"{SECONDS}, not -1",
        timeout(".nan"): f"{SECONDS}, not nan",
        timeout(".inf"): f"{SECONDS}, not inf",
        timeout("'1e400'"): f"{SECONDS}, not '1e400'",
    },
    "max_concurrent_loads": {
        "max_concurrent_loads: 2.5": f"max_concurrent_loads  {LOADS}, not 2.5",
        "max_concurrent_loads: true": f"{LOADS}, not True",
        f"max_concurrent_loads: {10**30}": f"{LOADS}, not {10**30}",
        "max_concurrent_loads: 0": f"{LOADS}, not 0",
    },
    "tags": {
        "a: !!python/object/apply:os.system [ls]": (
            "a  tag not allowed: '!!python/object/apply:os.system', line 1"
        )
    },
    "bombs": {
        BOMB: "limits: ",
        "a: " + "[" * 500: "limits: deeper than 64 levels",
        "a: &a {b: 1}\nc: {<<: [*a, *a]}": "merge keys are not allowed, line 2",
    },
    "keys that are no strings": {"{1: a, '1': b}": "key must be a string, not 1, line 1"},
    "what is no YAML": {
        b"warmup: \xff": "line 1, column 9  invalid UTF-8",
        b"warmup: \0": "line 1, column 9  the character '\\x00' is not allowed",
        b"models:\n\tm: 1": "line 2, column 1  ",
    },
    "backends": {
        "backend_priority: [{type: LOCAL}, {type: TPU}]": (
            "backend_priority[1].type  unknown backend type 'TPU'; registered types are LOCAL"
        ),
        "backend_priority: []": "backend_priority  expected a list with at least one backend",
        "backend_priority: [{type: LOCAL, config: 3}]": (
            "backend_priority[0].config  expected a mapping, not 3"
        ),
    },
    "module_id missing": {"models: {a: {model_path: x}}": "models.a.module_id  missing"},
    "implementation of an import path": {
        "modules: {a: 'no_such_package:Model'}": "modules.a  'no_such_package:Model': Module",
        "modules: {a: 'os:getcwd'}": "modules.a  a module is a class",
    },
}


@pytest.mark.parametrize(
    ("text", "says"), [pytest.param(*case, id=row) for row in FILES for case in FILES[row].items()]
)
def test_a_configuration(text: str | bytes, says: str, tmp_path: Path) -> None:
    """The error names the file, the key and the value."""
    file = tmp_path / "models.yml"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    error = config_refusal(file)
    assert error.startswith(str(file))
    assert says in error


# A model's own config.yml

CONFIGS: dict[str, dict[str, str]] = {
    "module_id missing": {"labels: []": "module_id  missing", "module_id: 3": "not 3"},
    "reserved": {"module_id: m\nmodel_path: /etc": "model_path  reserved"},
    "empty": {"": "empty"},
    "bombs": {BOMB: "limits: "},
    "tags": {"module_id: !!python/name:os.system m": "tag not allowed"},
}


@pytest.mark.parametrize(
    ("text", "says"),
    [pytest.param(*case, id=row) for row in CONFIGS for case in CONFIGS[row].items()],
)
def test_a_models_config(text: str, says: str, tmp_path: Path) -> None:
    """It comes with the model, and is read with the same care."""
    file = tmp_path / "config.yml"
    file.write_text(text)
    error = load_refusal(str(tmp_path), ConfigError)
    assert error.startswith(str(file))
    assert says in error


# Implementations


async def coroutine(cls: type, config: ModelConfig) -> None: ...


IMPLEMENTATIONS: dict[str, tuple[Any, str]] = {
    "not a class": (print, "a module is a class"),
    "load is missing": (type("Bad", (), {}), "it has no load classmethod"),
    "load is not callable": (type("Bad", (), {"load": 3}), "it has no load classmethod"),
    "load is async": (type("Bad", (), {"load": classmethod(coroutine)}), "load is async"),
}


@pytest.mark.parametrize("case", IMPLEMENTATIONS)
def test_an_implementation(case: str) -> None:
    """It is refused when it is registered, not when it is used."""
    cls, says = IMPLEMENTATIONS[case]
    known = Registry()
    assert says in refusal(lambda: known.module("a")(cls))
    assert not known.modules


def test_an_implementation_that_is_not_registered() -> None:
    """The error names those that are."""
    error = load_refusal(ModelConfig("absent"), ConfigError)
    assert "'absent' is not registered; registered modules are m" in error


def test_a_reserved_name() -> None:
    """A caller cannot say which backend a load runs on."""
    error = load_refusal(ModelConfig("m"), TypeError, load_kwargs={"load_backend": 1})
    assert error == "'load_backend' is a reserved name and cannot be passed to load"


# What is no model, no configuration, no time

NO_MODEL = "a model is a name, a path or a ModelConfig, not"
NO_SOURCE = "a configuration is the path of a file, or a mapping, not"
MODULE = "module_id is text, not"
GIVEN: dict[str, tuple[Callable[[Initializer], object], type[Exception], str]] = {
    "init_sync(5)": (lambda them: them.init_sync(_any(5)), TypeError, f"{NO_MODEL} 5"),
    "init_sync(bytes)": (lambda them: them.init_sync(_any(b"m")), TypeError, f"{NO_MODEL} b'm'"),
    "init_each(5)": (
        lambda them: them.init_each(_any(5)),
        TypeError,
        "many models are a list of them, not 5",
    ),
    "init_each(str)": (
        lambda them: them.init_each("ab"),
        TypeError,
        "many models are a list of them, not 'ab'",
    ),
    "init_each(ModelConfig)": (
        lambda them: them.init_each(_any(ModelConfig("m"))),
        TypeError,
        "many models are a list of them, not a ModelConfig",
    ),
    "timeout=nan": (
        lambda them: them.init_sync(ModelConfig("m"), timeout=math.nan),
        ValueError,
        "timeout is a number of seconds or None, not nan",
    ),
    "timeout=str": (
        lambda them: them.init_sync(ModelConfig("m"), timeout=_any("3")),
        ValueError,
        "timeout is a number of seconds or None, not '3'",
    ),
    "timeout=bool": (
        lambda them: them.init_sync(ModelConfig("m"), timeout=True),
        ValueError,
        "timeout is a number of seconds or None, not True",
    ),
    "from_config(bytes)": (
        lambda _: Initializer.from_config(_any(b"models.yml"), registry=Registry()),
        TypeError,
        f"{NO_SOURCE} b'models.yml'",
    ),
    "from_config(5)": (
        lambda _: Initializer.from_config(_any(5), registry=Registry()),
        TypeError,
        f"{NO_SOURCE} 5",
    ),
    "ModelConfig(5)": (lambda _: ModelConfig(_any(5)), TypeError, f"{MODULE} 5"),
    "ModelConfig([])": (lambda _: ModelConfig(_any([])), TypeError, f"{MODULE} a list"),
    "ModelConfig(model_path=bytes)": (
        lambda _: ModelConfig("a", _any(b"/tmp")),
        TypeError,
        "model_path is a path or None, not b'/tmp'",
    ),
    "ModelConfig(model_backend=[])": (
        lambda _: ModelConfig("a", None, _any([])),
        TypeError,
        "model_backend is text, not a list",
    ),
}


def _any(value: Any) -> Any:
    return value


@pytest.mark.parametrize("case", GIVEN)
def test_what_a_caller_gives(case: str) -> None:
    """It is refused before anything begins, and the error says what it should have been."""
    call, kind, says = GIVEN[case]
    with Initializer(registry()) as initializer:
        assert refusal(lambda: call(initializer), kind) == says
        figures = initializer.statistics()
        assert at_rest(figures)
        assert figures.threads == 0


def test_a_wait_may_be_over_already() -> None:
    """What is left of somebody's own time may be less than nothing."""
    with Initializer(registry()) as initializer:
        for timeout in (-1, 0, -math.inf):
            with contextlib.suppress(TimeoutError):
                initializer.init_sync(ModelConfig("m"), timeout=timeout)
        assert initializer.init_sync(ModelConfig("m"), timeout=math.inf) is not None


# Names

OUTSIDE = "it lies outside the model root"
NO_SUCH = "there is no such directory"
NAMES: dict[str, dict[str, str]] = {
    "outside": dict.fromkeys(("../x", "..", "/etc/passwd", "a/../../x"), OUTSIDE),
    "empty": {"": "the name is empty", ".": "the directory has no config.yml"},
    "invalid": dict.fromkeys(("a\0b", "a\nb"), "a path cannot hold a NUL or a newline"),
    "too long": {"x" * 300: "the name is too long"},
    "too deep": {"a/" * 2048: "the name is too long"},
    "odd": dict.fromkeys(("-rf", "a\\..\\b", "%2e%2e/x"), NO_SUCH),
    "missing": {"absent": NO_SUCH, "file": "a file, not a model directory"},
}
CATALOGUE: dict[str, dict[str, str]] = {
    "outside": dict.fromkeys(("../x", "..", "/etc/passwd", "a/../../x"), "outside the root"),
    "empty": {"": "non-empty", ".": "empty segment", "a//b": "empty segment"},
    "invalid": dict.fromkeys(("a\0b", "a\nb", "-rf", "a\\..\\b", "%2e%2e/x"), "invalid name"),
    "too long": {"x" * 300: "too long: a segment of more than 128 characters"},
    "too deep": {"/".join("a" * 2000): "too deep: more than 8 segments"},
}


@pytest.mark.parametrize(
    ("name", "says"), [pytest.param(*case, id=row) for row in NAMES for case in NAMES[row].items()]
)
def test_a_name(name: str, says: str, tmp_path: Path) -> None:
    """Where models are confined, no name leads out, and none is a surprise."""
    (tmp_path / "file").write_bytes(b"")
    error = load_refusal(name, ModelNotFoundError, model_root=str(tmp_path))
    assert error.startswith(f"model {name[:100]!r}"[:-1])
    assert says in error


@pytest.mark.parametrize(
    ("name", "says"),
    [pytest.param(*case, id=row) for row in CATALOGUE for case in CATALOGUE[row].items()],
)
def test_a_name_of_the_catalogue(name: str, says: str) -> None:
    """It is refused before anybody can ask for it."""
    assert says in config_refusal({"models": {name: {"module_id": "m"}}})


# Directories


def fifo(file: Path) -> None:
    os.mkfifo(file)


def a_socket(file: Path) -> None:
    here = os.getcwd()
    os.chdir(file.parent)  # the path of a socket must be short
    try:
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(file.name)
    finally:
        os.chdir(here)


def device(file: Path) -> None:
    try:
        os.mknod(file, 0o600 | 0o020000, os.makedev(1, 5))
    except OSError:
        pytest.skip("devices are made by root only")


def unreadable(file: Path) -> None:
    if not os.geteuid():
        pytest.skip("root may read everything")
    file.write_bytes(CONFIG)
    file.chmod(0)


DIRECTORIES: dict[str, tuple[Callable[[Path], object], type[Exception], str]] = {
    "absent": (lambda file: None, ModelNotFoundError, "the directory has no config.yml"),
    "unreadable": (unreadable, ConfigError, "unreadable: Permission denied"),
    "a directory": (Path.mkdir, ConfigError, "a directory, not a file"),
    "a FIFO": (fifo, ConfigError, "not a regular file"),
    "a socket": (a_socket, ConfigError, "not a regular file"),
    "a device": (device, ConfigError, "not a regular file"),
    "a link": (lambda file: file.symlink_to("/etc/hostname"), ConfigError, "a symbolic link"),
    "a link to itself": (lambda file: file.symlink_to(file), ConfigError, "a symbolic link"),
    "a terabyte of nothing": (
        lambda file: os.truncate(os.open(file, os.O_CREAT | os.O_WRONLY), 2**40),
        ConfigError,
        "too large: more than 1048576 bytes",
    ),
}


@pytest.mark.parametrize("case", DIRECTORIES)
def test_a_directory_whose_config_is(case: str, tmp_path: Path) -> None:
    """Nobody waits for a FIFO, and no link is followed."""
    make, kind, says = DIRECTORIES[case]
    make(tmp_path / "config.yml")
    assert says in load_refusal(str(tmp_path), kind)


def test_a_link_out_of_the_root(tmp_path: Path) -> None:
    """It leaves the root, whatever it is called."""
    (tmp_path / "root").mkdir()
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "config.yml").write_bytes(CONFIG)
    (tmp_path / "root" / "model").symlink_to(tmp_path / "outside")
    assert OUTSIDE in load_refusal("model", model_root=str(tmp_path / "root"))


# Files


class Reads(FakeModel):
    """A module of the kind that most are: it reads one file, and finds it cut short."""

    @classmethod
    def load(cls, config: ModelConfig, **kwargs: Any) -> Any:
        content = framework.one_file(config, [".bin"]).read_bytes()
        raise EOFError(f"{len(content)} bytes of 1000")


def reads() -> Registry:
    known = Registry()
    known.module("m")(Reads)
    return known


def model(parent: Path, **files: bytes) -> Path:
    """Make a model directory with these files, and a manifest of what they should be."""
    directory = parent / "model"
    directory.mkdir()
    wanted = {"config.yml": b"module_id: m\n", "weights.bin": b"weights"}
    (directory / "SHA256SUMS").write_text(
        "".join(f"{hashlib.sha256(text).hexdigest()}  {name}\n" for name, text in wanted.items())
    )
    for name, text in {**wanted, **files}.items():
        (directory / name).write_bytes(text)
    return directory


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "IntegrityError: {}: the file is empty"),
        (b"weig", "EOFError: 4 bytes of 1000"),
    ],
    ids=["empty", "truncated"],
)
def test_weights(content: bytes, says: str, tmp_path: Path) -> None:
    """Without a manifest it is the adapter or the framework that finds it, and that is told."""
    directory = model(tmp_path, **{"weights.bin": content})
    (directory / "SHA256SUMS").unlink()
    error = load_refusal(str(directory), LoadError, registry=reads())
    assert says.format(directory / "weights.bin") in error


@pytest.mark.parametrize("content", [b"", b"weig", b"WEIGHTS"])
def test_a_file_that_differs_from_the_manifest(content: bytes, tmp_path: Path) -> None:
    """Both sums are told, and no module has seen the file."""
    directory = model(tmp_path, **{"weights.bin": content})
    error = load_refusal(str(directory), IntegrityError, registry=reads())
    assert error.startswith(str(directory / "weights.bin"))
    for text in (content, b"weights"):
        assert hashlib.sha256(text).hexdigest() in error
    assert f"({len(content)} bytes)" in error


def test_a_path_that_everybody_may_write_to(tmp_path: Path) -> None:
    """In strict mode it is refused."""
    directory = model(tmp_path)
    directory.chmod(0o777)
    error = load_refusal(str(directory), IntegrityError, strict=True)
    assert "an insecure path: everybody may write to it (mode 777)" in error


def test_a_pickle_that_nobody_has_allowed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """To load it is to run it, so it is refused, whatever the model itself says of that."""
    # The adapter looks before it loads: what it would load with need not be there.
    monkeypatch.setitem(sys.modules, "joblib", types.ModuleType("joblib"))
    known = Registry()
    known.module("m")(type("Estimator", (SklearnModel,), {"prepare": None}))
    (tmp_path / "config.yml").write_text("module_id: m\nallow_pickle: true\n")
    (tmp_path / "model.joblib").write_bytes(pickle.dumps(os.getcwd))
    error = load_refusal(str(tmp_path), LoadError, registry=known)
    assert f"UnsafePickleError: {tmp_path / 'model.joblib'}: " in error


# Archives


def bomb(path: Path) -> Path:
    return write_archive(path, {"config.yml": CONFIG, "zeros": bytes(4 * 1024 * 1024)})


ARCHIVES: dict[str, tuple[str, Callable[[Path], Path], str]] = {
    "tar with ..": (".tar", both_of("../x")[".tar"], "leaves the archive's directory"),
    "tar, absolute": (".tar", tar_of("/x"), "has an absolute name"),
    "tar with a symlink": (".tar", tar_of("x", type=tarfile.SYMTYPE, linkname="/etc"), "neither"),
    "tar with a hardlink": (".tar", tar_of("x", type=tarfile.LNKTYPE, linkname="y"), "neither"),
    "tar with a FIFO": (".tar", tar_of("x", type=tarfile.FIFOTYPE), "neither"),
    "tar, a bomb": (".tar.xz", bomb, "at most 200 for one, max_ratio"),
    "zip with ..": (".zip", both_of("../x")[".zip"], "leaves the archive's directory"),
    "zip with a symlink": (".zip", zip_of(external_attr=SYMLINK), "neither"),
    "zip with a FIFO": (".zip", zip_of(external_attr=FIFO), "neither"),
    "zip, a bomb": (".zip", bomb, "at most 200 for one, max_ratio"),
    "zip, encrypted": (".zip", zip_of(flag_bits=1), "is encrypted"),
    "zip with a name twice": (".zip", both_of("x", "x")[".zip"], "is there twice"),
    "zip with a name in two cases": (".zip", both_of("x", "X")[".zip"], "differs from 'x' in case"),
}


@pytest.mark.filterwarnings("ignore:Duplicate name:UserWarning")
@pytest.mark.parametrize("case", ARCHIVES)
def test_an_archive(case: str, tmp_path: Path) -> None:
    """Nothing is written, and no directory is left."""
    kind, write, says = ARCHIVES[case]
    unpacked = tmp_path / "unpacked"
    unpacked.mkdir()
    archive = write(tmp_path / f"model{kind}")
    archives = {"directory": str(unpacked)}
    error = load_refusal(str(archive), UnsafeArchiveError, archives=archives)
    assert error.startswith(f"{archive}: member ")
    assert says in error
    assert not any(unpacked.iterdir())
    assert sorted(path.name for path in tmp_path.iterdir()) == [archive.name, "unpacked"]


def test_an_archive_that_is_none(tmp_path: Path) -> None:
    """A file with an archive's name."""
    (tmp_path / "model.zip").write_bytes(b"<html>not found</html>")
    assert not zipfile.is_zipfile(tmp_path / "model.zip")
    assert "a broken archive" in load_refusal(str(tmp_path / "model.zip"), IntegrityError)


def test_what_is_refused_harms_nobody_else() -> None:
    """After all of these an initializer of the same registry still loads."""
    with Initializer(registry()) as initializer:
        assert initializer.init_sync(ModelConfig("m")) is not None
