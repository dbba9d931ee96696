"""``await anyload.caikit.load(...)``: who waits for what, what is kept, and what stays behind."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import caikit
import pytest
from anyio import create_task_group
from caikit.core import MODEL_MANAGER
from caikit.core.model_management import model_initializer_factory
from scenes import LIMIT, let_pass
from serving import (
    Caller,
    Finder,
    Model,
    Site,
    named,
    opened,
    ours,
    outcome_of,
    rests,
    singletons,
    waiting,
    zipped,
)

import anyload.caikit
from anyload import LoadError
from anyload._load.figures import statistics
from anyload.testing import Gate, until

once = partial(anyload.caikit.load, initializer="ours", load_singleton=True)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with opened(tmp_path) as opened_site:
        yield opened_site


def at(gate: Gate) -> Callable[[Any], None]:
    """Return the body of a module that loads when the gate lets it."""
    return lambda given: gate.enter()


class TestSingletons:
    async def test_are_those_of_caikit(self, site: Site) -> None:
        """What one loads, the other finds: it is one object, whoever was first."""
        for name, first, second in (("a", once, theirs), ("b", theirs, once)):
            path = site.model(site.module(), name)
            model = await first(path)
            assert isinstance(model, Model)
            assert await second(path) is model
        assert len(MODEL_MANAGER.get_singleton_model_cache_info()) == 2
        await rests()

    async def test_are_loaded_once_for_all_who_ask(self, site: Site, gate: Gate) -> None:
        """Callers who come while it loads wait for that load, however they spell it."""
        path = site.model(site.module(at(gate)))
        spellings = [path, path + "/", path + "/../model"]
        async with create_task_group() as tasks:
            callers = [Caller(tasks, spellings[n % 3], load_singleton=True) for n in range(30)]
            await gate.entered()
            gate.open()
            models = {id(await caller.model()) for caller in callers}
        assert len(models) == 1
        assert list(singletons()) == [path]
        assert gate.count == 1
        await rests()

    async def test_are_found_by_who_was_still_looking(self, site: Site, gate: Gate) -> None:
        """A caller whose finder is slow gets the one that was loaded meanwhile."""
        loads = Gate(open=True)
        path = site.model(site.module(at(loads)))
        config = MODEL_MANAGER.get_finder("default").find_model(path)

        def find(asked: str) -> Any:
            gate.enter()
            return config

        async with create_task_group() as tasks:
            spelled = path + "/."  # else it would wait for the load, and not look
            slow = Caller(tasks, spelled, load_singleton=True, finder=Finder(find))
            await gate.entered()
            model = await once(path)
            gate.open()
            assert await slow.model() is model
        assert loads.count == 1
        await rests()

    async def test_wait_for_nobody_elses_load(self, site: Site, gate: Gate) -> None:
        """Four different ones load at the same time; caikit's lock would let in one of them."""
        module_id = site.module(at(gate))
        async with create_task_group() as tasks:
            callers = [
                Caller(tasks, site.model(module_id, name), load_singleton=True) for name in "abcd"
            ]
            await gate.entered(4)
            assert gate.inside == 4
            gate.open()
            assert len({id(await caller.model()) for caller in callers}) == 4
        await rests()

    async def test_are_shared_with_singletons_only(self, site: Site, gate: Gate) -> None:
        """Who asks for a model of their own while a singleton loads gets one of their own."""
        path = site.model(site.module(at(gate)))
        async with create_task_group() as tasks:
            kept, own = Caller(tasks, path, load_singleton=True), Caller(tasks, path)
            await gate.entered(2)
            gate.open()
            assert await kept.model() is not await own.model()
        assert singletons() == {path: await kept.model()}
        await rests()

    async def test_are_one_for_all_initializers(self, site: Site, gate: Gate) -> None:
        """Two initializers may both load it; the first that lands is what both give."""
        path = site.model(site.module(at(gate)))
        initializers = [ours(), ours()]
        async with create_task_group() as tasks:
            callers = [
                Caller(tasks, path, load_singleton=True, initializer=one) for one in initializers
            ]
            await gate.entered(2)
            gate.open()
            models = [await caller.model() for caller in callers]
        assert models == [singletons()[path]] * 2
        for initializer in initializers:
            await rests(initializer)

    async def test_are_loaded_once_by_those_who_came_before_their_initializer(
        self, site: Site, gate: Gate, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """However many ask at once, one initializer is made, as they would share no load."""
        loads = Gate(open=True)
        path = site.model(site.module(at(loads)))
        make = model_initializer_factory.construct

        def slowly(*given: Any) -> Any:
            gate.enter()
            return make(*given)

        monkeypatch.setattr(model_initializer_factory, "construct", slowly)
        async with create_task_group() as tasks:
            callers = [Caller(tasks, path, load_singleton=True) for _ in range(5)]
            await gate.entered()
            gate.open()
            assert len({id(await caller.model()) for caller in callers}) == 1
        assert (gate.count, loads.count) == (1, 1)
        await rests()

    @pytest.mark.parametrize("is_found", [True, False], ids=["the_module", "the_finder"])
    async def test_fail_for_each_caller_apart(self, site: Site, gate: Gate, is_found: bool) -> None:
        """Each gets an error of its own, for it to add to, whoever raised it."""

        def fails(*given: Any) -> Any:
            gate.enter()
            raise ValueError("broken")

        config = named(site.module(fails))
        finder = Finder((lambda asked: config) if is_found else fails)
        initializer = ours(argument="config")
        async with create_task_group() as tasks:
            asked = {"load_singleton": True, "finder": finder, "initializer": initializer}
            callers = [Caller(tasks, "model", **asked) for _ in range(3)]
            await gate.entered()
            await until(lambda: statistics(initializer._core).waiters == 3)
            gate.open()
            errors = [await caller.ended() for caller in callers]
        assert [repr(error) for error in errors] == ["ValueError('broken')"] * 3
        assert len({id(error) for error in errors}) == 3
        assert gate.count == 1
        await rests(initializer)

    async def test_are_loaded_again_when_they_were_cleared(self, site: Site) -> None:
        """``clear_singleton_cache`` forgets those of ours too."""
        path = site.model(site.module())
        first = await once(path)
        MODEL_MANAGER.clear_singleton_cache()
        assert await once(path) is not first
        await rests()

    async def test_are_not_made_of_archives_in_memory(self, site: Site) -> None:
        """They have no name to be found by."""
        content = zipped(site.module(), "config.yml")
        assert await once(content) is not await once(content)
        assert singletons() == {}
        await rests()

    async def test_are_not_kept_if_they_fail(self, site: Site) -> None:
        """The next caller tries again."""
        broken = [True]

        def body(given: Any) -> None:
            if broken:
                raise ValueError("not yet")

        path = site.model(site.module(body))
        assert isinstance(await outcome_of(partial(once, path)), ValueError)
        assert singletons() == {}
        broken.clear()
        assert await once(path) is singletons()[path]
        await rests()


async def theirs(path: str) -> Any:
    return caikit.load(path, initializer="ours", load_singleton=True)


class TestACancelledCaller:
    async def test_leaves_the_others(self, site: Site, gate: Gate) -> None:
        """They get the singleton, and it is kept."""
        path = site.model(site.module(at(gate)))
        async with create_task_group() as tasks:
            first, second = (Caller(tasks, path, load_singleton=True) for _ in range(2))
            await gate.entered()
            await waiting(2)
            await first.cancel()
            gate.open()
            assert await second.model() is singletons()[path]
        assert gate.count == 1
        await rests()

    async def test_who_was_the_last_takes_the_load_along(self, site: Site, gate: Gate) -> None:
        """What it still gives is dropped: it is no singleton."""
        path = site.model(site.module(at(gate)))
        async with create_task_group() as tasks:
            callers = [Caller(tasks, path, load_singleton=True) for _ in range(2)]
            await gate.entered()
            await waiting(2)
            for caller in callers:
                await caller.cancel()
            gate.open()
        await rests()
        assert singletons() == {}

    async def test_need_not_wait_for_the_initializer(
        self, site: Site, gate: Gate, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """It goes at once, though making the initializer goes on."""
        path, make = site.model(site.module()), model_initializer_factory.construct

        def slowly(*given: Any) -> Any:
            gate.enter()
            return make(*given)

        monkeypatch.setattr(model_initializer_factory, "construct", slowly)
        async with create_task_group() as tasks:
            caller = Caller(tasks, path)
            await gate.entered()
            await caller.cancel()
            gate.open()
        assert isinstance(await anyload.caikit.load(path, initializer="ours"), Model)
        assert gate.count == 1
        await rests()

    async def test_need_not_wait_for_the_finder(self, site: Site, gate: Gate) -> None:
        """It goes at once, and what the finder finds is not loaded."""
        loads = Gate(open=True)
        config = named(site.module(at(loads)))

        def find(asked: str) -> Any:
            gate.enter()
            return config

        async with create_task_group() as tasks:
            caller = Caller(tasks, "model", finder=Finder(find))
            await gate.entered()
            await caller.cancel()
            gate.open()
        await rests()
        assert loads.count == 0


async def test_a_load_that_is_too_late_is_no_singleton(site: Site, gate: Gate) -> None:
    """What comes of it after ``load_timeout`` is dropped; the next caller loads anew."""
    initializer = ours(load_timeout=LIMIT)
    path = site.model(site.module(at(gate)))
    async with create_task_group() as tasks:
        caller = Caller(tasks, path, initializer=initializer, load_singleton=True)
        await gate.entered()
        let_pass(initializer, 2 * LIMIT)
        error = await caller.ended()
    assert isinstance(error, LoadError)
    assert error.attempts[0].outcome == "timed_out"
    gate.open()
    await rests(initializer)
    assert singletons() == {}
    assert isinstance(await once(path), Model)
    assert gate.count == 2
    await rests()


class TestAnArchive:
    """Its files are there for as long as a thread is in the load, and gone afterwards."""

    async def test_of_a_load_that_ends_well(self, site: Site, gate: Gate) -> None:
        """They are gone though the model is there, as they are with caikit."""
        content = zipped(site.module(at(gate)), "inside/config.yml", "inside/weights")
        async with create_task_group() as tasks:
            callers = [Caller(tasks, content) for _ in range(2)]
            await gate.entered(2)
            assert len(site.unpacked()) == 2  # each load has files of its own
            gate.open()
            models = [await caller.model() for caller in callers]
        await until(lambda: site.unpacked() == [])
        assert len({model.given.model_path for model in models}) == 2
        await rests()

    async def test_of_a_load_that_fails(self, site: Site, gate: Gate) -> None:
        """They are gone though the error is kept."""

        def body(given: Any) -> None:
            gate.enter()
            raise ValueError("broken")

        async with create_task_group() as tasks:
            caller = Caller(tasks, zipped(site.module(body), "config.yml"))
            await gate.entered()
            assert len(site.unpacked()) == 1
            gate.open()
            error = await caller.ended()
        assert isinstance(error, ValueError)
        await until(lambda: site.unpacked() == [])
        await rests()

    @pytest.mark.parametrize("late", [False, True], ids=["cancelled", "late"])
    async def test_of_a_load_that_nobody_waits_for(
        self, site: Site, gate: Gate, late: bool
    ) -> None:
        """They are there until its thread has left it."""
        seen: list[bool] = []

        def body(given: Any) -> None:
            gate.enter()
            seen.append(os.path.exists(os.path.join(given.model_path, "weights")))

        initializer = ours(**{"load_timeout": LIMIT} if late else {})
        content = zipped(site.module(body), "config.yml", "weights")
        async with create_task_group() as tasks:
            caller = Caller(tasks, content, initializer=initializer)
            await gate.entered()
            if late:
                let_pass(initializer, 2 * LIMIT)
                assert isinstance(await caller.ended(), LoadError)
            else:
                await caller.cancel()
            gate.open()
        await rests(initializer)
        assert seen == [True]
        await until(lambda: site.unpacked() == [])


class TestTheLoop:
    """Nothing here is done on it: it gets to the next line while a thread is held at the gate."""

    async def test_goes_on_while_a_model_loads(self, site: Site, gate: Gate) -> None:
        """Whatever the module does."""
        async with create_task_group() as tasks:
            caller = Caller(tasks, site.model(site.module(at(gate))))
            await gate.entered()
            assert gate.inside == 1
            gate.open()
            await caller.model()
        await rests()

    async def test_goes_on_while_a_model_is_looked_for(self, site: Site, gate: Gate) -> None:
        """Whatever the finder does."""
        config = named(site.module())

        def find(asked: str) -> Any:
            gate.enter()
            return config

        async with create_task_group() as tasks:
            caller = Caller(tasks, "model", finder=Finder(find))
            await gate.entered()
            assert gate.inside == 1
            gate.open()
            assert (await caller.model()).given is config
        await rests()

    async def test_goes_on_while_the_initializer_is_made(
        self, site: Site, gate: Gate, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Whatever its backends do when they are made."""
        make = MODEL_MANAGER.get_initializer

        def slowly(name: str) -> Any:
            gate.enter()
            return make(name)

        monkeypatch.setattr(MODEL_MANAGER, "get_initializer", slowly)
        async with create_task_group() as tasks:
            caller = Caller(tasks, site.model(site.module()))
            await gate.entered()
            assert gate.inside == 1
            gate.open()
            await caller.model()
        await rests()


async def test_the_module_is_in_the_callers_context(site: Site) -> None:
    """It sees the caller's context variables, as it does where it is called by hand."""
    request: ContextVar[str] = ContextVar("request")
    request.set("of this caller")
    seen: list[str] = []
    path = site.model(site.module(lambda given: seen.append(request.get())))
    assert isinstance(await anyload.caikit.load(path, initializer="ours"), Model)
    assert seen == ["of this caller"]
    await rests()


@pytest.mark.parametrize(
    "run",
    [
        lambda load: asyncio.run(load()),
        lambda load: anyio.run(load, backend="trio"),
    ],
    ids=["asyncio inside", "trio inside"],
)
async def test_inside_a_load_it_takes_no_slot(site: Site, run: Callable[[Any], Any]) -> None:
    """A module that loads another with it, on a loop of its own, is done with one slot."""
    initializer = ours(max_concurrent_loads=1)
    inner = site.model(site.module(), "inner")
    made: list[Any] = []

    def body(given: Any) -> None:
        made.append(run(partial(anyload.caikit.load, inner, initializer=initializer)))

    outer = await anyload.caikit.load(
        site.model(site.module(body), "outer"), initializer=initializer
    )
    assert isinstance(outer, Model)
    assert made[0].given.model_path == inner
    await rests(initializer)


async def test_caikit_load_inside_a_load_takes_no_slot(site: Site) -> None:
    """So does a module that loads another with ``caikit.load``, singletons included."""
    initializer = ours(max_concurrent_loads=1)
    inner = site.model(site.module(), "inner")

    def body(given: Any) -> Any:
        return caikit.load(inner, initializer=initializer, load_singleton=True)

    outer = site.model(site.module(body), "outer")
    model = await anyload.caikit.load(outer, initializer=initializer)
    assert model is singletons()[inner]
    await rests(initializer)
