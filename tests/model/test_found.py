"""What the model test has found, each as a plain history."""

from __future__ import annotations

from home import Home, Settings
from played_callers import Caller
from played_modules import MODELS
from promises import check
from world import World

from anyload import ClosedError, LoadError, LoadTimeoutError


def settle(world: World, *, loads: bool = False) -> None:
    """Let everything come to its end that can; of loads, only where that is asked for."""
    for _ in range(20):
        for worker in world.workers:
            if worker.coming:
                world.arrive(worker)
            elif worker.in_step:
                world.end_step(worker, "ok")
            elif loads and worker.in_load:
                world.end_load(worker, "value")
                world.tell(worker)
    check(world)


def load(world: World, home: Home, model: str) -> None:
    assert model in MODELS
    world.ask(home, model, "path", None, 0)
    settle(world)


def test_a_stuck_holder_is_seen_behind_one_that_is_not() -> None:
    """A load that needs two things fails at once if a stuck load has either, whoever has the other.

    It has no timeout to wait with. It waited, until whoever had the first let go of it.
    """
    world = World(Settings(slots=2, abandoned=0, load_timeout=15.0))
    home = world.homes[0]
    load(world, home, "gil 1")
    world.advance(15.0)
    world.ring(home)  # overdue, and still in the lane
    load(world, home, "left 2")  # its group is taken, by a load within its limits
    needs_both = world.ask(home, "gil 2", "path", None, 0)
    settle(world)
    assert needs_both is not None
    assert needs_both.woken
    world.take(needs_both)
    assert isinstance(needs_both.error, LoadError)
    (attempt,) = (one for one in needs_both.error.attempts if one.outcome != "skipped")
    assert "waited for the load of 'gil 1'" in attempt.reason


def timed_out_and_handed_over(world: World) -> Caller:
    """Have a load pass its limit on the first backend, and hand its slot to the second."""
    home = world.homes[0]
    caller = world.ask(home, "plain 1", "path", None, 0)
    assert caller is not None
    settle(world)
    world.advance(6.0)
    world.ring(home)
    assert len(home.core.turns.handed_over) == 1
    return caller


def test_what_no_thread_has_come_to_is_not_left_behind_when_its_time_is_up() -> None:
    """A load that was handed a slot, and whose time is up before a thread comes, just ends.

    It was abandoned, or overdue where the cap was reached: a thread that there was not.
    """
    world = World(Settings(slots=1, abandoned=1, load_timeout=7.0, gpu=(6.0, None)))
    home = world.homes[0]
    caller = timed_out_and_handed_over(world)
    world.advance(1.0)
    world.ring(home)
    check(world)
    assert home.core.flights.slots.free == 1
    assert len(home.core.flights.slots.abandoned) == 1  # the thread of the first backend
    world.take(caller)
    assert isinstance(caller.error, LoadTimeoutError)


def test_a_close_leaves_behind_no_load_that_no_thread_has_come_to() -> None:
    """The end of a close's grace takes the slot back, and the caller hears of the close."""
    world = World(Settings(slots=1, abandoned=1, gpu=(6.0, None)))
    home = world.homes[0]
    caller = timed_out_and_handed_over(world)
    world.close(home, 0.0)
    check(world)
    assert len(home.core.flights.slots.abandoned) == 1  # the thread of the first backend
    world.take(caller)
    assert isinstance(caller.error, ClosedError)


def test_a_close_does_not_let_a_load_that_it_leaves_hold_up_the_process() -> None:
    """Nobody's load begins while one puts back what it has changed, but for one that was left.

    The close of its initializer left the thread alone with that, and everybody else waited.
    """
    world = World(Settings(), homes=2)
    left, other = world.homes
    load(world, left, "local 1")
    (worker,) = (one for one in world.workers if one.in_load)
    world.end_load(worker, "value")
    world.put_back(worker)
    load(world, other, "local 1")  # waits for it
    assert not other.core.flights.slots.taken
    world.close(left, 0.0)
    settle(world)
    assert len(other.core.flights.slots.taken) == 1


def test_who_waits_inside_a_load_that_a_close_cuts_waits_no_more() -> None:
    """Also where the load is another initializer's, and somebody else still wants that model."""
    world = World(Settings(), homes=2)
    cut, other = world.homes
    load(world, cut, "plain 1")
    (worker,) = (one for one in world.workers if one.in_load)
    load(world, other, "left 1")  # has the group of what is asked for last
    world.nest(worker, other, "plain 1", "path")
    settle(world)
    world.look(worker)
    world.ask(other, "plain 1", "path", None, 0)
    world.nest(worker, other, "left 2", "path")
    settle(world)
    world.look(worker)
    world.close(cut, 0.0)
    world.note_lost()
    check(world)
