"""The module ``transformers``: what a model's directory may not have it do."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
import torch
from loading import Loader

from anyload import LoadError


@pytest.fixture
def copy(bert: Path, tmp_path: Path) -> Path:
    """A copy of the model, to be changed."""
    return Path(shutil.copytree(bert, tmp_path / "copy"))


@pytest.fixture
def pickled(copy: Path) -> Path:
    """The model with weights as they were saved before there was safetensors."""
    from safetensors.torch import load_file

    weights = copy / "model.safetensors"
    torch.save(load_file(weights), copy / "pytorch_model.bin")
    weights.unlink()
    return copy


async def test_pickled_weights_are_refused(loader: Loader, pickled: Path) -> None:
    """The error says how they can be allowed."""
    reason = await loader.error("transformers", pickled)
    assert reason.startswith(f"UnsafePickleError: {pickled / 'pytorch_model.bin'}")
    assert "allow_pickle: true in the catalogue" in reason


async def test_pickled_weights_can_be_allowed(loader: Loader, pickled: Path) -> None:
    """Then they are loaded like any other."""
    loaded, report = await loader.load("transformers", pickled, allow_pickle=True)
    assert report.observed.warnings == ()
    assert loaded.model.num_parameters() > 0


async def test_a_model_cannot_allow_its_own_pickle(loader: Loader, pickled: Path) -> None:
    """Its config.yml comes with it, from whoever made it."""
    (pickled / "config.yml").write_text("module_id: transformers\nallow_pickle: true\n")
    async with loader.initializer() as initializer:
        with pytest.raises(LoadError, match=r"a model's own config\.yml cannot allow it"):
            await initializer.init(pickled)


async def test_code_of_the_model_is_never_run(loader: Loader, copy: Path) -> None:
    """Not even where its config asks for it."""
    settings = json.loads((copy / "config.json").read_text())
    settings.pop("model_type")
    settings["auto_map"] = {"AutoConfig": "its_own.Config", "AutoModel": "its_own.Model"}
    (copy / "config.json").write_text(json.dumps(settings))
    (copy / "its_own.py").write_text("raise SystemExit('its code ran')")
    reason = await loader.error("transformers", copy)
    assert reason.startswith("ValueError")
    assert "its code ran" not in reason


@pytest.mark.parametrize(
    ("place", "says"),
    [
        ("evil.bin", "UnsafePickleError: "),
        ("../model.safetensors", "which leaves the directory"),
    ],
)
async def test_an_index_names_only_safetensors_beside_it(
    place: str, says: str, loader: Loader, copy: Path
) -> None:
    """Whatever other safetensors there are."""
    (copy / "model.safetensors").rename(copy / "other.safetensors")
    (copy / "evil.bin").write_bytes(b"")
    (copy / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": place}}))
    assert says in await loader.error("transformers", copy)


async def test_other_safetensors_do_not_hide_a_pickle(loader: Loader, pickled: Path) -> None:
    """The framework looks for one name of them, and takes the pickle next."""
    (pickled / "other.safetensors").write_bytes(b"")
    (pickled / "config.yml").write_text("module_id: transformers\nallow_pickle: true\n")
    assert "UnsafePickleError: " in await loader.error("transformers", pickled)
    async with loader.initializer() as initializer:
        with pytest.raises(LoadError, match=r"a model's own config\.yml cannot allow it"):
            await initializer.init(pickled)


@pytest.mark.parametrize(
    "settings",
    [
        {"nested": [{"trust_remote_code": True}]},
        {"text_config": {"_attn_implementation": "kernels-community/flash-attn"}},
        {"attn_implementation": {"": "someone/kernel"}},
    ],
)
async def test_a_file_that_asks_for_code_is_refused(
    settings: dict[str, object], loader: Loader, copy: Path
) -> None:
    """Some classes take what a nested config says for what the caller says."""
    known = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps({**known, **settings}))
    reason = await loader.error("transformers", copy)
    assert reason.startswith(f"UnsafePickleError: {copy / 'config.json'}")
    assert "asks for code" in reason


async def test_a_key_that_is_spelled_otherwise_is_seen_too(loader: Loader, copy: Path) -> None:
    """JSON has more than one way to write a letter."""
    (copy / "processor_config.json").write_text('{"trust\\u005fremote_code": 1}')
    assert "UnsafePickleError: " in await loader.error("transformers", copy)


async def test_a_model_cannot_set_options_of_its_own(loader: Loader, copy: Path) -> None:
    """They are arguments of the framework, and too many to know them all."""
    (copy / "config.yml").write_text("module_id: transformers\nmodel_options: {a: 1}\n")
    async with loader.initializer() as initializer:
        with pytest.raises(
            LoadError, match=r"model_options +not allowed in .*; put it into the catalogue"
        ):
            await initializer.init(copy)


@pytest.mark.parametrize(
    "name",
    [
        *("_attn_implementation_internal", "cache_dir", "offload_folder", "adapter_kwargs"),
        *("tp_size", "tp_plan", "device_mesh"),
    ],
)
async def test_options_that_reach_elsewhere_are_refused(
    name: str, loader: Loader, bert: Path
) -> None:
    """Other places, other cards, or code."""
    reason = await loader.error("transformers", bert, model_options={name: "x"})
    assert re.search(rf"model_options\.{name} +not allowed here", reason)


@pytest.mark.parametrize("base", ["google/base", "../base", "base", "/models/base", 7])
async def test_an_adapter_is_not_for_a_model_that_is_elsewhere(
    base: object, loader: Loader, copy: Path
) -> None:
    """The framework would load that one, from the Hub or wherever it is."""
    (copy / "base").mkdir()
    (copy / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": base}))
    reason = await loader.error("transformers", copy)
    assert reason.startswith(f"IntegrityError: {copy / 'adapter_config.json'}: ")
    assert f"is {base!r}, which is not in this directory" in reason
    assert "merge_and_unload()" in reason


@pytest.mark.parametrize("named", [True, False])
async def test_an_adapter_for_the_model_beside_it_is_fine(
    named: bool, loader: Loader, copy: Path
) -> None:
    """Without peft the framework leaves it alone."""
    base = str(copy) if named else None
    (copy / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": base}))
    await loader.load("transformers", copy)


async def test_a_pickled_adapter_must_be_allowed(loader: Loader, copy: Path) -> None:
    """The framework takes it where there are no safetensors, though it was asked for these."""
    (copy / "adapter_config.json").write_text("{}")
    (copy / "adapter_model.bin").write_bytes(b"")
    reason = await loader.error("transformers", copy)
    assert reason.startswith(f"UnsafePickleError: {copy / 'adapter_model.bin'}")
    await loader.load("transformers", copy, allow_pickle=True)


@pytest.mark.parametrize(
    ("place", "says"),
    [("../evil.bin", "which leaves the directory"), ("shard.bin", "shard.bin: it is missing")],
)
async def test_an_index_of_allowed_pickles_is_checked_too(
    place: str, says: str, loader: Loader, pickled: Path
) -> None:
    """Allowed is what is beside it, and nothing else."""
    (pickled / "pytorch_model.bin").rename(pickled / "pytorch_model-00001-of-00002.bin")
    (pickled.parent / "evil.bin").write_bytes(b"")
    (pickled / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": {"a": place}}))
    assert says in await loader.error("transformers", pickled, allow_pickle=True)


async def test_a_folder_that_leads_elsewhere_is_refused(
    loader: Loader, copy: Path, tmp_path: Path
) -> None:
    """What is in it would not be looked through; links to files are, as in the Hub's cache."""
    weights = (copy / "model.safetensors").rename(tmp_path / "blob")
    (copy / "model.safetensors").symlink_to(weights)
    await loader.load("transformers", copy)
    (tmp_path / "templates").mkdir()
    (copy / "more").symlink_to(tmp_path / "templates")
    reason = await loader.error("transformers", copy)
    assert reason.startswith(f"IntegrityError: {copy / 'more'}: it is a link that leaves")


async def test_a_folder_that_leads_back_is_no_matter(loader: Loader, copy: Path) -> None:
    """It is not gone round for ever."""
    (copy / "round").symlink_to(copy)
    await loader.load("transformers", copy)
