"""Many models in one call: ``init_many`` and ``init_each``."""

from __future__ import annotations

import gc
import os
import pickle
import threading
import weakref
from pathlib import Path
from typing import Any

import anyio
import pytest
from anyio import CancelScope, create_task_group
from calls import does
from scenes import LIMIT, Caller, Clock, model_on_disk, registry_of

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
from anyload._load.flight import Flight
from anyload._load.requests import BulkRequests, Requests
from anyload._load.resolver import Resolver
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
    odd = f"{tmp_path}//./m/"
    async with Initializer(registry_of(m=waits_at(gate))) as initializer:
        models = await initializer.init_many([path, odd, path, Path(path)])
        assert list(models) == [path, odd, Path(path)]
        assert len({id(model) for model in models.values()}) == 1
        assert gate.count == 1
        await settled(initializer)


async def test_spellings_of_one_path_stay_where_they_were_given(tmp_path: Path) -> None:
    """Another spelling of a model comes where it was given, in the models and in the errors."""
    a, b = model_on_disk(tmp_path, name="a"), model_on_disk(tmp_path, name="b")
    given = [a, b, f"{tmp_path}/./a", f"{tmp_path}/none", f"{tmp_path}/no", f"{tmp_path}//none"]
    async with Initializer(registry_of(m=returns_at_once())) as initializer:
        assert list(await initializer.init_many(given[:3])) == given[:3]
        with pytest.raises(BulkLoadError) as caught:
            await initializer.init_many(given)
        assert list(caught.value.models) == given[:3]
        assert list(caught.value.failed) == given[3:]
        await settled(initializer)


async def test_up_from_a_link_is_where_the_link_leads(tmp_path: Path) -> None:
    """``link/../x`` and ``x`` are two models where the link leads elsewhere, as they are alone."""
    here = model_on_disk(tmp_path, name="x")
    (tmp_path / "other" / "sub").mkdir(parents=True)
    there = model_on_disk(tmp_path / "other", name="x")
    (tmp_path / "link").symlink_to(tmp_path / "other" / "sub")
    odd = f"{tmp_path}/link/../x"
    registry = registry_of(m=does(lambda config: None))
    async with Initializer(registry) as initializer:
        models = await initializer.init_many([here, odd, there])
        assert list(models) == [here, odd, there]
        assert models[here].config.model_path == here
        assert models[odd] is models[there] is not models[here]
        await settled(initializer)


