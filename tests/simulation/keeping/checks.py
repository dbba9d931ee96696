"""The invariants of what is kept: after every step of a thread, when nothing moves, at the end."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from anyload import AnyloadError, ClosedError, ModelRepository, ModelUnavailableError
from anyload._keeping.budget import fits
from anyload._keeping.core import KeepingCore
from anyload._keeping.records import Order, Version
from anyload._load.watchdog import Watchdog
from anyload.events import Event, StateChanged
from anyload.testing import at_rest

from ..fibers import Machine
from ..onlooker import Onlooker
from ..threads import SwitchingProcessLock
from .requests import Request
from .world import Canary, KeptWorld

MAX_COOL_DOWN = 6.0

WAYS_OUT = re.compile(
    r"unloaded by request|evicted|replaced by version|makes way for version|upgraded to"
    r"|failed at run time|idle for|nobody uses it|it is not in the catalogue"
    r"|the repository is closed|another version is to come|what it was to replace"
)
"""Why a model may go: that another load has failed is no reason."""


class Checks(Onlooker):
    """Looks at a world, and at the core of its repository.

    Args:
        machine: what runs the threads.
        world: what there is in memory.
        models: the repository.
        requests: all requests.
    """

    _world: KeptWorld

    def __init__(
        self,
        machine: Machine,
        world: KeptWorld,
        models: ModelRepository,
        requests: Sequence[Request],
    ) -> None:
        super().__init__(machine, world)
        self._models = models
        self._requests = requests
        self._core: KeepingCore = models._core
        self._lock = self._core.lock
        self._last_at = 0.0
        self._came: set[tuple[str, str]] = set()
        self._loads = 0
        self._remembered: dict[str, tuple[object, float, float]] = {}
        self.pinned_at: dict[str, float] = {}
        self.closing = False

    # After every step

    def after_step(self) -> None:
        for canary in self._world.canaries:
            self.expect(
                not (canary.users and canary.released), f"K1: {canary} is used, and released"
            )
            self.expect(canary.released <= 1, f"K3: {canary} is released again")
        memory, budget = self._world.memory(), self._core.house.rooms.budget
        for device, limit in budget.limits.items():
            used = budget.used(device)
            self.expect(memory[device] <= used, f"K2: {memory[device]} of {device}, not {used}")
            self.expect(used <= limit, f"K2: {used} of {device} is more than {limit}")
        self._all_are_where_they_belong()

    def _all_are_where_they_belong(self) -> None:
        tables = self._core.house.tables
        for phase, versions in (
            ("active", tables.active),
            ("draining", tables.draining),
            ("releasing", tables.releasing),
        ):
            for version in versions:
                where = version.life.phase
                self.expect(where == phase, f"K8: {version.entry.name} is {where}, not {phase}")
        for order in tables.orders:
            self.expect(order.version.order is order, f"K8: {_named(order)} has another load")
            loading = order.version.life.state == "LOADING"
            self.expect(loading, f"K8: {_named(order)} is {order.version.life.phase}, and loads")
        for entry in self._core.house.each():
            waits = entry.waiting and entry.current.order is None
            self.expect(not waits, f"K6: who waits for {entry.name} waits for no load")

    # What clients see

    def got(self, request: Request, model: Any, asked: float) -> None:
        """A client got a model."""
        canary = isinstance(model, Canary)
        self.expect(canary, f"K3: {request} got {model!r}")
        if canary:
            self.expect(not model.released, f"K1: {request} got {model}, which was released")
            self.expect(not model.late, f"K3: {request} got {model}, which came late")
            gone = model.gone_at < asked
            self.expect(not gone, f"K4: {request} got {model}, which was to go at {model.gone_at}")

    def goes(self, name: str) -> None:
        """What serves is being unloaded: who asks from now on gets another."""
        entry = self._core.entries.get(name)
        if entry is not None and entry.current.ready:
            canary = entry.current.value
            canary.gone_at = min(canary.gone_at, self._machine.now())

    def still_serves(self, version: Version) -> None:
        """A swap has failed: the old version serves on, if nothing else has befallen it."""
        if version.life.phase == "active":
            current = version.entry.current is version
            self.expect(version.ready and current, f"K4: {version.entry.name} serves no more")
        else:
            reason = version.life.reason
            self.expect(bool(WAYS_OUT.match(reason)), f"K4: {version.entry.name} went: {reason}")

    def failed(self, request: Request, error: AnyloadError) -> None:
        """A client got an error."""
        if isinstance(error, ClosedError):
            self.expect(self.closing, f"K9: {request} is told that it is closed")
        if isinstance(error, ModelUnavailableError) and error.retry_after:
            self._is_remembered(request, error.model, error.__cause__, error.retry_after)

    def _is_remembered(
        self, request: Request, model: str, failure: object, retry_after: float
    ) -> None:
        """An error is remembered: not for long, and whoever asks does not make it longer."""
        now = self._machine.now()
        until = now + retry_after
        known, first, since = self._remembered.get(model, (None, until, now))
        if known is not failure:
            first, since = until, now
            self._remembered[model] = failure, first, since
        longer = f"K5: {request} is refused until {until:.4f}, others were until {first:.4f}"
        self.expect(abs(until - first) < 1e-6, longer)
        soon = until <= since + MAX_COOL_DOWN
        self.expect(soon, f"K5: {request} is refused until {until:.4f}")

    # What the repository tells

    def hear(self, event: Event) -> None:
        """Look at one event."""
        if not isinstance(event, StateChanged):
            return
        at, who = event.at, (event.model, event.version)
        self.expect(self._last_at <= at, f"K8: {who} is {event.phase} at {at}, and told late")
        self._last_at = at
        if event.phase == "active":
            self._came.add(who)
            self._loads += 1
        elif event.phase in ("failed", "unloaded"):
            self.expect(bool(event.reason), f"K8: {who} is {event.phase} for no reason")
        if event.before == "active":
            self._goes_for_a_reason(event)

    def _goes_for_a_reason(self, event: StateChanged) -> None:
        reason = event.reason
        self.expect(bool(WAYS_OUT.match(reason)), f"K4: {event.model} goes: {reason}")
        replaced, _, version = reason.partition("replaced by version ")
        there = replaced or (event.model, version) in self._came
        self.expect(bool(there), f"K4: {event.model} is {reason}, which is not there")
        if re.match("evicted|idle for", reason):
            pinned = self.pinned_at.get(event.model, event.at) < event.at
            self.expect(not pinned, f"K10: {event.model} is pinned, and {reason}")

    # When nothing moves

    def when_quiet(self) -> None:
        assert isinstance(self._lock, SwitchingProcessLock)
        with self._lock.taken():
            self.after_step()
            self._all_who_wait_are_known()
            self._all_leases_are_somebodys()
            self._all_that_can_goes_on()
            self._alarms_are_kept()

    def _all_who_wait_are_known(self) -> None:
        waiting = [one for one in self._requests if one.waits_for == "a lease"]
        known = sum(len(entry.waiting) for entry in self._core.house.each())
        self.expect(
            known == len(waiting),
            f"K6: {known} are to be woken, and {[str(one) for one in waiting]} wait",
        )
        watching = [one for one in self._requests if one.waits_for == "a version"]
        known = sum(len(version.watchers) for version in self._versions())
        self.expect(
            known in (len(watching), len(watching) + self.closing),
            f"K6: {known} are to be told, and {[str(one) for one in watching]} watch",
        )

    def _versions(self) -> list[Version]:
        tables = self._core.house.tables
        versions = [*tables.active, *tables.draining, *tables.releasing]
        versions += [order.version for order in tables.orders]
        for entry in self._core.house.each():
            versions += [entry.current, *entry.retired]
        return list(dict.fromkeys(versions))

    def _all_leases_are_somebodys(self) -> None:
        users = sum(canary.users for canary in self._world.canaries)
        leases = sum(version.leases for version in self._versions())
        self.expect(leases == users, f"K7: {leases} leases are out, and {users} are used")

    def _all_that_can_goes_on(self) -> None:
        rooms, flights = self._core.house.rooms, self._core.loading.flights
        for order in rooms.blocked:
            need, room = rooms._to_come(order), rooms.budget.room()
            free = not order.after and fits(need, room) and fits(need, rooms._left_for(order, room))
            may = flights.slots.free and flights.obstacles.of(order.seat.flight) is None
            self.expect(not (free and may), f"K7: there is room for {_named(order)}, and it waits")
        for version in self._core.house.tables.draining:
            self.expect(version.leases > 0, f"K7: nobody uses {version.entry.name}, and it drains")
        self.expect(flights.releases.first() is None, "K7: a release could begin")

    def _alarms_are_kept(self) -> None:
        next_at, dog = self._core.alarms.next_at, self._core._watchdog
        if next_at is not None and not self.closing:
            assert isinstance(dog, Watchdog)
            self.expect(dog.running and dog.wakes_at <= next_at, f"K7: nobody wakes at {next_at}")
            self.expect(next_at > self._machine.now(), f"K7: {next_at} has passed")

    # At the end

    def at_the_end(self) -> None:
        figures = self._models.statistics()
        rest = at_rest(self._models.initializer.statistics())
        self.expect(rest, f"K9: it is not at rest: {self._models.initializer.statistics()}")
        self.expect(not any(figures.used.values()), f"K9: memory is held: {figures}")
        left = figures.leases + figures.waiting + figures.loading
        self.expect(left + figures.draining + figures.releasing == 0, f"K9: {figures}")
        for request in self._requests:
            once = len(request.outcomes) == 1
            self.expect(once, f"K6: {request} ended in {request.outcomes}")
        for canary in self._world.canaries:
            times = canary.released
            self.expect(times == 1, f"K3: {canary} was released {times} times")
        good = len([one for one in self._world.canaries if not one.late])
        self.expect(figures.loads == figures.releases, f"K3: {figures}")
        self.expect(figures.loads == self._loads <= good, f"K3: {good} came; {figures}")
        threads = [fiber for fiber in self._machine.alive if fiber.owner is not None]
        self.expect(not threads, f"K9: {len(threads)} threads are left")

    def unended(self) -> list[str]:
        return [str(request) for request in self._requests if not request.outcomes]


def _named(order: Order) -> str:
    return order.version.entry.name
