"""What must hold in the model test after every step: the invariants, as predicates on the world.

Each is worked out from the world's own records, of who is in which load and who waits for what,
and compared with what the core says; where the core has no say, it is a promise to callers.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator

from home import Home
from outcomes import check_attempts
from played_threads import Worker
from view import View
from world import World

from anyload._load.closing import STOP_SECONDS
from anyload._load.flight import Flight, Turn
from anyload._load.lookups import Lookups
from anyload._load.plan import Candidate
from anyload._load.preparations import Preparation

MOST_READERS = 8

# One load


def one_live_load_of_a_key(view: View) -> None:
    """I1: at most one live, not abandoned load of a key."""
    for identity, threads in view.live.items():
        assert len(threads) <= 1, f"I1: {len(threads)} live loads of {identity}"


def threads_stay_within_the_caps(view: View) -> None:
    """I2 and I3: every thread in a load is running, overdue or abandoned, and within the caps."""
    for home in view.world.homes:
        slots, limits = home.core.flights.slots, home.limits
        roots = view.roots(home)
        phases = Counter(turn.phase for turn in roots)
        on_slots = {turn for turn in roots if turn.phase in ("running", "overdue")}
        off_slots = {turn for turn in roots if turn.phase == "abandoned"}
        hung = {step.release for step in view.steps_of(home) if step.release and step.release.stuck}
        assert set(slots.taken) == on_slots, "I3: on a slot"
        assert set(slots.overdue) == {t for t in on_slots if t.phase == "overdue"}, "I3: overdue"
        assert set(slots.abandoned) == off_slots | hung, "I3: abandoned"
        assert len(roots) <= limits.max_concurrent_loads + limits.max_abandoned_loads, "I2"
        assert len(on_slots) <= limits.max_concurrent_loads, "I2: slots"
        assert phases["ended"] == 0
        assert all(turn.phase == "running" for turn in home.core.turns.handed_over), "I3: no thread"
        assert not (home.out_of_grace and on_slots), "I13: on a slot after the grace"
        if phases["overdue"] >= limits.max_concurrent_loads:
            assert not len(home.core.flights.queue), "it waits though every slot is stuck"
        releasing = [step for step in view.steps_of(home) if step.release]
        assert len([one for one in releasing if one.release and not one.release.stuck]) <= (
            limits.max_concurrent_loads
        ), "more releases run than there are slots"
        if slots.overdue:
            assert len(slots.abandoned) >= limits.max_abandoned_loads, "overdue below the cap"
        families = {turn for root in roots for turn in root.family()}
        mine = {frame.turn for frame in view.loads_of(home)}
        assert set(home.core.turns.live) == mine | set(home.core.turns.handed_over)
        assert mine <= families | {
            t for o in view.world.homes for r in view.roots(o) for t in r.family()
        }


def resources_are_held_once(view: View) -> None:
    """I17: no two threads in one group, abandoned ones included; one in the lane."""
    process = view.world.process
    for resource, threads in view.held.items():
        assert len(threads) <= 1, f"I17: {len(threads)} threads in {resource}"
    assert set(process._holders) == set(view.held), "who holds what"
    importing = [step for _, step in view.steps if step.preparation and step.preparation.package]
    assert len(process._importing) == len(importing)
    packages = Counter(step.preparation.package for step in importing if step.preparation)
    assert not packages or max(packages.values()) == 1, "two imports of one package at once"
    within = [step for step in importing if step.preparation and step.preparation.phase != "hung"]
    assert len(within) <= 1, "two imports at once"


def admission_is_told(view: View) -> None:
    """Every start of a load is followed by exactly one end, when its thread has left it."""
    for home in view.world.homes:
        live = Counter(turn.flight.config.name for turn in home.core.turns.live)  # type: ignore[union-attr]
        if not home.asks_admission:
            continue
        told = {name: number for name, number in home.admission.inside.items() if number}
        # What is handed over was admitted when that was decided.
        for turn in set(home.core.turns.handed_over) - view.world.handed:
            view.world.handed.add(turn)
            assert not view.refused(home, turn.flight), "it was handed a slot, and was refused"
        assert told == live, "what the admission was told"


# Flights and callers


def flights_are_somewhere(view: View) -> None:
    """I5: an unsettled flight is in the table, and where somebody will come to it."""
    for home in view.world.homes:
        flights = home.core.flights
        asked = {c.seat.flight for c in view.world.waiting() if c.home is home}
        unsettled = set(flights.live)
        assert {flight for flight in asked if flight.phase != "settled"} <= unsettled, "I5: table"
        # A load that nobody waits for any more runs on; nothing else does.
        assert all(flight.phase == "running" for flight in unsettled - asked), "I5: unasked"
        assert not (home.out_of_grace and unsettled), "I13: unsettled after the grace"
        preparing = {step.preparation: step for step in view.steps_of(home) if step.preparation}
        reading = {step.reads for step in view.steps_of(home) if step.reads is not None}
        assert reading == set(flights.lookups.running)
        queued = set(flights.queue)
        assert queued == {flight for flight in unsettled if flight.phase == "queued"}, "I5: queue"
        assert len(queued) == len(flights.queue)
        for flight in unsettled:
            assert not (home.closed and flight.phase != "running"), "I13: not ended by the close"
            if flight.phase == "resolving":
                assert flight in reading or flight in flights.lookups.queued, "I5: resolving"
            elif flight.phase == "preparing":
                steps = flights.preparations
                waits = [p for p in (*steps.queued, *preparing) if flight in p.waiting]
                assert [p.phase for p in waits] in (["queued"], ["running"]), "I5: preparing"
            elif flight.phase == "running":
                turn = flight.turn
                assert turn is not None
                assert turn.phase == "running", "I5: its turn is over"
                assert turn in view.entered or turn in view.handed_over, "I5: no thread"


def callers_are_woken(view: View) -> None:
    """I6: a settled flight has woken every waiter; the counts are those of the callers."""
    for caller in view.world.waiting():
        flight = caller.seat.flight
        assert flight.waiting == view.waiting[flight], "the count of those who wait"
        if caller.loop is not None and caller.loop.ended:
            assert flight.phase != "settled", "I6: nobody has lost them"
        elif flight.phase == "settled":
            assert caller.woken or caller.nested, f"I6: {caller.identity} was not woken"
        else:
            assert caller.seat in flight.seats, "I6: nobody will wake them"
            assert flight.failure is None
            assert flight.value is None
            assert caller.plans or flight.priority >= caller.priority, "an urgent caller"
    for flight in {f for home in view.world.homes for f in home.core.flights.live}:
        assert flight.waiting == view.waiting[flight] > 0 or flight.phase == "running"


def attempts_follow_the_plan(view: View) -> None:
    """I12: attempts follow the plan's order, at most once each."""
    for flight in view.waiting:
        check_attempts(flight)


