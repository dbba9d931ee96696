"""Which backend a model is on: the decisions, in single steps, without threads."""

from __future__ import annotations

from typing import Any

import pytest
from played_loads import World, skipped_all

from anyload._keeping.left_out import LeftOut
from anyload._keeping.records import Version
from anyload.errors import ClosedError, MemoryBudgetError, ModelNotFoundError, ModelUnavailableError


def world(cpu: int = 10, **options: Any) -> World:
    """Return a world with a model a, which is upgraded, and b, which is not; of 3 bytes each."""
    made = World({"cpu": cpu}, **options)
    made.add("a", memory=3, upgrade=True)
    made.add("b", memory=3)
    return made


def came_up(w: World, name: str, place: int, *, failed: bool = True) -> Version:
    """Load a model that nobody uses, on the backend at this place."""
    asker = w.ask(name)
    order = w.order(name)
    assert w.start(order)
    w.land(order, place=place, failed=failed)
    version = asker.granted
    assert version is not None
    w.leave(asker)
    return version


class TestUpgrades:
    def test_behind_what_serves(self) -> None:
        """What came up on another backend serves at once; a better one takes over when it comes."""
        w = world()
        old = came_up(w, "a", 2)
        entry = old.entry
        user = w.ask("a")
        assert user.granted is old
        order = w.order("a")
        assert order.purpose == "upgrade"
        assert order.before == 2
        assert order.priority < 0
        assert w.start(order)
        assert w.ask("a").granted is old
        w.land(order, place=0)
        assert entry.current is not old
        assert entry.current.life.version == old.life.version
        assert w.phase(old) == "draining"
        assert old.life.reason == "upgraded to B0"
        assert w.ask("a").granted is entry.current
        assert w.house.counts.upgrades == 1
        assert entry.incoming is None
        w.check()

    def test_only_if_it_is_wanted(self) -> None:
        """Without ``upgrade`` a model stays on the backend that has loaded it."""
        w = world()
        version = came_up(w, "b", 2)
        w.pass_time(1000.0)
        assert not w.loads.queued
        assert version.probe is None

    def test_on_the_best(self) -> None:
        """Where there is nothing better, nothing is looked for."""
        w = world()
        version = came_up(w, "a", 0)
        w.pass_time(1000.0)
        assert not w.loads.queued
        assert version.probe is None

    def test_what_was_not_tried(self) -> None:
        """A better backend that could not be tried at all is tried when its time has come."""
        w = world()
        version = came_up(w, "a", 1, failed=False)
        assert not w.loads.queued
        w.pass_time(49.0)
        assert not w.loads.queued
        w.pass_time(1.0)
        order = w.order("a")
        assert w.start(order)
        w.land(order)
        assert w.phase(version) == "releasing"

    def test_one_that_fails(self) -> None:
        """An upgrade that fails leaves what serves, is not remembered, and comes again later."""
        w = world()
        version = came_up(w, "a", 1)
        for _ in range(2):
            order = w.order("a")
            assert w.start(order)
            w.fail(order)
            assert version.entry.current is version
            assert version.entry.incoming is None
            assert version.entry.failures.error is None
            assert not w.loads.queued
            w.check()
            w.pass_time(50.0)
        assert w.order("a").purpose == "upgrade"

    def test_one_that_cannot_begin(self) -> None:
        """Nor does one that cannot even begin change anything, and it comes again later."""
        w = world()
        user = w.ask("a")
        assert w.start(w.order("a"))
        w.loads.refusing = 2
        w.land(w.order("a"), place=1, failed=True)
        version = user.granted
        assert version is not None
        for _ in range(2):
            assert version.entry.current is version
            assert version.entry.incoming is None
            assert not w.loads.queued
            w.check()
            w.pass_time(50.0)
        assert w.order("a").purpose == "upgrade"

    def test_one_that_runs_out_of_memory(self) -> None:
        """Nothing is evicted for an upgrade that runs out of memory, and it has no second try."""
        w = world()
        other = came_up(w, "b", 0)
        came_up(w, "a", 1)
        order = w.order("a")
        assert w.start(order)
        w.fail(order, MemoryError())
        assert not w.loads.queued
        assert w.phase(other) == "active"

    def test_one_that_hangs(self) -> None:
        """While a thread hangs in a load of a model, no upgrade of it begins."""
        w = world()
        w.ask("a")
        order = w.order("a")
        assert w.start(order)
        w.lose(order)
        assert w.start(order)
        w.land(order, place=1)
        w.pass_time(50.0)
        assert not w.loads.queued
        w.leave_thread(order)
        w.pass_time(50.0)
        assert w.order("a").purpose == "upgrade"
        w.check()

    def test_step_by_step(self) -> None:
        """One that comes from an upgrade, and is not the best, is looked at later."""
        w = world()
        came_up(w, "a", 2)
        order = w.order("a")
        assert w.start(order)
        w.land(order, place=1)
        assert not w.loads.queued
        w.pass_time(50.0)
        assert w.order("a").before == 1

    def test_no_room_beside_it(self) -> None:
        """Where two do not fit nothing goes for an upgrade, whatever a swap would do."""
        w = world(4, recreate=True)
        version = came_up(w, "a", 1)
        order = w.order("a")
        assert not w.start(order)
        assert isinstance(order.version.error, MemoryBudgetError)
        assert w.phase(version) == "active"
        w.pass_time(50.0)
        assert w.order("a").purpose == "upgrade"

    def test_evicts_nobody(self) -> None:
        """What is idle does not go for an upgrade; when it has gone, the next try has its room."""
        w = world(7)
        came_up(w, "b", 0)
        came_up(w, "a", 1)
        order = w.order("a")
        assert not w.start(order)
        assert "an upgrade evicts nothing" in order.version.life.reason
        w.unload("b")
        w.run_out()
        w.pass_time(50.0)
        assert w.start(w.order("a"))

    def test_what_it_is_to_replace_goes(self) -> None:
        """An upgrade of what is unloaded, evicted or idle for its time is not loaded."""
        w = world(9)
        version = came_up(w, "a", 1)
        upgrade = w.order("a").version
        w.unload("a")
        assert not w.loads.queued
        assert w.phase(upgrade) == "unloaded"
        w.run_out()
        version = came_up(w, "a", 1)
        begun = w.order("a")
        assert w.start(begun)
        w.add("large", memory=6)
        w.ask("large")
        assert not w.start(w.order("large"))
        assert w.phase(version) == "releasing"
        assert version.entry.incoming is None
        w.land(begun, place=0)
        assert w.phase(begun.version) == "releasing"
        assert begun.version.life.reason == "what it was to replace has gone"
        w.run_out()
        w.check()

    def test_a_swap_goes_before(self) -> None:
        """A swap takes the place of an upgrade; while one is on, none begins."""
        w = world()
        came_up(w, "a", 1)
        upgrade = w.order("a").version
        swap = w.swap("a")
        assert w.phase(upgrade) == "unloaded"
        w.pass_time(50.0)
        assert w.order("a").purpose == "swap"
        w.start(w.order("a"))
        w.fail(w.order("a"))
        assert w.phase(swap) == "failed"
        assert not w.loads.queued
        w.pass_time(50.0)
        assert w.order("a").purpose == "upgrade"

    def test_a_swap_that_cannot_begin(self) -> None:
        """It has taken the place of an upgrade, which comes again later."""
        w = world()
        version = came_up(w, "a", 1)
        w.loads.refusing = 1
        with pytest.raises(ClosedError):
            w.swap("a")
        assert version.entry.current is version
        assert version.entry.incoming is None
        w.check()
        w.pass_time(50.0)
        assert w.order("a").purpose == "upgrade"

    def test_a_swap_to_what_wants_none(self) -> None:
        """While it is on, and where it fails, what serves is not looked at any more."""
        w = world(recreate=False)
        version = came_up(w, "a", 1, failed=False)
        w.swap("a", upgrade=False)
        w.pass_time(50.0)
        assert version.probe is not None
        assert version.probe.ring is None
        assert w.start(w.order("a"))
        w.fail(w.order("a"))
        w.check()
        w.pass_time(1000.0)
        assert version.entry.current is version
        assert not w.loads.queued

    def test_a_swap_that_is_on(self) -> None:
        """A look for a better backend waits until no other version is on its way."""
        w = world(recreate=False)
        version = came_up(w, "a", 1, failed=False)
        w.pass_time(40.0)
        w.swap("a")
        w.pass_time(10.0)
        assert w.order("a").purpose == "swap"
        assert version.probe is not None
        assert version.probe.at == 100.0

    def test_what_never_served_goes(self) -> None:
        """A load that a swap has overtaken does not take the upgrade along when it lands."""
        w = world()
        w.ask("a")
        overtaken = w.order("a")
        assert w.start(overtaken)
        w.swap("a")
        assert w.start(w.order("a"))
        w.end(overtaken)
        w.land(w.order("a"), place=1)
        upgrade = w.order("a")
        w.land(overtaken)
        assert w.phase(overtaken.version) == "releasing"
        assert w.order("a") is upgrade
        w.check()

    def test_another_size_there(self) -> None:
        """What a model held on another backend says nothing of what it will hold on this one."""
        w = World({"cpu": 100})
        w.add("a", upgrade=True)
        w.ask("a")
        assert w.start(w.order("a"), size=7)
        w.land(w.order("a"), memory=50, place=1)
        order = w.order("a")
        assert w.start(order, size=7)
        assert order.need == {"cpu": 7}
        w.land(order, memory=9)
        w.unload("a")
        w.run_out()
        w.ask("a")
        assert w.start(w.order("a"), size=7)
        assert w.order("a").need == {"cpu": 9}

    def test_fork(self) -> None:
        """A forked child looks for the better backend anew."""
        w = world()
        version = came_up(w, "a", 1)
        assert w.start(w.order("a"))
        with w.step():
            w.keeper.after_fork()
        assert version.probe is not None
        w.loads.running.clear()
        w.pass_time(50.0)
        assert w.order("a").purpose == "upgrade"


