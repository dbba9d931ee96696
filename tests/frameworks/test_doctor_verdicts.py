"""``anyload doctor`` over the adapters: what it sees of the frameworks is what is known of them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import made as make
import made_tabular as tabular
import pytest

WIDTH = 8000
"""Two matrices this wide take long enough to load for the event loop to notice."""

CATALOGUE = """
models:
  onnx: {module_id: onnx, model_path: net.onnx}
  state-dict: {module_id: torch, model_path: large.pt}
  torchscript: {module_id: torch, model_path: large.jit}
  export: {module_id: torch, model_path: net.pt2, allow_pickle: true}
  safetensors-torch: {module_id: safetensors, model_path: large.safetensors, framework: torch}
  safetensors-numpy: {module_id: safetensors, model_path: large.safetensors, framework: numpy}
  skops:
    {module_id: sklearn, model_path: forest.skops, trusted: [sklearn.tree._tree.Tree]}
  xgboost: {module_id: xgboost, model_path: booster.ubj}
  lightgbm: {module_id: lightgbm, model_path: booster.txt}
  spacy: {module_id: spacy, model_path: spacy}
  transformers: {module_id: transformers, model_path: bert}
  transformers-tied:
    {module_id: transformers, model_path: masked, auto_class: AutoModelForMaskedLM}
  sentence-transformers: {module_id: sentence-transformers, model_path: sentences}
"""

SEEN_FINE = (
    *("onnx", "state-dict", "torchscript", "safetensors-torch", "safetensors-numpy"),
    *("skops", "xgboost", "lightgbm", "spacy"),
)
UNSAFE = ("export", "transformers", "transformers-tied", "sentence-transformers")
GROUPED = ("state-dict", *UNSAFE)
"""A state dict alone is fine; the factory that it may go into is not, beside the unsafe ones."""
GIL_HELD = ("torchscript", "safetensors-numpy")


def write_models(path: Path) -> None:
    """Write one model of each kind."""
    import skops.io
    import torch
    from safetensors.torch import save_file

    make.onnx_model(path / "net.onnx", width=256, layers=4)
    large = torch.nn.Sequential(*(torch.nn.Linear(WIDTH, WIDTH // 2) for _ in range(2))).eval()
    torch.save(large.state_dict(), path / "large.pt")
    save_file(large.state_dict(), path / "large.safetensors")
    deep = torch.nn.Sequential(large[0], torch.nn.Linear(WIDTH // 2, WIDTH)).eval()
    torch.jit.trace(deep, torch.zeros(1, WIDTH)).save(str(path / "large.jit"))
    make.exported(path / "net.pt2")
    skops.io.dump(tabular.forest(), path / "forest.skops")
    tabular.xgboost_booster().save_model(path / "booster.ubj")
    tabular.lightgbm_booster().save_model(path / "booster.txt")
    tabular.spacy_pipeline(path / "spacy")
    make.bert(path / "bert")
    make.bert(path / "masked", masked=True)
    make.sentence_model(path / "sentences", path / "bert")
    (path / "models.yml").write_text(CATALOGUE)


@pytest.fixture(scope="module")
def catalogue(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a configuration, and what it names."""
    path = tmp_path_factory.mktemp("doctor")
    # In a process of its own, as the frameworks warn of this and that on the way.
    making = (
        f"import pathlib, test_doctor_verdicts as t; t.write_models(pathlib.Path({str(path)!r}))"
    )
    run(["-c", making], path, expect=0)
    return path


@pytest.fixture(scope="module", params=[*SEEN_FINE, *UNSAFE])
def model(request: pytest.FixtureRequest, catalogue: Path) -> Any:
    """What a doctor says of one model, whatever its exit code."""
    argv = ["-m", "anyload", "doctor", "models.yml", request.param, "--json", "--rounds=5"]
    (found,) = json.loads(run(argv, catalogue, expect=None))["models"]
    return found


def run(argv: list[str], cwd: Path, expect: int | None) -> str:
    here = str(Path(__file__).parent)
    done = subprocess.run(
        [sys.executable, *argv],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": here, "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=110,
    )
    assert expect in {None, done.returncode}, done.stdout + done.stderr
    return done.stdout


def test_what_the_adapter_declares_is_enough(model: Any) -> None:
    """No model needs a declaration that its adapter lacks."""
    assert (model["verdict"], model["declare"]) == ("ok", []), model


def test_loads_at_once_are_unsafe_where_that_is_known(model: Any) -> None:
    """It is seen of each that changes torch, and of no other."""
    unsafe = model["model"] in UNSAFE
    assert model["together"]["unsafe"] is unsafe, model["together"]
    grouped = model["model"] in GROUPED
    assert model["alone"]["exclusive_group"] == ("torch-global" if grouped else None)
    if not unsafe:
        assert model["together"]["loads"] == 20
        assert model["alone"]["changes"] == []


def test_what_tied_weights_suffer_is_told(model: Any) -> None:
    """A weight on meta, or functions of torch left patched: who loses the race decides."""
    if model["model"] == "transformers-tied":
        seen = model["together"]
        told = " ".join(
            [*seen["errors"], *seen["wrong"], *seen["changes"], str(seen["afterwards"])]
        )
        assert any(sign in told for sign in ("meta", "tie_weights", "torch.nn.init")), seen


def test_who_holds_the_gil_is_seen(model: Any) -> None:
    """Where a load takes long enough; a shorter one does not tell."""
    wanted = {"held"} if model["model"] in GIL_HELD else {"not held", "too short"}
    assert model["alone"]["gil"] in wanted, model["alone"]
    assert model["alone"]["holds_gil"] is (model["model"] in GIL_HELD)


def test_nothing_is_left_open(model: Any) -> None:
    """No load leaves a thread or a file descriptor behind."""
    alone = model["alone"]
    assert alone["threads_left"] < len(alone["load_seconds"])
    assert alone["files_left"] < len(alone["load_seconds"])
