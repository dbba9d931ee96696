"""The module ``sklearn``: estimators of scikit-learn, in files of skops and joblib."""

from __future__ import annotations

import gc
import hashlib
import os
import pickle
import shutil
import sys
import zipfile
from pathlib import Path
from typing import Any

import made_tabular as make
import numpy as np
import pytest
from loading import Loader

from anyload import IntegrityError, LoadError, ModelConfig, UnsafePickleError
from anyload.adapters import sklearn as adapter
from anyload.adapters.sklearn import SklearnModel

TREE = "sklearn.tree._tree.Tree"

# The framework itself warns of a version too, each time; the report says it once.
other_version = pytest.mark.filterwarnings("ignore:Trying to unpickle estimator")


class Opens:
    """A pickle of it opens a file when it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return open, (str(self.path), "w")


@pytest.fixture(scope="session")
def models(made: Path) -> Path:
    """A directory with the same forest in both formats."""
    import joblib
    import skops.io

    directory = made / "sklearn"
    directory.mkdir()
    forest = make.forest()
    skops.io.dump(forest, directory / "forest.skops")
    joblib.dump(forest, directory / "forest.joblib")
    return directory


@pytest.fixture
def skops_file(models: Path) -> Path:
    return models / "forest.skops"


@pytest.fixture
def joblib_file(models: Path) -> Path:
    return models / "forest.joblib"


def allowed(path: Path, **fields: Any) -> dict[str, Any]:
    """Return the fields that allow this very file."""
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return {"allow_pickle": True, "sha256": digest, **fields}


def rewritten(source: Path, target: Path, old: bytes, new: bytes) -> Path:
    """Write a .skops file whose schema has other words, as many bytes long."""
    with zipfile.ZipFile(source) as read, zipfile.ZipFile(target, "w") as write:
        for name in read.namelist():
            content = read.read(name)
            write.writestr(name, content.replace(old, new) if name == "schema.json" else content)
    return target


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


async def test_of_two_formats_none_is_chosen(loader: Loader, models: Path) -> None:
    """The safe format is no reason to pass over the other one, nor the other way round."""
    reason = await loader.error("sklearn", models)
    assert "found forest.joblib, forest.skops" in reason


class TestPickles:
    """A pickle is code: what is not allowed in every way is not run."""

    @pytest.fixture
    def trap(self, tmp_path: Path) -> Path:
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
        self, fields: dict[str, Any], says: str, loader: Loader, trap: Path
    ) -> None:
        """Not without the option, not without a checksum, not with another one."""
        digest = allowed(trap)["sha256"]
        if fields.get("sha256") == "{sum}":
            fields = {"sha256": digest}
        reason = await loader.error("sklearn", trap, **fields)
        assert says.format(trap, sum=digest) in reason
        assert not trap.with_name("sprung").exists()

    async def test_a_model_cannot_allow_itself(self, loader: Loader, trap: Path) -> None:
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

    async def test_a_pickle_named_skops_is_not_run(self, loader: Loader, trap: Path) -> None:
        """From the safe format there is no way to the other one."""
        renamed = trap.rename(trap.with_suffix(".skops"))
        reason = await loader.error("sklearn", renamed, **allowed(renamed))
        assert reason == f"IntegrityError: {renamed}: File is not a zip file"
        assert not trap.with_name("sprung").exists()

    async def test_another_suffix_is_not_guessed(self, loader: Loader, trap: Path) -> None:
        """What a file is, its name says."""
        renamed = trap.rename(trap.with_suffix(".pkl"))
        reason = await loader.error("sklearn", renamed, **allowed(renamed))
        assert "expected a file that ends in .skops or .joblib" in reason
        assert not trap.with_name("sprung").exists()

    @pytest.mark.skipif(sys.platform != "linux", reason="by the names that Linux has")
    def test_a_file_that_was_checked_is_the_one_that_is_mapped(
        self, joblib_file: Path, trap: Path, monkeypatch: pytest.MonkeyPatch
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
    def test_a_mapped_file_stays_open_as_long_as_its_model(
        self, released: bool, joblib_file: Path
    ) -> None:
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
    content: Any, says: str, suffix: str, loader: Loader, models: Path, tmp_path: Path
) -> None:
    """Empty, cut short, of another kind: by its checksum, and where that is of the bad file too."""
    whole = models / f"forest.{suffix}"
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
def test_a_file_cut_anywhere_is_an_error(suffix: str, models: Path, tmp_path: Path) -> None:
    """With a checksum of the cut file, so that it is the format that tells."""
    whole = (models / f"forest.{suffix}").read_bytes()
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


@other_version
async def test_the_version_of_a_skops_file_is_reported(
    loader: Loader, skops_file: Path, tmp_path: Path
) -> None:
    """If it is another one; once, and without catching a warning."""
    import sklearn

    here = sklearn.__version__.encode()
    other = b"0.9.9".ljust(len(here), b"9")
    old = rewritten(skops_file, tmp_path / "old.skops", here, other)
    _, report = await loader.load("sklearn", old, trusted=[TREE])
    assert report.observed.warnings == (
        f"saved with scikit-learn {other.decode()}, loaded with {sklearn.__version__}",
    )


@other_version
@pytest.mark.parametrize("chunk", [8, 1 << 20])
@pytest.mark.parametrize(
    ("suffix", "protocol"),
    [("", 2), ("", 4), ("", 5), (".z", 4), (".gz", 4), (".bz2", 4), (".xz", 4), (".lzma", 4)],
)
def test_the_version_of_a_joblib_file_is_reported(
    suffix: str, protocol: int, chunk: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Compressed or not, of whatever protocol, wherever the chunks end that it is read in."""
    import joblib
    import sklearn
    from sklearn.base import BaseEstimator

    warned: list[str] = []
    monkeypatch.setattr(adapter, "report_warning", warned.append)
    monkeypatch.setattr(adapter, "CHUNK", chunk)
    here = sklearn.__version__
    other = "0.9.9".ljust(len(here), "9")

    def state(self: Any) -> dict[str, Any]:
        return {**vars(self), "_sklearn_version": other}

    forest = make.forest()
    joblib.dump(forest, tmp_path / f"same.joblib{suffix}", protocol=protocol)
    with monkeypatch.context() as patching:
        patching.setattr(BaseEstimator, "__getstate__", state)
        joblib.dump(forest, tmp_path / f"other.joblib{suffix}", protocol=protocol)
    for name in ("same", "other"):
        path = (tmp_path / f"{name}.joblib{suffix}").rename(tmp_path / f"{name}.joblib")
        for mmap in (False, *([True] if not suffix else [])):
            warned.clear()
            SklearnModel.load(ModelConfig("sklearn", path, **allowed(path, mmap=mmap)))
            expected = [f"saved with scikit-learn {other}, loaded with {here}"]
            assert warned == (expected if name == "other" else [])


@other_version
async def test_a_version_among_the_bytes_is_reported(
    loader: Loader, joblib_file: Path, tmp_path: Path
) -> None:
    """In the report of a load, with the rest."""
    import sklearn

    here = sklearn.__version__.encode()
    other = b"0.9.9".ljust(len(here), b"9")
    old = tmp_path / "old.joblib"
    old.write_bytes(joblib_file.read_bytes().replace(here, other))
    _, report = await loader.load("sklearn", old, **allowed(old))
    assert report.observed.warnings == (
        f"saved with scikit-learn {other.decode()}, loaded with {here.decode()}",
    )


async def test_a_mapping_of_a_compressed_file_is_an_error(
    loader: Loader, joblib_file: Path, tmp_path: Path
) -> None:
    """It would be read into memory, with a warning."""
    import joblib

    packed = tmp_path / "packed.joblib"
    joblib.dump(joblib.load(joblib_file), packed, compress=3)
    reason = await loader.error("sklearn", packed, **allowed(packed, mmap=True))
    assert "a compressed file cannot be mapped" in reason
