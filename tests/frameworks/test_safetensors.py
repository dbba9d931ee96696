"""The module ``safetensors``: tensors by their names."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import made as make
import numpy as np
import pytest
import torch
from loading import Loader
from safetensors.torch import save_file

from anyload import ModelConfig
from anyload.adapters.cuda import CudaBackend
from anyload.adapters.safetensors import NumpyTensors, SafetensorsModel, TorchTensors

FRAMEWORKS = pytest.mark.parametrize("framework", ["torch", "numpy"])


@pytest.fixture(scope="session")
def model(made: Path) -> Path:
    return make.safetensors(made / "net.safetensors")


@pytest.mark.parametrize(
    ("framework", "kind", "tensor"),
    [("torch", TorchTensors, torch.Tensor), ("numpy", NumpyTensors, np.ndarray)],
)
async def test_a_file_loads_and_is_released(
    framework: str, kind: Any, tensor: type, loader: Loader, model: Path
) -> None:
    """Its tensors are those of the framework; the report says where they are, and their size."""
    loaded, report = await loader.load("safetensors", model, framework=framework)
    assert type(loaded) is kind
    assert all(isinstance(one, tensor) for one in loaded.tensors.values())
    assert loaded.tensors["0.weight"].shape == (16, 8)
    observed = report.observed
    assert (observed.device, observed.memory_bytes) == ("cpu", model.stat().st_size)
    assert observed.changes == ()
    loaded.release()
    with pytest.raises(RuntimeError, match="this model was released"):
        loaded.tensors.keys()


def test_only_copying_into_numpy_holds_the_gil() -> None:
    """One such load runs at a time; those of torch map the file, and need not wait."""
    assert NumpyTensors.holds_gil
    assert not hasattr(TorchTensors, "holds_gil")


def split(directory: Path) -> None:
    save_file({"a": torch.zeros(2)}, directory / "model-00001-of-00002.safetensors")
    save_file({"b": torch.ones(3)}, directory / "model-00002-of-00002.safetensors")


@FRAMEWORKS
async def test_the_files_of_a_directory_are_one_model(
    framework: str, loader: Loader, tmp_path: Path
) -> None:
    """Its config.yml may say for which framework."""
    split(tmp_path)
    (tmp_path / "config.yml").write_text(f"module_id: safetensors\nframework: {framework}\n")
    async with loader.initializer() as initializer:
        loaded = await initializer.init(tmp_path)
    assert {name: one.shape for name, one in loaded.tensors.items()} == {"a": (2,), "b": (3,)}
    assert loaded.memory_bytes() == sum(
        file.stat().st_size for file in tmp_path.glob("*.safetensors")
    )


async def test_a_tensor_in_two_files_is_refused(loader: Loader, tmp_path: Path) -> None:
    """Which of the two would be meant is not guessed."""
    split(tmp_path)
    save_file({"b": torch.ones(3)}, tmp_path / "other.safetensors")
    reason = await loader.error("safetensors", tmp_path)
    assert "other.safetensors: the tensor 'b' is in model-00002-of-00002.safetensors" in reason


@pytest.mark.parametrize(("installed", "kind"), [(True, TorchTensors), (False, NumpyTensors)])
def test_torch_is_the_default_where_it_is_installed(
    installed: bool, kind: type, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Looking for it does not import it."""
    if not installed:
        monkeypatch.setitem(sys.modules, "torch", None)
    assert SafetensorsModel.variant(ModelConfig("safetensors", model)) is kind


@pytest.mark.parametrize(
    ("framework", "says"),
    [("torch", "got no card"), ("numpy", "got arrays of numpy are on the processor")],
)
async def test_a_card_that_is_not_there_fails_before_the_load(
    framework: str, says: str, loader: Loader, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The processor is next; numpy has no other."""
    monkeypatch.setattr(CudaBackend, "available", lambda self: None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    _, report = await loader.load("safetensors", model, "CUDA", "LOCAL", framework=framework)
    raised, loaded = report.attempts
    assert (raised.outcome, loaded.outcome) == ("raised", "loaded")
    assert raised.reason.startswith("WrongDeviceError: asked for cuda:0")
    assert says in raised.reason
    assert report.observed.device == "cpu"


@FRAMEWORKS
@pytest.mark.parametrize(
    ("content", "says"),
    [
        (lambda whole: b"", "the file is empty"),
        (lambda whole: whole[: len(whole) // 2], "not fully covered"),
        (lambda whole: b"this is no model at all", "header too large"),
    ],
)
async def test_a_file_that_is_no_model_is_named(
    content: Callable[[bytes], bytes],
    says: str,
    framework: str,
    loader: Loader,
    model: Path,
    tmp_path: Path,
) -> None:
    """Empty, cut short, of another kind: the error names the file."""
    bad = tmp_path / "bad.safetensors"
    bad.write_bytes(content(model.read_bytes()))
    reason = await loader.error("safetensors", bad, framework=framework)
    assert reason.startswith(f"IntegrityError: {bad}: ")
    assert says in reason


async def test_a_broken_file_of_several_is_named(
    loader: Loader, model: Path, tmp_path: Path
) -> None:
    """An empty one is found among the others too."""
    shutil.copy(model, tmp_path / "a.safetensors")
    (tmp_path / "b.safetensors").touch()
    assert "b.safetensors: the file is empty" in await loader.error("safetensors", tmp_path)


async def test_a_directory_without_a_model_says_so(loader: Loader, tmp_path: Path) -> None:
    """With what was looked for."""
    assert "ends in .safetensors, found none" in await loader.error("safetensors", tmp_path)


async def test_a_type_that_numpy_lacks_is_told(
    loader: Loader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Torch has it."""
    path = tmp_path / "half.safetensors"
    save_file({"a": torch.zeros(2, dtype=torch.bfloat16)}, path)
    loaded, _ = await loader.load("safetensors", path)
    assert loaded.tensors["a"].dtype == torch.bfloat16

    def load_file(path: Path) -> None:  # ml_dtypes, which others bring, would add the type
        raise TypeError("data type 'bfloat16' not understood")

    monkeypatch.setattr("safetensors.numpy.load_file", load_file)
    reason = await loader.error("safetensors", path, framework="numpy")
    assert "data type 'bfloat16' not understood; 'torch' can" in reason
    assert reason.startswith("ConfigError")


@pytest.mark.parametrize(
    ("fields", "says"),
    [({"framewok": "torch"}, "did you mean 'framework'?"), ({"framework": "jax"}, "'numpy'")],
)
async def test_a_field_that_cannot_be_used_is_told(
    fields: dict[str, str], says: str, loader: Loader, model: Path
) -> None:
    """Before anything is planned, as the fields say what loads it."""
    with pytest.raises(Exception, match="framework") as caught:
        await loader.load("safetensors", model, **fields)
    assert says in str(caught.value)


@FRAMEWORKS
async def test_a_missing_framework_names_its_extra(
    framework: str, loader: Loader, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the command that installs it."""
    missing = "torch" if framework == "torch" else "safetensors"
    monkeypatch.setitem(sys.modules, missing, None)
    reason = await loader.error("safetensors", model, framework=framework)
    assert f"pip install 'anyload[{missing}]'" in reason
