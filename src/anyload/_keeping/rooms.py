"""Who gets memory: admits loads, evicts for those that do not fit, and keeps the others waiting.

What is promised: at no time do the models that are loaded, loading and unloading exceed the budget,
as far as their sizes are known before they load. A load that waits for memory holds no slot, and
memory is only taken by a load that starts; so nobody waits for memory and a slot at once.

Loads that wait have a rank, by priority and arrival. When room comes, the first takes it. One
behind it may pass only with what is free anyway: it neither evicts nor takes what was evicted for
one before it. Who waits for leases alone holds nothing back from anybody, so that a request that
holds one model and waits for another is never stopped by a third.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from .._load.alarms import Alarm, Alarms
from .._load.process import Process
from .._load.todo import Todo
from .._reading.amounts import bytes_text
from ..errors import MemoryBudgetError
from .budget import NOTHING, Budget, Sizes, added, fits, minus, plus, short_of
from .eviction import Candidate, EvictionPlan, Standing, plan_eviction
from .policies import Idle, Policy
from .records import Order, Tables, Version
from .seams import Landlord, Loads


class Rooms:
    """The memory of one repository, and the loads that wait for some.

    Args:
        process: for its lock.
        tables: what is loaded, loading and unloading.
        budget: who holds how much.
        policy: who is evicted first.
        landlord: does what is decided.
        loads: has loads asked for again.
        alarms: the deadlines.
        clock: the monotonic clock.
        minimum_stay: how long nobody is evicted after its load, in seconds.
        timeout: how long a load waits for memory, in seconds; None for as long as it is wanted.
    """

    def __init__(
        self,
        process: Process,
        tables: Tables,
        budget: Budget,
        policy: Policy,
        landlord: Landlord,
        loads: Loads,
        alarms: Alarms,
        clock: Callable[[], float],
        minimum_stay: float,
        timeout: float | None,
    ) -> None:
        self._process = process
        self._tables = tables
        self.budget = budget
        self._policy = policy
        self._landlord = landlord
        self._loads = loads
        self._alarms = alarms
        self._clock = clock
        self._minimum_stay = minimum_stay
        self._timeout = timeout
        self._looking_soon = False
        self._stay_alarm: Alarm | None = None
        self.blocked: dict[Order, None] = {}
        # Those among them for which what they need becomes free by what is decided already.
        self._expecting: dict[Order, None] = {}

    # A load comes and goes

    def may_start(self, order: Order, size: int) -> bool:
        """Return whether an attempt of this load fits now; if not, room for it is made soon."""
        assert self._process.lock.mine()
        if order.need is None:
            order.need = self._estimate(order, size)
        need, room = self._to_come(order), self.budget.room()
        if not order.after and fits(need, room) and fits(need, self._left_for(order, room)):
            return True
        if order not in self.blocked:
            self.blocked[order] = None
            if self._timeout is not None:
                order.alarm = self._alarms.set(self._clock() + self._timeout, self._late, order)
            missing = short_of(need, room)
            behind = "others are on their way out" if order.after else "others are before it"
            why = f"{sizes_text(missing)} missing" if missing else behind
            self._landlord.waits(order, f"waits for memory: {why}")
            self.look_soon()
        return False

    def started(self, order: Order) -> None:
        """An attempt has started: what it needs is its from now on."""
        assert self._process.lock.mine()
        order.entered = True
        order.threads += 1
        order.version.entry.threads += 1
        order.shares = max(order.shares, order.threads)
        self._unblock(order)
        self._put_down(order)

    def ended(self, order: Order) -> None:
        """A thread has left an attempt."""
        assert self._process.lock.mine()
        order.threads -= 1
        order.version.entry.threads -= 1
        if order.settled:
            order.shares = order.threads
        self._put_down(order)
        self.look_soon()

    def settled(self, order: Order) -> None:
        """The load has its outcome, or is not to be: only a thread that is left holds anything."""
        assert self._process.lock.mine()
        order.settled = True
        order.shares = order.threads
        self._unblock(order)
        self._put_down(order)
        self.look_soon()

    def late(self, model: object, order: Order) -> None:
        """A model of a load has come after its limit, and is being released."""
        assert self._process.lock.mine()
        assert order.need is not None
        # What its thread had is the model's now. The next attempt cannot take that over as well.
        order.shares = max(order.threads, order.shares - 1)
        self._put_down(order)
        self.budget.hold(model, order.need)

    def gone(self, model: object) -> None:
        """A late model has been released."""
        assert self._process.lock.mine()
        self.budget.drop(model)
        self.look_soon()

    def _put_down(self, order: Order) -> None:
        if order.shares and order.need:
            sizes = {device: size * order.shares for device, size in order.need.items()}
            self.budget.hold(order, sizes)
        else:
            self.budget.drop(order)

    def _unblock(self, order: Order) -> None:
        self.blocked.pop(order, None)
        self._expecting.pop(order, None)
        self._alarms.cancel(order.alarm)

    def _estimate(self, order: Order, size: int) -> Sizes:
        version = order.version
        # What it held on a backend that is not tried says nothing: that is another device.
        known = [sizes for place, sizes in version.entry.measured.items() if order.may_use(place)]
        return known[-1] if known else version.declared or {version.kept.device: size}

    def _to_come(self, order: Order) -> Sizes:
        """Return what one more attempt takes: nothing, if it takes over what the last one had."""
        assert order.need is not None
        return NOTHING if order.shares > order.threads else order.need

    def _left_for(self, order: Order, room: Sizes) -> Sizes:
        """Return the room there will be once those before this one have what they expect."""
        room = added(room, self._coming())
        for other in self._expecting:
            if other.rank < order.rank:
                room = minus(room, self._to_come(other))
        return room

    def _coming(self) -> Sizes:
        return plus(version.sizes for version in self._tables.releasing)

    # Making room

    def look_soon(self) -> None:
        """Look at those who wait as soon as this transition is over."""
        if self.blocked and not self._looking_soon:
            self._looking_soon = True
            self._loads.later(self.look)

    def look(self, todo: Todo) -> None:
        """Make room for those who wait, as far as that goes, the first in rank first."""
        assert self._process.lock.mine()
        self._looking_soon = False
        self._expecting.clear()
        room = added(self.budget.room(), self._coming())
        waited_for: set[str] = set()  # the devices on which one of them gets nothing by evicting
        for order in sorted(self.blocked, key=lambda order: order.rank):
            need = self._to_come(order)
            missing = short_of(need, room)
            if missing and self._can_ever_fit(order, need, todo):
                if not order.asked_for:
                    self._refuse_preload(order, missing, todo)
                elif waited_for.isdisjoint(missing):
                    room = added(room, self._evict(order, missing, todo))
                else:
                    why = f"{sizes_text(missing)} missing, and others are before it"
                    self._landlord.waits(order, f"waits for memory: {why}")
            if order not in self.blocked:
                continue  # it was refused
            if short_of(need, room):
                waited_for.update(missing)
            else:
                self._expecting[order] = None
                room = minus(room, need)
        if self.blocked:
            self._loads.ask_again(todo)

    def _can_ever_fit(self, order: Order, need: Sizes, todo: Todo) -> bool:
        """Return whether it fits once all that can go has gone; else make way, or refuse it."""
        kept = [other for other in self._tables.active if other.entry.pinned]
        stays = order.version.entry.current
        if stays is not order.version and stays in self._tables.active and stays not in kept:
            kept.append(stays)  # it serves until its new version is there
        most = minus(self.budget.limits, plus(version.sizes for version in kept))
        over = short_of(need, most)
        if not over:
            return True
        if not self._landlord.make_way(order, todo):
            names = ", ".join(repr(version.entry.name) for version in kept)
            where = f"beside {names} there is room for" if kept else "the budget is"
            room = sizes_text({device: most[device] for device in over})
            self._refuse(order, f"it needs {sizes_text(need)}, and {where} {room}", todo)
        return False

    def _evict(self, order: Order, missing: Sizes, todo: Todo) -> Sizes:
        """Give up models for one that waits; return what that will give back."""
        entry = order.version.entry
        versions = {
            other.entry.name: other for other in self._tables.active if other.entry is not entry
        }
        victims, reason = plan_eviction(
            map(self._candidate, versions.values()), missing, self._policy
        )
        if not victims:
            self._landlord.waits(order, f"waits for memory: {reason}")
            self._wait_for_new_ones()
        for model in victims:
            version = versions[model.name]
            self._landlord.evict(version, f"evicted to make room for {entry.name!r}", todo)
        return plus(model.sizes for model in victims)

    def _refuse_preload(self, order: Order, missing: Sizes, todo: Todo) -> None:
        """Refuse a load that nobody waits for, where there will be no room without evicting."""
        under_way = any(other.begun for other in self._tables.orders) or self._tables.releasing
        if not under_way:
            short = f"{sizes_text(missing)} missing beside what is kept"
            what = "an upgrade" if order.purpose == "upgrade" else "a preload"
            self._refuse(order, f"{short}, and {what} evicts nothing", todo)

    def _refuse(self, order: Order, reason: str, todo: Todo) -> None:
        assert order.need is not None
        name = order.version.entry.name
        self._landlord.refuse(
            order, MemoryBudgetError(name, order.need, self.budget.limits, reason), todo
        )

    def _late(self, order: Order, todo: Todo) -> None:
        """A load has waited for memory as long as it may."""
        reason = order.version.life.reason
        self._refuse(order, f"it got none in {self._timeout:g} s; {reason}", todo)

    def after_fork(self) -> None:
        """Forget who waited: the loads were the parent's."""
        self.blocked.clear()
        self._expecting.clear()
        self._looking_soon = False

    # Who may go

    def _candidate(self, version: Version) -> Candidate:
        now = self._clock()
        standing: Standing = "idle"
        if version.leases:
            standing = "leased"
        elif version.entry.pinned:
            standing = "pinned"
        elif now < version.loaded_at + self._minimum_stay:
            standing = "new"
        name, sizes = version.entry.name, version.sizes
        return Candidate(
            Idle(name, now - version.idle_since, version.load_seconds, sizes), standing
        )

    def _wait_for_new_ones(self) -> None:
        """Look again when the first of those that came a moment ago may go."""
        now = self._clock()
        times = [version.loaded_at + self._minimum_stay for version in self._tables.active]
        soonest = min((at for at in times if at > now), default=None)
        self._alarms.cancel(self._stay_alarm)
        if soonest is not None:
            self._stay_alarm = self._alarms.set(soonest, self._new_ones_may_go, None)

    def _new_ones_may_go(self, _: None, todo: Todo) -> None:
        self.look(todo)

    def plan(self, need: Sizes) -> EvictionPlan:
        """Return what would be evicted for a need now; nothing is."""
        missing = short_of(need, added(self.budget.room(), self._coming()))
        if not missing:
            return EvictionPlan((), {})
        victims, reason = plan_eviction(
            map(self._candidate, self._tables.active), missing, self._policy
        )
        freed = plus(model.sizes for model in victims)
        return EvictionPlan(tuple(model.name for model in victims), freed, reason)

    def evict_idle(self, order: Order, todo: Todo) -> list[Version]:
        """Give up every idle model on the devices of a load: memory has run out all the same."""
        devices = (order.need or NOTHING).keys()
        idle = [
            version
            for version in self._tables.active
            if version.entry is not order.version.entry  # it serves until its new version is there
            and self._candidate(version).standing == "idle"
            and devices & version.sizes.keys()
        ]
        for version in idle:
            self._landlord.evict(version, "evicted because memory ran out", todo)
        return idle

    def come_back_under(self, todo: Todo) -> None:
        """A model turned out larger than was thought: evict for what is over the budget, if any."""
        # What is on its way out is as good as gone.
        room = added(self.budget.room(), self._coming())
        missing = {device: -size for device, size in room.items() if size < 0}
        victims, _ = plan_eviction(map(self._candidate, self._tables.active), missing, self._policy)
        by_name = {version.entry.name: version for version in self._tables.active}
        for model in victims:
            self._landlord.evict(by_name[model.name], "evicted: the budget was exceeded", todo)


def sizes_text(sizes: Mapping[str, int]) -> str:
    """Return sizes as people write them: ``1.5 GiB of cpu and 2 GiB of cuda:0``."""
    return " and ".join(f"{bytes_text(size)} of {device}" for device, size in sizes.items())
