"""Loads inside loads, and loads from plain threads."""

import asyncio
import threading
from collections.abc import Callable
from contextvars import copy_context
from functools import partial
from pathlib import Path
from time import monotonic
from typing import Any

import anyio
import pytest
from anyio import create_task_group
from calls import Calls, arrived, does, error_of, two_backends
from scenes import LIMIT, Caller, error_of_late, let_pass, model_on_disk, registry_of
from test_lingering import lingering, told_to_stop

from anyload import (
    BulkLoadError,
    ClosedError,
    Initializer,
    LoadCancelled,
    LoadError,
    ModelConfig,
    ReentrantLoadError,
    Registry,
    check_cancelled,
)
from anyload._load.inside import Inside
from anyload.events import Discarded, Event
from anyload.testing import (
    FakeModel,
    Gate,
    checks_cancelled,
    returns_at_once,
    settled,
    until,
    waits_at,
)

SHORT = 0.05


class Site:
    """A registry whose modules load inside of loads; the initializer comes after it."""

    def __init__(self) -> None:
        self.registry = two_backends()
        self.threads: dict[str, int] = {}
        self.circles: list[ReentrantLoadError] = []
        self.initializer: Initializer

    def opens(self, **options: Any) -> Initializer:
        self.initializer = Initializer(self.registry, **options)
        return self.initializer

    def module(
        self, name: str, body: Callable[[], object], backend: str = "LOCAL", **attributes: Any
    ) -> Any:
        def load(config: ModelConfig) -> None:
            self.threads[name] = threading.get_ident()
            body()

        return self.registry.module(name, backend)(does(load, **attributes))

    def inner(self, name: str, **options: Any) -> Any:
        return self.initializer.init_sync(ModelConfig(name), key=name, **options)

    def asks_for(self, name: str, gate: Gate) -> None:
        """Load inside a load, once the gate lets it; take note of a circle, and go on."""
        gate.enter()
        try:
            self.inner(name)
        except ReentrantLoadError as error:
            self.circles.append(error)

    async def outer(self, name: str) -> Any:
        return await self.initializer.init(ModelConfig(name), key=name)


async def cut_inside_another(inner: Initializer, gate: Gate) -> Any:
    """Close an initializer under its load inside another's, and return what came of that one."""
    outer = Initializer(registry_of(o=does(lambda config: inner.init_sync(ModelConfig("m")))))
    async with outer, create_task_group() as tasks:
        calls = Calls(tasks)
        calls.start("outer", outer, ModelConfig("o"))
        await gate.entered()
        await inner.aclose(grace=0)
        gate.open()
        result = await calls.result("outer")
        await settled(outer)
    return result


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What a load inside another saw of the one it waits for, each time that it looked."""
    found, look = list[Any](), Inside.look

    def noted_look(inside: Inside, seat: Any, parent: Any) -> Any:
        found.append(look(inside, seat, parent))
        return found[-1]

    monkeypatch.setattr(Inside, "look", noted_look)
    return found


def bulk_inside(build: Callable[[], Any]) -> Any:
    """Return a module that runs this coroutine function on a loop of its own while it loads."""

    class Outer(FakeModel):
        @classmethod
        def load(cls, config: ModelConfig, **kwargs: Any) -> Any:
            return cls(config, {"inside": asyncio.run(build())})

    return Outer


def reentrant(error: LoadError) -> ReentrantLoadError:
    """Return what kept the last attempt from loading, once the errors around it are off."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, ReentrantLoadError):
        cause = cause.__cause__
    assert cause is not None
    return cause


