"""The module ``onnx``: sessions of onnxruntime."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import made as make
import numpy as np
import onnxruntime
import pytest
from loading import Loader

from anyload import LoadError, ModelConfig
from anyload.adapters.onnx import OnnxModel


@pytest.fixture(scope="session")
def model(made: Path) -> Path:
    return make.onnx_model(made / "tiny.onnx")


async def test_a_file_loads_infers_and_is_released(loader: Loader, model: Path) -> None:
    """One inference on the processor; the report says where it is and what it holds."""
    loaded, report = await loader.load("onnx", model)
    assert isinstance(loaded, OnnxModel)
    (output,) = loaded.run({"x": np.ones((2, 4), np.float32)})
    assert output.shape == (2, 4)
    observed = report.observed
    assert (observed.device, observed.memory_bytes) == ("cpu", model.stat().st_size)
    assert observed.changes == ()
    loaded.release()
    with pytest.raises(RuntimeError, match="this model was released"):
        loaded.run({})


async def test_a_directory_with_one_model_loads(
    loader: Loader, model: Path, tmp_path: Path
) -> None:
    """Its config.yml may set the threads and whatever else a session has."""
    shutil.copy(model, tmp_path / "weights.onnx")
    (tmp_path / "config.yml").write_text(
        "module_id: onnx\nintra_op_threads: 2\nsession_options: {enable_mem_pattern: false}\n"
    )
    async with loader.initializer() as initializer:
        loaded = await initializer.init(tmp_path)
    options = loaded.session.get_session_options()
    assert (options.intra_op_num_threads, options.enable_mem_pattern) == (2, False)


FILE_OPTIONS = pytest.mark.parametrize(
    "name", ["optimized_model_filepath", "profile_file_prefix", "enable_profiling"]
)


@FILE_OPTIONS
async def test_a_session_option_that_names_a_file_is_refused(
    name: str, loader: Loader, model: Path, tmp_path: Path
) -> None:
    """Nothing that a model says of itself writes a file, nor what the operator says."""
    written = tmp_path / "written"
    reason = await loader.error("onnx", model, session_options={name: str(written)})
    assert name in reason
    assert not written.exists()


@FILE_OPTIONS
async def test_a_model_itself_may_say_no_more_than_the_catalogue(
    name: str, loader: Loader, model: Path, tmp_path: Path
) -> None:
    """The same options are known, and the error says which."""
    shutil.copy(model, tmp_path / "weights.onnx")
    (tmp_path / "config.yml").write_text(f"module_id: onnx\nsession_options: {{{name}: written}}\n")
    async with loader.initializer() as initializer:
        with pytest.raises(LoadError, match=f"session_options.{name} +not to be set") as caught:
            await initializer.init(tmp_path)
    assert "allowed are enable_cpu_mem_arena, " in str(caught.value)
    assert {file.name for file in tmp_path.iterdir()} == {"weights.onnx", "config.yml"}


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"execution_mode": "ORT_FAST"}, "'ORT_SEQUENTIAL' or 'ORT_PARALLEL'"),
        ({"enable_mem_pattern": "no"}, "session_options.enable_mem_pattern"),
        ({"log_severity_level": 5}, "session_options.log_severity_level"),
        ({"log_verbosity_level": -1}, "session_options.log_verbosity_level"),
        ({"graph_optimization_level": 99}, "'ORT_ENABLE_ALL'"),
    ],
)
async def test_a_session_option_of_a_wrong_value_is_told(
    options: dict[str, object], says: str, loader: Loader, model: Path
) -> None:
    """With what it may be."""
    reason = await loader.error("onnx", model, session_options=options)
    assert reason.startswith("ConfigError")
    assert says in reason


async def test_the_members_of_an_option_have_names(loader: Loader, model: Path) -> None:
    """Those of onnxruntime."""
    options = {"execution_mode": "ORT_PARALLEL", "graph_optimization_level": "ORT_DISABLE_ALL"}
    loaded, _ = await loader.load("onnx", model, session_options=options)
    got = loaded.session.get_session_options()
    assert got.execution_mode == onnxruntime.ExecutionMode.ORT_PARALLEL
    assert got.graph_optimization_level == onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL


async def test_weights_beside_a_model_are_a_part_of_it(loader: Loader, tmp_path: Path) -> None:
    """Of its size in the report too."""
    path = make.onnx_model(tmp_path / "model.onnx", beside="model.onnx.data")
    loaded, report = await loader.load("onnx", path)
    (output,) = loaded.run({"x": np.ones((2, 4), np.float32)})
    assert output.shape == (2, 4)
    size = path.stat().st_size + (tmp_path / "model.onnx.data").stat().st_size
    assert report.observed.memory_bytes == size


@pytest.mark.parametrize("left", [None, 5])
async def test_weights_that_are_missing_or_cut_short_are_told(
    left: int | None, loader: Loader, tmp_path: Path
) -> None:
    """The error names the model."""
    path = make.onnx_model(tmp_path / "model.onnx", beside="model.onnx.data")
    weights = tmp_path / "model.onnx.data"
    if left is None:
        weights.unlink()
    else:
        weights.write_bytes(weights.read_bytes()[:left])
    assert (await loader.error("onnx", path)).startswith(f"IntegrityError: {path}: ")


@pytest.mark.parametrize("absolute", [True, False])
async def test_weights_outside_of_its_directory_are_refused(
    absolute: bool, loader: Loader, tmp_path: Path
) -> None:
    """A model reads no file that it was not put beside."""
    import onnx

    (tmp_path / "inside").mkdir()
    path = make.onnx_model(tmp_path / "inside" / "model.onnx", beside="weights.data")
    (tmp_path / "inside" / "weights.data").rename(tmp_path / "weights.data")
    model = onnx.load(str(path), load_external_data=False)
    (place,) = [one for one in model.graph.initializer[0].external_data if one.key == "location"]
    place.value = str(tmp_path / "weights.data") if absolute else "../weights.data"
    path.write_bytes(model.SerializeToString())
    assert (await loader.error("onnx", path)).startswith(f"IntegrityError: {path}: ")


async def test_a_first_run_without_memory_fails_the_attempt(
    loader: Loader, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There is no type for it; whatever else is said of zeros is nobody's fault, and told."""
    says = "Failed to allocate memory for requested buffer of size 2147483648"

    def run(self: object, *arguments: object) -> None:
        raise RuntimeError(says)

    monkeypatch.setattr(onnxruntime.InferenceSession, "run", run)
    assert await loader.error("onnx", model) == f"RuntimeError: {says}"
    says = "INVALID_ARGUMENT : indices element out of data bounds"
    _, report = await loader.load("onnx", model)
    (warning,) = report.observed.warnings
    assert warning.endswith(f"failed with RuntimeError: {says}")


