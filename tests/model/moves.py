"""The steps of the model test, one for each thing that can happen, and the look after each."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Callable
from typing import TypeVar

from at_hand import (
    coming,
    handed_over,
    idle,
    in_load,
    in_step,
    in_wait,
    may_leave,
    may_look,
    may_take,
    out_of_load,
    wanted,
)
from home import Home, Settings
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from outcomes import check_outcome, check_the_end
from played_callers import Caller
from played_modules import LOAD_ENDS, MODELS, STEP_ENDS, LoadEnd, StepEnd
from played_threads import InLoad, InStep, Waits, Worker
from promises import check
from view import View, order
from world import World

from anyload._load.flight import Flight

T = TypeVar("T")

SHRINKS = os.environ.get("MODEL_SHRINKS", "yes") == "yes"


def histories(runs: int, steps: int) -> settings:
    """Return the settings for some histories of so many steps each."""
    return settings(
        max_examples=runs,
        stateful_step_count=steps,
        phases=[phase for phase in Phase if SHRINKS or phase is Phase.generate],
        suppress_health_check=list(HealthCheck),
    )


picks = st.integers(0, 63)
homes = st.sampled_from([0, 0, 0, 1])
models = st.integers(0, 31)
hows = st.sampled_from(["path", "path", "path", "slash", "config", "key", "plan"])
nested_hows = st.sampled_from(["path", "path", "path", "slash", "key"])
loops = st.sampled_from([None, 0, 0, 1])
load_ends = st.sampled_from(LOAD_ENDS)
step_ends = st.sampled_from(STEP_ENDS)
limits = st.sampled_from([6.0, 6.0, 10.0, None])
DEEPEST = 3
ENDS: tuple[LoadEnd | None, ...] = (None, "raises", "told", "value")


def picked(things: list[T], pick: int) -> T:
    return things[pick % len(things)]


def when(
    condition: Callable[[World], object],
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Return a precondition on the world."""
    return precondition(lambda machine: bool(condition(machine.world)))


