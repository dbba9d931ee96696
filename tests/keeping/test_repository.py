"""The repository on real threads: leases, loads, eviction, cancelling, closing; on every loop."""

from __future__ import annotations

import copy
import errno
import gc
import hashlib
import pickle
import threading
import weakref
from pathlib import Path
from typing import Any

import anyio
import pytest
from anyio import CancelScope, create_task_group, fail_after
from keeping import Shelf, emptied, quiet

from anyload import (
    AnyloadError,
    Backend,
    BulkLoadError,
    ClosedError,
    ConfigError,
    DrainTimeoutError,
    IntegrityError,
    LoadError,
    MemoryBudgetError,
    ModelNotFoundError,
    ModelUnavailableError,
    QueueFullError,
    Registry,
)
from anyload.events import StateChanged
from anyload.repository import ModelRepository
from anyload.testing import FakeClock, FakeMeter, Gate, until


class Leasing:
    """A task that leases a model and holds it until it is told to let go."""

    def __init__(self, tasks: Any, models: ModelRepository, name: str, priority: int = 0) -> None:
        self.model: Any = None
        self.error: AnyloadError | None = None
        self.ended = anyio.Event()
        self.scope = CancelScope()
        self.let_go = anyio.Event()
        tasks.start_soon(self._run, models, name, priority)

    async def _run(self, models: ModelRepository, name: str, priority: int) -> None:
        try:
            with self.scope:
                async with models.lease(name, priority=priority) as model:
                    self.model = model
                    await self.let_go.wait()
                    model.use()
        except AnyloadError as error:
            self.error = error
        self.ended.set()

    async def has_it(self) -> Any:
        await until(lambda: self.model is not None or self.error is not None)
        assert self.error is None, self.error
        return self.model

    async def cancel(self) -> None:
        self.scope.cancel()
        await self.ended.wait()

    async def give_back(self) -> None:
        self.let_go.set()
        await self.ended.wait()


class TestLeases:
    async def test_loads_once_and_keeps(self) -> None:
        """Many who ask at once get one model, and so does who asks later."""
        shelf = Shelf()
        shelf.load_gate = Gate()
        async with shelf.repository("a") as models, create_task_group() as tasks:
            leasing = [Leasing(tasks, models, "a") for _ in range(20)]
            await shelf.load_gate.entered()
            assert models.status("a").phase == "loading"
            assert models.try_lease("a") is None
            await until(lambda: models.statistics().waiting == 20)
            shelf.load_gate.open()
            got = {id(await one.has_it()) for one in leasing}
            assert models.status("a").leases == 20
            for one in leasing:
                await one.give_back()
            async with models.lease("a") as model:
                got.add(id(model))
            assert len(got) == 1
            assert shelf.loads == ["a"]
            assert models.statistics().hits == 1
            assert models.statistics().misses == 20
        await emptied(models)
        assert [model.released for model in shelf.made] == [1]

    async def test_try_lease(self) -> None:
        """A lease without waiting is there if the model is READY; it is given back once."""
        shelf = Shelf()
        async with shelf.repository("a") as models:
            assert models.try_lease("a") is None
            assert models.try_lease("nobody") is None
            assert shelf.loads == []
            await models.load("a")
            lease = models.try_lease("a")
            assert lease is not None
            assert lease.model is shelf.made[0]
            assert lease.version == "1"
            assert repr(lease) == "<Lease 'a' version 1>"
            report = models.status("a").report
            assert report is not None
            assert report.backend == models.status("a").backend == "LOCAL"
            assert models.status("a").leases == 1
            with lease as model:
                assert model is shelf.made[0]
            lease.release()
            assert repr(lease) == "<Lease released>"
            with pytest.raises(RuntimeError):
                _ = lease.model
            assert models.status("a").leases == 0
        await emptied(models)

    async def test_a_lease_is_not_copied(self) -> None:
        """A copy would be given back as well, or would keep the model for good."""
        async with Shelf().repository("a") as models:
            await models.load("a")
            lease = models.try_lease("a")
            assert lease is not None
            for copies in (copy.copy, copy.deepcopy, pickle.dumps):
                with pytest.raises(TypeError, match="a lease is not copied or pickled"):
                    copies(lease)
            lease.release()
            assert models.status("a").leases == 0
        await emptied(models)

    async def test_a_request_is_used_once(self) -> None:
        """What lease() returns cannot be entered while it is entered."""
        async with Shelf().repository("a") as models:
            request = models.lease("a")
            async with request:
                with pytest.raises(RuntimeError, match="ask for another one"):
                    await request.__aenter__()
        await emptied(models)

    async def test_lets_others_run(self) -> None:
        """A task that leases what is there again and again still lets others run."""
        async with Shelf().repository("a") as models, create_task_group() as tasks:
            await models.load("a")
            stop = False

            async def ends() -> None:
                nonlocal stop
                stop = True

            tasks.start_soon(ends)
            while not stop:
                async with models.lease("a"):
                    pass
            assert models.status("a").leases == 0

    async def test_cancelled_at_a_hit(self) -> None:
        """A cancelled task notices that at one of its leases, and keeps none."""
        async with Shelf().repository("a") as models:
            await models.load("a")
            with CancelScope() as scope:
                scope.cancel()
                while True:
                    async with models.lease("a"):
                        pass
            assert models.status("a").leases == 0

    async def test_unknown(self) -> None:
        """A name that the catalogue lacks is an error that names what it has."""
        async with Shelf().repository("a", "b") as models:
            with pytest.raises(ModelNotFoundError, match="the catalogue has a, b"):
                await models.load("c")

    async def test_aliases(self) -> None:
        """A model is found under its aliases too, and is one model."""
        shelf = Shelf()
        how = {"a": {"aliases": ["first", "the/one"], "version": "2024"}}
        async with shelf.repository("a", repository=how) as models:
            await models.load("first")
            async with models.lease("the/one") as model:
                assert model is shelf.made[0]
            assert [row["name"] for row in models.index()] == ["a"]
            assert models.status("first").version == "2024"

    async def test_an_error_for_each(self) -> None:
        """Everybody who waited for a load that fails gets an error of its own."""

        def breaks(_: object) -> None:
            raise ValueError("broken weights")

        shelf = Shelf(breaks)
        shelf.load_gate = Gate()
        async with shelf.repository("a") as models, create_task_group() as tasks:
            leasing = [Leasing(tasks, models, "a") for _ in range(3)]
            await shelf.load_gate.entered()
            await until(lambda: models.statistics().waiting == 3)
            shelf.load_gate.open()
            for one in leasing:
                await one.ended.wait()
            errors = [one.error for one in leasing]
            assert all(isinstance(error, LoadError) for error in errors)
            assert len({id(error) for error in errors}) == 3
            assert models.status("a").state == "UNAVAILABLE"
            assert "no backend could load 'a'" in models.status("a").reason
        await emptied(models)


