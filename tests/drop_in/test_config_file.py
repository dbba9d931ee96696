"""A configuration of caikit's: read by caikit with ours in it, and by anyload as it is."""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any
from unittest import mock

import caikit
import pytest
import yaml
from caikit.config import config as caikit_config
from caikit.core import MODEL_MANAGER
from caikit.core.model_management import model_initializer_factory
from worlds import World

from anyload import ConfigError, Initializer, ModelConfig, Registry
from anyload.caikit import AnyloadInitializer
from anyload.testing import returns_at_once

SHIPPED = Path(caikit_config.BASE_CONFIG_PATH)
OURS = {"type": "ANYLOAD", "import_class": "anyload.caikit.AnyloadInitializer"}
SHARED_KEYS = {
    "on_error": "next",
    "load_timeout": 60,
    "max_concurrent_loads": 2,
    "max_abandoned_loads": 1,
}
KEYS = {
    **SHARED_KEYS,
    "backend_priority": [{"type": "LOCAL", "timeout": 30, "stall_timeout": 10}],
    "share": True,
    "exclusive_groups": {"m": "card"},
    "argument": "auto",
}


def written(directory: Path, **changes: Any) -> Path:
    """Return the path of caikit's own configuration with changes in its initializer."""
    document = yaml.safe_load(SHIPPED.read_text())
    section = document["model_management"]["initializers"]["default"]
    section.update({key: value for key, value in changes.items() if key != "config"})
    section["config"].update(changes.get("config", {}))
    path = directory / "caikit.yml"
    path.write_text(yaml.safe_dump(document))
    return path


class TestReadByCaikit:
    @pytest.fixture(autouse=True)
    def _as_it_was(self, tmp_path: Path) -> Iterator[None]:
        """Caikit's configuration and factory are as they were after each test."""
        with (
            World(AnyloadInitializer, tmp_path) as self.world,
            mock.patch.object(caikit_config, "_CONFIG", deepcopy(caikit_config._CONFIG)),
            mock.patch.object(caikit_config, "_IMMUTABLE_CONFIG"),
            mock.patch.dict(model_initializer_factory._registered_types),
        ):
            yield

    @pytest.mark.parametrize("keys", [{}, KEYS], ids=["plain", "with_keys"])
    def test_one_key_is_enough(self, tmp_path: Path, keys: dict[str, Any]) -> None:
        """With our type in its configuration, ``caikit.load`` loads with ours."""
        self.world.module()
        caikit.configure(str(written(tmp_path, **OURS, config=keys)))
        assert caikit.load(self.world.saved())
        assert type(MODEL_MANAGER.get_initializer("default")) is AnyloadInitializer
        backends = MODEL_MANAGER.get_module_backends()
        assert [backend.backend_type for backend in backends][:1] == ["LOCAL"]

    def test_registered_by_hand(self, tmp_path: Path) -> None:
        """... or without ``import_class``, where it is registered with the factory."""
        self.world.module()
        model_initializer_factory.register(AnyloadInitializer)
        caikit.configure(str(written(tmp_path, type="ANYLOAD")))
        assert caikit.load(self.world.saved())
        assert type(MODEL_MANAGER.get_initializer("default")) is AnyloadInitializer


class TestReadByAnyload:
    async def load(self, source: str | Path) -> None:
        """Load with an initializer made from a file."""
        registry = Registry()
        registry.module("m")(returns_at_once())
        async with Initializer.from_config(source, registry=registry) as initializer:
            assert await initializer.init(ModelConfig("m"))

    async def test_as_shipped(self) -> None:
        """The file that caikit ships is read as it is."""
        await self.load(SHIPPED)

    @pytest.mark.parametrize("keys", [{}, SHARED_KEYS], ids=["plain", "with_keys"])
    async def test_with_our_type(self, tmp_path: Path, keys: dict[str, Any]) -> None:
        """... and with our type in it, and the keys that both have."""
        await self.load(written(tmp_path, **OURS, config=keys))

    async def test_with_a_key_of_the_drop_in_alone(self, tmp_path: Path) -> None:
        """A key that means nothing there is refused: a group, say, must not just be forgotten."""
        with pytest.raises(ConfigError, match="exclusive_groups") as caught:
            await self.load(written(tmp_path, **OURS, config=KEYS))
        alone = {problem.where.rpartition(".")[2] for problem in caught.value.problems}
        assert alone == {"share", "exclusive_groups", "argument"}
