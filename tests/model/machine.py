"""The model test: hypothesis moves the world on, and looks after each step.

A failing history is printed as a program, and as a blob for ``@reproduce_failure``. The steps in
`moves.py` would do; these here are several of them at once, for what they would seldom come to.
"""

from __future__ import annotations

from at_hand import coming, in_load, in_step, loading, may_leave, may_look, may_take, stuck, wanted
from hypothesis import strategies as st
from hypothesis.stateful import rule
from moves import DEEPEST, Moves, homes, models, nested_hows, picked, picks, when
from played_modules import MODELS
from played_threads import InLoad
from world import World

few = st.lists(models, min_size=2, max_size=4)


def nothing_is_wanted(world: World) -> bool:
    return not wanted(world)


class Machine(Moves):
    """Any history that the threads, the callers and the time can bring about."""

    @rule(home=homes, names=few, hang=st.sampled_from(["nothing", "nothing", "steps", "reads"]))
    def ask_and_begin(self, home: int, names: list[int], hang: str) -> None:
        """Some callers ask, and everything but loads comes to its end, or hangs."""
        world = self.world
        for place, number in enumerate(names):
            how = ("path", "slash")[place % 2]
            world.ask(world.homes[home], self._model(number), how, world.loops[0], 0)
        self._flow(hang)

    @when(nothing_is_wanted)
    @rule(home=homes, names=few)
    def begin_anew(self, home: int, names: list[int]) -> None:
        """What is stuck comes back, and callers ask: most of what can happen is while one loads."""
        self._come_back()
        self._ask(home, names)

    @when(nothing_is_wanted)
    @rule(home=homes, names=few)
    def begin_beside(self, home: int, names: list[int]) -> None:
        """Callers ask while nothing loads but what is stuck."""
        self._ask(home, names)

    @when(nothing_is_wanted)
    @rule(home=homes, name=models)
    def begin_one(self, home: int, name: int) -> None:
        """Two callers ask for one model."""
        self._ask(home, [name, name])

    def _ask(self, home: int, names: list[int]) -> None:
        world = self.world
        for number in names:
            world.ask(world.homes[home], self._model(number), "path", world.loops[0], 0)
        self._flow()

    @when(in_load)
    @rule(pick=picks, how=st.sampled_from(["path", "slash"]), begin=st.booleans())
    def ask_for_what_loads(self, pick: int, how: str, begin: bool) -> None:
        """One more caller asks for a model that a thread loads, and that may be given up."""
        world = self.world
        home, model = world.asked_for(picked(in_load(world), pick))
        if model is not None:
            world.ask(home, model, how, world.loops[0], 1)
        if begin:
            self._flow()

    @when(loading)
    @rule(pick=picks, told=st.booleans())
    def leave_what_loads(self, pick: int, told: bool) -> None:
        """All callers of a load are cancelled, and it may hear of that."""
        worker = picked(loading(self.world), pick)
        frame = worker.frames[0]
        assert isinstance(frame, InLoad)
        self._leave_all(frame.turn.flight)
        if told and worker.in_load:
            self.world.check_cancelled(worker)

    @when(lambda world: [flight for home in world.homes for flight in home.core.flights.queue])
    @rule(pick=picks)
    def hurry(self, pick: int) -> None:
        """Somebody urgent asks for a load that is queued."""
        world = self.world
        queued = [(home, one) for home in world.homes for one in home.core.flights.queue]
        home, flight = picked(queued, pick)
        _, name = world.identities[flight]
        if name in MODELS:
            world.ask(home, str(name), "path", world.loops[0], 2)

    @when(may_take)
    @rule(pick=picks)
    def take_and_leave(self, pick: int) -> None:
        """One caller takes what there is, and those who waited with it go without."""
        caller = picked(may_take(self.world), pick)
        self._take(caller)
        for other in may_leave(self.world):
            if other.seat.flight is caller.seat.flight:
                self.world.leave(other)

    @when(stuck)
    @rule()
    def come_back(self) -> None:
        """Every load that is past its limit ends after all."""
        self._come_back()

    def _come_back(self) -> None:
        for worker in stuck(self.world):
            self.world.end_load(worker, "value")
            self.world.tell(worker)

    @when(lambda world: len(wanted(world)) > 1)
    @rule(pick=picks, how=nested_hows, then=st.sampled_from(["nothing", "leave", "time"]))
    def nest_what_another_loads(self, pick: int, how: str, then: str) -> None:
        """A load waits for what another thread loads, and may be given up meanwhile."""
        world = self.world
        worker, other = (picked(wanted(world), pick + place) for place in range(2))
        home, model = world.asked_for(other)
        if model is None or len(worker.frames) >= 2 * DEEPEST:
            return
        world.nest(worker, home, model, how)
        if worker.may_look:
            self._look(worker)
        root = worker.frames[0]
        if then == "leave" and isinstance(root, InLoad):
            self._leave_all(root.turn.flight)
        elif then == "time":
            self._pass(6.0)

    @when(in_load)
    @rule(pick=picks)
    def load_for_nobody(self, pick: int) -> None:
        """All callers of a load are cancelled, then it ends, and its release begins."""
        world, worker = self.world, picked(in_load(self.world), pick)
        frame = worker.frames[-1]
        assert isinstance(frame, InLoad)
        self._leave_all(frame.turn.flight)
        world.end_load(worker, "value")
        world.tell(worker)
        for one in coming(world):
            self._arrive(one)

    @when(in_step)
    @rule()
    def let_steps_hang(self) -> None:
        """What is no load takes longer than it may."""
        self._pass(7.0)

    @rule(home=homes, names=st.lists(models, min_size=3, max_size=4))
    def read_slowly(self, home: int, names: list[int]) -> None:
        """Models are asked for whose readers do not come back."""
        world = self.world
        for number in names:
            world.ask(world.homes[home], self._model(number), "path", world.loops[0], 0)
        for _ in range(2):
            self._flow("reads")
            self._pass(1.0)
        self._flow("reads")

    @when(wanted)
    @rule(pick=picks, model=models, deeper=st.booleans(), grace=st.sampled_from([5.0, 0.0]))
    def close_around(self, pick: int, model: int, deeper: bool, grace: float) -> None:
        """An initializer is closed while its thread is in a load of another one, or waits there."""
        world = self.world
        worker = picked(wanted(world), pick)
        if pick % 3 or len(worker.frames) > 1:
            return
        home, other = (worker.home, *(one for one in world.homes if one is not worker.home))
        for where in (other, home) if deeper else (other,):
            if worker.in_load:
                world.nest(worker, where, self._model(model), "path")
            if worker.may_look:
                self._look(worker)
            self._flow()
            if worker.may_look:
                self._look(worker)
        self._close((home, other)[model % 2], grace)

    @when(wanted)
    @rule(
        pick=picks,
        then=st.sampled_from(["nothing", "nothing", "leave", "close", "no threads", "refuse"]),
    )
    def time_out(self, pick: int, then: str) -> None:
        """A load passes its limit, and something else happens before a thread takes over."""
        world = self.world
        limited = [(one, one.frames[-1]) for one in wanted(world)]
        timed = [
            (worker, frame)
            for worker, frame in limited
            if isinstance(frame, InLoad) and frame.timeout is not None
        ]
        if not timed:
            return
        _, frame = picked(timed, pick)
        home, flight = world.home_of(frame.turn), frame.turn.flight
        if then == "refuse":
            home.admission.refused.add(str(world.identities[flight][1]))
        home.workers.cannot_start = then == "no threads"
        home.could_not_start |= then == "no threads"
        self._pass(frame.entered + (frame.timeout or 0.0) - world.now)
        if then == "leave":
            self._leave_all(flight)
        elif then == "close":
            self._close(home, 20.0)
            self._flow()

    @when(wanted)
    @rule(pick=picks, silent=st.booleans())
    def stall(self, pick: int, silent: bool) -> None:
        """A load reports for a while, and perhaps falls silent."""
        world, worker = self.world, picked(wanted(self.world), pick)
        for _ in range(2):
            if not worker.in_load:
                return
            world.report(worker)
            self._pass(3.0)
        if silent:
            self._pass(1.0)

    @when(wanted)
    @rule(pick=picks, nested=st.booleans(), then=st.sampled_from(["end", "hang", "nothing"]))
    def leave_and_ask_again(self, pick: int, nested: bool, then: str) -> None:
        """A load is told to stop, and its model is asked for anew while its thread is in there."""
        world, worker = self.world, picked(wanted(self.world), pick)
        home, model = world.asked_for(worker)
        frame = worker.frames[-1]
        assert isinstance(frame, InLoad)
        if model is None:
            return
        self._leave_all(frame.turn.flight)
        world.check_cancelled(worker)
        others = [one for one in wanted(world) if one is not worker]
        if nested and others:
            world.nest(picked(others, pick), home, model, "path")
        else:
            world.ask(home, model, "path", world.loops[0], 0)
        self._flow()
        for one in may_look(world):
            self._look(one)
        if then == "hang" and frame.timeout is not None:
            self._pass(frame.timeout)
        elif then == "end":
            world.end_load(worker, "value")
            world.tell(worker)

    @rule(home=homes, names=st.permutations(["imports 1", "imports 2", "imports 3"]))
    def hang_an_import(self, home: int, names: list[str]) -> None:
        """An import passes its limit, and another one is asked for."""
        world = self.world
        for name in names:
            world.ask(world.homes[home], name, "path", world.loops[0], 0)
            self._flow("steps")
            self._pass(7.0)

    @when(wanted)
    @rule(pick=picks, home=st.integers(0, 1))
    def nest_in_its_group(self, pick: int, home: int) -> None:
        """A load asks for a model of its own group, or of the lane."""
        world = self.world
        own = [one for one in wanted(world) if any(load.turn.holds for load in one.loads)]
        if not own:
            return
        worker = picked(own, pick)
        name = picked(["left 1", "left 2", "gil 2", "gil 1", "right 1"], pick)
        if len(worker.frames) < 2 * DEEPEST:
            world.nest(worker, world.homes[home], name, "path")
            self._flow()
            for _ in range(2):
                if worker.may_look:
                    self._look(worker)
                self._flow()
