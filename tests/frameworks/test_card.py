"""A card: loads there, memory that it gets back, and one that is full.

The full card is stood in for, so that it is tested everywhere. The tests marked ``gpu`` take a real
one, and are skipped where there is none.
"""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from pkgutil import resolve_name
from typing import Any, NamedTuple

import made as make
import numpy as np
import onnxruntime
import pytest
import torch
from loading import Loader
from onnxruntime.capi.onnxruntime_pybind11_state import RuntimeException

from anyload.adapters.cuda import CudaBackend

WIDTH = 1024
"""Of what is loaded: its weights need more than what torch has left over from before."""

BUILT_FOR = f"CUDA {torch.version.cuda}" if torch.version.cuda else "the processor only"
needs_card = pytest.mark.skipif(
    not torch.cuda.is_available(), reason=f"there is no card: this torch is built for {BUILT_FOR}"
)
needs_onnx_card = pytest.mark.skipif(
    "CUDAExecutionProvider" not in onnxruntime.get_available_providers(),
    reason="this onnxruntime has no CUDAExecutionProvider; it is in onnxruntime-gpu",
)

NO_ROOM = "CUDA out of memory. Tried to allocate 2.00 GiB."
NO_ROOM_FOR_ONNX = (
    "[ONNXRuntimeError] : 6 : RUNTIME_EXCEPTION : Exception during initialization: bfc_arena.cc:376"
    " Failed to allocate memory for requested buffer of size 2147483648"
)


class Case(NamedTuple):
    """A model of the torch family.

    Args:
        module_id: the module that loads it.
        make: writes it, below a directory that is its own, and returns its path.
        puts: the function that puts it on a card.
        infer: uses the loaded model.
        fields: the fields of its config.
    """

    module_id: str
    make: Callable[[Path], Path]
    puts: str
    infer: Callable[[Any], Any]
    fields: tuple[tuple[str, Any], ...] = ()


def wide(directory: Path, suffix: str) -> Path:
    path = directory / f"net{suffix}"
    net = torch.nn.Sequential(torch.nn.Linear(WIDTH, WIDTH), torch.nn.ReLU()).eval()
    if suffix == ".pt":
        torch.save(net.state_dict(), path)
    elif suffix == ".jit":
        torch.jit.script(net).save(str(path))
    elif suffix == ".pt2":
        torch.export.save(torch.export.export(net, (torch.zeros(1, WIDTH),)), path)
    else:
        from safetensors.torch import save_file

        save_file(net.state_dict(), path)
    return path


def sentences(directory: Path) -> Path:
    words = make.bert(directory / "words", hidden=WIDTH)
    return make.sentence_model(directory / "sentences", words)


def call(loaded: Any) -> Any:
    return loaded.model(torch.zeros(1, WIDTH, device=loaded.device))


def read(loaded: Any) -> Any:
    return loaded.model(input_ids=torch.ones(1, 4, dtype=torch.int64, device=loaded.device))


