"""The core of one repository: its parts, the lock around each transition, and its deadlines."""

from __future__ import annotations

import random
from collections.abc import Callable

from .._load.alarms import Alarms
from .._load.core import Transition
from .._load.process import Lock, process
from .._load.watchdog import Watchdog
from ..config import InitializerConfig
from ..events import Event
from ..initializer import Initializer
from .budget import Budget, Sizes
from .house import House
from .keeper import Keeper
from .loading import Asked, InitializerLoads
from .policies import POLICIES
from .rooms import Rooms
from .switching import Switching
from .ways_out import WaysOut
from .wishes import Wishes


class Step(Transition):
    """One transition of the repository; ``with core.step() as todo, core.lock:``, in this order."""

    __slots__ = ("_keeping",)

    def __init__(self, core: KeepingCore) -> None:
        super().__init__(core.loading)
        self._keeping = core

    def __exit__(self, *_: object) -> None:
        super().__exit__()
        self._keeping.watch()


class KeepingCore:
    """The parts of one repository, put together.

    Args:
        config: the configuration.
        limits: the budget, in bytes by device.
        clock: the monotonic clock of keep-alives, cool-downs and waits for memory.
        make_initializer: makes the initializer, with this admission.
        jitter: returns a number between 0 and 1, another each time.
    """

    def __init__(
        self,
        config: InitializerConfig,
        limits: Sizes,
        clock: Callable[[], float],
        make_initializer: Callable[[Asked], Initializer],
        jitter: Callable[[], float] = random.random,
    ) -> None:
        settings = config.repository
        self.clock = clock
        self.alarms = Alarms()
        self.house = house = House(process, self.alarms, clock, self._tell)
        self.entries = house.tables.entries  # it is changed, and never replaced
        self.ways = WaysOut(house)
        self.wishes = Wishes(house, self.ways, settings.max_queued, config.max_concurrent_loads)
        recreate = settings.swap == "recreate"
        interval = settings.upgrade_interval
        self.switching = Switching(house, self.ways, self.wishes, interval, jitter)
        self.keeper = Keeper(house, self.ways, self.wishes, self.switching, recreate=recreate)
        asked = Asked(house, self.keeper)
        self.initializer = make_initializer(asked)
        self.loading = self.initializer._core
        loads = InitializerLoads(self.initializer, self.step, asked, house, self.keeper, self.ways)
        policy = POLICIES[settings.eviction]
        rooms = Rooms(
            process,
            house.tables,
            Budget(limits),
            policy,
            self.keeper,
            loads,
            self.alarms,
            clock,
            settings.minimum_stay,
            settings.memory_timeout,
        )
        house.furnish(rooms, loads)
        self.blocked = rooms.blocked  # likewise
        self._watchdog = Watchdog(self, "anyload-keeper", clock)
        process.add(self)

    @property
    def lock(self) -> Lock:
        """The lock of the process: a forked child has another."""
        return self.house.process.lock

    def step(self) -> Step:
        """Return what does what follows: ``with core.step() as todo, core.lock:``."""
        return Step(self)

    def _tell(self, event: Event) -> None:
        outbox = self.loading.flights.outbox
        if outbox.wanted:
            outbox.put(event)

    # Deadlines

    def watch(self) -> None:
        """See to it that the next deadline is acted on."""
        soonest = self.alarms.soonest
        if soonest is not None:
            self._watchdog.expect(soonest)

    def ring(self) -> float | None:
        """Act on every deadline that has passed; return when the next one is."""
        with self.step() as todo, self.lock:
            now = self.clock()
            while (due := self.alarms.due(now)) is not None:
                act, subject = due
                act(subject, todo)
            return self.alarms.next_at

    def thread_left(self) -> None:
        """The watchdog is about to end: nobody waits for that."""

    def dismiss(self) -> None:
        """End the watchdog."""
        self._watchdog.dismiss()

    # What the process asks

    def after_fork(self) -> None:
        """Start without loads in a forked child."""
        self._watchdog = Watchdog(self, "anyload-keeper", self.clock)
        with self.lock:
            self.keeper.after_fork()

    def reconsider(self) -> None:
        """Nothing of the process is waited for here: the initializer does that."""

    @property
    def has_stuck_threads(self) -> bool:
        """Whether a thread of its own is stuck: it has none that could be."""
        return False
