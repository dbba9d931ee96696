"""How loaded models go: idle, retired, drained, released."""

from __future__ import annotations

from .._load.todo import Todo
from ..reports import seconds
from .house import House
from .records import Version


class WaysOut:
    """The leases of loaded versions, and what becomes of those that nobody uses.

    Taking a lease of a model that is READY, and giving back one, need no lock. A list's `append`
    and `pop` are one step each, and there is an order in everything:

    - who takes adds its lease first, and then looks whether the version is still ready;
    - who gives back removes its lease first, and then looks whether anything follows from that;
    - who retires a version, under the lock, makes it unready first, and then looks for leases.

    So one of two that meet sees the other: a version is released only when it is not ready, and
    its last lease is back. None is ever released while it is leased.

    Args:
        house: what is shared.
    """

    def __init__(self, house: House) -> None:
        self._house = house

    def take(self, name: str) -> Version | None:
        """Return the version to use, one lease of it taken, or None if it is not READY."""
        assert self._house.process.lock.mine()
        entry = self._house.tables.entries.get(name)
        if entry is None or not entry.current.ready:
            return None
        entry.current.out.append(None)
        entry.hits += 1
        return entry.current

    def given_back(self, version: Version, todo: Todo) -> None:
        """The last lease of a version may be over."""
        assert self._house.process.lock.mine()
        if version.out:
            return  # somebody else has taken one meanwhile
        if version in self._house.tables.draining:
            del self._house.tables.draining[version]
            self._release(version, version.life.reason, todo)
        elif version.ready:
            self.idle(version, todo)
        self._house.rooms.look_soon()

    def idle(self, version: Version, todo: Todo) -> None:
        """Nobody uses a version any more: it may stay for its time."""
        now = version.idle_since = self._house.clock()
        entry = version.entry
        if not entry.stays and entry.keep_alive == 0:
            self.retire(version, "nobody uses it, and it is not kept alive", todo)
            return
        if not entry.stays and version.alarm is None:
            at = now + entry.keep_alive
            version.alarm = self._house.alarms.set(at, self._look_at_idle, version)
        version.calm = True

    def _look_at_idle(self, version: Version, todo: Todo) -> None:
        """A model may have been idle for its time: one alarm serves all the leases until then."""
        version.alarm, version.calm = None, False
        entry = version.entry
        if version.leases or entry.pinned:
            return  # the next one to give it back looks again
        ends = version.idle_since + entry.keep_alive
        if ends > self._house.clock():
            version.alarm = self._house.alarms.set(ends, self._look_at_idle, version)
            version.calm = True
        else:
            self.retire(version, f"idle for {seconds(entry.keep_alive)}", todo)

    def retire(self, version: Version, reason: str, todo: Todo) -> None:
        """Let a loaded version go: now, or when its last lease is returned."""
        assert self._house.process.lock.mine()
        version.ready = version.calm = False  # first: who takes a lease now sees it, or is seen
        del self._house.tables.active[version]
        version.entry.retired[version] = None
        self._house.alarms.cancel(version.alarm)
        self._house.alarms.cancel(version.probe)
        self._give_up_upgrade(version, todo)
        if version.leases:
            self._house.move(version, "draining", reason)
            self._house.tables.draining[version] = None
        else:
            self._release(version, reason, todo)

    def _give_up_upgrade(self, version: Version, todo: Todo) -> None:
        """What serves goes: a better one in its place would be loaded for nobody."""
        entry = version.entry
        order = None if entry.incoming is None else entry.incoming.order
        if version is entry.current and order is not None and order.purpose == "upgrade":
            entry.incoming = None
            self._house.give_up(order, "what it was to replace has gone", todo)

    def _release(self, version: Version, reason: str, todo: Todo) -> None:
        self._house.move(version, "releasing", reason)
        self._house.tables.releasing[version] = None
        self._house.loads.release(version, todo)
        self._house.rooms.look_soon()  # what it will give back lets others pass already

    def released(self, version: Version, todo: Todo) -> None:
        """A version is gone, and what it held is free."""
        assert self._house.process.lock.mine()
        del self._house.tables.releasing[version]
        del version.entry.retired[version]
        self._house.rooms.budget.drop(version)
        self._house.counts.releases += 1
        self._house.move(version, "unloaded", version.life.reason)
        for order in self._house.tables.orders:
            order.after.pop(version, None)
        self._house.wake_watchers(version, todo)
        self._house.rooms.look_soon()
