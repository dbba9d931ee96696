"""The keeper is driven through random histories, with every promise checked after each step.

``MODEL_RUNS`` histories of ``MODEL_STEPS`` steps each; ``make torture`` plays many of them.
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TypeVar

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from played_loads import World, places_of

from anyload.errors import ClosedError, ModelNotFoundError, ModelUnavailableError

T = TypeVar("T")

NAMES = ("a", "b", "c", "d", "e", "f", "g", "h")
SIZES = {"a": 1, "b": 2, "c": 3, "d": 4, "e": 5, "f": 6, "g": 0, "h": 11}

RUNS = int(os.environ.get("MODEL_RUNS", "150"))
STEPS = int(os.environ.get("MODEL_STEPS", "60"))

picks = st.integers(0, 63)
names = st.sampled_from(NAMES)


def pick(things: list[T], number: int) -> T:
    return things[number % len(things)]


class Histories(RuleBasedStateMachine):
    """What callers and threads may do, in any order."""

    world: World

    @initialize(
        policy=st.sampled_from(["lru", "cost", "largest"]),
        stay=st.sampled_from([0.0, 0.0, 3.0]),
        timeout=st.sampled_from([None, None, 20.0]),
        recreate=st.booleans(),
        max_queued=st.sampled_from([None, 3]),
    )
    def begin(
        self,
        policy: str,
        stay: float,
        timeout: float | None,
        recreate: bool,
        max_queued: int | None,
    ) -> None:
        self.world = World(
            {"cpu": 10},
            policy=policy,  # type: ignore[arg-type]
            minimum_stay=stay,
            memory_timeout=timeout,
            recreate=recreate,
            max_queued=max_queued,
        )
        for name in NAMES:
            keep_alive = {"b": 5.0, "c": 0.0}.get(name, float("inf"))
            upgrade = name in "abce"
            self.world.add(name, keep_alive, memory=SIZES[name], pin=name == "d", upgrade=upgrade)

    @rule(name=names, priority=st.integers(-1, 2))
    def ask(self, name: str, priority: int) -> None:
        self.world.ask(name, priority)

    @rule(name=names)
    def preload(self, name: str) -> None:
        with suppress(ModelUnavailableError, ClosedError):
            self.world.preload(name)

    @precondition(lambda self: self.world.askers)
    @rule(number=picks)
    def leave(self, number: int) -> None:
        self.world.leave(pick(self.world.askers, number))

    @precondition(lambda self: self.world.loads.queued)
    @rule(number=picks)
    def start(self, number: int) -> None:
        self.world.start(pick(list(self.world.loads.queued), number))

    @precondition(lambda self: self.world.loads.running)
    @rule(
        number=picks,
        memory=st.sampled_from([None, None, 0, 1]),
        place=st.integers(0, 2),
        failed=st.booleans(),
    )
    def land(self, number: int, memory: int | None, place: int, failed: bool) -> None:
        order = pick(list(self.world.loads.running), number)
        need = (order.need or {}).get("cpu", 0)
        observed = None if memory is None else min(memory, need)
        place = pick(places_of(order), place)
        self.world.land(order, observed, place=place, failed=failed)

    @precondition(lambda self: self.world.loads.running)
    @rule(number=picks)
    def go_on(self, number: int) -> None:
        self.world.go_on(pick(list(self.world.loads.running), number))

    @precondition(lambda self: self.world.loads.running)
    @rule(number=picks)
    def end(self, number: int) -> None:
        self.world.end(pick(list(self.world.loads.running), number))

    @precondition(lambda self: self.world.loads.landing)
    @rule(number=picks)
    def land_late(self, number: int) -> None:
        self.world.land(pick(list(self.world.loads.landing), number))

    @precondition(lambda self: self.world.loads.running)
    @rule(
        number=picks,
        error=st.sampled_from(
            [ValueError("broken"), MemoryError(), ModelNotFoundError("m", "gone")]
        ),
    )
    def fail(self, number: int, error: BaseException) -> None:
        self.world.fail(pick(list(self.world.loads.running), number), error)

    @precondition(lambda self: any(not order.begun for order in self.world.loads.queued))
    @rule(number=picks)
    def fail_at_once(self, number: int) -> None:
        orders = [order for order in self.world.loads.queued if not order.begun]
        self.world.fail(pick(orders, number), ModelNotFoundError("m", "gone"))

    @precondition(lambda self: self.world.loads.running)
    @rule(number=picks, lost=st.booleans())
    def next_attempt(self, number: int, lost: bool) -> None:
        order = pick(list(self.world.loads.running), number)
        if lost:
            self.world.lose(order)
        else:
            self.world.next_attempt(order)

    @precondition(lambda self: self.world.loads.lost)
    @rule(number=picks)
    def leave_thread(self, number: int) -> None:
        self.world.leave_thread(pick(self.world.loads.lost, number))

    @precondition(lambda self: self.world.loads.lost)
    @rule(number=picks)
    def come_late(self, number: int) -> None:
        self.world.come_late(pick(self.world.loads.lost, number))

    @precondition(lambda self: self.world.loads.late)
    @rule(number=picks)
    def late_is_gone(self, number: int) -> None:
        self.world.late_is_gone(pick(list(self.world.loads.late), number))

    @precondition(lambda self: self.world.loads.releasing)
    @rule(number=picks)
    def release(self, number: int) -> None:
        self.world.release(pick(list(self.world.loads.releasing), number))

    @rule(name=names)
    def unload(self, name: str) -> None:
        self.world.unload(name)

    @rule(name=names)
    def swap(self, name: str) -> None:
        with suppress(ClosedError):
            self.world.swap(name)

    @precondition(lambda self: any(asker.granted for asker in self.world.askers))
    @rule(number=picks)
    def report(self, number: int) -> None:
        granted = [asker.granted for asker in self.world.askers if asker.granted]
        version = pick(granted, number)
        served = version.entry.current is version and version.ready
        assert self.world.report(version) is served
        assert not version.ready

    @rule(name=names)
    def unpin(self, name: str) -> None:
        with self.world.step() as todo:
            self.world.keeper.unpin(self.world.house.tables.entries[name], todo)

    @rule()
    def refuse_one(self) -> None:
        """The next load cannot begin."""
        self.world.loads.refusing = 1

    @rule(seconds=st.sampled_from([0.5, 2.0, 10.0]))
    def pass_time(self, seconds: float) -> None:
        self.world.pass_time(seconds)

    @precondition(lambda self: len(self.world.askers) > 8)
    @rule()
    def close(self) -> None:
        self.world.close()

    @invariant()
    def promises(self) -> None:
        if hasattr(self, "world"):
            self.world.check()

    def teardown(self) -> None:
        if not hasattr(self, "world"):
            return
        world = self.world
        # Whoever holds a lease uses it and gives it back: then nobody may be left waiting.
        for _ in range(20):
            world.run_out()
            world.pass_time(100.0)
            for asker in world.askers:
                if asker.granted:
                    assert asker.granted.value.released == 0
                    world.leave(asker)
        assert not any(asker.waits for asker in world.askers)
        world.close()
        world.run_out()
        tables = world.house.tables
        assert not [*tables.active, *tables.draining, *tables.releasing, *tables.orders]
        assert len(world.budget) == 0
        counts = world.house.counts
        assert counts.loads == counts.releases == world.loads.loaded
        assert counts.upgrades + counts.reported <= counts.releases


TestHistories = Histories.TestCase
TestHistories.settings = settings(max_examples=RUNS, stateful_step_count=STEPS)
