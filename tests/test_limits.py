"""Limits of a load: what its callers get, what becomes of its thread, slot and late result."""

import logging
import time
from typing import Any

import pytest
from anyio import create_task_group
from calls import Calls, arrived, does, error_of, of_type, two_backends
from scenes import LIMIT, Caller, Clock, error_of_late, let_pass

from anyload import (
    BulkLoadError,
    Initializer,
    LoadError,
    LoadTimeoutError,
    ModelConfig,
    Registry,
    SaturatedError,
    report_progress,
)
from anyload.events import Abandoned, Discarded, Loaded, Started, ThreadEnded
from anyload.testing import Gate, at_rest, reports, returns_at_once, settled, until, waits_at

SHORT = 0.05


def local(**options: Any) -> list[dict[str, Any]]:
    return [{"type": "LOCAL", **options}]


def gpu_then_local(**gpu_options: Any) -> list[dict[str, Any]]:
    return [{"type": "GPU", **gpu_options}, {"type": "LOCAL"}]


def outcomes(error: LoadError) -> list[tuple[str, str]]:
    return [(attempt.backend, attempt.outcome) for attempt in error.attempts]


class TestTimeout:
    async def test_the_next_backend_loads(self) -> None:
        """An attempt past its timeout is abandoned and the next backend loads the model."""
        gate, events = Gate(), list[Any]()
        registry = two_backends()
        stuck = registry.module("m", "GPU")(does(lambda config: gate.enter()))
        quick = registry.module("m")(returns_at_once())
        backends = gpu_then_local(timeout=LIMIT)
        async with (
            Initializer(registry, backend_priority=backends, hooks=[events.append]) as initializer,
            create_task_group() as tasks,
        ):
            caller = Caller(tasks, initializer, ModelConfig("m"))
            await gate.entered()
            let_pass(initializer, 2 * LIMIT)
            model = await caller.result()
            assert isinstance(model, quick)
            assert initializer.statistics().abandoned == 1
            loaded = await arrived(Loaded, events)
            assert [a.outcome for a in loaded.report.attempts] == ["timed_out", "loaded"]
            late = loaded.report.attempts[0]
            assert "; its thread is still running, in " in late.reason
            assert "testing.py" in late.stack
            gate.open()
            await settled(initializer)
            # The late result was released once, and the one in use never.
            assert [made.released for made in stuck.made] == [1]
            assert model.released == 0
            assert initializer.statistics().discarded == 1
            for kind in (Abandoned, ThreadEnded, Discarded):
                await arrived(kind, events)
            assert len(of_type(Abandoned, events)) == 1
            assert len(of_type(ThreadEnded, events)) == 1
            assert len(of_type(Discarded, events)) == 1
            assert len(of_type(Loaded, events)) == 1

    async def test_no_backend_is_left(self) -> None:
        """The last backend past its timeout is a LoadError that says where its thread is."""
        gate = Gate()
        registry = Registry()
        registry.module("m")(waits_at(gate))
        async with Initializer(registry, backend_priority=local(timeout=LIMIT)) as initializer:
            error = await error_of_late(initializer, ModelConfig("m"), gate)
            assert type(error) is LoadError
            assert outcomes(error) == [("LOCAL", "timed_out")]
            assert "still running" in str(error)
            gate.open()
            await settled(initializer)

    async def test_the_slot_serves_the_next_load(self) -> None:
        """The only slot serves another model while an abandoned thread runs on."""
        gate = Gate()
        registry = Registry()
        registry.module("stuck")(waits_at(gate))
        registry.module("quick")(returns_at_once())
        async with (
            Initializer(
                registry, max_concurrent_loads=1, backend_priority=local(timeout=LIMIT)
            ) as initializer,
            create_task_group() as tasks,
        ):
            calls = Calls(tasks)
            calls.start("stuck", initializer, ModelConfig("stuck"))
            await gate.entered()
            calls.start("quick", initializer, ModelConfig("quick"))
            await until(lambda: initializer.statistics().queued == 1)
            let_pass(initializer, 2 * LIMIT)
            assert not isinstance(await calls.result("quick"), Exception)
            assert isinstance(await calls.result("stuck"), LoadError)
            assert initializer.statistics().abandoned == 1
            gate.open()
            await settled(initializer)

    async def test_queueing_does_not_count(self) -> None:
        """The timeout of an attempt starts when the load starts, not when it queues."""
        gate = Gate()
        registry = two_backends()
        registry.module("first", "GPU")(waits_at(gate))
        registry.module("second")(returns_at_once())
        backends = [{"type": "GPU"}, {"type": "LOCAL", "timeout": LIMIT}]
        async with (
            Initializer(registry, max_concurrent_loads=1, backend_priority=backends) as initializer,
            create_task_group() as tasks,
        ):
            clock, calls = Clock(initializer), Calls(tasks)
            calls.start("first", initializer, ModelConfig("first"))
            await gate.entered()
            calls.start("second", initializer, ModelConfig("second"))
            await until(lambda: initializer.statistics().queued == 1)
            clock.forward(2 * LIMIT)
            gate.open()
            assert not isinstance(await calls.result("second"), Exception)
            await settled(initializer)

    async def test_a_late_error_is_reported(self) -> None:
        """What an abandoned thread raises in the end is in its ThreadEnded event."""
        gate, events = Gate(), list[Any]()

        def raises_late(config: ModelConfig) -> None:
            gate.enter()
            raise ValueError("too late")

        registry = Registry()
        registry.module("m")(does(raises_late))
        async with Initializer(
            registry, backend_priority=local(timeout=LIMIT), hooks=[events.append]
        ) as initializer:
            await error_of_late(initializer, ModelConfig("m"), gate)
            gate.open()
            await settled(initializer)
            ended = await arrived(ThreadEnded, events)
            assert ended.error == "ValueError: too late"
            assert ended.age > 0


