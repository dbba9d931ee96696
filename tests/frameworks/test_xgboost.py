"""The module ``xgboost``: boosters of XGBoost."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any, ClassVar

import made_tabular as make
import numpy as np
import pytest
from loading import Loader

from anyload import (
    Backend,
    IntegrityError,
    LoadError,
    LocalBackend,
    ModelConfig,
    Registry,
    WrongDeviceError,
)
from anyload.adapters import xgboost as adapter
from anyload.adapters.xgboost import XgboostModel


@pytest.fixture(scope="session")
def models(made: Path) -> Path:
    """A directory with the same booster in both formats."""
    directory = made / "xgboost"
    directory.mkdir()
    booster = make.xgboost_booster()
    for suffix in ("ubj", "json"):
        booster.save_model(directory / f"booster.{suffix}")
    return directory


class AbsentCard(Backend):
    """A card that says it is there, where none is."""

    backend_type: ClassVar[str] = "CUDA"
    device = "cuda:0"


@pytest.mark.parametrize("suffix", ["ubj", "json"])
async def test_a_file_loads_predicts_and_is_released(
    suffix: str, loader: Loader, models: Path
) -> None:
    """One prediction on the processor; the report says where it is and what it holds."""
    file = models / f"booster.{suffix}"
    loaded, report = await loader.load("xgboost", file)
    assert isinstance(loaded, XgboostModel)
    (probability,) = loaded.predict(np.ones((1, make.FEATURES)))
    assert 0 < probability < 1
    observed = report.observed
    assert (observed.device, observed.memory_bytes) == ("cpu", file.stat().st_size)
    assert observed.changes == ()
    loaded.release()
    with pytest.raises(RuntimeError, match="this model was released"):
        loaded.predict(np.ones((1, make.FEATURES)))


async def test_a_directory_with_one_model_loads(
    loader: Loader, models: Path, tmp_path: Path
) -> None:
    """Beside its config.yml, which may say whether memory is trimmed."""
    shutil.copy(models / "booster.ubj", tmp_path / "weights.ubj")
    (tmp_path / "config.yml").write_text("module_id: xgboost\ntrim_memory: false\n")
    async with loader.initializer() as initializer:
        loaded = await initializer.init(tmp_path)
    assert loaded.booster.num_boosted_rounds() == 3
    loaded.release()


async def test_rows_of_another_width_are_refused(loader: Loader, models: Path) -> None:
    """XGBoost would predict something."""
    loaded, _ = await loader.load("xgboost", models / "booster.ubj")
    with pytest.raises(ValueError, match="expected rows of 8 features, got 5"):
        loaded.predict(np.ones((1, 5)))


@pytest.mark.parametrize(
    ("suffix", "content", "says"),
    [
        ("ubj", lambda models: b"", "the file is empty"),
        ("json", lambda models: b"", "the file is empty"),
        ("ubj", lambda models: b"this is no model", "it begins b'this is '"),
        ("json", lambda models: b"\x89PNG\r\n\x1a\n", "it begins b'\\x89PNG"),
        ("ubj", lambda models: (models / "booster.json").read_bytes(), "in the format of .ubj"),
        ("json", lambda models: (models / "booster.ubj").read_bytes(), "in the format of .json"),
        ("json", lambda models: b'{"a": 1}', "Invalid cast, from Null to Object"),
        ("bin", lambda models: b"{L", "expected a file that ends in .ubj or .json"),
    ],
)
async def test_a_file_that_is_no_model_is_named(
    suffix: str, content: Any, says: str, loader: Loader, models: Path, tmp_path: Path
) -> None:
    """Empty, of another kind, of the other format: the error names the file."""
    bad = tmp_path / f"bad.{suffix}"
    bad.write_bytes(content(models))
    reason = await loader.error("xgboost", bad)
    assert reason.startswith(f"IntegrityError: {bad}")
    assert says in reason
    assert "Stack trace" not in reason


@pytest.mark.parametrize("suffix", ["ubj", "json"])
def test_a_file_cut_anywhere_is_an_error(suffix: str, models: Path, tmp_path: Path) -> None:
    """XGBoost itself may end the process or never end; here it is one, at every brace too."""
    whole = (models / f"booster.{suffix}").read_bytes()
    cuts = {len(whole) * part // 40 for part in range(1, 40)}
    cuts |= {place + 1 for place, byte in enumerate(whole[:-1]) if byte == ord("}")}
    bad = tmp_path / f"bad.{suffix}"
    config = ModelConfig("xgboost", bad)
    backend = LocalBackend(LocalBackend.Config())
    XgboostModel.prepare()
    for cut in sorted(cuts):
        bad.write_bytes(whole[:cut])
        with pytest.raises(IntegrityError) as caught:
            XgboostModel.load(config, backend)
        assert caught.value.path == str(bad)
        assert "Stack trace" not in str(caught.value)


async def test_an_unknown_field_is_told_with_what_was_meant(loader: Loader, models: Path) -> None:
    """The fields of a model config are checked like those of a configuration."""
    reason = await loader.error("xgboost", models / "booster.ubj", trim_memry=True)
    assert "did you mean 'trim_memory'?" in reason


@pytest.mark.skipif(shutil.which("nvidia-smi") is not None, reason="there is a card")
async def test_a_card_that_is_not_there_fails_and_the_processor_is_next(models: Path) -> None:
    """XGBoost itself predicts on the processor; here that is an error, and the next backend's."""
    registry = Registry()
    adapter.register(registry)
    for backend in (AbsentCard, LocalBackend):
        registry.backend_type(backend)
    loader = Loader()
    loader.registry = registry
    loaded, report = await loader.load("xgboost", models / "booster.ubj", "CUDA", "LOCAL")
    failed, succeeded = report.attempts
    assert (failed.outcome, succeeded.outcome) == ("raised", "loaded")
    assert isinstance(failed.error, WrongDeviceError)
    assert failed.reason == "WrongDeviceError: asked for cuda:0, got cpu"
    assert (report.backend, loaded.device) == ("LOCAL", "cpu")
    with pytest.raises(LoadError, match="asked for cuda:0, got cpu"):
        await loader.load("xgboost", models / "booster.ubj", "CUDA")
