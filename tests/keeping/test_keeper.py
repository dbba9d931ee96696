"""What the keeper decides where the order of things matters: single steps, without threads."""

from __future__ import annotations

import gc
import math
from typing import Any

import pytest
from played_loads import Asker, World

from anyload.errors import (
    ClosedError,
    LoadError,
    MemoryBudgetError,
    ModelUnavailableError,
    QueueFullError,
)


def world(cpu: int = 10, **options: Any) -> World:
    """Return a world with models a to d, of 1 to 4 bytes, and e of all there is."""
    made = World({"cpu": cpu}, **options)
    for size, name in enumerate("abcd", 1):
        made.add(name, memory=size)
    made.add("e", memory=cpu)
    return made


class TestRank:
    def test_the_first_takes_the_room(self) -> None:
        """Room that is made for one is not taken by one behind it, however small."""
        w = world(4)
        w.load("b")
        first = w.ask("d")
        assert not w.start(w.order("d"))  # b goes for it
        assert list(w.loads.releasing)
        small = w.ask("a")
        assert not w.start(w.order("a"))  # it would fit, into what d expects
        w.release(next(iter(w.loads.releasing)))
        assert not w.start(w.order("a"))
        assert w.start(w.order("d"))
        assert first.waits
        assert small.waits
        w.check()

    def test_one_behind_passes_where_the_first_waits_for_leases(self) -> None:
        """Who waits for leases holds nothing back."""
        w = world(4)
        holder = w.ask("a")
        assert w.start(w.order("a"))
        w.land(w.order("a"))
        assert holder.granted
        w.ask("d")
        assert not w.start(w.order("d"))
        w.ask("b")
        assert w.start(w.order("b"))
        w.check()

    def test_one_behind_evicts_nobody(self) -> None:
        """Who is behind one that waits does not evict: what is idle is for the first."""
        w = world(6)
        holder = w.ask("c")
        assert w.start(w.order("c"))
        w.land(w.order("c"))
        w.load("b")
        assert holder.granted
        e = w.ask("e")
        assert not w.start(w.order("e"))
        w.ask("d")
        assert not w.start(w.order("d"))
        assert not w.loads.releasing
        assert "others are before it" in w.order("d").version.life.reason
        w.leave(holder)
        assert len(w.loads.releasing) == 2
        w.run_out()
        w.leave(e)
        w.run_out()
        assert w.house.counts.loads == 4

    def test_one_behind_passes_once_something_is_on_its_way_out(self) -> None:
        """What goes by itself is as good as free for the first: one behind need not wait for it."""
        w = World({"cpu": 10})
        for name, memory in {"x": 3, "y": 3, "i": 1, "first": 6, "second": 4, "last": 1}.items():
            w.add(name, keep_alive=5.0 if name == "i" else math.inf, memory=memory)
        w.ask("x")
        w.start(w.order("x"))
        w.land(w.order("x"))
        w.load("y")
        w.load("i")
        for name in ("first", "second", "last"):
            w.ask(name)
            assert not w.start(w.order(name))
        asked = w.loads.asked_again
        w.pass_time(5.0)  # "y" is on its way out for the first already, and now "i" goes too
        assert w.loads.asked_again > asked
        assert w.start(w.order("last"))

    def test_priority_goes_first(self) -> None:
        """A higher priority has the room though it came later; a joiner raises it."""
        w = world(4)
        holder = w.ask("d")
        assert w.start(w.order("d"))
        w.land(w.order("d"))
        w.ask("c")
        assert not w.start(w.order("c"))
        w.ask("b", priority=1)
        assert not w.start(w.order("b"))
        w.leave(holder)
        w.release(next(iter(w.loads.releasing)))
        w.ask("c", priority=2)
        assert w.loads.hastened == [w.order("c")]
        assert w.start(w.order("c"))
        assert not w.start(w.order("b"))

    def test_an_urgent_one_is_first_at_once(self) -> None:
        """Who comes with a higher priority takes what one of a lower one expects."""
        w = world(4)
        w.load("d")
        w.ask("c")
        assert not w.start(w.order("c"))
        w.release(next(iter(w.loads.releasing)))
        w.ask("b", priority=1)
        assert w.start(w.order("b"))
        assert not w.start(w.order("c"))

    def test_a_preload_waits_for_what_is_under_way(self) -> None:
        """A preload is refused only when nothing is under way that could make room."""
        w = world(4)
        first, second = w.preload("d"), w.preload("a")
        assert w.start(w.order("d"))
        assert not w.start(w.order("a"))
        assert w.phase(second) == "waiting"
        w.fail(w.order("d"))
        assert w.phase(first) == "failed"
        assert w.start(w.order("a"))
        w.land(w.order("a"))
        w.preload("e")
        assert not w.start(w.order("e"))
        assert isinstance(w.house.tables.entries["e"].current.error, MemoryBudgetError)

    def test_asked_for_again_as_a_preload(self) -> None:
        """A request that is preloaded too goes on when nobody asks for it any more."""
        w = world()
        one = w.ask("a")
        version = w.preload("a")
        w.leave(one)
        assert w.phase(version) == "queued"
        assert w.preload("a") is version
        w.start(w.order("a"))
        w.land(w.order("a"))
        assert w.preload("a") is version