CASES = {
    "state dict": Case(
        "torch",
        lambda place: wide(place, ".pt"),
        "torch.load",
        lambda loaded: loaded.state_dict["0.weight"] @ loaded.state_dict["0.bias"],
    ),
    "torchscript": Case("torch", lambda place: wide(place, ".jit"), "torch.jit.load", call),
    "exported": Case(
        "torch",
        lambda place: wide(place, ".pt2"),
        "torch.export.passes.move_to_device_pass",
        call,
        (("allow_pickle", True),),
    ),
    "safetensors": Case(
        "safetensors",
        lambda place: wide(place, ".safetensors"),
        "safetensors.torch.load_file",
        lambda loaded: loaded.tensors["0.weight"] @ loaded.tensors["0.bias"],
    ),
    "transformers": Case(
        "transformers",
        lambda place: make.bert(place / "bert", hidden=WIDTH),
        "torch.nn.Module.to",
        read,
    ),
    "sentence-transformers": Case(
        "sentence-transformers",
        sentences,
        "torch.nn.Module.to",
        lambda loaded: loaded.encode(["the cat sat"]),
    ),
}
EACH = pytest.mark.parametrize("name", CASES)
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Writes a model where that was not done before."""
    written: dict[str, Path] = {}

    def path(name: str) -> Path:
        if name not in written:
            written[name] = CASES[name].make(tmp_path_factory.mktemp("card"))
        return written[name]

    return path


@pytest.fixture(scope="module")
def onnx_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make.onnx_model(tmp_path_factory.mktemp("onnx") / "wide.onnx", 2 * WIDTH, 12)


class FullCard:
    """Stands in for a card that has no room for all of a model.

    Attributes:
        held: how much of what was put there somebody still had, each time its memory was emptied.
    """

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.held: list[int] = []
        self._patch = patch
        self._parts: list[weakref.ref[Any]] = []
        patch.setattr(CudaBackend, "available", lambda self: None)
        for name, value in (("is_available", True), ("is_initialized", True), ("device_count", 1)):
            patch.setattr(torch.cuda, name, lambda value=value: value)
        patch.setattr(torch.cuda, "empty_cache", self._empty)

    def behind(self, name: str) -> None:
        """Have this function fail where it is to put something on the card."""
        real = resolve_name(name)

        def put(*arguments: Any, **named: Any) -> Any:
            if not any(str(one) == "cuda:0" for one in (*arguments[1:], *named.values())):
                return real(*arguments, **named)
            part = torch.zeros(1)
            models = [one for one in arguments if isinstance(one, torch.nn.Module)]
            self._parts += [weakref.ref(one) for one in (part, *models)]
            raise torch.OutOfMemoryError(NO_ROOM)

        self._patch.setattr(name, put)

    def _empty(self) -> None:
        self.held.append(sum(part() is not None for part in self._parts))


@pytest.fixture
def full_card(monkeypatch: pytest.MonkeyPatch) -> FullCard:
    return FullCard(monkeypatch)


@EACH
async def test_where_a_card_is_full_the_processor_is_next(
    name: str, loader: Loader, paths: Callable[[str], Path], full_card: FullCard
) -> None:
    """The report has both; nobody holds the tensors of the first when its memory is given back."""
    case = CASES[name]
    full_card.behind(case.puts)
    loaded, report = await loader.load(
        case.module_id, paths(name), "CUDA", "LOCAL", **dict(case.fields)
    )
    failed, succeeded = report.attempts
    assert (failed.backend, failed.outcome) == ("CUDA", "raised")
    assert failed.reason == f"OutOfMemoryError: {NO_ROOM}"
    assert (succeeded.backend, succeeded.outcome) == ("LOCAL", "loaded")
    assert report.observed.device == "cpu"
    assert full_card.held == [0]
    case.infer(loaded)


async def test_onnxruntime_takes_the_processor_where_a_card_is_full(
    loader: Loader, onnx_model: Path, full_card: FullCard, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it says of memory is no fault of the file."""
    real = onnxruntime.InferenceSession

    def session(path: str, options: Any, providers: list[Any]) -> Any:
        if providers[0][0] == "CUDAExecutionProvider":
            assert providers[0][1] == {"device_id": 0}
            raise RuntimeException(NO_ROOM_FOR_ONNX)
        return real(path, options, providers=providers)

    names = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: names)
    monkeypatch.setattr(onnxruntime, "InferenceSession", session)
    _, report = await loader.load("onnx", onnx_model, "CUDA", "LOCAL")
    failed, succeeded = report.attempts
    assert (failed.outcome, failed.reason) == ("raised", f"RuntimeException: {NO_ROOM_FOR_ONNX}")
    assert (succeeded.backend, succeeded.outcome) == ("LOCAL", "loaded")


