"""Which backends a model would try, and why others are skipped."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from calls import GPU_THEN_LOCAL, two_backends

from anyload import Backend, Initializer, ModelConfig, Registry
from anyload._load.plan import Candidate, Choice, Skip, make_plan
from anyload.testing import FakeModel, returns_at_once


class Tpu(Backend):
    backend_type = "TPU"


class First(FakeModel):
    exclusive_group = "cards"


class Second(FakeModel):
    supported_load_backends = ("GPU", "TPU")


def registry() -> Registry:
    known = two_backends()
    known.backend_type(Tpu)
    known.module("m", "GPU")(First)
    known.module("m")(Second)
    return known


def planned(model_backend: str | None = None, unavailable: Any = None) -> Any:
    known = registry()
    choices = [
        Choice(known.backend_types[name](Backend.Config()), 5.0) for name in ("TPU", "GPU", "LOCAL")
    ]
    return make_plan(
        "m", model_backend, choices, unavailable or {}, known.implementations("m"), (First,)
    )


def test_the_order_is_the_priority() -> None:
    """Every backend has one step, tried or skipped, at its place."""
    plan = planned()
    assert [step.backend_type for step in plan.steps] == ["TPU", "GPU", "LOCAL"]
    assert [step.implementation.cls for step in plan.candidates] == [First, Second]
    assert plan.skipped == (
        Skip("TPU", "module 'm' has no TPU implementation (it has GPU, LOCAL)"),
    )
    assert (plan.module_id, plan.accepted) == ("m", (First,))


def test_a_candidate_knows_its_backend_limit_and_resources() -> None:
    """What a step needs in order to run is in it."""
    gpu, local = planned().candidates
    assert gpu.choice.timeout == 5.0
    assert gpu.resources == ("group cards",)
    assert local.resources == ()


@pytest.mark.parametrize(
    ("model_backend", "tried"),
    [(None, ["GPU", "LOCAL"]), ("GPU", ["GPU", "LOCAL"]), ("TPU", ["LOCAL"])],
)
def test_a_model_made_for_a_backend_goes_where_it_can_be_loaded(
    model_backend: str | None, tried: list[str]
) -> None:
    """An implementation that cannot load models of that kind is skipped."""
    plan = planned(model_backend)
    assert [step.backend_type for step in plan.candidates] == tried


def test_a_skip_for_the_creation_backend_says_what_the_class_loads() -> None:
    """The reason names both sides, in order."""
    reason = planned("LOCAL").steps[2].reason
    assert reason == f"made with LOCAL; {__name__}.Second loads models of GPU, TPU"


def test_an_unavailable_backend_is_skipped_whatever_else_is_wrong_with_it() -> None:
    """Its own reason is given, also where there is no implementation for it."""
    plan = planned(unavailable={0: "no card", 1: "busy"})
    assert plan.skipped == (Skip("TPU", "no card"), Skip("GPU", "busy", lasting=False))
    assert [step.backend_type for step in plan.candidates] == ["LOCAL"]


def test_a_narrowed_plan_keeps_places_and_says_why() -> None:
    """What is left out is skipped for now; what is skipped anyway keeps its reason."""
    plan = planned()
    tpu, gpu, local = plan.steps
    assert plan.narrowed({}) is plan
    assert plan.narrowed({0: "broken"}) is plan
    assert plan.narrowed({1: "broken"}).steps == (tpu, Skip("GPU", "broken", lasting=False), local)
    assert plan.narrowed({0: "broken", 2: "broken"}, 2).steps == (tpu, gpu)


def test_a_better_backend_may_be_had_some_time_unless_there_is_none() -> None:
    """What is unavailable or left out may come back; what has no implementation never does."""
    plan = planned()
    assert [plan.improvable(place) for place in range(3)] == [False, False, True]
    assert plan.narrowed({1: "broken"}).improvable(2)
    assert planned(unavailable={0: "no card", 1: "busy"}).improvable(2)
    assert not planned("LOCAL", unavailable={0: "no card", 1: "busy"}).improvable(2)


def test_the_text_is_a_numbered_list() -> None:
    """A plan prints as what a person wants to know."""
    plan = replace(planned(unavailable={0: "no card"}), model="name")
    assert str(plan).splitlines() == [
        "name (module 'm')",
        "  1. TPU  skipped  no card",
        f"  2. GPU  try {__name__}.First",
        f"  3. LOCAL  try {__name__}.Second",
    ]


async def test_an_initializer_plans_and_loads_nothing() -> None:
    """plan() is what init() would do, and no load runs."""
    module = returns_at_once()
    known = two_backends()
    known.module("m")(module)
    async with Initializer(known, backend_priority=GPU_THEN_LOCAL) as initializer:
        plan = await initializer.plan(ModelConfig("m"))
        skip, candidate = plan.steps
        assert skip == Skip("GPU", "module 'm' has no GPU implementation (it has LOCAL)")
        assert isinstance(candidate, Candidate)
        assert candidate.implementation.cls is module
        assert initializer.statistics().loaded == 0
        assert "LOCAL  try" in str(plan)
