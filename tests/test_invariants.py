"""The invariants of loading, by number: each is a predicate that something in the core could break.

Most of them look at one scene of many loads in real threads (`invariant_scene.py`), played once
on every loop; where an invariant is about one moment, that moment is made here by gates. Some
are shown elsewhere, exactly, and are not repeated:

=====  ===========================================================================================
I6     also across loops: test_loops.py::test_loops_and_threads_share_one_load
I7     a slot: test_limits.py::TestTimeout::test_the_slot_serves_the_next_load
       a group: test_groups.py::TestGroup::test_never_overlaps_across_initializers
       a lane: test_groups.py::TestHoldsGil::test_is_freed_on_abandonment
       an admission: test_admission.py::TestAdmission::test_reconsider
I11    the last of many callers: test_faults.py::test_a_hundred_callers_share_one_load
I13    no next backend: test_closing.py::TestAclose::test_no_next_backend
I16    in virtual time, one cancel at a time: simulation/test_simulation.py::test_i16_*
I18    the loop keeps ticking: in the benchmarks, against a control in the same run
I19    the slope of RSS: in ``make soak``
I21    same seed, same trace: simulation/test_simulation.py::test_i21_*
I22    input order: test_bulk.py::test_models_come_by_the_objects_given_in_their_order
       in flight: test_bulk.py::test_no_more_load_at_once_than_there_are_slots
I23    there, but not taken: test_bulk.py::test_what_landed_and_was_not_taken_is_released
=====  ===========================================================================================
"""

from __future__ import annotations

import os
import threading
from collections import defaultdict
from collections.abc import Iterable
from itertools import pairwise
from typing import Any

import pytest
from anyio import CancelScope, create_task_group, fail_after
from calls import Calls, does
from invariant_scene import (
    HOMES,
    MOST_ABANDONED,
    SLOTS,
    Scene,
    Visit,
    most_at_once,
    outcomes_of,
    play,
)
from scenes import LIMIT, Caller, error_of_late, let_pass, registry_of, registry_of_two

from anyload import (
    AnyloadError,
    ClosedError,
    Initializer,
    LoadCancelled,
    LoadError,
    ModelConfig,
    report_progress,
)
from anyload.events import Abandoned, Discarded, Failed, Loaded
from anyload.testing import (
    FakeModel,
    Gate,
    at_rest,
    returns_at_once,
    settled,
    until,
    waits_at,
)

SHORT = 0.05
"""A limit that is to pass, in seconds."""

SEED = 20


@pytest.fixture(scope="module")
def scene(
    anyio_backend: tuple[str, dict[str, Any]], tmp_path_factory: pytest.TempPathFactory
) -> Scene:
    """The scene, played on this loop."""
    return play(SEED, tmp_path_factory.mktemp("scene"), *anyio_backend)


def by_model(visits: Iterable[Visit]) -> dict[str, list[Visit]]:
    models = defaultdict(list)
    for visit in sorted(visits, key=lambda visit: visit.entered):
        models[visit.model].append(visit)
    return models


def test_i1_at_most_one_live_load_of_a_key(scene: Scene) -> None:
    """A model is loaded anew only when every earlier thread has left or was abandoned."""
    abandoned = [event for events in scene.events for event in events if type(event) is Abandoned]
    for model, visits in by_model(scene.visits).items():
        at = [event.at for event in abandoned if os.path.normpath(event.model) == model]
        for number, visit in enumerate(visits):
            inside = [earlier for earlier in visits[:number] if earlier.left > visit.entered]
            assert len(inside) <= sum(when <= visit.entered for when in at), model
    assert max(len(visits) for visits in by_model(scene.visits).values()) > 5


@pytest.mark.parametrize("home", HOMES)
def test_i2_live_threads_stay_within_both_caps(scene: Scene, home: str) -> None:
    """No more threads are in a load than there are slots and loads that may be abandoned."""
    most = most_at_once(visit for visit in scene.visits if visit.home == home)
    assert SLOTS < most <= SLOTS + MOST_ABANDONED


