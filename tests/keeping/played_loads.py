"""The world of the keeper's tests: its own lock and clock, and loads that do as they are told."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from anyload._keeping.budget import Budget, fits
from anyload._keeping.failure_memory import FailureMemory
from anyload._keeping.house import House
from anyload._keeping.keeper import Keeper
from anyload._keeping.left_out import LeftOut
from anyload._keeping.policies import POLICIES, PolicyName
from anyload._keeping.records import Entry, Order, Version
from anyload._keeping.rooms import Rooms
from anyload._keeping.switching import Switching
from anyload._keeping.ways_out import WaysOut
from anyload._keeping.wishes import Wishes
from anyload._load.alarms import Alarms
from anyload._load.process import Process
from anyload._load.todo import Todo
from anyload.config import KeptModel
from anyload.errors import AnyloadError, ClosedError, LoadError
from anyload.events import Event, StateChanged
from anyload.model_config import ModelConfig
from anyload.reports import Attempt, LoadReport, Observed

PLACES = 3
"""How many backends there are; the first is the best."""


class Canary:
    """A model that must not be used, nor released again, once it is released."""

    def __init__(self) -> None:
        self.released = 0


class Asker:
    """One who asks for a lease."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.entry: Entry | None = None
        self.granted: Version | None = None
        self.failure: Callable[[], Exception] | None = None
        self.refused: AnyloadError | None = None
        self.left = False
        self.woken = 0

    def wake(self) -> bool:
        self.woken += 1
        return True

    @property
    def waits(self) -> bool:
        return not (self.granted or self.failure or self.refused or self.left)


class PlayedLoads:
    """Loads that start, land and fail, and releases that end, when the test says so."""

    def __init__(self) -> None:
        self.queued: dict[Order, None] = {}
        self.running: dict[Order, None] = {}
        self.lost: list[Order] = []
        # Models that came after their limit and are on their way out, and what loaded them.
        self.late: dict[object, Order] = {}
        self.landing: dict[Order, None] = {}
        self.releasing: dict[Version, None] = {}
        self.put_off: list[Callable[[Todo], None]] = []
        self.hastened: list[Order] = []
        self.asked_again = 0
        self.loaded = 0
        # How many more loads cannot begin.
        self.refusing = 0

    def begin(self, order: Order, todo: Todo) -> None:
        assert order not in self.queued
        if self.refusing:
            self.refusing -= 1
            raise ClosedError("the initializer")
        self.queued[order] = None

    def hasten(self, order: Order) -> None:
        self.hastened.append(order)

    def leave(self, order: Order, todo: Todo) -> None:
        assert order.left
        assert order not in self.running  # what is in a thread is never left
        self.queued.pop(order, None)  # it is not there if it could not begin

    def release(self, version: Version, todo: Todo) -> None:
        assert version.leases == 0
        assert version not in self.releasing
        self.releasing[version] = None

    def ask_again(self, todo: Todo) -> None:
        self.asked_again += 1

    def later(self, call: Callable[[Todo], None]) -> None:
        self.put_off.append(call)


