"""The seam that decides, beside the slots, which loads may start; and their priority."""

from typing import Any

import pytest
from anyio import create_task_group
from calls import Calls, does, error_of
from scenes import LIMIT, error_of_late

from anyload import Admission, Initializer, ModelConfig, Registry
from anyload.testing import FakeModel, Gate, returns_at_once, settled, until, waits_at


class Budget:
    """Admits so many loads at once, and writes down what it hears."""

    def __init__(self, room: int) -> None:
        self.room = room
        self.running = 0
        self.most = 0
        self.asked = 0
        self.heard: list[tuple[str, str]] = []

    def may_start(self, config: ModelConfig, size: int) -> bool:
        self.asked += 1
        return self.running < self.room

    def started(self, config: ModelConfig, size: int) -> None:
        self.running += 1
        self.most = max(self.most, self.running)
        self.heard.append(("started", config.module_id))

    def ended(self, config: ModelConfig, size: int) -> None:
        self.running -= 1
        self.heard.append(("ended", config.module_id))


class TestAdmission:
    async def test_beside_the_slots(self) -> None:
        """A load starts only when it is admitted; every start is followed by one end."""
        budget = Budget(1)
        assert isinstance(budget, Admission)
        registry = Registry()
        registry.module("m")(returns_at_once())
        async with Initializer(registry, admission=budget) as initializer:
            await initializer.init_many([ModelConfig("m") for _ in range(6)])
            assert budget.most == 1
            await settled(initializer)
            assert budget.heard == [("started", "m"), ("ended", "m")] * 6

    async def test_reconsider(self) -> None:
        """A refused load starts after reconsider, when the answer has changed."""
        budget = Budget(0)
        registry = Registry()
        registry.module("m")(returns_at_once())
        async with (
            Initializer(registry, admission=budget) as initializer,
            create_task_group() as tasks,
        ):
            calls = Calls(tasks)
            calls.start("m", initializer, ModelConfig("m"))
            await until(lambda: budget.asked > 0 and initializer.statistics().queued == 1)
            initializer.reconsider()
            assert "m" not in calls
            budget.room = 1
            initializer.reconsider()
            assert not isinstance(await calls.result("m"), Exception)
            await settled(initializer)

    async def test_hears_of_a_nested_load(self, gate: Gate) -> None:
        """A load inside another makes room when it ends, though its thread goes on with that."""
        inner, budget = Gate(), Budget(2)

        def nests(config: ModelConfig) -> None:
            initializer.init_sync(ModelConfig("inner"))
            gate.enter()

        registry = Registry()
        registry.module("outer")(does(nests))
        registry.module("inner")(waits_at(inner))
        registry.module("m")(returns_at_once())
        async with (
            Initializer(registry, admission=budget) as initializer,
            create_task_group() as tasks,
        ):
            calls = Calls(tasks)
            calls.start("outer", initializer, ModelConfig("outer"))
            await inner.entered()
            asked = budget.asked
            calls.start("m", initializer, ModelConfig("m"))
            await until(lambda: budget.asked > asked)
            inner.open()
            assert not isinstance(await calls.result("m"), Exception)
            gate.open()
            await calls.result("outer")
            await settled(initializer)

    async def test_a_refused_load_lets_others_by(self) -> None:
        """A load that is refused keeps neither its slot nor its place from others."""

        class OnlySmall(Budget):
            def may_start(self, config: ModelConfig, size: int) -> bool:
                self.asked += 1
                return config.module_id == "small" or self.room > 1

        budget = OnlySmall(1)
        registry = Registry()
        registry.module("large")(returns_at_once())
        registry.module("small")(returns_at_once())
        async with (
            Initializer(registry, max_concurrent_loads=1, admission=budget) as initializer,
            create_task_group() as tasks,
        ):
            calls = Calls(tasks)
            calls.start("large", initializer, ModelConfig("large"), priority=9)
            await until(lambda: budget.asked > 0)
            await initializer.init(ModelConfig("small"))
            assert "large" not in calls
            budget.room = 2
            initializer.reconsider()
            assert not isinstance(await calls.result("large"), Exception)
            await settled(initializer)

    async def test_hears_of_failures(self) -> None:
        """A load that fails has ended too."""

        def fails(config: ModelConfig) -> None:
            raise ValueError("no")

        budget = Budget(1)
        registry = Registry()
        registry.module("m")(does(fails))
        async with Initializer(registry, admission=budget) as initializer:
            await error_of(initializer, ModelConfig("m"))
            await settled(initializer)
            assert budget.heard == [("started", "m"), ("ended", "m")]

    async def test_hears_of_an_abandoned_load_once(self) -> None:
        """A load that is abandoned has one start and one end."""
        gate, budget = Gate(), Budget(2)
        registry = Registry()
        registry.module("m")(waits_at(gate))
        backends = [{"type": "LOCAL", "timeout": LIMIT}]
        async with Initializer(
            registry, admission=budget, backend_priority=backends
        ) as initializer:
            await error_of_late(initializer, ModelConfig("m"), gate)
            gate.open()
            await settled(initializer)
            assert budget.heard == [("started", "m"), ("ended", "m")]

    async def test_that_cannot_say(self, gate: Gate, caplog: pytest.LogCaptureFixture) -> None:
        """A may_start that raises is logged and is a no; the load that has just ended is a load."""

        class Unreadable(Budget):
            problems: list[Exception] = []  # noqa: RUF012  # there is one of these

            def may_start(self, config: ModelConfig, size: int) -> bool:
                if self.problems:
                    raise self.problems.pop()
                return super().may_start(config, size)

        budget = Unreadable(1)
        registry = Registry()
        registry.module("m")(waits_at(gate))
        async with (
            Initializer(registry, max_concurrent_loads=1, admission=budget) as initializer,
            create_task_group() as tasks,
        ):
            calls = Calls(tasks)
            calls.start("first", initializer, ModelConfig("m"))
            await gate.entered()
            calls.start("second", initializer, ModelConfig("m"))
            await until(lambda: initializer.statistics().queued == 1)
            budget.problems.append(OSError("no budget file"))
            gate.open()
            assert isinstance(await calls.result("first"), FakeModel)
            await until(lambda: bool(caplog.records))
            assert "admission.may_start raised OSError: no budget file" in caplog.text
            assert initializer.statistics().queued == 1
            initializer.reconsider()
            assert isinstance(await calls.result("second"), FakeModel)
            await settled(initializer)
            assert gate.count == 2
        assert budget.heard == [("started", "m"), ("ended", "m")] * 2

    async def test_that_cannot_listen(self, caplog: pytest.LogCaptureFixture) -> None:
        """A started or ended that raises is logged, and costs neither the load nor its slot."""

        class Deaf(Budget):
            def started(self, config: ModelConfig, size: int) -> None:
                raise OSError("not now")

            def ended(self, config: ModelConfig, size: int) -> None:
                raise OSError("not now")

        registry = Registry()
        registry.module("m")(returns_at_once())
        async with Initializer(registry, max_concurrent_loads=1, admission=Deaf(1)) as initializer:
            for _ in range(2):
                assert isinstance(await initializer.init(ModelConfig("m")), FakeModel)
            await settled(initializer)
        for method in ("started", "ended"):
            assert caplog.text.count(f"admission.{method} raised OSError: not now") == 2

    async def test_does_not_hold_up_a_nested_load(self) -> None:
        """A nested load needs no admission of its own: its parent has been admitted."""
        budget = Budget(1)
        registry = Registry()
        registry.module("outer")(does(lambda config: initializer.init_sync(ModelConfig("inner"))))
        registry.module("inner")(returns_at_once())
        async with Initializer(registry, admission=budget) as initializer:
            await initializer.init(ModelConfig("outer"))
            await settled(initializer)
            assert [event for event, _ in budget.heard] == ["started"] * 2 + ["ended"] * 2


