"""Deadlines: they ring in their order, and cancelled ones cost nothing for long."""

from anyload._load.alarms import Alarms


def ring(*_: object) -> None:
    raise AssertionError("only whoever takes an alarm calls it")


def due(alarms: Alarms, now: float) -> list[object]:
    subjects = []
    while (alarm := alarms.due(now)) is not None:
        subjects.append(alarm[1])
    return subjects


def test_they_ring_in_their_order() -> None:
    """Those whose time has come are handed out once, soonest first."""
    alarms = Alarms()
    for at in (3.0, 1.0, 2.0, 4.0):
        alarms.set(at, ring, at)
    assert alarms.next_at == 1.0
    assert due(alarms, 3.0) == [1.0, 2.0, 3.0]
    assert due(alarms, 3.0) == []
    assert alarms.next_at == 4.0


def test_many_cancelled_ones_do_not_stay() -> None:
    """A heap that is mostly cancelled alarms is rebuilt, and the others ring as they should."""
    alarms = Alarms()
    kept = [float(at) for at in range(0, 300, 3)]
    for alarm in [alarms.set(float(at), ring, float(at)) for at in range(300)]:
        if alarm.at not in kept:
            alarms.cancel(alarm)
            alarms.cancel(alarm)
    assert len(alarms._heap) < 2 * len(kept) + 65
    assert due(alarms, 1000.0) == kept
    assert alarms.next_at is None