# Nothing is left lying


def work_is_come_for(view: View) -> None:
    """I7: what a worker could do, a worker is coming for."""
    for home in view.world.homes:
        workers = home.workers
        if workers.coming:
            continue
        flights, turns = home.core.flights, home.core.turns
        restoring = view.restoring
        ready: list[object] = list(view.startable(home))
        if not restoring:
            ready += turns.handed_over
            ready += [p for p in flights.preparations.queued if _may_import(view, p.package)]
        if workers.missed:
            # Nobody could be called; whoever is at work will come by. What is done for nobody's
            # sake waits for the next occasion.
            ready = [one for one in ready if not isinstance(one, Preparation) or one.waiting]
            unread = _unread(flights.lookups)
            if ready or (unread and not any(map(_awaited, flights.lookups.running))):
                at_work = [worker for worker in workers.alive if worker.frames]
                assert any(not worker.stuck for worker in at_work), "I7: nobody will come by"
            continue
        if not restoring:
            if len(flights.releases.running) < home.limits.max_concurrent_loads:
                ready += [r for r in flights.releases.queued if not _group_held(view, r.candidate)]
            ready += flights.preparations.to_stop
        unread = _unread(flights.lookups)
        reading = sum(map(_awaited, flights.lookups.running))
        if unread and (reading == 0 or not _is_watched(view, home)) and reading < MOST_READERS:
            ready += unread
        assert not ready, f"I7: nobody is coming for {ready}"


