"""The parts of the repository that only decide: states, budget, eviction, failures, meters."""

from __future__ import annotations

import errno
import itertools
import math
import os
import random
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anyload._keeping.budget import Budget, added, fits, minus, plus, short_of
from anyload._keeping.eviction import Candidate, plan_eviction
from anyload._keeping.failure_memory import FailureMemory, is_for_memory, is_permanent
from anyload._keeping.files import MOST_FILES, stamp_of_files
from anyload._keeping.meter import SystemMeter, limits_of
from anyload._keeping.policies import POLICIES, Idle, PolicyName, cost_aware
from anyload._keeping.states import (
    NEEDS_A_REASON,
    NEXT,
    STATE_OF,
    IllegalMoveError,
    Lifecycle,
    Phase,
)
from anyload.errors import (
    ConfigError,
    IntegrityError,
    LoadError,
    LoadTimeoutError,
    ModelNotFoundError,
)
from anyload.model_config import ModelConfig
from anyload.reports import Attempt
from anyload.testing import FakeMeter

PHASES: tuple[Phase, ...] = get_args(Phase)
sizes = st.dictionaries(st.sampled_from(["cpu", "cuda:0"]), st.integers(0, 10))


class TestStates:
    @given(st.lists(st.tuples(st.sampled_from(PHASES), st.sampled_from(["", "why"]))))
    def test_histories(self, moves: list[tuple[Phase, str]]) -> None:
        """Every transition is one event; one that is not allowed changes nothing."""
        life = Lifecycle("a", "1")
        for at, (phase, reason) in enumerate(moves):
            before = life.phase
            allowed = phase in NEXT[before] and bool(reason or phase not in NEEDS_A_REASON)
            if allowed:
                event = life.move(phase, reason, at)
                assert (event.before, event.phase, event.reason) == (before, phase, reason)
                assert event.state == life.state == STATE_OF[phase]
                assert event.at == at
            else:
                with pytest.raises(IllegalMoveError):
                    life.move(phase, reason, at)
                assert life.phase == before

    def test_every_phase(self) -> None:
        """Every phase is reached, has a state, and leads to an end."""
        assert set(STATE_OF) == set(NEXT) == set(PHASES)
        assert set(itertools.chain.from_iterable(NEXT.values())) == set(PHASES) - {"known"}
        assert [phase for phase in PHASES if not NEXT[phase]] == ["unloaded", "failed"]


class TestBudget:
    @given(st.lists(st.tuples(st.sampled_from("abc"), st.none() | sizes)))
    def test_sums(self, steps: list[tuple[str, dict[str, int] | None]]) -> None:
        """What is used is the sum of what is held."""
        budget, held = Budget({"cpu": 10}), dict[str, dict[str, int]]()
        for holder, size in steps:
            if size is None:
                budget.drop(holder)
                held.pop(holder, None)
            else:
                budget.hold(holder, size)
                held[holder] = size
            total = plus(held.values())
            assert all(budget.used(device) == total.get(device, 0) for device in budget.devices)
            assert budget.room() == {"cpu": 10 - total.get("cpu", 0)}
            assert len(budget) == len(held)

    def test_arithmetic(self) -> None:
        """A device without a limit has room for anything."""
        assert fits({"cuda:0": 100}, {"cpu": 1})
        assert not fits({"cpu": 2}, {"cpu": 1})
        assert short_of({"cpu": 3, "cuda:0": 9}, {"cpu": 1}) == {"cpu": 2}
        assert minus({"cpu": 3}, {"cpu": 1, "cuda:0": 1}) == {"cpu": 2}
        assert added({"cpu": 3}, {"cpu": 1}) == {"cpu": 4}


models = st.builds(
    Idle,
    st.uuids().map(str),
    st.floats(0, 1000),
    st.floats(0, 100),
    sizes,
)
candidates = st.lists(
    st.builds(Candidate, models, st.sampled_from(["idle", "idle", "leased", "pinned", "new"])),
    max_size=8,
)