class TestCancelling:
    async def test_one_of_two(self) -> None:
        """Who is cancelled leaves at once; the other gets the model."""
        shelf = Shelf()
        shelf.load_gate = Gate()
        async with shelf.repository("a") as models, create_task_group() as tasks:
            first, second = Leasing(tasks, models, "a"), Leasing(tasks, models, "a")
            await shelf.load_gate.entered()
            await first.cancel()
            shelf.load_gate.open()
            await second.has_it()
            assert models.status("a").leases == 1
            await second.give_back()
        await emptied(models)

    async def test_all_while_it_runs(self) -> None:
        """A load that runs goes on without anybody, and its model is kept."""
        shelf = Shelf()
        shelf.load_gate = Gate()
        async with shelf.repository("a") as models, create_task_group() as tasks:
            one = Leasing(tasks, models, "a")
            await shelf.load_gate.entered()
            await one.cancel()
            shelf.load_gate.open()
            await until(lambda: models.status("a").state == "READY")
            assert models.status("a").leases == 0
            assert shelf.made[0].released == 0
        await emptied(models)

    async def test_all_while_it_is_queued(self) -> None:
        """A load that has not started never does."""
        shelf = Shelf()
        shelf.load_gate = Gate()
        async with (
            shelf.repository("a", "b", max_concurrent_loads=1) as models,
            create_task_group() as tasks,
        ):
            a, b = Leasing(tasks, models, "a"), Leasing(tasks, models, "b")
            await shelf.load_gate.entered()
            await until(lambda: models.initializer.statistics().queued == 1)
            waits, runs = (b, a) if shelf.loads == ["a"] else (a, b)
            await waits.cancel()
            shelf.load_gate.open()
            await runs.has_it()
            await runs.give_back()
            assert len(shelf.loads) == 1
            assert quiet(models)
        await emptied(models)

    async def test_granted_and_cancelled(self) -> None:
        """A lease that is granted to a task in the moment of its cancelling is given back."""
        shelf = Shelf()
        shelf.load_gate = Gate()
        async with shelf.repository("a") as models, create_task_group() as tasks:
            one = Leasing(tasks, models, "a")
            await shelf.load_gate.entered()
            shelf.load_gate.open()
            # Without letting the loop run: the lease is granted, and the task has yet to wake.
            deadline = threading.Event()
            while models.status("a").leases == 0:
                deadline.wait(0.001)
            await one.cancel()
            assert models.status("a").leases == 0
            assert models.status("a").state == "READY"
        await emptied(models)