class TestTakingTheSlotOver:
    async def test_after_a_timeout(self) -> None:
        """The next attempt of a load that timed out goes before what is queued."""
        gate, order = Gate(), list[str]()
        registry = two_backends()
        registry.module("m", "GPU")(waits_at(gate))
        registry.module("m")(does(lambda config: order.append("m")))
        registry.module("other")(does(lambda config: order.append("other")))
        async with (
            Initializer(
                registry, max_concurrent_loads=1, backend_priority=gpu_then_local(timeout=LIMIT)
            ) as initializer,
            create_task_group() as tasks,
        ):
            calls = Calls(tasks)
            calls.start("m", initializer, ModelConfig("m"))
            await gate.entered()
            calls.start("other", initializer, ModelConfig("other"), priority=5)
            await until(lambda: initializer.statistics().queued == 1)
            let_pass(initializer, 2 * LIMIT)
            await calls.result("m")
            await calls.result("other")
            assert order == ["m", "other"]
            gate.open()
            await settled(initializer)

    async def test_after_an_error(self) -> None:
        """The next attempt of a load that raised goes before what is queued."""
        gate, order = Gate(), list[str]()

        def fails(config: ModelConfig) -> None:
            gate.enter()
            raise ValueError("no")

        registry = two_backends()
        registry.module("m", "GPU")(does(fails))
        registry.module("m")(does(lambda config: order.append("m")))
        registry.module("other")(does(lambda config: order.append("other")))
        async with (
            Initializer(
                registry, max_concurrent_loads=1, backend_priority=gpu_then_local()
            ) as initializer,
            create_task_group() as tasks,
        ):
            calls = Calls(tasks)
            calls.start("m", initializer, ModelConfig("m"))
            await gate.entered()
            calls.start("other", initializer, ModelConfig("other"), priority=5)
            await until(lambda: initializer.statistics().queued == 1)
            gate.open()
            await calls.result("other")
            assert order == ["m", "other"]
            await settled(initializer)


