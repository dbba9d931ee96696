"""What the adapters share, and the CUDA backend; the adapters themselves are in frameworks/."""

from __future__ import annotations

import copy
import ctypes
import pickle
import sys
import types
import weakref
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from anyload import (
    ConfigError,
    Initializer,
    IntegrityError,
    LocalBackend,
    MissingExtraError,
    ModelConfig,
    Registry,
    WrongDeviceError,
)
from anyload._cards import card_memory
from anyload._keeping.meter import SystemMeter
from anyload.adapters import _framework as framework
from anyload.adapters._first_run import first_run
from anyload.adapters._memory import give_back_memory
from anyload.adapters.cuda import CudaBackend
from anyload.config import BackendConfig, Count


class Driver:
    """NVIDIA's management library, with this many cards."""

    def __init__(self, cards: int, *, works: bool = True) -> None:
        self.cards = cards
        self.open = 0
        self.nvmlInit_v2 = lambda: self._init(works)
        self.nvmlDeviceGetCount_v2 = self._count
        self.nvmlDeviceGetHandleByIndex_v2 = self._by_index
        self.nvmlDeviceGetHandleByUUID = self._by_identifier
        self.nvmlDeviceGetMemoryInfo = self._memory
        self.nvmlShutdown = self._shutdown
        self.sizes = [1000 * (1 + one) for one in range(cards)]
        self.identifiers: dict[bytes, int] = {}

    def _init(self, works: bool) -> int:
        self.open += works
        return 0 if works else 9

    def _count(self, into: Any) -> int:
        into._obj.value = self.cards
        return 0

    def _by_index(self, index: int, into: Any) -> int:
        into._obj.value = 1 + index  # no null pointer
        return 0

    def _by_identifier(self, identifier: bytes, into: Any) -> int:
        into._obj.value = 1 + self.identifiers.get(identifier, -1)
        return 0 if identifier in self.identifiers else 6

    def _memory(self, handle: Any, into: Any) -> int:
        assert self.open
        size = self.sizes[handle.value - 1]
        into._obj.total = size
        return 0 if size else 999

    def _shutdown(self) -> None:
        self.open -= 1


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return what installs a driver, or none."""

    def install(driver: Driver | None) -> None:
        def load(name: str) -> Driver:
            if driver is None:
                raise OSError(f"{name}: cannot open shared object file")
            return driver

        monkeypatch.setattr(ctypes, "CDLL", load)

    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return install


def card(number: int = 0) -> CudaBackend:
    return CudaBackend(CudaBackend.Config(device=number))


class TestCuda:
    @pytest.mark.parametrize(
        ("cards", "visible", "number", "reason"),
        [
            (1, None, 0, None),
            (2, None, 1, None),
            (1, None, 1, "there is no cuda:1: 1 NVIDIA cards on this machine"),
            (2, "", 0, "there is no cuda:0 among CUDA_VISIBLE_DEVICES="),
            (2, "-1", 0, "there is no cuda:0 among CUDA_VISIBLE_DEVICES=-1"),
            (2, "1", 0, None),
            (2, "1", 1, "there is no cuda:1 among CUDA_VISIBLE_DEVICES=1"),
            (2, "0,-1,1", 1, "there is no cuda:1 among CUDA_VISIBLE_DEVICES=0,-1,1"),
            (2, "GPU-8932f937,1", 1, None),
            (1, "7", 0, "there is no cuda:0 among CUDA_VISIBLE_DEVICES=7"),
            (2, "0,2,1", 1, "there is no cuda:1 among CUDA_VISIBLE_DEVICES=0,2,1"),
            (2, "0,0", 1, "there is no cuda:1 among CUDA_VISIBLE_DEVICES=0,0"),
            (2, "0, 00", 1, "there is no cuda:1 among CUDA_VISIBLE_DEVICES=0, 00"),
            (1, "abc", 0, "there is no cuda:0 among CUDA_VISIBLE_DEVICES=abc"),
            (1, "MIG-1/2/3,MIG-1/2/4", 1, None),
            (0, "GPU-8932f937", 0, "there is no cuda:0: 0 NVIDIA cards on this machine"),
        ],
    )
    def test_is_available_where_there_is_such_a_card(
        self,
        cards: int,
        visible: str | None,
        number: int,
        reason: str | None,
        driver: Any,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """Cards are counted as CUDA counts them, and the driver is left as it was."""
        library = Driver(cards)
        driver(library)
        if visible is not None:
            monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
        assert card(number).available() == reason
        assert library.open == 0

    @pytest.mark.parametrize("library", [None, Driver(1, works=False)])
    def test_is_not_where_there_is_no_driver(self, library: Driver | None, driver: Any) -> None:
        """A machine without one is the usual case, and no error."""
        driver(library)
        assert card().available() == "there is no cuda:0: 0 NVIDIA cards on this machine"

    def test_names_its_device_as_frameworks_do(self) -> None:
        """The number is the configured one."""
        assert (card(3).device, framework.device_of(card(3))) == ("cuda:3", "cuda:3")
        assert framework.device_of(LocalBackend(BackendConfig())) == "cpu"

    def test_is_discovered(self) -> None:
        """It comes with anyload and needs no extra."""
        assert Registry.discover().backend_types["CUDA"] is CudaBackend


class TestCards:
    def test_a_card_s_memory(self, driver: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        """It is told by the number that CUDA gives the card, and the driver is left as it was."""
        library = Driver(2)
        driver(library)
        monkeypatch.setenv("CUDA_DEVICE_ORDER", "PCI_BUS_ID")
        assert [card_memory(number) for number in range(3)] == [1000, 2000, None]
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
        assert [card_memory(number) for number in range(2)] == [2000, None]
        library.sizes[1] = 0
        assert card_memory(0) is None
        assert SystemMeter().total("cuda:0") is None
        library.identifiers[b"GPU-8932f937"] = 0
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-8932f937,GPU-0")
        assert [card_memory(number) for number in range(2)] == [1000, None]
        assert SystemMeter().total("cuda:0") == 1000
        assert library.open == 0

    def test_cards_that_differ(self, driver: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        """Where CUDA counts the fastest first, it is told only if all cards have as much."""
        library = Driver(2)
        driver(library)
        monkeypatch.delenv("CUDA_DEVICE_ORDER", raising=False)
        assert card_memory(0) is None
        library.sizes = [1000, 1000]
        assert [card_memory(number) for number in range(2)] == [1000, 1000]

    @pytest.mark.parametrize("library", [None, Driver(1, works=False)])
    def test_without_a_driver(self, library: Driver | None, driver: Any) -> None:
        """A machine without one has no card whose memory could be told."""
        driver(library)
        assert card_memory(0) is None


class TestRequire:
    def test_returns_the_first_of_what_it_imports(self) -> None:
        """The others are imported for their effect."""
        import json

        assert framework.require("json", "json.decoder", extra="x") is json

    def test_names_the_extra_of_what_is_missing(self) -> None:
        """The error says what to type."""
        with pytest.raises(MissingExtraError, match=r"pip install 'anyload\[frame\]'"):
            framework.require("no_such_framework.part", extra="frame")

    def test_does_not_blame_a_framework_for_what_it_lacks(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A broken installation is an error of its own."""
        (tmp_path / "half_installed.py").write_text("import no_such_dependency\n")
        monkeypatch.syspath_prepend(tmp_path)
        with pytest.raises(ModuleNotFoundError, match="no_such_dependency"):
            framework.require("half_installed", extra="frame")


