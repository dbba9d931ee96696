"""The queue: priority first, then arrival; what has left it is not kept for long."""

from contextvars import Context
from weakref import ref

from anyload._load.flight import Flight
from anyload._load.queue import Lane


def flight(number: int, priority: int = 0) -> Flight:
    return Flight(f"m{number}", {}, Context(), 0.0, priority, number)


def in_order(lane: Lane) -> list[str]:
    models = []
    while (entry := lane.head(lambda _: True)) is not None:
        first = entry[5].flight
        assert first is not None
        models.append(first.model)
        lane.remove(first)
    return models


def test_one_that_left_is_not_kept() -> None:
    """What a flight holds goes with it, though its entry stays until it comes up."""
    lane = Lane(())
    gone = flight(1)
    watched = ref(gone)
    lane.push(gone)
    gone.priority = 1
    lane.push(gone)
    lane.remove(gone)
    del gone
    assert len(lane._heap) == 2
    assert watched() is None


def test_many_that_left_do_not_stay() -> None:
    """A lane most of whose flights were cancelled forgets them, refused ones too."""
    lane = Lane(())
    flights = [flight(number) for number in range(300)]
    for each in flights:
        lane.push(each)
    assert lane.head(lambda each: each is flights[150]) is not None  # 150 are refused
    for each in flights:
        if each.batch % 10:
            lane.remove(each)
    assert lane.size == len(list(lane)) == 30
    assert len(lane._heap) + len(lane._refused) <= 30 + 65
    lane.ask_again()
    assert in_order(lane) == [f"m{number}" for number in range(0, 300, 10)]
    assert lane.size == 0


def test_a_next_attempt_goes_ahead_of_fresh_loads() -> None:
    """It has been in the queue before, whenever they came; what is more urgent goes first."""
    lane = Lane(())
    fresh, again, urgent = flight(1), flight(2), flight(3, priority=1)
    again.requeued = True
    for each in (fresh, again, urgent):
        lane.push(each)
    assert in_order(lane) == ["m3", "m2", "m1"]


def test_a_flight_that_moves_up_counts_once() -> None:
    """A flight pushed again with a higher priority stands in the lane once, further ahead."""
    lane = Lane(())
    first, second = flight(1), flight(2)
    lane.push(first)
    lane.push(second)
    second.priority = 5
    lane.push(second)
    assert lane.size == 2
    assert in_order(lane) == ["m2", "m1"]
