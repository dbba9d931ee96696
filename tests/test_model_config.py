"""The config of a model: how it is read, and that it cannot be changed."""

from __future__ import annotations

import copy
import os
import pickle
import socket
from pathlib import Path

import pytest

from anyload import ConfigError, ModelConfig, ModelNotFoundError

CONFIG = ModelConfig("m", "models/x", "GPU", labels=["a"], token="secret", empty=None)


def test_fields_are_read_as_attributes_and_as_keys() -> None:
    """A free field is there under both spellings, and so are the named ones."""
    assert CONFIG.labels == CONFIG["labels"] == ["a"]
    assert (CONFIG["module_id"], CONFIG["model_path"]) == ("m", "models/x")
    assert CONFIG["model_backend"] == CONFIG.model_backend == "GPU"
    assert "labels" in CONFIG
    assert "model_path" in CONFIG
    assert "other" not in CONFIG
    assert list(CONFIG) == ["labels", "token", "empty", "module_id", "model_path", "model_backend"]


def test_get_gives_the_default_for_what_is_absent_or_none() -> None:
    """An empty field in a config.yml says as little as none."""
    assert CONFIG.get("labels") == ["a"]
    assert CONFIG.get("module_id") == "m"
    assert CONFIG.get("empty", 3) == 3
    assert CONFIG.get("other", 4) == 4
    assert CONFIG.get("other") is None
    assert ModelConfig("m").get("model_path", "here") == "here"


def test_an_absent_field_is_named() -> None:
    """Both spellings name the field, each with the error that its spelling has in Python."""
    with pytest.raises(AttributeError, match="the config of this model has no field 'lables'"):
        _ = CONFIG.lables
    assert not hasattr(CONFIG, "__wrapped__")
    with pytest.raises(KeyError, match="other"):
        CONFIG["other"]


def test_it_cannot_be_changed() -> None:
    """Neither its attributes, nor its mapping of fields, nor the caller's mapping changes it."""
    for name in ("module_id", "labels", "new"):
        with pytest.raises(AttributeError, match=f"cannot be changed .*{name}"):
            setattr(CONFIG, name, "x")
    with pytest.raises(TypeError):
        CONFIG.fields["labels"] = []  # type: ignore[index]
    fields = {"module_id": "m", "a": 1}
    config = ModelConfig.from_fields(fields, None)
    fields["a"] = 2
    assert config.a == 1
    assert fields == {"module_id": "m", "a": 2}


def test_fields_may_have_the_names_of_the_constructor() -> None:
    """A config.yml may call a field self, for example."""
    assert ModelConfig.from_fields({"module_id": "m", "self": 1}, None)["self"] == 1


def test_a_field_with_the_name_of_a_method_is_read_as_a_key() -> None:
    """A config.yml may call a field so; the method stays what it is."""
    config = ModelConfig("m", fields=["a"], at=1, get=2)
    assert (config["fields"], config["at"], config["get"]) == (["a"], 1, 2)
    assert config.get("get") == 2
    assert config.at("x").fields == {"fields": ["a"], "at": 1, "get": 2}


def test_it_is_a_path() -> None:
    """It can be given to whatever takes a path; one that is not on disk says so."""
    assert os.path.join(CONFIG, "weights") == os.path.join("models/x", "weights")
    assert Path(CONFIG) == Path("models/x")
    assert ModelConfig("m", Path("a") / "b").model_path == os.path.join("a", "b")
    with pytest.raises(TypeError, match="the config of module 'm' has no model_path"):
        os.fspath(ModelConfig("m"))


def test_its_texts_hold_no_values() -> None:
    """The text is the path, else the module; the repr names the free fields and hides them."""
    assert str(CONFIG) == "models/x"
    assert str(ModelConfig("m")) == "m"
    assert repr(CONFIG) == "ModelConfig('m', 'models/x', labels=..., token=..., empty=...)"


def test_it_is_equal_to_itself_only() -> None:
    """Two configs are two models, so a mapping of configs keeps both."""
    one, other = ModelConfig("m"), ModelConfig("m")
    assert one != other
    assert len({one: 1, other: 2}) == 2