class TestInline:
    async def test_with_one_slot(self) -> None:
        """A nested load runs in its parent's thread, on its parent's slot."""
        site = Site()
        site.module("a", lambda: site.inner("b"))
        site.module("b", lambda: site.inner("c"))
        site.module("c", lambda: None)
        async with site.opens(max_concurrent_loads=1) as initializer:
            await site.outer("a")
            assert len(set(site.threads.values())) == 1
            await settled(initializer)
            assert initializer.statistics().loaded == 3

    async def test_falls_back_inline(self) -> None:
        """A nested load tries its backends one after another in the same thread."""
        site = Site()

        def fails() -> None:
            raise ValueError("no")

        site.module("a", lambda: site.inner("b"))
        site.module("b", fails, "GPU")
        second = site.module("b", lambda: None)
        backends = [{"type": "GPU"}, {"type": "LOCAL"}]
        async with site.opens(max_concurrent_loads=1, backend_priority=backends) as initializer:
            await site.outer("a")
            assert len(second.made) == 1
            assert site.threads["a"] == site.threads["b"]
            await settled(initializer)

    async def test_of_a_path(self, tmp_path: Path) -> None:
        """A nested load whose config is read first is left to its parent, with slots to spare."""
        site = Site()
        (tmp_path / "config.yml").write_text("module_id: b\n")
        site.module("a", lambda: site.initializer.init_sync(tmp_path))
        site.module("b", lambda: None)
        async with site.opens(max_concurrent_loads=4) as initializer:
            for _ in range(10):
                await site.outer("a")
                assert site.threads["a"] == site.threads["b"]
            await settled(initializer)

    async def test_who_stops_waiting_leaves_it_to_the_workers(self) -> None:
        """A queued flight that a load waited for inside starts elsewhere once that load left."""
        site, gate, held = Site(), Gate(), Gate()
        site.module("holder", held.enter, exclusive_group="left")
        grouped = site.module("b", lambda: None, exclusive_group="left")

        def parent() -> None:
            with pytest.raises(TimeoutError):
                site.inner("b", timeout=0.2)
            gate.enter()

        site.module("a", parent)
        async with site.opens() as initializer, create_task_group() as tasks:
            calls = Calls(tasks)
            calls.start("holder", initializer, ModelConfig("holder"), key="holder")
            await held.entered()
            calls.start("b", initializer, ModelConfig("b"), key="b")
            await until(lambda: initializer.statistics().queued == 1)
            calls.start("a", initializer, ModelConfig("a"), key="a")
            await gate.entered()
            held.open()
            assert isinstance(await calls.result("b"), grouped)
            gate.open()
            await settled(initializer)

    async def test_who_is_not_wanted_any_more_leaves_it_to_the_workers(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A flight starts elsewhere if the load that could have run it inside has to stop."""
        site, held, looks, gate = Site(), Gate(), Gate(), Gate()
        looks.let_through()  # the first look finds the group held; the second comes too late
        site.module("holder", held.enter, exclusive_group="left")
        grouped = site.module("b", lambda: None, exclusive_group="left")
        look = Inside.look

        def late_look(inside: Inside, seat: Any, parent: Any) -> Any:
            looks.enter()
            return look(inside, seat, parent)

        monkeypatch.setattr(Inside, "look", late_look)

        def parent() -> None:
            try:
                site.inner("b")
            finally:
                gate.enter()

        site.module("a", parent)
        async with site.opens() as initializer, create_task_group() as tasks:
            calls = Calls(tasks)
            calls.start("holder", initializer, ModelConfig("holder"), key="holder")
            await held.entered()
            caller = Caller(tasks, initializer, ModelConfig("a"), key="a")
            await until(lambda: initializer.statistics().queued == 1)
            calls.start("b", initializer, ModelConfig("b"), key="b")
            await until(lambda: initializer.statistics().waiters == 4)
            held.open()
            await calls.result("holder")
            await caller.cancel()
            looks.open()
            assert isinstance(await calls.result("b"), grouped)
            gate.open()
            await settled(initializer)

    async def test_its_error_reaches_the_parent(self) -> None:
        """A nested load that fails raises its LoadError inside the parent's load."""
        site = Site()
        seen = list[Exception]()

        def fails() -> None:
            raise ValueError("no")

        def parent() -> None:
            with pytest.raises(LoadError) as caught:
                site.inner("b")
            seen.append(caught.value)

        site.module("a", parent)
        site.module("b", fails)
        async with site.opens(max_concurrent_loads=1) as initializer:
            await site.outer("a")
            assert isinstance(seen[0].__cause__, ValueError)
            await settled(initializer)

    async def test_groups_are_reentrant(self) -> None:
        """A nested load of its parent's own group does not wait for it."""
        site = Site()
        site.module("a", lambda: site.inner("b"), exclusive_group="nested", holds_gil=True)
        site.module("b", lambda: None, exclusive_group="nested", holds_gil=True)
        async with site.opens(max_concurrent_loads=1) as initializer:
            await site.outer("a")
            await site.outer("b")
            await settled(initializer)

    async def test_in_another_initializer(self) -> None:
        """A load nested in another initializer runs inline too, on a slot of neither."""
        site, other = Site(), Site()
        gate = Gate()
        other.module("busy", gate.enter)
        other.module("b", lambda: None)
        site.module("a", lambda: other.inner("b"))
        async with site.opens(max_concurrent_loads=1), other.opens(max_concurrent_loads=1):
            async with create_task_group() as tasks:
                tasks.start_soon(other.outer, "busy")
                await gate.entered()
                await site.outer("a")
                assert other.threads["b"] == site.threads["a"]
                gate.open()
            await settled(site.initializer)
            await settled(other.initializer)

    async def test_fails_after_its_initializer_was_cut(self, gate: Gate) -> None:
        """Closed under a load that runs inside another initializer's, it ends with ClosedError."""

        def fail(config: ModelConfig) -> None:
            gate.enter()
            raise ValueError("too late to matter")

        inner = Initializer(registry_of(m=does(fail)))
        error = await cut_inside_another(inner, gate)
        assert isinstance(error.__cause__, ClosedError | LoadCancelled)

    async def test_lands_after_its_initializer_was_cut(self, gate: Gate) -> None:
        """Its model is discarded, and who listens is told why."""
        events = list[Event]()
        inner = Initializer(registry_of(m=waits_at(gate)), hooks=[events.append])
        assert isinstance(await cut_inside_another(inner, gate), LoadError)
        discarded = await arrived(Discarded, events)
        assert discarded.reason == "its initializer was closed"

    async def test_takes_over_a_queued_flight(self) -> None:
        """A load that is queued runs at once when the load on the only slot asks for it."""
        site, gate = Site(), Gate()

        def parent() -> None:
            gate.enter()
            site.inner("b")

        site.module("a", parent)
        site.module("b", lambda: None)
        async with site.opens(max_concurrent_loads=1) as initializer, create_task_group() as tasks:
            calls = Calls(tasks)
            calls.start("a", initializer, ModelConfig("a"), key="a")
            await gate.entered()
            calls.start("b", initializer, ModelConfig("b"), key="b")
            await until(lambda: initializer.statistics().queued == 1)
            gate.open()
            assert not isinstance(await calls.result("b"), Exception)
            assert not isinstance(await calls.result("a"), Exception)
            assert site.threads["a"] == site.threads["b"]
            await settled(initializer)
            assert initializer.statistics().loaded == 2

    async def test_waits_for_one_that_runs_elsewhere(self) -> None:
        """A nested load of a model that loads in another thread waits for that load."""
        site, gate = Site(), Gate()
        site.module("a", lambda: site.inner("b"))
        shared = site.module("b", gate.enter)
        async with site.opens(max_concurrent_loads=2) as initializer, create_task_group() as tasks:
            calls = Calls(tasks)
            calls.start("b", initializer, ModelConfig("b"), key="b")
            await gate.entered()
            calls.start("a", initializer, ModelConfig("a"), key="a")
            await until(lambda: initializer.statistics().waiters == 3)
            gate.open()
            for name in ("a", "b"):
                assert not isinstance(await calls.result(name), Exception)
            assert len(shared.made) == 1
            await settled(initializer)

    async def test_waits_for_one_that_was_told_to_stop(self, gate: Gate, looks: list[Any]) -> None:
        """A nested load does not begin beside one of its model that has yet to stop."""
        site, told, again = Site(), Gate(open=True), Gate(open=True)
        site.registry.module("stops")(told_to_stop(told, gate))
        site.module("a", lambda: site.inner("k"))
        site.module("k", again.enter)
        async with site.opens(max_concurrent_loads=2) as initializer, create_task_group() as tasks:
            await lingering(initializer, told, "stops", key="k")
            outer = Caller(tasks, initializer, ModelConfig("a"), key="a")
            await until(lambda: bool(looks))
            assert looks == [(False, None)]
            assert again.count == 0
            gate.open()
            await outer.result()
            assert again.count == 1
            await settled(initializer)

    async def test_stops_waiting_with_its_parent(self) -> None:
        """A nested wait ends when nobody wants the parent any more; the awaited load goes on."""
        site, gate = Site(), Gate()
        ended = threading.Event()

        def parent() -> None:
            try:
                site.inner("b")
            finally:
                ended.set()

        site.module("a", parent)
        site.module("b", gate.enter)
        async with site.opens() as initializer, create_task_group() as tasks:
            calls = Calls(tasks)
            calls.start("b", initializer, ModelConfig("b"), key="b")
            await gate.entered()
            async with create_task_group() as inner:
                inner.start_soon(site.outer, "a")
                await until(lambda: initializer.statistics().waiters == 3)
                inner.cancel_scope.cancel()
            await until(ended.is_set)
            assert initializer.statistics().waiters == 1
            gate.open()
            assert not isinstance(await calls.result("b"), Exception)
            await settled(initializer)

    async def test_stops_waiting_with_the_parent_of_its_parent(self, looks: list[Any]) -> None:
        """A wait two loads deep ends when the last caller of the one between them leaves too."""
        site, gate = Site(), Gate()
        ended = threading.Event()

        def between() -> None:
            try:
                site.inner("c")
            finally:
                ended.set()

        site.module("a", lambda: site.inner("b"))
        site.module("b", between)
        site.module("c", gate.enter)
        async with site.opens() as initializer, create_task_group() as tasks:

            def waiters() -> int:
                return initializer.statistics().waiters

            last = Caller(tasks, initializer, ModelConfig("c"), key="c")
            await gate.entered()
            outer = Caller(tasks, initializer, ModelConfig("a"), key="a")
            await until(lambda: waiters() == 4)
            other = Caller(tasks, initializer, ModelConfig("b"), key="b")
            await until(lambda: waiters() == 5)
            before = len(looks)
            await outer.cancel()
            await until(lambda: len(looks) > before)
            assert waiters() == 4
            await other.cancel()
            await until(ended.is_set)
            await until(lambda: waiters() == 1)
            gate.open()
            await last.result()
            await settled(initializer)

    async def test_has_landed_as_its_parent_passes_its_limit(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A nested load that has ended is there, though its parent is abandoned in that moment."""
        site, got = Site(), list[Any]()
        look = Inside.look

        def slow_look(inside: Inside, seat: Any, parent: Any) -> Any:
            ended, task = look(inside, seat, parent)
            if ended:
                let_pass(initializer, 2 * LIMIT)
                assert initializer.statistics().abandoned == 1
            return ended, task

        monkeypatch.setattr(Inside, "look", slow_look)
        site.module("a", lambda: got.append(site.inner("b")), backend="GPU")
        site.module("a", lambda: None)
        inner = site.module("b", lambda: None)
        backends = [{"type": "GPU", "timeout": LIMIT}, {"type": "LOCAL"}]
        async with site.opens(backend_priority=backends) as initializer:
            await site.outer("a")
            await settled(initializer)
            assert got == inner.made
            assert [model.released for model in inner.made] == [0]

    async def test_does_not_outlive_its_parent(self) -> None:
        """What waits in a thread that a load has left behind is told when that load has ended."""
        site, gate, leave = Site(), Gate(), Gate()
        errors = list[BaseException]()

        def waits() -> None:
            try:
                site.inner("b")
            except LoadCancelled as error:
                errors.append(error)

        def parent() -> None:
            thread = threading.Thread(target=copy_context().run, args=(waits,))
            thread.start()
            leave.enter()

        site.module("a", parent)
        site.module("b", gate.enter)
        async with site.opens() as initializer, create_task_group() as tasks:
            calls = Calls(tasks)
            calls.start("b", initializer, ModelConfig("b"), key="b")
            await gate.entered()
            calls.start("a", initializer, ModelConfig("a"), key="a")
            await until(lambda: initializer.statistics().waiters == 3)
            leave.open()
            assert not isinstance(await calls.result("a"), Exception)
            await until(lambda: len(errors) == 1)
            gate.open()
            assert not isinstance(await calls.result("b"), Exception)
            await settled(initializer)

    async def test_timeout_of_the_nested_caller(self) -> None:
        """init_sync inside a load leaves after its own timeout."""
        site, gate = Site(), Gate()
        seen = list[str]()

        def parent() -> None:
            with pytest.raises(TimeoutError, match="took over"):
                site.inner("b", timeout=SHORT)
            seen.append("left")

        site.module("a", parent)
        site.module("b", gate.enter)
        async with site.opens() as initializer, create_task_group() as tasks:
            calls = Calls(tasks)
            calls.start("b", initializer, ModelConfig("b"), key="b")
            await gate.entered()
            await site.outer("a")
            assert seen == ["left"]
            gate.open()
            assert not isinstance(await calls.result("b"), Exception)
            await settled(initializer)

    async def test_is_wanted_as_long_as_its_parent(self) -> None:
        """Cancelling the parent's caller sets the flag of the load nested in it."""
        site, gate = Site(), Gate()

        def nested() -> None:
            gate.enter()
            while True:
                check_cancelled()

        site.module("a", lambda: site.inner("b"))
        site.module("b", nested)
        async with site.opens(max_concurrent_loads=1) as initializer:
            async with create_task_group() as tasks:
                tasks.start_soon(site.outer, "a")
                await gate.entered()
                gate.open()
                tasks.cancel_scope.cancel()
            await settled(initializer)
            assert initializer.statistics().loaded == 0


class TestReentry:
    async def test_a_in_a(self) -> None:
        """A load that asks for its own model gets ReentrantLoadError, and its flight fails."""
        site = Site()
        site.module("a", lambda: site.inner("a"))
        async with site.opens() as initializer:
            error = await error_of(initializer, ModelConfig("a"), key="a")
            assert reentrant(error).chain == ("a", "a")
            await settled(initializer)

    async def test_a_in_b_in_a(self) -> None:
        """The chain of the error names the loads of the cycle."""
        site = Site()
        site.module("a", lambda: site.inner("b"))
        site.module("b", lambda: site.inner("a"))
        async with site.opens(max_concurrent_loads=1) as initializer:
            error = await error_of(initializer, ModelConfig("a"), key="a")
            assert reentrant(error).chain == ("b", "a")
            assert "loading 'a' would wait for itself: b -> a" in str(error)
            await settled(initializer)

    async def test_two_loads_that_wait_for_each_other(self) -> None:
        """The load whose wait would close a cycle gets the error; the other one loads."""
        site, gate = Site(), Gate()
        site.module("a", lambda: site.asks_for("b", gate))
        site.module("b", lambda: site.asks_for("a", gate))
        async with site.opens() as initializer, create_task_group() as tasks:
            tasks.start_soon(site.outer, "a")
            tasks.start_soon(site.outer, "b")
            await gate.entered(2)
            gate.open()
            await settled(initializer)
            assert initializer.statistics().loaded == 2
            assert len(site.circles) == 1
            assert set(site.circles[0].chain) == {"a", "b"}

    async def test_over_groups(self) -> None:
        """A cycle over two exclusive groups is found as one over two loads is."""
        site, gate = Site(), Gate()
        site.module("a", lambda: site.asks_for("in y", gate), exclusive_group="x")
        site.module("b", lambda: site.asks_for("in x", gate), exclusive_group="y")
        site.module("in x", lambda: None, exclusive_group="x")
        site.module("in y", lambda: None, exclusive_group="y")
        async with site.opens() as initializer, create_task_group() as tasks:
            tasks.start_soon(site.outer, "a")
            tasks.start_soon(site.outer, "b")
            await gate.entered(2)
            gate.open()
            await settled(initializer)
            assert len(site.circles) == 1
            assert initializer.statistics().loaded == 3

    async def test_over_one_of_two_things_that_a_load_needs(self) -> None:
        """A load that needs a group and the lane waits for both holders, of which none may wait."""
        site, gate, hold = Site(), Gate(), Gate()
        site.module("holder", hold.enter, exclusive_group="x")
        site.module("a", lambda: site.asks_for("in y", gate), holds_gil=True)
        site.module("b", lambda: site.asks_for("both", gate), exclusive_group="y")
        site.module("in y", lambda: None, exclusive_group="y")
        site.module("both", lambda: None, exclusive_group="x", holds_gil=True)
        async with site.opens() as initializer, create_task_group() as tasks:
            for name in ("holder", "a", "b"):
                tasks.start_soon(site.outer, name)
            await hold.entered()
            await gate.entered(2)
            gate.open()
            await until(lambda: bool(site.circles))
            assert set(site.circles[0].chain) in ({"a", "in y", "both"}, {"b", "both", "in y"})
            hold.open()
            await settled(initializer)

    async def test_of_two_that_wait_for_one_load(self) -> None:
        """Each holds a half of what that load needs: the second to wait for it must not."""
        site, gate = Site(), Gate()
        site.module("a", lambda: site.asks_for("both", gate), exclusive_group="x")
        site.module("b", lambda: site.asks_for("both", gate), holds_gil=True)
        site.module("both", lambda: None, exclusive_group="x", holds_gil=True)
        async with site.opens() as initializer, create_task_group() as tasks:
            for name in ("a", "b"):
                tasks.start_soon(site.outer, name)
            await gate.entered(2)
            gate.open()
            await settled(initializer)
            assert len(site.circles) == 1
            assert site.circles[0].chain[1:] == ("both", "both")
            assert initializer.statistics().loaded == 3

    async def test_who_holds_two_things_is_waited_for_once(self) -> None:
        """A load that waits for both of them is in no circle with whoever holds both, and waits."""
        site, hold = Site(), Gate()
        site.module("holder", hold.enter, exclusive_group="y")
        site.module("a", lambda: site.inner("in y"), exclusive_group="x", holds_gil=True)
        site.module("b", lambda: site.inner("both"))
        site.module("in y", lambda: None, exclusive_group="y")
        site.module("both", lambda: None, exclusive_group="x", holds_gil=True)
        async with site.opens() as initializer, create_task_group() as tasks:
            tasks.start_soon(site.outer, "holder")
            await hold.entered()
            tasks.start_soon(site.outer, "a")
            await until(lambda: initializer.statistics().queued == 1)
            tasks.start_soon(site.outer, "b")
            await until(lambda: initializer.statistics().queued == 2)
            hold.open()
            await settled(initializer)
            assert initializer.statistics().loaded == 5

    async def test_across_initializers(self) -> None:
        """A cycle over two initializers is found too."""
        one, other, gate = Site(), Site(), Gate()
        one.module("a", lambda: other.asks_for("b", gate))
        other.module("b", lambda: one.asks_for("a", gate))
        async with one.opens(), other.opens(), create_task_group() as tasks:
            tasks.start_soon(one.outer, "a")
            tasks.start_soon(other.outer, "b")
            await gate.entered(2)
            gate.open()
            await settled(one.initializer)
            await settled(other.initializer)
            assert len(one.circles + other.circles) == 1


class TestPastItsLimit:
    async def test_a_nested_limit_abandons_the_thread(self) -> None:
        """A nested attempt past its limit ends the outer one too; each goes on elsewhere."""
        site, gate = Site(), Gate()
        site.module("a", lambda: site.inner("b"), "GPU")
        outer = site.module("a", lambda: None)
        site.module("b", gate.enter, "GPU")
        nested = site.module("b", lambda: None)
        backends = [{"type": "GPU", "timeout": LIMIT}, {"type": "LOCAL"}]
        async with (
            site.opens(max_concurrent_loads=1, backend_priority=backends) as initializer,
            create_task_group() as tasks,
        ):
            calls = Calls(tasks)
            calls.start("a", initializer, ModelConfig("a"), key="a")
            await gate.entered()
            calls.start("b", initializer, ModelConfig("b"), key="b")
            await until(lambda: initializer.statistics().waiters == 3)
            let_pass(initializer, 2 * LIMIT)
            assert isinstance(await calls.result("a"), outer)
            assert isinstance(await calls.result("b"), nested)
            assert initializer.statistics().abandoned == 1
            gate.open()
            await settled(initializer)
            # The late nested model was released, and the late outer load never came to one.
            assert initializer.statistics().discarded == 1

    async def test_overdue_with_its_parent(self) -> None:
        """Where no thread may be abandoned, the nested and the outer flight end together."""
        site, gate = Site(), Gate()
        site.module("a", lambda: site.inner("b"))
        site.module("b", gate.enter)
        async with site.opens(
            max_concurrent_loads=2,
            max_abandoned_loads=0,
            backend_priority=[{"type": "LOCAL", "timeout": LIMIT}],
        ) as initializer:
            error = await error_of_late(initializer, ModelConfig("a"), gate, key="a")
            assert [attempt.outcome for attempt in error.attempts] == ["timed_out"]
            assert initializer.statistics().overdue == 1
            gate.open()
            await settled(initializer)

    async def test_what_has_ended_in_a_thread_is_not_held_up_by_it(self, gate: Gate) -> None:
        """A nested load that ended in time: its model can be loaded anew, and has no limit left."""
        site = Site()

        def parent() -> None:
            site.inner("b")
            gate.enter()

        site.module("a", parent)
        inner = site.module("b", lambda: None)
        priority = [{"type": "LOCAL", "timeout": LIMIT}]
        async with site.opens(backend_priority=priority, max_abandoned_loads=0) as initializer:
            await error_of_late(initializer, ModelConfig("a"), gate, key="a")
            assert initializer.statistics().overdue == 1
            assert isinstance(await site.outer("b"), inner)
            gate.open()
            await settled(initializer)


class TestLoopInsideALoad:
    @pytest.mark.parametrize("backend", ["asyncio", "trio"])
    async def test_awaits_init(self, backend: str) -> None:
        """`await init()` on a loop that is run inside a load is a nested load."""
        site = Site()

        async def loads() -> None:
            await site.outer("b")

        site.module("a", lambda: anyio.run(loads, backend=backend))
        site.module("b", lambda: None)
        async with site.opens(max_concurrent_loads=1) as initializer:
            await site.outer("a")
            assert site.threads["a"] == site.threads["b"]
            await settled(initializer)


class TestBulkInsideALoad:
    async def test_errors_are_outcomes(self, tmp_path: Path) -> None:
        """A model that would wait for itself is a failed outcome; the other one is there."""
        other = ModelConfig("other")
        here = model_on_disk(tmp_path, "outer")

        async def build() -> list[Any]:
            async with initializer.init_each([here, other]) as outcomes:
                each = [outcome async for outcome in outcomes]
            try:
                await initializer.init_many([here, other])
            except BulkLoadError as error:
                return [*each, error]
            raise AssertionError("the bulk did not fail")

        registry = registry_of(outer=bulk_inside(build), other=returns_at_once())
        initializer = Initializer(registry, max_concurrent_loads=1)
        async with initializer:
            model = await initializer.init(here)
            first, second, error = model.kwargs["inside"]
            assert isinstance(first.error, ReentrantLoadError)
            assert first.report.attempts == ()
            assert isinstance(second.value, FakeModel)
            assert list(error.failed) == [here]
            assert list(error.models) == [other]
            await settled(initializer)

    async def test_releases_what_it_has_when_not_wanted(self, gate: Gate) -> None:
        """Cancelled between two of its models, it gives the first one back."""
        module = does(lambda config: None)

        async def build() -> Any:
            return await initializer.init_many([ModelConfig("made"), ModelConfig("slow")])

        registry = registry_of(outer=bulk_inside(build), made=module, slow=checks_cancelled(gate))
        initializer = Initializer(registry)
        async with initializer:
            async with create_task_group() as tasks:
                tasks.start_soon(initializer.init, ModelConfig("outer"))
                await gate.entered()
                tasks.cancel_scope.cancel()
            gate.open()
            await settled(initializer)
            assert [model.released for model in module.made] == [1]

    async def test_yields_each_as_it_lands(self) -> None:
        """init_each inside a load loads the next when it is asked for it, and no more when left."""
        inner = does(lambda config: None)
        loaded: list[int] = []
        given = [ModelConfig("inner") for _ in range(3)]

        async def build() -> list[Any]:
            each = []
            async with initializer.init_each(given) as outcomes:
                async for outcome in outcomes:
                    each.append(outcome)
                    loaded.append(len(inner.made))
                    if len(each) == 2:
                        break
            return each

        registry = registry_of(outer=bulk_inside(build), inner=inner)
        initializer = Initializer(registry)
        async with initializer:
            model = await initializer.init(ModelConfig("outer"))
            assert [outcome.model for outcome in model.kwargs["inside"]] == given[:2]
            assert [outcome.value for outcome in model.kwargs["inside"]] == inner.made
            assert loaded == [1, 2]
            assert [model.released for model in inner.made] == [0, 0]
            await settled(initializer)

    async def test_stops_at_the_first_failure(self) -> None:
        """With fail_fast nothing loads after a failure, and the error says how many were left."""
        inner = does(lambda config: None)
        good = [ModelConfig("inner") for _ in range(3)]

        def fails(config: ModelConfig) -> None:
            raise ValueError("no")

        async def build() -> list[BulkLoadError]:
            errors = []
            for given in ([good[0], bad, *good[1:]], [good[0], bad, good[1]], [good[0], bad]):
                try:
                    await initializer.init_many(given, fail_fast=True)
                except BulkLoadError as error:
                    errors.append(error)
            return errors

        bad = ModelConfig("bad")
        registry = registry_of(outer=bulk_inside(build), inner=inner, bad=does(fails))
        initializer = Initializer(registry)
        async with initializer:
            model = await initializer.init(ModelConfig("outer"))
            assert [error.message for error in model.kwargs["inside"]] == [
                "1 of 4 models did not load; 2 were left",
                "1 of 3 models did not load; 1 was left",
                "1 of 2 models did not load",
            ]
            for error in model.kwargs["inside"]:
                assert list(error.models) == good[:1]
                assert list(error.failed) == [bad]
            assert len(inner.made) == 3
            await settled(initializer)

    @pytest.mark.parametrize("kwargs", [{}, {"option": object()}])
    async def test_loads_a_model_of_many_names_once(
        self, tmp_path: Path, kwargs: dict[str, Any]
    ) -> None:
        """Names of one model load once, and a name of nothing is a failure of its own."""
        inner = does(lambda config: None)
        path, other = model_on_disk(tmp_path, "inner"), model_on_disk(tmp_path, "inner", "other")
        (tmp_path / "link").symlink_to(path)
        given: list[Any] = [path, other, str(tmp_path / "link"), Path(path), str(tmp_path / "none")]

        async def build() -> list[Any]:
            async with initializer.init_each(given, **kwargs) as outcomes:
                return [outcome async for outcome in outcomes]

        registry = registry_of(outer=bulk_inside(build), inner=inner)
        initializer = Initializer(registry)
        async with initializer:
            outcomes = (await initializer.init(ModelConfig("outer"))).kwargs["inside"]
            by_model = {outcome.model: outcome.value for outcome in outcomes}
            assert len(outcomes) == len(given)
            assert len(inner.made) == 2
            assert by_model[path] is by_model[given[2]] is by_model[Path(path)]
            assert by_model[other] is not by_model[path]
            assert by_model[given[4]] is None
            await settled(initializer)

    @pytest.mark.parametrize("spelling", ["outer", "./outer"])
    async def test_a_refused_load_took_no_time(self, tmp_path: Path, spelling: str) -> None:
        """The report of a load that was refused before it began is not of negative length."""
        here, there = model_on_disk(tmp_path, "outer"), f"{tmp_path}/{spelling}"

        async def build() -> list[Any]:
            return [outcome async for outcome in initializer.init_each([there])]

        initializer, began = Initializer(registry_of(outer=bulk_inside(build))), monotonic()
        async with initializer:
            [outcome] = (await initializer.init(here)).kwargs["inside"]
            assert isinstance(outcome.error, ReentrantLoadError)
            assert outcome.report.attempts == ()
            assert 0 <= outcome.report.total_seconds <= monotonic() - began
            await settled(initializer)


class TestPlainThreads:
    async def test_several_share_a_load(self) -> None:
        """Plain threads and a loop that ask for one model share one load."""
        site, gate = Site(), Gate()
        module = site.module("a", gate.enter)
        models = list[Any]()
        async with site.opens() as initializer:
            threads = [
                threading.Thread(target=lambda: models.append(site.inner("a"))) for _ in range(5)
            ]
            for thread in threads:
                thread.start()
            async with create_task_group() as tasks:
                tasks.start_soon(site.outer, "a")
                await until(lambda: initializer.statistics().waiters == 6)
                gate.open()
            for thread in threads:
                await until(lambda thread=thread: not thread.is_alive())  # type: ignore[misc]
            assert len(models) == 5
            assert len(set(map(id, models))) == len(module.made) == 1
            await settled(initializer)

    async def test_timeout(self) -> None:
        """init_sync leaves after its timeout like a cancelled caller, and others get the model."""
        gate = Gate()
        registry = Registry()
        registry.module("a")(waits_at(gate))
        registry.module("b")(returns_at_once())
        async with Initializer(registry) as initializer, create_task_group() as tasks:
            calls = Calls(tasks)
            calls.start("a", initializer, ModelConfig("a"), key="a")
            await gate.entered()
            late = partial(initializer.init_sync, ModelConfig("a"), key="a", timeout=SHORT)
            with pytest.raises(TimeoutError, match=r"loading 'a' took over 0\.05 s"):
                await anyio.to_thread.run_sync(late)
            assert initializer.statistics().waiters == 1
            soon = partial(initializer.init_sync, ModelConfig("b"), timeout=30.0)
            assert await anyio.to_thread.run_sync(soon) is not None
            gate.open()
            assert not isinstance(await calls.result("a"), Exception)
            await settled(initializer)

    async def test_error(self) -> None:
        """init_sync raises what init would."""
        registry = Registry()

        def fails(config: ModelConfig) -> None:
            raise ValueError("no")

        registry.module("a")(does(fails))
        async with Initializer(registry) as initializer:
            with pytest.raises(LoadError):
                await anyio.to_thread.run_sync(initializer.init_sync, ModelConfig("a"))
            await settled(initializer)