class TestStallTimeout:
    async def test_silence_after_a_report(self) -> None:
        """A load that reported once and then is silent for stall_timeout has stalled."""
        gate = Gate()
        registry = Registry()
        registry.module("m")(reports(gate))
        async with Initializer(
            registry, backend_priority=local(stall_timeout=SHORT)
        ) as initializer:
            gate.let_through()
            error = await error_of(initializer, ModelConfig("m"))
            assert outcomes(error) == [("LOCAL", "stalled")]
            assert error.attempts[0].reason.startswith("silent for 50 ms")
            gate.open()
            await settled(initializer)

    async def test_no_report_no_stall(self) -> None:
        """A load that never reported cannot stall."""
        gate = Gate()
        registry = Registry()
        registry.module("m")(waits_at(gate))
        async with (
            Initializer(registry, backend_priority=local(stall_timeout=LIMIT)) as initializer,
            create_task_group() as tasks,
        ):
            clock, calls = Clock(initializer), Calls(tasks)
            calls.start("m", initializer, ModelConfig("m"))
            await gate.entered()
            clock.forward(3 * LIMIT)
            gate.open()
            assert not isinstance(await calls.result("m"), Exception)
            await settled(initializer)

    async def test_reports_keep_it_alive(self) -> None:
        """A load that reports is healthy for longer than stall_timeout."""
        gate = Gate()
        registry = Registry()
        registry.module("m")(reports(gate, steps=6))
        async with (
            Initializer(registry, backend_priority=local(stall_timeout=LIMIT)) as initializer,
            create_task_group() as tasks,
        ):
            clock, calls = Clock(initializer), Calls(tasks)
            calls.start("m", initializer, ModelConfig("m"))
            for step in range(1, 7):
                await gate.entered(step)
                clock.forward(0.7 * LIMIT)
                gate.let_through()
            assert not isinstance(await calls.result("m"), Exception)
            await settled(initializer)

    async def test_reports_do_not_extend_the_timeout(self) -> None:
        """A load that reports past its timeout is timed out, and told so by its next report."""
        reporting, events = Gate(open=True), list[Any]()

        def reports_on(config: ModelConfig) -> None:
            while True:
                report_progress(stage="still there")
                reporting.enter()
                time.sleep(0.001)

        registry = Registry()
        registry.module("m")(does(reports_on))
        async with Initializer(
            registry,
            backend_priority=local(timeout=LIMIT, stall_timeout=10 * LIMIT),
            hooks=[events.append],
        ) as initializer:
            error = await error_of_late(initializer, ModelConfig("m"), reporting)
            assert outcomes(error) == [("LOCAL", "timed_out")]
            await settled(initializer)
            assert "no longer wanted" in (await arrived(ThreadEnded, events)).error


