"""How an initializer ends, and how a process does that loads models."""

import gc
import subprocess
import sys
import textwrap
import threading
import types
import weakref
from collections.abc import Generator
from time import monotonic
from typing import Any

import anyio
import pytest
from anyio import create_task_group
from anyio.lowlevel import checkpoint
from calls import GPU_THEN_LOCAL, Calls, arrived, does, error_of, of_type, two_backends
from scenes import LIMIT, error_of_late, let_pass, registry_of, registry_of_two

from anyload import ClosedError, Initializer, LoadError, ModelConfig, Registry, check_cancelled
from anyload._load import workers as worker_threads
from anyload._load.parking import Parked
from anyload._load.workers import Workers
from anyload.events import Abandoned, AttemptEnded, Event, Failed
from anyload.testing import (
    PATIENCE,
    Gate,
    checks_cancelled,
    returns_at_once,
    settled,
    until,
    waits_at,
)


def waiting_at(gate: Gate) -> Registry:
    registry = Registry()
    registry.module("m")(waits_at(gate))
    registry.module("free")(returns_at_once())
    return registry


def our_threads() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name.startswith("anyload")}


@types.coroutine
def suspended() -> Generator[None, None, None]:
    """Wait for nothing, for as long as nobody goes on."""
    yield


class TestAclose:
    async def test_running_loads_finish(self) -> None:
        """Within the grace a running load ends as if nobody had closed; a queued one does not."""
        gate = Gate()
        initializer = Initializer(waiting_at(gate), max_concurrent_loads=1)
        async with create_task_group() as tasks:
            calls = Calls(tasks)
            calls.start("running", initializer, ModelConfig("m"))
            await gate.entered()
            calls.start("queued", initializer, ModelConfig("free"))
            await until(lambda: initializer.statistics().queued == 1)
            tasks.start_soon(initializer.aclose, 30.0)
            assert type(await calls.result("queued")) is ClosedError
            assert type(await error_of(initializer, ModelConfig("free"))) is ClosedError
            assert "running" not in calls
            gate.open()
            assert not isinstance(await calls.result("running"), Exception)
        await settled(initializer)

    async def test_after_the_grace(self) -> None:
        """What still runs then is abandoned, is returned, and its callers get ClosedError."""
        before, gate, events = our_threads(), Gate(), list[Any]()
        initializer = Initializer(waiting_at(gate), hooks=[events.append])
        async with create_task_group() as tasks:
            calls = Calls(tasks)
            calls.start("running", initializer, ModelConfig("m"))
            await gate.entered()
            (stuck,) = await initializer.aclose(grace=0.05)
            assert (stuck.model, stuck.backend, stuck.abandoned) == ("m", "LOCAL", True)
            assert "testing.py" in stuck.stack or "threading.py" in stuck.stack
            assert type(await calls.result("running")) is ClosedError
            # Its thread is the one that is left; the watchdog is gone.
            await until(lambda: len(our_threads() - before) == 1)
            assert initializer.statistics().abandoned == 1
            gate.open()
        await settled(initializer)
        await until(lambda: our_threads() <= before)
        assert initializer.statistics().discarded == 1
        await arrived(Abandoned, events)
        assert len(of_type(Abandoned, events)) == 1

    async def test_sets_the_flag_after_the_grace(self) -> None:
        """A load that looks is told to stop when the grace is over, not before."""
        gate = Gate(open=True)
        registry = Registry()
        registry.module("m")(checks_cancelled(gate))
        initializer = Initializer(registry)
        async with create_task_group() as tasks:
            calls = Calls(tasks)
            calls.start("m", initializer, ModelConfig("m"))
            await gate.entered()
            await initializer.aclose(grace=0.1)
            assert type(await calls.result("m")) is ClosedError
        await settled(initializer)

    async def test_sets_the_flag_inside_the_load_of_another(self, gate: Gate) -> None:
        """So is one on the thread of another initializer's load, which goes on."""
        untold = list[ModelConfig]()

        def load(config: ModelConfig) -> None:
            gate.enter()
            check_cancelled()
            untold.append(config)

        inner = Initializer(registry_of(m=does(load)))
        nested = does(lambda config: inner.init_sync(ModelConfig("m")))
        async with Initializer(registry_of(outer=nested)) as outer:
            async with create_task_group() as tasks:
                calls = Calls(tasks)
                calls.start("outer", outer, ModelConfig("outer"))
                await gate.entered()
                await inner.aclose(grace=0)
                gate.open()
                error = await calls.result("outer")
            assert isinstance(error.attempts[0].error, ClosedError)
            assert untold == []
            await settled(outer)
        await settled(inner)

    async def test_twice_and_at_once(self) -> None:
        """It may be called again, and by several tasks at a time."""
        gate = Gate()
        initializer = Initializer(waiting_at(gate))
        async with create_task_group() as tasks:
            calls = Calls(tasks)
            calls.start("m", initializer, ModelConfig("m"))
            await gate.entered()
            tasks.start_soon(initializer.aclose, 30.0)
            tasks.start_soon(initializer.aclose, 30.0)
            await until(lambda: "closed" in repr(initializer))
            gate.open()
            assert not isinstance(await calls.result("m"), Exception)
        assert await initializer.aclose() == ()
        await settled(initializer)

    async def test_two_at_once_wait_without_spinning(
        self, gate: Gate, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Two closers look a few times while they wait for a load, and do not wake each other."""
        initializer, looks = Initializer(waiting_at(gate)), list[Any]()
        ending: Any = initializer._ending
        really = ending.step

        def step(seat: Any) -> bool:
            looks.append(seat)
            return bool(really(seat))

        monkeypatch.setattr(ending, "step", step)
        async with create_task_group() as tasks:
            calls = Calls(tasks)
            calls.start("m", initializer, ModelConfig("m"))
            await gate.entered()
            tasks.start_soon(initializer.aclose, 30.0)
            tasks.start_soon(initializer.aclose, 30.0)
            await until(lambda: len(looks) >= 2)
            for _ in range(500):
                await checkpoint()
            assert len(looks) < 20
            gate.open()
            assert not isinstance(await calls.result("m"), Exception)
        await settled(initializer)

    @pytest.mark.parametrize("grace", [None, -1.0, float("nan"), True, "1"])
    async def test_a_grace_that_is_no_time(self, grace: Any) -> None:
        """It is a ValueError, and the initializer is as open as before."""
        async with Initializer(waiting_at(Gate())) as initializer:
            with pytest.raises(ValueError, match="grace is a number of seconds, 0 or more, not"):
                await initializer.aclose(grace)
            with pytest.raises(ValueError, match="grace is a number of seconds, 0 or more, not"):
                initializer.close(grace)
            assert await initializer.init(ModelConfig("free")) is not None
            await settled(initializer)

    async def test_of_a_coroutine_that_is_closed(self, gate: Gate) -> None:
        """`async with` in a coroutine that is closed, and cannot wait, closes with no grace."""
        before, initializer = our_threads(), Initializer(waiting_at(gate))

        async def inside() -> None:
            async with initializer:
                await suspended()

        async with create_task_group() as tasks:
            calls = Calls(tasks)
            calls.start("m", initializer, ModelConfig("m"))
            await gate.entered()
            coroutine = inside()
            coroutine.send(None)
            coroutine.close()
            assert type(await calls.result("m")) is ClosedError
            assert initializer.statistics().abandoned == 1
            gate.open()
        await settled(initializer)
        await until(lambda: our_threads() <= before)

    def test_of_a_generator_that_is_closed(self) -> None:
        """`with` in a generator that is closed, or collected under the lock, waits for nothing."""

        def inside(initializer: Initializer) -> Generator[None, None, None]:
            with initializer:
                yield

        one, other = (Initializer(registry_of(m=returns_at_once())) for _ in range(2))
        generator = inside(one)
        next(generator)
        generator.close()
        with other._core.lock:
            assert other.close() == ()
        other._core.lock.catch_up()
        for initializer in one, other:
            with pytest.raises(ClosedError):
                initializer.init_sync(ModelConfig("m"))

    async def test_cancelled(self) -> None:
        """A cancelled aclose ends the grace at once."""
        gate = Gate()
        initializer = Initializer(waiting_at(gate))
        async with create_task_group() as tasks:
            calls = Calls(tasks)
            calls.start("m", initializer, ModelConfig("m"))
            await gate.entered()
            with anyio.move_on_after(0.05) as scope:
                await initializer.aclose(grace=1000.0)
            assert scope.cancelled_caught
            assert type(await calls.result("m")) is ClosedError
            assert initializer.statistics().abandoned == 1
            gate.open()
        await settled(initializer)

    async def test_threads_are_gone(self) -> None:
        """After a close neither a worker nor the watchdog is left."""
        before = our_threads()
        registry = Registry()
        registry.module("m")(returns_at_once())
        backends = [{"type": "LOCAL", "timeout": 1000.0}]
        async with Initializer(registry, backend_priority=backends) as initializer:
            await initializer.init_many([ModelConfig("m") for _ in range(20)])
            assert our_threads() - before
        await until(lambda: our_threads() <= before)
        await settled(initializer)

    async def test_no_next_backend(self) -> None:
        """After a close began, a load that fails has no further attempt."""
        gate = Gate()
        registry = Registry()

        def fails(model: Any) -> None:
            gate.enter()
            raise ValueError("no")

        registry.module("m")(returns_at_once(warmup=fails))
        backends = [{"type": "LOCAL"}, {"type": "LOCAL"}]
        initializer = Initializer(registry, backend_priority=backends)
        async with create_task_group() as tasks:
            calls = Calls(tasks)
            calls.start("m", initializer, ModelConfig("m"))
            await gate.entered()
            tasks.start_soon(initializer.aclose, 1000.0)  # nobody waits for that
            await until(lambda: "closed" in repr(initializer))
            gate.open()
            assert type(await calls.result("m")) is ClosedError
        await settled(initializer)
        assert gate.count == 1
        figures = initializer.statistics()
        assert (figures.loaded, figures.failed, figures.cancelled) == (0, 1, 0)

    async def test_no_next_backend_that_has_to_wait(self, gate: Gate) -> None:
        """After a close began, a load that fails does not wait for the group of its next turn."""
        held = Gate()

        def fails(config: ModelConfig) -> None:
            gate.enter()
            raise ValueError("no")

        registry = registry_of_two(does(fails), returns_at_once(exclusive_group="g"))
        registry.module("holder")(waits_at(held, exclusive_group="g"))
        initializer = Initializer(registry, backend_priority=GPU_THEN_LOCAL)
        async with create_task_group() as tasks:
            calls = Calls(tasks)
            calls.start("holder", initializer, ModelConfig("holder"))
            calls.start("m", initializer, ModelConfig("m"))
            await held.entered()
            await gate.entered()
            tasks.start_soon(initializer.aclose, 1000.0)
            await until(lambda: "closed" in repr(initializer))
            gate.open()
            assert type(await calls.result("m")) is ClosedError
            held.open()
        await settled(initializer)

    async def test_no_next_backend_whose_thread_is_on_its_way(
        self, gate: Gate, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A next backend that has a slot, and no thread yet, does not start after a close."""
        entrance, fallback = Gate(), Gate(open=True)
        live = worker_threads._live

        def late(workers: Workers, worker: Parked) -> None:
            entrance.enter()
            live(workers, worker)

        monkeypatch.setattr(worker_threads, "_live", late)
        registry = two_backends()
        registry.module("m", "GPU")(waits_at(gate))
        registry.module("m")(waits_at(fallback))
        backends = [{"type": "GPU", "timeout": LIMIT}, {"type": "LOCAL"}]
        events: list[Any] = []
        initializer = Initializer(
            registry, backend_priority=backends, max_concurrent_loads=1, hooks=[events.append]
        )
        async with create_task_group() as tasks:
            calls = Calls(tasks)
            entrance.let_through()
            calls.start("m", initializer, ModelConfig("m"))
            await gate.entered()
            let_pass(initializer, 2 * LIMIT)
            await entrance.entered(2)  # the fallback's thread; the first one is stuck
            tasks.start_soon(initializer.aclose, 30.0)
            await until(lambda: "closed" in repr(initializer))
            entrance.open()
            assert type(await calls.result("m")) is ClosedError
        assert fallback.count == 0
        gate.open()
        await settled(initializer)
        turns = [event.attempt for event in of_type(AttemptEnded, events)]
        assert [turn.outcome for turn in turns] == ["timed_out", "cancelled"]
        assert turns[1].reason == "nobody waits for it"

    async def test_with_every_slot_stuck_already(self) -> None:
        """What was abandoned before the close is returned without waiting for the grace."""
        gate = Gate()
        backends = [{"type": "LOCAL", "timeout": LIMIT}]
        initializer = Initializer(waiting_at(gate), backend_priority=backends)
        assert type(await error_of_late(initializer, ModelConfig("m"), gate)) is LoadError
        with anyio.fail_after(10):
            (stuck,) = await initializer.aclose(grace=1000.0)
        assert stuck.abandoned
        gate.open()
        await settled(initializer)

    async def test_with_a_hung_release(self) -> None:
        """It ends while the release of a discarded model is past its limit."""
        hang = Gate()
        registry = Registry()
        registry.module("m")(returns_at_once(release=lambda model: hang.enter()))
        initializer = Initializer(registry, release_timeout=0.05)
        async with initializer.init_each([ModelConfig("m")]):
            await until(lambda: initializer.statistics().loaded == 1)
        await until(lambda: initializer.statistics().abandoned == 1)
        with anyio.fail_after(20):
            await initializer.aclose(grace=0.1)
        hang.open()
        await settled(initializer)

    async def test_with_a_prepare_that_it_does_not_wait_for(self, gate: Gate) -> None:
        """A thread that a close has left in a module's code is one that holds up the process."""
        prepare = classmethod(lambda cls: gate.enter())
        initializer = Initializer(registry_of(m=returns_at_once(prepare=prepare)))
        async with create_task_group() as tasks:
            calls = Calls(tasks)
            calls.start("m", initializer, ModelConfig("m"))
            await gate.entered()
            before = initializer._core.has_stuck_threads
            await initializer.aclose(grace=0)
            assert type(await calls.result("m")) is ClosedError
            assert (before, initializer._core.has_stuck_threads) == (False, True)
            gate.open()
        await until(lambda: not initializer._core.has_stuck_threads)
        await settled(initializer)

    async def test_waits_for_a_release_that_has_yet_to_begin(self) -> None:
        """A discarded model whose group a hung release holds keeps its share of the grace."""
        hang = Gate()
        module = returns_at_once(exclusive_group="g", release=lambda model: hang.enter())
        initializer = Initializer(registry_of(m=module), release_timeout=LIMIT)
        async with initializer.init_each([ModelConfig("m"), ModelConfig("m")]):
            await until(lambda: initializer.statistics().loaded == 2)
        await hang.entered()
        let_pass(initializer, 2 * LIMIT)
        assert initializer.statistics().abandoned == 1
        async with create_task_group() as tasks:
            tasks.start_soon(initializer.aclose, PATIENCE)
            await until(lambda: "closed" in repr(initializer))
            assert initializer._core.closing.stage == "draining"
            hang.open()
        assert hang.count == 2
        await settled(initializer)

    @pytest.mark.parametrize("cap", [0, 4])
    async def test_then_a_limit_passes(
        self, gate: Gate, cap: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A load that a close has abandoned is counted, and told of, once, whatever its limit."""
        events: list[Any] = []
        initializer = Initializer(
            waiting_at(gate),
            backend_priority=[{"type": "LOCAL", "timeout": PATIENCE}],
            max_abandoned_loads=cap,
            hooks=[events.append],
        )
        async with create_task_group() as tasks:
            calls = Calls(tasks)
            calls.start("m", initializer, ModelConfig("m"))
            await gate.entered()
            await initializer.aclose(grace=0)
            # The watchdog coming by once more, before it is dismissed and after the limit.
            monkeypatch.setattr(initializer._core, "clock", lambda: monotonic() + 2 * PATIENCE)
            initializer._core.ring()
            figures = initializer.statistics()
            assert (figures.running, figures.overdue, figures.abandoned) == (0, 0, 1)
            assert len(of_type(Abandoned, events)) == 1
            gate.open()
        await settled(initializer)

    async def test_then_a_limit_of_the_load_around_it_passes(
        self, gate: Gate, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A load that a close has cut inside another's load ends once, whatever becomes of that."""
        events = list[Event]()
        inner = Initializer(waiting_at(gate), hooks=[events.append])
        nested = does(lambda config: inner.init_sync(ModelConfig("m")))
        backends = [{"type": "LOCAL", "timeout": PATIENCE}]
        outer = Initializer(registry_of(outer=nested), backend_priority=backends)
        async with create_task_group() as tasks:
            calls = Calls(tasks)
            calls.start("outer", outer, ModelConfig("outer"))
            await gate.entered()
            await inner.aclose(grace=0)
            monkeypatch.setattr(outer._core, "clock", lambda: monotonic() + 2 * PATIENCE)
            outer._core.ring()
            assert type(await calls.result("outer")) is LoadError
            figures = inner.statistics()
            assert (figures.failed, figures.cancelled) == (1, 0)
            gate.open()
        await settled(inner)
        await settled(outer)
        figures = inner.statistics()
        assert (figures.loaded, figures.failed, figures.cancelled) == (0, 1, 0)
        assert len(of_type(Failed, events)) == 1
        await outer.aclose()

    async def test_of_an_initializer_with_a_load_of_another_inside_its_own(
        self, gate: Gate
    ) -> None:
        """Who waits for the one inside, which is abandoned with the other, gets its error."""
        inner = Initializer(waiting_at(gate))
        nested = does(lambda config: inner.init_sync(ModelConfig("m"), key="k"))
        outer = Initializer(registry_of(outer=nested))
        async with create_task_group() as tasks:
            calls = Calls(tasks)
            calls.start("outer", outer, ModelConfig("outer"))
            await gate.entered()
            calls.start("inner", inner, ModelConfig("m"), key="k")
            await until(lambda: inner.statistics().waiters == 2)
            await outer.aclose(grace=0)
            assert isinstance(await calls.result("outer"), ClosedError)
            error = await calls.result("inner")
            assert "was cut by a close" in error.attempts[0].reason
            gate.open()
        await settled(inner)


class TestClose:
    def test_in_a_plain_thread(self) -> None:
        """`with` and close() do for plain threads what aclose does for tasks."""
        before = our_threads()
        registry = Registry()
        registry.module("m")(returns_at_once())
        with Initializer(registry) as initializer:
            assert initializer.init_sync(ModelConfig("m")) is not None
        assert initializer.close() == ()
        with pytest.raises(ClosedError, match="the initializer is closed"):
            initializer.init_sync(ModelConfig("m"))
        for thread in our_threads() - before:
            thread.join(10)
        assert our_threads() <= before

    def test_with_a_stuck_load(self) -> None:
        """close(0) leaves a running load at once and returns it."""
        gate, errors = Gate(), list[BaseException]()
        initializer = Initializer(waiting_at(gate))

        def load() -> None:
            try:
                initializer.init_sync(ModelConfig("m"))
            except ClosedError as error:
                errors.append(error)

        thread = threading.Thread(target=load)
        thread.start()
        gate.entered_sync()
        (stuck,) = initializer.close(0)
        assert stuck.model == "m"
        thread.join(10)
        assert len(errors) == 1
        gate.open()

    def test_waits_without_spinning(self, gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
        """A close that has to wait for a load looks at it a few times, not all the time."""
        initializer = Initializer(waiting_at(gate))
        ending: Any = initializer._ending
        looks: list[None] = []
        real = ending.step

        def step(seat: Any) -> bool:
            looks.append(None)
            return bool(real(seat))

        monkeypatch.setattr(ending, "step", step)
        thread = threading.Thread(target=initializer.init_sync, args=(ModelConfig("m"),))
        thread.start()
        gate.entered_sync()
        threading.Timer(0.2, gate.open).start()
        assert initializer.close(30) == ()
        thread.join()
        assert len(looks) < 50


class TestWithoutAClose:
    async def test_idle_threads_end(self) -> None:
        """An initializer that is dropped leaves no thread behind."""
        before = our_threads()
        registry = Registry()
        registry.module("m")(returns_at_once())
        initializer = Initializer(registry, backend_priority=[{"type": "LOCAL", "timeout": 1000.0}])
        await initializer.init(ModelConfig("m"))
        await settled(initializer)
        assert our_threads() - before
        dropped = weakref.ref(initializer)
        del initializer
        gc.collect()
        assert dropped() is None
        await until(lambda: our_threads() <= before)

    async def test_check_cancelled_outside_a_load(self) -> None:
        """Outside of a load check_cancelled does nothing."""
        check_cancelled()


PRELUDE = """
import os, sys, threading, anyio
from anyload import Initializer, ModelConfig, Registry, exit_process, report_progress
from anyload.testing import Gate, hangs, returns_at_once, waits_at, at_rest
gate = Gate()
registry = Registry()
registry.module("m")(waits_at(gate))
registry.module("free")(returns_at_once())

@registry.module("hangs")
class Hangs:
    # Its stall_timeout runs from here on, so not before its thread has come here.
    @classmethod
    def load(cls, config):
        report_progress()
        return hangs().load(config)
"""


def run_script(script: str) -> "subprocess.CompletedProcess[str]":
    """Run a script in a child process; what it says on stderr is a failure of the test."""
    code = PRELUDE + textwrap.dedent(script)
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


class TestCollected:
    @pytest.mark.parametrize("coroutine", ["inside", "closing"])
    def test_while_its_thread_holds_the_lock(self, coroutine: str) -> None:
        """A coroutine that is collected in a transition closes the initializer right after it."""
        done = run_script(f"""
            import faulthandler
            from anyload._load.process import process
            faulthandler.dump_traceback_later(20, exit=True)
            initializer = Initializer(registry)
            def load():
                try:
                    initializer.init_sync(ModelConfig("m"))
                except Exception as error:
                    print(type(error).__name__)
            async def inside():
                async with initializer:
                    await anyio.Event().wait()
            async def closing():
                await initializer.aclose(1000)
            async def main():
                thread = threading.Thread(target=load)
                thread.start()
                await gate.entered()
                coroutine = {coroutine}()
                coroutine.send(None)
                with process.lock:
                    del coroutine  # as the garbage collector does, run by an allocation here
                initializer.statistics()  # whoever lets go of the lock next
                thread.join()
                print(initializer.statistics().abandoned)
                gate.open()
            anyio.run(main)
        """)
        assert done.stdout.splitlines() == ["ClosedError", "1"], done.stderr
        assert done.returncode == 0, done.stderr


class TestFork:
    def test_with_a_flight_in_progress(self) -> None:
        """A forked child starts with empty tables, loads the model itself, and never hangs."""
        done = run_script("""
            initializer = Initializer(registry, max_concurrent_loads=1)
            thread = threading.Thread(
                target=initializer.init_sync, args=(ModelConfig("m"),), kwargs={"key": "m"}
            )
            thread.start()
            gate.entered_sync()
            import warnings
            warnings.simplefilter("ignore", DeprecationWarning)
            child = os.fork()
            if child == 0:
                figures = initializer.statistics()
                empty = at_rest(figures) and figures.threads == 0
                model = initializer.init_sync(ModelConfig("free"), key="m", timeout=20)
                initializer.close()
                print("child", empty, type(model).__name__, flush=True)
                os._exit(0)
            _, status = os.waitpid(child, 0)
            gate.open()
            thread.join()
            print("parent", status, initializer.statistics().loaded)
            initializer.close()
        """)
        assert done.stdout.splitlines() == ["child True ReturnsAtOnce", "parent 0 1"], done.stderr
        assert done.returncode == 0, done.stderr

    def test_while_something_is_made(self) -> None:
        """What a thread of the parent makes, of which there is one, the child can make too."""
        done = run_script("""
            from anyload._load.process import process
            process.making.acquire()
            child = os.fork()
            if child == 0:
                print(process.making.acquire(blocking=False), flush=True)
                os._exit(0)
            os.waitpid(child, 0)
        """)
        assert done.stdout.splitlines() == ["True"], done.stderr
        assert done.returncode == 0, done.stderr

    def test_after_a_close(self) -> None:
        """A closed initializer is closed in a forked child too."""
        done = run_script("""
            initializer = Initializer(registry)
            initializer.close()
            child = os.fork()
            if child == 0:
                try:
                    initializer.init_sync(ModelConfig("free"), timeout=20)
                except Exception as error:
                    print(type(error).__name__, initializer.close(), flush=True)
                os._exit(0)
            os.waitpid(child, 0)
        """)
        assert done.stdout.splitlines() == ["ClosedError ()"], done.stderr
        assert done.returncode == 0, done.stderr

    def test_frees_groups_in_the_child(self) -> None:
        """A group that a thread of the parent holds is free in the child."""
        done = run_script("""
            registry.module("grouped")(waits_at(gate, exclusive_group="g"))
            registry.module("quick")(returns_at_once(exclusive_group="g"))
            initializer = Initializer(registry)
            thread = threading.Thread(target=initializer.init_sync, args=(ModelConfig("grouped"),))
            thread.start()
            gate.entered_sync()
            import warnings
            warnings.simplefilter("ignore", DeprecationWarning)
            child = os.fork()
            if child == 0:
                initializer.init_sync(ModelConfig("quick"), timeout=20)
                print("child", flush=True)
                os._exit(0)
            os.waitpid(child, 0)
            gate.open()
            thread.join()
            initializer.close()
        """)
        assert done.stdout.splitlines() == ["child"], done.stderr
        assert done.returncode == 0, done.stderr


LOOPS = {
    "asyncio": "anyio.run(main)",
    "uvloop": "anyio.run(main, backend_options={'use_uvloop': True})",
    "trio": "anyio.run(main, backend='trio')",
}


class TestExit:
    @pytest.mark.parametrize("loop", LOOPS)
    def test_with_a_hung_load(self, loop: str) -> None:
        """A process with a load that hangs for ever ends by itself."""
        done = run_script(f"""
            async def main():
                backends = [{{"type": "LOCAL", "stall_timeout": 0.1}}]
                async with Initializer(registry, backend_priority=backends) as initializer:
                    try:
                        await initializer.init(ModelConfig("hangs"))
                    except Exception as error:
                        print(type(error).__name__)
                    await initializer.init(ModelConfig("free"))
                print("closed")
            {LOOPS[loop]}
        """)
        assert done.stdout.splitlines() == ["LoadError", "closed"], done.stderr
        assert done.returncode == 0, done.stderr

    @pytest.mark.parametrize("loop", LOOPS)
    def test_exit_process(self, loop: str) -> None:
        """exit_process flushes and ends the process though a load is stuck."""
        done = run_script(f"""
            import atexit
            atexit.register(print, "atexit")
            async def main():
                initializer = Initializer(
                    registry, backend_priority=[{{"type": "LOCAL", "stall_timeout": 0.1}}]
                )
                try:
                    await initializer.init(ModelConfig("hangs"))
                except Exception as error:
                    print(type(error).__name__)
                print(len(await initializer.aclose(0)))
            {LOOPS[loop]}
            sys.stdout.write("flushed")
            exit_process(7)
        """)
        assert done.stdout.splitlines() == ["LoadError", "1", "flushed"], done.stderr
        assert done.returncode == 7

    def test_exit_process_with_a_hung_prepare(self) -> None:
        """exit_process ends the process at once though a prepare is stuck in its thread."""
        done = run_script("""
            import atexit
            atexit.register(print, "atexit")
            prepare = classmethod(lambda cls: gate.enter())
            registry.module("prepares")(returns_at_once(prepare=prepare))
            initializer = Initializer(registry, prepare_timeout=0.1)
            try:
                initializer.init_sync(ModelConfig("prepares"))
            except Exception as error:
                print(type(error).__name__)
            print(initializer.close(0))
            exit_process(7)
        """)
        assert done.stdout.splitlines() == ["LoadError", "()"], done.stderr
        assert done.returncode == 7

    def test_exit_process_with_nothing_stuck(self) -> None:
        """exit_process is sys.exit while no load is stuck."""
        done = run_script("""
            import atexit
            atexit.register(print, "atexit")
            with Initializer(registry) as initializer:
                initializer.init_sync(ModelConfig("free"))
            exit_process(3)
        """)
        assert done.stdout.splitlines() == ["atexit"], done.stderr
        assert done.returncode == 3
