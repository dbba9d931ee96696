"""Those who wait for a close miss no change, in whatever moment they sit down."""

from __future__ import annotations

from home import Settings
from world import World

from anyload._load.closing import Closers
from anyload._load.waiters import ThreadSeat


def closers_and_seat() -> tuple[Closers, ThreadSeat]:
    core = World(Settings()).homes[0].core
    return Closers(core.process.lock), ThreadSeat(core.flights)


def test_who_has_missed_a_change_is_woken_at_once() -> None:
    """Between the look and the seat something has changed, and nobody will come by for that."""
    closers, seat = closers_and_seat()
    seen = closers.wakes
    closers.wake()
    closers.sit(seat, seen)
    assert seat.wait(0)


def test_who_has_seen_every_change_waits_for_the_next() -> None:
    """A seat is woken by a change, and by no look."""
    closers, seat = closers_and_seat()
    closers.wake()
    closers.sit(seat, closers.wakes)
    assert not seat.wait(0)
    closers.wake()
    assert seat.wait(0)