class TestLoadTimeout:
    async def test_covers_the_queue(self) -> None:
        """A load that is still queued at load_timeout ends without having started."""
        gate, events = Gate(), list[Any]()
        registry = Registry()
        registry.module("m")(waits_at(gate, exclusive_group="limits"))
        async with (
            Initializer(registry) as holder,
            Initializer(registry, load_timeout=SHORT, hooks=[events.append]) as initializer,
            create_task_group() as tasks,
        ):
            calls = Calls(tasks)
            calls.start("holder", holder, ModelConfig("m"))
            await gate.entered()
            error = await error_of(initializer, ModelConfig("m"))
            assert type(error) is LoadTimeoutError
            assert not isinstance(error, TimeoutError)
            assert error.limit == SHORT
            assert error.attempts == ()
            gate.open()
            await calls.result("holder")
            assert of_type(Started, events) == []
            await settled(initializer)
            await settled(holder)

    async def test_covers_all_attempts(self) -> None:
        """load_timeout ends the load in its second attempt, and no third one starts."""
        gate = Gate()
        registry = two_backends()

        def fails(config: ModelConfig) -> None:
            raise ValueError("no")

        registry.module("m", "GPU")(does(fails))
        registry.module("m")(waits_at(gate))
        backends = [{"type": "GPU"}, {"type": "LOCAL"}, {"type": "GPU"}]
        async with (
            Initializer(registry, load_timeout=60.0, backend_priority=backends) as initializer,
            create_task_group() as tasks,
        ):
            calls = Calls(tasks)
            calls.start("caller", initializer, ModelConfig("m"))
            await gate.entered()
            let_pass(initializer, 60.0)
            error = await calls.result("caller")
            assert type(error) is LoadTimeoutError
            assert outcomes(error) == [("GPU", "raised"), ("LOCAL", "timed_out")]
            assert "load_timeout, 60 s, passed" in error.attempts[1].reason
            assert initializer.statistics().abandoned == 1
            gate.open()
            await settled(initializer)

    async def test_a_joiner_shares_the_clock(self) -> None:
        """Who joins late ends with the load that it joined, by an error of its own."""
        gate = Gate()
        registry = Registry()
        registry.module("m")(waits_at(gate))
        async with (
            Initializer(registry, load_timeout=LIMIT) as initializer,
            create_task_group() as tasks,
        ):
            clock, calls = Clock(initializer), Calls(tasks)
            calls.start("first", initializer, ModelConfig("m"), key="shared")
            await gate.entered()
            clock.forward(0.6 * LIMIT)
            calls.start("second", initializer, ModelConfig("m"), key="shared")
            await until(lambda: initializer.statistics().waiters == 2)
            clock.forward(0.9 * LIMIT)
            first, second = await calls.result("first"), await calls.result("second")
            assert type(first) is type(second) is LoadTimeoutError
            assert first is not second
            assert gate.count == 1
            gate.open()
            await settled(initializer)

    async def test_of_a_load_that_nobody_waits_for(self, gate: Gate) -> None:
        """It takes the thread off the slot; the load was cancelled and has not failed."""
        registry = Registry()
        registry.module("m")(waits_at(gate))
        async with Initializer(registry, load_timeout=LIMIT) as initializer:
            async with create_task_group() as tasks:
                caller = Caller(tasks, initializer, ModelConfig("m"))
                await gate.entered()
                await caller.cancel()
            let_pass(initializer, 2 * LIMIT)
            statistics = initializer.statistics()
            assert (statistics.abandoned, statistics.cancelled, statistics.failed) == (1, 1, 0)
            gate.open()
            await settled(initializer)


