"""What may take a step next in the world of the model test."""

from __future__ import annotations

from home import Home
from played_callers import Caller
from played_threads import InLoad, Worker
from world import World

from anyload._load.flight import Turn


def in_load(world: World) -> list[Worker]:
    return [worker for worker in world.workers if worker.in_load]


def wanted(world: World) -> list[Worker]:
    """Return the workers that are in a module's code for somebody, within their limits."""
    return [
        worker
        for worker in in_load(world)
        if isinstance(frame := worker.frames[-1], InLoad)
        and frame.turn.phase == "running"
        and not frame.turn.cancelled
    ]


def stuck(world: World) -> list[Worker]:
    """Return the workers that are in a module's code, and past their limits."""
    return [worker for worker in in_load(world) if worker.stuck]


def loading(world: World) -> list[Worker]:
    """Return the workers that are in a load, wherever inside."""
    return [
        worker for worker in world.workers if worker.frames and isinstance(worker.frames[0], InLoad)
    ]


def handed_over(world: World) -> list[tuple[Home, Turn]]:
    return [(home, turn) for home in world.homes for turn in home.core.turns.handed_over]


def out_of_load(world: World) -> list[Worker]:
    return [worker for worker in world.workers if worker.out_of_load]


def in_step(world: World) -> list[Worker]:
    return [worker for worker in world.workers if worker.in_step]


def in_wait(world: World) -> list[Worker]:
    return [worker for worker in world.workers if worker.in_wait]


def may_look(world: World) -> list[Worker]:
    return [worker for worker in world.workers if worker.may_look]


def coming(world: World) -> list[Worker]:
    return [worker for worker in world.workers if worker.coming]


def idle(world: World) -> list[Worker]:
    return [worker for worker in world.workers if worker.idle]


def may_leave(world: World) -> list[Caller]:
    return [
        caller
        for caller in world.waiting()
        if caller.bulk is None
        and not caller.nested
        and not (caller.loop is not None and caller.loop.ended)
    ]


def may_take(world: World) -> list[Caller]:
    return [
        caller
        for caller in world.waiting()
        if not caller.nested
        and caller.woken
        and not (caller.loop is not None and caller.loop.ended)
    ]
