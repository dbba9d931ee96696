"""What a caller of the model test may get, and what may be left when everything has ended."""

from __future__ import annotations

from home import Home
from played_callers import Caller
from played_modules import PlayedModel
from played_threads import CANNOT_START
from world import World

from anyload import ClosedError, LoadError, ModelNotFoundError, SaturatedError
from anyload._load.flight import Flight, Turn
from anyload._load.plan import Candidate, Plan
from anyload.errors import LoadTimeoutError


def check_outcome(world: World, caller: Caller) -> None:
    """I4 and I10: a caller gets a model that was loaded for it, or an error that has a reason."""
    home, flight = caller.home, caller.seat.flight
    error, value = caller.error, caller.value
    if error is None:
        _check_value(world, caller)
        return
    assert value is None
    match error:
        case SaturatedError():
            assert len(error.stuck) == home.limits.max_concurrent_loads
            assert not any(stuck.abandoned for stuck in error.stuck)
        case LoadTimeoutError():
            assert home.limits.load_timeout is not None
            begun = world.dispatched[flight] if flight.clock_from_dispatch else flight.created
            assert world.now >= begun + home.limits.load_timeout, "too early"
        case ClosedError():
            assert home.closed
        case ModelNotFoundError():
            assert flight.plan is None
        case LoadError():
            _check_attempts(world, home, flight)
            _check_all_were_tried(home, flight)
        case _:
            raise AssertionError(f"a caller got {error!r}")


def _check_value(world: World, caller: Caller) -> None:
    value = caller.value
    if caller.plans:
        assert isinstance(value, Plan)
        return
    assert isinstance(value, PlayedModel), f"a caller got {value!r}"
    assert value.identity == caller.identity, "somebody else's model"
    assert value in world.usable, "I10: a model that came too late, or that nobody waited for"
    assert value.released == 0, "a model that was released"
    value.taken += 1
    _check_attempts(world, caller.home, caller.seat.flight)


def _check_attempts(world: World, home: Home, flight: Flight) -> None:
    """Check what a report says against what has happened."""
    if any(CANNOT_START in attempt.reason for attempt in flight.attempts):
        assert home.workers.were_stuck, "it has failed for want of a thread, and one was at work"
    check_attempts(flight)
    assert flight.plan is not None or home.workers.missed or home.could_not_start
    for place, attempt in enumerate(flight.attempts):
        happened = world.outcomes.get((flight, attempt.backend))
        if attempt.outcome in ("loaded", "declined", "cancelled"):
            assert attempt.outcome == happened
        elif attempt.outcome == "raised" and attempt.load_seconds is not None:
            # What was handed over, and no thread came for, has raised too.
            assert happened == "raised" or (happened is None and home.could_not_start)
        elif attempt.outcome in ("timed_out", "stalled"):
            assert happened is None
            assert flight.plan is not None
            step = flight.plan.steps[place]
            assert isinstance(step, Candidate)
            stall = step.choice.stall_timeout
            assert attempt.outcome == "timed_out" or stall is not None


def _check_all_were_tried(home: Home, flight: Flight) -> None:
    """Check that no backend was left that might have loaded it."""
    if flight.plan is None or home.could_not_start or not home.limits.next_on_error:
        return
    last = flight.attempts[-1].outcome if flight.attempts else None
    if last not in ("cancelled", "timed_out", "stalled"):
        assert len(flight.attempts) == len(flight.plan.steps), "a backend was left out"


def check_attempts(flight: Flight) -> None:
    """Check a flight's attempts against its plan."""
    if flight.plan is None:
        return
    planned = [
        step.choice.backend.backend_type if isinstance(step, Candidate) else step.backend_type
        for step in flight.plan.steps
    ]
    tried = [attempt.backend for attempt in flight.attempts]
    assert tried == planned[: len(tried)], "I12: the order of the attempts"


# The end


def check_the_end(world: World) -> None:
    """I14 and I23: nothing is left in any table, and every model is somebody's or released."""
    assert not list(world.waiting()), "I4: a caller has ended in nothing"
    process = world.process
    assert not process._holders
    assert not process._importing
    assert not process._inside
    assert not process.nested_seats
    assert process.restoring is None
    for home in world.homes:
        core, flights = home.core, home.core.flights
        assert not flights.live
        assert not [flight for flight in flights.lookups.queued if flight.phase != "settled"]
        assert not flights.lookups.running
        assert not flights.keys._flights
        assert not flights.keys._lingering
        assert len(flights.queue) == 0
        assert not flights.slots.taken
        assert not flights.slots.overdue
        assert not flights.slots.abandoned
        assert flights.slots.free == home.limits.max_concurrent_loads
        assert not core.turns.live
        assert not core.turns.handed_over
        assert not flights.preparations.queued
        assert not flights.preparations.running
        assert not flights.releases.queued
        assert not flights.releases.running
        assert not flights.releases.hung
        # What the closes and the readers set may be left; nothing of a load is.
        left = [alarm for _, _, alarm in flights.alarms._heap if alarm.ring is not None]
        assert not [alarm for alarm in left if isinstance(alarm.subject, Flight | Turn)]
    discarded = sum(home.core.flights.releases.discarded for home in world.homes)
    assert discarded <= sum(model.released for model in world.stage.made)
    for model in world.stage.made:
        assert model.released == (0 if model.taken else 1), "I23: neither taken nor released"