async def test_i3_and_i9_every_thread_in_a_load_counts_once() -> None:
    """A thread in a load is running, or past its limit and overdue or abandoned, and no more."""
    gate = Gate()
    registry = registry_of_two(waits_at(gate), returns_at_once())
    registry.module("healthy")(waits_at(gate))
    async with (
        Initializer(
            registry,
            backend_priority=[{"type": "GPU", "timeout": LIMIT}, {"type": "LOCAL"}],
            max_concurrent_loads=3,
            max_abandoned_loads=1,
        ) as initializer,
        create_task_group() as tasks,
    ):

        def figures() -> tuple[int, int, int]:
            now = initializer.statistics()
            return now.running, now.overdue, now.abandoned

        Caller(tasks, initializer, ModelConfig("healthy"))
        await gate.entered()
        assert figures() == (1, 0, 0)
        caller = Caller(tasks, initializer, ModelConfig("m"))
        await gate.entered(2)
        let_pass(initializer, 2 * LIMIT)
        await caller.result()
        await until(lambda: figures() == (1, 0, 1))
        await error_of_late(initializer, ModelConfig("m"), gate)
        assert figures() == (1, 1, 1)
        assert gate.inside == 3
        gate.open()
        await settled(initializer)
        assert figures() == (0, 0, 0)


def test_i4_each_request_ends_in_exactly_one_way(scene: Scene) -> None:
    """Every caller got a model, or an error of anyload, or was cancelled: one of them, once."""
    kinds = set()
    for request in scene.requests:
        assert len(request.outcomes) == 1, request
        kinds.add(request.outcomes[0])
        assert (request.value is not None) == (request.outcomes == ["value"]), request
        assert (request.error is not None) == (request.outcomes == ["error"]), request
        assert request.error is None or isinstance(request.error, AnyloadError), request
    assert kinds == {"value", "error", "cancelled"}


def test_i5_an_unsettled_flight_is_in_one_phase(scene: Scene) -> None:
    """At every event each flight is being read, prepared, is queued or on a slot; none is lost."""
    assert len(scene.samples) > 500
    for now in scene.samples:
        assert now.flights == now.resolving + now.preparing + now.queued + now.running, now
        assert now.free_slots == now.slots - now.running - now.overdue, now


@pytest.mark.parametrize("ending", ["a model", "an error", "a close"])
async def test_i6_a_settled_flight_has_woken_every_waiter(gate: Gate, ending: str) -> None:
    """Tasks, plain threads and a load that waits inside itself all hear of the end, any end."""
    got: list[Any] = []

    def wait(_: object = None) -> None:
        try:
            got.append(initializer.init_sync(ModelConfig("m"), key="k"))
        except AnyloadError as error:
            got.append(error)

    def load(_: object) -> None:
        gate.enter()
        if ending == "an error":
            raise ValueError("no")

    initializer = Initializer(registry_of(m=does(load), outer=does(wait)))
    async with create_task_group() as tasks:
        calls = Calls(tasks)
        for number in range(100):
            calls.start(str(number), initializer, ModelConfig("m"), key="k")
        await gate.entered()
        threads = [threading.Thread(target=wait) for _ in range(3)]
        for thread in threads:
            thread.start()
        calls.start("outer", initializer, ModelConfig("outer"))
        await until(lambda: initializer.statistics().waiters == 105)
        if ending == "a close":
            await initializer.aclose(grace=0.0)
        gate.open()
        with fail_after(20):
            got += [await calls.result(str(number)) for number in range(100)]
            await until(lambda: len(got) >= (103 if ending == "a close" else 104))
            await calls.result("outer")
        kinds = {"a model": FakeModel, "an error": LoadError, "a close": ClosedError}
        told = [one for one in got if isinstance(one, kinds[ending])]
        assert len(told) >= 103
        await settled(initializer)
    await initializer.aclose()


