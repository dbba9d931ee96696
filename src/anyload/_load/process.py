"""What the whole process shares: the lock, exclusive groups, the import phase, fork.

Loaders corrupt each other through process-wide state, so what keeps them apart has to be
process-wide too. This is the only module of anyload with mutable state at module level.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from ..registry import GIL_LANE

if TYPE_CHECKING:
    from .flight import Holder, NestedSeat


class Forkable(Protocol):
    """A core, as the process table knows it."""

    def after_fork(self) -> None: ...

    def reconsider(self) -> None: ...

    @property
    def has_stuck_threads(self) -> bool: ...


class Lock:
    """A lock that knows its holder, so that the core can assert it is held.

    One lock serves every initializer of the process: what it guards is a few lines at a time,
    and groups, nested loads and wait-for edges cross from one initializer to another.
    """

    __slots__ = ("_lock", "_owner", "_put_off")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._owner = 0
        self._put_off: deque[Callable[[], None]] = deque()

    def __enter__(self) -> None:
        self._lock.acquire()
        self._owner = threading.get_ident()

    def __exit__(self, *_: object) -> None:
        self._owner = 0
        self._lock.release()
        while self._put_off:
            self._put_off.popleft()()

    def put_off(self, call: Callable[[], None]) -> None:
        """Have something done by this thread, which holds the lock, once it has let go of it."""
        assert self.mine()
        self._put_off.append(call)

    def mine(self) -> bool:
        """Return whether this thread holds the lock."""
        # Only this thread can set the owner to this thread, so a racy read cannot be wrong.
        return self._owner == threading.get_ident()


class Process:
    """Who holds which exclusive resource, what is being imported, and which cores there are."""

    def __init__(self) -> None:
        self.lock = Lock()
        self.cores: weakref.WeakSet[Forkable] = weakref.WeakSet()
        self._holders: dict[str, Holder] = {}
        self._importing: dict[object, tuple[str, bool]] = {}
        self.nested_seats: dict[NestedSeat, None] = {}
        # The threads in a load; whether no other one has been in one since this one entered.
        self._in_loads: dict[Holder, bool] = {}
        # Who puts back what its load has changed; until then no other load may begin.
        self.restoring: Holder | None = None

    def others(self, core: Forkable) -> list[Forkable]:
        """Return the cores of the other initializers."""
        return [other for other in self.all_cores() if other is not core]

    def add(self, core: Forkable) -> None:
        """Take a new initializer's core into the table, for as long as it lives."""
        with self.lock:
            self.cores.add(core)

    def all_cores(self) -> list[Forkable]:
        """Return the cores of all initializers."""
        with self.lock:
            return list(self.cores)

    def after_fork(self) -> None:
        """Start anew in a child: the parent's threads are not there to give anything back."""
        self.lock = Lock()
        self._holders = {}
        self._importing = {}
        self.nested_seats = {}
        self._in_loads = {}
        self.restoring = None
        for core in list(self.cores):
            core.after_fork()

    def obstacle(self, resources: tuple[str, ...], root: Holder | None) -> Holder | None:
        """Return a turn of another thread that holds one of these resources."""
        for resource in resources:
            holder = self._holders.get(resource)
            if holder is not None and holder.root is not root:
                return holder
        return None

    def hold(self, resources: tuple[str, ...], holder: Holder) -> None:
        """Give it what its own thread does not hold yet; there must be no obstacle."""
        assert self.lock.mine()
        for resource in resources:
            if resource not in self._holders:
                self._holders[resource] = holder
                holder.holds.append(resource)

    def let_go(self, holder: Holder) -> bool:
        """Take back what it holds; return whether it held anything."""
        assert self.lock.mine()
        held = bool(holder.holds)
        for resource in holder.holds:
            del self._holders[resource]
        holder.holds.clear()
        return held

    def let_go_of_lane(self, holder: Holder) -> bool:
        """Take back the lane of ``holds_gil`` only; return whether it was held."""
        assert self.lock.mine()
        if GIL_LANE not in holder.holds:
            return False
        holder.holds.remove(GIL_LANE)
        del self._holders[GIL_LANE]
        return True

    def load_entered(self, root: Holder) -> None:
        """A thread is in a load: those that are in one already are not alone any more."""
        assert self.lock.mine()
        alone = not self._in_loads
        for other in self._in_loads:
            self._in_loads[other] = False
        self._in_loads[root] = alone

    def load_left(self, root: Holder) -> None:
        """A thread is out of its load."""
        assert self.lock.mine()
        self._in_loads.pop(root, None)

    def alone(self, root: Holder) -> bool:
        """Return whether no other load has run at any time since this one entered."""
        return self._in_loads.get(root, False)

    def may_import(self, package: str) -> bool:
        """Return whether an import may begin: none is running, none of this package hangs."""
        return all(hung and name != package for name, hung in self._importing.values())

    def hung_import(self, package: str) -> bool:
        """Return whether an import of this package is past its limit and still running."""
        return any(hung and name == package for name, hung in self._importing.values())

    def import_began(self, owner: object, package: str) -> None:
        """Enter the import phase."""
        assert self.lock.mine()
        self._importing[owner] = (package, False)

    def import_hangs(self, owner: object) -> None:
        """Let imports of other packages go on: this one is past its limit."""
        assert self.lock.mine()
        package, _ = self._importing[owner]
        self._importing[owner] = (package, True)

    def import_ended(self, owner: object) -> None:
        """Leave the import phase."""
        assert self.lock.mine()
        self._importing.pop(owner, None)


process = Process()

if hasattr(os, "register_at_fork"):  # pragma: no branch  # Windows cannot fork
    os.register_at_fork(after_in_child=process.after_fork)
