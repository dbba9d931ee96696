"""The module ``transformers``: models and tokenizers, from directories."""

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
from transformers import PreTrainedModel

from anyload.adapters._torch import TORCH_GLOBALS
from anyload.adapters.cuda import CudaBackend
from anyload.adapters.transformers import TransformersModel
from anyload.guard import Snapshot


@pytest.fixture
def copy(bert: Path, tmp_path: Path) -> Path:
    """A copy of the model, to be broken."""
    return Path(shutil.copytree(bert, tmp_path / "copy"))


async def test_a_directory_loads_infers_and_is_released(loader: Loader, bert: Path) -> None:
    """One inference on the processor; the report says where it is and what it holds."""
    loaded, report = await loader.load("transformers", bert)
    assert isinstance(loaded, TransformersModel)
    inputs = loaded.processor("the cat sat", return_tensors="pt")
    with torch.inference_mode():
        output = loaded.model(**inputs).last_hidden_state
    assert output.shape == (1, 3, 32)
    assert not loaded.model.training
    observed = report.observed
    assert observed.device == "cpu"
    assert observed.memory_bytes == loaded.model.get_memory_footprint()
    assert (observed.warnings, observed.changes) == ((), ())
    loaded.release()
    with pytest.raises(RuntimeError, match="this model was released"):
        loaded.model.eval()


async def test_another_class_with_tied_weights_generates(loader: Loader, made: Path) -> None:
    """A config.yml may name the class; weights that are tied are not random."""
    path = make.gpt2(made / "gpt2")
    (path / "config.yml").write_text(
        "module_id: transformers\nauto_class: AutoModelForCausalLM\nattention: eager\n"
    )
    async with loader.initializer() as initializer:
        loaded = await initializer.init(path)
    assert loaded.model.lm_head.weight is loaded.model.transformer.wte.weight
    assert loaded.model.config._attn_implementation == "eager"
    inputs = loaded.processor("the cat", return_tensors="pt")
    tokens = loaded.model.generate(**inputs, max_new_tokens=2, do_sample=False)
    assert tokens.shape == (1, 4)


@pytest.mark.parametrize(
    ("fields", "dtype"),
    [({}, torch.float32), ({"dtype": "bfloat16"}, torch.bfloat16)],
)
async def test_the_type_of_the_weights_can_be_asked_for(
    fields: dict[str, str], dtype: torch.dtype, loader: Loader, bert: Path
) -> None:
    """It is that of this model, and nothing is left of it for the next one."""
    loaded, report = await loader.load("transformers", bert, processor="none", **fields)
    assert loaded.processor is None
    assert loaded.model.dtype == dtype
    assert torch.get_default_dtype() == torch.float32
    assert report.observed.changes == ()


async def test_weights_that_were_made_up_are_in_the_report(loader: Loader, bert: Path) -> None:
    """The wrong class loads without an error, and guesses."""
    _, report = await loader.load(
        "transformers", bert, auto_class="AutoModelForSequenceClassification"
    )
    (warning,) = report.observed.warnings
    assert warning == (
        "2 weights are not in the files, and were made at random: "
        "classifier.bias, classifier.weight"
    )


async def test_weights_of_another_shape_are_in_the_report(loader: Loader, bert: Path) -> None:
    """Where an option has the framework ignore them."""
    options = {"ignore_mismatched_sizes": True, "vocab_size": 20}
    _, report = await loader.load("transformers", bert, model_options=options)
    (warning,) = report.observed.warnings
    assert warning.startswith("1 weights have another shape in the files")
    assert "word_embeddings" in warning