class TestOverdue:
    async def test_at_the_cap(self) -> None:
        """Beyond max_abandoned_loads a late load ends for its callers and keeps its slot."""
        gate = Gate()
        registry = two_backends()
        registry.module("stuck", "GPU")(waits_at(gate))
        quick = registry.module("stuck")(does(lambda config: None))
        registry.module("quick")(returns_at_once())
        async with (
            Initializer(
                registry,
                max_concurrent_loads=2,
                max_abandoned_loads=1,
                backend_priority=gpu_then_local(timeout=LIMIT),
            ) as initializer,
            create_task_group() as tasks,
        ):
            caller = Caller(tasks, initializer, ModelConfig("stuck"))
            await gate.entered()
            let_pass(initializer, 2 * LIMIT)
            # Abandoned: its fallback runs on the slot.
            assert isinstance(await caller.result(), quick)
            # Overdue: no other backend may start while it is on its slot.
            error = await error_of_late(initializer, ModelConfig("stuck"), gate)
            assert type(error) is LoadError
            assert outcomes(error) == [("GPU", "timed_out")]
            figures = initializer.statistics()
            assert (figures.abandoned, figures.overdue, figures.running) == (1, 1, 0)
            assert (figures.free_slots, figures.flights) == (1, 0)
            await initializer.init(ModelConfig("quick"))
            # The abandoned thread ends: the overdue one takes its place, and its slot is free.
            gate.let_through()
            await until(lambda: initializer.statistics().free_slots == 2)
            await until(lambda: gate.inside == 1)
            figures = initializer.statistics()
            assert (figures.abandoned, figures.overdue) in ((1, 0), (0, 0))
            gate.open()
            await settled(initializer)
            assert initializer.statistics().discarded == 2

    async def test_no_thread_is_abandoned(self) -> None:
        """With max_abandoned_loads=0 a late load keeps its slot until its thread ends."""
        gate = Gate()
        registry = two_backends()
        registry.module("stuck", "GPU")(waits_at(gate))
        registry.module("stuck")(returns_at_once())
        async with Initializer(
            registry,
            max_concurrent_loads=2,
            max_abandoned_loads=0,
            backend_priority=gpu_then_local(timeout=LIMIT),
        ) as initializer:
            error = await error_of_late(initializer, ModelConfig("stuck"), gate)
            assert outcomes(error) == [("GPU", "timed_out")]
            figures = initializer.statistics()
            assert (figures.abandoned, figures.overdue, figures.free_slots) == (0, 1, 1)
            gate.open()
            await settled(initializer)

    async def test_its_model_is_loaded_again_only_when_it_has_left(self) -> None:
        """A new load of the model of an overdue thread waits until that thread has left."""
        gate = Gate()
        registry = two_backends()
        registry.module("m", "GPU")(waits_at(gate))
        async with (
            Initializer(
                registry,
                max_concurrent_loads=2,
                max_abandoned_loads=0,
                backend_priority=gpu_then_local(timeout=LIMIT),
            ) as initializer,
            create_task_group() as tasks,
        ):
            await error_of_late(initializer, ModelConfig("m"), gate, key="m")
            calls = Calls(tasks)
            calls.start("again", initializer, ModelConfig("m"), key="m")
            await until(lambda: initializer.statistics().queued == 1)
            assert gate.inside == 1
            gate.open()
            assert not isinstance(await calls.result("again"), Exception)
            assert gate.most_inside == 1
            await settled(initializer)


class TestSaturated:
    async def test_new_and_queued_loads_fail_at_once(self) -> None:
        """With every slot overdue, loads fail naming the stuck ones, and recover with them."""
        gate = Gate()
        registry = Registry()
        registry.module("stuck")(waits_at(gate))
        registry.module("quick")(returns_at_once())
        async with (
            Initializer(
                registry,
                max_concurrent_loads=1,
                max_abandoned_loads=0,
                backend_priority=local(timeout=LIMIT),
            ) as initializer,
            create_task_group() as tasks,
        ):
            clock, calls = Clock(initializer), Calls(tasks)
            calls.start("stuck", initializer, ModelConfig("stuck"))
            await gate.entered()
            calls.start("queued", initializer, ModelConfig("quick"))
            await until(lambda: initializer.statistics().queued == 1)
            clock.forward(2 * LIMIT)
            assert type(await calls.result("stuck")) is LoadError
            queued = await calls.result("queued")
            new = await error_of(initializer, ModelConfig("quick"))
            for error in (queued, new):
                assert type(error) is SaturatedError
                (load,) = error.stuck
                assert (load.model, load.backend, load.abandoned) == ("stuck", "LOCAL", False)
                assert load.age >= 2 * LIMIT
                assert "'stuck' on LOCAL, overdue, running for " in str(error)
                assert ", in " in str(error)
            gate.open()
            await until(lambda: at_rest(initializer.statistics()))
            await initializer.init(ModelConfig("quick"))
            await settled(initializer)

    async def test_a_free_slot_is_enough(self) -> None:
        """One slot that is not overdue keeps loads waiting instead of failing."""
        gate, healthy = Gate(), Gate()
        registry = two_backends()
        registry.module("stuck", "GPU")(waits_at(gate))
        registry.module("healthy")(waits_at(healthy))
        async with (
            Initializer(
                registry,
                max_concurrent_loads=2,
                max_abandoned_loads=0,
                backend_priority=gpu_then_local(timeout=LIMIT),
            ) as initializer,
            create_task_group() as tasks,
        ):
            calls = Calls(tasks)
            await error_of_late(initializer, ModelConfig("stuck"), gate)
            calls.start("one", initializer, ModelConfig("healthy"))
            await healthy.entered()
            calls.start("two", initializer, ModelConfig("healthy"))
            await until(lambda: initializer.statistics().queued == 1)
            healthy.open()
            for name in ("one", "two"):
                assert not isinstance(await calls.result(name), Exception)
            gate.open()
            await settled(initializer)