class TestMemory:
    async def test_evicts_what_is_idle(self) -> None:
        """What does not fit beside what is idle takes its place; what is leased stays."""
        shelf = Shelf()
        how = {"budget": {"cpu": 2048}}
        async with (
            shelf.repository("a", "b", "c", repository=how) as models,
            models.lease("a") as a,
        ):
            await models.load("b")
            await models.load("c")
            assert a.released == 0
            assert models.status("b").reason == "evicted to make room for 'c'"
            assert shelf.live == 2
            assert models.statistics().evictions == 1
        await emptied(models)

    async def test_waits_for_a_lease(self) -> None:
        """What has no room waits until a lease is back, and no slot is held meanwhile."""
        shelf = Shelf()
        async with (
            shelf.repository("a", "b", repository={"budget": {"cpu": 1024}}) as models,
            create_task_group() as tasks,
        ):
            a = Leasing(tasks, models, "a")
            await a.has_it()
            b = Leasing(tasks, models, "b")
            # What is in the way is known a moment after that something is.
            await until(lambda: "'a' is leased (1 KiB)" in models.status("b").reason)
            assert models.status("b").phase == "waiting"
            figures = models.initializer.statistics()
            assert figures.free_slots == figures.slots
            assert b.model is None
            await a.give_back()
            await b.has_it()
            assert shelf.made[0].released == 1
            await b.give_back()
        await emptied(models)

    async def test_holding_one_and_asking_for_another(self) -> None:
        """Who holds a model and asks for another is not stopped by who waits for the first."""
        shelf = Shelf()
        how = {"budget": {"cpu": 4096}, "big": {"memory": 4096}}
        async with (
            shelf.repository("a", "b", "big", repository=how) as models,
            create_task_group() as tasks,
        ):
            async with models.lease("a"):
                big = Leasing(tasks, models, "big", priority=5)
                await until(lambda: models.status("big").phase == "waiting")
                with anyio.fail_after(20):
                    async with models.lease("b"):
                        pass
            await big.has_it()
            await big.give_back()
        await emptied(models)

    async def test_a_share_of_a_card(self) -> None:
        """A budget may be a share of what a card has."""
        meter = FakeMeter(cuda_0=2560)
        how: dict[str, Any] = {name: {"device": "cuda:0"} for name in "abc"}
        how["budget"] = {"cuda:0": 0.8}
        async with Shelf().repository("a", "b", "c", meter=meter, repository=how) as models:
            assert models.statistics().budget == {"cuda:0": 2048}
            for name in "abc":
                await models.load(name)
            assert models.statistics().used == {"cuda:0": 2048}
            assert models.status("a").reason == "evicted to make room for 'c'"
        with pytest.raises(ConfigError, match=r"how much memory cuda:1 has cannot be told"):
            Shelf().repository("a", meter=meter, repository={"budget": {"cuda:1": "80%"}})

    async def test_never_fits(self) -> None:
        """What is larger than the budget is refused at once, with the sizes."""
        how = {"budget": {"cpu": "1KiB"}, "a": {"memory": "2KiB"}}
        async with Shelf().repository("a", repository=how) as models:
            with pytest.raises(MemoryBudgetError) as caught:
                await models.load("a")
            assert caught.value.need == {"cpu": 2048}
            assert "it needs 2 KiB of cpu" in str(caught.value)
            assert "1 KiB of cpu" in str(caught.value)
            assert quiet(models)

    async def test_memory_timeout(self) -> None:
        """With memory_timeout a load waits that long for memory and no longer."""
        how = {"budget": {"cpu": 1024}, "memory_timeout": 0.05}
        async with Shelf().repository("a", "b", repository=how) as models, models.lease("a"):
            with pytest.raises(MemoryBudgetError, match=r"it got none in 0\.05 s; .*'a' is leased"):
                await models.load("b")

    async def test_pinned(self) -> None:
        """A pinned model is not evicted; who cannot fit beside it is refused."""
        shelf = Shelf()
        async with shelf.repository("a", "b", repository={"budget": {"cpu": 1024}}) as models:
            await models.load("a")
            models.pin("a")
            assert models.status("a").pinned
            with pytest.raises(MemoryBudgetError, match="beside 'a' there is room for 0 B of cpu"):
                await models.load("b")
            models.unpin("a")
            await models.load("b")
            assert models.status("a").phase == "unloaded"

    async def test_a_hung_release_keeps_its_memory(self) -> None:
        """What is being released counts until it is gone."""
        shelf = Shelf()
        shelf.release_gate = Gate()
        async with (
            shelf.repository("a", "b", repository={"budget": {"cpu": 1024}}) as models,
            create_task_group() as tasks,
        ):
            await models.load("a")
            b = Leasing(tasks, models, "b")
            await shelf.release_gate.entered()
            assert models.status("a").phase == "releasing"
            assert models.statistics().used == {"cpu": 1024}
            assert shelf.loads == ["a"]
            shelf.release_gate.open()
            await b.has_it()
            await b.give_back()
        await emptied(models)

    async def test_a_late_model(self) -> None:
        """A load past its limit counts until its thread leaves, and its model until it is gone."""
        shelf = Shelf()
        shelf.load_gate, shelf.release_gate = Gate(), Gate()
        backends = [{"type": "LOCAL", "timeout": 0.02}]
        async with (
            shelf.repository(
                "a", "b", backend_priority=backends, repository={"budget": {"cpu": 1024}}
            ) as models,
            create_task_group() as tasks,
        ):
            with pytest.raises(LoadError):
                await models.load("a")
            b = Leasing(tasks, models, "b")
            await until(lambda: models.status("b").phase == "waiting")
            assert models.statistics().used == {"cpu": 1024}
            shelf.load_gate.open()
            await shelf.release_gate.entered()
            assert models.statistics().used == {"cpu": 1024}
            assert shelf.loads == ["a"]
            shelf.release_gate.open()
            await b.has_it()
            await b.give_back()
            assert models.initializer.statistics().discarded == 1
        await emptied(models)

    async def test_measures(self) -> None:
        """What a model says of its memory takes the place of the estimate, from then on."""
        shelf = Shelf()
        module = shelf.module(memory_bytes=lambda self: 100)
        how = {"budget": {"cpu": 1024}, "a": {"memory": None}}
        async with shelf.repository("a", module=module, repository=how) as models:
            await models.load("a")
            assert models.statistics().used == {"cpu": 100}
            assert models.status("a").memory == {"cpu": 100}
            assert models.plan_eviction({"cpu": "1000"}).victims == ("a",)

    @pytest.mark.parametrize("said", [10**400, -(10**12), 1.5], ids=["huge", "negative", "broken"])
    async def test_a_measure_that_is_none(self, said: Any) -> None:
        """What a model says of its memory and cannot be is not believed: the estimate counts."""
        shelf = Shelf()
        module = shelf.module(memory_bytes=lambda self: said)
        how = {"budget": {"cpu": 1500}}
        async with shelf.repository("a", "b", module=module, repository=how) as models:
            with fail_after(10):
                await models.load("a")
                assert models.statistics().used == {"cpu": 1024}
                await models.load("b")
            assert models.statistics().used == {"cpu": 1024}

    async def test_out_of_memory(self) -> None:
        """When memory runs out in a load, everything idle goes and it is tried once more."""
        failures = [MemoryError("no")]

        def runs_out(config: Any) -> None:
            if config.name == "b" and failures:
                raise failures.pop()

        shelf = Shelf(runs_out)
        async with shelf.repository("a", "b") as models:
            await models.load("a")
            await models.load("b")
            assert shelf.loads == ["a", "b", "b"]
            assert models.status("a").reason == "evicted because memory ran out"
            failures[:] = [MemoryError("no"), MemoryError("no")]
            await models.unload("b")
            with pytest.raises(LoadError):
                await models.load("b")
            assert not failures
        await emptied(models)

    async def test_files(self, tmp_path: Any) -> None:
        """Where nothing is declared, a model counts as much as its files."""
        shelf = Shelf()
        path = tmp_path / "a"
        path.mkdir()
        (path / "weights").write_bytes(bytes(3000))
        registry = Registry()
        registry.module("m")(shelf.module())
        async with ModelRepository(
            registry,
            models={"a": {"module_id": "m", "model_path": str(path)}},
            repository={"budget": {"cpu": "4KiB"}},
        ) as models:
            await models.load("a")
            assert models.statistics().used == {"cpu": 3000}


