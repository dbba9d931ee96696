"""One real inference for each module of the demo, told in a few words."""

from __future__ import annotations

from typing import Any

import numpy as np

from demo.modules import (
    AddressParser,
    BayesLanguage,
    FastTextLanguage,
    FileType,
    OnnxModel,
    VoiceActivity,
)

RATE = 16_000


def try_out(model: Any) -> str:
    """Runs one inference on ``model`` and returns its result as a person reads it."""
    match model:
        case OnnxModel():
            return compare_with_reference(model)
        case FileType():
            kind, score = model.infer(b"import sys\n\n\ndef main() -> None:\n    print(sys.path)\n")
            return f"some bytes: {kind}, {score:.2f}"
        case FastTextLanguage():
            sentence = "Wie spät ist es jetzt in Wien?"
            language, probability = model.infer(sentence)
            return f"{sentence!r}: {language}, {probability:.2f}"
        case BayesLanguage():
            sentence = "Quelle heure est-il à Paris ?"
            language, probability = model.infer(sentence)
            return f"{sentence!r}: {language}, {probability:.2f}"
        case AddressParser():
            words = model.infer("10 Main St, Austin TX")
            return " ".join(f"{word.strip(',')}={label}" for word, label in words)
        case VoiceActivity():
            return f"speech in a vowel {model.infer(vowel()):.2f}, a tone {model.infer(tone()):.2f}"
    raise TypeError(f"no inference for {type(model).__name__}")


def compare_with_reference(model: OnnxModel) -> str:
    """Runs the onnx package's own test of the model, with the output that the package ships.

    The weights of these models are constants, so this shows that the whole graph runs, and no
    more. The other inferences are those of trained models.
    """
    import onnx

    shape = model.input_shape
    size = int(np.prod(shape))
    ramp = (np.arange(size).reshape(shape) / size).astype(np.float32)
    scores = model.infer(ramp)
    shipped = onnx.load_tensor(str(model.path.with_name(f"{model.path.stem}_output_0.pb")))
    expected = onnx.numpy_helper.to_array(shipped)
    if scores.shape != expected.shape or not np.allclose(scores, expected, rtol=1e-3):
        raise RuntimeError(f"{model.path.name} does not give the output its package expects")
    return f"{scores.size} scores, as its package expects"


def vowel() -> bytes:
    """Returns one second of a synthetic "ah": a voice's harmonics, shaped by three formants."""
    time = np.arange(RATE) / RATE
    pitch = 140 * (1 + 0.04 * np.sin(2 * np.pi * 3 * time))
    phase = 2 * np.pi * np.cumsum(pitch) / RATE
    sound = np.zeros(RATE)
    for harmonic in range(1, 40):
        frequency = pitch * harmonic
        formants = ((700, 80), (1220, 90), (2600, 120))
        gain = sum(1 / (1 + ((frequency - at) / width) ** 2) for at, width in formants)
        sound += gain / np.sqrt(harmonic) * np.sin(harmonic * phase)
    return pcm(sound * (1 - np.cos(2 * np.pi * 4 * time)))


def tone() -> bytes:
    """Returns one second of 440 Hz."""
    return pcm(np.sin(2 * np.pi * 440 * np.arange(RATE) / RATE))


def pcm(sound: np.ndarray) -> bytes:
    """Returns ``sound`` as 16-bit samples, at two thirds of full scale."""
    samples: np.ndarray = sound / np.abs(sound).max() * 20_000
    return samples.astype("<i2").tobytes()
