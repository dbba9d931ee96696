"""The module ``torch``: state dicts, TorchScript and exported programs."""

from __future__ import annotations

import shutil
import struct
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import made as make
import pytest
import torch
from loading import Loader

from anyload import ConfigError, ModelConfig
from anyload.adapters._torch import GROUP
from anyload.adapters.cuda import CudaBackend
from anyload.adapters.torch import ExportedProgram, StateDict, TorchModel, TorchScript

# What loads an exported program is code, so that each test of one has to allow it.
ALLOWED = {"allow_pickle": True}
EACH = pytest.mark.parametrize(
    ("name", "fields"), [("net.pt", {}), ("net.jit", {}), ("net.pt2", ALLOWED)]
)


class Sentiment(StateDict):
    """What a user writes for a network of their own."""

    factory = make.net


def remembering() -> Any:
    """Return a network with a buffer that is not saved."""
    layer = torch.nn.Linear(2, 2)
    layer.register_buffer("steps", torch.arange(3), persistent=False)
    return layer


@pytest.fixture(scope="session")
def models(made: Path) -> Path:
    """A directory with one model of each format."""
    directory = made / "torch"
    directory.mkdir()
    make.state_dict(directory / "net.pt")
    make.torchscript(directory / "net.jit")
    make.exported(directory / "net.pt2")
    return directory


async def test_a_state_dict_loads_and_is_released(loader: Loader, models: Path) -> None:
    """The report says where its tensors are, and how large."""
    loaded, report = await loader.load("torch", models / "net.pt")
    assert type(loaded) is StateDict
    assert loaded.state_dict["0.weight"].shape == (16, 8)
    assert loaded.model is None
    observed = report.observed
    size = 4 * (8 * 16 + 16 + 16 * 2 + 2)
    assert (observed.device, observed.memory_bytes, observed.changes) == ("cpu", size, ())
    loaded.release()
    with pytest.raises(RuntimeError, match="this model was released"):
        loaded.state_dict.keys()


async def test_a_state_dict_goes_into_what_a_factory_makes(loader: Loader, models: Path) -> None:
    """Given with the call; the weights are those of the file, ready for inference."""
    config = ModelConfig("torch", models / "net.pt")
    async with loader.initializer() as initializer:
        loaded = await initializer.init(config, factory=make.net)
    assert not loaded.model.training
    wanted = make.net()
    wanted.load_state_dict(torch.load(models / "net.pt", weights_only=True))
    rows = torch.ones(3, 8)
    assert torch.equal(loaded.model(rows), wanted(rows))


async def test_a_subclass_with_a_factory_is_a_module_of_its_own(
    loader: Loader, models: Path
) -> None:
    """Nothing else has to be written for a network of one's own."""
    loader.registry.module("sentiment")(Sentiment)
    loaded, report = await loader.load("sentiment", models / "net.pt")
    assert loaded.model(torch.ones(3, 8)).shape == (3, 2)
    assert report.attempts[0].implementation == f"{Sentiment.__module__}.Sentiment"


async def test_buffers_that_are_not_saved_are_made(loader: Loader, tmp_path: Path) -> None:
    """Only the factory can make them."""
    torch.save(remembering().state_dict(), tmp_path / "net.pt")
    async with loader.initializer() as initializer:
        loaded = await initializer.init(ModelConfig("torch", tmp_path), factory=remembering)
    assert loaded.model.steps.tolist() == [0, 1, 2]


def counting() -> Any:
    """Return a network that looked at values when it was made, and has a tensor as an attribute."""
    made = torch.nn.Linear(8, 2)
    made.rates = [rate.item() for rate in torch.linspace(0, 1, 3)]
    made.scale = torch.full((2,), 0.5)
    return made


async def test_a_factory_may_use_values(loader: Loader, tmp_path: Path) -> None:
    """It runs as it would without anyload."""
    torch.save(counting().state_dict(), tmp_path / "net.pt")
    async with loader.initializer() as initializer:
        loaded = await initializer.init(ModelConfig("torch", tmp_path), factory=counting)
    assert loaded.model.rates == [0, 0.5, 1]
    assert loaded.model.scale.tolist() == [0.5, 0.5]


