"""Exclusive groups and the lane of holds_gil: loads that must not overlap in the process."""

from typing import Any

from anyio import create_task_group
from calls import Calls, does, error_of, two_backends
from scenes import LIMIT, Clock, error_of_late, error_of_queued, let_pass

from anyload import Backend, Initializer, LoadError, ModelConfig, Registry
from anyload.testing import PATIENCE, Gate, returns_at_once, settled, until, waits_at

GROUP = "group-of-the-tests"


class Tpu(Backend):
    """A third backend."""

    backend_type = "TPU"


def local(**options: Any) -> list[dict[str, Any]]:
    return [{"type": "LOCAL", **options}]


def waiting_in(gate: Gate, **attributes: Any) -> Registry:
    """A registry with a module of the group that waits at the gate, and one of no group."""
    registry = Registry()
    registry.module("m")(waits_at(gate, exclusive_group=GROUP, **attributes))
    registry.module("free")(returns_at_once())
    return registry


async def abandon(initializer: Initializer, gate: Gate) -> None:
    """Leave a thread behind that holds the group."""
    seen = gate.count
    error = await error_of_late(initializer, ModelConfig("m"), gate)
    assert error.attempts[0].outcome == "timed_out"
    assert gate.count == seen + 1
    assert initializer.statistics().abandoned == 1


class TestGroup:
    async def test_never_overlaps_across_initializers(self) -> None:
        """Loads of one group run one at a time, whichever initializer they are in."""
        gate = Gate()
        registry = waiting_in(gate)
        async with Initializer(registry) as one, Initializer(registry) as other:
            async with create_task_group() as tasks:
                for _ in range(3):
                    tasks.start_soon(one.init, ModelConfig("m"))
                    tasks.start_soon(other.init, ModelConfig("m"))
                for number in range(1, 7):
                    await gate.entered(number)
                    await until(lambda: one.statistics().flights + other.statistics().flights > 0)
                    assert one.statistics().running + other.statistics().running == 1
                    gate.let_through()
            assert gate.most_inside == 1
            assert gate.count == 6
            await settled(one)
            await settled(other)

    async def test_waiting_takes_no_slot(self) -> None:
        """A load that waits for its group leaves the only slot to others."""
        gate = Gate()
        registry = waiting_in(gate)
        async with (
            Initializer(registry) as holder,
            Initializer(registry, max_concurrent_loads=1) as initializer,
            create_task_group() as tasks,
        ):
            calls = Calls(tasks)
            calls.start("holder", holder, ModelConfig("m"))
            await gate.entered()
            calls.start("waits", initializer, ModelConfig("m"))
            await until(lambda: initializer.statistics().queued == 1)
            await initializer.init(ModelConfig("free"))
            assert "waits" not in calls
            gate.open()
            await calls.result("waits")
            await settled(initializer)
            await settled(holder)

    async def test_two_groups_overlap(self) -> None:
        """Loads of different groups run at the same time."""
        gate = Gate()
        registry = Registry()
        registry.module("a")(waits_at(gate, exclusive_group="a"))
        registry.module("b")(waits_at(gate, exclusive_group="b"))
        async with Initializer(registry) as initializer, create_task_group() as tasks:
            tasks.start_soon(initializer.init, ModelConfig("a"))
            tasks.start_soon(initializer.init, ModelConfig("b"))
            await until(lambda: gate.inside == 2)
            gate.open()
            await settled(initializer)

    async def test_waiting_for_a_healthy_load_is_no_limit(self) -> None:
        """Time spent waiting for a load within its limits does not count against the timeout."""
        gate = Gate()
        registry = waiting_in(gate)
        async with (
            Initializer(registry) as holder,
            Initializer(registry, backend_priority=local(timeout=LIMIT)) as initializer,
            create_task_group() as tasks,
        ):
            clock, calls = Clock(initializer), Calls(tasks)
            calls.start("holder", holder, ModelConfig("m"))
            await gate.entered()
            calls.start("waits", initializer, ModelConfig("m"))
            await until(lambda: initializer.statistics().queued == 1)
            clock.forward(2 * LIMIT)
            assert initializer.statistics().queued == 1
            assert "waits" not in calls
            gate.open()
            assert not isinstance(await calls.result("waits"), Exception)
            await settled(initializer)
            await settled(holder)

    async def test_the_release_of_a_discarded_model_holds_it(self) -> None:
        """A load waits while a discarded model of its group is released."""
        gate, releasing = Gate(), Gate()
        registry = waiting_in(gate, release=lambda model: releasing.enter())
        async with (
            Initializer(registry, backend_priority=local(timeout=LIMIT)) as initializer,
            create_task_group() as tasks,
        ):
            await abandon(initializer, gate)
            gate.let_through()
            await releasing.entered()
            calls = Calls(tasks)
            calls.start("next", initializer, ModelConfig("m"))
            await until(lambda: initializer.statistics().queued == 1)
            assert gate.count == 1
            gate.open()
            releasing.open()
            assert not isinstance(await calls.result("next"), Exception)
            await settled(initializer)