async def test_an_empty_name_is_not_the_directory_that_names_begin_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The empty name is refused in a bulk too, whatever else is in it."""
    monkeypatch.chdir(model_on_disk(tmp_path))
    async with Initializer(registry_of(m=returns_at_once())) as initializer:
        with pytest.raises(BulkLoadError) as caught:
            await initializer.init_many([".", ""])
        assert list(caught.value.models) == ["."]
        assert list(caught.value.failed) == [""]


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


class Names:
    """A model on disk under two names, the second of which is read when the gate says so."""

    def __init__(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.path = model_on_disk(tmp_path)
        self.link = str(tmp_path / "link")
        Path(self.link).symlink_to(self.path)
        self.reading = Gate()
        self.given = [self.path, self.link]
        really = Resolver.resolve

        def resolve(resolver: Resolver, model: Any, *args: Any, **kwargs: Any) -> Any:
            found = really(resolver, model, *args, **kwargs)
            if model == self.link:
                self.reading.enter()
            return found

        monkeypatch.setattr(Resolver, "resolve", resolve)


@pytest.fixture
def names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Names:
    return Names(tmp_path, monkeypatch)


@pytest.mark.parametrize("kwargs", [{}, {"option": 1}, {"option": object()}])
async def test_a_model_loads_once_however_late_its_names_are_known_to_be_one(
    names: Names, kwargs: dict[str, Any]
) -> None:
    """A name that is read when the model has long landed has that model, and nothing loads."""
    found: dict[Any, Any] = {}
    module = does(lambda config: None)
    async with (
        Initializer(registry_of(m=module)) as initializer,
        create_task_group() as tasks,
    ):

        async def load() -> None:
            found.update(await initializer.init_many(names.given, **kwargs))

        tasks.start_soon(load)
        await names.reading.entered()
        await until(lambda: initializer.statistics().loaded == 1)
        assert initializer.statistics().resolving == 1
        names.reading.open()
        await until(lambda: bool(found))
        assert list(found) == names.given
        assert len(module.made) == 1
        assert found[names.path] is found[names.link] is module.made[0]
        assert found[names.path].kwargs == kwargs
        await settled(initializer)
        figures = initializer.statistics()
        assert (figures.loaded, figures.cancelled, figures.discarded) == (1, 0, 0)


async def test_names_that_are_one_model_while_it_loads_wait_together(
    names: Names, gate: Gate
) -> None:
    """Kwargs that can be no key are shared with nobody else; the names of a bulk have the same."""
    found: dict[Any, Any] = {}
    async with (
        Initializer(registry_of(m=waits_at(gate))) as initializer,
        create_task_group() as tasks,
    ):

        async def load() -> None:
            found.update(await initializer.init_many(names.given, option=object()))

        tasks.start_soon(load)
        await gate.entered()
        names.reading.open()
        await until(lambda: initializer.statistics().flights == 1)
        assert initializer.statistics().waiters == 2
        gate.open()
        await until(lambda: bool(found))
        assert found[names.path] is found[names.link]
        assert gate.count == 1
        await settled(initializer)


async def test_a_model_that_failed_fails_for_each_of_its_names(names: Names) -> None:
    """A name that is read when the load has long failed has that error, an instance of its own."""
    errors: list[BulkLoadError] = []

    def fails(config: ModelConfig) -> None:
        calls.append(config)
        raise value_error()

    calls: list[ModelConfig] = []
    async with (
        Initializer(registry_of(m=does(fails))) as initializer,
        create_task_group() as tasks,
    ):

        async def load() -> None:
            try:
                await initializer.init_many(names.given)
            except BulkLoadError as error:
                errors.append(error)

        tasks.start_soon(load)
        await names.reading.entered()
        await until(lambda: initializer.statistics().failed == 1)
        names.reading.open()
        await until(lambda: bool(errors))
        first, second = errors[0].exceptions
        assert list(errors[0].failed) == names.given
        assert first is not second
        assert str(first) == str(second)
        assert len(calls) == 1
        await settled(initializer)


@pytest.mark.parametrize("other_first", [False, True])
async def test_others_never_share_a_load_that_has_ended(names: Names, other_first: bool) -> None:
    """Who waits with a bulk for a name to be read gets a load of its own, not what had landed."""
    found: dict[Any, Any] = {}
    module = does(lambda config: None)
    async with (
        Initializer(registry_of(m=module)) as initializer,
        create_task_group() as tasks,
    ):

        async def load() -> None:
            found.update(await initializer.init_many(names.given))

        async def other() -> None:
            found["other"] = await initializer.init(names.link)

        tasks.start_soon(other if other_first else load)
        await names.reading.entered()
        tasks.start_soon(load if other_first else other)
        await until(lambda: initializer.statistics().loaded == 1)
        await until(lambda: initializer.statistics().waiters == 2)
        names.reading.open()
        await until(lambda: len(found) == 3)
        assert found[names.path] is found[names.link] is module.made[0]
        assert found["other"] is module.made[1]
        await settled(initializer)


def _figures(initializer: Initializer) -> tuple[int, int]:
    figures = initializer.statistics()
    return figures.flights, figures.waiters


async def test_a_bulk_that_comes_just_after_a_name_was_read_has_its_model_once(
    names: Names, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who joins between the reading of a name and what comes of it is told what was read."""
    found: dict[Any, Any] = {}
    module = does(lambda config: None)
    told = Gate()
    really = Requests._tell

    def tell(requests: Requests, flight: Flight, key: Any) -> None:
        really(requests, flight, key)
        if flight.model == names.link and told.count == 0:
            told.enter()

    joined, read, join = Gate(), Resolver.resolve, BulkRequests.joined

    def resolve(resolver: Resolver, model: Any, *args: Any, **kwargs: Any) -> Any:
        if model == names.path:
            joined.enter()
        return read(resolver, model, *args, **kwargs)

    def has_joined(requests: BulkRequests, *args: Any) -> None:
        join(requests, *args)
        joined.open()

    monkeypatch.setattr(Requests, "_tell", tell)
    monkeypatch.setattr(Resolver, "resolve", resolve)
    monkeypatch.setattr(BulkRequests, "joined", has_joined)
    names.reading.open()
    async with (
        Initializer(registry_of(m=module)) as initializer,
        create_task_group() as tasks,
    ):

        async def load() -> None:
            found.update(await initializer.init_many(names.given))

        other = Caller(tasks, initializer, names.link)
        await told.entered()
        tasks.start_soon(load)
        # The name that is read next finds its model among those that wait: all are in one flight.
        await until(lambda: _figures(initializer) == (1, 3))
        told.open()
        await until(lambda: bool(found))
        assert found[names.path] is found[names.link] is await other.result()
        assert len(module.made) == 1
        await settled(initializer)