class TestReports:
    def test_the_next_takes_over(self) -> None:
        """What fails at run time gets no new lease; what the next backend makes takes over."""
        w = world()
        version = came_up(w, "b", 0)
        holder = w.ask("b")
        assert holder.granted is version
        assert w.report(version, "RuntimeError: CUDA error")
        assert w.phase(version) == "draining"
        assert version.life.reason == "failed at run time: RuntimeError: CUDA error"
        order = w.order("b")
        assert order.left_out == {
            0: "failed at run time: RuntimeError: CUDA error; left out for 1 s"
        }
        late = w.ask("b")
        assert late.waits
        assert w.start(order)
        w.land(order)
        assert late.granted is version.entry.current
        assert late.granted.place == 1
        assert version.value.released == 0
        assert not w.report(version)  # it was replaced
        assert w.house.counts.reported == 1
        w.leave(holder)
        w.run_out()
        w.check()

    def test_many_reports(self) -> None:
        """The first of many who report one instance counts; its backend failed once."""
        w = world()
        version = came_up(w, "b", 0)
        assert [w.report(version) for _ in range(3)] == [True, False, False]
        assert version.entry.left_out.back_at(w.now) == 1.0

    def test_another_that_cannot_begin(self) -> None:
        """The report counts all the same, and who asks next has the model loaded."""
        w = world()
        version = came_up(w, "b", 0)
        w.loads.refusing = 1
        assert w.report(version)
        assert version.entry.current.life.phase == "failed"
        w.check()
        assert w.ask("b").waits
        assert w.start(w.order("b"))

    def test_without_another(self) -> None:
        """Where no backend is left, who asks is told when one is back, and then gets it."""
        w = world(100)
        version = came_up(w, "b", 0)
        for _ in range(2):
            w.report(version)
            w.start(w.order("b"))
            w.land(w.order("b"))
            version = version.entry.current
        w.report(version)
        waits = w.ask("b")
        w.start(w.order("b"))
        assert waits.failure is not None
        w.pass_time(0.5)
        refused = w.ask("b").refused
        assert isinstance(refused, ModelUnavailableError)
        assert refused.retry_after == 0.5
        w.pass_time(0.5)
        assert w.ask("b").waits
        assert w.start(w.order("b"))

    def test_another_that_fails_for_good(self) -> None:
        """While a backend is left out, nothing that the others say is for good."""
        w = world()
        version = came_up(w, "b", 0)
        w.report(version)
        w.start(w.order("b"))
        w.fail(w.order("b"), ModelNotFoundError("b", "gone"))
        assert not version.entry.failures.permanent
        assert isinstance(w.ask("b").refused, ModelUnavailableError)
        w.pass_time(1.0)
        w.ask("b")
        w.start(w.order("b"))
        w.fail(w.order("b"), ModelNotFoundError("b", "gone"))
        assert version.entry.failures.permanent

    def test_back_before_the_others_fail(self) -> None:
        """If it is back when the others have failed for good, it may be tried at once."""
        w = world()
        version = came_up(w, "b", 0)
        w.report(version)
        w.start(w.order("b"))
        w.pass_time(2.0)
        w.fail(w.order("b"), skipped_all())
        assert w.ask("b").waits

    def test_upgraded_again(self) -> None:
        """A backend that has failed is tried again, later each time, and takes over again."""
        w = world(upgrade_interval=0.5)
        version = came_up(w, "a", 0)
        for left_out in (1.0, 2.0, 4.0):
            w.report(version)
            assert w.start(w.order("a"))
            w.land(w.order("a"))
            assert version.entry.current.place == 1
            for _ in range(int(left_out / 0.5) - 1):
                w.pass_time(0.5)
                assert not w.loads.queued
            w.pass_time(0.5)
            assert w.start(w.order("a"))
            w.land(w.order("a"))
            version = version.entry.current
            assert version.place == 0
            w.run_out()
        assert w.house.counts.upgrades == 3

    def test_while_it_is_upgraded(self) -> None:
        """If what serves fails while a better one is loading, the load is begun anew."""
        w = world()
        version = came_up(w, "a", 1)
        upgrade = w.order("a")
        assert w.start(upgrade)
        assert w.report(version)
        order = w.order("a")
        assert order is not upgrade
        assert (list(order.left_out), order.before) == ([1], None)
        w.land(upgrade)
        assert w.phase(upgrade.version) == "releasing"
        assert w.start(order)
        w.land(order)
        assert version.entry.current.place == 0
        w.run_out()

    def test_while_it_is_swapped(self) -> None:
        """If what serves fails while a new version is loading, that takes over."""
        w = world()
        version = came_up(w, "b", 1)
        swap = w.swap("b")
        assert w.report(version)
        assert list(w.loads.queued) == [swap.order]
        waits = w.ask("b")
        assert swap.order is not None
        w.start(swap.order)
        w.land(swap.order)
        assert waits.granted is swap
        w.run_out()
        w.check()

    def test_evicts_what_is_idle(self) -> None:
        """What takes over is wanted: what is idle goes for it, as for a request."""
        w = world(4)
        version = came_up(w, "b", 0)
        holder = w.ask("b")
        w.report(version)
        assert not w.start(w.order("b"))
        assert w.phase(w.order("b").version) == "waiting"
        w.leave(holder)
        w.run_out()
        assert version.entry.current.place == 1

    def test_after_a_failed_swap(self) -> None:
        """What takes over is the version that served, not one that did not load."""
        w = world()
        version = came_up(w, "b", 0)
        swap = w.swap("b", memory=4)
        w.start(w.order("b"))
        w.fail(w.order("b"))
        w.report(version)
        assert w.order("b").version.life.version == version.life.version != swap.life.version
        assert w.order("b").version.kept is version.kept

    def test_closed(self) -> None:
        """A report after a close changes nothing."""
        w = world()
        version = came_up(w, "b", 0)
        w.close()
        assert not w.report(version)