async def test_weights_of_another_network_are_told(loader: Loader, tmp_path: Path) -> None:
    """As the framework tells it, with the names."""
    torch.save({"other": torch.zeros(1)}, tmp_path / "net.pt")
    loader.registry.module("sentiment")(Sentiment)
    assert 'Unexpected key(s) in state_dict: "other"' in await loader.error("sentiment", tmp_path)


@pytest.mark.parametrize("mmap", [True, False])
async def test_a_checkpoint_of_an_older_torch_loads(
    mmap: bool, loader: Loader, tmp_path: Path
) -> None:
    """It is no archive and cannot be mapped; its tensors may lie deeper."""
    path = tmp_path / "net.pth"
    checkpoint = {"epoch": 3, "model": make.net().state_dict(), "more": [torch.zeros(2)]}
    torch.save(checkpoint, path, _use_new_zipfile_serialization=False)
    loaded, report = await loader.load("torch", path, mmap=mmap)
    assert loaded.state_dict["epoch"] == 3
    assert report.observed.memory_bytes == 4 * (8 * 16 + 16 + 16 * 2 + 2 + 2)


async def test_torchscript_loads_infers_and_is_released(loader: Loader, models: Path) -> None:
    """That it is deprecated does not stop a load where warnings are errors."""
    path = models / "net.jit"
    loaded, report = await loader.load("torch", path)
    assert type(loaded) is TorchScript
    assert not loaded.model.training
    assert loaded.model(torch.ones(3, 8)).shape == (3, 2)
    observed = report.observed
    assert (observed.device, observed.memory_bytes) == ("cpu", path.stat().st_size)
    loaded.release()
    with pytest.raises(RuntimeError, match="this model was released"):
        loaded.model.eval()


def test_each_format_declares_what_it_needs() -> None:
    """What changes torch's globals, or lets a factory use them, is alone in its group."""
    assert ExportedProgram.exclusive_group == StateDict.exclusive_group == GROUP
    assert not hasattr(TorchScript, "exclusive_group")
    assert TorchScript.holds_gil
    assert not hasattr(StateDict, "holds_gil")


@EACH
async def test_a_directory_with_one_model_loads(
    name: str, fields: dict[str, Any], loader: Loader, models: Path, tmp_path: Path
) -> None:
    """The suffix tells the format."""
    shutil.copy(models / name, tmp_path / name)
    loaded, _ = await loader.load("torch", tmp_path, **fields)
    assert loaded.device == "cpu"


async def test_the_format_can_be_said(loader: Loader, models: Path, tmp_path: Path) -> None:
    """A file of TorchScript is often named .pt, by its config.yml or whoever made it."""
    shutil.copy(models / "net.jit", tmp_path / "net.pt")
    reason = await loader.error("torch", tmp_path)
    assert "it is of the format torchscript, not state-dict; the field format says" in reason
    (tmp_path / "config.yml").write_text("module_id: torch\nformat: torchscript\n")
    async with loader.initializer() as initializer:
        assert type(await initializer.init(tmp_path)) is TorchScript


@pytest.mark.parametrize(
    ("name", "fields", "says"),
    [
        ("net.pt", {"format": "onnx"}, "which of these it is: state-dict, torchscript, export"),
        ("net.onnx", {}, "which of these it is: state-dict, torchscript, export"),
    ],
)
async def test_an_unknown_format_is_told_with_the_known_ones(
    name: str, fields: dict[str, str], says: str, loader: Loader, tmp_path: Path
) -> None:
    """Before anything is planned."""
    (tmp_path / name).write_bytes(b"x")
    with pytest.raises(ConfigError, match=says):
        await loader.load("torch", tmp_path / name, **fields)