async def test_a_name_that_only_the_bulk_still_waits_for_loads_nothing(names: Names) -> None:
    """What another caller began to have read, and left, is no load if the bulk has the model."""
    found: dict[Any, Any] = {}
    module = does(lambda config: None)
    async with (
        Initializer(registry_of(m=module)) as initializer,
        create_task_group() as tasks,
    ):

        async def load() -> None:
            found.update(await initializer.init_many(names.given))

        other = Caller(tasks, initializer, names.link)
        await names.reading.entered()
        tasks.start_soon(load)
        await until(lambda: initializer.statistics().loaded == 1)
        await other.cancel()
        names.reading.open()
        await until(lambda: bool(found))
        assert found[names.path] is found[names.link] is module.made[0]
        assert len(module.made) == 1
        await settled(initializer)


@pytest.mark.parametrize("landed", [False, True])
async def test_a_load_that_somebody_else_began_is_one_of_the_bulk_too(
    names: Names, tmp_path: Path, gate: Gate, landed: bool
) -> None:
    """A bulk that waits for another's load takes that for the other names of the model as well."""
    found: dict[Any, Any] = {}
    again = str(tmp_path / "again")
    os.symlink(names.path, again)
    async with (
        Initializer(registry_of(m=waits_at(gate)), max_concurrent_loads=1) as initializer,
        create_task_group() as tasks,
    ):

        async def other() -> None:
            found["other"] = await initializer.init(again)

        async def load() -> None:
            found.update(await initializer.init_many([again, names.link]))

        tasks.start_soon(other)
        await gate.entered()
        tasks.start_soon(load)
        await names.reading.entered()
        if landed:
            gate.let_through()
            await until(lambda: "other" in found)
        names.reading.open()
        if not landed:
            await until(lambda: initializer.statistics().flights == 1)
        gate.open()
        await until(lambda: len(found) == 3)
        assert found["other"] is found[again] is found[names.link]
        assert gate.count == 1
        await settled(initializer)


async def test_cancelling_a_bulk_releases_a_model_of_two_names_once(
    names: Names, tmp_path: Path, gate: Gate
) -> None:
    """What landed, and was moved to by another name, is released once when nobody took it."""
    slow = model_on_disk(tmp_path, "slow", "slow")
    module = does(lambda config: None)
    registry = registry_of(m=module, slow=checks_cancelled(gate))
    async with Initializer(registry) as initializer:
        async with create_task_group() as tasks:
            tasks.start_soon(initializer.init_many, [names.path, slow, names.link])
            await names.reading.entered()
            await until(lambda: initializer.statistics().loaded == 1)
            await gate.entered()
            names.reading.open()
            await until(lambda: initializer.statistics().flights == 1)
            tasks.cancel_scope.cancel()
        gate.open()
        await settled(initializer)
        assert [model.released for model in module.made] == [1]
        assert initializer.statistics().discarded == 1


async def test_cancelling_a_bulk_while_a_name_is_read_releases_the_model_once(
    names: Names,
) -> None:
    """A name that turns out to be a model after the bulk was cancelled changes nothing."""
    module = does(lambda config: None)
    async with Initializer(registry_of(m=module)) as initializer:
        async with create_task_group() as tasks:
            tasks.start_soon(initializer.init_many, names.given)
            await names.reading.entered()
            await until(lambda: initializer.statistics().loaded == 1)
            tasks.cancel_scope.cancel()
        names.reading.open()
        await settled(initializer)
        assert [model.released for model in module.made] == [1]


async def test_configs_are_told_apart_by_identity() -> None:
    """Two configs that say the same are two models."""
    first, second = ModelConfig("m"), ModelConfig("m")
    async with Initializer(registry_of(m=returns_at_once())) as initializer:
        models = await initializer.init_many([first, second, first])
        assert list(models) == [first, second]
        assert models[first] is not models[second]
        await settled(initializer)


async def test_configs_that_can_be_no_key_are_loads_of_their_own(tmp_path: Path) -> None:
    """Two configs of one path load once if they say the same; what cannot be compared does not."""
    path = model_on_disk(tmp_path)
    same = [ModelConfig("m", path, labels=["a"]) for _ in range(2)]
    others = [ModelConfig("m", path, labels=object()) for _ in range(2)]
    async with Initializer(registry_of(m=returns_at_once())) as initializer:
        models = await initializer.init_many([*same, *others])
        assert list(models) == [*same, *others]
        assert models[same[0]] is models[same[1]]
        assert len({id(model) for model in models.values()}) == 3
        await settled(initializer)