def test_a_swap_that_runs_out_of_memory() -> None:
    """What serves stays where its new version runs out of memory: it is all there is."""
    w = world()
    version, other = came_up(w, "b", 0), came_up(w, "a", 0)
    w.swap("b")
    w.start(w.order("b"))
    w.fail(w.order("b"), MemoryError())
    assert w.phase(version) == "active"
    assert w.phase(other) == "releasing"
    w.run_out()


class TestLeftOut:
    def test_in_a_row(self) -> None:
        """A backend that fails again soon is left out twice as long; one that did well is not."""
        left_out = LeftOut(1.0, 4.0, lambda: 0.0)
        assert left_out.back_at(0.0) is None
        now = 0.0
        for seconds in (1.0, 2.0, 4.0, 4.0):
            left_out.leave_out(0, "broken", now)
            assert left_out.back_at(now) == now + seconds
            now += seconds
            assert left_out.at(now) == {}
        left_out.leave_out(0, "broken", now + 4.5)
        assert left_out.back_at(now + 4.5) == now + 5.5

    def test_several(self) -> None:
        """Each place has a time of its own, and says why and for how long."""
        left_out = LeftOut(1.0, 4.0, lambda: 1.0)
        left_out.leave_out(0, "no card", 0.0)
        left_out.leave_out(1, "broken", 0.5)
        assert left_out.at(0.5) == {
            0: "no card; left out for 0.3 s",
            1: "broken; left out for 0.8 s",
        }
        assert left_out.back_at(0.5) == pytest.approx(0.8)
        left_out.forget()
        assert left_out.at(0.5) == {}
