"""Many at once: tasks, several event loops and plain threads lease, unload and swap."""

from __future__ import annotations

import gc
import os
import random
import sys
import threading
from collections.abc import Callable, Coroutine
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from anyio import CancelScope, create_task_group, move_on_after
from keeping import Kept, Shelf, emptied, quiet

from anyload import (
    ClosedError,
    DrainTimeoutError,
    MemoryBudgetError,
    ModelUnavailableError,
    Registry,
)
from anyload._keeping.leases import TaskAsking, give_back, leave, taken
from anyload._keeping.waiting import become
from anyload._load.waiters import current_bell
from anyload.repository import ModelRepository
from anyload.testing import FakeClock, Gate, until

EXPECTED = (ModelUnavailableError, MemoryBudgetError, DrainTimeoutError)
ROUNDS = int(os.environ.get("ANYLOAD_ROUNDS", "40"))


def work_with(model: Kept) -> None:
    model.use()
    with model.shelf.lock:
        model.in_use += 1
    model.use()
    with model.shelf.lock:
        model.in_use -= 1


async def one_client(models: ModelRepository, names: str, seed: int, rounds: int) -> None:
    """Do one thing after another, as chance has it."""
    chance = random.Random(seed)
    for _ in range(rounds):
        name = chance.choice(names)
        try:
            match chance.randrange(8):
                case 0:
                    await models.unload(name, drain_timeout=0.001)
                case 1:
                    with move_on_after(chance.choice([0, 0.001])):
                        async with models.lease(name) as model:
                            await anyio.lowlevel.checkpoint()
                            work_with(model)
                case 2:
                    with models.try_lease(name) or Nothing() as model:
                        if model is not None:
                            work_with(model)
                case 3 if chance.random() < 0.3:
                    await models.swap(name)
                case _:
                    async with models.lease(name, priority=chance.randrange(3)) as model:
                        work_with(model)
                        await anyio.lowlevel.checkpoint()
                        work_with(model)
        except EXPECTED:
            pass


class Nothing:
    def __enter__(self) -> None:
        return None

    def __exit__(self, *_: object) -> None:
        pass


def everything_is_gone(shelf: Shelf) -> None:
    assert shelf.live == 0
    assert all(model.released == 1 and model.in_use == 0 for model in shelf.made)


class TestCrowds:
    async def test_one_model(self) -> None:
        """32 tasks load, lease, unload and swap one model: nothing is left, nothing is broken."""
        shelf = Shelf()
        async with shelf.repository("a") as models:
            async with create_task_group() as tasks:
                for seed in range(32):
                    tasks.start_soon(one_client, models, "a", seed, ROUNDS)
            await until(lambda: quiet(models))
        await emptied(models)
        everything_is_gone(shelf)

    async def test_a_tight_budget(self) -> None:
        """As many as fit, and never more, however many are asked for."""
        shelf, most = Shelf(), 0

        def count(_: object) -> None:
            nonlocal most
            with shelf.lock:
                most = max(most, shelf.live + 1)

        shelf.body = count
        how = {"budget": {"cpu": 3 * 1024}, "keep_alive": "2ms", "memory_timeout": 20}
        async with shelf.repository(*"abcdefgh", repository=how) as models:
            async with create_task_group() as tasks:
                for seed in range(24):
                    tasks.start_soon(one_client, models, "abcdefgh", seed, ROUNDS)
            await until(lambda: quiet(models))
        await emptied(models)
        everything_is_gone(shelf)
        assert most <= 3

    def test_loops_and_threads(self) -> None:
        """Event loops of three kinds, each in a thread, and plain threads use one repository."""
        shelf, errors = Shelf(), list[BaseException]()
        models = shelf.repository(*"abcd", repository={"budget": {"cpu": 2048}})

        def caught(run: Callable[[], object]) -> None:
            try:
                run()
            except BaseException as error:
                errors.append(error)

        async def on_a_loop(seed: int) -> None:
            async with create_task_group() as tasks:
                for number in range(6):
                    tasks.start_soon(one_client, models, "abcd", seed * 10 + number, ROUNDS)

        def in_a_thread(seed: int) -> None:
            chance = random.Random(seed)
            for _ in range(ROUNDS):
                try:
                    with models.lease_sync(chance.choice("abcd"), timeout=20) as model:
                        work_with(model)
                except EXPECTED:
                    pass

        loops: list[tuple[str, dict[str, Any]]] = [
            ("asyncio", {}),
            ("asyncio", {"use_uvloop": sys.platform != "win32"}),
            ("trio", {}),
        ]
        runs: list[Callable[[], object]] = [
            lambda loop=loop, seed=seed: anyio.run(  # type: ignore[misc]
                on_a_loop, seed, backend=loop[0], backend_options=loop[1]
            )
            for seed, loop in enumerate(loops)
        ]
        runs += [lambda seed=seed: in_a_thread(seed) for seed in range(4)]  # type: ignore[misc]
        threads = [threading.Thread(target=caught, args=(run,)) for run in runs]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not errors, errors
        models.close()
        everything_is_gone(shelf)
        assert not any(models.statistics().used.values())

    async def test_swaps_under_leases(self) -> None:
        """Leases go on and on while a model is swapped again and again; none fails."""
        shelf = Shelf()
        async with shelf.repository("a") as models:
            await models.load("a")
            stop = False
            served = 0

            async def serve() -> None:
                nonlocal served
                while not stop:
                    async with models.lease("a") as model:
                        work_with(model)
                        await anyio.lowlevel.checkpoint()
                        work_with(model)
                    served += 1

            async with create_task_group() as tasks:
                for _ in range(8):
                    tasks.start_soon(serve)
                for _ in range(10):
                    await models.swap("a")
                stop = True
            assert served > 8
            assert models.status("a").version == "11"
            await until(lambda: shelf.live == 1)
        await emptied(models)
        everything_is_gone(shelf)