class TestRelease:
    async def test_that_raises(self, caplog: pytest.LogCaptureFixture) -> None:
        """A release that raises is logged, and nothing else comes of it."""
        gate = Gate()
        registry = Registry()

        def fails(model: object) -> None:
            raise ValueError("cannot let go")

        registry.module("m")(waits_at(gate, release=fails))
        async with Initializer(registry, backend_priority=local(timeout=LIMIT)) as initializer:
            with caplog.at_level(logging.ERROR, "anyload"):
                await error_of_late(initializer, ModelConfig("m"), gate)
                gate.open()
                await settled(initializer)
            assert "release of 'm' raised" in caplog.text
            assert initializer.statistics().discarded == 1

    async def test_that_hangs(self) -> None:
        """A release past release_timeout counts as abandoned, until it comes back."""
        gate, releasing = Gate(), Gate()
        registry = Registry()
        registry.module("m")(waits_at(gate, release=lambda model: releasing.enter()))
        registry.module("quick")(returns_at_once())
        async with Initializer(
            registry,
            max_concurrent_loads=1,
            backend_priority=local(timeout=LIMIT),
            release_timeout=SHORT,
        ) as initializer:
            await error_of_late(initializer, ModelConfig("m"), gate)
            gate.open()
            await releasing.entered()
            await until(lambda: initializer.statistics().abandoned == 1)
            await initializer.init(ModelConfig("quick"))
            releasing.open()
            await settled(initializer)
            assert releasing.count == 1

    async def test_no_more_at_once_than_loads(self, gate: Gate) -> None:
        """However many models are discarded together, few are released at once, in few threads."""
        registry = Registry()
        registry.module("m")(returns_at_once(release=lambda model: gate.enter()))
        async with Initializer(registry, max_concurrent_loads=2) as initializer:
            async with initializer.init_each([ModelConfig("m") for _ in range(50)]):
                await until(lambda: initializer.statistics().loaded == 50)
            await gate.entered(2)
            for number in range(3, 51):
                gate.let_through()
                await gate.entered(number)
                assert initializer.statistics().threads <= 4
            gate.open()
            await settled(initializer)
            assert initializer.statistics().discarded == 50
        assert (gate.count, gate.most_inside) == (50, 2)

    async def test_makes_room_for_an_overdue_load_when_it_ends(self) -> None:
        """A thread that leaves its release makes room for one that is overdue."""
        hang, load = Gate(), Gate()
        registry = Registry()
        registry.module("d")(returns_at_once(release=lambda model: hang.enter()))
        registry.module("h")(waits_at(load))
        quick = registry.module("m")(returns_at_once())
        async with Initializer(
            registry,
            backend_priority=local(timeout=LIMIT),
            max_concurrent_loads=1,
            max_abandoned_loads=1,
            release_timeout=LIMIT,
        ) as initializer:
            with pytest.raises(BulkLoadError):
                # The failure leaves the other model, which has landed or will, to be released.
                await initializer.init_many([ModelConfig("d"), ModelConfig("absent")])
            async with initializer.init_each([ModelConfig("d")]):
                await until(lambda: initializer.statistics().loaded == 2)
            await hang.entered()
            let_pass(initializer, 2 * LIMIT)
            assert initializer.statistics().abandoned == 1
            error = await error_of_late(initializer, ModelConfig("h"), load)
            assert isinstance(error, LoadError)
            assert initializer.statistics().overdue == 1
            hang.open()
            await until(lambda: initializer.statistics().overdue == 0)
            assert isinstance(await initializer.init(ModelConfig("m")), quick)
            load.open()
            await settled(initializer)
