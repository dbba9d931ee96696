"""What the model test has found, each as a plain history."""

from __future__ import annotations

from home import Home, Settings
from played_modules import MODELS
from promises import check
from world import World

from anyload import LoadError


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
