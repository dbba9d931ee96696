"""Many models in one call: ``init_many`` and ``init_each``."""

from __future__ import annotations

import pickle
import threading
from pathlib import Path
from typing import Any

import anyio
import pytest
from anyio import CancelScope, create_task_group
from scenes import model_on_disk, registry_of

from anyload import (
    AnyloadError,
    BulkLoadError,
    ClosedError,
    Initializer,
    LoadError,
    LoadTimeoutError,
    ModelConfig,
    ModelNotFoundError,
)
from anyload.testing import (
    FakeModel,
    Gate,
    checks_cancelled,
    raises,
    returns_at_once,
    settled,
    until,
    waits_at,
)

SHORT = 0.05
"""A limit that is to pass, in seconds."""


def value_error() -> ValueError:
    return ValueError("broken weights")


def remembers(loaded: list[FakeModel], gate: Gate | None = None) -> type[FakeModel]:
    """Return a module that notes every model that it loads."""

    class Remembered(FakeModel):
        @classmethod
        def load(cls, config: ModelConfig, **kwargs: Any) -> Any:
            if gate is not None:
                gate.enter()
            loaded.append(cls(config, kwargs))
            return loaded[-1]

    return Remembered


# init_many


async def test_models_come_by_the_objects_given_in_their_order(tmp_path: Path) -> None:
    """Names, paths, path objects and configs may be mixed; the dict has them as they were given."""
    entry = model_on_disk(tmp_path, name="entry")
    text, path = model_on_disk(tmp_path, name="z"), Path(model_on_disk(tmp_path, name="a"))
    config = ModelConfig("m", name="config")
    catalogue = {"language-id": {"module_id": "m", "model_path": entry}}
    given: list[Any] = [text, config, "language-id", path]
    async with Initializer(registry_of(m=returns_at_once()), models=catalogue) as initializer:
        models = await initializer.init_many(given)
        assert list(models) == given
        assert next(key for key in models if isinstance(key, ModelConfig)) is config
        assert models[config].config is config
        assert models["language-id"].config.model_path == entry
        assert models[path].config.model_path == str(path)
        assert len({id(model) for model in models.values()}) == 4
        await settled(initializer)


async def test_equal_keys_and_spellings_of_one_path_load_once(tmp_path: Path) -> None:
    """The same model given more than once loads once; each spelling of it is a key."""
    gate = Gate(open=True)
    path = model_on_disk(tmp_path)
    odd = f"{path}/../m"
    async with Initializer(registry_of(m=waits_at(gate))) as initializer:
        models = await initializer.init_many([path, odd, path, Path(path)])
        assert set(models) == {path, odd, Path(path)}
        assert len({id(model) for model in models.values()}) == 1
        assert gate.count == 1
        await settled(initializer)


async def test_two_names_of_one_model_share_a_load(gate: Gate, tmp_path: Path) -> None:
    """A link to a model directory is the same model, found out when it is resolved."""
    path = model_on_disk(tmp_path)
    link = tmp_path / "link"
    link.symlink_to(path)
    found: dict[Any, Any] = {}
    registry = registry_of(m=waits_at(gate))
    async with Initializer(registry) as initializer, create_task_group() as tasks:

        async def load() -> None:
            found.update(await initializer.init_many([path, link]))

        tasks.start_soon(load)
        await gate.entered()
        await until(lambda: initializer.statistics().flights == 1)
        gate.open()
        await until(lambda: bool(found))
        assert found[path] is found[link]
        assert gate.count == 1
        await settled(initializer)


async def test_configs_are_told_apart_by_identity() -> None:
    """Two configs that say the same are two models."""
    first, second = ModelConfig("m"), ModelConfig("m")
    async with Initializer(registry_of(m=returns_at_once())) as initializer:
        models = await initializer.init_many([first, second, first])
        assert list(models) == [first, second]
        assert models[first] is not models[second]
        await settled(initializer)


async def test_no_models_are_no_work() -> None:
    """An empty bulk returns an empty dict and starts no thread."""
    async with Initializer(registry_of()) as initializer:
        assert await initializer.init_many([]) == {}
        assert initializer.statistics().threads == 0
        await settled(initializer)