async def test_a_model_without_room_for_its_first_run_is_gone_before_the_next(
    loader: Loader, paths: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was loaded, and its warm-up fails: the attempt has failed, and it is released."""
    monkeypatch.setattr(CudaBackend, "available", lambda self: None)
    monkeypatch.setattr(CudaBackend, "device", "meta")  # that every machine has
    models: list[weakref.ref[Any]] = []
    gone: list[bool] = []

    def forward(self: Any, **inputs: Any) -> None:
        gone.append(all(model() is None for model in models))
        models.append(weakref.ref(self))
        if len(models) == 1:
            raise torch.OutOfMemoryError(NO_ROOM)

    monkeypatch.setattr("transformers.BertModel.forward", forward)
    _, report = await loader.load("transformers", paths("transformers"), "CUDA", "LOCAL")
    assert [one.outcome for one in report.attempts] == ["raised", "loaded"]
    assert report.attempts[0].reason == f"OutOfMemoryError: {NO_ROOM}"
    assert gone == [True, True]


def held() -> int:
    """Return the bytes of tensors on the card, but for what cuBLAS keeps to work with."""
    gc.collect()
    torch._C._cuda_clearCublasWorkspaces()
    return int(torch.cuda.memory_allocated())


def taken() -> int:
    """Return the bytes of the card that are taken, by whomever."""
    free, total = torch.cuda.mem_get_info()
    return int(total - free)


@pytest.fixture
def no_room() -> Iterator[None]:
    """Lets torch take nothing more of the card."""
    gc.collect()
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(0.0)
    yield
    torch.cuda.set_per_process_memory_fraction(1.0)


@pytest.mark.gpu
@needs_card
class TestCard:
    @EACH
    async def test_a_model_is_on_it_infers_and_gives_it_back(
        self, name: str, loader: Loader, paths: Callable[[str], Path]
    ) -> None:
        """All of its tensors are gone with its release, and torch keeps nothing for later."""
        case = CASES[name]
        before = held()
        loaded, report = await loader.load(case.module_id, paths(name), "CUDA", **dict(case.fields))
        assert report.observed.device == "cuda:0"
        case.infer(loaded)
        torch.cuda.synchronize()
        assert held() >= before + 4 * WIDTH * WIDTH
        loaded.release()
        assert held() == before
        torch.cuda.empty_cache()
        assert torch.cuda.memory_reserved() <= before + 2 * 2**20

    @EACH
    async def test_where_it_is_full_the_processor_is_next(
        self, name: str, loader: Loader, paths: Callable[[str], Path], no_room: None
    ) -> None:
        """And what was there already of the model is given back."""
        case = CASES[name]
        before = (held(), torch.cuda.memory_reserved())
        loaded, report = await loader.load(
            case.module_id, paths(name), "CUDA", "LOCAL", **dict(case.fields)
        )
        failed, succeeded = report.attempts
        assert failed.outcome == "raised"
        assert "out of memory" in failed.reason
        assert (succeeded.backend, succeeded.outcome) == ("LOCAL", "loaded")
        assert (held(), torch.cuda.memory_reserved()) == before
        case.infer(loaded)

    async def test_xgboost_predicts_on_it(self, loader: Loader, tmp_path: Path) -> None:
        """It takes the card that it was asked to take."""
        import made_tabular as tabular

        path = tmp_path / "booster.ubj"
        tabular.xgboost_booster().save_model(path)
        loaded, report = await loader.load("xgboost", path, "CUDA")
        assert report.observed.device == "cuda:0"
        assert loaded.predict(np.ones((1, tabular.FEATURES))).shape == (1,)

    @needs_onnx_card
    async def test_onnxruntime_infers_on_it_and_gives_it_back(
        self, loader: Loader, onnx_model: Path
    ) -> None:
        """The second time, that is: what CUDA itself needs stays with the process."""
        rows = {"x": np.ones((1, 2 * WIDTH), np.float32)}
        for _ in range(2):
            before = taken()
            loaded, report = await loader.load("onnx", onnx_model, "CUDA")
            assert report.observed.device == "cuda:0"
            loaded.run(rows)
            while_loaded = taken()
            loaded.release()
        size = onnx_model.stat().st_size
        assert while_loaded - before > size / 2
        assert taken() - before < size / 4

    @needs_onnx_card
    async def test_where_it_is_full_onnxruntime_takes_the_processor(
        self, loader: Loader, onnx_model: Path
    ) -> None:
        """Somebody else has all of it but a little."""
        loaded, _ = await loader.load("onnx", onnx_model, "CUDA")  # what CUDA itself needs
        loaded.release()
        free, _ = torch.cuda.mem_get_info()
        others = torch.empty(free - 64 * 2**20, dtype=torch.uint8, device="cuda:0")
        loaded, report = await loader.load("onnx", onnx_model, "CUDA", "LOCAL")
        del others
        torch.cuda.empty_cache()
        assert [one.outcome for one in report.attempts] == ["raised", "loaded"]
        assert not report.attempts[0].reason.startswith("IntegrityError")
        assert report.backend == "LOCAL"