async def test_i8_a_nearer_deadline_wakes_the_watchdog(gate: Gate) -> None:
    """A load whose limit comes before all others is past it on time, whatever was set before."""
    held = Gate()

    def stalls(_: object) -> None:
        report_progress()  # the limit runs from here, so not before the thread has come here
        gate.enter()

    registry = registry_of_two(does(stalls), returns_at_once())
    registry.module("patient")(waits_at(held))
    priority = [{"type": "GPU", "stall_timeout": SHORT}, {"type": "LOCAL", "timeout": 1000.0}]
    async with (
        Initializer(registry, backend_priority=priority) as initializer,
        create_task_group() as tasks,
    ):
        for number in range(3):
            Caller(tasks, initializer, ModelConfig("patient"))
            await held.entered(number + 1)
            with fail_after(20):
                await initializer.init(ModelConfig("m"))
            await until(lambda: initializer.statistics().abandoned == number + 1)  # noqa: B023
        held.open()
        gate.open()
        await settled(initializer)


def test_i10_a_late_result_reaches_nobody(scene: Scene) -> None:
    """What a load made after its callers had ended, though it came, was given to none of them."""
    late = [visit.made for visit in scene.visits if visit.hung and visit.made is not None]
    assert len(late) > 10
    assert not scene.given & set(map(id, late))


async def test_i10_a_late_result_is_no_result_of_the_fallback(gate: Gate) -> None:
    """What comes while the next backend is still loading is discarded, and that one is awaited."""
    fallback = Gate()
    stuck, next_one = does(lambda config: gate.enter()), waits_at(fallback)
    priority = [{"type": "GPU", "timeout": LIMIT}, {"type": "LOCAL"}]
    async with (
        Initializer(registry_of_two(stuck, next_one), backend_priority=priority) as initializer,
        create_task_group() as tasks,
    ):
        caller = Caller(tasks, initializer, ModelConfig("m"))
        await gate.entered()
        let_pass(initializer, 2 * LIMIT)
        await fallback.entered()
        gate.open()
        await until(lambda: [model.released for model in stuck.made] == [1])
        assert initializer.statistics().waiters == 1
        fallback.open()
        assert type(await caller.result()) is next_one
        await settled(initializer)


@pytest.mark.parametrize("cause", ["nobody waits", "abandoned", "out of grace"])
async def test_i11_the_flag_is_set_exactly_when_it_is_to_be(gate: Gate, cause: str) -> None:
    """A load is told to stop once nobody waits, it is abandoned, or a grace is over; not before."""
    told: list[bool] = []

    def load(_: object) -> None:
        for _ in range(2):
            gate.enter()
            try:
                report_progress()
            except LoadCancelled:
                told.append(True)
            else:
                told.append(False)

    grace = CancelScope()

    async def close() -> None:
        with grace:
            await initializer.aclose(grace=1000.0)

    # It runs from the first report, so only from when that was answered.
    limit = {"stall_timeout": SHORT} if cause == "abandoned" else {}
    fallback = Gate()
    initializer = Initializer(
        registry_of_two(does(load), waits_at(fallback)),
        backend_priority=[{"type": "GPU", **limit}, {"type": "LOCAL"}],
    )
    async with create_task_group() as tasks:
        callers = [Caller(tasks, initializer, ModelConfig("m"), key="k") for _ in range(2)]
        await gate.entered()
        if cause == "nobody waits":
            await callers[0].cancel()
        elif cause == "out of grace":
            tasks.start_soon(close)
            await until(lambda: "closed" in repr(initializer))
        gate.let_through()
        await gate.entered(2)
        assert told == [False]
        if cause == "nobody waits":
            await callers[1].cancel()
        elif cause == "out of grace":
            grace.cancel()
            assert type(await callers[1].failure()) is ClosedError
        else:
            await fallback.entered()  # its callers wait on
        gate.open()
        await until(lambda: told == [False, True])
        fallback.open()
        await settled(initializer)
    await initializer.aclose()