class World:
    """A keeper with all that it needs, except threads."""

    def __init__(
        self,
        limits: dict[str, int],
        *,
        policy: PolicyName = "lru",
        minimum_stay: float = 0.0,
        memory_timeout: float | None = None,
        max_queued: int | None = None,
        recreate: bool = False,
        upgrade_interval: float = 50.0,
    ) -> None:
        self.now = 0.0
        self.events: list[StateChanged] = []
        self.process = Process()
        self.alarms = Alarms()
        self.house = House(self.process, self.alarms, lambda: self.now, self.tell)
        self.ways = WaysOut(self.house)
        self.wishes = Wishes(self.house, self.ways, max_queued, 2)
        self.switching = Switching(
            self.house, self.ways, self.wishes, upgrade_interval, lambda: 0.0
        )
        self.keeper = Keeper(self.house, self.ways, self.wishes, self.switching, recreate=recreate)
        self.loads = PlayedLoads()
        self.budget = Budget(limits)
        self.rooms = Rooms(
            self.process,
            self.house.tables,
            self.budget,
            POLICIES[policy],
            self.keeper,
            self.loads,
            self.alarms,
            lambda: self.now,
            minimum_stay,
            memory_timeout,
        )
        self.house.furnish(self.rooms, self.loads)
        self.askers: list[Asker] = []

    def tell(self, event: Event) -> None:
        assert isinstance(event, StateChanged)
        self.events.append(event)

    def add(self, name: str, keep_alive: float = float("inf"), **kept: Any) -> Entry:
        entry = Entry(
            name,
            ModelConfig("m", None, name=name),
            KeptModel(**kept),
            keep_alive,
            FailureMemory(1.0, 8.0, lambda: 0.0),
            LeftOut(1.0, 8.0, lambda: 0.0),
        )
        for one in (name, *entry.kept.aliases):
            self.house.tables.entries[one] = entry
        return entry

    @contextmanager
    def step(self) -> Iterator[Todo]:
        """One transition, and what follows from it."""
        todo = Todo()
        # The lock forbids that the garbage collector comes back in; nothing here wants it to.
        gc.disable()
        try:
            with self.process.lock:
                yield todo
                while self.loads.put_off:
                    self.loads.put_off.pop(0)(todo)
        finally:
            gc.enable()
        for seat in todo.wakes:
            seat.wake()

    # What callers do

    def ask(self, name: str, priority: int = 0) -> Asker:
        asker = Asker(name)
        self.askers.append(asker)
        with self.step() as todo:
            try:
                self.wishes.ask(name, priority, asker, todo)
            except AnyloadError as error:
                asker.refused = error
        return asker

    def leave(self, asker: Asker) -> None:
        """Give back a lease, or go without one."""
        asker.left = True
        with self.step() as todo:
            self.wishes.leave(asker, todo)

    def preload(self, name: str) -> Version:
        with self.step() as todo:
            return self.wishes.preload(name, todo)

    def unload(self, name: str) -> None:
        with self.step() as todo:
            self.keeper.unload(name, todo)

    def swap(self, name: str, **kept: Any) -> Version:
        entry = self.house.tables.entries[name]
        with self.step() as todo:
            entry.generation += 1
            version = entry.version(entry.config, KeptModel(**kept) if kept else entry.kept)
            self.keeper.swap(entry, version, todo)
        return version

    def report(self, version: Version, why: str = "broken") -> bool:
        """Whoever has a version says that it fails."""
        with self.step() as todo:
            return self.switching.report(version.entry, version.value, why, todo)

    def close(self) -> None:
        with self.step() as todo:
            self.keeper.close(todo)

    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        with self.step() as todo:
            while (due := self.alarms.due(self.now)) is not None:
                act, subject = due
                act(subject, todo)

    # What the initializer does

    def start(self, order: Order, size: int = 0) -> bool:
        """Let a queued load start, if it is admitted; without a backend it fails at once."""
        if not places_of(order):
            self.fail(order, skipped_all())
            return False
        with self.step():
            admitted = self.rooms.may_start(order, size)
            if admitted:
                del self.loads.queued[order]
                self.loads.running[order] = None
                self.keeper.started(order, "fetching" if order.number % 2 else "loading")
        return admitted

    def go_on(self, order: Order) -> None:
        """An attempt goes on to its next stage, if there is one."""
        phase = order.version.life.phase
        with self.step():
            self.keeper.reached(order, "loading" if phase == "fetching" else "warming")

    def lose(self, order: Order) -> None:
        """An attempt passes its limit: its thread stays in it, and the next one is queued."""
        del self.loads.running[order]
        self.loads.lost.append(order)
        self.loads.queued[order] = None

    def leave_thread(self, order: Order) -> None:
        """A thread that was lost leaves its load after all."""
        self.loads.lost.remove(order)
        with self.step():
            self.rooms.ended(order)

    def come_late(self, order: Order) -> object:
        """A thread that was lost leaves its load with a model, which nobody can use."""
        self.loads.lost.remove(order)
        late = object()
        self.loads.late[late] = order
        with self.step():
            self.rooms.ended(order)
            self.rooms.late(late, order)
        return late

    def late_is_gone(self, late: object) -> None:
        """A late model has been released."""
        del self.loads.late[late]
        with self.step():
            self.rooms.gone(late)

    def next_attempt(self, order: Order) -> None:
        """An attempt fails, and the next one is queued."""
        del self.loads.running[order]
        with self.step():
            self.rooms.ended(order)
        self.loads.queued[order] = None

    def end(self, order: Order) -> None:
        """The last attempt ends; what came of it is on its way to the keeper."""
        del self.loads.running[order]
        self.loads.landing[order] = None
        with self.step():
            self.rooms.ended(order)

    def land(
        self,
        order: Order,
        memory: int | None = None,
        load_seconds: float = 1.0,
        *,
        place: int | None = None,
        failed: bool = True,
    ) -> Canary:
        """A load that has ended gives a model.

        Args:
            order: the load.
            memory: what the model says that it holds.
            load_seconds: how long it took.
            place: the place of the backend that it is on; the best that there is, if None.
            failed: whether those before it that might have been tried were, in vain.
        """
        if order.version.life.phase == "fetching":
            self.go_on(order)
        if order in self.loads.running:
            self.end(order)
        del self.loads.landing[order]
        canary = Canary()
        observed = Observed(memory_bytes=memory)
        place = places_of(order)[0] if place is None else place
        assert order.may_use(place)
        attempts = [
            Attempt(f"B{one}", "raised" if failed and order.may_use(one) else "skipped", "no")
            for one in range(place)
        ]
        attempts.append(Attempt(f"B{place}", "loaded", observed=observed))
        report = LoadReport("m", "m", f"B{place}", tuple(attempts), 0.0, load_seconds, load_seconds)
        self.loads.loaded += 1
        with self.step() as todo:
            self.keeper.landed(order, canary, None, report, todo, improvable=place > 0)
        return canary

    def fail(self, order: Order, error: BaseException | AnyloadError | None = None) -> None:
        """A load that has ended, or that has not begun, gives none."""
        if order in self.loads.running:
            self.end(order)
        self.loads.landing.pop(order, None)
        self.loads.queued.pop(order, None)
        if not isinstance(error, AnyloadError):
            cause = error or ValueError("broken")
            error = LoadError("m", "m", [Attempt("LOCAL", "raised", str(cause), error=cause)])
        with self.step() as todo:
            self.keeper.failed(order, error, todo)

    def release(self, version: Version) -> None:
        """A release ends."""
        del self.loads.releasing[version]
        canary, version.value = version.value, None
        canary.released += 1
        with self.step() as todo:
            self.ways.released(version, todo)

    def load(self, name: str, size: int = 0, **how: Any) -> Version:
        """Load a model that is not leased afterwards."""
        asker = self.ask(name)
        order = self.order(name)
        assert self.start(order, size)
        self.land(order, **how)
        version = asker.granted
        assert version is not None
        self.leave(asker)
        return version

    def order(self, name: str) -> Order:
        entry = self.house.tables.entries[name]
        version = entry.incoming or entry.current
        assert version.order is not None
        return version.order

    def phase(self, version: Version) -> str:
        return version.life.phase

    # What is promised

    def check(self) -> None:
        """Every promise that holds after each step."""
        tables, budget = self.house.tables, self.budget
        held = [*tables.active, *tables.draining, *tables.releasing]
        for device, limit in budget.limits.items():
            whole = sum(version.sizes.get(device, 0) for version in held)
            for order in {*tables.orders, *self.loads.lost, *self.loads.late.values()}:
                need = (order.need or {}).get(device, 0)
                # A lost thread or its late model, and the one at work or its model on the way.
                lost = self.loads.lost.count(order) + list(self.loads.late.values()).count(order)
                busy = order in self.loads.running or order in self.loads.landing
                whole += need * (lost + busy)
            assert whole <= budget.used(device), "what there is is put down"
            assert budget.used(device) <= limit, (
                "loaded, loading and unloading are within the budget"
            )
        for version in held:
            assert version.life.phase == (
                "active"
                if version in tables.active
                else "draining"
                if version in tables.draining
                else "releasing"
            )
            if version.leases:
                assert version.value.released == 0, "leased implies not released"
                assert version not in tables.releasing
        assert tables.releasing.keys() == self.loads.releasing.keys()
        for order in tables.orders:
            assert order.version.order is order
            assert order.version.life.state == "LOADING"
        for entry in self.house.each():
            loading = entry.current.life.state == "LOADING"
            assert loading is (entry.current.order is not None), "what is LOADING has a load"
            if entry.waiting:
                assert entry.current.order is not None, "who waits, waits for a load"
            assert all(asker.waits for asker in entry.waiting)  # type: ignore[attr-defined]
        for asker in self.askers:
            if asker.waits:
                assert asker in asker.entry.waiting  # type: ignore[union-attr]
            elif asker.failure or (asker.granted and asker.entry):
                assert asker.woken, "every waiter is woken"
        for entry in self.house.each():
            self.check_backend(entry)
        threads = len(self.loads.running) + len(self.loads.lost)
        assert sum(entry.threads for entry in self.house.each()) == threads
        leased = sum(version.leases for version in held)
        assert leased == sum(asker.granted is not None for asker in self.askers)
        for event, after in zip(self.events, self.events[1:], strict=False):
            assert event.at <= after.at
        assert all(
            event.reason for event in self.events if event.phase in ("failed", "unloaded")
        ), "never an outcome without a reason"

    def check_backend(self, entry: Entry) -> None:
        """What is promised of the backends of a model."""
        serving, incoming = entry.current, entry.incoming
        if incoming is not None:
            assert incoming.order is not None
            if incoming.order.purpose == "upgrade":
                assert serving.ready, "only what serves is upgraded"
                assert incoming.order.before == serving.place
        if serving.ready and serving.improvable and entry.kept.upgrade:
            assert serving.place > 0
            looks = serving.probe is not None and serving.probe.ring is not None
            assert looks or incoming is not None, "a better backend is always looked for again"

    def could_go_on(self) -> list[Order]:
        """Return the loads that wait although there is room for them: there must be none."""
        room = self.budget.room()
        return [
            order
            for order in self.rooms.blocked
            if order.need is not None and not order.after and fits(order.need, room)
        ]

    def run_out(self) -> None:
        """Let everything that can go on go on, until nothing does."""
        for _ in range(100):
            before = len(self.events), len(self.loads.lost)
            for order in list(self.loads.lost):
                self.leave_thread(order)
            for late in list(self.loads.late):
                self.late_is_gone(late)
            for version in list(self.loads.releasing):
                self.release(version)
            for order in sorted(self.loads.queued, key=lambda order: order.rank):
                if order in self.loads.queued:
                    self.start(order)
            for order in [*self.loads.running, *self.loads.landing]:
                self.land(order)
            self.check()
            if before == (len(self.events), len(self.loads.lost)):
                return
        raise AssertionError(f"it does not come to rest: {self.events[-10:]}")


def places_of(order: Order) -> list[int]:
    """Return the places of the backends that a load may try, the best first."""
    return [place for place in range(PLACES) if order.may_use(place)]


def skipped_all() -> LoadError:
    """Return what a load ends with that has no backend to try."""
    return LoadError("m", "m", [Attempt("B0", "skipped", "left out")])
