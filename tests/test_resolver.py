"""Names, paths, roots and the catalogue, as a caller of the initializer sees them."""

from __future__ import annotations

from pathlib import Path

import pytest

from anyload import (
    AnyloadError,
    Backend,
    ConfigError,
    Initializer,
    LoadError,
    ModelConfig,
    ModelNotFoundError,
    Registry,
)
from anyload.testing import returns_at_once


def registry() -> Registry:
    registry = Registry()
    registry.module("m")(returns_at_once())
    return registry


def model(path: Path, text: str = "module_id: m\n") -> Path:
    path.mkdir(parents=True)
    (path / "config.yml").write_text(text)
    return path


@pytest.mark.parametrize("name", ["../x", "..", "/etc", "a/../../x", "link"])
async def test_nothing_outside_the_root_is_loaded(tmp_path: Path, name: str) -> None:
    """With model_root set, a path or a link that leads out of it is not found."""
    model(tmp_path / "x")
    root = tmp_path / "root"
    model(root / "a")
    (root / "link").symlink_to(tmp_path / "x")
    async with Initializer(registry(), model_root=str(root)) as initializer:
        with pytest.raises(ModelNotFoundError, match=r"outside the model root|not found"):
            await initializer.init(name)
        assert (await initializer.init("a")).config.model_path == str(root / "a")


@pytest.mark.parametrize("name", ["", "a\0b", "a\nb", "nowhere"])
async def test_a_name_that_cannot_be_is_not_found(tmp_path: Path, name: str) -> None:
    """The error carries the name as it was asked for."""
    async with Initializer(registry(), model_root=str(tmp_path)) as initializer:
        with pytest.raises(ModelNotFoundError) as caught:
            await initializer.init(name)
    assert caught.value.model == name


async def test_catalogue_only_refuses_paths(tmp_path: Path) -> None:
    """What is not in the catalogue is not found, and the error lists what is."""
    here = model(tmp_path / "a")
    models = {
        "known": {"module_id": "m", "labels": ["x"]},
        "gone": {"module_id": "m", "model_path": str(tmp_path / "gone")},
    }
    async with Initializer(registry(), models=models, catalogue_only=True) as initializer:
        assert initializer.catalogue == ("known", "gone")
        assert (await initializer.init("known")).config.labels == ["x"]
        with pytest.raises(ModelNotFoundError, match="gone, known"):
            await initializer.init(here)
        with pytest.raises(ModelNotFoundError, match="there is no"):
            await initializer.init("gone")


async def test_a_config_that_changed_is_read_again(tmp_path: Path) -> None:
    """A config.yml is kept only as long as it is the same file."""
    here = model(tmp_path / "a", "module_id: m\nlabel: one\n")
    async with Initializer(registry()) as initializer:
        assert (await initializer.init(here)).config.label == "one"
        assert (await initializer.init(here)).config.label == "one"
        (here / "config.yml").write_text("module_id: m\nlabel: three\n")
        assert (await initializer.init(here)).config.label == "three"
        (here / "config.yml").unlink()
        with pytest.raises(ModelNotFoundError, match=r"no config\.yml"):
            await initializer.init(here)


async def test_a_module_that_is_not_registered_says_what_is() -> None:
    """The error names the registered modules."""
    async with Initializer(registry()) as initializer:
        with pytest.raises(ConfigError, match="registered modules are m"):
            await initializer.init(ModelConfig("unknown"))


async def test_an_unavailable_backend_is_skipped_with_its_reason(tmp_path: Path) -> None:
    """What available() says, or raises, is the reason of the skip."""

    class Gpu(Backend):
        backend_type = "GPU"

        def available(self) -> str | None:
            return "there is no GPU"

    class Npu(Backend):
        backend_type = "NPU"

        def available(self) -> str | None:
            raise OSError("the driver is broken")

    known = registry()
    known.backend_type(Gpu)
    known.backend_type(Npu)
    priority = [{"type": "GPU"}, {"type": "NPU"}]
    async with Initializer(known, backend_priority=priority) as initializer:
        with pytest.raises(LoadError) as caught:
            await initializer.init(model(tmp_path / "a"))
        plan = await initializer.plan(tmp_path / "a")
    assert [attempt.outcome for attempt in caught.value.attempts] == ["skipped", "skipped"]
    assert [skip.reason for skip in plan.skipped] == [
        "there is no GPU",
        "available() raised OSError: the driver is broken",
    ]
    assert plan.candidates == ()
    assert "skipped  there is no GPU" in str(plan)


async def test_a_model_made_with_another_backend_is_skipped() -> None:
    """A creation backend that the implementation does not support is the reason of a skip."""
    async with Initializer(registry()) as initializer:
        with pytest.raises(LoadError, match="made with GPU"):
            await initializer.init(ModelConfig("m", None, "GPU"))


async def test_reserved_names_are_refused(tmp_path: Path) -> None:
    """A load kwarg cannot have the name of something that init or anyload itself passes."""
    async with Initializer(registry()) as initializer:
        with pytest.raises(TypeError, match="'load_backend' is a reserved name"):
            await initializer.init(ModelConfig("m"), load_backend=None)
        with pytest.raises(TypeError, match="'timeout'"):
            await initializer.init_many([], timeout=3)


async def test_kwargs_that_cannot_be_a_key_are_no_hindrance(tmp_path: Path) -> None:
    """A load with kwargs or fields that cannot be frozen is not shared, but it loads."""
    here = model(tmp_path / "a")
    async with Initializer(registry()) as initializer:
        odd = object()
        assert (await initializer.init(here, odd=odd)).kwargs == {"odd": odd}
        assert (await initializer.init(here, n=[1])).kwargs == {"n": [1]}
        config = ModelConfig("m", str(here), odd=odd)
        assert (await initializer.init(config)).config.odd is odd


def test_used_from_a_plain_thread_it_closes_itself() -> None:
    """`with` and init_sync need no event loop."""
    with Initializer(registry()) as initializer:
        assert initializer.init_sync(ModelConfig("m")) is not None
        assert "loaded=1" in repr(initializer)
    assert "closed" in repr(initializer)
    with pytest.raises(AnyloadError):
        initializer.init_sync(ModelConfig("m"))