async def test_a_card_that_is_not_there_is_skipped_and_the_processor_taken(
    loader: Loader, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The plan skips CUDA with its reason; the report tells which backend it was."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    _, report = await loader.load("onnx", model, "CUDA", "LOCAL")
    skipped, loaded = report.attempts
    assert (skipped.outcome, loaded.outcome) == ("skipped", "loaded")
    assert skipped.reason.startswith("there is no cuda:0")
    assert report.backend == "LOCAL"


async def test_a_provider_that_is_not_there_is_an_error(loader: Loader, model: Path) -> None:
    """The framework itself would take the processor without a word."""
    priority = [{"type": "ONNX", "config": {"provider": "TensorrtExecutionProvider"}}]
    async with loader.initializer(backend_priority=priority) as initializer:
        with pytest.raises(LoadError, match="asked for TensorrtExecutionProvider") as caught:
            await initializer.init(ModelConfig("onnx", model))
    assert "CPUExecutionProvider" in str(caught.value)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (lambda whole: b"", "the file is empty"),
        (lambda whole: whole[: len(whole) // 2], "IntegrityError"),
        (lambda whole: b"this is no model at all", "IntegrityError"),
    ],
)
async def test_a_file_that_is_no_model_is_named(
    content: Any, says: str, loader: Loader, model: Path, tmp_path: Path
) -> None:
    """Empty, cut short, of another kind: the error names the file."""
    bad = tmp_path / "bad.onnx"
    bad.write_bytes(content(model.read_bytes()))
    reason = await loader.error("onnx", bad)
    assert says in reason
    assert "bad.onnx" in reason


@pytest.mark.parametrize(
    ("files", "says"), [((), "found none"), (("a.onnx", "b.onnx"), "found a.onnx, b.onnx")]
)
async def test_a_directory_without_one_model_says_what_it_has(
    files: tuple[str, ...], says: str, loader: Loader, tmp_path: Path
) -> None:
    """Nothing is guessed where there are two."""
    for name in files:
        (tmp_path / name).write_bytes(b"x")
    assert says in await loader.error("onnx", tmp_path)


async def test_an_unknown_field_is_told_with_what_was_meant(loader: Loader, model: Path) -> None:
    """The fields of a model config are checked like those of a configuration."""
    reason = await loader.error("onnx", model, intra_op_thread=2)
    assert "did you mean 'intra_op_threads'?" in reason