async def test_no_more_load_at_once_than_there_are_slots(gate: Gate) -> None:
    """A bulk fills the slots and never more than those."""
    found: dict[Any, Any] = {}
    configs = [ModelConfig("m") for _ in range(100)]
    registry = registry_of(m=waits_at(gate))
    async with (
        Initializer(registry, max_concurrent_loads=3) as initializer,
        create_task_group() as tasks,
    ):

        async def load() -> None:
            found.update(await initializer.init_many(configs))

        tasks.start_soon(load)
        await gate.entered(3)
        await until(lambda: initializer.statistics().queued == 97)
        gate.open()
        await until(lambda: bool(found))
        assert list(found) == configs
        assert (gate.count, gate.most_inside) == (100, 3)
        await settled(initializer)


async def test_load_kwargs_reach_every_load() -> None:
    """What is passed on, is passed on to each; reserved names are refused."""
    async with Initializer(registry_of(m=returns_at_once())) as initializer:
        models = await initializer.init_many([ModelConfig("m"), ModelConfig("m")], labels=3)
        assert [model.kwargs for model in models.values()] == [{"labels": 3}] * 2
        with pytest.raises(TypeError, match="load_backend"):
            await initializer.init_many([ModelConfig("m")], load_backend="LOCAL")
        await settled(initializer)


async def test_a_bulk_that_fails_in_part_says_what_did_load(tmp_path: Path) -> None:
    """BulkLoadError is an ExceptionGroup, raised when all has ended, with ``.models, .failed``."""
    loaded: list[FakeModel] = []
    registry = registry_of(m=remembers(loaded), bad=raises(value_error))
    bad, good, missing = ModelConfig("bad"), ModelConfig("m"), str(tmp_path / "missing")
    last = model_on_disk(tmp_path)
    async with Initializer(registry) as initializer:
        with pytest.raises(BulkLoadError) as caught:
            await initializer.init_many([bad, good, missing, last])
        error = caught.value
        assert isinstance(error, ExceptionGroup)
        assert isinstance(error, AnyloadError)
        assert list(error.models) == [good, last]
        assert set(error.models.values()) == set(loaded)
        assert list(error.failed) == [bad, missing]
        assert tuple(error.failed.values()) == error.exceptions
        assert [type(e) for e in error.exceptions] == [LoadError, ModelNotFoundError]
        assert str(error).startswith("2 of 4 models did not load")
        assert [model.released for model in loaded] == [0, 0], "the caller may go on with them"
        only = error.subgroup(ModelNotFoundError)
        assert isinstance(only, BulkLoadError)
        assert list(only.failed) == [missing]
        await settled(initializer)


async def test_a_bulk_error_pickles() -> None:
    """What failed survives pickling, though configs are new objects then."""
    async with Initializer(registry_of(bad=raises(value_error))) as initializer:
        with pytest.raises(BulkLoadError) as caught:
            await initializer.init_many([ModelConfig("bad")])
        again = pickle.loads(pickle.dumps(caught.value))
        assert [str(e) for e in again.exceptions] == [str(e) for e in caught.value.exceptions]
        assert [str(model) for model in again.failed] == ["bad"]
        await settled(initializer)


async def test_without_fail_fast_every_load_ends_first(gate: Gate) -> None:
    """A failure does not end a bulk: what is still running and queued loads all the same."""
    errors: list[BulkLoadError] = []
    slow = ModelConfig("m")
    registry = registry_of(m=waits_at(gate), bad=raises(value_error))
    async with Initializer(registry) as initializer, create_task_group() as tasks:

        async def load() -> None:
            try:
                await initializer.init_many([ModelConfig("bad"), slow])
            except BulkLoadError as error:
                errors.append(error)

        tasks.start_soon(load)
        await gate.entered()
        await until(lambda: initializer.statistics().failed == 1)
        assert not errors
        gate.open()
        await until(lambda: bool(errors))
        assert list(errors[0].models) == [slow]
        await settled(initializer)


async def test_fail_fast_leaves_the_others(gate: Gate) -> None:
    """With ``fail_fast`` the first failure is raised; queued loads never start, others are told."""
    failing = Gate()

    class Fails(FakeModel):
        @classmethod
        def load(cls, config: ModelConfig, **kwargs: Any) -> Any:
            failing.enter()
            raise value_error()

    bad, running = ModelConfig("bad"), ModelConfig("m")
    given = [bad, running, ModelConfig("bad"), ModelConfig("m")]
    errors: list[BulkLoadError] = []
    registry = registry_of(m=checks_cancelled(gate), bad=Fails)
    async with (
        Initializer(registry, max_concurrent_loads=2) as initializer,
        create_task_group() as tasks,
    ):

        async def load() -> None:
            try:
                await initializer.init_many(given, fail_fast=True)
            except BulkLoadError as error:
                errors.append(error)

        tasks.start_soon(load)
        await gate.entered()
        await failing.entered()
        failing.let_through()
        await until(lambda: bool(errors))
        assert list(errors[0].failed) == [bad]
        assert errors[0].models == {}
        failing.open()
        gate.open()
        await settled(initializer)
        assert gate.count == 1


