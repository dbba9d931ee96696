"""The module ``torch``: exported programs."""

from __future__ import annotations

import re
import shutil
import zipfile
from pathlib import Path
from typing import Any

import made as make
import pytest
import torch
from loading import Loader

from anyload import LoadError
from anyload.adapters.cuda import CudaBackend
from anyload.adapters.torch import ExportedProgram


@pytest.fixture(scope="session")
def program(made: Path) -> Path:
    return make.exported(made / "net.pt2")


async def test_an_exported_program_loads_infers_and_is_released(
    loader: Loader, program: Path
) -> None:
    """Its load patches torch, and leaves nothing of it behind."""
    loaded, report = await loader.load("torch", program, allow_pickle=True)
    assert type(loaded) is ExportedProgram
    assert loaded.model(torch.ones(3, 8)).shape == (3, 2)
    observed = report.observed
    assert (observed.device, observed.memory_bytes) == ("cpu", program.stat().st_size)
    assert [one for one in observed.changes if "torch" in one.name] == []
    loaded.release()
    with pytest.raises(RuntimeError, match="this model was released"):
        loaded.program.module()


async def test_the_constants_of_a_program_are_on_its_device_too(
    loader: Loader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not its weights alone: the first inference would fail."""

    class Shifted(torch.nn.Module):  # type: ignore[misc]  # torch has no types here
        def __init__(self) -> None:
            super().__init__()
            self.layer = torch.nn.Linear(2, 2)

        def forward(self, rows: Any) -> Any:
            return self.layer(rows) + torch.tensor([1.0, 2.0])

    def without_constants(exported: Any, device: str) -> Any:
        for name, one in exported.state_dict.items():
            exported.state_dict[name] = one.to(device)
        return exported

    path = tmp_path / "shifted.pt2"
    torch.export.save(torch.export.export(Shifted().eval(), (torch.zeros(1, 2),)), path)
    monkeypatch.setattr(CudaBackend, "available", lambda self: None)
    monkeypatch.setattr(CudaBackend, "device", "meta")
    await loader.load("torch", path, "CUDA", allow_pickle=True)
    monkeypatch.setattr("torch.export.passes.move_to_device_pass", without_constants)
    reason = await loader.error("torch", path, "CUDA", allow_pickle=True)
    assert reason == "WrongDeviceError: asked for meta, got cpu"


async def test_an_exported_program_must_be_allowed(loader: Loader, program: Path) -> None:
    """Its load runs code that is in the file; the error says how it can be allowed."""
    reason = await loader.error("torch", program)
    assert reason.startswith(f"UnsafePickleError: {program}")
    assert "allow_pickle: true in the catalogue" in reason


async def test_a_program_cannot_allow_itself(loader: Loader, program: Path, tmp_path: Path) -> None:
    """Its config.yml comes with it, from whoever made it."""
    shutil.copy(program, tmp_path)
    (tmp_path / "config.yml").write_text("module_id: torch\nallow_pickle: true\n")
    async with loader.initializer() as initializer:
        with pytest.raises(LoadError, match=r"a model's own config\.yml cannot allow it"):
            await initializer.init(tmp_path)


def test_the_framework_runs_code_in_an_exported_program(program: Path, tmp_path: Path) -> None:
    """Why it must be allowed: the size of a dimension is an expression, and is evaluated.

    Where this fails torch has become safer, and a program of it may do without being allowed.
    """
    proof, bad = tmp_path / "it-ran", tmp_path / "bad.pt2"
    code = f"__import__('pathlib').Path({str(proof)!r}).touch()"
    with zipfile.ZipFile(program) as good, zipfile.ZipFile(bad, "w") as archive:
        for name in good.namelist():
            text = good.read(name)
            if name.endswith("models/model.json"):
                text = re.sub(
                    rb'"expr_str": "[^"]*"', lambda _: f'"expr_str": "{code}"'.encode(), text
                )
            archive.writestr(name, text)
    with pytest.raises(Exception, match="is_Integer"):
        torch.export.load(bad)
    assert proof.exists()