class TestAttempts:
    def test_memory_between_two(self) -> None:
        """Between two attempts a load keeps what it has; nobody else gets it."""
        w = world(4)
        w.ask("d")
        order = w.order("d")
        assert w.start(order)
        w.next_attempt(order)
        assert w.budget.used("cpu") == 4
        w.ask("a")
        assert not w.start(w.order("a"))
        assert w.start(order)
        w.land(order)
        w.check()

    def test_a_lost_thread_counts(self) -> None:
        """A thread that is past its limit holds its memory until it leaves, beside the next one."""
        w = world(4)
        w.ask("c")
        order = w.order("c")
        assert w.start(order)
        w.lose(order)
        assert not w.start(order)  # 3 and 3 are more than 4
        assert w.phase(order.version) == "waiting"
        w.leave_thread(order)
        assert w.start(order)
        w.lose(order)
        w.fail(order, LoadError("c", "m"))
        assert w.budget.used("cpu") == 3
        w.leave_thread(order)
        assert w.budget.used("cpu") == 0

    def test_a_late_model_takes_its_share_with_it(self) -> None:
        """The next attempt waits until the model of a lost one is gone, or has room beside it."""
        w = World({"cpu": 10})
        w.add("a", memory=6)
        asker = w.ask("a")
        order = w.order("a")
        assert w.start(order)
        w.lose(order)
        late = w.come_late(order)
        assert w.budget.used("cpu") == 6
        assert not w.start(order)
        w.leave(asker)  # it has begun: it runs to its end all the same
        assert w.phase(order.version) == "waiting"
        w.late_is_gone(late)
        assert w.budget.used("cpu") == 0
        assert w.start(order)
        w.land(order)
        assert w.budget.used("cpu") == 6

    def test_a_load_that_has_begun_is_not_refused(self) -> None:
        """A load that lost a thread waits for memory past memory_timeout: it has limits."""
        w = world(4, memory_timeout=5.0)
        w.ask("c")
        order = w.order("c")
        assert w.start(order)
        w.lose(order)
        assert not w.start(order)
        w.pass_time(10.0)
        assert w.phase(order.version) == "waiting"
        w.run_out()
        assert w.phase(order.version) == "active"

    def test_memory_timeout(self) -> None:
        """A load gets no more than its time to wait for memory, and says what for."""
        w = world(4, memory_timeout=5.0)
        holder = w.ask("d")
        w.start(w.order("d"))
        w.land(w.order("d"))
        late = w.ask("a")
        assert not w.start(w.order("a"))
        w.pass_time(4.0)
        assert late.waits
        w.pass_time(1.0)
        assert late.failure is not None
        error = late.failure()
        assert isinstance(error, MemoryBudgetError)
        assert "it got none in 5 s; waits for memory: 1 B of cpu missing" in str(error)
        assert "'d' is leased (4 B)" in str(error)
        assert w.house.tables.entries["a"].failures.error is None  # it may be asked for at once
        assert holder.granted

    def test_larger_than_thought(self) -> None:
        """A model that turns out larger than its estimate has idle ones go for what is over."""
        w = world(6)
        w.load("c")
        w.pass_time(1.0)
        w.load("b")
        w.ask("a")
        order = w.order("a")
        assert w.start(order)
        w.land(order, memory=3)
        assert [version.life.model for version in w.loads.releasing] == ["c"]
        assert w.house.counts.evictions == 1
        assert w.house.tables.entries["a"].measured == {0: {"cpu": 3}}

    def test_after_memory_ran_out(self) -> None:
        """The second try waits until everything idle is gone, and there is no third."""
        w = World({})
        w.add("a", memory=1)
        w.add("b", memory=1)
        w.add("elsewhere", memory={"cuda:0": 1})
        a, other = w.load("a"), w.load("elsewhere")
        asker = w.ask("b")
        w.start(w.order("b"))
        w.fail(w.order("b"), MemoryError())
        assert w.phase(a) == "releasing"
        assert w.phase(other) == "active"
        assert not w.start(w.order("b"))
        assert w.order("b").version.life.reason.endswith("others are on their way out")
        w.release(a)
        assert w.start(w.order("b"))
        assert asker.waits
        w.fail(w.order("b"), MemoryError())
        assert asker.failure is not None

    def test_no_less_than_declared(self) -> None:
        """A model that says less than the operator has declared counts as that was declared."""
        w = World({"cpu": 10, "cuda:0": 10})
        w.add("a", memory={"cpu": 2, "cuda:0": 3}, device="cuda:0")
        w.ask("a")
        w.start(w.order("a"))
        w.land(w.order("a"), memory=1)
        assert w.house.tables.entries["a"].current.sizes == {"cpu": 2, "cuda:0": 3}

    def test_without_a_size(self) -> None:
        """What is not declared is as large as its files, and counts on its device."""
        w = World({"cuda:0": 10})
        w.add("a", device="cuda:0")
        w.ask("a")
        assert w.start(w.order("a"), size=7)
        assert w.budget.used("cuda:0") == 7
        w.land(w.order("a"), memory=5)
        assert w.budget.used("cuda:0") == 5

    def test_declared_by_device(self) -> None:
        """A model may count on several devices at once."""
        w = World({"cpu": 4, "cuda:0": 4})
        w.add("a", memory={"cpu": 1, "cuda:0": 3})
        w.add("b", memory={"cuda:0": 2})
        w.load("a")
        w.ask("b")
        assert not w.start(w.order("b"))
        w.run_out()
        assert w.budget.used("cuda:0") == 2

    def test_room_on_another_device(self) -> None:
        """Who waits on one device keeps nobody from evicting on another."""
        w = World({"cpu": 4, "cuda:0": 4})
        for name, device in (("a", "cpu"), ("b", "cpu"), ("c", "cuda:0"), ("d", "cuda:0")):
            w.add(name, memory={device: 3})
        w.ask("a")
        w.start(w.order("a"))
        w.land(w.order("a"))
        w.load("c")
        w.ask("b")
        w.ask("d")
        assert not w.start(w.order("b"))
        assert not w.start(w.order("d"))
        assert [version.life.model for version in w.loads.releasing] == ["c"]

    def test_a_success_forgets(self) -> None:
        """After a model has loaded, a failure of it is the first one again."""
        w = world()
        entry = w.house.tables.entries["a"]
        waits = []
        for fails in (True, True, False, True):
            w.ask("a")
            w.start(w.order("a"))
            if fails:
                w.fail(w.order("a"))
                waits.append(entry.failures.retry_after(w.now))
                w.pass_time(100.0)
            else:
                w.land(w.order("a"))
                w.unload("a")
        assert waits == [1.0, 2.0, 1.0]


