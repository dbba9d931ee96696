"""The catalogue is read again while the server runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from keeping import Shelf, emptied

from anyload import ConfigError, ModelNotFoundError, Registry
from anyload.repository import ModelRepository
from anyload.testing import FakeMeter, until


def models_of(**models: dict[str, Any]) -> dict[str, Any]:
    """Return a configuration; what is under ``kept`` says how a model is kept."""
    kept = {name: how.pop("kept", {}) for name, how in models.items()}
    return {
        "models": {name: {"module_id": "m", "name": name, **how} for name, how in models.items()},
        "repository": {"models": kept},
    }


def repository(shelf: Shelf, source: Any, **options: Any) -> ModelRepository:
    registry = Registry()
    registry.module("m")(shelf.module())
    return ModelRepository.from_config(source, registry=registry, environ={}, **options)


class TestReload:
    async def test_added_changed_removed(self) -> None:
        """New models can be leased, changed ones are swapped, removed ones go; no lease fails."""
        shelf = Shelf()
        async with repository(shelf, models_of(a={}, b={}, c={}, d={})) as models:
            for name in "abc":
                await models.load(name)
            with models.try_lease("a") as old_a, models.try_lease("b") as old_b:  # type: ignore[union-attr]
                change = await models.reload(models_of(a={"size": 2}, c={}, d={"size": 2}, e={}))
                assert change.added == ("e",)
                assert change.changed == ("a", "d")
                assert change.removed == ("b",)
                assert not change.errors
                await until(lambda: models.status("a").version == "2")
                await until(lambda: models.status("a").state == "READY")
                async with models.lease("a") as new_a:
                    assert models.status("a").leases == 1
                    assert new_a is not old_a
                    assert new_a.config.size == 2
                with pytest.raises(ModelNotFoundError):
                    await models.load("b")
                assert old_a.released == old_b.released == 0
            await until(lambda: old_a.released == old_b.released == 1)
            assert shelf.loads == ["a", "b", "c", "a"]  # d was not loaded, c has not changed
            await models.load("d")
            assert models.status("d").version == "2"
            assert shelf.made[-1].config.size == 2
            await models.load("e")
        await emptied(models)

    async def test_errors_cost_no_others(self) -> None:
        """An entry that cannot be used stays as it was, and the others change."""
        shelf = Shelf()
        async with repository(shelf, models_of(a={}, b={})) as models:
            await models.load("a")
            source = models_of(a={}, b={"size": 2}, c={})
            source["models"]["a"]["module_id"] = 3
            source["models"]["c"]["model_path"] = []
            change = await models.reload(source)
            assert set(change.errors) == {"a", "c"}
            assert "models.a.module_id" in str(change.errors["a"].problems)
            assert change.changed == ("b",)
            assert change.removed == ()
            assert models.status("a").state == "READY"
            with pytest.raises(ModelNotFoundError):
                await models.load("c")

    async def test_a_broken_change(self) -> None:
        """A changed model that does not load leaves the old one; a swap tries it again."""
        shelf = Shelf()
        async with repository(shelf, models_of(a={})) as models:
            await models.load("a")

            def breaks(config: Any) -> None:
                if config.get("size") == 2:
                    raise ValueError("broken")

            shelf.body = breaks
            await models.reload(models_of(a={"size": 2}))
            await until(lambda: models.statistics().failures == 1)
            assert models.status("a").state == "READY"
            assert models.status("a").version == "1"
            assert (await models.reload(models_of(a={"size": 2}))).changed == ()
            shelf.body = None
            await models.swap("a")
            assert models.status("a").version == "3"
            assert shelf.made[-1].config.size == 2

    async def test_how_it_is_kept(self) -> None:
        """Another way to keep a model takes effect without loading it anew."""
        shelf = Shelf()
        async with repository(shelf, models_of(a={"kept": {"pin": True}})) as models:
            await models.load("a")
            change = await models.reload(models_of(a={"kept": {"keep_alive": 0, "aliases": ["x"]}}))
            assert change.changed == ()
            assert not models.status("a").pinned
            async with models.lease("x"):
                pass
            await until(lambda: models.status("a").phase == "unloaded")
            await models.reload(models_of(a={"kept": {"version": "new"}}))
            with pytest.raises(ModelNotFoundError):
                await models.load("x")
            await models.load("a")
            assert models.status("a").version == "new"
            assert models.status("a").memory == {"cpu": 0}
            await models.reload(models_of(a={"kept": {"version": "new", "memory": 5}}))
            await models.unload("a")
            await models.load("a")
            assert models.status("a").memory == {"cpu": 5}

    async def test_names_of_each_other(self) -> None:
        """An alias may become a model's own name."""
        shelf = Shelf()
        async with repository(shelf, models_of(a={"kept": {"aliases": ["b"]}})) as models:
            await models.load("b")
            change = await models.reload(models_of(a={}, b={}))
            assert change.added == ("b",)
            assert models.status("a").state == "READY"
            assert models.status("b").state == "UNKNOWN"

    async def test_two_of_a_name(self) -> None:
        """Two models of one name are an error, and nothing has changed."""
        shelf = Shelf()
        async with repository(shelf, models_of(a={})) as models:
            twice = models_of(a={"size": 2}, b={"kept": {"aliases": ["a"]}})
            with pytest.raises(ConfigError, match="'a' is a name of 'a' already"):
                await models.reload(twice)
            assert models.status("a").version == "1"
            assert models.statistics().models == 1
        with pytest.raises(ConfigError, match="'b' is a name of 'b' already"):
            repository(shelf, models_of(b={"kept": {"aliases": ["b"]}}))
        source = models_of(a={})
        source["repository"]["models"]["ghost"] = {}
        with pytest.raises(ConfigError, match="there is no such model in `models`"):
            repository(shelf, source)

    async def test_from_the_file(self, tmp_path: Path) -> None:
        """A file is read again, with paths relative to it; an unreadable one changes nothing."""
        shelf = Shelf()
        file = tmp_path / "models.yml"
        (tmp_path / "weights").mkdir()
        file.write_text("models: {a: {module_id: m, model_path: weights}}\n")
        async with repository(shelf, file) as models:
            await models.load("a")
            assert shelf.made[0].config.model_path == str(tmp_path / "weights")
            file.write_text("models: {a: {module_id: m, model_path: weights}, b: {module_id: m}}\n")
            assert (await models.reload()).added == ("b",)
            file.write_text("models: [")
            with pytest.raises(ConfigError):
                await models.reload()
            assert models.statistics().models == 2


class TestBudget:
    async def test_shares(self) -> None:
        """A budget may be a share of what there is."""
        source = {**models_of(a={}), "repository": {"budget": {"cpu": "50%"}}}
        shelf = Shelf()
        async with repository(shelf, source, meter=FakeMeter(cpu=5000)) as models:
            assert models.statistics().budget == {"cpu": 2500}
        with pytest.raises(ConfigError, match="give the budget in bytes"):
            repository(shelf, source, meter=FakeMeter())
        async with repository(shelf, source) as models:
            assert models.statistics().budget["cpu"] > 2**20


class TestNested:
    async def test_inside_a_load(self) -> None:
        """A model that loads another in its load has that counted as its own."""
        shelf = Shelf()

        def nests(config: Any) -> None:
            if config.name == "a":
                models.initializer.init_sync("b")

        shelf.body = nests
        async with shelf.repository("a", "b", repository={"budget": {"cpu": 1024}}) as models:
            await models.load("a")
            assert shelf.loads == ["a", "b"]
            assert models.statistics().used == {"cpu": 1024}
