"""Which loads are watched for process-wide state they change, and who may put it back and when."""

from __future__ import annotations

from ..guard import GARBAGE_COLLECTOR, PYTHON, SWITCH_INTERVAL, ProcessGlobal
from .flight import Turn
from .process import Process
from .slots import Guard
from .todo import Todo


class Restoring:
    """Lets a load put back what it has changed, where nobody else can be in the way.

    Args:
        process: who is in a load.
        guard: which loads are watched.
    """

    def __init__(self, process: Process, guard: Guard) -> None:
        self._process = process
        self._guard = guard
        # What other loads have anyload set meanwhile is no change of the load that is watched.
        ours = {
            GARBAGE_COLLECTOR: process.interpreter.collects,
            SWITCH_INTERVAL: process.interpreter.switch_interval,
        }
        self._python = tuple(
            ProcessGlobal(one.name, ours[one.name]) if one.name in ours else one for one in PYTHON
        )

    def watched(self, turn: Turn) -> tuple[ProcessGlobal, ...]:
        """Return the process-wide state to look at before and after a load."""
        implementation = turn.candidate.implementation
        grouped = implementation.exclusive_group is not None
        if self._guard == "all" or (self._guard == "groups" and grouped):
            return (*self._python, *implementation.process_globals)
        return ()

    def may_begin(self, turn: Turn) -> bool:
        """Return whether a load may put things back; then no other load begins until it ends."""
        assert self._process.lock.mine()
        if not self._process.alone(turn.root):
            return False
        self._process.restoring = turn
        return True

    def ended(self, turn: Turn, todo: Todo) -> None:
        """A turn has ended, or is past its limit: loads may begin again, if it kept them."""
        assert self._process.lock.mine()
        if self._process.restoring is turn:
            self._process.restoring = None
            todo.worker = todo.elsewhere = True