@pytest.mark.parametrize(("model", "shown"), [([], "a list"), (5, "5"), (([],), "a list")])
async def test_each_of_many_is_one_model(model: Any, shown: str) -> None:
    """What is none is refused at once, in our words."""
    async with Initializer(registry_of(m=returns_at_once())) as initializer:
        with pytest.raises(TypeError, match=f"a name, a path or a ModelConfig, not {shown}"):
            initializer.init_each([ModelConfig("m"), model])


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
        assert error.message == "2 of 4 models did not load"
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
        assert errors[0].message == "1 of 4 models did not load; 3 were left"
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
        Initializer(registry, load_timeout=LIMIT) as initializer,
        create_task_group() as tasks,
    ):
        clock = Clock(initializer)

        async def load() -> None:
            found.update(await initializer.init_many([ModelConfig("m")]))

        tasks.start_soon(holder.init, ModelConfig("m"))
        await gate.entered()
        alone = Caller(tasks, initializer, ModelConfig("m"))
        await until(lambda: initializer.statistics().queued == 1)
        clock.forward(2 * LIMIT)
        assert type(await alone.failure()) is LoadTimeoutError
        tasks.start_soon(load)
        await until(lambda: initializer.statistics().queued == 1)
        alone = Caller(tasks, initializer, ModelConfig("m"))
        await until(lambda: initializer.statistics().queued == 2)
        clock.forward(2 * LIMIT)
        assert type(await alone.failure()) is LoadTimeoutError
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


async def test_a_model_that_was_taken_is_there_for_its_other_names(names: Names) -> None:
    """An outcome that was yielded long ago is that of a name that is read only now."""
    module = does(lambda config: None)
    async with Initializer(registry_of(m=module)) as initializer:
        async with initializer.init_each(names.given) as outcomes:
            first = await anext(outcomes)
            await names.reading.entered()
            names.reading.open()
            second = await anext(outcomes)
            with pytest.raises(StopAsyncIteration):
                await anext(outcomes)
        assert [first.model, second.model] == names.given
        assert first.value is second.value is module.made[0]
        assert first.report == second.report
        await settled(initializer)
        assert [model.released for model in module.made] == [0]


async def test_a_model_that_was_taken_is_kept_until_the_last_name_is_read(
    names: Names, tmp_path: Path, gate: Gate
) -> None:
    """While others load, a bulk keeps nothing that was taken once no name is left to be read."""
    slow = model_on_disk(tmp_path, "slow", "slow")
    registry = registry_of(m=returns_at_once(), slow=waits_at(gate))
    async with Initializer(registry) as initializer:
        async with initializer.init_each([names.path, slow, names.link]) as outcomes:
            model = weakref.ref((await anext(outcomes)).value)
            await names.reading.entered()
            gc.collect()
            assert model() is not None
            names.reading.open()
            assert (await anext(outcomes)).value is model()
            await until(lambda: gc.collect() >= 0 and model() is None)
            gate.open()
            assert (await anext(outcomes)).model == slow
        await settled(initializer)


async def test_nothing_that_was_taken_is_kept_when_a_bulk_is_left(names: Names) -> None:
    """A name that is never read keeps no model alive beyond the end of the block."""
    async with Initializer(registry_of(m=returns_at_once())) as initializer:
        outcomes = initializer.init_each(names.given)
        async with outcomes:
            model = weakref.ref((await anext(outcomes)).value)
            await names.reading.entered()
        gc.collect()
        assert model() is None
        names.reading.open()
        await settled(initializer)


async def test_a_bulk_that_was_left_has_no_more_outcomes(gate: Gate) -> None:
    """What lands after the end of the block is not yielded to who asks all the same."""
    async with Initializer(registry_of(m=waits_at(gate))) as initializer:
        async with initializer.init_each([ModelConfig("m")]) as outcomes:
            await gate.entered()
        gate.open()
        await settled(initializer)
        with pytest.raises(StopAsyncIteration):
            await anext(outcomes)


async def test_outcomes_are_for_one_task_at_a_time(gate: Gate) -> None:
    """A second one that asks meanwhile hears of it at once, as of a generator; none hangs."""
    models = [ModelConfig("m") for _ in range(3)]
    found, refused = list[Any](), list[str]()

    async def take() -> None:
        try:
            found.extend([outcome async for outcome in outcomes])
        except RuntimeError as error:
            refused.append(str(error))

    async with Initializer(registry_of(m=waits_at(gate))) as initializer:
        async with initializer.init_each(models) as outcomes, create_task_group() as tasks:
            tasks.start_soon(take)
            tasks.start_soon(take)
            await until(lambda: bool(refused))
            gate.open()
        assert refused == ["another task waits for the next outcome of these already"]
        assert [outcome.error for outcome in found] == [None] * 3
        await settled(initializer)


async def test_who_was_cancelled_may_ask_again(gate: Gate) -> None:
    """The outcome that a task did not wait for is the next one that it gets."""
    async with Initializer(registry_of(m=waits_at(gate))) as initializer:
        async with initializer.init_each([ModelConfig("m")]) as outcomes:
            with CancelScope() as scope:
                scope.cancel()
                await anext(outcomes)
            gate.open()
            assert (await anext(outcomes)).error is None
        await settled(initializer)