def test_at_gives_the_same_for_another_path() -> None:
    """Only the path differs, and the config it was made of stays as it is."""
    moved = CONFIG.at("/y")
    assert (moved.module_id, moved.model_path, moved.model_backend) == ("m", "/y", "GPU")
    assert moved.fields == CONFIG.fields
    assert CONFIG.model_path == "models/x"


def test_copies_and_pickles_hold_the_same() -> None:
    """It may be copied, and sent to another process."""
    for twin in (pickle.loads(pickle.dumps(CONFIG)), copy.copy(CONFIG), copy.deepcopy(CONFIG)):
        assert isinstance(twin, ModelConfig)
        assert dict(zip(twin, map(twin.get, twin), strict=True)) == dict(
            zip(CONFIG, map(CONFIG.get, CONFIG), strict=True)
        )


# Reading a directory


def write(directory: Path, text: str) -> Path:
    (directory / "config.yml").write_text(text)
    return directory


def config_error(directory: Path) -> list[tuple[str, str]]:
    with pytest.raises(ConfigError) as caught:
        ModelConfig.from_directory(directory)
    assert caught.value.source == str(directory / "config.yml")
    return [(where, what) for where, what in caught.value.problems]


def test_a_directory_is_read(tmp_path: Path) -> None:
    """The config.yml gives the fields, and the directory is the path."""
    write(tmp_path, "module_id: m\nmodel_backend: GPU\nlabels: [a, b]\n")
    config = ModelConfig.from_directory(tmp_path)
    assert (config.module_id, config.model_path) == ("m", str(tmp_path))
    assert (config.model_backend, config.labels) == ("GPU", ["a", "b"])


@pytest.mark.parametrize(
    ("text", "where", "what"),
    [
        ("a: 1", "module_id", "missing"),
        ("module_id: 3", "module_id", "non-empty string, not 3"),
        ("module_id: ''", "module_id", "non-empty string"),
        ("module_id:", "module_id", "non-empty string"),
        ("module_id: m\nmodel_backend: [x]", "model_backend", "non-empty string"),
        ("module_id: m\nmodel_path: /etc", "model_path", "reserved"),
    ],
)
def test_a_config_that_cannot_be_used_names_the_key(
    tmp_path: Path, text: str, where: str, what: str
) -> None:
    """The file and the key are named, and so is what is wrong."""
    [(found, reason)] = config_error(write(tmp_path, text))
    assert found == where
    assert what in reason


def test_a_config_over_the_limit_is_refused(tmp_path: Path) -> None:
    """A megabyte is enough for a config.yml."""
    [(_, what)] = config_error(write(tmp_path, "module_id: " + "m" * 1024 * 1024))
    assert "too large" in what


def test_a_config_that_is_no_regular_file_is_refused_at_once(tmp_path: Path) -> None:
    """Nothing waits for a FIFO's writer, and no link leads out of the directory."""
    file = tmp_path / "config.yml"
    file.mkdir()
    assert config_error(tmp_path) == [("", "a directory, not a file")]
    file.rmdir()
    os.mkfifo(file)
    assert config_error(tmp_path) == [("", "not a regular file")]
    file.unlink()
    file.symlink_to("/etc/hostname")
    assert config_error(tmp_path) == [("", "a symbolic link")]


def test_a_config_that_is_a_socket_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A socket is no regular file."""
    monkeypatch.chdir(tmp_path)  # the path of a socket must be short
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("config.yml")
        assert config_error(tmp_path) == [("", "not a regular file")]


def test_what_is_missing_is_said(tmp_path: Path) -> None:
    """No directory, a file in its place and a directory without config.yml are three things."""
    (tmp_path / "file").write_text("")
    for name, reason in (
        ("absent", "there is no such directory"),
        ("file", "a file, not a model directory"),
        ("", "the directory has no config.yml"),
        ("a\0b", "there is no such directory"),
    ):
        path = os.path.join(tmp_path, name)
        with pytest.raises(ModelNotFoundError) as caught:
            ModelConfig.from_directory(path)
        assert (caught.value.model, caught.value.reason) == (path, reason)