async def test_a_card_that_is_not_there_fails_before_the_load(
    loader: Loader, bert: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The backend may think that there is one; torch is asked, and the processor is next."""
    monkeypatch.setattr(CudaBackend, "available", lambda self: None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    _, report = await loader.load("transformers", bert, "CUDA", "LOCAL")
    raised, loaded = report.attempts
    assert (raised.outcome, loaded.outcome) == ("raised", "loaded")
    assert raised.reason.startswith("WrongDeviceError: asked for cuda:0, got no card: this torch")
    assert report.observed.device == "cpu"


async def test_a_card_of_too_high_a_number_fails_too(
    loader: Loader, bert: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The framework would say it at the end of the load, and less clearly."""
    monkeypatch.setattr(CudaBackend, "available", lambda self: None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert "got torch sees 0 cards" in await loader.error("transformers", bert, "CUDA")


async def test_it_is_on_the_device_of_its_backend(
    loader: Loader, bert: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Shown with a device that every machine has, and that holds no data."""
    monkeypatch.setattr(CudaBackend, "available", lambda self: None)
    monkeypatch.setattr(CudaBackend, "device", "meta")
    loaded, report = await loader.load("transformers", bert, "CUDA")
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
@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.json"])
async def test_a_broken_file_is_named(
    damage: Callable[[Path], object], name: str, loader: Loader, copy: Path
) -> None:
    """Empty, cut short, of another kind: the error names the file, out of all of them."""
    damage(copy / name)
    reason = await loader.error("transformers", copy)
    assert reason.startswith(f"IntegrityError: {copy / name}: ")


@pytest.mark.parametrize(
    ("name", "says"),
    [("model.safetensors", "there are no weights"), ("config.json", "there is no config.json")],
)
async def test_a_missing_file_is_named(name: str, says: str, loader: Loader, copy: Path) -> None:
    """Without a config.json the framework would talk about the Hub."""
    (copy / name).unlink()
    reason = await loader.error("transformers", copy)
    assert says in reason
    assert str(copy) in reason


async def test_a_file_is_no_directory(loader: Loader, bert: Path) -> None:
    """It is told before the framework takes it for something else."""
    reason = await loader.error("transformers", bert / "model.safetensors")
    assert "expected a directory with a config.json" in reason


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"dtyp": "auto"}, "did you mean 'dtype'?"),
        ({"dtype": "int8"}, "'bfloat16', 'float16', 'float32'"),
        ({"processor": "image"}, "'tokenizer', 'processor' or 'none'"),
        ({"auto_class": "AutoModelForNoSuch"}, "no model class 'AutoModelForNoSuch'"),
        ({"auto_class": "AutoTokenizer"}, "no model class 'AutoTokenizer'"),
        ({"auto_class": "pipeline"}, "no model class 'pipeline'"),
        ({"attention": "kernels-community/flash-attn"}, "a kernel from the Hub is code"),
        ({"model_options": {"trust_remote_code": True}}, "runs code that comes with the model"),
        ({"model_options": {"device_map": "auto"}}, "the backend says on which device"),
        ({"model_options": {"use_safetensors": False}}, "see the field allow_pickle"),
        ({"model_options": {"subfolder": "../other"}}, "model_path says where"),
        ({"model_options": {"nosuch": 1}}, "unexpected keyword argument 'nosuch'"),
    ],
)
async def test_a_field_that_cannot_be_used_is_told(
    fields: dict[str, object], says: str, loader: Loader, bert: Path
) -> None:
    """With what was meant, or what is known."""
    assert says in await loader.error("transformers", bert, **fields)


async def test_a_model_class_can_be_named_itself(loader: Loader, bert: Path) -> None:
    """Without a tokenizer, zeros are its warm-up."""
    loaded, _ = await loader.load("transformers", bert, auto_class="BertModel", processor="none")
    assert type(loaded.model).__name__ == "BertModel"


async def test_a_missing_shard_is_named(loader: Loader, copy: Path) -> None:
    """The index names it, the directory lacks it."""
    (copy / "model.safetensors").rename(copy / "model-00001-of-00002.safetensors")
    places = {"pooler.dense.bias": "model-00002-of-00002.safetensors"}
    index = {"metadata": {}, "weight_map": places}
    (copy / "model.safetensors.index.json").write_text(json.dumps(index))
    assert "model-00002-of-00002.safetensors" in await loader.error("transformers", copy)


async def test_a_warm_up_that_runs_out_of_memory_fails_the_attempt(
    loader: Loader, bert: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next backend may have room; any other error of a made-up input is nobody's fault."""
    calls: list[Exception] = []

    def forward(self: object, **inputs: object) -> None:
        assert "input_ids" in inputs
        calls.append(RuntimeError() if calls else torch.OutOfMemoryError("no room"))
        raise calls[-1]

    monkeypatch.setattr("transformers.BertModel.forward", forward)
    assert await loader.error("transformers", bert) == "OutOfMemoryError: no room"
    await loader.load("transformers", bert)
    assert len(calls) == 2


def test_what_a_load_leaves_patched_is_seen_and_put_back() -> None:
    """What overlapping loads outside of anyload do to a process, made by hand."""
    kept = (torch.get_default_dtype(), torch.nn.init.normal_, PreTrainedModel.tie_weights)
    snapshot = Snapshot(TORCH_GLOBALS)
    torch.set_default_dtype(torch.bfloat16)
    torch.nn.init.normal_ = torch.nn.init.zeros_
    PreTrainedModel.tie_weights = PreTrainedModel.init_weights
    changes = snapshot.changes()
    for change in changes:
        change.restore()
    assert [(change.told().name, change.restored) for change in changes] == [
        ("torch's default dtype", True),
        ("transformers.modeling_utils.PreTrainedModel.tie_weights", True),
        ("torch.nn.init.normal_", True),
    ]
    assert (torch.get_default_dtype(), torch.nn.init.normal_, PreTrainedModel.tie_weights) == kept


async def test_a_missing_framework_names_its_extra(
    loader: Loader, bert: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the command that installs it."""
    monkeypatch.setitem(sys.modules, "transformers", None)
    reason = await loader.error("transformers", bert)
    assert "transformers is not installed; pip install 'anyload[transformers]'" in reason


async def test_a_file_that_nothing_reads_is_not_named(loader: Loader, copy: Path) -> None:
    """Another error is not its fault."""
    (copy / "notes.json").write_text("no json")
    (copy / "tokenizer.json").write_text("{")
    reason = await loader.error("transformers", copy)
    assert reason.startswith(f"IntegrityError: {copy / 'tokenizer.json'}")


async def test_a_tokenizer_that_fails_in_the_warm_up_is_nobodys_fault(
    loader: Loader, bert: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A word may be no input of it."""

    def call(*args: object, **named: object) -> None:
        raise ValueError("no words")

    monkeypatch.setattr("transformers.PreTrainedTokenizerBase.__call__", call)
    await loader.load("transformers", bert)


class TestVocabulary:
    """The framework makes one up where there is none, and says nothing."""

    @pytest.mark.parametrize(
        ("kind", "files"),
        [
            ("BertTokenizer", "tokenizer.json or vocab.txt"),
            ("GPT2Tokenizer", "tokenizer.json or vocab.json"),
            ("LlamaTokenizer", "tokenizer.json or tokenizer.model"),
        ],
    )
    async def test_that_is_missing_is_an_error(
        self, kind: str, files: str, loader: Loader, copy: Path
    ) -> None:
        """It names the files that could have it; the model itself still loads alone."""
        tokenizer_of(copy, kind)
        reason = await loader.error("transformers", copy)
        what = f"there is no vocabulary for its {kind}, no {files}"
        assert reason == f"IntegrityError: {copy}: {what}"
        loaded, _ = await loader.load("transformers", copy, processor="none")
        assert loaded.processor is None

    @pytest.mark.parametrize("kind", ["ByT5Tokenizer", "CanineTokenizer", "PerceiverTokenizer"])
    async def test_that_is_computed_needs_no_file(
        self, kind: str, loader: Loader, copy: Path
    ) -> None:
        """These kinds have one, of bytes or letters."""
        tokenizer_of(copy, kind)
        loaded, _ = await loader.load("transformers", copy)
        assert type(loaded.processor).__name__ == kind
        assert len(loaded.processor("cat").input_ids) >= 3

    async def test_of_words_in_a_list_is_one(self, loader: Loader, copy: Path) -> None:
        """As it was saved before there was one file for all of a tokenizer."""
        tokenizer_of(copy, "BertTokenizer")
        (copy / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "cat"]))
        loaded, _ = await loader.load("transformers", copy)
        assert loaded.processor("cat").input_ids == [2, 4, 3]


def tokenizer_of(directory: Path, kind: str) -> None:
    """Have a directory say of which kind its tokenizer is, and nothing more of it."""
    (directory / "tokenizer.json").unlink()
    (directory / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": kind}))
