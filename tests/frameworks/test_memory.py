"""A release truly gives memory back: a process per framework, which measures itself.

Each loads a small model first, which pays for what a framework keeps for ever, and then a big one;
all through anyload, with nothing turned off but the warm-up, so that the first inference is seen.

glibc gives each thread an arena of its own. `malloc_trim` does not touch the free top of such an
arena, and once a big block was freed the process keeps tops of up to twice its size, 64 MB at most.
So of models that come in small pieces something stays, another amount after each load, by the order
in which threads free them; the next loads use it again, which eight in a row show. With a fixed
``MALLOC_TRIM_THRESHOLD_`` in the environment, or with one arena, next to nothing stays; for xgboost
only with one arena.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import made as make
import made_tabular as tabular
import pytest

from anyload import Initializer, ModelConfig, Registry

MB = 1_000_000
KEPT_MB = 30.0
ONE_ARENA = ("MALLOC_ARENA_MAX", "1")
TRIMMED = ("MALLOC_TRIM_THRESHOLD_", "131072")


class Case(NamedTuple):
    """What is loaded, and what is asked of it.

    Args:
        module_id: the module that loads it.
        make: writes the model into a directory, the big one or a small one, and returns its path.
        infer: takes the loaded model and uses all of it.
        fields: the fields of its config, by its path.
        kept: the share of its memory that may stay with the process.
        environment: variables of the process.
        loads: how often it is loaded and released; the figures are the largest.
    """

    module_id: str
    make: Callable[[Path, bool], Path]
    infer: Callable[[Any], Any]
    fields: Callable[[Path], dict[str, Any]] = lambda path: {}
    kept: float = 0.25
    environment: tuple[tuple[str, str], ...] = ()
    loads: int = 1


class Figures(NamedTuple):
    """Resident memory in MB: as it was before the load, and then."""

    before: float
    loaded: float
    inferred: float
    released: float


def onnx(directory: Path, big: bool) -> Path:
    return make.onnx_model(directory / "model.onnx", *((2048, 8) if big else (4, 1)))


def forest(suffix: str) -> Callable[[Path, bool], Path]:
    def write(directory: Path, big: bool) -> Path:
        import joblib
        import skops.io

        path = directory / f"model{suffix}"
        made = tabular.forest(8, count=30_000, copies=15) if big else tabular.forest()
        (skops.io if suffix == ".skops" else joblib).dump(made, path)
        return path

    return write


def trusted(path: Path) -> dict[str, Any]:
    return {"trusted": ["sklearn.tree._tree.Tree"]}


def allowed(path: Path) -> dict[str, Any]:
    return {"allow_pickle": True, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}


def xgboost(directory: Path, big: bool) -> Path:
    options = {"depth": 14, "count": 20_000, "copies": 100} if big else {}
    tabular.xgboost_booster(**options).save_model(directory / "model.ubj")
    return directory / "model.ubj"


def lightgbm(directory: Path, big: bool) -> Path:
    options = {"leaves": 4095, "count": 20_000, "copies": 100} if big else {}
    tabular.lightgbm_booster(**options).save_model(directory / "model.txt")
    return directory / "model.txt"


def spacy(directory: Path, big: bool) -> Path:
    return tabular.spacy_pipeline(directory / "pipeline", words=300_000 if big else 0)


def pipe(model: Any) -> Any:
    return model.pipe(["a good film"])


def network(big: bool) -> Any:
    import torch

    width, layers = (2048, 12) if big else (8, 2)
    return torch.nn.Sequential(*(torch.nn.Linear(width, width) for _ in range(layers))).eval()


def torchscript(directory: Path, big: bool) -> Path:
    import torch

    torch.jit.script(network(big)).save(str(directory / "model.jit"))
    return directory / "model.jit"


def exported(directory: Path, big: bool) -> Path:
    import torch

    made = network(big)
    program = torch.export.export(made, (torch.zeros(1, made[0].in_features),))
    torch.export.save(program, directory / "model.pt2")
    return directory / "model.pt2"


def state_dict(directory: Path, big: bool) -> Path:
    import torch

    torch.save(network(big).state_dict(), directory / "model.pt")
    return directory / "model.pt"


def safetensors(directory: Path, big: bool) -> Path:
    from safetensors.torch import save_file

    save_file(network(big).state_dict(), directory / "model.safetensors")
    return directory / "model.safetensors"


def bert(directory: Path, big: bool) -> Path:
    if not big:
        return make.bert(directory / "bert")
    from transformers import BertConfig, BertModel

    BertModel(BertConfig()).save_pretrained(directory / "bert")
    return directory / "bert"


def sentences(directory: Path, big: bool) -> Path:
    return make.sentence_model(directory / "sentences", bert(directory, big))


def predict(model: Any) -> Any:
    import numpy

    return model.predict(numpy.zeros((1, tabular.FEATURES)))


def run_onnx(model: Any) -> Any:
    import numpy

    (one,) = model.session.get_inputs()
    return model.run({one.name: numpy.zeros((1, one.shape[1]), numpy.float32)})


def run_network(model: Any) -> Any:
    import torch

    width = next(model.model.parameters()).shape[0]
    return model.model(torch.zeros(1, width))


def sum_tensors(tensors: Any) -> Any:
    return sum(float(one.sum()) for one in tensors.values())


def run_bert(model: Any) -> Any:
    import torch

    return model.model(input_ids=torch.ones(1, 8, dtype=torch.long))


CASES = {
    "onnxruntime": Case("onnx", onnx, run_onnx),
    "skops": Case("sklearn", forest(".skops"), predict, trusted),
    "joblib": Case("sklearn", forest(".joblib"), predict, allowed),
    "xgboost": Case("xgboost", xgboost, predict, kept=0.6),
    "xgboost, 8 loads": Case("xgboost", xgboost, predict, kept=0.6, loads=8),
    "xgboost, 1 arena": Case("xgboost", xgboost, predict, environment=(ONE_ARENA,)),
    "lightgbm": Case("lightgbm", lightgbm, predict, kept=0.6),
    "lightgbm, 8 loads": Case("lightgbm", lightgbm, predict, kept=0.8, loads=8),
    "lightgbm, 1 arena": Case("lightgbm", lightgbm, predict, environment=(ONE_ARENA,)),
    "lightgbm, tops given back": Case("lightgbm", lightgbm, predict, environment=(TRIMMED,)),
    "spacy": Case("spacy", spacy, pipe, kept=0.6),
    "spacy, 8 loads": Case("spacy", spacy, pipe, kept=0.6, loads=8),
    "spacy, 1 arena": Case("spacy", spacy, pipe, environment=(ONE_ARENA,)),
    "spacy, tops given back": Case("spacy", spacy, pipe, environment=(TRIMMED,)),
    "torchscript": Case("torch", torchscript, run_network),
    "torch.export": Case("torch", exported, run_network, lambda path: {"allow_pickle": True}),
    "state dict, mapped": Case("torch", state_dict, lambda model: sum_tensors(model.state_dict)),
    "state dict, read": Case(
        "torch",
        state_dict,
        lambda model: sum_tensors(model.state_dict),
        lambda path: {"mmap": False},
    ),
    "safetensors, torch": Case(
        "safetensors",
        safetensors,
        lambda model: sum_tensors(model.tensors),
        lambda path: {"framework": "torch"},
    ),
    "safetensors, numpy": Case(
        "safetensors",
        safetensors,
        lambda model: sum_tensors(model.tensors),
        lambda path: {"framework": "numpy"},
    ),
    "transformers": Case("transformers", bert, run_bert),
    "sentence-transformers": Case(
        "sentence-transformers", sentences, lambda model: model.encode(["the cat sat"])
    ),
}


Written = Callable[[Callable[[Path, bool], Path]], list[str]]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Written:
    """Writes a small model and a big one, where that was not done before."""

    @cache
    def write(make: Callable[[Path, bool], Path]) -> list[str]:
        return [
            str(make(tmp_path_factory.mktemp("big" if big else "small"), big))
            for big in (False, True)
        ]

    return write


@pytest.fixture(scope="module")
def figures(request: pytest.FixtureRequest) -> Iterator[Callable[[str, Figures], None]]:
    """Takes what was measured, and prints it all when the last process has ended."""
    rows: list[tuple[str, Figures]] = []
    yield lambda name, measured: rows.append((name, measured))
    plugins = request.config.pluginmanager
    terminal = plugins.get_plugin("terminalreporter")
    capture = plugins.get_plugin("capturemanager")
    assert terminal is not None
    assert capture is not None
    with capture.global_and_fixture_disabled():
        terminal.write_line("")
        terminal.write_line("RSS in MB                  before  loaded  inferred  released")
        for name, (before, *then) in rows:
            loaded, inferred, released = (value - before for value in then)
            terminal.write_line(
                f"{name:<26} {before:6.0f}  {loaded:+6.0f}  {inferred:+8.0f}  {released:+8.0f}"
            )


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("name", CASES)
def test_a_release_gives_memory_back(
    name: str, written: Written, figures: Callable[[str, Figures], None]
) -> None:
    """Nearly all that the load and the first inference had taken."""
    case = CASES[name]
    ended = subprocess.run(
        [sys.executable, __file__, name, *written(case.make)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **dict(case.environment)},
    )
    assert ended.returncode == 0, ended.stderr
    measured = Figures(*json.loads(ended.stdout.splitlines()[-1]))
    figures(name, measured)
    growth = max(measured.loaded, measured.inferred) - measured.before
    assert growth > 1.5 * KEPT_MB, "the model is too small to see anything"
    assert measured.released - measured.before < max(KEPT_MB, case.kept * growth)


async def measure(case: Case, small: Path, big: Path) -> Figures:
    """Load both, one after the other, and return the figures of the big one."""
    priority = [{"type": "LOCAL"}]
    registry = Registry.discover()
    async with Initializer(registry, backend_priority=priority, warmup=False) as initializer:
        await use(initializer, case, small)
        before = rss()
        seen = [await use(initializer, case, big) for _ in range(case.loads)]
    return Figures(before, *map(max, zip(*seen, strict=True)))


async def use(initializer: Initializer, case: Case, path: Path) -> tuple[float, float, float]:
    """Return what the process holds when a model is loaded, was used and is released."""
    model = await initializer.init(ModelConfig(case.module_id, path, **case.fields(path)))
    loaded = rss()
    case.infer(model)
    inferred = rss()
    model.release()
    del model
    return loaded, inferred, rss()


def rss() -> float:
    """Return the resident memory of this process in MB."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    (line,) = [line for line in status.splitlines() if line.startswith("VmRSS:")]
    return int(line.split()[1]) * 1024 / MB


if __name__ == "__main__":
    name, *paths = sys.argv[1:]
    sys.stdout.write(json.dumps(asyncio.run(measure(CASES[name], *map(Path, paths)))))
