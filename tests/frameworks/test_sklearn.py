"""The module ``sklearn``: estimators of scikit-learn, in files of skops and joblib."""

from __future__ import annotations

import shutil
import zipfile
from pathlib import Path
from typing import Any

import made_tabular as make
import numpy as np
import pytest
from loading import Loader, allowed

from anyload import IntegrityError, LoadError, ModelConfig, UnsafePickleError
from anyload.adapters.sklearn import SklearnModel

TREE = "sklearn.tree._tree.Tree"


async def test_a_skops_file_loads_predicts_and_is_released(
    loader: Loader, skops_file: Path
) -> None:
    """One prediction; the report says where it is and what it holds, with nothing to warn of."""
    loaded, report = await loader.load("sklearn", skops_file, trusted=[TREE])
    assert isinstance(loaded, SklearnModel)
    assert loaded.predict(np.ones((1, make.FEATURES))) in ([0], [1])
    with zipfile.ZipFile(skops_file) as archive:
        size = sum(member.file_size for member in archive.infolist())
    observed = report.observed
    assert (observed.device, observed.memory_bytes) == ("cpu", size)
    assert (observed.changes, observed.warnings) == ((), ())
    loaded.release()
    with pytest.raises(RuntimeError, match="this model was released"):
        loaded.predict([])


@pytest.mark.parametrize("mmap", [False, True])
async def test_a_joblib_file_loads_where_it_is_allowed(
    mmap: bool, loader: Loader, joblib_file: Path
) -> None:
    """With its checksum; its arrays may stay in the file."""
    fields = allowed(joblib_file, mmap=mmap, trim_memory=not mmap)
    loaded, report = await loader.load("sklearn", joblib_file, **fields)
    assert loaded.predict(np.ones((1, make.FEATURES))) in ([0], [1])
    assert report.observed.memory_bytes == joblib_file.stat().st_size
    assert report.observed.warnings == ()
    loaded.release()
    with pytest.raises(RuntimeError, match="this model was released"):
        loaded.predict([])


async def test_a_directory_with_one_model_loads(
    loader: Loader, joblib_file: Path, tmp_path: Path
) -> None:
    """Here it is the catalogue that allows its pickle."""
    shutil.copy(joblib_file, tmp_path / "weights.joblib")
    loaded, _ = await loader.load("sklearn", tmp_path, **allowed(joblib_file))
    assert loaded.estimator.n_features_in_ == make.FEATURES


async def test_of_two_formats_none_is_chosen(loader: Loader, forests: Path) -> None:
    """The safe format is no reason to pass over the other one, nor the other way round."""
    reason = await loader.error("sklearn", forests)
    assert "found forest.joblib, forest.skops" in reason


class TestTrustedTypes:
    """A .skops file holds only what is safe, or what is named."""

    async def test_what_is_not_trusted_is_named(self, loader: Loader, skops_file: Path) -> None:
        """With what to do."""
        reason = await loader.error("sklearn", skops_file)
        assert reason.startswith(f"UnsafePickleError: {skops_file}: Untrusted types found")
        assert f"'{TREE}'" in reason
        assert "put those that you trust into 'trusted'" in reason

    async def test_a_string_is_no_list(self, loader: Loader, skops_file: Path) -> None:
        """It would be taken as the list of its letters."""
        reason = await loader.error("sklearn", skops_file, trusted=TREE)
        assert reason.startswith("ConfigError")
        assert "trusted" in reason

    async def test_a_model_cannot_trust_itself(
        self, loader: Loader, skops_file: Path, tmp_path: Path
    ) -> None:
        """Its own config.yml came with it."""
        shutil.copy(skops_file, tmp_path)
        (tmp_path / "config.yml").write_text(f"module_id: sklearn\ntrusted: [{TREE}]\n")
        async with loader.initializer() as initializer:
            with pytest.raises(LoadError, match="in the catalogue") as caught:
                await initializer.init(tmp_path)
        assert isinstance(caught.value.attempts[0].error, UnsafePickleError)

    async def test_a_model_of_safe_types_needs_nobody(self, loader: Loader, tmp_path: Path) -> None:
        """A directory with its own config.yml loads as any other."""
        import skops.io
        from sklearn.linear_model import LogisticRegression

        skops.io.dump(LogisticRegression().fit(*make.rows(50)), tmp_path / "model.skops")
        (tmp_path / "config.yml").write_text("module_id: sklearn\n")
        async with loader.initializer() as initializer:
            loaded = await initializer.init(tmp_path)
        assert loaded.predict(np.ones((1, make.FEATURES))) in ([0], [1])


@pytest.mark.parametrize("suffix", ["skops", "joblib"])
@pytest.mark.parametrize(
    ("content", "says"),
    [
        (lambda whole: b"", "the file is empty"),
        (lambda whole: whole[: len(whole) // 2], ""),
        (lambda whole: whole[:-1], ""),
        (lambda whole: b"hello, this is no model", ""),
        (lambda whole: b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", ""),
    ],
)
async def test_a_file_that_is_no_model_is_named(
    content: Any, says: str, suffix: str, loader: Loader, forests: Path, tmp_path: Path
) -> None:
    """Empty, cut short, of another kind: by its checksum, and where that is of the bad file too."""
    whole = forests / f"forest.{suffix}"
    bad = tmp_path / f"bad.{suffix}"
    bad.write_bytes(content(whole.read_bytes()))
    for fields in (allowed(whole), allowed(bad)):
        reason = await loader.error("sklearn", bad, **fields)
        assert reason.startswith(f"IntegrityError: {bad}: ")
        assert says in reason


async def test_an_archive_of_another_kind_is_named(loader: Loader, tmp_path: Path) -> None:
    """Other formats are zip files too."""
    bad = tmp_path / "bad.skops"
    with zipfile.ZipFile(bad, "w") as archive:
        archive.writestr("data.pkl", b"")
    reason = await loader.error("sklearn", bad)
    assert reason.startswith(f"IntegrityError: {bad}: ")
    assert "schema.json" in reason


@pytest.mark.parametrize("suffix", ["skops", "joblib"])
def test_a_file_cut_anywhere_is_an_error(suffix: str, forests: Path, tmp_path: Path) -> None:
    """With a checksum of the cut file, so that it is the format that tells."""
    whole = (forests / f"forest.{suffix}").read_bytes()
    bad = tmp_path / f"bad.{suffix}"
    SklearnModel.prepare()
    for part in range(1, 25):
        bad.write_bytes(whole[: len(whole) * part // 25])
        with pytest.raises(IntegrityError) as caught:
            SklearnModel.load(ModelConfig("sklearn", bad, **allowed(bad, trusted=[TREE])))
        assert caught.value.path == str(bad)


async def test_an_unknown_field_is_told_with_what_was_meant(
    loader: Loader, skops_file: Path
) -> None:
    """The fields of a model config are checked like those of a configuration."""
    assert "did you mean 'trusted'?" in await loader.error("sklearn", skops_file, trust=[TREE])
    reason = await loader.error("sklearn", skops_file, trusted=[TREE], mmap=True)
    assert "a .skops file cannot be mapped" in reason


async def test_a_mapping_of_a_compressed_file_is_an_error(
    loader: Loader, joblib_file: Path, tmp_path: Path
) -> None:
    """It would be read into memory, with a warning."""
    import joblib

    packed = tmp_path / "packed.joblib"
    joblib.dump(joblib.load(joblib_file), packed, compress=3)
    reason = await loader.error("sklearn", packed, **allowed(packed, mmap=True))
    assert "a compressed file cannot be mapped" in reason