@EACH
async def test_a_card_that_is_not_there_fails_before_the_load(
    name: str,
    fields: dict[str, Any],
    loader: Loader,
    models: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The backend may think that there is one; torch is asked, and the processor is next."""
    monkeypatch.setattr(CudaBackend, "available", lambda self: None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    _, report = await loader.load("torch", models / name, "CUDA", "LOCAL", **fields)
    raised, loaded = report.attempts
    assert (raised.outcome, loaded.outcome) == ("raised", "loaded")
    assert raised.reason.startswith("WrongDeviceError: asked for cuda:0")
    assert report.observed.device == "cpu"


@EACH
async def test_it_is_on_the_device_of_its_backend(
    name: str,
    fields: dict[str, Any],
    loader: Loader,
    models: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Shown with a device that every machine has, and that holds no data."""
    monkeypatch.setattr(CudaBackend, "available", lambda self: None)
    monkeypatch.setattr(CudaBackend, "device", "meta")
    loaded, report = await loader.load("torch", models / name, "CUDA", **fields)
    assert report.observed.device == "meta"
    loaded.release()


@EACH
@pytest.mark.parametrize(
    "content",
    [
        lambda whole: whole[: len(whole) // 2],
        lambda whole: whole[:-1],
        lambda whole: b"this is no model at all",
        lambda whole: b"\x89PNG\r\n\x1a\n",
        lambda whole: b"\x80\x02cut short",
    ],
)
async def test_a_file_that_is_no_model_is_named(
    content: Callable[[bytes], bytes],
    name: str,
    fields: dict[str, Any],
    loader: Loader,
    models: Path,
    tmp_path: Path,
) -> None:
    """Cut short, of another kind: the error names the file."""
    bad = tmp_path / f"bad-{name}"
    bad.write_bytes(content((models / name).read_bytes()))
    reason = await loader.error("torch", bad, **fields)
    assert reason.startswith(f"IntegrityError: {bad}: ")


@EACH
async def test_an_empty_file_is_named(
    name: str, fields: dict[str, Any], loader: Loader, tmp_path: Path
) -> None:
    """Whether its format was said or not."""
    bad = tmp_path / name
    bad.touch()
    with pytest.raises(Exception, match="the file is empty") as caught:
        await loader.load("torch", bad, **fields)
    assert name in str(caught.value)


def wipe(path: Path, member: str) -> None:
    """Put zeros into one member of an archive whose table of contents stays whole."""
    whole = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        (one,) = (one for one in archive.infolist() if one.filename.endswith(member))
    # Its own header repeats its name, and pads it so that the content is aligned.
    name, extra = struct.unpack_from("<HH", whole, one.header_offset + 26)
    start = one.header_offset + 30 + name + extra
    path.write_bytes(whole[:start] + bytes(one.file_size) + whole[start + one.file_size :])


@pytest.mark.parametrize(
    ("name", "member", "fields"),
    [
        ("net.pt", "/data.pkl", {}),
        ("net.jit", "/data.pkl", {}),
        ("net.pt2", "/model.json", ALLOWED),
    ],
)
async def test_an_archive_that_is_damaged_inside_is_named(
    name: str,
    member: str,
    fields: dict[str, Any],
    loader: Loader,
    models: Path,
    tmp_path: Path,
) -> None:
    """It is the framework that finds it, and does not say in which file."""
    bad = Path(shutil.copy(models / name, tmp_path / name))
    wipe(bad, member)
    reason = await loader.error("torch", bad, **fields)
    assert reason.startswith(f"IntegrityError: {bad}: it is broken")


@pytest.mark.parametrize("archive", [True, False])
async def test_a_pickled_module_is_never_loaded(
    archive: bool, loader: Loader, tmp_path: Path
) -> None:
    """No option allows it; the error says what to save instead."""
    path = tmp_path / "net.pt"
    torch.save(make.net(), path, _use_new_zipfile_serialization=archive)
    reason = await loader.error("torch", path)
    assert reason.startswith(f"UnsafePickleError: {path}: it is a pickle that holds torch.nn.")
    assert "torch.save(model.state_dict(), path)" in reason
    assert "unknown key" in await loader.error("torch", path, allow_pickle=True)


@EACH
async def test_an_unknown_field_is_told_with_what_was_meant(
    name: str, fields: dict[str, Any], loader: Loader, models: Path
) -> None:
    """Each format has its own fields."""
    known = "mmap" if name == "net.pt" else "trim_memory"
    reason = await loader.error("torch", models / name, **{f"{known}x": True}, **fields)
    assert f"did you mean '{known}'?" in reason


async def test_a_missing_framework_names_its_extra(
    loader: Loader, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the command that installs it."""
    monkeypatch.setitem(sys.modules, "torch", None)
    reason = await loader.error("torch", models / "net.pt")
    assert "torch is not installed; pip install 'anyload[torch]'" in reason


def test_a_variant_is_its_own_variant() -> None:
    """What a subclass loads is not chosen again."""
    config = ModelConfig("sentiment", "anything.pt2")
    assert Sentiment.variant(config) is Sentiment
    assert issubclass(Sentiment, TorchModel)