async def test_cancelling_a_bulk_leaves_and_releases(gate: Gate) -> None:
    """A cancelled bulk is gone at once; what it had loaded is released, what is queued dropped."""
    loaded: list[FakeModel] = []
    configs = [ModelConfig("m") for _ in range(6)]
    registry = registry_of(m=remembers(loaded, gate))
    async with (
        Initializer(registry, max_concurrent_loads=2) as initializer,
        create_task_group() as tasks,
    ):
        scope = CancelScope()

        async def load() -> None:
            with scope:
                await initializer.init_many(configs)

        tasks.start_soon(load)
        await gate.entered(2)
        gate.let_through(2)
        await gate.entered(4)
        await until(lambda: initializer.statistics().loaded == 2)
        scope.cancel()
        await until(lambda: initializer.statistics().waiters == 0)
        gate.open()
        await settled(initializer)
        assert [model.released for model in loaded] == [1] * 4
        assert gate.count == 4
        figures = initializer.statistics()
        assert (figures.loaded, figures.cancelled, figures.discarded) == (2, 4, 4)


async def test_cancelling_a_bulk_disturbs_no_other_caller(gate: Gate, tmp_path: Path) -> None:
    """A model that somebody else waits for is loaded, whatever becomes of the bulk."""
    model = model_on_disk(tmp_path)
    found: list[FakeModel] = []
    registry = registry_of(m=waits_at(gate))
    async with Initializer(registry) as initializer, create_task_group() as tasks:
        scope = CancelScope()

        async def load() -> None:
            with scope:
                await initializer.init_many([model, ModelConfig("m")])

        async def other() -> None:
            found.append(await initializer.init(model))

        tasks.start_soon(load)
        await gate.entered(2)
        tasks.start_soon(other)
        await until(lambda: initializer.statistics().waiters == 3)
        scope.cancel()
        await until(lambda: initializer.statistics().waiters == 1)
        gate.open()
        await until(lambda: bool(found))
        await settled(initializer)
        assert found[0].released == 0


async def test_load_timeout_of_a_bulk_starts_when_a_model_is_dispatched(gate: Gate) -> None:
    """A model of a bulk may queue for longer than ``load_timeout``, and still load."""
    holder = Initializer(registry_of(m=waits_at(gate, exclusive_group="held")))
    registry = registry_of(m=returns_at_once(exclusive_group="held"))
    found: dict[Any, Any] = {}
    async with (
        holder,
        Initializer(registry, load_timeout=SHORT) as initializer,
        create_task_group() as tasks,
    ):

        async def load() -> None:
            found.update(await initializer.init_many([ModelConfig("m")]))

        tasks.start_soon(holder.init, ModelConfig("m"))
        await gate.entered()
        with pytest.raises(LoadTimeoutError):
            await initializer.init(ModelConfig("m"))
        tasks.start_soon(load)
        await until(lambda: initializer.statistics().queued == 1)
        with pytest.raises(LoadTimeoutError):
            await initializer.init(ModelConfig("m"))
        gate.open()
        await until(lambda: bool(found))
        await settled(initializer)
        await settled(holder)


async def test_a_closed_initializer_takes_no_bulk() -> None:
    """After a close a bulk is refused, as a single model is."""
    initializer = Initializer(registry_of(m=returns_at_once()))
    await initializer.aclose()
    with pytest.raises(ClosedError):
        await initializer.init_many([ModelConfig("m")])
    await settled(initializer)