class TestEviction:
    @given(candidates, sizes, st.sampled_from(get_args(PolicyName)))
    def test_promises(self, kept: list[Candidate], missing: dict[str, int], name: str) -> None:
        """It gives up idle models only, either enough or none, and none too many."""
        missing = {device: size for device, size in missing.items() if size}
        policy = POLICIES[name]  # type: ignore[index]
        victims, reason = plan_eviction(kept, missing, policy)
        idle = [one.model for one in kept if one.standing == "idle"]
        assert all(victim in idle for victim in victims)
        could = plus(model.sizes for model in idle)
        possible = all(could.get(device, 0) >= size for device, size in missing.items())
        if not possible:
            assert not victims
            assert reason
            return
        assert not reason
        freed = plus(model.sizes for model in victims)
        assert all(freed.get(device, 0) >= size for device, size in missing.items())
        for victim in victims:
            others = plus(model.sizes for model in victims if model is not victim)
            assert any(others.get(device, 0) < size for device, size in missing.items())

    def order(self, name: PolicyName, *idle: Idle) -> list[str]:
        """Return the order in which they would go, one after another."""
        names, left = [], list(idle)
        while left:
            victims, _ = plan_eviction(
                [Candidate(model, "idle") for model in left], {"cpu": 1}, POLICIES[name]
            )
            names.append(victims[0].name)
            left.remove(victims[0])
        return names

    def test_policies(self) -> None:
        """Each policy has its own order."""
        idle = (
            Idle("old", 100.0, 50.0, {"cpu": 1}),
            Idle("cheap", 20.0, 0.1, {"cpu": 2}),
            Idle("large", 30.0, 10.0, {"cpu": 9}),
        )
        assert self.order("lru", *idle) == ["old", "large", "cheap"]
        assert self.order("cost", *idle) == ["cheap", "large", "old"]
        assert self.order("largest", *idle) == ["large", "cheap", "old"]
        assert cost_aware(Idle("instant", 1.0, 0.0, {"cpu": 2})) == 2000

    def test_none_too_many(self) -> None:
        """Who turns out not to be needed is let off, though its turn had come."""
        kept = [
            Candidate(Idle("small", 9.0, 1.0, {"cpu": 1}), "idle"),
            Candidate(Idle("large", 5.0, 1.0, {"cpu": 9}), "idle"),
        ]
        victims, _ = plan_eviction(kept, {"cpu": 5}, POLICIES["lru"])
        assert [victim.name for victim in victims] == ["large"]

    def test_why_not(self) -> None:
        """Where it cannot be done, it says how much is missing and who has it."""
        kept = [Candidate(Idle(f"m{n}", 1.0, 1.0, {"cpu": 1024}), "leased") for n in range(7)]
        kept.append(Candidate(Idle("idle", 1.0, 1.0, {"cpu": 512, "cuda:0": 99}), "idle"))
        missing = {"cpu": 2048, "cuda:0": 1}
        _, reason = plan_eviction(kept, missing, POLICIES["lru"])
        assert reason.startswith(
            "2 KiB of cpu missing, 512 B to be had from idle models; 'm0' is leased (1 KiB), "
        )
        assert reason.endswith("'m4' is leased (1 KiB) and 2 more")
        assert "cuda" not in reason
        _, reason = plan_eviction([], {"cpu": 1}, POLICIES["lru"])
        assert reason == "1 B of cpu missing, 0 B to be had from idle models"


def failed_with(*errors: BaseException | None, outcome: Any = "raised") -> LoadError:
    attempts = [Attempt("GPU", outcome, "why", error=error) for error in errors]
    return LoadError("a", "m", attempts)


class TestFailureMemory:
    def test_permanent(self) -> None:
        """What would fail again is permanent; what may pass is not."""
        assert is_permanent(ModelNotFoundError("a", "gone"))
        assert is_permanent(failed_with(None, outcome="skipped"))
        assert is_permanent(failed_with(ModelNotFoundError("a", "gone")))
        assert not is_permanent(failed_with(ValueError("broken")))
        assert not is_permanent(failed_with())
        assert not is_permanent(LoadTimeoutError("a", limit=1.0))

    @pytest.mark.parametrize(
        ("cause", "so"),
        [
            (OSError(errno.EMFILE, "too many open files"), False),
            (OSError(errno.ENFILE, "too many open files"), False),
            (OSError(errno.EIO, "an I/O error"), False),
            (OSError(errno.ESTALE, "a stale file handle"), False),
            (OSError(errno.ETIMEDOUT, "a file server that does not answer"), False),
            (OSError(errno.ENOTCONN, "no server behind it"), False),
            (OSError(errno.EBUSY, "in use"), False),
            (OSError(errno.EHOSTDOWN, "its host is down"), False),
            (OSError(errno.ENETUNREACH, "no network"), False),
            (OSError(errno.EHOSTUNREACH, "no way to its host"), False),
            (MemoryError(), False),
            (FileNotFoundError(errno.ENOENT, "no such file"), True),
            (OSError("without a number"), True),
            (ValueError("broken"), True),
        ],
    )
    def test_what_it_comes_from(self, cause: Exception, so: bool) -> None:
        """A file that could not be read for a moment says nothing of the model, however told."""
        between, error = RuntimeError("unreadable"), IntegrityError("a", "unreadable")
        error.__cause__, between.__cause__ = between, cause
        assert is_permanent(error) is so
        assert is_permanent(failed_with(error)) is so
        cause.__cause__ = between  # a circle, which only code that is strange makes
        assert is_permanent(error) is so

    @pytest.mark.parametrize(
        ("error", "so"),
        [
            (MemoryError(), True),
            (RuntimeError("CUDA error: out of memory"), True),
            (type("OutOfMemoryError", (RuntimeError,), {})("no"), True),
            (ValueError("broken"), False),
            (None, False),
        ],
    )
    def test_out_of_memory(self, error: BaseException | None, so: bool) -> None:
        """Frameworks say in many ways that memory ran out."""
        assert is_for_memory(failed_with(error)) is so
        assert not is_for_memory(ModelNotFoundError("a", "out of memory"))

    def test_cool_down(self) -> None:
        """Each failure in a row is remembered twice as long, less some jitter, up to a limit."""
        jitter = iter([0.0, 1.0, 0.5, 0.0])
        memory = FailureMemory(10.0, 30.0, lambda: next(jitter))
        assert memory.retry_after(0.0) is None
        for now, seconds in ((0.0, 10.0), (100.0, 16.0), (200.0, 27.0)):
            error = failed_with(ValueError("broken"))
            memory.remember(error, now)
            assert memory.error is error
            assert memory.retry_after(now) == seconds
            assert memory.retry_after(now + seconds) is None
        memory.forget()
        memory.remember(failed_with(ValueError("broken")), 0.0)
        assert memory.retry_after(0.0) == 10.0
        memory.remember(ModelNotFoundError("a", "gone"), 0.0)
        assert memory.retry_after(1e9) == math.inf

    def test_files(self, tmp_path: Path) -> None:
        """Whether a model's files have changed is told by a stamp of them."""
        model = tmp_path / "model"
        config = ModelConfig("m", model)
        stamps = [stamp_of_files(config)]
        model.mkdir()
        stamps.append(stamp_of_files(config))
        (model / "weights").write_text("a")
        stamps.append(stamp_of_files(config))
        (model / "weights").write_text("ab")
        stamps.append(stamp_of_files(config))
        times = (model / "weights").stat()
        (model / "weights").write_text("cd")  # as many bytes, and of the same time
        os.utime(model / "weights", ns=(times.st_atime_ns, times.st_mtime_ns))
        stamps.append(stamp_of_files(config))
        (model / "part").mkdir()
        stamps.append(stamp_of_files(config))
        (model / "part" / "more").symlink_to("nowhere")
        stamps.append(stamp_of_files(config))
        assert len(set(stamps)) == 7
        assert stamp_of_files(config) == stamps[-1]
        for number in range(MOST_FILES + 5):
            (model / str(number)).touch()
        stamp = stamp_of_files(config)
        assert isinstance(stamp, tuple)
        assert len(stamp) == MOST_FILES
        assert stamp_of_files(ModelConfig("m")) is None