class TestCollected:
    """The garbage collector may close a coroutine under the very lock that it wants."""

    def closed_under_the_lock(
        self, models: ModelRepository, task: Coroutine[Any, Any, Any]
    ) -> None:
        with models._core.step(), models._core.lock:
            task.close()

    async def test_a_lease(self) -> None:
        """A lease that is closed under the lock is given back a moment later."""

        async def holds() -> None:
            async with models.lease("a"):
                await Forever()

        async with Shelf().repository("a", repository={"keep_alive": 0}) as models:
            with models.lease_sync("a"):
                task = holds()
                task.send(None)
                assert models.status("a").leases == 2
                self.closed_under_the_lock(models, task)
                assert models.status("a").leases == 1
            await until(lambda: models.status("a").phase == "unloaded")
        await emptied(models)

    async def test_the_last_lease(self) -> None:
        """What follows from the last lease is done when the lock is free."""

        async def holds() -> None:
            async with models.lease("a"):
                await Forever()

        async with Shelf().repository("a", repository={"keep_alive": 0}) as models:
            lease = models.lease_sync("a")
            task = holds()
            task.send(None)
            lease.release()
            self.closed_under_the_lock(models, task)
            await until(lambda: models.status("a").phase == "unloaded")

    async def test_a_waiting_one(self) -> None:
        """Who waits and is closed under the lock is gone a moment later."""
        shelf = Shelf()
        shelf.load_gate = Gate()

        async def waits() -> None:
            async with models.lease("a"):
                raise AssertionError("unreachable")

        async with shelf.repository("a") as models:
            task = waits()
            task.send(None)
            await shelf.load_gate.entered()
            assert models.statistics().waiting == 1
            self.closed_under_the_lock(models, task)
            assert models.statistics().waiting == 0
            unloads = models.unload("a")
            with pytest.raises(StopIteration):
                unloads.send(None)
            shelf.load_gate.open()
            await until(lambda: models.status("a").phase == "unloaded")

    async def test_retired_while_it_was_taken(self) -> None:
        """A lease that is taken in the moment in which its model is retired is none."""

        class Retires(dict[str, Any]):
            """Unloads the model between the two looks of who takes a lease."""

            def get(self, name: str, default: Any = None) -> Any:
                entry = super().get(name, default)
                version = entry.current

                class Moment(list[None]):
                    def append(self, item: None) -> None:
                        super().append(item)
                        with models._core.step() as todo, models._core.lock:
                            models._core.keeper.unload("a", todo)

                version.out = Moment(version.out)
                return entry

        shelf = Shelf()
        async with shelf.repository("a") as models:
            await models.load("a")
            real = models._core.entries
            with models.lease_sync("a"):
                models._core.entries = Retires(real)
                assert models.try_lease("a") is None
                models._core.entries = real
                assert models.status("a").phase == "draining"
            await until(lambda: models.status("a").phase == "unloaded")
            assert shelf.live == 0
            await models.load("a")
            models._core.entries = Retires(real)
            async with models.lease("a") as model:  # it is loaded anew
                models._core.entries = real
                assert model is shelf.made[2]
            await until(lambda: shelf.live == 1)

    async def test_given_back_and_taken(self) -> None:
        """What follows from a last lease does not, if another was taken meanwhile."""
        async with Shelf().repository("a", repository={"keep_alive": 0}) as models:
            with models.lease_sync("a"):
                version = models._core.entries["a"].current
                with models._core.step() as todo, models._core.lock:
                    models._core.ways.given_back(version, todo)
                assert version.ready
            await until(lambda: version.life.phase == "unloaded")
            with models._core.step() as todo, models._core.lock:
                models._core.ways.given_back(version, todo)
            assert version.life.phase == "unloaded"

    async def test_who_watches(self) -> None:
        """Who waits for a model to go and is closed under the lock does no harm."""
        shelf = Shelf()
        async with shelf.repository("a") as models:
            lease = models.lease_sync("a")
            version = models._core.house.tables.entries["a"].current
            task = become(models._core, version, lambda version: version.life.phase == "unloaded")
            task.send(None)
            self.closed_under_the_lock(models, task)
            assert not version.watchers
            lease.release()

    async def test_async_with(self) -> None:
        """A coroutine that is closed inside the repository's block closes it without waiting."""
        shelf = Shelf()

        async def serves() -> None:
            async with models:
                await models.load("a")
                await Forever()

        for under_the_lock in (False, True):
            models = shelf.repository("a")
            with models.lease_sync("a"):
                pass
            task = serves()
            task.send(None)
            if under_the_lock:
                self.closed_under_the_lock(models, task)
            else:
                task.close()
            with pytest.raises(ClosedError):
                await models.load("a")
            await emptied(models)


