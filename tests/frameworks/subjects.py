"""Kinds of models that parallel loads corrupt: how to load them, and how to tell what is right."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol


def make_models(directory: Path) -> None:
    """Write the models of the scenes."""
    import torch
    from made import bert, gpt2

    bert(directory / "bert")
    bert(directory / "masked", masked=True)
    gpt2(directory / "gpt2")
    net = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.ReLU(), torch.nn.Linear(16, 2))
    exported = torch.export.export(net.eval(), (torch.zeros(2, 8),))
    torch.export.save(exported, str(directory / "net.pt2"))


class Subject(Protocol):
    """A kind of model: how to load it, and how to tell whether it is right."""

    def by_hand(self, number: int) -> Any:
        """Load it as one does without anyload; loads of different numbers may differ."""
        ...

    def config(self, number: int) -> Any:
        """Return what to load with anyload."""
        ...

    def framework_model(self, loaded: Any) -> Any:
        """Return what ``by_hand`` returns, of what anyload has loaded."""
        ...

    def wrong(self, number: int, model: Any) -> str:
        """Return what is wrong with it; nothing if it is like one that was loaded alone."""
        ...


class Transformer:
    """A model of transformers, in one dtype or several in turn.

    Args:
        path: its directory.
        auto_class: the class whose ``from_pretrained`` loads it.
        dtypes: the dtypes, by name.
    """

    def __init__(self, path: Path, auto_class: str, dtypes: Sequence[str] = ("float32",)) -> None:
        import torch

        self.path, self.auto_class, self.dtypes = path, auto_class, dtypes
        self._ids = torch.tensor([[2, 5, 6, 3]])
        alone = [self.by_hand(number) for number in range(len(dtypes))]
        self.cls = type(alone[0])
        self._expected = [self._output(model) for model in alone]

    def by_hand(self, number: int) -> Any:
        import torch
        import transformers

        auto: Any = getattr(transformers, self.auto_class)
        dtype = getattr(torch, self._dtype(number))
        return auto.from_pretrained(self.path, local_files_only=True, dtype=dtype)

    def config(self, number: int) -> Any:
        from anyload import ModelConfig

        # No tokenizer beside it: exactly what is loaded by hand.
        fields = {"auto_class": self.auto_class, "processor": "none"}
        return ModelConfig("transformers", self.path, dtype=self._dtype(number), **fields)

    def framework_model(self, loaded: Any) -> Any:
        return loaded.model

    def wrong(self, number: int, model: Any) -> str:
        import torch

        found = []
        if any(one.is_meta for one in (*model.parameters(), *model.buffers())):
            found.append("on meta")
        got = {str(one.dtype).removeprefix("torch.") for one in model.parameters()}
        if got != {self._dtype(number)}:
            found.append(f"{'/'.join(sorted(got))} for {self._dtype(number)}")
        try:
            if not torch.equal(self._output(model), self._expected[number % len(self.dtypes)]):
                found.append("wrong output")
        except Exception as error:
            found.append(f"inference raises {type(error).__name__}")
        return ", ".join(found)

    def _dtype(self, number: int) -> str:
        return self.dtypes[number % len(self.dtypes)]

    def _output(self, model: Any) -> Any:
        import torch

        with torch.no_grad():
            return model(input_ids=self._ids)[0]


class Exported:
    """A program that ``torch.export.save`` has written.

    Args:
        path: its file.
    """

    def __init__(self, path: Path) -> None:
        import torch

        self.path = path
        self._input = torch.ones(2, 8)
        self._expected = self._output(self.by_hand(0))

    def by_hand(self, number: int) -> Any:
        import torch

        return torch.export.load(str(self.path)).module()

    def config(self, number: int) -> Any:
        from anyload import ModelConfig

        # A program is code, which is for whoever made the catalogue to allow.
        return ModelConfig("torch", self.path, allow_pickle=True)

    def framework_model(self, loaded: Any) -> Any:
        return loaded.model

    def wrong(self, number: int, model: Any) -> str:
        import torch

        return "" if torch.equal(self._output(model), self._expected) else "wrong output"

    def _output(self, model: Any) -> Any:
        import torch

        with torch.no_grad():
            return model(self._input)


def bert(models: Path) -> Subject:
    """A BERT whose output layer shares the weights of its embeddings."""
    return Transformer(models / "masked", "AutoModelForMaskedLM")


def gpt2(models: Path) -> Subject:
    """A GPT-2, whose output layer shares them too."""
    return Transformer(models / "gpt2", "AutoModelForCausalLM")


def mixed(models: Path) -> Subject:
    """A BERT in one dtype after the other."""
    in_turn = ("bfloat16", "float32", "float16", "float32")
    return Transformer(models / "bert", "AutoModel", in_turn)


def exported(models: Path) -> Subject:
    """A program of ``torch.export``."""
    return Exported(models / "net.pt2")


def attempt(load: Callable[[int], Any], number: int) -> Any:
    """Return what a load returns, or raises."""
    try:
        return load(number)
    except Exception as error:
        return error
