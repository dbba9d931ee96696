"""The module ``lightgbm``: boosters of LightGBM."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import made_tabular as make
import numpy as np
import pytest
from loading import Loader

from anyload import IntegrityError, ModelConfig
from anyload.adapters.lightgbm import LightgbmModel


@pytest.fixture(scope="session")
def model(made: Path) -> Path:
    file = made / "booster.txt"
    make.lightgbm_booster().save_model(file)
    return file


async def test_a_file_loads_predicts_and_is_released(loader: Loader, model: Path) -> None:
    """One prediction on the processor; the report says where it is and what it holds."""
    loaded, report = await loader.load("lightgbm", model)
    assert isinstance(loaded, LightgbmModel)
    (probability,) = loaded.predict(np.ones((1, make.FEATURES)))
    assert 0 < probability < 1
    observed = report.observed
    assert (observed.device, observed.memory_bytes) == ("cpu", model.stat().st_size)
    assert observed.changes == ()
    loaded.release()
    with pytest.raises(RuntimeError, match="this model was released"):
        loaded.predict(np.ones((1, make.FEATURES)))


async def test_a_directory_with_one_model_loads(
    loader: Loader, model: Path, tmp_path: Path
) -> None:
    """Beside its config.yml, which may say whether memory is trimmed."""
    shutil.copy(model, tmp_path / "weights.txt")
    (tmp_path / "config.yml").write_text("module_id: lightgbm\ntrim_memory: false\n")
    async with loader.initializer() as initializer:
        loaded = await initializer.init(tmp_path)
    assert loaded.booster.num_trees() == 3
    loaded.release()


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (lambda whole: b"", "the file is empty"),
        (lambda whole: b"this is no model", "it begins b'this is '"),
        (lambda whole: b'{"learner":{}}', "it begins b'{\"learne'"),
        (lambda whole: b"\x89PNG\r\n\x1a\n", "it begins b'\\x89PNG"),
        (lambda whole: whole.replace(b"max_feature_idx", b"min_feature_idx"), "max_feature_idx"),
    ],
)
async def test_a_file_that_is_no_model_is_named(
    content: Any, says: str, loader: Loader, model: Path, tmp_path: Path
) -> None:
    """Empty, of another kind, broken at its head: the error names the file."""
    bad = tmp_path / "bad.txt"
    bad.write_bytes(content(model.read_bytes()))
    reason = await loader.error("lightgbm", bad)
    assert reason.startswith(f"IntegrityError: {bad}")
    assert says in reason


def test_a_file_cut_anywhere_is_an_error(model: Path, tmp_path: Path) -> None:
    """LightGBM itself ends the process, or takes what is there."""
    whole = model.read_bytes()
    end = whole.index(b"end of parameters")
    bad = tmp_path / "bad.txt"
    config = ModelConfig("lightgbm", bad)
    LightgbmModel.prepare()
    for cut in (*(end * part // 40 for part in range(1, 40)), end):
        bad.write_bytes(whole[:cut])
        with pytest.raises(IntegrityError, match="the file is cut short") as caught:
            LightgbmModel.load(config)
        assert caught.value.path == str(bad)


@pytest.mark.parametrize(
    ("damage", "tree"),
    [
        (lambda whole, middle: whole[:middle] + whole[middle + 40 :], 1),
        (lambda whole, middle: whole[:middle] + bytes(40) + whole[middle + 40 :], 1),
        (lambda whole, middle: whole.replace(b"\nleaf_value=", b"\nleaf_value=x", 1), 0),
        (lambda whole, middle: whole.replace(b"\nleaf_value=", b"\nleaf_value_", 1), 0),
        (lambda whole, middle: re.sub(rb"(\nleft_child=\S+) ", rb"\1,", whole, count=1), 0),
        (lambda whole, middle: re.sub(rb"(\nleft_child=\S+) ", rb"\1-", whole, count=1), 0),
        (lambda whole, middle: whole.replace(b"\nnum_leaves=", b"\nnum_leaves=-", 1), 0),
        (lambda whole, middle: whole.replace(b"\nTree=2\n", b"\nTree=3\n"), 2),
    ],
)
def test_a_tree_that_is_damaged_is_named(
    damage: Any, tree: int, model: Path, tmp_path: Path
) -> None:
    """LightGBM itself ends the process, in one of its threads."""
    whole = model.read_bytes()
    bad = tmp_path / "bad.txt"
    bad.write_bytes(damage(whole, whole.index(b"threshold=", whole.index(b"\nTree=1\n"))))
    LightgbmModel.prepare()
    with pytest.raises(IntegrityError, match=f"its tree {tree} is damaged") as caught:
        LightgbmModel.load(ModelConfig("lightgbm", bad))
    assert caught.value.path == str(bad)


@pytest.mark.parametrize(
    "options",
    [
        {"objective": "multiclass", "num_class": 3},
        {"objective": "regression", "linear_tree": True},
        {"objective": "regression", "min_data_in_leaf": 150},  # trees of one leaf
    ],
)
async def test_trees_of_every_kind_load(
    options: dict[str, Any], loader: Loader, tmp_path: Path
) -> None:
    """What is looked for is in all of them."""
    import lightgbm

    rows, labels = make.rows(200)
    made = {**options, "verbose": -1, "num_threads": 1}
    data = lightgbm.Dataset(np.abs(rows).round(), labels, categorical_feature=[0])
    lightgbm.train(made, data, 3).save_model(tmp_path / "booster.txt")
    loaded, _ = await loader.load("lightgbm", tmp_path)
    loaded.predict(rows)


async def test_an_unknown_field_is_told_with_what_was_meant(loader: Loader, model: Path) -> None:
    """The fields of a model config are checked like those of a configuration."""
    reason = await loader.error("lightgbm", model, trim_memry=True)
    assert "did you mean 'trim_memory'?" in reason