class TestGroupOfAStuckThread:
    async def test_is_held_until_the_thread_ends(self) -> None:
        """An abandoned thread keeps its group; who waits for it starts when it has left."""
        gate = Gate()
        registry = waiting_in(gate)
        async with Initializer(registry, backend_priority=local(timeout=LIMIT)) as first:
            await abandon(first, gate)
            async with (
                Initializer(registry, backend_priority=local(timeout=30.0)) as other,
                create_task_group() as tasks,
            ):
                calls = Calls(tasks)
                calls.start("waits", other, ModelConfig("m"))
                await until(lambda: other.statistics().queued == 1)
                await other.init(ModelConfig("free"))
                assert gate.count == 1
                gate.open()
                assert not isinstance(await calls.result("waits"), Exception)
                assert gate.most_inside == 1
                await settled(other)
            await settled(first)

    async def test_waiting_counts_and_names_the_holder(self) -> None:
        """Waiting for a stuck holder for the attempt's timeout is `timed_out`, with its name."""
        gate = Gate()
        registry = waiting_in(gate)
        async with (
            Initializer(registry, backend_priority=local(timeout=LIMIT)) as initializer,
            create_task_group() as tasks,
        ):
            clock, calls = Clock(initializer), Calls(tasks)
            await abandon(initializer, gate)
            calls.start("waits", initializer, ModelConfig("m"))
            await until(lambda: initializer.statistics().queued == 1)
            clock.forward(LIMIT)
            error = await calls.result("waits")
            assert type(error) is LoadError
            (attempt,) = error.attempts
            assert attempt.outcome == "timed_out"
            assert LIMIT <= attempt.queue_seconds < LIMIT + PATIENCE
            assert attempt.load_seconds is None
            assert attempt.reason == (
                "waited for the load of 'm' on LOCAL, which is past its limit and still running"
            )
            assert gate.count == 1
            gate.open()
            await settled(initializer)

    async def test_what_was_waited_is_taken_off_the_timeout(self) -> None:
        """The load has what is left of its timeout after it waited for a stuck holder."""
        gate = Gate()
        registry = waiting_in(gate)
        async with (
            Initializer(registry, backend_priority=local(timeout=LIMIT)) as first,
            Initializer(registry, backend_priority=local(timeout=LIMIT)) as other,
            create_task_group() as tasks,
        ):
            clock, calls = Clock(other), Calls(tasks)
            await abandon(first, gate)
            calls.start("waits", other, ModelConfig("m"))
            await until(lambda: other.statistics().queued == 1)
            clock.forward(0.6 * LIMIT)
            gate.let_through()
            await gate.entered(2)
            clock.forward(0.6 * LIMIT)
            error = await calls.result("waits")
            (attempt,) = error.attempts
            assert attempt.outcome == "timed_out"
            assert attempt.load_seconds < 0.8 * LIMIT
            gate.open()
            await settled(other)
            await settled(first)

    async def test_no_limit_fails_at_once(self) -> None:
        """Without a timeout, a load does not wait for a stuck holder at all."""
        gate = Gate()
        registry = waiting_in(gate)
        async with (
            Initializer(registry, backend_priority=local(timeout=LIMIT)) as first,
            Initializer(registry) as other,
        ):
            await abandon(first, gate)
            error = await error_of(other, ModelConfig("m"))
            assert error.attempts[0].outcome == "timed_out"
            assert "the load of 'm' on LOCAL" in error.attempts[0].reason
            assert error.attempts[0].reason.endswith("there is no timeout to wait for it with")
            await other.init(ModelConfig("free"))
            gate.open()
            await settled(first)
            await other.init(ModelConfig("m"))
            await settled(other)

    async def test_no_limit_fails_once_the_holder_is_stuck(self) -> None:
        """Who queues without a timeout ends when the holder it waits for is abandoned."""
        gate = Gate()
        registry = waiting_in(gate)
        async with (
            Initializer(registry, backend_priority=local(timeout=LIMIT)) as first,
            Initializer(registry) as other,
            create_task_group() as tasks,
        ):
            calls = Calls(tasks)
            calls.start("holder", first, ModelConfig("m"))
            await gate.entered()
            calls.start("waits", other, ModelConfig("m"))
            await until(lambda: other.statistics().queued == 1)
            let_pass(first, 2 * LIMIT)
            assert isinstance(await calls.result("waits"), LoadError)
            gate.open()
            await settled(first)
            await settled(other)

    async def test_again_in_the_same_lane(self) -> None:
        """A second holder that gets stuck is noticed like the first one."""
        gate = Gate()
        registry = waiting_in(gate)
        async with (
            Initializer(registry, backend_priority=local(timeout=LIMIT)) as first,
            Initializer(registry) as other,
            create_task_group() as tasks,
        ):
            calls = Calls(tasks)
            for number in (1, 2):
                calls.start(f"holder {number}", first, ModelConfig("m"))
                await gate.entered(number)
                calls.start(f"waits {number}", other, ModelConfig("m"))
                await until(lambda: other.statistics().queued == 1)
                let_pass(first, 2 * LIMIT)
                assert isinstance(await calls.result(f"waits {number}"), LoadError)
                gate.let_through()
                await settled(first)
            await settled(other)

    async def test_the_clock_stops_when_the_thread_ends(self) -> None:
        """Who then waits for a healthy load of the group is no longer on the clock."""
        gate = Gate()
        registry = two_backends()
        registry.module("m")(waits_at(gate, exclusive_group=GROUP))
        registry.module("long", "GPU")(waits_at(gate, exclusive_group=GROUP))
        backends = [{"type": "GPU", "timeout": 10 * LIMIT}, {"type": "LOCAL", "timeout": LIMIT}]
        async with (
            Initializer(registry, backend_priority=local(timeout=LIMIT)) as first,
            Initializer(registry, backend_priority=backends) as other,
            create_task_group() as tasks,
        ):
            clock, calls = Clock(other), Calls(tasks)
            await abandon(first, gate)
            calls.start("long", other, ModelConfig("long"), priority=1)
            await until(lambda: other.statistics().queued == 1)
            calls.start("waits", other, ModelConfig("m"))
            await until(lambda: other.statistics().queued == 2)
            gate.let_through()
            await gate.entered(2)
            assert other.statistics().queued == 1
            clock.forward(2 * LIMIT)
            assert other.statistics().queued == 1
            assert "waits" not in calls
            gate.open()
            for name in ("long", "waits"):
                assert not isinstance(await calls.result(name), Exception)
            await settled(first)
            await settled(other)

    async def test_the_fallback_in_the_same_group(self) -> None:
        """A fallback in the group of its own abandoned attempt waits for that thread."""
        gate = Gate()
        registry = two_backends()
        registry.module("m", "GPU")(waits_at(gate, exclusive_group=GROUP))
        registry.module("m")(returns_at_once(exclusive_group=GROUP))
        backends = [{"type": "GPU", "timeout": LIMIT}, {"type": "LOCAL", "timeout": 10 * LIMIT}]
        async with (
            Initializer(registry, backend_priority=backends) as initializer,
            create_task_group() as tasks,
        ):
            calls = Calls(tasks)
            calls.start("m", initializer, ModelConfig("m"))
            await gate.entered()
            let_pass(initializer, 2 * LIMIT)
            assert initializer.statistics().abandoned == 1
            assert initializer.statistics().queued == 1
            gate.open()
            assert not isinstance(await calls.result("m"), Exception)
            await settled(initializer)

    async def test_an_overdue_holder(self) -> None:
        """A thread that is overdue on its slot keeps its group as an abandoned one does."""
        gate = Gate()
        registry = waiting_in(gate)
        async with Initializer(
            registry,
            backend_priority=local(timeout=LIMIT),
            max_concurrent_loads=2,
            max_abandoned_loads=0,
        ) as initializer:
            await error_of_late(initializer, ModelConfig("m"), gate)
            assert initializer.statistics().overdue == 1
            error = await error_of_queued(initializer, ModelConfig("m"))
            assert "the load of 'm' on LOCAL" in error.attempts[0].reason
            assert gate.count == 1
            await initializer.init(ModelConfig("free"))
            gate.open()
            await settled(initializer)