class TestStay:
    def test_minimum_stay(self) -> None:
        """A model that has just come is not evicted; who needs its room gets it a moment later."""
        w = world(4, minimum_stay=10.0)
        w.load("d")
        w.pass_time(4.0)
        w.ask("a")
        assert not w.start(w.order("a"))
        assert "'d' is new (4 B)" in w.order("a").version.life.reason
        assert not w.loads.releasing
        w.pass_time(6.0)
        w.release(next(iter(w.loads.releasing)))
        assert w.start(w.order("a"))

    def test_dry_run(self) -> None:
        """plan() says what would go, and lets nothing go."""
        w = world(6)
        w.load("c")
        w.pass_time(1.0)
        w.load("b")
        assert w.rooms.plan({"cpu": 1}).victims == ()
        plan = w.rooms.plan({"cpu": 3})
        assert plan.victims == ("c",)
        assert plan.freed == {"cpu": 3}
        assert w.rooms.plan({"cpu": 7}).reason.startswith("6 B of cpu missing")
        assert not w.loads.releasing

    def test_keep_alive_and_pins(self) -> None:
        """A pin holds a model past its keep-alive; without it the keep-alive begins anew."""
        w = World({})
        entry = w.add("a", 5.0)
        version = w.load("a")
        entry.pinned = True
        w.pass_time(6.0)
        assert w.phase(version) == "active"
        with w.step() as todo:
            w.keeper.unpin(entry, todo)
        w.pass_time(4.0)
        assert w.phase(version) == "active"
        w.pass_time(1.0)
        assert w.phase(version) == "releasing"
        with w.step() as todo:
            w.keeper.unpin(entry, todo)


