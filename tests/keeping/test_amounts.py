"""Amounts as people write them."""

from __future__ import annotations

import math
from typing import Any

import pytest

from anyload._reading import amounts
from anyload.config import KeptModel, load_catalogue, load_config
from anyload.errors import ConfigError


class TestAmounts:
    @pytest.mark.parametrize(
        ("written", "size"),
        [
            (0, 0),
            (2048, 2048),
            ("2048", 2048),
            ("512 B", 512),
            ("2GiB", 2 * 1024**3),
            ("1.5 GB", 1_500_000_000),
            (" 3 MiB ", 3 * 1024**2),
            ("1kB", 1000),
            ("1TiB", 1024**4),
        ],
    )
    def test_bytes(self, written: object, size: int) -> None:
        """A size is a number of bytes, with a unit or without."""
        assert amounts.byte_size(written) == size

    @pytest.mark.parametrize(
        "written",
        [None, True, 1.5, -1, "", "GiB", "2 gigs", "2 gib", "-1", 2**63, [], "1e3", "9" * 400],
    )
    def test_no_bytes(self, written: object) -> None:
        """Anything else is refused."""
        with pytest.raises(ValueError, match="expected a size"):
            amounts.byte_size(written)
        with pytest.raises(ValueError, match=r"expected a size, such as 8GiB, or a share"):
            amounts.budget(written)

    @pytest.mark.parametrize(
        ("written", "budget"), [("80%", 0.8), (0.5, 0.5), ("100%", 1.0), ("8GiB", 8 * 1024**3)]
    )
    def test_budget(self, written: object, budget: float) -> None:
        """A budget is a size, or a share of what there is."""
        assert amounts.budget(written) == budget

    @pytest.mark.parametrize("written", ["0%", "120%", 0.0, 1.5, math.nan, "9" * 400 + "%"])
    def test_no_share(self, written: object) -> None:
        """A share is more than nothing and at most all."""
        with pytest.raises(ValueError, match="share"):
            amounts.budget(written)

    @pytest.mark.parametrize(
        ("written", "seconds"),
        [
            ("5m", 300),
            ("1.5 h", 5400),
            ("20ms", 0.02),
            (0, 0),
            ("0s", 0),
            (2.5, 2.5),
            (-1, math.inf),
            ("-1", math.inf),
            (math.inf, math.inf),
            ("2d", 172800),
        ],
    )
    def test_keep_alive(self, written: object, seconds: float) -> None:
        """A keep-alive is a duration; -1 is for ever."""
        assert amounts.keep_alive(written) == seconds

    @pytest.mark.parametrize(
        "written", [None, True, -2, "5", "5 parsecs", "-1m", math.nan, [], "9" * 400]
    )
    def test_no_keep_alive(self, written: object) -> None:
        """Anything else is refused."""
        with pytest.raises(ValueError, match="expected a duration"):
            amounts.keep_alive(written)

    @pytest.mark.parametrize(
        ("size", "text"),
        [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (3 * 1024**5, "3072 TiB")],
    )
    def test_text(self, size: int, text: str) -> None:
        """A size is shown in the unit that suits it."""
        assert amounts.bytes_text(size) == text


class TestConfig:
    def test_reads(self) -> None:
        """A repository's keys are read, with what they say by default."""
        config = load_config(
            {
                "models": {"a": {"module_id": "m"}},
                "repository": {
                    "budget": {"cpu": "8GiB", "cuda:0": "80%"},
                    "minimum_stay": 3,
                    "models": {"a": {"memory": {"cuda:0": "1GB"}, "aliases": ["b"]}},
                },
            }
        ).repository
        assert config.budget == {"cpu": 8 * 1024**3, "cuda:0": 0.8}
        assert config.keep_alive == math.inf
        assert config.models["a"].memory == {"cuda:0": 1_000_000_000}
        assert config.models["a"].aliases == ("b",)
        assert load_config(load_config({}), overrides={"strict": True}).repository.eviction == "lru"

    @pytest.mark.parametrize(
        ("written", "problem"),
        [
            ({"budgte": {}}, "did you mean 'budget'"),
            ({"budget": {"cpu": "lots"}}, "repository.budget.cpu: expected a size"),
            ({"keep_alive": "soon"}, "repository.keep_alive: expected a duration"),
            ({"minimum_stay": -1}, "repository.minimum_stay: expected a number of seconds"),
            ({"models": {"a": {"memory": "much"}}}, "repository.models.a.memory: expected a size"),
            ({"models": {"a": {"memory": {"cpu": -1}}}}, "models.a.memory: expected a size"),
            ({"models": {"a": {"aliases": "b"}}}, "models.a.aliases: expected a list"),
            ({"models": {"a": {"aliases": ["../b"]}}}, "outside the root"),
            ({"eviction": "random"}, "expected 'lru', 'cost' or 'largest'"),
            ({"max_queued": 0}, "expected an integer 1..1024"),
        ],
    )
    def test_refuses(self, written: dict[str, Any], problem: str) -> None:
        """What cannot be used is refused by its place."""
        with pytest.raises(ConfigError) as caught:
            load_config({"repository": written})
        assert problem in "; ".join(f"{where}: {what}" for where, what in caught.value.problems)


class TestCatalogue:
    def test_each_by_itself(self) -> None:
        """What is wrong with one entry costs no other."""
        models, kept, errors = load_catalogue(
            {
                "models": {"a": {"module_id": "m", "free": 1}, "b": {}, "c": {"module_id": "m"}},
                "repository": {"models": {"a": {"pin": True}, "c": {"pin": 3}, "d": {}}},
            },
            environ={"ANYLOAD__MODELS__A__MODEL_PATH": "elsewhere"},
        )
        assert set(models) == {"a"}
        assert models["a"].model_path == "elsewhere"
        assert kept == {"a": KeptModel(pin=True), "d": KeptModel()}
        assert {name: error.problems[0].where for name, error in errors.items()} == {
            "b": "models.b.module_id",
            "c": "repository.models.c.pin",
        }

    def test_empty(self) -> None:
        """A configuration without a catalogue has an empty one."""
        assert load_catalogue({}) == ({}, {}, {})
        assert load_catalogue({"models": None, "repository": {"models": None}}) == ({}, {}, {})

    @pytest.mark.parametrize(
        "written",
        [{"models": []}, {"models": {}, "repository": 3}, {"repository": {"models": [1]}}],
    )
    def test_no_catalogue(self, written: dict[str, Any]) -> None:
        """What is no catalogue at all is an error of the whole."""
        with pytest.raises(ConfigError):
            load_catalogue(written)

    def test_a_wrong_variable(self) -> None:
        """A variable that leads nowhere is an error of the whole."""
        with pytest.raises(ConfigError):
            load_catalogue({"models": {}}, environ={"ANYLOAD__MODELS__": "1"})