def _awaited(flight: Flight) -> bool:
    return flight.phase == "resolving"


def _unread(lookups: Lookups) -> list[Flight]:
    """Return what could be looked up: no other thread is lost in one of the same path."""
    lost = [flight.reads for flight in lookups.running if not _awaited(flight) and flight.reads]
    return [one for one in lookups.queued if _awaited(one) and one.reads not in lost]


def _may_import(view: View, package: str | None) -> bool:
    importing = [step.preparation for _, step in view.steps if step.preparation]
    blocking = [
        other
        for other in importing
        if other.package is not None and (other.phase != "hung" or other.package == package)
    ]
    return package is None or not blocking


def _group_held(view: View, candidate: Candidate) -> bool:
    group = candidate.implementation.exclusive_group
    return group is not None and f"group {group}" in view.held


def _is_watched(view: View, home: Home) -> bool:
    """Return whether the watchdog will look after readers that do not come back."""
    return bool(home.watchdog.wakes_at <= view.world.now + 0.05) or home.watchdog.dismissed


def nested_loads_get_on(view: View) -> None:
    """I7: a load that waits inside another is woken when it can get on, and never for ever."""
    edges: dict[object, set[object]] = {}
    for worker, waits in view.waits:
        turn, flight = waits.parent.turn, waits.seat.flight
        cut = turn.stuck or view.world.home_of(turn).out_of_grace
        assert not (waits.seated and cut and not waits.late), "it counts, though nobody is there"
        if waits.woken or waits is not worker.frames[-1]:
            continue
        assert not turn.stuck, "I7: the load around it is past its limit"
        assert not turn.cancelled, "I7: the load around it is no longer wanted"
        assert waits.seated
        assert flight.phase != "settled", "I6: what it waits for has ended"
        if flight.phase == "queued":
            edges[worker] = view.blockers(flight, worker)
            assert edges[worker], "I7: it could run inline"
        elif flight.phase == "running":
            assert flight.turn is not None
            edges[worker] = {view.entered.get(flight.turn)}
    for start in edges:
        seen: set[object] = set()
        pending = [start]
        while pending:
            for thread in edges.get(pending.pop(), ()):
                assert thread is not start, "loads wait for each other in a circle"
                if thread not in seen:
                    seen.add(thread)
                    pending.append(thread)


# Time


def deadlines(view: View, home: Home) -> Iterator[tuple[float, str]]:
    """Yield when the watchdog has to be awake at the latest, and what for."""
    limits, flights = home.limits, home.core.flights
    for frame in view.loads_of(home):
        if frame.turn.phase == "running" and frame.turn.flight.phase == "running":
            if frame.timeout is not None:
                waited = view.world.blocked.get(
                    (frame.turn.flight, frame.turn.flight.position), 0.0
                )
                yield frame.entered + frame.timeout - waited, "the timeout of a load"
            if frame.stall_timeout is not None and frame.reported is not None:
                yield frame.reported + frame.stall_timeout, "the stall of a load"
    for step in view.steps_of(home):
        preparation, release = step.preparation, step.release
        if preparation is not None and preparation.phase == "running":
            yield step.entered + (limits.prepare_timeout or math.inf), "a prepare"
        if release is not None and release.phase == "running":
            yield step.entered + (limits.release_timeout or math.inf), "a release"
    for flight in flights.live:
        begun = flight.created
        if flight.clock_from_dispatch:
            begun = view.world.dispatched.get(flight, math.inf)
        if limits.load_timeout is not None:
            yield begun + limits.load_timeout, "load_timeout"
    for (flight, _), since in view.world.blocked_since.items():
        timeout = flight.candidate.choice.timeout
        if timeout is not None and flight in flights.live:
            yield since + timeout, "a queued load behind a stuck one"
    for preparation, since in view.world.imports_blocked_since.items():
        if preparation in flights.preparations.queued:
            yield since + (limits.prepare_timeout or 0.0), "an import behind one that hangs"
    if home.grace_ends is not None and not home.out_of_grace:
        yield home.grace_ends, "the grace of a close"
    stopping = home.core.closing.stage == "stopping" and flights.preparations.stopping
    if home.stopping_since is not None and stopping:
        yield home.stopping_since + STOP_SECONDS, "a backend's stop"