class TestHoldsGil:
    async def test_one_at_a_time(self) -> None:
        """Loads that hold the GIL run one at a time in the process; others run beside them."""
        gate = Gate()
        registry = Registry()
        registry.module("a")(waits_at(gate, holds_gil=True))
        registry.module("b")(waits_at(gate, holds_gil=True, exclusive_group=GROUP))
        registry.module("free")(returns_at_once())
        async with (
            Initializer(registry) as one,
            Initializer(registry) as other,
            create_task_group() as tasks,
        ):
            tasks.start_soon(one.init, ModelConfig("a"))
            tasks.start_soon(one.init, ModelConfig("b"))
            tasks.start_soon(other.init, ModelConfig("a"))
            await gate.entered()
            await other.init(ModelConfig("free"))
            for number in (1, 2, 3):
                await gate.entered(number)
                gate.let_through()
            await settled(one)
            await settled(other)
            assert gate.most_inside == 1

    async def test_is_freed_on_abandonment(self) -> None:
        """Unlike a group, the lane goes on when the thread in it is abandoned."""
        gate = Gate()
        registry = two_backends()
        registry.module("m", "GPU")(waits_at(gate, holds_gil=True))
        registry.module("m")(returns_at_once(holds_gil=True))
        registry.module("next")(does(lambda config: None, holds_gil=True))
        backends = [{"type": "GPU", "timeout": LIMIT}, {"type": "LOCAL"}]
        async with (
            Initializer(registry, backend_priority=backends) as initializer,
            Initializer(registry) as other,
            create_task_group() as tasks,
        ):
            calls = Calls(tasks)
            calls.start("m", initializer, ModelConfig("m"))
            await gate.entered()
            calls.start("next", other, ModelConfig("next"))
            await until(lambda: other.statistics().queued == 1)
            let_pass(initializer, 2 * LIMIT)
            assert not isinstance(await calls.result("next"), Exception)
            assert not isinstance(await calls.result("m"), Exception)
            assert initializer.statistics().abandoned == 1
            gate.open()
            await settled(initializer)
            await settled(other)


