"""The core asserts that its lock is held wherever something changes."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from home import Settings
from hypothesis.stateful import run_state_machine_as_test
from machine import Machine
from moves import histories
from world import World

from anyload._load.alarms import Alarms
from anyload._load.interpreter import Interpreter
from anyload._load.key_table import KeyTable
from anyload._load.outbox import Outbox
from anyload._load.queue import Lane
from anyload._load.slots import Slots

ONLY_LOOK = {
    # They change nothing, and are asked where what they tell may be out of date as well.
    "Flights": {"new_batch"},  # a counter, which one step of C moves on
    "Turns": {"now"},
    "Preparations": {"may_begin"},
    "Releases": {"first"},
    "Obstacles": {"of", "stuck"},
    "Restoring": {"watched"},
    "Process": {"obstacle", "alone", "may_import", "hung_import"},
}
PASS_ON = {
    # Their first line is a call of one that asserts.
    "Flights": {"prepared", "changed_hands"},
    "Turns": {"unlinger"},
}
TAKE_IT = {
    # They take the lock themselves, or are there for a child process, which has one thread.
    "Process": {"add", "others", "all_cores", "after_fork"},
    "Turns": {"after_fork"},
}


def parts() -> dict[str, Any]:
    """Return the parts of a core that change under the lock, by the name of their class."""
    world = World(Settings())
    core = world.homes[0].core
    flights = core.flights
    found = (
        *(flights, core.turns, core.turns.restoring, core._dispatch, core.closing),
        *(flights.preparations, flights.releases, flights.lookups, flights.obstacles),
        *(flights.prefetching, world.process),
    )
    return {type(part).__name__: part for part in found}


def transitions() -> Iterator[tuple[str, str]]:
    """Yield the methods that change something, each with its class."""
    for kind, part in parts().items():
        excused = ONLY_LOOK.get(kind, set()) | PASS_ON.get(kind, set()) | TAKE_IT.get(kind, set())
        for name, _ in inspect.getmembers(type(part), inspect.isfunction):
            if not name.startswith("_") and name not in excused:
                yield kind, name


@pytest.mark.parametrize(("kind", "name"), list(transitions()))
def test_a_transition_asserts_that_the_lock_is_held(kind: str, name: str) -> None:
    """Called without the lock, it does nothing: it says so, whatever it was called with."""
    method = getattr(parts()[kind], name)
    given = inspect.signature(method).parameters.values()
    positional = [None for one in given if one.kind is one.POSITIONAL_OR_KEYWORD]
    named = {one.name: None for one in given if one.kind is one.KEYWORD_ONLY}
    with pytest.raises(AssertionError) as raised:
        method(*positional, **named)
    (*_, last) = raised.traceback
    assert "lock.mine()" in str(last.statement)


def test_the_excuses_are_of_methods_that_are_there() -> None:
    """A method that is gone needs no excuse."""
    found = parts()
    for excuses in (ONLY_LOOK, PASS_ON, TAKE_IT):
        for kind, names in excuses.items():
            assert names <= set(dir(found[kind]))


TABLES: tuple[tuple[type, tuple[str, ...]], ...] = (
    (Alarms, ("set", "cancel", "due")),
    (Interpreter, ("begin", "end")),
    (KeyTable, ("claim", "hand_over", "release", "linger", "unlinger")),
    (Outbox, ("put", "warn")),
    (Lane, ("push", "remove", "head", "ask_again")),
    (Slots, ("abandon", "leave")),
)
"""What the parts keep their state in. It knows no lock; whoever calls it has to hold it."""


def test_the_tables_change_under_the_lock_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever happens, no table is changed by a thread that does not hold the lock."""
    world: World | None = None

    def guarded(method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any) -> Any:
            assert world is not None
            assert world.process.lock.mine(), f"{method.__qualname__} without the lock"
            return method(*args)

        return call

    class Watched(Machine):
        def begin_world(self, configured: Settings) -> World:
            nonlocal world
            world = super().begin_world(configured)
            return world

    for table, names in TABLES:
        for name in names:
            monkeypatch.setattr(table, name, guarded(getattr(table, name)))
    monkeypatch.setattr("anyload._load.outbox.log_event", lambda event: None)
    run_state_machine_as_test(Watched, settings=histories(20, 30))
