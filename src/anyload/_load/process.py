"""What the whole process shares: the lock, exclusive groups, the import phase, fork.

Loaders corrupt each other through process-wide state, so what keeps them apart has to be
process-wide too. This is the only module of anyload with mutable state at module level.
"""

from __future__ import annotations

import _thread
import logging
import os
import threading
import weakref
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from ..registry import GIL_LANE
from .interpreter import Interpreter
from .own_threads import leave_own_thread

if TYPE_CHECKING:
    from .flight import Holder, NestedSeat


logger = logging.getLogger("anyload.loads")


class Forkable(Protocol):
    """A core, as the process table knows it."""

    def after_fork(self) -> None: ...

    def reconsider(self) -> None: ...

    @property
    def has_stuck_threads(self) -> bool: ...


class Lock(_thread.RLock):  # type: ignore[misc]  # final in typeshed, not in CPython
    """A lock that knows its holder, so that the core can assert it is held.

    One lock serves every initializer of the process: what it guards is a few lines at a time,
    and groups, nested loads and wait-for edges cross from one initializer to another.

    It is entered and left in C: a KeyboardInterrupt between the lines of an ``__enter__`` or
    ``__exit__`` in Python would leave it locked for ever. It can be entered again by its holder,
    and must not be: the garbage collector, run by an allocation under the lock, may close a
    coroutine that wants it, and would find a transition half done. Such a call is put off.
    """

    def __init__(self) -> None:
        self._put_off: deque[Callable[[], None]] = deque()

    # What threading.Condition asks of its lock, in C; there is no public name for it.
    mine: Callable[[], bool] = _thread.RLock._is_owned  # type: ignore[attr-defined]
    """Return whether this thread holds the lock."""

    def put_off(self, call: Callable[[], None]) -> None:
        """Have something done that wants the lock, which this thread holds, once it is free."""
        assert self.mine()
        self._put_off.append(call)

    def catch_up(self) -> None:
        """Do what was put off; whoever has just let go of the lock calls this."""
        while self._put_off:
            try:
                call = self._put_off.popleft()
            except IndexError:  # another thread was faster
                return
            try:
                call()
            except Exception:
                logger.exception("what was put off under the lock raised")


class Process:
    """Who holds which exclusive resource, what is being imported, and which cores there are."""

    def __init__(self) -> None:
        self.lock = Lock()
        self.cores: weakref.WeakSet[Forkable] = weakref.WeakSet()
        self._holders: dict[str, Holder] = {}
        self._importing: dict[object, tuple[str, bool]] = {}
        self.nested_seats: dict[NestedSeat, None] = {}
        # Who is in code of a module's or a backend's, such as a load, a prepare or a release;
        # whether nobody else has been since.
        self._inside: dict[object, bool] = {}
        self.interpreter = Interpreter()
        # Who puts back what its load has changed; until then nobody else may enter such code.
        self.restoring: Holder | None = None
        # Held while something is made that there must be one of; it may take its time.
        self.making = threading.Lock()

    def others(self, core: Forkable) -> list[Forkable]:
        """Return the cores of the other initializers."""
        return [other for other in self.all_cores() if other is not core]

    def add(self, core: Forkable) -> None:
        """Take a new initializer's core into the table, for as long as it lives."""
        with self.lock:
            self.cores.add(core)
        self.lock.catch_up()

    def all_cores(self) -> list[Forkable]:
        """Return the cores of all initializers."""
        with self.lock:
            cores = list(self.cores)
        self.lock.catch_up()
        return cores

    def after_fork(self) -> None:
        """Start anew in a child: the parent's threads are not there to give anything back."""
        leave_own_thread()
        self.lock = Lock()
        self._holders = {}
        self._importing = {}
        self.nested_seats = {}
        self._inside = {}
        self.interpreter.end_all()
        self.restoring = None
        self.making = threading.Lock()
        for core in list(self.cores):
            core.after_fork()

    def obstacle(self, resources: tuple[str, ...]) -> Holder | None:
        """Return who holds one of these, one past its limit first; it is asked for every lane."""
        found = None
        for resource in resources:
            holder = self._holders.get(resource)
            if holder is not None:
                if holder.stuck:
                    return holder
                found = found or holder
        return found

    def obstacles(self, resources: tuple[str, ...], root: Holder) -> list[Holder]:
        """Return those of other threads that hold any of these."""
        assert self.lock.mine()
        holders = map(self._holders.get, resources)
        return [one for one in holders if one is not None and one.root is not root]

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

    def entered(self, owner: object) -> None:
        """A thread is in somebody's code: whoever is in theirs already is not alone any more."""
        assert self.lock.mine()
        alone = not self._inside
        for other in self._inside:
            self._inside[other] = False
        self._inside[owner] = alone

    def left(self, owner: object) -> None:
        """A thread is out of that code."""
        assert self.lock.mine()
        self._inside.pop(owner, None)

    def alone(self, owner: object) -> bool:
        """Return whether nobody else has been in such code at any time since this one entered."""
        return self._inside.get(owner, False)

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
