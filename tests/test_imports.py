"""What a configuration names is imported with a clock beside it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from anyload._setup import import_named
from anyload.config import InitializerConfig

Module = Callable[[str, str], str]


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Module:
    """Makes a module that nobody has imported, and returns its name."""
    monkeypatch.syspath_prepend(tmp_path)

    def make(name: str, code: str) -> str:
        (tmp_path / f"{name}.py").write_text(code)
        monkeypatch.delitem(sys.modules, name, raising=False)
        return name

    return make


def test_each_module_is_imported_once_and_told_of(module: Module) -> None:
    """Those of backends first; nothing is told of what is there already."""
    slow, gpu = module("slow_one", "import time\ntime.sleep(0.05)"), module("gpu_one", "")
    config = InitializerConfig(
        backend_types={"GPU": f"{gpu}:Gpu"},
        modules={"a": {"LOCAL": f"{slow}:A", "GPU": f"{gpu}:A"}, "b": {"LOCAL": f"{slow}:B"}},
    )
    told = import_named(config, "models.yml")
    assert [(one.model, one.what) for one in told] == [
        ("models.yml", "import of gpu_one"),
        ("models.yml", "import of slow_one"),
    ]
    assert told[0].seconds < 0.05 <= told[1].seconds
    assert told[0].at <= told[1].at - told[1].seconds
    assert import_named(config, "models.yml") == []


@pytest.mark.parametrize("code", ["1 / 0", "raise SystemExit(3)", "raise BaseException('panic')"])
def test_what_cannot_be_imported_is_left_to_who_says_so(code: str, module: Module) -> None:
    """The others are imported all the same."""
    paths = {"LOCAL": f"{module('broken_one', code)}:A", "GPU": f"{module('sound_one', '')}:A"}
    told = import_named(InitializerConfig(modules={"a": paths}), "models.yml")
    assert [one.what for one in told] == ["import of sound_one"]


def test_ctrl_c_ends_the_imports(module: Module) -> None:
    """As any other time."""
    paths = {"LOCAL": f"{module('interrupted_one', 'raise KeyboardInterrupt')}:A"}
    with pytest.raises(KeyboardInterrupt):
        import_named(InitializerConfig(modules={"a": paths}), "models.yml")