class TestKeepAlive:
    async def test_not_at_all(self) -> None:
        """With keep_alive 0 a model goes with its last lease."""
        shelf = Shelf()
        async with shelf.repository("a", repository={"keep_alive": 0}) as models:
            async with models.lease("a"), models.lease("a"):
                pass
            await until(lambda: models.status("a").phase == "unloaded")
            assert shelf.made[0].released == 1

    async def test_for_a_while(self) -> None:
        """A model goes when it has been idle for its time; each lease begins that anew."""
        clock, shelf = FakeClock(), Shelf()
        how = {"keep_alive": "5m", "b": {"keep_alive": -1}}
        async with shelf.repository("a", "b", repository=how, clock=clock) as models:
            await models.load("a")
            await models.load("b")
            clock.advance(299)
            models.reconsider()
            await models.load("a")
            clock.advance(299)
            models.reconsider()
            assert models.status("a").idle_seconds == 299
            async with models.lease("a"):
                clock.advance(1000)
                models.reconsider()
                assert models.status("a").state == "READY"
            clock.advance(300)
            models.reconsider()
            await until(lambda: models.status("a").phase == "unloaded")
            assert models.status("a").reason == "idle for 300 s"
            assert models.status("b").state == "READY"

    async def test_by_the_clock(self) -> None:
        """Nobody has to look: a thread of the repository acts on its deadlines."""
        async with Shelf().repository("a", repository={"keep_alive": "20ms"}) as models:
            await models.load("a")
            await until(lambda: models.status("a").phase == "unloaded")


class TestUnloading:
    async def test_waits_for_leases(self) -> None:
        """An unloaded model drains; who asks meanwhile gets another."""
        shelf = Shelf()
        async with shelf.repository("a") as models, create_task_group() as tasks:
            first = Leasing(tasks, models, "a")
            await first.has_it()
            with pytest.raises(DrainTimeoutError) as caught:
                await models.unload("a", drain_timeout=0.01)
            assert caught.value.leases == 1
            assert models.index() == [
                {
                    "name": "a",
                    "version": "1",
                    "state": "UNLOADING",
                    "reason": "unloaded by request",
                }
            ]
            assert models.index(ready=True) == []
            assert first.model.released == 0
            second = Leasing(tasks, models, "a")
            assert await second.has_it() is not first.model
            await first.give_back()
            await until(lambda: first.model.released == 1)
            await second.give_back()
            await models.unload("a")
            assert shelf.live == 0
            with pytest.raises(ModelNotFoundError):
                await models.unload("b")
        await emptied(models)

    async def test_while_it_loads(self) -> None:
        """Who waits for a model that is unloaded meanwhile hears of it; its model is not kept."""
        shelf = Shelf()
        shelf.load_gate = Gate()
        async with shelf.repository("a") as models, create_task_group() as tasks:
            one = Leasing(tasks, models, "a")
            await shelf.load_gate.entered()
            await models.unload("a")
            await one.ended.wait()
            assert isinstance(one.error, ModelUnavailableError)
            assert one.error.retry_after == 0
            shelf.load_gate.open()
            await until(lambda: models.status("a").phase == "unloaded")
            assert shelf.made[0].released == 1

    async def test_wanted_again(self) -> None:
        """A load that was given up and is asked for again is used after all."""
        shelf = Shelf()
        shelf.load_gate = Gate()
        async with shelf.repository("a") as models, create_task_group() as tasks:
            Leasing(tasks, models, "a")
            await shelf.load_gate.entered()
            await models.unload("a")
            again = Leasing(tasks, models, "a")
            await until(lambda: models.statistics().waiting == 1)
            shelf.load_gate.open()
            await again.has_it()
            await again.give_back()
            assert shelf.loads == ["a"]