class Moves(RuleBasedStateMachine):
    """Every step that a thread, a caller or the time can make."""

    world: World
    view: View | None = None

    @initialize(
        slots=st.integers(1, 3),
        abandoned=st.sampled_from([1, 1, 2, 0]),
        load_timeout=st.sampled_from([None, None, 15.0]),
        prepare_timeout=st.sampled_from([7.0, 7.0, None]),
        release_timeout=st.sampled_from([7.0, 7.0, None]),
        gpu=st.tuples(limits, st.sampled_from([None, 4.0])),
        local=st.tuples(limits, st.sampled_from([None, 4.0])),
        next_on_error=st.sampled_from([True, True, True, False]),
        warmup=st.sampled_from([True, True, False]),
        admission=st.booleans(),
        favourites=st.lists(st.sampled_from(list(MODELS)), min_size=2, max_size=4, unique=True),
    )
    def begin(self, favourites: list[str], **configured: object) -> None:
        self.world = self.begin_world(Settings(**configured))  # type: ignore[arg-type]
        # Loads get into each other's way where many ask for few models.
        self.models = [*(favourites * 5)[: 32 - len(MODELS)], *MODELS]

    def begin_world(self, configured: Settings) -> World:
        return World(configured)

    def _model(self, number: int) -> str:
        return self.models[number % len(self.models)]

    # Callers

    @rule(
        home=homes,
        model=models,
        how=hows,
        loop=loops,
        priority=st.sampled_from([0, 0, 1]),
        raced=st.booleans(),
    )
    def ask(
        self, home: int, model: int, how: str, loop: int | None, priority: int, raced: bool
    ) -> None:
        world = self.world
        bell = None if loop is None else world.loops[loop]
        world.ask(world.homes[home], self._model(model), how, bell, priority, raced)

    @rule(home=homes, names=st.lists(models, min_size=1, max_size=5), loop=st.integers(0, 1))
    def ask_for_many(self, home: int, names: list[int], loop: int) -> None:
        world = self.world
        named = [self._model(number) for number in names]
        spelled = dict.fromkeys(
            name + "/" * (name in named[:place]) for place, name in enumerate(named)
        )
        world.ask_for_many(world.homes[home], list(spelled), world.loops[loop])

    def _leave_all(self, flight: Flight) -> None:
        for caller in may_leave(self.world):
            if caller.seat.flight is flight:
                self.world.leave(caller)

    @when(may_leave)
    @rule(pick=picks)
    def leave(self, pick: int) -> None:
        self.world.leave(picked(may_leave(self.world), pick))

    @when(lambda world: [bulk for bulk in world.bulks if not bulk.left])
    @rule(pick=picks)
    def leave_bulk(self, pick: int) -> None:
        bulks = [bulk for bulk in self.world.bulks if not bulk.left]
        self.world.leave_bulk(picked(bulks, pick))

    @when(may_take)
    @rule(pick=picks)
    def take(self, pick: int) -> None:
        self._take(picked(may_take(self.world), pick))

    @when(may_take)
    @rule()
    def take_all(self) -> None:
        for caller in may_take(self.world):
            self._take(caller)

    def _take(self, caller: Caller) -> None:
        self.world.take(caller)
        check_outcome(self.world, caller)

    # Threads

    @when(coming)
    @rule(pick=picks)
    def arrive(self, pick: int) -> None:
        self._arrive(picked(coming(self.world), pick))

    @when(coming)
    @rule(hang=st.sampled_from(["nothing", "steps", "reads"]))
    def flow(self, hang: str) -> None:
        """Every worker arrives, and everything but loads comes to its end, or hangs."""
        self._flow(hang)

    def _flow(self, hang: str = "nothing") -> None:
        for _ in range(8):
            for worker in coming(self.world):
                self._arrive(worker)
            for worker in in_step(self.world):
                frame = worker.frames[-1]
                assert isinstance(frame, InStep)
                if hang == "nothing" or (hang == "steps") == (frame.reads is not None):
                    self.world.end_step(worker, "ok")

    def _arrive(self, worker: Worker) -> None:
        world, home = self.world, worker.home
        view = View(world)
        best = min(map(order, view.startable(home)), default=None)
        # A slot may come back on the way: of a load that nobody wants by now, or by abandoning.
        simple = not (home.core.turns.handed_over or home.core.flights.slots.overdue)
        world.arrive(worker)
        if worker.frames and simple:
            frame = worker.frames[0]
            if isinstance(frame, InLoad):
                assert order(frame.turn.flight) == best, "another one was to go first"

    @when(in_load)
    @rule(pick=picks, end=load_ends)
    def end_load(self, pick: int, end: LoadEnd) -> None:
        worker = picked(in_load(self.world), pick)
        self.world.end_load(worker, end)
        self.world.tell(worker)

    @when(in_load)
    @rule(pick=picks, end=load_ends, put_back=st.booleans(), model=models)
    def come_out_of_load(self, pick: int, end: LoadEnd, put_back: bool, model: int) -> None:
        """A load has ended, and its thread takes its time to say so."""
        world, worker = self.world, picked(in_load(self.world), pick)
        world.end_load(worker, end)
        if put_back:
            world.put_back(worker)
            world.ask(picked(world.homes, model), self._model(model), "path", world.loops[0], 0)
            self._flow()
            if pick % 2:
                self._pass(10.0)

    @when(out_of_load)
    @rule(pick=picks)
    def tell(self, pick: int) -> None:
        self.world.tell(picked(out_of_load(self.world), pick))

    @when(in_step)
    @rule(pick=picks, end=step_ends)
    def end_step(self, pick: int, end: StepEnd) -> None:
        self.world.end_step(picked(in_step(self.world), pick), end)

    @when(in_load)
    @rule(pick=picks)
    def report(self, pick: int) -> None:
        self.world.report(picked(in_load(self.world), pick))

    @when(in_load)
    @rule(pick=picks)
    def check_cancelled(self, pick: int) -> None:
        self.world.check_cancelled(picked(in_load(self.world), pick))

    @when(in_load)
    @rule(
        pick=picks,
        home=st.integers(0, 1),
        model=models,
        how=nested_hows,
        same=st.booleans(),
        look=st.booleans(),
    )
    def nest(self, pick: int, home: int, model: int, how: str, same: bool, look: bool) -> None:
        """A load asks for another model, perhaps one that some thread loads."""
        world = self.world
        worker = picked((pick % 8 and wanted(world)) or in_load(world), pick)
        if len(worker.frames) >= 2 * DEEPEST:
            return
        where, what = world.homes[home], self._model(model)
        if same:
            where, known = world.asked_for(picked(in_load(world), model))
            what = known or what
        world.nest(worker, where, what, how)
        if look and worker.may_look:
            self._look(worker)
            self._flow()
            if worker.may_look:
                self._look(worker)

    @when(may_look)
    @rule(pick=picks)
    def look(self, pick: int) -> None:
        self._look(picked(may_look(self.world), pick))

    def _look(self, worker: Worker) -> None:
        waits = worker.frames[-1]
        assert isinstance(waits, Waits)
        circle = View(self.world).in_a_circle(worker, waits.seat.flight)
        self.world.look(worker)
        assert not waits.refused or circle, "it would not have waited for itself"
        if waits.caller.ended in ("value", "error"):
            check_outcome(self.world, waits.caller)

    @when(in_wait)
    @rule(pick=picks)
    def give_up(self, pick: int) -> None:
        if pick % 4 == 0:
            self.world.give_up(picked(in_wait(self.world), pick))

    # Time, and what others decide

    @rule(seconds=st.sampled_from([1.0, 3.0, 6.0, 10.0]), late=st.booleans())
    def pass_time(self, seconds: float, late: bool) -> None:
        """Time passes; the watchdogs may be late."""
        if late:
            self.world.advance(seconds)
        else:
            self._pass(seconds)

    def _pass(self, seconds: float) -> None:
        """Time passes, and what is due by then rings."""
        self.all_promises_are_kept()  # what waits since now is to be known
        self.world.advance(max(seconds, 0.0))
        for home in self.world.homes:
            self.world.ring(home)
        self.all_promises_are_kept()

    @rule(then=st.sampled_from(["nothing", "nothing", "nothing", "leave", "leave", "close"]))
    def pass_time_to_the_next_alarm(self, then: str) -> None:
        """A deadline passes, and perhaps nobody wants what was handed over for that any more."""
        world = self.world
        at = min(home.watchdog.wakes_at for home in world.homes)
        if at < math.inf:
            self._pass(at - world.now)
        for home, turn in handed_over(world):
            if then == "leave":
                self._leave_all(turn.flight)
            elif then == "close":
                self._close(home, 20.0)

    @rule(
        what=st.sampled_from(["refuse", "refuse", "admit", "idle", "no threads", "loop"]),
        home=homes,
        model=models,
        pick=picks,
    )
    def rarely(self, what: str, home: int, model: int, pick: int) -> None:
        """What is rare, in one rule: each is a rule to hypothesis, and all are as likely."""
        world, place = self.world, self.world.homes[home]
        match what:
            case "refuse":
                place.admission.refused.add(self._model(model))
            case "admit":
                place.admission.refused.clear()
                place.core.reconsider()
            case "idle" if idle(world):
                world.retire(picked(idle(world), pick))
            case "no threads":
                place.workers.cannot_start = pick % 2 == 0
                place.could_not_start |= place.workers.cannot_start
            case "loop" if pick % 4 == 0:
                world.end_loop(model % 2)

    # The end

    @rule(
        home=homes, grace=st.sampled_from([20.0, 5.0, 0.0]), pick=picks, end=st.sampled_from(ENDS)
    )
    def close(self, home: int, grace: float, pick: int, end: LoadEnd | None) -> None:
        """An initializer is closed, and perhaps one of its loads ends in the grace."""
        if pick % 10:
            return
        self._close(self.world.homes[home], grace)
        own = [one for one in in_load(self.world) if one.home is self.world.homes[home]]
        if end is not None and own:
            self.world.end_load(own[0], end)
            self.world.tell(own[0])

    def _close(self, home: Home, grace: float) -> None:
        """An initializer is closed, and who comes then for what loads is sent away."""
        world = self.world
        world.close(home, grace)
        for worker in in_load(world):
            where, model = world.asked_for(worker)
            if model is not None and where is home:
                world.ask(home, model, "path", world.loops[0], 0)

    @when(lambda world: [home for home in world.homes if home.closer_woken])
    @rule()
    def go_on_closing(self) -> None:
        for home in self.world.homes:
            if home.closer_woken:
                self.world.go_on_closing(home)

    @when(lambda world: [home for home in world.homes if home.closer])
    @rule(home=homes, pick=picks)
    def close_at_once(self, home: int, pick: int) -> None:
        if pick % 8 == 0:
            self.world.close_at_once(self.world.homes[home])

    @when(lambda world: [h for h in world.homes if h.watchdog.dismissed and h.watchdog.running])
    @rule()
    def watchdog_leaves(self) -> None:
        for home in self.world.homes:
            if home.watchdog.dismissed and home.watchdog.running:
                home.watchdog.left()

    # After every step

    @invariant()
    def all_promises_are_kept(self) -> None:
        self.world.note_lost()
        check(self.world)

    def teardown(self) -> None:
        if hasattr(self, "world") and sys.exc_info()[0] is None:
            self._finish()

    def _finish(self) -> None:
        """Everything comes to its end, and nothing is left."""
        world = self.world
        for home in world.homes:
            home.workers.cannot_start = False
            home.admission.refused.clear()
            home.core.reconsider()
        self._let_everything_end()
        for home in world.homes:
            if not home.left:
                world.close(home, 1.0)
        self._let_everything_end()
        for home in world.homes:
            assert home.left, "the close does not come to its end"
            assert home.workers.count == 0
            assert not home.watchdog.running
        check_the_end(world)

    def _let_everything_end(self) -> None:
        for _ in range(200):
            if not self._everything_moves():
                return
            check(self.world)
        raise AssertionError("it does not come to rest")

    def _everything_moves(self) -> bool:
        world, moved = self.world, False
        for worker in world.workers:
            if worker.coming:
                self._arrive(worker)
            elif worker.idle:
                if not worker.dismissed:
                    continue
                world.retire(worker)
            elif worker.in_load:
                world.end_load(worker, "value")
            elif worker.out_of_load:
                world.tell(worker)
            elif worker.in_step:
                world.end_step(worker, "ok")
            elif worker.may_look:
                self._look(worker)
            else:
                continue
            moved = True
        for caller in may_take(world):
            self._take(caller)
            moved = True
        for home in world.homes:
            if home.closer_woken:
                world.go_on_closing(home)
                moved = True
            if home.watchdog.dismissed and home.watchdog.running:
                home.watchdog.left()
                moved = True
        world.note_lost()
        return moved
