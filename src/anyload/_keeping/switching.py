"""Which backend a model is on: a better one is loaded behind it, and the next one if it fails.

Places are those in the backend priority: the lower, the better. What is loaded to take the place of
something that serves is another instance of the same version: leases that are out keep theirs.
"""

from __future__ import annotations

from collections.abc import Callable

from .._load.todo import Todo
from .cool_down import spread
from .house import House
from .records import Entry, Order, Purpose, Version
from .ways_out import WaysOut
from .wishes import PRELOAD_PRIORITY, Wishes


class Switching:
    """What has models change their backend.

    Args:
        house: what is shared.
        ways: how models go.
        wishes: begins the loads.
        interval: how long after one look for a better backend the next one is, in seconds.
        jitter: returns a number between 0 and 1, another each time.
    """

    def __init__(
        self,
        house: House,
        ways: WaysOut,
        wishes: Wishes,
        interval: float,
        jitter: Callable[[], float],
    ) -> None:
        self._house = house
        self._ways = ways
        self._wishes = wishes
        self._interval = interval
        self._jitter = jitter

    # Up

    def came_up(self, order: Order, todo: Todo) -> None:
        """A model serves from now on: have a better backend tried behind it, now or later.

        Now, if one has just failed it: what was in its way may have been for a moment only. What
        was not even tried will not be there a moment later, and who comes from an upgrade has
        had its try.
        """
        version = order.version
        assert version.report is not None
        tried = any(attempt.outcome != "skipped" for attempt in version.report.attempts[:-1])
        if tried and order.purpose != "upgrade" and self._improvable(version):
            self._look(version, todo)
        else:
            self.look_later(version)

    def look_later(self, version: Version) -> None:
        """Look for a better backend for what serves when it is time to, if that is wanted."""
        assert self._house.process.lock.mine()
        self._house.alarms.cancel(version.probe)
        if self._improvable(version):
            at = self._house.clock() + spread(self._interval, self._jitter)
            version.probe = self._house.alarms.set(at, self._look, version)

    def _look(self, version: Version, todo: Todo) -> None:
        """Load what serves on a better backend too, if one may be tried and nothing else is on."""
        entry = version.entry
        wanted = self._improvable(version)  # not any more, if a swap to what wants none is on
        left_out = entry.left_out.at(self._house.clock())
        may_try = any(place not in left_out for place in range(version.place))
        # Where a load hangs for good, each try would leave one more thread behind.
        if not wanted or entry.incoming is not None or entry.threads or not may_try:
            self.look_later(version)
        else:
            better, priority = entry.again(version), entry.kept.priority + PRELOAD_PRIORITY
            if self._order(better, priority, "upgrade", todo, before=version.place):
                entry.incoming = better
            else:
                self.look_later(version)

    def _improvable(self, version: Version) -> bool:
        return version.ready and version.improvable and version.entry.kept.upgrade

    # Down

    def report(self, entry: Entry, model: object, why: str, todo: Todo) -> bool:
        """What serves has failed at run time: let it go, and load the next one in its place.

        Returns:
            Whether this model serves; of another one nothing more need be known.
        """
        assert self._house.process.lock.mine()
        version = entry.current
        if not version.ready or version.value is not model:
            return False
        self._house.counts.reported += 1
        reason = ": ".join(filter(None, ("failed at run time", why)))
        entry.left_out.leave_out(version.place, reason, self._house.clock())
        self._ways.retire(version, reason, todo)
        if entry.incoming is None:
            entry.current = entry.again(version)
            self._order(entry.current, 0, "swap", todo)
        return True

    def _order(
        self,
        version: Version,
        priority: int,
        purpose: Purpose,
        todo: Todo,
        before: int | None = None,
    ) -> bool:
        """Have a version loaded that nobody has asked for; return whether that could begin."""
        try:
            self._wishes.order(version, priority, purpose, todo, before=before)
        except Exception:  # nobody is there to hear of it but the event
            return False
        return True