class TestFailures:
    async def test_one_load_for_a_thousand(self) -> None:
        """A thousand requests for a broken model cause one load, until its cool-down is over."""

        def breaks(_: object) -> None:
            raise ValueError("broken")

        clock, shelf = FakeClock(), Shelf(breaks)
        how = {"cool_down": 10, "max_cool_down": 15}
        async with shelf.repository("a", repository=how, clock=clock) as models:
            for number in range(1000):
                error = LoadError if number == 0 else ModelUnavailableError
                with pytest.raises(error) as caught:
                    await models.load("a")
            assert shelf.loads == ["a"]
            assert isinstance(caught.value, ModelUnavailableError)
            assert caught.value.retry_after is not None
            assert 8 <= caught.value.retry_after <= 10
            assert isinstance(caught.value.__cause__, LoadError)
            clock.advance(10)
            with pytest.raises(LoadError):  # one probe
                await models.load("a")
            clock.advance(11)
            with pytest.raises(ModelUnavailableError):  # it is remembered longer now
                await models.load("a")
            models.forget_failure("a")
            shelf.body = None
            await models.load("a")
            assert shelf.loads == ["a"] * 3

    async def test_for_good(self, tmp_path: Any) -> None:
        """A missing module is remembered for good; a missing file until it is there."""
        shelf = Shelf()
        registry = Registry()
        registry.module("m")(shelf.module())
        path = tmp_path / "a"
        source = {"models": {"a": {"module_id": "m", "model_path": str(path)}}}
        async with ModelRepository.from_config(source, registry=registry) as models:
            with pytest.raises(ModelNotFoundError):
                await models.load("a")
            with pytest.raises(ModelUnavailableError) as caught:
                await models.load("a")
            assert caught.value.retry_after is None
            assert "until its catalogue entry or its files change" in str(caught.value)
            await models.reload()
            with pytest.raises(ModelUnavailableError):
                await models.load("a")
            path.mkdir()
            await models.reload()
            await models.load("a")

    async def test_a_path_that_cannot_be_looked_at(self, tmp_path: Any) -> None:
        """The error says what the system says."""
        registry = Registry()
        registry.module("m")(Shelf().module())
        known = {"a": {"module_id": "m", "model_path": str(tmp_path / ("a" * 300))}}
        async with ModelRepository(registry, models=known) as models:
            with pytest.raises(ModelNotFoundError, match="aaa: File name too long"):
                await models.load("a")

    async def test_a_moment_without_descriptors(self) -> None:
        """It is remembered for a cool-down, though what tells of it is an error of the files."""

        def unreadable(_: object) -> None:
            cause = OSError(errno.EMFILE, "Too many open files")
            raise IntegrityError("weights", "unreadable") from cause

        clock, shelf = FakeClock(), Shelf(unreadable)
        async with shelf.repository("a", clock=clock) as models:
            with pytest.raises(LoadError):
                await models.load("a")
            with pytest.raises(ModelUnavailableError) as caught:
                await models.load("a")
            assert caught.value.retry_after is not None
            clock.advance(caught.value.retry_after)
            shelf.body = None
            await models.load("a")

    async def test_a_new_version_while_the_old_one_loads(self, tmp_path: Any) -> None:
        """What was changed while it was loaded is tried again soon, and is the new one then."""
        clock, path = FakeClock(), tmp_path / "a"
        path.mkdir()
        publish(path, "one")
        to_come = ["two"]

        def changes(_: object) -> None:
            while to_come:
                publish(path, to_come.pop())

        registry = Registry()
        registry.module("m")(Shelf(changes).module())
        known = {"a": {"module_id": "m", "model_path": str(path)}}
        async with ModelRepository(registry, models=known, clock=clock) as models:
            with pytest.raises(AnyloadError, match="it was changed while it was loaded"):
                await models.load("a")
            with pytest.raises(ModelUnavailableError) as caught:
                await models.load("a")
            assert caught.value.retry_after is not None
            clock.advance(caught.value.retry_after)
            await models.load("a")

    async def test_files_that_come_as_it_fails(self, tmp_path: Any) -> None:
        """A failure for good is one of the files that there were before the load."""
        clock, path = FakeClock(), tmp_path / "a"
        path.mkdir()

        def needs_weights(_: object) -> None:
            if not (path / "weights").exists():
                (path / "weights").touch()
                raise IntegrityError(str(path), "there are no weights")

        registry = Registry()
        registry.module("m")(Shelf(needs_weights).module())
        known = {"a": {"module_id": "m", "model_path": str(path)}}
        async with ModelRepository(registry, models=known, clock=clock) as models:
            with pytest.raises(LoadError):
                await models.load("a")
            clock.advance(3600)
            await models.load("a")


def publish(path: Path, weights: str) -> None:
    """Put a new version of a model, and its manifest, in the place of the old one."""
    manifest = f"{hashlib.sha256(weights.encode()).hexdigest()}  weights\n"
    for name, text in (("weights", weights), ("SHA256SUMS", manifest)):
        (path.parent / name).write_text(text)
        (path.parent / name).rename(path / name)


