"""What a worker thread does: `run` without the lock, then `finish` under it."""

from __future__ import annotations

import logging
import os
from typing import Protocol

from ..contracts import Backend
from ..errors import ModelNotFoundError, describe
from .call import failed, run_turn
from .errands import errand
from .flight import Flight, Known, Resolved, Turn
from .flights import Flights
from .prefetching import Prefetching
from .preparations import Preparation, Preparations, Raised
from .read_ahead import free_memory, read_ahead
from .releases import Release, Releases
from .result import Result
from .stacks import error_stack, forget_frames
from .todo import Todo
from .turns import Turns

logger = logging.getLogger("anyload.loads")

SHARE_OF_FREE_MEMORY = 4
"""Models that are ahead of their loads may take one part in so many."""


class Task(Protocol):
    """One piece of work."""

    def run(self) -> None:
        """Do it; it may take as long as it takes, and nothing it raises gets out."""
        ...

    def finish(self, todo: Todo) -> None:
        """Tell the state machine, under the lock."""
        ...


class LoadTask:
    """Run one attempt."""

    __slots__ = ("_result", "_turn", "_turns", "_warmup")

    def __init__(self, turn: Turn, turns: Turns, warmup: bool) -> None:
        self._turn = turn
        self._turns = turns
        self._warmup = warmup
        self._result: Result | None = None

    def run(self) -> None:
        """Call ``load``."""
        try:
            self._result = run_turn(self._turn, warmup=self._warmup)
        except BaseException as error:
            # What a load raises does not come out there. Should anything, then its callers must
            # hear of it and its slot be free again.
            logger.exception("the load of %r ended outside of it", self._turn.flight.model)
            self._result = failed(error)

    def finish(self, todo: Todo) -> None:
        """Hand in the result."""
        turn, result = self._turn, self._result
        assert result is not None
        del self._turn, self._result  # an error that is kept leads to the frame of run()
        self._turns.ended(turn, result, todo)
        todo.dropped.append(turn)  # it leads to what its callers gave


class ReadTask:
    """Find out what a model is: its config, its real path, its size, its plan."""

    __slots__ = ("_flight", "_found", "_flights", "_resolve")

    def __init__(self, flight: Flight, flights: Flights) -> None:
        assert flight.resolve is not None
        self._flight = flight
        self._flights = flights
        self._resolve = flight.resolve
        self._found: Resolved | Known | Exception | None = None

    def run(self) -> None:
        """Read from disk."""
        try:
            with errand(f"the lookup of {self._flight.model!r}"):
                self._found = self._resolve()
        except Exception as error:
            forget_frames(error)
            self._found = error
        except BaseException as error:
            # A SystemExit out of a caller's path object must not end the thread.
            forget_frames(error)
            self._found = ModelNotFoundError(self._flight.model, describe(error))
            self._found.__cause__ = error

    def finish(self, todo: Todo) -> None:
        """Let the flight go on."""
        flight, found = self._flight, self._found
        assert found is not None
        todo.dropped += (flight, self._resolve, found)  # they lead to what its callers gave
        # An error that is kept leads to the frame of run().
        del self._flight, self._resolve, self._found
        self._flights.lookups.ended(flight)
        self._flights.resolved(flight, found, todo)


class PrefetchTask:
    """Read ahead what a load will read.

    Args:
        flight: whose load.
        ahead: the bytes of all models that are ahead of their loads, with this one.
        prefetching: hears of the end.
    """

    __slots__ = ("_ahead", "_flight", "_full", "_prefetching")

    def __init__(self, flight: Flight, ahead: int, prefetching: Prefetching) -> None:
        self._flight = flight
        self._ahead = ahead
        self._full = False
        self._prefetching = prefetching

    def run(self) -> None:
        """Ask the module which files those are, and read them while somebody wants the model."""
        flight = self._flight
        weight_files = flight.candidate.implementation.weight_files
        assert weight_files is not None
        assert flight.config is not None
        try:
            paths = [os.fspath(path) for path in weight_files(flight.config)]
            # What the loads need themselves, and what others hold in the cache, needs room too.
            self._full = self._ahead > free_memory() // SHARE_OF_FREE_MEMORY
            if not self._full:
                read_ahead(paths, lambda: flight.phase != "settled")
        except BaseException as error:
            logger.debug("reading ahead for %r ended early: %s", flight.model, describe(error))

    def finish(self, todo: Todo) -> None:
        """Let the next one be read ahead."""
        self._prefetching.ended(self._flight, full=self._full)


class PrepareTask:
    """Run a ``prepare``, or the ``start`` of a backend."""

    __slots__ = ("_preparation", "_preparations", "_raised")

    def __init__(self, preparation: Preparation, preparations: Preparations) -> None:
        self._preparation = preparation
        self._preparations = preparations
        self._raised: Raised | None = None

    def run(self) -> None:
        """Call it."""
        try:
            with errand(self._preparation.what):
                self._preparation.run()
        except BaseException as error:
            forget_frames(error)
            # Described here: its text is made by somebody else's code, which has no place under
            # the lock.
            self._raised = Raised(error, describe(error), error_stack(error))

    def finish(self, todo: Todo) -> None:
        """Let those who waited go on, to the load or to the next backend."""
        self._preparations.ended(self._preparation, self._raised, todo)


class ReleaseTask:
    """Give back a model that nobody can use."""

    __slots__ = ("_release", "_releases")

    def __init__(self, release: Release, releases: Releases) -> None:
        self._release = release
        self._releases = releases

    def run(self) -> None:
        """Call its ``release`` and drop it."""
        try:
            with errand(f"the release of {self._release.model!r}"):
                self._release.run()
        except BaseException:
            logger.exception("release of %r raised", self._release.model)

    def finish(self, todo: Todo) -> None:
        """Give back what it held."""
        self._releases.ended(self._release, todo)


class StopTask:
    """Stop a backend at close."""

    __slots__ = ("_backend", "_preparations")

    def __init__(self, backend: Backend, preparations: Preparations) -> None:
        self._backend = backend
        self._preparations = preparations

    def run(self) -> None:
        """Call its ``stop``."""
        try:
            with errand(f"stop() of backend {self._backend.backend_type}"):
                self._backend.stop()
        except BaseException:
            logger.exception("stop() of backend %s raised", self._backend.backend_type)

    def finish(self, todo: Todo) -> None:
        """One fewer to wait for."""
        self._preparations.stopping -= 1
