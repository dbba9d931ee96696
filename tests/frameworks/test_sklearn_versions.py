"""The module ``sklearn``: a file that another version of scikit-learn wrote is told of."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import made_tabular as make
import pytest
from loading import Loader, allowed

from anyload import ModelConfig
from anyload.adapters import sklearn as adapter
from anyload.adapters.sklearn import SklearnModel

# The framework itself warns of a version too, each time; the report says it once.
other_version = pytest.mark.filterwarnings("ignore:Trying to unpickle estimator")


def rewritten(source: Path, target: Path, old: bytes, new: bytes) -> Path:
    """Write a .skops file whose schema has other words, as many bytes long."""
    with zipfile.ZipFile(source) as read, zipfile.ZipFile(target, "w") as write:
        for name in read.namelist():
            content = read.read(name)
            write.writestr(name, content.replace(old, new) if name == "schema.json" else content)
    return target


@other_version
async def test_the_version_of_a_skops_file_is_reported(
    loader: Loader, skops_file: Path, tmp_path: Path
) -> None:
    """If it is another one; once, and without catching a warning."""
    import sklearn

    here = sklearn.__version__.encode()
    other = b"0.9.9".ljust(len(here), b"9")
    old = rewritten(skops_file, tmp_path / "old.skops", here, other)
    _, report = await loader.load("sklearn", old, trusted=["sklearn.tree._tree.Tree"])
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