def test_i12_attempts_follow_the_plan(scene: Scene) -> None:
    """Each backend is tried in the plan's order, at most once, until one loads or none is left."""
    ends = [
        event for events in scene.events for event in events if isinstance(event, Loaded | Failed)
    ]
    assert len(ends) > 100
    for end in ends:
        report = end.report
        backends = [attempt.backend for attempt in report.attempts]
        assert backends == ["GPU", "LOCAL"][: len(backends)], report
        loaded = [attempt.outcome == "loaded" for attempt in report.attempts]
        assert not any(loaded[:-1]), report
        assert (report.backend is not None) == (loaded[-1:] == [True]), report
        if isinstance(end, Failed) and end.error.startswith("LoadError"):
            assert len(backends) == 2 or report.attempts[-1].outcome == "stalled", report


@pytest.mark.parametrize("place", range(len(HOMES)))
def test_i13_after_a_close_nothing_starts_and_nobody_waits(scene: Scene, place: int) -> None:
    """When a close returns every waiter has its outcome, and from then on no load begins."""
    closed, figures = scene.closed[place], scene.at_close[place]
    assert (figures.waiters, figures.flights) == (0, 0)
    of_home = [visit for visit in scene.visits if visit.home == HOMES[place]]
    assert all(visit.entered < closed for visit in of_home)
    assert type(scene.after_close[place].error) is ClosedError


def test_i14_at_rest_nothing_is_left(scene: Scene) -> None:
    """Once all has ended nothing runs, waits, was left behind, and every slot is free."""
    for figures in scene.at_rest:
        assert at_rest(figures)
        assert (figures.resolving, figures.preparing, figures.queued) == (0, 0, 0)
        assert figures.free_slots == SLOTS


def test_i15_after_a_close_only_abandoned_threads_are_left(scene: Scene) -> None:
    """Neither workers nor watchdogs outlive a close, but for the threads that it abandoned."""
    threads, abandoned = scene.threads_at_close
    assert threads == abandoned > 0
    assert scene.threads_at_end == 0


@pytest.mark.parametrize("seed", range(3))
async def test_i16_cancelling_a_caller_changes_no_other(seed: int) -> None:
    """Of two runs that differ only in who is cancelled, everybody else gets the same."""
    undisturbed = await outcomes_of(seed, cancelling=False)
    assert len(undisturbed) > 10
    assert await outcomes_of(seed, cancelling=True) == undisturbed


def test_i17_loads_of_a_group_never_overlap(scene: Scene) -> None:
    """Over both initializers one load of the group is in a thread at a time, abandoned or not."""
    grouped = [visit for visit in scene.visits if visit.group is not None]
    assert {visit.home for visit in grouped} == set(HOMES)
    assert any(visit.hung for visit in grouped)
    for earlier, later in pairwise(sorted(grouped, key=lambda visit: visit.entered)):
        assert earlier.left <= later.entered


def test_i19_open_files_children_and_tasks_are_as_before(scene: Scene) -> None:
    """The scene leaves as many open files, child processes and tasks as there were."""
    before, after = scene.footprints
    assert after == before


def test_i20_nothing_complains(scene: Scene) -> None:
    """No exception is left for the loop or the garbage collector to report, and no warning."""
    assert scene.complaints == []


def test_i22_every_model_of_a_bulk_has_one_outcome(scene: Scene) -> None:
    """Whatever else goes on, `init_each` yields each of its models once, in a close as well."""
    assert len(scene.bulks) > 10
    for models, came in scene.bulks:
        assert sorted(came) == sorted(models)


def test_i23_every_discarded_model_was_released_once(scene: Scene) -> None:
    """A model that nobody received was released exactly once; one that somebody has, never."""
    made = [visit.made for visit in scene.visits if visit.made is not None]
    released = {id(model): model.released for model in made}
    assert released == {id(model): 0 if id(model) in scene.given else 1 for model in made}
    discarded = [event for events in scene.events for event in events if type(event) is Discarded]
    assert len(discarded) == sum(released.values()) > 10
