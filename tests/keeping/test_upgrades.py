"""Models that change their backend while they are in use, on real threads and every loop."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
from anyio import create_task_group
from anyio.lowlevel import checkpoint
from keeping import Kept, Shelf, emptied

from anyload import (
    Backend,
    LoadError,
    ModelConfig,
    ModelNotFoundError,
    ModelRepository,
    ModelUnavailableError,
    Registry,
)
from anyload.testing import FakeClock, Gate, until


class Card:
    """The better one of two backends: whether it is there, and how often it fails to load."""

    def __init__(self, failures: int = 0) -> None:
        self.reason: str | None = None
        self.failures = failures
        self.gate = Gate(open=True)

    def backend(self) -> type[Backend]:
        card = self

        class Gpu(Backend):
            backend_type = "GPU"

            def available(self) -> str | None:
                return card.reason

        return Gpu

    def module(self, plain: type[Kept]) -> type[Kept]:
        card = self

        class OnCard(plain):  # type: ignore[valid-type, misc]  # a class, known at run time
            @classmethod
            def load(cls, config: ModelConfig) -> Any:
                card.gate.enter()
                if card.failures:
                    card.failures -= 1
                    raise RuntimeError("the card is broken")
                return super().load(config)

        return OnCard


def registry_of(shelf: Shelf, card: Card) -> Registry:
    registry = Registry()
    registry.backend_type(card.backend())
    registry.module("m", "GPU")(card.module(shelf.module()))
    registry.module("m")(shelf.module())
    return registry


def written(path: Path | None = None, *, upgrade: bool = True) -> dict[str, Any]:
    """Return the configuration of one model, ``a``, that is tried on GPU and then on LOCAL."""
    model = {"module_id": "m"} if path is None else {"module_id": "m", "model_path": str(path)}
    return {
        "backend_priority": [{"type": "GPU"}, {"type": "LOCAL"}],
        "models": {"a": model},
        "repository": {"models": {"a": {"memory": 1024, "upgrade": upgrade}}},
    }


def backend_of(models: ModelRepository) -> str | None:
    return models.status("a").backend


class TestUpgrades:
    @pytest.mark.parametrize("on_disk", [False, True])
    async def test_serves_meanwhile(self, tmp_path: Path, on_disk: bool) -> None:
        """A model serves on what it came up on; leases get the better one once it is there."""
        shelf, card = Shelf(), Card(failures=1)
        card.gate = Gate()
        card.gate.let_through(1)
        how = written(tmp_path if on_disk else None)
        async with ModelRepository(registry_of(shelf, card), **how) as models:
            async with models.lease("a") as old:
                await card.gate.entered(2)
                assert [row["state"] for row in models.index()] == ["READY", "LOADING"]
                async with models.lease("a") as same:
                    assert same is old
                card.gate.open()
                await until(lambda: backend_of(models) == "GPU")
                async with models.lease("a") as new:
                    assert new is not old
                assert models.statuses()[1].reason == "upgraded to GPU"
                assert old.released == 0
            report = models.status("a").report
            assert report is not None
            assert [attempt.backend for attempt in report.attempts] == ["GPU"]
            assert models.statistics().upgrades == 1
        await emptied(models)
        assert [model.released for model in shelf.made] == [1, 1]

    async def test_looked_for_again(self) -> None:
        """A better backend that is not there is asked for again and again, until it is."""
        shelf, card, clock = Shelf(), Card(), FakeClock()
        card.reason = "there is no card"
        registry = registry_of(shelf, card)
        async with ModelRepository(registry, clock=clock, **written()) as models:
            await models.load("a")
            assert models.statistics().loading == 0
            clock.advance(301)
            models.reconsider()
            await until(lambda: models.statistics().failures == 1)
            await until(lambda: len(models.statuses()) == 1)
            assert backend_of(models) == "LOCAL"
            card.reason = None
            clock.advance(301)
            models.reconsider()
            await until(lambda: backend_of(models) == "GPU")
            clock.advance(1000)
            models.reconsider()
            assert models.statistics().loading == 0
        await emptied(models)

    async def test_asked_for_later(self) -> None:
        """``upgrade`` may be turned on, and off, while a model is loaded."""
        shelf, card, clock = Shelf(), Card(failures=1), FakeClock()
        registry = registry_of(shelf, card)
        async with ModelRepository(registry, clock=clock, **written(upgrade=False)) as models:
            await models.load("a")
            for upgrade in (True, False, True):
                change = await models.reload(written(upgrade=upgrade))
                assert change.changed == ()
                if not upgrade:
                    clock.advance(301)
                    models.reconsider()
                    assert models.statistics().loading == 0
            clock.advance(301)
            models.reconsider()
            await until(lambda: backend_of(models) == "GPU")
        await emptied(models)

    async def test_nothing_better_ever(self) -> None:
        """Where no better backend has an implementation, none is looked for."""
        shelf, card, clock = Shelf(), Card(), FakeClock()
        registry = Registry()
        registry.backend_type(card.backend())
        registry.module("m")(shelf.module())
        async with ModelRepository(registry, clock=clock, **written()) as models:
            await models.load("a")
            clock.advance(1000)
            models.reconsider()
            assert models.statistics().loading == 0
        await emptied(models)


class TestReports:
    async def test_the_next_takes_over(self, tmp_path: Path) -> None:
        """What fails in use is replaced by what the next backend makes; who has it keeps it."""
        shelf, card = Shelf(), Card()
        how = written(tmp_path, upgrade=False)
        async with ModelRepository(registry_of(shelf, card), **how) as models:
            async with models.lease("a") as model:
                assert backend_of(models) == "GPU"
                error = RuntimeError("CUDA error: an illegal memory access")
                assert models.report_failure("a", model, error)
                assert not models.report_failure("a", model, error)
                async with models.lease("a") as other:
                    assert other is not model
                assert backend_of(models) == "LOCAL"
                assert not models.report_failure("a", model, error)
                assert model.released == 0
                reasons = {status.phase: status.reason for status in models.statuses()}
                assert reasons["draining"] == f"failed at run time: RuntimeError: {error}"
            report = models.status("a").report
            assert report is not None
            assert report.attempts[0].outcome == "skipped"
            assert "failed at run time" in report.attempts[0].reason
            assert models.statistics().reported == 1
            with pytest.raises(ModelNotFoundError):
                models.report_failure("b", model, error)
        await emptied(models)
        assert [model.released for model in shelf.made] == [1, 1]

    async def test_by_many_at_once(self) -> None:
        """Everybody who has the instance may report it: it is replaced once."""
        shelf, card, counted = Shelf(), Card(), list[bool]()
        async with ModelRepository(registry_of(shelf, card), **written(upgrade=False)) as models:
            await models.load("a")

            async def fails() -> None:
                async with models.lease("a") as model:
                    if isinstance(model, shelf.made[0].__class__):
                        counted.append(models.report_failure("a", model, "no answer"))

            async with create_task_group() as tasks:
                for _ in range(20):
                    tasks.start_soon(fails)
            assert counted.count(True) == 1
            await until(lambda: backend_of(models) == "LOCAL")
        await emptied(models)
        assert len(shelf.made) == 2

    async def test_without_another(self) -> None:
        """Where there is no other backend, the model is back when its own is."""
        clock, shelf = FakeClock(), Shelf()
        async with shelf.repository("a", clock=clock) as models:
            async with models.lease("a") as model:
                models.report_failure("a", model, "")
            await until(lambda: models.status("a").phase == "failed")
            with pytest.raises(ModelUnavailableError) as caught:
                await models.load("a")
            assert caught.value.retry_after is not None
            assert 0.8 <= caught.value.retry_after <= 1
            clock.advance(1)
            await models.load("a")
            async with models.lease("a") as model:
                models.report_failure("a", model, "")
            await until(lambda: models.status("a").phase == "failed")
            models.forget_failure("a")
            await models.load("a")
        await emptied(models)


class TestCrowd:
    async def test_reports_and_upgrades_under_leases(self) -> None:
        """Backends fail, in loads and in use, and come back, while many work with the model."""
        shelf, card = Shelf(), Card(failures=3)
        how = written()
        how["repository"] |= {"cool_down": 0.001, "max_cool_down": 0.004, "upgrade_interval": 0.002}
        async with ModelRepository(registry_of(shelf, card), **how) as models:

            async def works(seed: int) -> None:
                chance = random.Random(seed)
                for _ in range(60):
                    try:
                        async with models.lease("a") as model:
                            model.use()
                            await checkpoint()
                            model.use()
                            if chance.random() < 0.1:
                                models.report_failure("a", model, "no answer")
                                model.use()
                    except (LoadError, ModelUnavailableError):
                        await checkpoint()

            async with create_task_group() as tasks:
                for seed in range(16):
                    tasks.start_soon(works, seed)
            figures = models.statistics()
            assert figures.reported > 0
            assert figures.leases == figures.waiting == 0
        await emptied(models)
        assert all(model.released == 1 for model in shelf.made)
        assert shelf.live == 0