class TestSwaps:
    def test_overtaken(self) -> None:
        """A swap during a swap takes the place of it."""
        w = world()
        old = w.load("a")
        second = w.swap("a")
        third = w.swap("a")
        assert w.phase(second) == "unloaded"
        w.start(w.order("a"))
        fourth = w.swap("a")
        begun = third.order
        assert begun is not None
        w.land(begun)
        assert w.phase(third) == "releasing"
        assert w.phase(old) == "active"
        w.start(w.order("a"))
        w.land(w.order("a"))
        assert w.house.tables.entries["a"].current is fourth
        assert w.phase(old) == "releasing"

    def test_while_it_loads(self) -> None:
        """A new version may overtake the one that is loading, which then is not used."""
        w = world()
        one = w.ask("a")
        first = w.order("a")
        w.start(first)
        version = w.swap("a")
        second = version.order
        assert second is not None
        w.start(second)
        w.land(second)
        assert one.granted is version
        w.land(first)
        assert w.phase(first.version) == "releasing"
        w.check()

    def test_what_the_old_one_holds_says_nothing_of_the_new_one(self) -> None:
        """One that lands after the catalogue has changed is no measure of what is there now."""
        w = World({"cpu": 20})
        w.add("a", memory=4)
        w.ask("a")
        old = w.order("a")
        w.start(old)
        new = w.swap("a", memory=6).order
        assert new is not None
        w.land(old)
        assert w.start(new)
        assert w.budget.used("cpu") == 10

    def test_the_first_fails(self) -> None:
        """If the one that is loading fails, who waits gets the new version."""
        w = world()
        one = w.ask("a")
        first = w.order("a")
        version = w.swap("a")
        w.start(first)
        w.fail(first)
        assert one.waits
        w.start(w.order("a"))
        w.land(w.order("a"))
        assert one.granted is version

    def test_of_what_failed(self) -> None:
        """A swap of what failed forgets that."""
        w = world()
        w.ask("a")
        w.start(w.order("a"))
        w.fail(w.order("a"))
        assert isinstance(w.ask("a").refused, ModelUnavailableError)
        w.swap("a")
        assert w.ask("a").waits

    def test_recreate_waits_for_leases(self) -> None:
        """Where the old one goes first, its leases are waited for; who asks gets the new one."""
        w = world(recreate=True)
        old = w.ask("e")
        w.start(w.order("e"))
        w.land(w.order("e"))
        version = w.swap("e")
        assert not w.start(w.order("e"))
        assert old.granted is not None
        assert w.phase(old.granted) == "draining"
        assert w.order("e").version.life.reason.startswith("waits for memory")
        late = w.ask("e")
        assert late.waits
        w.leave(old)
        w.run_out()
        assert late.granted is version

    def test_an_overtaken_one_fails(self) -> None:
        """What comes of a version that was overtaken is nobody's loss."""
        w = world()
        w.load("a")
        second = w.swap("a")
        w.start(w.order("a"))
        third = w.swap("a")
        assert second.order is not None
        w.fail(second.order)
        assert w.phase(second) == "failed"
        w.start(w.order("a"))
        w.land(w.order("a"))
        assert w.house.tables.entries["a"].current is third


class TestQueue:
    def test_how_long(self) -> None:
        """A refused request is told how long the loads before it are likely to take."""
        w = world(max_queued=2)
        w.load("a", load_seconds=6.0)
        w.ask("b")
        w.ask("c")
        refused = w.ask("d").refused
        assert isinstance(refused, QueueFullError)
        assert refused.retry_after == 6.0 * 3 / 2
        assert "2 models wait to be loaded; try again in 9 s" in str(refused)
        assert w.ask("a").granted


class TestEnds:
    def test_left_twice(self) -> None:
        """Leaving is once: a second time does nothing."""
        w = world()
        one, other = w.ask("a"), w.ask("a")
        w.leave(one)
        w.leave(one)
        assert w.phase(w.order("a").version) == "queued"
        w.leave(other)
        assert not w.loads.queued
        w.leave(Asker("a"))

    def test_close_while_it_loads(self) -> None:
        """What lands after a close is released; what fails then is not tried again."""
        w = world()
        a, b = w.ask("a"), w.ask("b")
        w.start(w.order("a"))
        first, second = w.order("a"), w.order("b")
        w.start(second)
        w.close()
        for one in (a, b):
            assert one.failure is not None
            assert isinstance(one.failure(), ClosedError)
        assert isinstance(w.ask("a").refused, ClosedError)
        with pytest.raises(ClosedError):
            w.preload("a")
        with pytest.raises(ClosedError):
            w.swap("a")
        w.land(first)
        assert w.phase(first.version) == "releasing"
        w.fail(second, MemoryError())
        assert w.phase(second.version) == "failed"
        w.run_out()
        assert len(w.budget) == 0

    def test_fork(self) -> None:
        """A forked child has what is loaded, and none of the loads and releases under way."""
        w = world()
        w.load("a")
        w.load("b")
        w.ask("c")
        w.start(w.order("c"))
        w.ask("e")
        assert not w.start(w.order("e"))
        w.swap("a")
        w.unload("b")
        gc.disable()
        with w.process.lock:
            w.keeper.after_fork()
        gc.enable()
        tables = w.house.tables
        assert not tables.orders
        assert not tables.releasing
        assert w.budget.used("cpu") == 1
        assert tables.entries["c"].current.life.reason == "the process forked while it was loading"
        assert w.ask("a").granted
        w.loads.queued.clear()
        assert w.ask("c").waits
        assert w.start(w.order("c"))