@pytest.mark.parametrize(
    ("adapter", "missing", "extra"),
    [
        ("lightgbm.LightgbmModel", "lightgbm", "lightgbm"),
        ("onnx.OnnxModel", "onnxruntime", "onnxruntime"),
        ("safetensors.NumpyTensors", "numpy", "safetensors"),
        ("safetensors.TorchTensors", "safetensors", "safetensors"),
        ("sentence_transformers.SentenceTransformersModel", "torch", "sentence-transformers"),
        ("sklearn.SklearnModel", "sklearn", "scikit-learn"),
        ("spacy.SpacyModel", "spacy", "spacy"),
        ("torch.ExportedProgram", "torch", "torch"),
        ("torch.StateDict", "torch", "torch"),
        ("torch.TorchScript", "torch", "torch"),
        ("transformers.TransformersModel", "torch", "transformers"),
        ("xgboost.XgboostModel", "xgboost", "xgboost"),
    ],
)
def test_each_adapter_names_its_extra(
    adapter: str, missing: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where its framework is not installed; the adapter itself is imported without it."""
    module, _, name = adapter.partition(".")
    cls = getattr(import_module(f"anyload.adapters.{module}"), name)
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(MissingExtraError) as caught:
        cls.prepare()
    assert (caught.value.package, caught.value.extra) == (missing, extra)


class Options(BackendConfig):
    threads: Count = 0


def test_the_fields_of_a_config_are_checked() -> None:
    """As strictly as a configuration, with the model's name in the error."""
    assert framework.options(ModelConfig("m", threads=2), Options).threads == 2
    with pytest.raises(ConfigError, match="did you mean 'threads'"):
        framework.options(ModelConfig("m", "models/a", thread=2), Options)


class TestOneFile:
    def test_is_the_path_itself_or_the_one_in_a_directory(self, tmp_path: Path) -> None:
        """Other files in a directory do not matter."""
        (tmp_path / "a.bin").write_bytes(b"x")
        (tmp_path / "config.yml").write_bytes(b"x")
        for path in (tmp_path, tmp_path / "a.bin"):
            assert framework.one_file(ModelConfig("m", path), [".bin"]) == tmp_path / "a.bin"

    @pytest.mark.parametrize(
        ("names", "path", "says"),
        [
            ((), ".", "expected one file that ends in .bin or .dat, found none"),
            (("a.bin", "b.dat"), ".", "found a.bin, b.dat"),
            ((), "a.bin", "there is no such file"),
            (("empty.bin",), "empty.bin", "the file is empty"),
        ],
    )
    def test_says_what_is_wrong(
        self, names: tuple[str, ...], path: str, says: str, tmp_path: Path
    ) -> None:
        """Nothing is guessed."""
        for name in names:
            (tmp_path / name).write_bytes(b"" if "empty" in name else b"x")
        with pytest.raises(IntegrityError, match=says):
            framework.one_file(ModelConfig("m", tmp_path / path), [".bin", ".dat"])


@pytest.mark.parametrize(
    ("asked", "got"), [("cpu", "cpu"), ("cuda", "cuda:0"), ("cuda:1", "cuda:1")]
)
def test_the_device_asked_for_is_fine(asked: str, got: str) -> None:
    """A kind of device stands for any of that kind."""
    framework.check_device(asked, got)


@pytest.mark.parametrize(
    ("asked", "got"), [("cuda:0", "cpu"), ("cuda:1", "cuda:0"), ("cpu", "mps")]
)
def test_another_device_is_an_error(asked: str, got: str) -> None:
    """Both are named."""
    with pytest.raises(WrongDeviceError, match=f"asked for {asked}, got {got}"):
        framework.check_device(asked, got)


def test_memory_is_given_back_where_the_c_library_can(monkeypatch: pytest.MonkeyPatch) -> None:
    """With glibc its trim is called; elsewhere only garbage is collected."""
    trimmed: list[int] = []
    library = types.SimpleNamespace(malloc_trim=trimmed.append)
    monkeypatch.setattr(ctypes, "CDLL", lambda name: library)
    monkeypatch.setattr(sys, "platform", "linux")
    give_back_memory()
    monkeypatch.setattr(sys, "platform", "darwin")
    give_back_memory()
    assert trimmed == [0]


def test_one_line_of_an_error_is_enough() -> None:
    """The rest are stack traces of C++, or nothing."""
    assert framework.one_line(RuntimeError("\nCheck failed\nStack trace:\n  [0]")) == "Check failed"
    assert framework.one_line(EOFError()) == "EOFError"


class TestFirstRun:
    @pytest.mark.parametrize(
        "error",
        [
            MemoryError(),
            type("OutOfMemoryError", (RuntimeError,), {})("no room"),
            RuntimeError("CUDA error: out of memory"),
            RuntimeError("CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate(handle)"),
            RuntimeError(
                "[enforce fail at alloc_cpu.cpp:118] DefaultCPUAllocator: can't allocate memory"
            ),
            RuntimeError(
                "[ONNXRuntimeError] : 1 : FAIL : Failed to allocate memory for requested buffer"
            ),
            ValueError("std::bad_alloc"),
        ],
    )
    def test_without_memory_is_an_error(self, error: Exception) -> None:
        """Whatever type it is of, and what it was using is let go of."""
        kept: list[weakref.ref[Any]] = []

        def run() -> None:
            tensor = set[int]()
            kept.append(weakref.ref(tensor))
            raise error

        with pytest.raises(type(error)) as caught, first_run():
            run()
        assert caught.value is error
        assert kept[0]() is None

    @pytest.mark.parametrize(
        "error",
        [
            RuntimeError("CUDA error: no kernel image is available for execution on the device"),
            RuntimeError("CUDA error: device-side assert triggered"),
            type("AcceleratorError", (RuntimeError,), {})("an illegal memory access"),
            RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"),
            RuntimeError("CUBLAS_STATUS_NOT_INITIALIZED when calling cublasCreate(handle)"),
            RuntimeError("[ONNXRuntimeError] : 1 : FAIL : CUDA failure 209: no kernel image"),
            AssertionError("Torch not compiled with CUDA enabled"),
            NotImplementedError("Could not run 'quantized::linear' with arguments from 'CUDA'"),
        ],
    )
    def test_that_the_device_cannot_do_is_an_error(self, error: Exception) -> None:
        """The model would fail on every input."""
        with pytest.raises(type(error)) as caught, first_run():
            raise error
        assert caught.value is error

    @pytest.mark.parametrize(
        "error", [ImportError("no module"), OSError("a read failed"), IntegrityError("a", "b")]
    )
    def test_for_which_something_is_missing_is_an_error(self, error: Exception) -> None:
        """What was made up for it is no reason for that."""
        with pytest.raises(type(error)), first_run():
            raise error

    async def test_that_fails_otherwise_is_reported(self) -> None:
        """What was made up for it may be no valid input; the model is there, and it is told."""

        class Picky:
            @classmethod
            def load(cls, config: ModelConfig) -> Picky:
                return cls()

            def warmup(self) -> None:
                with first_run():
                    raise ValueError("index 0 is out of range\nand more")

        registry = Registry()
        registry.module("picky")(Picky)
        async with (
            Initializer(registry) as initializer,
            initializer.init_each([ModelConfig("picky")]) as outcomes,
        ):
            (outcome,) = [outcome async for outcome in outcomes]
        assert isinstance(outcome.value, Picky)
        (warning,) = outcome.report.observed.warnings
        assert warning.startswith("its first run, on an input that was made up, failed with ")
        assert warning.endswith(" ValueError: index 0 is out of range")

    def test_that_works_is_silent(self) -> None:
        """Nothing is raised, nothing is told."""
        with first_run():
            pass


class TestReleased:
    @pytest.mark.parametrize(
        "use",
        [
            lambda gone: gone.run(),
            lambda gone: gone(1),
            lambda gone: gone["weight"],
            lambda gone: "weight" in gone,
            list,
        ],
    )
    def test_says_so_whatever_is_asked_of_it(self, use: Any) -> None:
        """Called, looked into, read."""
        with pytest.raises(RuntimeError, match="this model was released"):
            use(framework.Released())

    def test_has_nothing(self) -> None:
        """Code that looks before it asks gets an answer."""
        gone = framework.Released()
        assert not hasattr(gone, "run")
        assert getattr(gone, "run", None) is None
        assert repr(gone) == "<a model that was released>"

    def test_can_be_copied(self) -> None:
        """With whatever it is in."""
        gone = framework.Released()
        for one in (copy.copy(gone), copy.deepcopy(gone), pickle.loads(pickle.dumps(gone))):
            assert type(one) is framework.Released


SAFETENSORS = ["a.safetensors", "part/a.safetensors"]


@pytest.mark.parametrize(
    ("module_id", "weights"),
    [
        ("transformers", SAFETENSORS),
        ("sentence-transformers", SAFETENSORS),
        ("safetensors", SAFETENSORS),
        ("sklearn", ["a.skops"]),
        ("xgboost", ["a.ubj"]),
        ("lightgbm", ["a.txt"]),
        ("torch", ["a.pt"]),
        ("onnx", None),
        ("spacy", None),
    ],
)
def test_names_the_files_to_read_ahead(
    module_id: str, weights: list[str] | None, tmp_path: Path
) -> None:
    """A model that is a file is that file; of a directory the weights, or all where any may be."""
    names = [*SAFETENSORS, "a.bin", "a.onnx", "a.pt", "a.skops", "a.txt", "a.ubj", "config.yml"]
    (tmp_path / "part").mkdir()
    for name in names:
        (tmp_path / name).touch()
    found = Registry.discover().implementations(module_id)["LOCAL"].weight_files
    assert found is not None
    named = [Path(path) for path in found(ModelConfig(module_id, tmp_path))]
    assert sorted(path.relative_to(tmp_path).as_posix() for path in named) == sorted(
        weights or names
    )
    file = tmp_path / "model.other"
    file.touch()
    assert found(ModelConfig(module_id, file)) == [file]


def test_names_pickled_weights_where_there_are_no_others(tmp_path: Path) -> None:
    """As the adapter loads them, if it may."""
    (tmp_path / "pytorch_model.bin").touch()
    found = Registry.discover().implementations("transformers")["LOCAL"].weight_files
    assert found is not None
    assert found(ModelConfig("transformers", tmp_path)) == [tmp_path / "pytorch_model.bin"]