def deadlines_are_watched(view: View) -> None:
    """I8: the watchdog is awake at every deadline; with `World.ring`, I9: none is ever past."""
    _note_blocked(view)
    _note_blocked_imports(view)
    for home in view.world.homes:
        if home.watchdog.dismissed:
            continue
        for at, what in deadlines(view, home):
            if at < math.inf:
                assert home.watchdog.wakes_at <= at, f"I8: nobody is awake for {what}"


def _note_blocked(view: View) -> None:
    """Write down which queued flights wait for a thread that is past its limit, and since when."""
    since, now = view.world.blocked_since, view.world.now
    blocked: dict[tuple[Flight, int], float] = {}
    for home in view.world.homes:
        for flight in home.core.flights.queue:
            if any(_stuck(thread) for thread in view.blockers(flight)):
                attempt = flight, flight.position
                blocked[attempt] = since.get(attempt, now)
                assert flight.candidate.choice.timeout is not None, "it waits for a stuck load"
    for attempt, began in since.items():
        if attempt not in blocked:
            waited = view.world.blocked.get(attempt, 0.0)
            view.world.blocked[attempt] = waited + now - began
    view.world.blocked_since = blocked


def _note_blocked_imports(view: View) -> None:
    """Write down which imports wait for one of their package that hangs, and since when."""
    since, now = view.world.imports_blocked_since, view.world.now
    hung = {
        step.preparation.package
        for _, step in view.steps
        if step.preparation and step.preparation.phase == "hung"
    } - {None}
    queued = [one for home in view.world.homes for one in home.core.flights.preparations.queued]
    view.world.imports_blocked_since = {
        one: since.get(one, now) for one in queued if one.package in hung
    }


def _stuck(thread: object) -> bool:
    return thread.stuck if isinstance(thread, Worker | Turn) else False


# Who is told what


def flags_are_exact(view: View) -> None:
    """I11: told to stop when nobody waits, it was abandoned, or the grace is over; not else."""
    for _, frame in view.loads:
        assert frame.turn.cancelled == _unwanted(view, frame.turn), "I11"


def _unwanted(view: View, turn: Turn) -> bool:
    home = view.world.home_of(turn)
    if turn.phase == "abandoned" or home.out_of_grace:
        return True
    waiting = view.waiting[turn.flight]
    parent = turn.parent
    return waiting == 0 or (parent is not None and waiting == 1 and _unwanted(view, parent))


def models_are_whole(view: View) -> None:
    """I23 and I10: what a caller has is not released; what nobody has is, once."""
    for model in view.world.stage.made:
        assert model.released <= 1, "I23: released twice"
        assert not (model.taken and model.released), "released under a caller's hands"


def closing_goes_on(view: View) -> None:
    """Who closes an initializer is woken when there is something to look at."""
    for home in view.world.homes:
        if home.closer is None or home.closer_woken:
            continue
        core = home.core
        busy: list[object] = [f for f in view.loads_of(home) if f.turn.phase != "abandoned"]
        busy += [step for step in view.steps_of(home) if step.preparation]
        busy += [s for s in view.steps_of(home) if s.release and not s.release.stuck]
        busy += core.flights.releases.queued
        busy += core.turns.handed_over
        if core.closing.stage == "draining":
            assert busy, "nobody has told who closes that nothing runs"
            assert not home.out_of_grace
        elif core.closing.stage == "leaving":
            left_behind = core.closing.left_behind
            assert home.workers.count + home.watchdog.running > left_behind
        else:
            assert core.flights.preparations.stopping


CHECKS = (
    one_live_load_of_a_key,
    threads_stay_within_the_caps,
    resources_are_held_once,
    admission_is_told,
    flights_are_somewhere,
    callers_are_woken,
    attempts_follow_the_plan,
    work_is_come_for,
    nested_loads_get_on,
    deadlines_are_watched,
    flags_are_exact,
    models_are_whole,
    closing_goes_on,
)


def check(world: World) -> View:
    """Check everything that must hold between two steps."""
    view = View(world)
    for promise in CHECKS:
        promise(view)
    return view
