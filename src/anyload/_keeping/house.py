"""What the parts of one repository share: what there is, the clock, the events, the counts."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import count

from .._load.alarms import Alarms
from .._load.process import Process
from .._load.todo import Todo
from ..events import Event
from .records import Entry, Order, Tables, Version
from .rooms import Rooms
from .seams import Loads
from .states import Phase


class Counts:
    """What has been done so far."""

    def __init__(self) -> None:
        self.misses = 0
        self.loads = 0
        self.failures = 0
        self.evictions = 0
        self.upgrades = 0
        self.reported = 0
        self.releases = 0


class House:
    """What the parts of one repository share.

    Args:
        process: for its lock.
        alarms: the deadlines.
        clock: the monotonic clock.
        tell: takes events.
    """

    rooms: Rooms
    loads: Loads

    def __init__(
        self,
        process: Process,
        alarms: Alarms,
        clock: Callable[[], float],
        tell: Callable[[Event], None],
    ) -> None:
        self.process = process
        self.alarms = alarms
        self.clock = clock
        self._tell = tell
        self.tables = Tables()
        self.counts = Counts()
        self.numbers = count()
        self.closed = False

    def furnish(self, rooms: Rooms, loads: Loads) -> None:
        """Take in the parts that need this one to be made."""
        self.rooms = rooms
        self.loads = loads

    def each(self) -> Iterable[Entry]:
        """Return every model once, whatever its aliases."""
        return dict.fromkeys(self.tables.entries.values())

    def move(self, version: Version, phase: Phase, reason: str = "") -> None:
        """Let a version go to another phase, and tell of it."""
        assert self.process.lock.mine()
        self._tell(version.life.move(phase, reason, self.clock()))

    def end(self, order: Order) -> None:
        """A load has its outcome, or is not to be."""
        assert self.process.lock.mine()
        order.version.order = None
        self.tables.orders.pop(order, None)  # it may have been interrupted before it was there
        self.rooms.settled(order)

    def take_back(self, order: Order, todo: Todo) -> None:
        """Undo the order of a load that has not begun, or that cannot."""
        order.left = True
        self.loads.leave(order, todo)
        self.end(order)

    def forget(self, order: Order, reason: str, todo: Todo) -> None:
        """Give up a load that has not begun."""
        self.take_back(order, todo)
        self.move(order.version, "unloaded", reason)
        self.wake_watchers(order.version, todo)

    def give_up(self, order: Order, reason: str, todo: Todo) -> None:
        """Have a load end without a model, now or, if it has begun, when it comes."""
        if order.begun:
            order.version.doomed = reason
        else:
            self.forget(order, reason, todo)

    def wake_watchers(self, version: Version, todo: Todo) -> None:
        """Wake those who wait for what becomes of a version."""
        todo.wakes += version.watchers
        version.watchers = []
