"""The transitions of the repository that are not one lease's: what came of loads, and new versions.

Every method, here, in `wishes.py`, in `switching.py`, in `ways_out.py` and in `rooms.py`, is a few
lines under the process lock that wait for nothing, do no I/O and call no code of a user's. What is
to be done when the lock is free is in the `Todo`.

The lock is that of the process, not one of the repository's own. The initializer asks the
admission under it; and the garbage collector may, under any lock, close a coroutine that wants it.
With two locks there would be two orders to take them in.
"""

from __future__ import annotations

from typing import Any

from .._load.todo import Todo
from ..errors import AnyloadError, ClosedError, MemoryBudgetError, ModelUnavailableError
from ..reports import LoadReport
from .budget import Sizes
from .failure_memory import first_line, is_for_memory
from .house import House
from .records import Entry, Order, Version
from .states import Phase
from .switching import Switching
from .ways_out import WaysOut
from .wishes import Wishes


class Keeper:
    """The models of one repository.

    Args:
        house: what is shared.
        ways: how models go.
        wishes: who waits for which.
        switching: which backend each is on.
        recreate: whether an old version goes first where two do not fit.
    """

    def __init__(
        self,
        house: House,
        ways: WaysOut,
        wishes: Wishes,
        switching: Switching,
        *,
        recreate: bool,
    ) -> None:
        self._house = house
        self._ways = ways
        self._wishes = wishes
        self._switching = switching
        self._recreate = recreate

    # What came of a load

    def waits(self, order: Order, reason: str) -> None:
        """A load waits for memory."""
        version = order.version
        if version.life.phase == "waiting":
            version.life.reason = reason
        else:
            self._house.move(version, "waiting", reason)

    def started(self, order: Order, phase: Phase) -> None:
        """An attempt of a load has started, and is at this."""
        self._house.rooms.started(order)
        self.reached(order, phase)

    def reached(self, order: Order, phase: Phase) -> None:
        """An attempt of a load is at this now."""
        if order.version.life.phase != phase:
            self._house.move(order.version, phase)

    def landed(
        self,
        order: Order,
        value: Any,
        candidate: Any,
        report: LoadReport,
        todo: Todo,
        *,
        improvable: bool,
    ) -> None:
        """A version is loaded: grant it to those who wait, or let it go if it is not wanted.

        Args:
            order: its load.
            value: the model.
            candidate: what loaded it.
            report: how it came to be loaded.
            improvable: whether a better backend could load it some time.
        """
        assert self._house.process.lock.mine()
        version, entry = order.version, order.version.entry
        now = self._house.clock()
        version.value, version.candidate, version.report = value, candidate, report
        version.loaded_at = version.idle_since = now
        version.load_seconds = report.load_seconds
        version.place = len(report.attempts) - 1  # each backend up to it has had its turn
        version.improvable = improvable
        version.sizes = _measured(order, report)
        self._house.end(order)
        self._house.rooms.budget.hold(version, version.sizes)
        self._house.counts.loads += 1
        entry.failures.forget()
        if entry.describes(version):
            entry.measured.pop(version.place, None)
            entry.measured[version.place] = version.sizes
        entry.load_seconds = report.load_seconds
        self._house.tables.active[version] = None
        self._house.move(version, "active")
        if version is entry.incoming and order.purpose == "upgrade":
            self._house.counts.upgrades += 1
            self._take_over(version, f"upgraded to {report.backend}", todo)
        elif version is entry.incoming:
            self._take_over(version, f"replaced by version {version.life.version}", todo)
        if version.doomed:
            self._ways.retire(version, version.doomed, todo)
        else:
            version.ready = True
            self._wishes.grant(entry, version, todo)
            if not version.leases:
                self._ways.idle(version, todo)
            if version.ready:
                self._switching.came_up(order, todo)
        self._house.wake_watchers(version, todo)
        self._house.rooms.come_back_under(todo)
        self._house.rooms.look_soon()

    def failed(self, order: Order, error: AnyloadError, todo: Todo) -> None:
        """A version did not load."""
        assert self._house.process.lock.mine()
        version, entry = order.version, order.version.entry
        upgrade = order.purpose == "upgrade"
        wanted = not (order.retry or version.doomed or self._house.closed or upgrade)
        again = wanted and order.begun and is_for_memory(error)
        self._house.end(order)
        if again and self._try_again(order, todo):
            return
        self._house.counts.failures += 1
        version.error = error
        if version.life.phase != "failed":  # it is, if it could not even begin once more
            self._house.move(version, "failed", first_line(error))
        if not (isinstance(error, ClosedError | MemoryBudgetError) or upgrade):
            now = self._house.clock()
            back_at = (entry.left_out.back_at(now) or now) if order.left_out else None
            entry.failures.remember(error, now, back_at, changed=order.changed)
            entry.stamp = order.stamp
        self._without(version, error, todo)

    def _try_again(self, order: Order, todo: Todo) -> bool:
        """Memory ran out: once more, when everything idle is gone; return whether that can be."""
        version, priority = order.version, order.priority
        try:
            second = self._wishes.order(version, priority, order.purpose, todo, retry=True)
        except Exception:  # there may be no memory even for that
            return False
        second.need = order.need
        second.after = dict.fromkeys(self._house.rooms.evict_idle(order, todo))
        return True

    def _without(self, version: Version, error: AnyloadError, todo: Todo) -> None:
        """A version is not to come: those who wait for it go on without, or wait for another."""
        entry = version.entry
        if version is entry.incoming:
            entry.incoming = None  # what serves goes on serving
            self._switching.look_later(entry.current)
        elif version is entry.current and entry.incoming is not None:
            entry.current, entry.incoming = entry.incoming, None
        elif version is entry.current:
            self._wishes.fail_waiting(entry, error, todo)
        self._house.wake_watchers(version, todo)

    def refuse(self, order: Order, error: MemoryBudgetError, todo: Todo) -> None:
        """There is no room for a load, and it is not to wait for any."""
        assert self._house.process.lock.mine()
        if order.begun:
            return  # between two attempts it has what it needs; one that is lost has a limit
        order.left = True
        self._house.loads.leave(order, todo)
        self.failed(order, error, todo)

    def evict(self, version: Version, reason: str, todo: Todo) -> None:
        """Let a loaded version go, because memory is needed."""
        self._house.counts.evictions += 1
        self._ways.retire(version, reason, todo)

    # Other versions

    def swap(self, entry: Entry, version: Version, todo: Todo) -> None:
        """Put another version of a model in the place of the one that serves, once it is loaded.

        Raises:
            ClosedError: the repository is closed.
        """
        assert self._house.process.lock.mine()
        if self._house.closed:
            raise ClosedError(entry.name)
        overtaken, entry.incoming = entry.incoming, None
        if overtaken is not None and overtaken.order is not None:
            self._house.give_up(overtaken.order, "another version is to come instead", todo)
        entry.failures.forget()
        entry.left_out.forget()
        if version.config is not entry.config:
            entry.measured.clear()  # that was of something else
        entry.config, entry.kept = version.config, version.kept
        if entry.current.order is None and entry.current not in self._house.tables.active:
            entry.current = version
            return
        try:
            self._wishes.order(version, 0, "swap", todo)
        except BaseException:
            self._switching.look_later(entry.current)  # the upgrade under way has been given up
            raise
        entry.incoming = version  # last: what cannot begin is not to come

    def _take_over(self, version: Version, reason: str, todo: Todo) -> None:
        """A new version of a model is the current one from now on; the old one goes."""
        entry = version.entry
        old, entry.current, entry.incoming = entry.current, version, None
        if old.order is not None:
            self._house.give_up(old.order, reason, todo)
        elif old in self._house.tables.active:
            self._ways.retire(old, reason, todo)

    def make_way(self, order: Order, todo: Todo) -> bool:
        """Let the old version go before its new one comes, if that is the setting."""
        version, entry = order.version, order.version.entry
        if version is not entry.incoming or order.purpose == "upgrade" or not self._recreate:
            return False
        self._take_over(version, f"makes way for version {version.life.version}", todo)
        return True

    # Ways out

    def unpin(self, entry: Entry, todo: Todo) -> None:
        """Let a model be evicted again, and its keep-alive begin."""
        assert self._house.process.lock.mine()
        entry.pinned = entry.current.calm = False
        if entry.current in self._house.tables.active and not entry.current.leases:
            self._ways.idle(entry.current, todo)
        self._house.rooms.look_soon()

    def unload(self, name: str, todo: Todo) -> list[Version]:
        """Let a model go; return the versions that are still there until their leases are back.

        Raises:
            ModelNotFoundError: there is no such model.
        """
        assert self._house.process.lock.mine()
        entry = self._wishes.find(name)
        self._let_go(entry, "unloaded by request", todo)
        return list(entry.retired)

    def remove(self, entry: Entry, todo: Todo) -> None:
        """Take a model out of the catalogue."""
        assert self._house.process.lock.mine()
        self._let_go(entry, "it is not in the catalogue any more", todo)

    def _let_go(self, entry: Entry, reason: str, todo: Todo) -> None:
        versions, entry.incoming = (entry.incoming, entry.current), None
        for version in filter(None, versions):
            if version.order is not None:
                self._house.give_up(version.order, reason, todo)
            elif version in self._house.tables.active:
                self._ways.retire(version, reason, todo)
        self._wishes.fail_waiting(entry, ModelUnavailableError(entry.name, reason, 0.0), todo)

    def close(self, todo: Todo) -> None:
        """Refuse new leases, and let everything go."""
        assert self._house.process.lock.mine()
        self._house.closed = True
        for entry in self._house.each():
            self._wishes.fail_waiting(entry, ClosedError(entry.name), todo)
            self._let_go(entry, "the repository is closed", todo)

    def after_fork(self) -> None:
        """Start without loads in a forked child: the threads that were at them are not in it."""
        assert self._house.process.lock.mine()
        self._house.rooms.after_fork()
        nobody = Todo()  # who waited was in the parent
        for order in list(self._house.tables.orders):
            order.threads = 0
            self._house.end(order)
            self._house.move(order.version, "failed", "the process forked while it was loading")
        for version in list(self._house.tables.releasing):
            self._ways.released(version, nobody)
        for entry in self._house.each():
            entry.waiting.clear()
            entry.incoming = None
            entry.threads = 0
            self._switching.look_later(entry.current)


def _measured(order: Order, report: LoadReport) -> Sizes:
    """Return what a model holds: by its own word, but no less than the operator has declared.

    Many a module knows the size of its files only, or of its weights without what they grow to.
    """
    assert order.need is not None
    observed, declared = report.observed, order.version.declared
    if observed.memory_bytes is None:
        return order.need
    device = observed.device or next(iter(order.need), order.version.kept.device)
    if device not in declared:
        return {device: observed.memory_bytes}
    return {**declared, device: max(declared[device], observed.memory_bytes)}
