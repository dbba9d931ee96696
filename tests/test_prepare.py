"""What happens once before loads: prepare, the start of a backend; and what follows a load."""

import logging
import threading
from collections.abc import Callable
from time import monotonic, sleep
from typing import Any, ClassVar

import anyio
import pytest
from anyio import create_task_group
from calls import Calls, arrived, does, error_of, of_type
from scenes import LIMIT, error_of_late, let_pass, no_thread_left, registry_of

from anyload import Backend, ClosedError, Initializer, LoadError, ModelConfig, Registry
from anyload.events import Loaded, Prepared
from anyload.testing import (
    PATIENCE,
    FakeModel,
    Gate,
    returns_at_once,
    settled,
    until,
    waits_at,
)

SHORT = 0.05


def prepares(
    body: Callable[[], object], package: str = "tests", **attributes: Any
) -> type[FakeModel]:
    """Return a module whose prepare calls this; it seems to live in the given package."""

    def prepare(cls: type[FakeModel]) -> None:
        body()

    return returns_at_once(prepare=classmethod(prepare), __module__=package, **attributes)


class TestPrepare:
    async def test_once(self) -> None:
        """`prepare` runs once per implementation, before its first load."""
        gate = Gate(open=True)
        registry = Registry()
        registry.module("m")(prepares(gate.enter))
        async with Initializer(registry) as initializer:
            await initializer.init_many([ModelConfig("m") for _ in range(5)])
            await initializer.init(ModelConfig("m"))
            assert gate.count == 1
            await settled(initializer)

    async def test_one_after_another(self) -> None:
        """Two implementations never prepare at the same time, in whichever initializers."""
        gate = Gate()
        registry = Registry()
        registry.module("a")(prepares(gate.enter, "package_a"))
        registry.module("b")(prepares(gate.enter, "package_b"))
        async with (
            Initializer(registry) as one,
            Initializer(registry) as other,
            create_task_group() as tasks,
        ):
            tasks.start_soon(one.init, ModelConfig("a"))
            tasks.start_soon(one.init, ModelConfig("b"))
            tasks.start_soon(other.init, ModelConfig("a"))
            for number in (1, 2, 3):
                await gate.entered(number)
                gate.let_through()
            await settled(one)
            await settled(other)
            assert gate.most_inside == 1

    async def test_takes_no_slot(self) -> None:
        """While one module prepares, another loads on the only slot."""
        gate = Gate()
        registry = Registry()
        registry.module("m")(prepares(gate.enter))
        registry.module("free")(returns_at_once())
        async with (
            Initializer(registry, max_concurrent_loads=1) as initializer,
            create_task_group() as tasks,
        ):
            tasks.start_soon(initializer.init, ModelConfig("m"))
            await gate.entered()
            assert initializer.statistics().preparing == 1
            await initializer.init(ModelConfig("free"))
            gate.open()
            await settled(initializer)

    async def test_that_raises(self) -> None:
        """A prepare that raises ends the attempt, and the next load tries it again."""
        problems: list[Exception] = [ImportError("no torch")]

        def once() -> None:
            if problems:
                raise problems.pop()

        registry = Registry()
        registry.module("m")(prepares(once))
        async with Initializer(registry) as initializer:
            error = await error_of(initializer, ModelConfig("m"))
            (attempt,) = error.attempts
            assert attempt.outcome == "raised"
            assert "prepare() of tests.ReturnsAtOnce raised ImportError: no torch" in str(error)
            assert isinstance(error.__cause__, ImportError)
            await initializer.init(ModelConfig("m"))
            await settled(initializer)

    async def test_timeout(self) -> None:
        """A prepare past prepare_timeout ends the attempts that wait for it, with its place."""
        gate = Gate()
        registry = Registry()
        registry.module("m")(prepares(gate.enter))
        async with Initializer(registry, prepare_timeout=SHORT) as initializer:
            error = await error_of(initializer, ModelConfig("m"))
            (attempt,) = error.attempts
            assert attempt.outcome == "timed_out"
            assert attempt.reason.startswith("prepare() of tests.ReturnsAtOnce has been running")
            assert ", in " in attempt.reason
            gate.open()
            await settled(initializer)

    async def test_a_hung_one_blocks_its_package_only(self) -> None:
        """While a prepare hangs, other packages load; its own waits or fails, then recovers."""
        gate = Gate()
        registry = Registry()
        registry.module("hung")(prepares(gate.enter, "sick.deep"))
        registry.module("same")(prepares(lambda: None, "sick.other"))
        registry.module("other")(prepares(lambda: None, "healthy"))
        async with (
            Initializer(registry, prepare_timeout=LIMIT) as initializer,
            create_task_group() as tasks,
        ):
            await error_of_late(initializer, ModelConfig("hung"), gate)
            again = await error_of(initializer, ModelConfig("hung"))
            assert again.attempts[0].outcome == "timed_out"
            calls = Calls(tasks)
            calls.start("same", initializer, ModelConfig("same"))
            await until(lambda: initializer.statistics().preparing == 1)
            let_pass(initializer, 2 * LIMIT)
            same = await calls.result("same")
            assert same.attempts[0].outcome == "timed_out"
            assert "cannot begin: an import of 'sick' hangs" in same.attempts[0].reason
            await initializer.init(ModelConfig("other"))
            async with Initializer(registry) as unlimited:
                # With no limit to wait for, it fails at once.
                error = await error_of(unlimited, ModelConfig("same"))
                assert "cannot begin" in error.attempts[0].reason
                await settled(unlimited)
            assert initializer.statistics().stuck_preparations == 1
            gate.open()
            await settled(initializer)
            for model in ("hung", "same"):
                await initializer.init(ModelConfig(model))
            await settled(initializer)

    async def test_a_second_try_may_be_blocked(self, gate: Gate) -> None:
        """A prepare that has failed waits no longer than others for an import that hangs."""
        torn = [ImportError("no torch")]

        def fails_once() -> None:
            if torn:
                raise torn.pop()

        registry = Registry()
        registry.module("hung")(prepares(gate.enter, "sick.deep"))
        registry.module("same")(prepares(fails_once, "sick.other"))
        async with (
            Initializer(registry, prepare_timeout=LIMIT) as initializer,
            create_task_group() as tasks,
        ):
            await error_of(initializer, ModelConfig("same"))
            await error_of_late(initializer, ModelConfig("hung"), gate)
            calls = Calls(tasks)
            calls.start("same", initializer, ModelConfig("same"))
            await until(lambda: initializer.statistics().preparing == 1)
            let_pass(initializer, 2 * LIMIT)
            blocked = await calls.result("same")
            assert "cannot begin: an import of 'sick' hangs" in blocked.attempts[0].reason
            gate.open()
            await settled(initializer)

    async def test_begun_before_its_initializer_has_heard(
        self, gate: Gate, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """What hung in another initializer has ended; what runs now has a limit of its own."""
        running = Gate()
        registry = registry_of(
            hung=prepares(gate.enter, "sick"),
            same=prepares(running.enter, "sick"),
            free=returns_at_once(),
        )
        async with (
            Initializer(registry, prepare_timeout=LIMIT) as other,
            Initializer(registry, prepare_timeout=LIMIT) as initializer,
            create_task_group() as tasks,
        ):
            await error_of_late(other, ModelConfig("hung"), gate)
            calls = Calls(tasks)
            calls.start("same", initializer, ModelConfig("same"))
            await until(lambda: initializer.statistics().preparing == 1)
            monkeypatch.setattr(initializer._core, "reconsider", lambda: None)
            gate.open()
            await settled(other)
            await initializer.init(ModelConfig("free"))
            await running.entered()
            let_pass(initializer, 2 * LIMIT)
            late = await calls.result("same")
            assert "cannot begin" not in late.attempts[0].reason
            running.open()
            await settled(initializer)

    async def test_joined_while_it_runs(self, gate: Gate) -> None:
        """A load that comes while its module prepares waits for that, and no second one runs."""
        registry = registry_of(m=prepares(gate.enter))
        async with Initializer(registry) as initializer, create_task_group() as tasks:
            calls = Calls(tasks)
            calls.start("first", initializer, ModelConfig("m"))
            await gate.entered()
            calls.start("second", initializer, ModelConfig("m"))
            await until(lambda: initializer.statistics().preparing == 2)
            gate.open()
            for name in ("first", "second"):
                assert not isinstance(await calls.result(name), Exception)
            assert gate.count == 1
            await settled(initializer)

    async def test_queued_at_a_close(self, gate: Gate) -> None:
        """After a close no prepare begins, though one may still be running."""
        second = Gate(open=True)
        registry = registry_of(a=prepares(gate.enter), b=prepares(second.enter))
        initializer = Initializer(registry)
        async with create_task_group() as tasks:
            calls = Calls(tasks)
            calls.start("a", initializer, ModelConfig("a"))
            await gate.entered()
            calls.start("b", initializer, ModelConfig("b"))
            await until(lambda: initializer.statistics().preparing == 2)
            await initializer.aclose(grace=0)
            assert isinstance(await calls.result("b"), ClosedError)
            gate.open()
            await until(lambda: initializer.statistics().threads == 0)
        assert second.count == 0

    async def test_blocked_at_a_close(self, gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
        """A close ends with its grace, though a prepare was waiting for a hung import just then."""
        loading = Gate()
        registry = registry_of(
            hung=prepares(gate.enter, "sick"),
            same=prepares(lambda: None, "sick"),
            running=waits_at(loading),
        )
        closing = Initializer(registry, prepare_timeout=PATIENCE)
        async with Initializer(registry, prepare_timeout=SHORT) as hasty:
            await error_of(hasty, ModelConfig("hung"))
            async with create_task_group() as tasks:
                calls = Calls(tasks)
                calls.start("running", closing, ModelConfig("running"))
                await loading.entered()
                calls.start("same", closing, ModelConfig("same"))
                await until(lambda: closing.statistics().preparing == 1)
                tasks.start_soon(closing.aclose, PATIENCE)
                assert isinstance(await calls.result("same"), ClosedError)
                # The watchdog, after the limit of the prepare and the grace.
                monkeypatch.setattr(closing._core, "clock", lambda: monotonic() + 2 * PATIENCE)
                closing._core.ring()
                with anyio.fail_after(20.0):
                    assert isinstance(await calls.result("running"), ClosedError)
                    assert len(await closing.aclose(PATIENCE)) == 1
            loading.open()
            await settled(closing)
            gate.open()
            await settled(hasty)
        await until(lambda: closing.statistics().threads == 0)

    async def test_no_thread_but_the_one_that_hangs_in_it(
        self, gate: Gate, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Where the only thread hangs in a prepare and no other can start, a load is an error."""
        registry = registry_of(hung=prepares(gate.enter), m=returns_at_once())

        async with Initializer(registry, prepare_timeout=SHORT) as initializer:
            await error_of(initializer, ModelConfig("hung"))
            assert initializer.statistics().threads == 1
            with monkeypatch.context() as patch, anyio.fail_after(20.0):
                patch.setattr(threading.Thread, "start", no_thread_left)
                error = await error_of(initializer, ModelConfig("m"))
            assert type(error) is LoadError
            assert "can't start new thread" in str(error)
            gate.open()
            await until(lambda: gate.inside == 0)
            assert await initializer.init(ModelConfig("m")) is not None
            await settled(initializer)

    async def test_no_thread_for_it(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Where no thread can be started, a load that waits for its prepare ends too."""
        module = prepares(lambda: None)

        async with Initializer(registry_of(m=module)) as initializer:
            with monkeypatch.context() as patch:
                patch.setattr(threading.Thread, "start", no_thread_left)
                error = await error_of(initializer, ModelConfig("m"))
            assert "can't start new thread" in str(error)
            assert isinstance(await initializer.init(ModelConfig("m")), module)
            await settled(initializer)


class Device(Backend):
    """A backend that does what its test wants."""

    backend_type = "DEVICE"
    starting: ClassVar[Callable[[], object]] = staticmethod(lambda: None)
    reason: ClassVar[str | None] = None
    stopped: ClassVar[list[str]]

    def start(self) -> None:
        type(self).starting()

    def stop(self) -> None:
        self.stopped.append("stopped")

    def available(self) -> str | None:
        return self.reason


def device(**attributes: Any) -> tuple[Registry, type[Device]]:
    registry = Registry()
    kind = type("TestDevice", (Device,), {"stopped": [], **attributes})
    registry.backend_type(kind)
    return registry, kind


class TestBackend:
    async def test_starts_once_and_stops_at_close(self) -> None:
        """`start` runs before the first load, once, and `stop` at close."""
        gate = Gate(open=True)
        registry, kind = device(starting=staticmethod(gate.enter))
        registry.module("m", "DEVICE")(returns_at_once())
        async with Initializer(registry, backend_priority=[{"type": "DEVICE"}]) as initializer:
            assert gate.count == 0
            await initializer.init_many([ModelConfig("m") for _ in range(5)])
            assert gate.count == 1
            assert kind.stopped == []
            await settled(initializer)
        assert kind.stopped == ["stopped"]

    async def test_the_wait_for_each_step_counts(self) -> None:
        """The time that a load has queued is its wait for the start, and then for the imports."""
        events = list[Any]()
        registry, _ = device(starting=staticmethod(lambda: sleep(SHORT)))
        registry.module("m", "DEVICE")(prepares(lambda: None))
        options: dict[str, Any] = {"backend_priority": [{"type": "DEVICE"}]}
        async with Initializer(registry, hooks=[events.append], **options) as initializer:
            await initializer.init(ModelConfig("m"))
            report = (await arrived(Loaded, events)).report
            await settled(initializer)
        start, imports = of_type(Prepared, events)
        assert start.seconds + imports.seconds <= report.queue_seconds <= report.total_seconds

    async def test_is_not_stopped_if_it_never_started(self) -> None:
        """A backend that nothing was loaded on is not stopped."""
        registry, kind = device()
        registry.module("m", "DEVICE")(returns_at_once())
        async with Initializer(registry, backend_priority=[{"type": "DEVICE"}]) as initializer:
            await settled(initializer)
        assert kind.stopped == []

    async def test_start_that_raises(self) -> None:
        """A start that raises ends the attempt, and the next load tries it again."""
        problems: list[Exception] = [OSError("no device")]

        def once() -> None:
            if problems:
                raise problems.pop()

        registry, kind = device(starting=staticmethod(once))
        registry.module("m", "DEVICE")(returns_at_once())
        async with Initializer(registry, backend_priority=[{"type": "DEVICE"}]) as initializer:
            error = await error_of(initializer, ModelConfig("m"))
            assert error.attempts[0].outcome == "raised"
            assert "start() of backend DEVICE raised OSError: no device" in str(error)
            await initializer.init(ModelConfig("m"))
            await settled(initializer)
        assert kind.stopped == ["stopped"]

    async def test_stop_is_skipped_under_a_stuck_thread(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        """`stop` is not called, and that is logged, while an abandoned load runs on the backend."""
        gate = Gate()
        registry, kind = device()
        registry.module("m", "DEVICE")(waits_at(gate))
        initializer = Initializer(registry, backend_priority=[{"type": "DEVICE", "timeout": LIMIT}])
        await error_of_late(initializer, ModelConfig("m"), gate)
        with caplog.at_level(logging.WARNING, "anyload"):
            assert len(await initializer.aclose()) == 1
        assert "stop() of backend DEVICE is skipped" in caplog.text
        assert kind.stopped == []
        gate.open()
        await settled(initializer)

    async def test_stop_that_raises(self, caplog: pytest.LogCaptureFixture) -> None:
        """A stop that raises is logged, and the close goes on."""

        def fails(backend: Device) -> None:
            raise ValueError("cannot stop")

        registry, _ = device(stop=fails)
        registry.module("m", "DEVICE")(returns_at_once())
        initializer = Initializer(registry, backend_priority=[{"type": "DEVICE"}])
        await initializer.init(ModelConfig("m"))
        with caplog.at_level(logging.ERROR, "anyload"):
            assert await initializer.aclose() == ()
        assert "stop() of backend DEVICE raised" in caplog.text

    async def test_starts_after_the_close(self, gate: Gate) -> None:
        """A start that ends when nobody waits for it any more is followed by its stop."""
        done: list[str] = []

        def start() -> None:
            gate.enter()
            done.append("started")

        registry, _ = device(starting=staticmethod(start), stopped=done)
        registry.module("m", "DEVICE")(returns_at_once())
        initializer = Initializer(registry, backend_priority=[{"type": "DEVICE"}])
        async with create_task_group() as tasks:
            calls = Calls(tasks)
            calls.start("m", initializer, ModelConfig("m"))
            await gate.entered()
            await initializer.aclose(grace=0)
            gate.open()
            await until(lambda: done == ["started", "stopped"])
            assert isinstance(await calls.result("m"), ClosedError)

    @pytest.mark.parametrize("answer", [True, False, 5, ["no card"]])
    async def test_an_answer_that_is_no_reason_is_said(self, answer: Any) -> None:
        """To return whether it is available, and not why it is not, is a natural mistake."""
        registry, _ = device(reason=answer)
        registry.module("m", "DEVICE")(returns_at_once())
        async with Initializer(registry, backend_priority=[{"type": "DEVICE"}]) as initializer:
            with pytest.raises(LoadError) as caught:
                await initializer.init(ModelConfig("m"))
            shown = "a list" if isinstance(answer, list) else answer
            text = f"available() returned {shown}; it returns a reason, or None"
            assert text in str(caught.value)
            await settled(initializer)

    async def test_unavailable(self) -> None:
        """A backend that says why it is unavailable is skipped with that reason."""
        events = list[Any]()
        registry, _ = device(reason="no driver")
        registry.module("m", "DEVICE")(returns_at_once())
        registry.module("m")(returns_at_once())
        backends = [{"type": "DEVICE"}, {"type": "LOCAL"}]
        async with Initializer(
            registry, backend_priority=backends, hooks=[events.append]
        ) as initializer:
            await initializer.init(ModelConfig("m"))
            loaded = await arrived(Loaded, events)
            skipped = loaded.report.attempts[0]
            assert skipped.outcome == "skipped"
            assert "no driver" in skipped.reason
            await settled(initializer)


class TestWarmup:
    async def test_is_inside_the_timeout(self) -> None:
        """A warmup that takes too long is an attempt that timed out; its model is released."""
        gate = Gate()
        registry = Registry()
        module = does(lambda config: None, warmup=lambda model: gate.enter())
        registry.module("m")(module)
        backends = [{"type": "LOCAL", "timeout": LIMIT}]
        async with Initializer(registry, backend_priority=backends) as initializer:
            error = await error_of_late(initializer, ModelConfig("m"), gate)
            assert error.attempts[0].outcome == "timed_out"
            gate.open()
            await settled(initializer)
            assert [model.released for model in module.made] == [1]

    async def test_that_raises(self) -> None:
        """A warmup that raises is an attempt that raised; its model is released."""

        def fails(model: FakeModel) -> None:
            raise ValueError("cold")

        registry = Registry()
        module = does(lambda config: None, warmup=fails)
        registry.module("m")(module)
        async with Initializer(registry) as initializer:
            error = await error_of(initializer, ModelConfig("m"))
            assert error.attempts[0].reason == "ValueError: cold"
            await settled(initializer)
            assert [model.released for model in module.made] == [1]

    @pytest.mark.parametrize("on", [True, False])
    async def test_can_be_turned_off(self, on: bool) -> None:
        """`warmup: false` leaves it out."""
        gate = Gate(open=True)
        registry = Registry()
        registry.module("m")(returns_at_once(warmup=lambda model: gate.enter()))
        async with Initializer(registry, warmup=on) as initializer:
            await initializer.init(ModelConfig("m"))
            assert gate.count == on
            await settled(initializer)


async def test_prepared_before_a_queue() -> None:
    """A load waits for its prepare and then for a slot, like any other."""
    gate, preparing = Gate(), Gate()
    registry = Registry()
    registry.module("busy")(waits_at(gate))
    registry.module("m")(prepares(preparing.enter))
    async with (
        Initializer(registry, max_concurrent_loads=1) as initializer,
        create_task_group() as tasks,
    ):
        calls = Calls(tasks)
        calls.start("busy", initializer, ModelConfig("busy"))
        await gate.entered()
        calls.start("m", initializer, ModelConfig("m"))
        await preparing.entered()
        preparing.open()
        await until(lambda: initializer.statistics().queued == 1)
        gate.open()
        assert not isinstance(await calls.result("m"), Exception)
        await settled(initializer)
