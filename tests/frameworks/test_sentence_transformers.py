"""The module ``sentence-transformers``: models that make vectors of sentences."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import made as make
import pytest
import torch
from loading import Loader

from anyload import LoadError
from anyload.adapters.cuda import CudaBackend
from anyload.adapters.sentence_transformers import SentenceTransformersModel


@pytest.fixture(scope="session")
def model(made: Path) -> Path:
    return make.sentence_model(made / "sentences", make.bert(made / "bert-of-sentences"))


@pytest.fixture
def copy(model: Path, tmp_path: Path) -> Path:
    """A copy of the model, to be broken."""
    return Path(shutil.copytree(model, tmp_path / "copy"))


async def test_a_directory_loads_infers_and_is_released(loader: Loader, model: Path) -> None:
    """One sentence encoded on the processor; the report says where it is and what it holds."""
    loaded, report = await loader.load("sentence-transformers", model)
    assert isinstance(loaded, SentenceTransformersModel)
    assert loaded.encode(["the cat sat"]).shape == (1, 32)
    assert not loaded.model.training
    observed = report.observed
    assert observed.device == "cpu"
    weights = sum(one.nbytes for one in loaded.model.parameters())
    assert observed.memory_bytes is not None
    assert weights <= observed.memory_bytes < weights + 2048  # and the places of 64 tokens
    assert observed.changes == ()
    loaded.release()
    with pytest.raises(RuntimeError, match="this model was released"):
        loaded.encode(["the cat sat"])


async def test_a_config_of_its_own_sets_the_type_of_the_weights(loader: Loader, copy: Path) -> None:
    """Nothing is left of it for the next model."""
    (copy / "config.yml").write_text("module_id: sentence-transformers\ndtype: bfloat16\n")
    async with loader.initializer() as initializer:
        loaded = await initializer.init(copy)
    assert loaded.model.dtype == torch.bfloat16
    assert torch.get_default_dtype() == torch.float32


async def test_a_card_that_is_not_there_fails_before_the_load(
    loader: Loader, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The backend may think that there is one; torch is asked, and the processor is next."""
    monkeypatch.setattr(CudaBackend, "available", lambda self: None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    _, report = await loader.load("sentence-transformers", model, "CUDA", "LOCAL")
    raised, loaded = report.attempts
    assert (raised.outcome, loaded.outcome) == ("raised", "loaded")
    assert raised.reason.startswith("WrongDeviceError: asked for cuda:0")
    assert report.observed.device == "cpu"


async def test_it_is_on_the_device_of_its_backend(
    loader: Loader, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Shown with a device that every machine has, and that holds no data."""
    monkeypatch.setattr(CudaBackend, "available", lambda self: None)
    monkeypatch.setattr(CudaBackend, "device", "meta")
    loaded, report = await loader.load("sentence-transformers", model, "CUDA")
    assert report.observed.device == "meta"
    loaded.release()


def half(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


@pytest.mark.parametrize(
    "damage",
    [
        lambda file: file.write_bytes(b""),
        half,
        lambda file: file.write_bytes(b"this is no model at all"),
    ],
    ids=["empty", "half", "foreign"],
)
@pytest.mark.parametrize(
    "name", ["model.safetensors", "config.json", "modules.json", "1_Pooling/config.json"]
)
async def test_a_broken_file_is_named(
    damage: Callable[[Path], object], name: str, loader: Loader, copy: Path
) -> None:
    """Empty, cut short, of another kind: the error names the file, out of all of them."""
    damage(copy / name)
    reason = await loader.error("sentence-transformers", copy)
    assert reason.startswith(f"IntegrityError: {copy / name}: ")


async def test_parts_are_not_guessed(loader: Loader, copy: Path) -> None:
    """Without its list of parts the framework would make up how words become a sentence."""
    (copy / "modules.json").unlink()
    reason = await loader.error("sentence-transformers", copy)
    assert reason.startswith(f"IntegrityError: {copy}: there is no modules.json")


async def test_code_of_the_model_is_never_run(loader: Loader, copy: Path) -> None:
    """A part that the model brings itself is refused before anything is imported."""
    parts = json.loads((copy / "modules.json").read_text())
    parts[1]["type"] = "its_own.Pooling"
    (copy / "modules.json").write_text(json.dumps(parts))
    (copy / "its_own.py").write_text("raise SystemExit('its code ran')")
    reason = await loader.error("sentence-transformers", copy)
    assert "its part its_own.Pooling is code that comes with the model" in reason


@pytest.fixture
def pickled(copy: Path) -> Path:
    """The model with weights as they were saved before there was safetensors."""
    from safetensors.torch import load_file

    weights = copy / "model.safetensors"
    torch.save(load_file(weights), copy / "pytorch_model.bin")
    weights.unlink()
    return copy


async def test_pickled_weights_are_refused_unless_allowed(loader: Loader, pickled: Path) -> None:
    """The error says how they can be allowed."""
    reason = await loader.error("sentence-transformers", pickled)
    assert reason.startswith(f"UnsafePickleError: {pickled / 'pytorch_model.bin'}")
    loaded, _ = await loader.load("sentence-transformers", pickled, allow_pickle=True)
    assert loaded.encode(["the cat"]).shape == (1, 32)


async def test_a_model_cannot_allow_its_own_pickle(loader: Loader, pickled: Path) -> None:
    """Its config.yml comes with it, from whoever made it."""
    (pickled / "config.yml").write_text("module_id: sentence-transformers\nallow_pickle: true\n")
    async with loader.initializer() as initializer:
        with pytest.raises(LoadError, match=r"a model's own config\.yml cannot allow it"):
            await initializer.init(pickled)


@pytest.mark.parametrize(
    ("fields", "says"),
    [({"dtyp": "auto"}, "did you mean 'dtype'?"), ({"dtype": "int8"}, "'bfloat16', 'float16'")],
)
async def test_a_field_that_cannot_be_used_is_told(
    fields: dict[str, str], says: str, loader: Loader, model: Path
) -> None:
    """With what was meant, or what is known."""
    assert says in await loader.error("sentence-transformers", model, **fields)


async def test_a_missing_framework_names_its_extra(
    loader: Loader, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the command that installs it."""
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    reason = await loader.error("sentence-transformers", model)
    assert "pip install 'anyload[sentence-transformers]'" in reason


@pytest.mark.parametrize("parts", [{}, [1], [{"path": ""}]])
async def test_a_list_of_parts_of_a_wrong_shape_is_told(
    parts: object, loader: Loader, copy: Path
) -> None:
    """It is valid JSON, and none that the framework writes."""
    (copy / "modules.json").write_text(json.dumps(parts))
    reason = await loader.error("sentence-transformers", copy)
    assert reason.startswith(f"IntegrityError: {copy / 'modules.json'}: ")


@pytest.mark.parametrize("kind", ["sklearn.datasets.joblib", "sentence_transformers.util.torch"])
async def test_a_router_has_known_parts_only(kind: str, loader: Loader, copy: Path) -> None:
    """Its parts are not in the list of parts."""
    (copy / "router_config.json").write_text(json.dumps({"types": {"p": kind}}))
    reason = await loader.error("sentence-transformers", copy)
    assert f"its part {kind} is code that comes with the model" in reason


async def test_other_safetensors_do_not_hide_a_pickle(loader: Loader, copy: Path) -> None:
    """Each part looks for one name of them, and takes the pickle next."""
    (copy / "1_Pooling" / "other.safetensors").write_bytes(b"")
    (copy / "1_Pooling" / "pytorch_model.bin").write_bytes(b"")
    reason = await loader.error("sentence-transformers", copy)
    assert reason.startswith(f"UnsafePickleError: {copy / '1_Pooling' / 'pytorch_model.bin'}")


async def test_a_file_that_asks_for_code_is_refused(loader: Loader, copy: Path) -> None:
    """At any depth."""
    (copy / "1_Pooling" / "more.json").write_text('{"a": [{"trust_remote_code": true}]}')
    assert "asks for code" in await loader.error("sentence-transformers", copy)


@pytest.mark.parametrize("base", ["google/base", "../base", "/models/base"])
async def test_an_adapter_is_not_for_a_model_that_is_elsewhere(
    base: str, loader: Loader, copy: Path
) -> None:
    """The framework would load that one, from the Hub or wherever it is; in any part."""
    config = copy / "1_Pooling" / "adapter_config.json"
    config.write_text(json.dumps({"base_model_name_or_path": base}))
    reason = await loader.error("sentence-transformers", copy)
    assert reason.startswith(f"IntegrityError: {config}: its base_model_name_or_path is {base!r}")
    assert "merge_and_unload()" in reason


async def test_an_index_of_allowed_pickles_is_checked_too(loader: Loader, pickled: Path) -> None:
    """Allowed is what is beside it, and nothing else."""
    (pickled / "pytorch_model.bin").rename(pickled / "pytorch_model-00001-of-00001.bin")
    index = pickled / "pytorch_model.bin.index.json"
    index.write_text(json.dumps({"weight_map": {"a": "../evil.bin"}}))
    reason = await loader.error("sentence-transformers", pickled, allow_pickle=True)
    assert "'../evil.bin', which leaves the directory" in reason


async def test_a_part_that_leads_elsewhere_is_refused(
    loader: Loader, copy: Path, tmp_path: Path
) -> None:
    """What is in it would not be looked through."""
    (copy / "1_Pooling").rename(tmp_path / "pooling")
    (copy / "1_Pooling").symlink_to(tmp_path / "pooling")
    reason = await loader.error("sentence-transformers", copy)
    assert reason.startswith(f"IntegrityError: {copy / '1_Pooling'}: it is a link that leaves")


@pytest.mark.parametrize(
    ("settings", "what"),
    [
        ({"model_args": {"variant": "/../../x"}}, "variant is '/../../x'"),
        ({"model_args": {"subfolder": ["..\\x"]}}, "subfolder is '..\\\\x'"),
        ({"tokenizer_name_or_path": "someone"}, "tokenizer_name_or_path is 'someone'"),
    ],
    ids=["weights", "subfolder", "tokenizer"],
)
async def test_settings_that_lead_elsewhere_are_refused(
    loader: Loader, copy: Path, settings: dict[str, object], what: str
) -> None:
    """Weights and a tokenizer are read from the directory that was asked for."""
    path = next(copy.rglob("sentence_*_config.json"))
    path.write_text(json.dumps({**json.loads(path.read_text()), **settings}))
    with pytest.raises(LoadError) as caught:
        await loader.load("sentence-transformers", copy)
    reason = caught.value.attempts[-1].reason
    assert reason == f"IntegrityError: {path}: its {what}, which leads elsewhere"


async def test_a_tokenizer_without_a_vocabulary_is_an_error(loader: Loader, copy: Path) -> None:
    """The framework would make up one that knows no word, and vectors that mean nothing."""
    for path in copy.rglob("tokenizer.json"):
        path.unlink()
    (settings,) = copy.rglob("tokenizer_config.json")
    settings.write_text(json.dumps({"tokenizer_class": "BertTokenizer"}))
    reason = await loader.error("sentence-transformers", copy)
    assert "there is no vocabulary for its BertTokenizer" in reason