class TestQueue:
    async def test_bounded(self) -> None:
        """More requests than may wait are refused, with how long to wait."""
        shelf = Shelf()
        shelf.load_gate = Gate()
        async with (
            shelf.repository(
                "a", "b", "c", "d", max_concurrent_loads=1, repository={"max_queued": 1}
            ) as models,
            create_task_group() as tasks,
        ):
            a = Leasing(tasks, models, "a")
            await shelf.load_gate.entered()
            b = Leasing(tasks, models, "b")
            await until(lambda: models.statistics().loading == 2)
            with pytest.raises(QueueFullError) as caught:
                await models.load("c")
            assert caught.value.queued == 1
            assert caught.value.retry_after > 0
            also_b = Leasing(tasks, models, "b")  # what is queued already may be asked for
            shelf.load_gate.open()
            for one in (a, b, also_b):
                await one.has_it()
                await one.give_back()
            await models.load("c")

    async def test_a_request_moves_a_preload_up(self) -> None:
        """A preload that is queued is loaded before the others once somebody asks for it."""
        shelf = Shelf()
        shelf.load_gate = Gate()
        names = ["a", "b", "c", "d"]
        how: dict[str, Any] = {
            name: {"preload": True, "priority": -number} for number, name in enumerate(names)
        }
        async with (
            shelf.repository(*names, max_concurrent_loads=1, repository=how) as models,
            create_task_group() as tasks,
        ):
            tasks.start_soon(models.load_preloaded)
            await shelf.load_gate.entered()
            await until(lambda: models.initializer.statistics().queued == 3)
            d = Leasing(tasks, models, "d")
            await until(lambda: models.statistics().waiting == 1)
            shelf.load_gate.open()
            await d.has_it()
            await d.give_back()
            await until(lambda: models.statistics().ready == 4)
            assert shelf.loads == ["a", "d", "b", "c"]

    async def test_preloads(self) -> None:
        """What is preloaded or required is loaded, and what failed of it is told at the end."""

        def breaks(config: Any) -> None:
            if config.name == "b":
                raise ValueError("broken")

        shelf = Shelf(breaks)
        how: dict[str, Any] = {name: {"preload": True} for name in "ab"}
        how |= {"c": {"required": True}, "budget": {"cpu": 4096}}
        async with shelf.repository("a", "b", "c", "d", repository=how) as models:
            assert not models.ready()
            with pytest.raises(BulkLoadError) as caught:
                await models.load_preloaded()
            assert set(caught.value.failed) == {"b"}
            assert set(caught.value.models) == {"a", "c"}
            assert models.ready()
            assert models.status("c").pinned
            shelf.body = None
            with pytest.raises(BulkLoadError, match="1 of 3"):  # it cools down
                await models.load_preloaded()
            models.forget_failure("b")
            assert set(await models.load_preloaded()) == {"a", "b", "c"}
            assert "d" not in shelf.loads

    async def test_preloads_by_name(self) -> None:
        """What is named is loaded in place of what the configuration says, by its priority."""
        shelf = Shelf()
        how: dict[str, Any] = {"a": {"preload": True}, "c": {"priority": 1}}
        async with shelf.repository(
            "a", "b", "c", max_concurrent_loads=1, repository=how
        ) as models:
            assert list(await models.load_preloaded(["b", "c", "b"])) == ["c", "b"]
            assert shelf.loads == ["c", "b"]
            with pytest.raises(BulkLoadError) as caught:
                await models.load_preloaded(["b", "nobody"])
            assert list(caught.value.models) == ["b"]
            assert isinstance(caught.value.failed["nobody"], ModelNotFoundError)

    async def test_a_preload_that_is_unloaded(self) -> None:
        """A preload that is given up before it starts did not load, and why is told."""
        shelf = Shelf()
        shelf.load_gate = Gate()
        how: dict[str, Any] = {"b": {"preload": True}}
        async with (
            shelf.repository("a", "b", max_concurrent_loads=1, repository=how) as models,
            create_task_group() as tasks,
        ):
            a = Leasing(tasks, models, "a")
            await shelf.load_gate.entered()
            errors: list[BulkLoadError] = []

            async def preload() -> None:
                try:
                    await models.load_preloaded()
                except BulkLoadError as error:
                    errors.append(error)

            tasks.start_soon(preload)
            await until(lambda: models.statistics().loading == 2)
            await models.unload("b")
            await until(lambda: bool(errors))
            assert "unloaded by request" in str(errors[0].failed["b"])
            shelf.load_gate.open()
            await a.give_back()

    async def test_a_preload_evicts_nobody(self) -> None:
        """A preload that has no room beside what is kept is refused."""
        shelf = Shelf()
        how: dict[str, Any] = {"b": {"preload": True}, "budget": {"cpu": 1024}}
        async with shelf.repository("a", "b", repository=how) as models:
            await models.load("a")
            with pytest.raises(BulkLoadError) as caught:
                await models.load_preloaded()
            assert "a preload evicts nothing" in str(caught.value.failed["b"])
            await models.load("b")  # a request does
            assert models.status("a").phase == "unloaded"


