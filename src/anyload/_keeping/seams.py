"""What the parts of the repository are to each other."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from .._load.todo import Todo
from ..errors import MemoryBudgetError
from .records import Order, Version


class Loads(Protocol):
    """What loads and releases for the keeper; every method is called under the lock."""

    def begin(self, order: Order, todo: Todo) -> None:
        """Have a version loaded; `Keeper.landed` or `Keeper.failed` will be called."""
        ...

    def hasten(self, order: Order) -> None:
        """Let a load go earlier: its priority has risen."""
        ...

    def leave(self, order: Order, todo: Todo) -> None:
        """Forget a load that has not begun, or whose `begin` raised; nothing will be called."""
        ...

    def release(self, version: Version, todo: Todo) -> None:
        """Have a version released; `Keeper.released` will be called."""
        ...

    def ask_again(self, todo: Todo) -> None:
        """Have the admission asked again about loads that it refused."""
        ...

    def later(self, call: Callable[[Todo], None]) -> None:
        """Call this in a transition of its own, as soon as this one is over."""
        ...


class Landlord(Protocol):
    """What does what the rooms decide; every method is called under the lock."""

    def evict(self, version: Version, reason: str, todo: Todo) -> None:
        """Let a loaded version go, because memory is needed."""
        ...

    def make_way(self, order: Order, todo: Todo) -> bool:
        """Let the old version go before its new one comes, if that is the setting."""
        ...

    def waits(self, order: Order, reason: str) -> None:
        """Take note that a load waits for memory, and why."""
        ...

    def refuse(self, order: Order, error: MemoryBudgetError, todo: Todo) -> None:
        """End a load for which there is no room."""
        ...
