"""Who looks on while a seed is played, and writes down what is not as it must be."""

from __future__ import annotations

from abc import ABC, abstractmethod

from .fibers import Machine
from .world import World


class Onlooker(ABC):
    """Looks at a world.

    Args:
        machine: what runs the threads.
        world: what goes on.
    """

    _world: World

    def __init__(self, machine: Machine, world: World) -> None:
        self._machine = machine
        self._world = world
        self.wrong: list[str] = []

    def expect(self, holds: bool, what: str) -> None:
        """Note what is wrong, unless it holds."""
        if not holds:
            self.wrong.append(f"at {self._machine.now():.4f}: {what}")
            self._world.note("WRONG:", what)

    @abstractmethod
    def after_step(self) -> None:
        """Look at what must hold whenever the lock is free."""

    @abstractmethod
    def when_quiet(self) -> None:
        """Look at what must hold when everybody waits for time to pass."""

    @abstractmethod
    def at_the_end(self) -> None:
        """Look at what must hold when everything has come back."""

    @abstractmethod
    def unended(self) -> list[str]:
        """Return the requests that have not ended."""

    def stands_still(self) -> None:
        """Say what nothing happens to any more."""
        self.expect(False, f"nothing will happen any more, and not ended are {self.unended()}")
