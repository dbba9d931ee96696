"""Models made on the spot: small, valid, and of every format that the adapters load."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

WORDS = ("the", "cat", "sat", "on", "mat", "a", "good", "bad", "film")


def onnx_model(path: Path, width: int = 4, layers: int = 1, *, beside: str = "") -> Path:
    """Write a model that multiplies ``x``, a batch of rows, by random matrices into ``y``.

    The matrices may be beside it, in a file of their own.
    """
    import numpy as np
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    random = np.random.default_rng(0)
    weights = [random.standard_normal((width, width), dtype=np.float32) for _ in range(layers)]
    names = ["x", *(f"h{layer}" for layer in range(1, layers)), "y"]
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", [names[layer], f"w{layer}"], [names[layer + 1]])
            for layer in range(layers)
        ],
        "made",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["rows", width])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["rows", width])],
        [numpy_helper.from_array(one, f"w{layer}") for layer, one in enumerate(weights)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    named = {"save_as_external_data": True, "location": beside, "size_threshold": 0}
    onnx.save(model, str(path), **(named if beside else {}))
    return path


def tokenizer() -> Any:
    """Return a tokenizer that knows a few words."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    special = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
    vocabulary = {word: place for place, word in enumerate((*special, *WORDS))}
    words = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(
        tokenizer_object=words,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
        bos_token="[CLS]",
        eos_token="[SEP]",
        model_max_length=64,
    )


def bert(path: Path, *, masked: bool = False, hidden: int = 32) -> Path:
    """Write a tiny BERT and its tokenizer; the masked language model has tied weights."""
    from transformers import BertConfig, BertForMaskedLM, BertModel

    words = tokenizer()
    config = BertConfig(
        vocab_size=len(words),
        hidden_size=hidden,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=2 * hidden,
        max_position_embeddings=64,
    )
    (BertForMaskedLM if masked else BertModel)(config).save_pretrained(path)
    words.save_pretrained(path)
    return path


def gpt2(path: Path) -> Path:
    """Write a tiny GPT-2 with tied weights, and its tokenizer."""
    from transformers import GPT2Config, GPT2LMHeadModel

    words = tokenizer()
    config = GPT2Config(
        vocab_size=len(words),
        n_embd=32,
        n_layer=2,
        n_head=2,
        n_positions=64,
        bos_token_id=2,
        eos_token_id=3,
    )
    GPT2LMHeadModel(config).save_pretrained(path)
    words.save_pretrained(path)
    return path


def sentence_model(path: Path, bert: Path) -> Path:
    """Write a tiny BERT with mean pooling on top, as a model of sentence-transformers."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer

    words = Transformer(str(bert))
    pooling = Pooling(words.get_embedding_dimension())
    SentenceTransformer(modules=[words, pooling], device="cpu").save(str(path))
    return path


def net() -> Any:
    """Return a small network of torch with random weights, for rows of 8."""
    import torch

    return torch.nn.Sequential(
        torch.nn.Linear(8, 16), torch.nn.ReLU(), torch.nn.Linear(16, 2)
    ).eval()


def state_dict(path: Path) -> Path:
    """Write the weights of `net` as torch does."""
    import torch

    torch.save(net().state_dict(), path)
    return path


def torchscript(path: Path) -> Path:
    """Write `net` as TorchScript."""
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.script(net()).save(str(path))
    return path


def exported(path: Path) -> Path:
    """Write `net` as an exported program."""
    import torch

    rows = torch.export.Dim("rows")
    program = torch.export.export(net(), (torch.zeros(2, 8),), dynamic_shapes=({0: rows},))
    torch.export.save(program, path)
    return path


def safetensors(path: Path) -> Path:
    """Write the weights of `net` as safetensors."""
    from safetensors.torch import save_file

    save_file(net().state_dict(), path)
    return path
