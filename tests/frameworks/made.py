"""Models made on the spot: small, valid, and of every format that the adapters load."""

from __future__ import annotations

from pathlib import Path
from typing import Any

WORDS = ("the", "cat", "sat", "on", "mat", "a", "good", "bad", "film")


def onnx_model(path: Path, width: int = 4, layers: int = 1) -> Path:
    """Write a model that multiplies ``x``, a batch of rows, by random matrices into ``y``."""
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
    onnx.save(model, str(path))
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