class TestReadiness:
    async def test_nothing_required(self) -> None:
        """Where nothing is required a repository is not ready, unless that is set."""
        async with Shelf().repository("a") as models:
            assert not models.ready()
        how = {"ready_without_required": True}
        async with Shelf().repository("a", repository=how) as models:
            assert models.ready()
        assert not models.ready()

    async def test_after_warmup(self) -> None:
        """A model is READY only when its warm-up is over."""
        gate, shelf = Gate(), Shelf()
        module = shelf.module(warmup=lambda self: gate.enter())
        how: dict[str, Any] = {"a": {"required": True}}
        async with (
            shelf.repository("a", module=module, repository=how) as models,
            create_task_group() as tasks,
        ):
            tasks.start_soon(models.load_preloaded)
            await gate.entered()
            assert not models.ready()
            assert models.status("a").state == "LOADING"
            assert models.status("a").phase == "warming"
            gate.open()
            await until(models.ready)


class TestSwapping:
    async def test_under_leases(self) -> None:
        """A swap fails no lease: the old version serves until the new one is there, and drains."""
        shelf = Shelf()
        async with shelf.repository("a") as models, create_task_group() as tasks:
            await models.load("a")
            old = Leasing(tasks, models, "a")
            await old.has_it()
            shelf.load_gate = Gate()
            done = anyio.Event()

            async def swap() -> None:
                await models.swap("a")
                done.set()

            tasks.start_soon(swap)
            await shelf.load_gate.entered()
            states = {row["version"]: row["state"] for row in models.index()}
            assert states == {"1": "READY", "2": "LOADING"}
            async with models.lease("a") as model:
                assert model is old.model
            shelf.load_gate.open()
            await done.wait()
            async with models.lease("a") as model:
                assert model is not old.model
            states = {row["version"]: row["state"] for row in models.index()}
            assert states == {"1": "UNLOADING", "2": "READY"}
            assert old.model.released == 0
            await old.give_back()
            await until(lambda: shelf.live == 1)
        await emptied(models)

    async def test_a_broken_one(self) -> None:
        """A new version that does not load leaves the old one serving."""
        shelf = Shelf()
        async with shelf.repository("a") as models:
            await models.load("a")

            def breaks(_: object) -> None:
                raise ValueError("broken")

            shelf.body = breaks
            with pytest.raises(LoadError):
                await models.swap("a")
            async with models.lease("a") as model:
                model.use()
            assert models.index(ready=True)[0]["version"] == "1"

    async def test_overtaken(self) -> None:
        """A swap that another one overtakes says so."""
        shelf = Shelf()
        async with (
            shelf.repository("a", "b", max_concurrent_loads=1) as models,
            create_task_group() as tasks,
        ):
            await models.load("a")
            shelf.load_gate = Gate()
            b = Leasing(tasks, models, "b")
            await shelf.load_gate.entered()
            errors: list[Exception] = []

            async def swap() -> None:
                try:
                    await models.swap("a")
                except ModelUnavailableError as error:
                    errors.append(error)

            tasks.start_soon(swap)
            await until(lambda: models.initializer.statistics().queued == 1)
            tasks.start_soon(swap)
            await until(lambda: bool(errors))
            assert "another version is to come instead" in str(errors[0])
            shelf.load_gate.open()
            await b.give_back()
            await until(lambda: models.status("a").version == "3")

    async def test_overtaken_while_it_loads(self) -> None:
        """A new version that lands when another one is to come has not taken over: it says so."""
        shelf, errors = Shelf(), list[ModelUnavailableError]()
        async with shelf.repository("a") as models, create_task_group() as tasks:
            await models.load("a")
            shelf.load_gate = Gate()

            async def first() -> None:
                with pytest.raises(ModelUnavailableError) as caught:
                    await models.swap("a")
                errors.append(caught.value)

            tasks.start_soon(first)
            await shelf.load_gate.entered()
            tasks.start_soon(models.swap, "a")
            await until(lambda: models.statistics().loading == 2)
            shelf.load_gate.open()
            await until(lambda: bool(errors))
            assert "another version is to come instead" in str(errors[0])
        await emptied(models)

    async def test_what_is_not_loaded(self) -> None:
        """A swap of what is not loaded is a load."""
        shelf = Shelf()
        async with shelf.repository("a") as models:
            await models.swap("a")
            assert models.status("a").state == "READY"
            assert models.status("a").version == "2"

    async def test_two_do_not_fit(self) -> None:
        """Where two versions do not fit, the swap is refused, or the old one goes first."""
        shelf = Shelf()
        how: dict[str, Any] = {"budget": {"cpu": 1024}}
        async with shelf.repository("a", repository=dict(how)) as models:
            await models.load("a")
            with pytest.raises(MemoryBudgetError):
                await models.swap("a")
            assert models.status("a").state == "READY"
        async with shelf.repository("a", repository={**how, "swap": "recreate"}) as models:
            await models.load("a")
            await models.swap("a")
            assert models.status("a").version == "2"
            assert models.status("a").state == "READY"
        await emptied(models)