class TestPriority:
    async def start(
        self, initializer: Initializer, gate: Gate, calls: Calls, *loads: tuple[str, int]
    ) -> None:
        """Hold the only slot, and queue loads in this order."""
        calls.start("busy", initializer, ModelConfig("busy"))
        await gate.entered()
        for number, (name, priority) in enumerate(loads, 1):
            config = ModelConfig("m", None, name=name)
            calls.start(name, initializer, config, key=name, priority=priority)
            await until(lambda number=number: initializer.statistics().queued == number)  # type: ignore[misc]

    def registry(self, gate: Gate, order: list[Any]) -> Registry:
        registry = Registry()
        registry.module("busy")(waits_at(gate))
        registry.module("m")(does(lambda config: order.append(config["name"])))
        return registry

    async def test_order(self) -> None:
        """Higher priorities start first; equal ones in the order in which they came."""
        gate, order = Gate(), list[Any]()
        async with (
            Initializer(self.registry(gate, order), max_concurrent_loads=1) as initializer,
            create_task_group() as tasks,
        ):
            calls = Calls(tasks)
            loads = (("low", -1), ("first", 0), ("second", 0), ("high", 5))
            await self.start(initializer, gate, calls, *loads)
            gate.open()
            await settled(initializer)
            assert order == ["high", "first", "second", "low"]

    async def test_a_joiner_raises_it(self) -> None:
        """Who joins a queued load with a higher priority brings it forward."""
        gate, order = Gate(), list[Any]()
        async with (
            Initializer(self.registry(gate, order), max_concurrent_loads=1) as initializer,
            create_task_group() as tasks,
        ):
            calls = Calls(tasks)
            await self.start(initializer, gate, calls, ("a", 1), ("b", 1), ("c", 0))
            calls.start(
                "joiner", initializer, ModelConfig("m", None, name="c"), key="c", priority=7
            )
            await until(lambda: initializer.statistics().waiters == 5)
            gate.open()
            await settled(initializer)
            assert order == ["c", "a", "b"]
            assert await calls.result("joiner") is await calls.result("c")

    async def test_a_joiner_never_lowers_it(self) -> None:
        """Who joins with a lower priority leaves the load where it stands."""
        gate, order = Gate(), list[Any]()
        async with (
            Initializer(self.registry(gate, order), max_concurrent_loads=1) as initializer,
            create_task_group() as tasks,
        ):
            calls = Calls(tasks)
            await self.start(initializer, gate, calls, ("a", 1), ("b", 2))
            calls.start(
                "joiner", initializer, ModelConfig("m", None, name="b"), key="b", priority=-7
            )
            await until(lambda: initializer.statistics().waiters == 4)
            gate.open()
            await settled(initializer)
            assert order == ["b", "a"]
