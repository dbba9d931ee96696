"""The module ``sklearn``: a pickle is code, and is not run unless it is allowed in every way."""

from __future__ import annotations

import gc
import os
import pickle
import shutil
import sys
from pathlib import Path
from typing import Any

import made_tabular as make
import numpy as np
import pytest
from loading import Loader, allowed

from anyload import LoadError, ModelConfig, UnsafePickleError
from anyload.adapters.sklearn import SklearnModel


class Opens:
    """A pickle of it opens a file when it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return open, (str(self.path), "w")


@pytest.fixture
def trap(tmp_path: Path) -> Path:
    """A file that makes another one, ``sprung``, when it is loaded."""
    path = tmp_path / "trap.joblib"
    path.write_bytes(pickle.dumps(Opens(tmp_path / "sprung")))
    return path


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({}, "UnsafePickleError: {}: a .joblib file is a pickle"),
        ({"allow_pickle": False}, "UnsafePickleError: {}: a .joblib file is a pickle"),
        ({"sha256": "{sum}"}, "UnsafePickleError: {}: a .joblib file is a pickle"),
        ({"allow_pickle": True}, "allow_pickle needs its sha256 too"),
        ({"allow_pickle": True, "sha256": ""}, "IntegrityError: {}: its sha256 is {sum}"),
        (
            {"allow_pickle": True, "sha256": "0" * 64},
            f"IntegrityError: {{}}: its sha256 is {{sum}}, expected {'0' * 64}",
        ),
        ({"allow_pickle": True, "sha256": "0", "mmap": True}, "its sha256 is {sum}"),
    ],
)
async def test_what_is_not_allowed_is_not_run(
    fields: dict[str, Any], says: str, loader: Loader, trap: Path
) -> None:
    """Not without the option, not without a checksum, not with another one."""
    digest = allowed(trap)["sha256"]
    if fields.get("sha256") == "{sum}":
        fields = {"sha256": digest}
    reason = await loader.error("sklearn", trap, **fields)
    assert says.format(trap, sum=digest) in reason
    assert not trap.with_name("sprung").exists()


async def test_a_model_cannot_allow_itself(loader: Loader, trap: Path) -> None:
    """Its own config.yml came with it."""
    digest = allowed(trap)["sha256"]
    trap.with_name("config.yml").write_text(
        f"module_id: sklearn\nallow_pickle: true\nsha256: '{digest}'\n"
    )
    async with loader.initializer() as initializer:
        with pytest.raises(LoadError, match="into the catalogue") as caught:
            await initializer.init(trap.parent)
    assert isinstance(caught.value.attempts[0].error, UnsafePickleError)
    assert not trap.with_name("sprung").exists()


async def test_a_pickle_named_skops_is_not_run(loader: Loader, trap: Path) -> None:
    """From the safe format there is no way to the other one."""
    renamed = trap.rename(trap.with_suffix(".skops"))
    reason = await loader.error("sklearn", renamed, **allowed(renamed))
    assert reason == f"IntegrityError: {renamed}: File is not a zip file"
    assert not trap.with_name("sprung").exists()


async def test_another_suffix_is_not_guessed(loader: Loader, trap: Path) -> None:
    """What a file is, its name says."""
    renamed = trap.rename(trap.with_suffix(".pkl"))
    reason = await loader.error("sklearn", renamed, **allowed(renamed))
    assert "expected a file that ends in .skops or .joblib" in reason
    assert not trap.with_name("sprung").exists()


@pytest.mark.skipif(sys.platform != "linux", reason="by the names that Linux has")
def test_a_file_that_was_checked_is_the_one_that_is_mapped(
    joblib_file: Path, trap: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever takes its place between the check and the load."""
    import joblib

    path = Path(shutil.copy(joblib_file, trap.with_name("model.joblib")))
    config = ModelConfig("sklearn", path, **allowed(path, mmap=True))
    load = joblib.load

    def swapped(*args: Any, **kwargs: Any) -> Any:
        trap.replace(path)
        return load(*args, **kwargs)

    monkeypatch.setattr(joblib, "load", swapped)
    loaded = SklearnModel.load(config)
    assert loaded.predict(np.ones((1, make.FEATURES))) in ([0], [1])
    assert not trap.with_name("sprung").exists()
    array = loaded.estimator.estimators_[0].tree_.__getstate__()["nodes"]
    assert array.nbytes > 0


@pytest.mark.skipif(sys.platform != "linux", reason="by what Linux tells of open files")
@pytest.mark.parametrize("released", [False, True])
def test_a_mapped_file_stays_open_as_long_as_its_model(released: bool, joblib_file: Path) -> None:
    """Arrays that are sent to another process are opened there by that name."""
    gc.collect()
    before = len(os.listdir("/proc/self/fd"))
    loaded = SklearnModel.load(
        ModelConfig("sklearn", joblib_file, **allowed(joblib_file, mmap=True))
    )
    assert len(os.listdir("/proc/self/fd")) > before
    if released:
        loaded.release()
    else:
        del loaded
        gc.collect()
    assert len(os.listdir("/proc/self/fd")) == before
