"""ModelConfig: a config, a path and a mapping of fields in one."""

from __future__ import annotations

import copy
import os
import pickle
from pathlib import Path

import pytest

from anyload import ConfigError, ModelConfig, ModelNotFoundError


def test_fields_are_attributes_and_keys() -> None:
    """Free fields and named ones are read either way."""
    config = ModelConfig("m", Path("x"), labels=[1], get_it=2)
    assert config.labels == config["labels"] == config.fields["labels"] == [1]
    assert config.get("model_path") == "x"
    assert config.get("model_backend", "LOCAL") == "LOCAL"
    assert config.get("absent") is None
    assert "labels" in config
    assert "absent" not in config
    assert set(config) == {"labels", "get_it", "module_id", "model_path", "model_backend"}


def test_an_absent_field_says_so() -> None:
    """A missing field is an AttributeError that names it, and a KeyError."""
    config = ModelConfig("m")
    with pytest.raises(AttributeError, match="no field 'labels'"):
        _ = config.labels
    with pytest.raises(AttributeError):
        _ = config.__nothing__
    with pytest.raises(KeyError):
        _ = config["labels"]


def test_it_cannot_be_changed() -> None:
    """Its fields are set once."""
    with pytest.raises(AttributeError, match="cannot be changed"):
        ModelConfig("m").module_id = "n"


def test_it_is_a_path() -> None:
    """A load written for a path works with it; without a path it says why not."""
    assert os.fspath(ModelConfig("m", "a/b")) == "a/b"
    assert Path(ModelConfig("m", "a/b")) == Path("a/b")
    with pytest.raises(TypeError, match="no model_path"):
        os.fspath(ModelConfig("m"))


def test_it_is_equal_to_itself_only() -> None:
    """Two configs that say the same are two."""
    assert ModelConfig("m") != ModelConfig("m")


def test_repr_shows_no_values_of_free_fields() -> None:
    """Free fields may be secrets."""
    text = repr(ModelConfig("m", "p", token="s3cret"))
    assert "token" in text
    assert "s3cret" not in text
    assert str(ModelConfig("m")) == "m"
    assert str(ModelConfig("m", "p")) == "p"


def test_it_survives_pickling_and_copying() -> None:
    """A config can be sent to another process."""
    config = ModelConfig("m", "p", "GPU", labels=[1])
    for twin in (pickle.loads(pickle.dumps(config)), copy.copy(config)):
        assert (twin.module_id, twin.model_path, twin.model_backend) == ("m", "p", "GPU")
        assert twin.labels == [1]


def test_it_reads_a_directory(tmp_path: Path) -> None:
    """A directory's config.yml becomes a config with that path."""
    (tmp_path / "config.yml").write_text("module_id: m\nmodel_backend: GPU\nlabels: [a]\n")
    config = ModelConfig.from_directory(tmp_path)
    assert (config.module_id, config.model_backend) == ("m", "GPU")
    assert config.model_path == str(tmp_path)
    assert config.labels == ["a"]


def test_a_missing_directory_is_not_found(tmp_path: Path) -> None:
    """The error says whether the directory or its config.yml is missing."""
    for path, reason in (
        (tmp_path / "nowhere", "no such directory"),
        (tmp_path, "has no config.yml"),
    ):
        with pytest.raises(ModelNotFoundError, match=reason):
            ModelConfig.from_directory(path)
    (tmp_path / "file").write_text("")
    with pytest.raises(ModelNotFoundError, match="not a model directory"):
        ModelConfig.from_directory(tmp_path / "file")
    with pytest.raises(ModelNotFoundError):
        ModelConfig.from_directory("a\0b")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no FIFOs")
def test_a_fifo_is_refused_at_once(tmp_path: Path) -> None:
    """Opening a FIFO would wait for ever."""
    os.mkfifo(tmp_path / "config.yml")
    with pytest.raises(ConfigError, match="not a regular file"):
        ModelConfig.from_directory(tmp_path)


def test_a_linked_config_is_refused(tmp_path: Path) -> None:
    """A model's config.yml is read from the model's own directory only."""
    (tmp_path / "elsewhere.yml").write_text("module_id: m\n")
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.yml").symlink_to(tmp_path / "elsewhere.yml")
    with pytest.raises(ConfigError, match="symbolic link"):
        ModelConfig.from_directory(tmp_path / "model")