class Forever:
    """Suspends its task for good."""

    def __await__(self) -> Any:
        yield None


class TestLoops:
    def test_a_loop_ends_with_a_waiter(self) -> None:
        """A task whose loop has ended before it took its lease does not keep the model."""
        shelf = Shelf()
        shelf.load_gate = Gate()
        models = shelf.repository("a")
        tasks: list[Any] = []

        async def waits() -> None:
            async with models.lease("a"):
                raise AssertionError("unreachable")

        async def asks_and_ends() -> None:
            task = waits()
            tasks.append(task)  # it outlives its loop, and is never closed
            task.send(None)
            await shelf.load_gate.entered()

        anyio.run(asks_and_ends)
        gc.collect()
        shelf.load_gate.open()
        deadline = threading.Event()
        while models.status("a").state != "READY" or models.status("a").leases:
            deadline.wait(0.001)
        assert models.statistics().waiting == 0
        models.close()
        assert shelf.live == 0
        tasks[0].close()

    async def test_taken_before_it_was_woken(self) -> None:
        """Who had its lease before it was woken loses nothing when its loop ends after that."""
        async with Shelf().repository("a") as models:
            core = models._core
            asking = TaskAsking(core, current_bell())
            with core.step() as todo, core.lock:
                core.wishes.ask("a", 0, asking, todo)
            deadline = threading.Event()
            while asking.granted is None:  # and the loop does not run
                deadline.wait(0.001)
            version = taken(asking)
            asking.lose()
            assert version.leases == 1
            give_back(core, version)
            assert version.leases == 0

    async def test_left_while_it_lands(
        self, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The last to leave may do so between the end of a load and the keeper's hearing of it."""
        registry = Registry()
        registry.module("m")(Shelf().module())
        catalogue = {"a": {"module_id": "m", "model_path": str(tmp_path / "missing")}}
        async with ModelRepository(registry, models=catalogue) as models:
            core = models._core
            asking = TaskAsking(core, current_bell())
            callers = core.initializer._callers
            take_all = callers.take_all

            def leaves_first(seats: Any) -> Any:
                leave(core, asking)
                return take_all(seats)

            monkeypatch.setattr(callers, "take_all", leaves_first)
            with core.step() as todo, core.lock:
                core.wishes.ask("a", 0, asking, todo)
            await until(lambda: models.status("a").phase == "failed")
            assert "there is no" in models.status("a").reason
            assert quiet(models)

    async def test_reconsidered(self) -> None:
        """When another initializer ends a load, the repository has nothing to do about it."""
        async with Shelf().repository("a") as models:
            models._core.reconsider()
            assert not models._core.has_stuck_threads
            models._core.thread_left()

    async def test_reload_cancelled(self) -> None:
        """Who reads the catalogue and is cancelled leaves the thread to it."""
        async with Shelf().repository("a") as models:
            with CancelScope() as scope:
                scope.cancel()
                await models.reload({"models": {}})
            assert scope.cancelled_caught
            await until(lambda: models.statistics().models == 0)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
def test_fork() -> None:
    """A forked child goes on with what is loaded, and loads what was loading in the parent."""
    shelf = Shelf()
    clock = FakeClock()
    models = shelf.repository("a", "b", repository={"keep_alive": "5m"}, clock=clock)
    with models.lease_sync("a"):
        pass
    shelf.load_gate = Gate()
    waiter = threading.Thread(target=lambda: models.lease_sync("b").release())
    waiter.start()
    shelf.load_gate.entered_sync()
    child = os.fork()
    if child == 0:  # pragma: no cover  # of this test; what it calls is covered elsewhere
        try:
            shelf.load_gate = Gate(open=True)
            with models.lease_sync("a", timeout=5) as a, models.lease_sync("b", timeout=5) as b:
                assert a is shelf.made[0]
                assert b.name == "b"
            clock.advance(301)
            models.reconsider()
            models.close(grace=5)
            assert not any(models.statistics().used.values())
        except BaseException:
            os._exit(1)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    shelf.load_gate.open()
    waiter.join()
    models.close()
    assert shelf.live == 0