async def test_a_fallback_keeps_its_turn_whoever_else_waits_for_the_group() -> None:
    """A backend that a stuck group bars is passed at once, and the next one has the slot."""
    gate, order = Gate(), list[str]()
    registry = two_backends()
    registry.backend_type(Tpu)
    registry.module("m", "GPU")(waits_at(gate, exclusive_group=GROUP))
    registry.module("m", "TPU")(returns_at_once(exclusive_group=GROUP))
    registry.module("m")(does(lambda config: order.append("the fallback")))
    registry.module("waits", "TPU")(returns_at_once(exclusive_group=GROUP))
    registry.module("urgent")(does(lambda config: order.append("the urgent one")))
    priority = [{"type": "GPU", "timeout": LIMIT}, {"type": "TPU"}, {"type": "LOCAL"}]
    async with (
        Initializer(registry, backend_priority=priority, max_concurrent_loads=1) as initializer,
        create_task_group() as tasks,
    ):
        calls = Calls(tasks)
        calls.start("m", initializer, ModelConfig("m"))
        await gate.entered()
        calls.start("waits", initializer, ModelConfig("waits"))
        calls.start("urgent", initializer, ModelConfig("urgent"), priority=10)
        await until(lambda: initializer.statistics().queued == 2)
        let_pass(initializer, 2 * LIMIT)
        await until(lambda: len(order) == 2)
        assert order == ["the fallback", "the urgent one"]
        gate.open()
        await settled(initializer)