class TestClosing:
    async def test_with_leases_out(self) -> None:
        """A close waits for leases within its grace; one that stays out keeps its model."""
        shelf = Shelf()
        models = shelf.repository("a", "b")
        await models.load("a")
        await models.load("b")
        lease = models.try_lease("a")
        assert lease is not None
        await models.aclose(grace=0.01)
        assert [model.released for model in shelf.made] == [0, 1]
        lease.model.use()
        with pytest.raises(ClosedError):
            await models.load("a")
        with pytest.raises(ClosedError):
            await models.load_preloaded()
        with pytest.raises(ClosedError):
            await models.swap("a")
        assert models.try_lease("b") is None
        lease.release()
        await until(lambda: shelf.made[0].released == 1)
        assert "closed" in repr(models)
        await emptied(models)

    async def test_with_callers(self) -> None:
        """Who waits when a repository closes gets ClosedError, and what was loading is let go."""
        shelf = Shelf()
        shelf.load_gate = Gate()
        models = shelf.repository("a", "b", max_concurrent_loads=1)
        async with create_task_group() as tasks:
            both = Leasing(tasks, models, "a"), Leasing(tasks, models, "b")
            await shelf.load_gate.entered()
            await until(lambda: models.statistics().waiting == 2)
            tasks.start_soon(models.aclose)
            for one in both:
                await one.ended.wait()
                assert isinstance(one.error, ClosedError)
            shelf.load_gate.open()
        await emptied(models)
        assert [model.released for model in shelf.made] == [1]

    async def test_cancelled(self) -> None:
        """A cancelled close is closed all the same."""
        shelf = Shelf()
        models = shelf.repository("a")
        await models.load("a")
        with models.try_lease("a"):  # type: ignore[union-attr]
            with CancelScope() as scope:
                scope.cancel()
                await models.aclose()
            assert scope.cancelled_caught
            with pytest.raises(ClosedError):
                await models.load("a")
        await until(lambda: shelf.live == 0)

    async def test_leaves_nothing(self) -> None:
        """A model that was unloaded is gone: nothing of the repository keeps it."""
        shelf = Shelf()
        async with shelf.repository("a") as models:
            await models.load("a")
            gone = weakref.ref(shelf.made.pop())
            await models.unload("a")
            await until(lambda: quiet(models))
            gc.collect()
            # The thread that released it leaves its frame a moment after it said so.
            await until(lambda: gone() is None)
            assert models.statistics().releases == 1

    def test_in_a_thread(self) -> None:
        """A plain thread uses it likewise."""
        shelf = Shelf()
        with shelf.repository("a", "b", repository={"budget": {"cpu": 1024}}) as models:
            with models.lease_sync("a") as model:
                assert model is shelf.made[0]
                with pytest.raises(TimeoutError):
                    models.lease_sync("b", timeout=0.01)
                assert models.status("b").phase == "unloaded"
            with models.lease_sync("b", timeout=10):
                pass
        with pytest.raises(ClosedError):
            models.lease_sync("a")
        assert shelf.live == 0

    def test_close_with_a_lease_out(self) -> None:
        """A close in a plain thread waits for its grace, and leaves what is leased."""
        shelf = Shelf()
        models = shelf.repository("a")
        lease = models.lease_sync("a")
        assert models.close(grace=0.01) == ()
        assert shelf.live == 1
        lease.release()

    def test_close_without_grace(self) -> None:
        """A close without grace leaves what is leased."""
        shelf = Shelf()
        models = shelf.repository("a")
        lease = models.lease_sync("a")
        assert models.close(grace=0) == ()
        assert shelf.live == 1
        lease.release()


class TestEvents:
    async def test_each_transition(self) -> None:
        """Every transition is one event, in order, with the state of the protocol."""
        events: list[Any] = []
        async with Shelf().repository("a", hooks=[events.append]) as models:
            await models.load("a")
        await emptied(models)
        changes = [event for event in events if isinstance(event, StateChanged)]
        assert [(event.before, event.phase, event.state) for event in changes] == [
            ("known", "queued", "LOADING"),
            ("queued", "loading", "LOADING"),
            ("loading", "active", "READY"),
            ("active", "releasing", "UNLOADING"),
            ("releasing", "unloaded", "UNAVAILABLE"),
        ]
        assert changes[-1].reason == "the repository is closed"

    async def test_each_phase_of_a_load(self, tmp_path: Any) -> None:
        """A model with files has them checked, loads and warms up; so does each of its attempts."""
        events: list[Any] = []

        def cold(_: object) -> None:
            raise ValueError("cold")

        shelf = Shelf()
        registry = Registry()
        registry.backend_type(type("Gpu", (Backend,), {"backend_type": "GPU"}))
        registry.module("m", "GPU")(shelf.module(warmup=cold))
        registry.module("m")(shelf.module(warmup=lambda model: None))
        async with ModelRepository(
            registry,
            hooks=[events.append],
            backend_priority=[{"type": "GPU"}, {"type": "LOCAL"}],
            models={"a": {"module_id": "m", "model_path": str(tmp_path)}},
        ) as models:
            await models.load("a")
            changes = [event.phase for event in events if isinstance(event, StateChanged)]
            attempt = ["fetching", "loading", "warming"]
            assert changes == ["queued", *attempt, *attempt, "active"]

    async def test_a_warm_up_that_comes_late(self) -> None:
        """What a thread is at that is past its limit is not told of."""
        events: list[Any] = []
        shelf = Shelf()
        shelf.load_gate = Gate()
        module = shelf.module(warmup=lambda model: None)
        priority = [{"type": "LOCAL", "timeout": 0.02}]
        async with shelf.repository(
            "a", module=module, hooks=[events.append], backend_priority=priority
        ) as models:
            with pytest.raises(LoadError):
                await models.load("a")
            shelf.load_gate.open()
            await until(lambda: shelf.live == 0 and len(shelf.made) == 1)
            phases = [event.phase for event in events if isinstance(event, StateChanged)]
            assert phases == ["queued", "loading", "failed"]
        await emptied(models)