class TestMeter:
    def test_system(self, tmp_path: Path) -> None:
        """The memory is that of the machine, or of the container if that has less."""
        limit = tmp_path / "memory.max"
        whole = SystemMeter(()).total("cpu")
        assert whole is not None
        assert whole > 2**20
        limit.write_text("max\n")
        assert SystemMeter((str(limit), "/nowhere")).total("cpu") == whole
        limit.write_text("1048576\n")
        assert SystemMeter((str(limit),)).total("cpu") == 2**20
        assert SystemMeter().total("tpu") is None
        assert SystemMeter().total("cuda:9999") is None

    def test_limits(self) -> None:
        """A share is of what there is; where that cannot be told it is an error."""
        meter = FakeMeter(cpu=1000, cuda_0=2000)
        budget = {"cpu": 0.5, "cuda:0": 0.25, "cuda:1": 77}
        assert limits_of(budget, meter) == {"cpu": 500, "cuda:0": 500, "cuda:1": 77}
        with pytest.raises(ConfigError, match=r"repository.budget.tpu.*give the budget in bytes"):
            limits_of({"tpu": 0.5}, meter)


def seconds_spent_loading(policy: PolicyName, seed: int) -> float:
    """Serve 3,000 requests for 30 models, of which a third fits, and return what loads took."""
    chance = random.Random(seed)
    names = [f"m{number}" for number in range(30)]
    size = {name: chance.randint(1, 10) for name in names}
    cost = {name: chance.choice([0.1, 0.5, 2.0, 20.0]) for name in names}
    popular = [1 / (rank + 1) for rank in range(30)]  # Zipf
    budget, now, spent = sum(size.values()) // 3, 0.0, 0.0
    used_at: dict[str, float] = {}
    for name in chance.choices(names, popular, k=3000):
        now += 1.0
        if name not in used_at:
            missing = size[name] - (budget - sum(size[kept] for kept in used_at))
            if missing > 0:
                idle = [
                    Candidate(Idle(kept, now - at, cost[kept], {"cpu": size[kept]}), "idle")
                    for kept, at in used_at.items()
                ]
                victims, _ = plan_eviction(idle, {"cpu": missing}, POLICIES[policy])
                for victim in victims:
                    del used_at[victim.name]
            spent += cost[name]
        used_at[name] = now
    return spent


def test_cost_pays() -> None:
    """Where reloads differ in what they take, the policy that looks at that loads for less time."""
    seeds = range(5)
    cost = sum(seconds_spent_loading("cost", seed) for seed in seeds)
    lru = sum(seconds_spent_loading("lru", seed) for seed in seeds)
    assert cost < 0.5 * lru
