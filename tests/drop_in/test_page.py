"""What the page for caikit users shows works as it says."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import caikit
import pytest
import yaml
from caikit.core import MODEL_MANAGER
from serving import Model, Site, configure, opened
from test_docs import ROOT, blocks_of

from anyload.caikit import AnyloadInitializer

BLOCKS = [*blocks_of(ROOT / "docs" / "caikit.md")]
BEFORE, AFTER = (yaml.safe_load(block.text) for block in BLOCKS if block.language == "yaml")
(EXAMPLE,) = (block.text for block in BLOCKS if block.language == "python")


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with opened(tmp_path) as opened_site:
        yield opened_site


@pytest.mark.parametrize("sections", [BEFORE, AFTER], ids=["before", "after"])
def test_a_model_loads_with_either_configuration(site: Site, sections: dict[str, Any]) -> None:
    """The same model, by the same call; afterwards with the keys that are shown."""
    configure(**sections)
    assert isinstance(caikit.load(site.model(site.module())), Model)
    initializer = MODEL_MANAGER.get_initializer("default")
    assert isinstance(initializer, AnyloadInitializer) == (sections is AFTER)
    if sections is AFTER:
        assert initializer._options.share
        assert initializer._choices[0].timeout == 300


async def test_the_example_of_an_async_server_runs(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It loads the model once, and asks it."""

    class Sentiment(Model):
        def run(self, text: str) -> str:
            return text.upper()

    configure(**AFTER)
    site.model(site.module(lambda given: Sentiment(given, {})), "sentiment")
    monkeypatch.chdir(site.directory.parent)  # they are in models
    namespace: dict[str, Any] = {}
    exec(compile(EXAMPLE, "caikit.md", "exec"), namespace)
    assert await namespace["predict"]("good") == "GOOD"
    assert list(MODEL_MANAGER.get_singleton_model_cache_info()) == ["models/sentiment"]
