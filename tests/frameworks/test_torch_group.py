"""The group of the torch family: its loads never overlap, in whatever initializer; others do."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import made
import pytest
import torch.export
import transformers
from anyio import create_task_group
from loading import Loader
from playing import play
from subjects import make_models

from anyload import LoadError, ModelConfig
from anyload.testing import Gate, settled, until, waits_at

EACH = 5
"""Loads of each model in each initializer."""


class Inside:
    """Who is inside of a framework's own load function; each comes to a gate in there.

    Args:
        gate: the gate.
    """

    def __init__(self, gate: Gate) -> None:
        self._gate = gate
        self._lock = threading.Lock()
        self.now = self.most = self.ever = 0

    def watch(self, call: Callable[..., Any]) -> Callable[..., Any]:
        """Return a function that does the same, watched."""

        def watched(*args: Any, **kwargs: Any) -> Any:
            with self._lock:
                self.ever += 1
                self.now += 1
                self.most = max(self.most, self.now)
            try:
                self._gate.enter()
                return call(*args, **kwargs)
            finally:
                with self._lock:
                    self.now -= 1

        return watched


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("group")
    play(make_models, directory)
    made.onnx_model(directory / "tiny.onnx")
    return directory


@pytest.fixture
def grouped(models: Path) -> list[ModelConfig]:
    """Models of the group, by different adapters."""
    return [
        ModelConfig("transformers", models / "bert"),
        ModelConfig("torch", models / "net.pt2", allow_pickle=True),
    ]


@pytest.fixture
def another() -> Iterator[Gate]:
    """A second gate, opened too when the test has ended."""
    another = Gate()
    yield another
    another.open()


@pytest.fixture
def inside(gate: Gate, monkeypatch: pytest.MonkeyPatch) -> Inside:
    inside = Inside(gate)
    for owner, name in ((transformers.AutoModel, "from_pretrained"), (torch.export, "load")):
        monkeypatch.setattr(owner, name, inside.watch(getattr(owner, name)))
    return inside


async def test_loads_of_the_group_never_overlap(
    loader: Loader, grouped: list[ModelConfig], gate: Gate, inside: Inside
) -> None:
    """Two adapters in two initializers, eight slots: one load at a time."""
    gate.open()
    async with loader.initializer() as one, loader.initializer() as other:
        async with create_task_group() as tasks:
            for number in range(EACH):
                for model in grouped:
                    tasks.start_soon(partial(one.init, model, key=(model.module_id, number)))
                    tasks.start_soon(partial(other.init, model, key=(model.module_id, number)))
        await settled(one)
        await settled(other)
    assert (inside.most, inside.ever) == (1, 2 * EACH * len(grouped))


async def test_nor_with_one_that_was_abandoned(
    loader: Loader, grouped: list[ModelConfig], models: Path, gate: Gate, inside: Inside
) -> None:
    """Whoever gave up on it: the others begin when its thread has ended, and no earlier."""
    short, long = [{"type": "LOCAL", "timeout": 0.2}], [{"type": "LOCAL", "timeout": 60}]
    number_waiting = EACH * len(grouped)
    async with (
        loader.initializer(backend_priority=short) as one,
        loader.initializer(backend_priority=long) as other,
    ):
        with pytest.raises(LoadError, match="its thread is still running"):
            await one.init(grouped[0])
        await gate.entered()
        async with create_task_group() as tasks:
            for number in range(EACH):
                for model in grouped:
                    tasks.start_soon(partial(other.init, model, key=(model.module_id, number)))
            await until(lambda: other.statistics().queued == number_waiting)
            # The slots are free, for those of no group.
            await other.init(ModelConfig("onnx", models / "tiny.onnx"))
            assert other.statistics().queued == number_waiting
            assert (inside.now, inside.ever) == (1, 1)
            assert one.statistics().abandoned == 1
            gate.open()
        await settled(one)
        await settled(other)
    assert (inside.most, inside.ever) == (1, 1 + number_waiting)


async def test_loads_of_other_groups_and_of_none_overlap_with_it(
    loader: Loader,
    grouped: list[ModelConfig],
    models: Path,
    gate: Gate,
    another: Gate,
    inside: Inside,
) -> None:
    """While one of the group is in its load, one of another group is, and one of none ends."""
    loader.registry.module("elsewhere")(waits_at(another, exclusive_group="another"))
    async with loader.initializer() as initializer:
        async with create_task_group() as tasks:
            tasks.start_soon(initializer.init, grouped[0])
            tasks.start_soon(initializer.init, ModelConfig("elsewhere"))
            await gate.entered()
            await another.entered()
            await initializer.init(ModelConfig("onnx", models / "tiny.onnx"))
            assert (inside.now, another.inside) == (1, 1)
            gate.open()
            another.open()
        await settled(initializer)