async def test_a_close_during_a_bulk_ends_each_of_its_loads(gate: Gate) -> None:
    """A close turns what had not begun into ClosedErrors, in the bulk's own error."""
    errors: list[BulkLoadError] = []
    first, second = ModelConfig("m"), ModelConfig("m")
    initializer = Initializer(registry_of(m=waits_at(gate)), max_concurrent_loads=1)
    async with create_task_group() as tasks:

        async def load() -> None:
            try:
                await initializer.init_many([first, second])
            except BulkLoadError as error:
                errors.append(error)

        tasks.start_soon(load)
        await gate.entered()
        tasks.start_soon(initializer.aclose, 30.0)
        await until(lambda: initializer.statistics().failed == 1)
        gate.open()
    assert list(errors[0].models) == [first]
    assert [type(error) for error in errors[0].exceptions] == [ClosedError]
    await settled(initializer)


async def test_a_bulk_inside_a_load_runs_on_its_thread_and_slot(
    anyio_backend: tuple[str, dict[str, Any]],
) -> None:
    """A load may load a bulk: with one slot too, as it runs on the thread that the load has."""
    threads: list[int] = []
    inner = [ModelConfig("inner") for _ in range(3)]

    class Inner(FakeModel):
        @classmethod
        def load(cls, config: ModelConfig, **kwargs: Any) -> Any:
            threads.append(threading.get_ident())
            return cls(config, kwargs)

    class Nests(Inner):
        @classmethod
        def load(cls, config: ModelConfig, **kwargs: Any) -> Any:
            model = super().load(config, **kwargs)
            model.inner = anyio.run(config.initializer.init_many, inner, backend=anyio_backend[0])
            return model

    registry = registry_of(m=Nests, inner=Inner)
    async with Initializer(registry, max_concurrent_loads=1) as initializer:
        model = await initializer.init(ModelConfig("m", initializer=initializer))
        assert list(model.inner) == inner
        assert len(threads) == 4
        assert len(set(threads)) == 1
        await settled(initializer)


# init_each


async def test_outcomes_come_as_they_land(gate: Gate) -> None:
    """``init_each`` yields what has landed first, whatever was given first; errors are in it."""
    slow, bad = ModelConfig("slow"), ModelConfig("bad")
    registry = registry_of(slow=waits_at(gate), bad=raises(value_error))
    async with Initializer(registry) as initializer:
        async with initializer.init_each([slow, bad]) as outcomes:
            first = await anext(outcomes)
            assert first.model is bad
            assert first.value is None
            assert isinstance(first.error, LoadError)
            assert [a.outcome for a in first.report.attempts] == ["raised"]
            gate.open()
            second = await anext(outcomes)
            assert second.model is slow
            assert second.error is None
            assert second.value.config is slow
            assert second.report.backend == "LOCAL"
            with pytest.raises(StopAsyncIteration):
                await anext(outcomes)
        await settled(initializer)
        assert second.value.released == 0


async def test_each_object_that_names_a_model_gets_an_outcome(tmp_path: Path) -> None:
    """Spellings of one model have an outcome each; ``async for`` works without a block."""
    path = model_on_disk(tmp_path)
    async with Initializer(registry_of(m=returns_at_once())) as initializer:
        outcomes = [o async for o in initializer.init_each([path, Path(path), ModelConfig("m")])]
        by_model = {outcome.model: outcome.value for outcome in outcomes}
        assert len(outcomes) == 3
        assert by_model[path] is by_model[Path(path)]
        assert initializer.statistics().loaded == 2
        await settled(initializer)


async def test_leaving_early_leaves_what_has_not_landed(gate: Gate) -> None:
    """An early exit drops what is queued and releases what lands later, not what was yielded."""
    loaded: list[FakeModel] = []
    registry = registry_of(m=remembers(loaded, gate))
    configs = [ModelConfig("m") for _ in range(5)]
    async with Initializer(registry, max_concurrent_loads=2) as initializer:
        async with initializer.init_each(configs) as outcomes:
            await gate.entered(2)
            gate.let_through()
            async for outcome in outcomes:
                assert outcome.value is loaded[0]
                break
            await gate.entered(3)
        assert initializer.statistics().waiters == 0
        gate.open()
        await settled(initializer)
        assert [model.released for model in loaded] == [0, 1, 1]
        assert gate.count == 3


async def test_what_landed_and_was_not_taken_is_released() -> None:
    """Models that landed before an early exit and that nobody looked at are released."""
    loaded: list[FakeModel] = []
    registry = registry_of(m=remembers(loaded))
    async with Initializer(registry) as initializer:
        async with initializer.init_each([ModelConfig("m") for _ in range(3)]):
            await until(lambda: initializer.statistics().loaded == 3)
        await settled(initializer)
        assert [model.released for model in loaded] == [1, 1, 1]
