"""What the keys of the drop-in add: another backend after an error, limits, slots, groups."""

from __future__ import annotations

import logging
import subprocess
import sys
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import caikit
import pytest
from asking import (
    SHORT,
    Asking,
    figures,
    gpu_then_local,
    load_late,
    on_two_backends,
    settled,
    until,
    waits_at,
)
from caikit.core import MODEL_MANAGER
from scenes import LIMIT, let_pass
from worlds import Call, World, gives, makes, raises

from anyload import ConfigError, LoadCancelled, LoadError, LoadTimeoutError, SaturatedError
from anyload.caikit import AnyloadInitializer
from anyload.testing import Gate


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """A world of its own for each test."""
    with World(AnyloadInitializer, tmp_path) as world:
        yield world


class TestOnError:
    def test_the_next_backend_loads(self, world: World) -> None:
        """After an error, of both calls, the next backend of the list loads."""
        gpu, local = on_two_backends(world, raises(ValueError("config"), ValueError("path")))
        world.made_from({"backend_priority": gpu_then_local(), "on_error": "next"})
        assert type(world.load().model) is local
        assert world.calls(gpu) == 2
        settled(world)

    def test_none_is_an_error_too(self, world: World) -> None:
        """... and so it does after something that is no model."""
        _, local = on_two_backends(world, gives(None))
        world.made_from({"backend_priority": gpu_then_local(), "on_error": "next"})
        assert type(world.load().model) is local
        settled(world)

    @pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), StopIteration()])
    def test_whatever_was_raised(self, world: World, error: BaseException) -> None:
        """... whatever it was: a library that ends the process, say, has no such device."""
        _, local = on_two_backends(world, raises(error, error))
        world.made_from({"backend_priority": gpu_then_local(), "on_error": "next"})
        assert type(world.load().model) is local
        settled(world)

    def test_not_after_a_load_that_was_cancelled(self, world: World) -> None:
        """LoadCancelled is not about the backend: it ends the load."""
        _, local = on_two_backends(world, raises(LoadCancelled()))
        world.made_from({"backend_priority": gpu_then_local(), "on_error": "next"})
        assert isinstance(world.load().error, LoadError)
        assert world.calls(local) == 0
        settled(world)

    def test_the_report_has_every_attempt(self, world: World) -> None:
        """Where no backend loads, the error has every attempt, and why it came to nothing."""
        world.backend_type("GPU", "TPU")
        last = world.module(does=raises(ValueError("config"), OSError("no weights")))
        world.module("GPU", does=gives(3), SUPPORTED_LOAD_BACKENDS=["LOCAL"])
        world.make("TPU", "GPU", "LOCAL", on_error="next")
        error = world.load().error
        assert type(error) is LoadError
        assert [(one.backend, one.outcome) for one in error.attempts] == [
            ("TPU", "skipped"),
            ("GPU", "raised"),
            ("LOCAL", "raised"),
        ]
        assert "module 'm' is not implemented for it" in str(error)
        assert "type check failed: variable `model` has type `int`" in str(error)
        assert "OSError: no weights" in str(error)
        assert isinstance(error.__cause__, OSError)
        assert error.report is not None
        assert last.__name__ in str(error.attempts[-1].implementation)
        settled(world)

    def test_nothing_matches(self, world: World) -> None:
        """Where no backend can load it, None is what is returned, as ever."""
        world.module()
        world.make("LOCAL", on_error="next")
        assert world.load(world.config(model_backend="GPU")) == (None, None)
        settled(world)


class TestTimeout:
    def test_it_ends_the_load(self, world: World, gate: Gate) -> None:
        """Past its limit a load is a LoadError; no other backend is tried by default."""
        _, local = on_two_backends(world, waits_at(gate))
        world.made_from({"backend_priority": gpu_then_local(timeout=SHORT)})
        error = world.load().error
        assert type(error) is LoadError
        assert [(one.backend, one.outcome) for one in error.attempts] == [("GPU", "timed_out")]
        assert world.calls(local) == 0
        gate.open()
        settled(world)

    def test_the_next_backend_loads(self, world: World, gate: Gate) -> None:
        """... and with ``on_error: next`` the next one loads, while the first still runs."""
        _, local = on_two_backends(world, waits_at(gate))
        priority = gpu_then_local(timeout=LIMIT)
        world.made_from({"backend_priority": priority, "on_error": "next"})
        assert type(load_late(world, gate).model) is local
        assert figures(world).abandoned == 1
        gate.open()
        settled(world)

    @pytest.mark.parametrize("is_late", [False, True], ids=["in_time", "late"])
    def test_what_comes_late_is_dropped(self, world: World, gate: Gate, is_late: bool) -> None:
        """A model that comes past the limit goes at once, and one that is in use does not."""
        made: list[weakref.ref[Any]] = []

        def does(call: Call) -> Any:
            model = call.cls()
            made.append(weakref.ref(model))
            gate.enter()
            return model

        on_two_backends(world, does)
        limits = {"timeout": LIMIT} if is_late else {}
        world.made_from({"backend_priority": gpu_then_local(**limits), "on_error": "next"})
        with Asking(world) as asking:
            asked = asking.ask()
            if is_late:
                gate.entered_sync()
                let_pass(world.initializer, 2 * LIMIT)
                asked.result()
            gate.open()
            model = asked.result()
        settled(world)
        assert figures(world).discarded == is_late
        until(lambda: (made[0]() is None) == is_late)
        assert ("LOCAL" if is_late else "GPU") == model.BACKEND_TYPE

    def test_what_comes_late_is_not_released(self, world: World, gate: Gate) -> None:
        """A method named ``release`` is the module's own affair."""
        world.backend_type("GPU")
        world.module(does=waits_at(gate), release=lambda self: world.note("released"))
        world.made_from({"backend_priority": [{"type": "LOCAL", "timeout": LIMIT}]})
        assert load_late(world, gate).error
        gate.open()
        settled(world)
        assert ["released"] not in world.log

    def test_both_calls_share_it(self, world: World) -> None:
        """The limit is one for both calls; the second is in the thread of the first."""
        gate = Gate()

        def does(call: Call) -> Any:
            if call.number == 1:
                raise ValueError("with the config")
            gate.enter()
            return call.cls()

        world.module(does=does)
        world.made_from({"backend_priority": [{"type": "LOCAL", "timeout": LIMIT}]})
        error = load_late(world, gate).error
        assert isinstance(error, LoadError)
        assert error.attempts[-1].outcome == "timed_out"
        gate.open()
        settled(world)

    def test_it_is_of_the_entry(self, world: World, gate: Gate) -> None:
        """Of two entries of one type, each has its own limit."""
        on_two_backends(world, waits_at(gate))
        priority = [{"type": "GPU", "timeout": LIMIT}, {"type": "GPU"}]
        world.made_from({"backend_priority": priority, "on_error": "next"})
        with Asking(world) as asking:
            asked = asking.ask()
            gate.entered_sync()
            let_pass(world.initializer, 2 * LIMIT)
            gate.entered_sync(2)
            gate.open()
            assert asked.result().load_backend is world.initializer.backends[1]
        settled(world)


class TestLoadTimeout:
    def test_it_ends_the_load(self, world: World, gate: Gate) -> None:
        """All attempts together have a limit, and the error says so."""
        on_two_backends(world, waits_at(gate))
        config = {"backend_priority": gpu_then_local(), "on_error": "next", "load_timeout": SHORT}
        world.made_from(config)
        error = world.load().error
        assert isinstance(error, LoadTimeoutError)
        assert error.limit == SHORT
        gate.open()
        settled(world)

    def test_waiting_for_a_slot_counts(self, world: World, gate: Gate) -> None:
        """A load that only waits for others has the same limit."""
        world.module(does=waits_at(gate))
        world.made_from(
            {"load_timeout": LIMIT, "max_concurrent_loads": 1, "max_abandoned_loads": 0}
        )
        with Asking(world) as asking:
            first = asking.ask()
            gate.entered_sync()
            second = asking.ask()
            until(lambda: figures(world).queued == 1)
            let_pass(world.initializer, 2 * LIMIT)
            errors = [first.exception(), second.exception()]
        assert {type(error) for error in errors} <= {LoadTimeoutError, SaturatedError}
        assert world.log.count(["load", "class MOnLocal", "the config of m", {}]) == 1
        gate.open()
        settled(world)


class TestSlots:
    def test_no_more_run_at_once(self, world: World, gate: Gate) -> None:
        """No more loads run at once than there are slots; the others wait."""
        world.module(does=waits_at(gate))
        world.made_from({"max_concurrent_loads": 2})
        with Asking(world) as asking:
            asked = [asking.ask() for _ in range(5)]
            gate.entered_sync(2)
            until(lambda: figures(world).queued == 3)
            gate.open()
            assert len({id(one.result()) for one in asked}) == 5
        assert gate.most_inside == 2
        settled(world)

    @pytest.mark.parametrize("how", ["init", "caikit"])
    def test_nested_loads_need_no_slot(self, world: World, how: str) -> None:
        """A load inside a load runs where that runs, so one slot is enough."""
        path = world.saved("inner")
        MODEL_MANAGER._initializers["default"] = initializer = world.made_from(
            {"max_concurrent_loads": 1, "share": True}
        )

        def does(call: Call) -> Any:
            model = call.cls()
            load = caikit.load if how == "caikit" else initializer.init
            model.inner = load(path if how == "caikit" else world.config("inner", path))
            return model

        world.module(module_id="inner")
        world.module(does=does)
        assert world.load().model.inner.load_backend is initializer.backends[0]
        settled(world)

    def test_a_nested_load_fails(self, world: World) -> None:
        """... and what it raises leaves nothing behind."""
        inner = world.config("inner")
        world.module(module_id="inner", does=raises(ValueError("it is damaged")))
        world.module(does=lambda call: world.initializer.init(inner))
        world.made_from({"max_concurrent_loads": 1, "argument": "config"})
        assert isinstance(world.load().error, ValueError)
        assert world.load().model
        settled(world)


class TestGroups:
    def overlap(self, world: World, gate: Gate, number: int, **options: Any) -> None:
        """Require that of four loads of two modules this many run at once."""
        world.made_from(options)
        with Asking(world) as asking:
            asked = [asking.ask(world.config(module_id)) for module_id in "abab"]
            gate.entered_sync(number)
            until(lambda: figures(world).queued == 4 - number)
            assert gate.most_inside == number
            gate.open()
            assert all(one.result() for one in asked)
        settled(world)

    def test_by_module_id(self, world: World, gate: Gate) -> None:
        """Loads of modules that the configuration puts into one group never overlap."""
        for module_id in "ab":
            world.module(module_id=module_id, does=waits_at(gate))
        self.overlap(world, gate, 1, exclusive_groups={"a": "card", "b": "card"})

    def test_by_two_groups(self, world: World, gate: Gate) -> None:
        """... and those of two groups do."""
        for module_id in "ab":
            world.module(module_id=module_id, does=waits_at(gate))
        self.overlap(world, gate, 2, exclusive_groups={"a": "card", "b": "disk"})

    def test_of_one_only(self, world: World, gate: Gate) -> None:
        """A module that is in no group waits for nobody."""
        for module_id in "ab":
            world.module(module_id=module_id, does=waits_at(gate))
        self.overlap(world, gate, 3, exclusive_groups={"a": "card"})

    def test_by_their_own_attribute(self, world: World, gate: Gate) -> None:
        """A module can say by an attribute which group it is in."""
        for module_id in "ab":
            world.module(module_id=module_id, does=waits_at(gate), exclusive_group="card")
        self.overlap(world, gate, 1)

    def test_the_configuration_has_the_last_word(self, world: World, gate: Gate) -> None:
        """... and the configuration another one."""
        for module_id in "ab":
            world.module(module_id=module_id, does=waits_at(gate), exclusive_group="card")
        self.overlap(world, gate, 2, exclusive_groups={"b": "disk"})

    def test_of_two_initializers(self, world: World, gate: Gate) -> None:
        """A group is one for the whole process."""
        world.module(does=waits_at(gate), exclusive_group="card")
        with Asking(world) as asking:
            asked = []
            for _ in range(2):
                world.make("LOCAL")
                asked.append(asking.ask())
                gate.entered_sync()
            until(lambda: figures(world).queued == 1)
            gate.open()
            assert all(one.result() for one in asked)
        assert gate.most_inside == 1
        settled(world)

    def test_nested_in_the_same(self, world: World) -> None:
        """A load inside a load of its own group does not wait for that."""
        inner = world.config("inner")
        world.module(module_id="inner", does=makes)

        def does(call: Call) -> Any:
            model = call.cls()
            model.inner = world.initializer.init(inner)
            return model

        world.module(does=does)
        world.made_from({"exclusive_groups": {"inner": "card", "m": "card"}})
        assert world.load().model.inner
        settled(world)


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "on_error": ({"on_error": "stop"}, "on_error"),
    "load_timeout": ({"load_timeout": 0}, "load_timeout"),
    "load_timeout_text": ({"load_timeout": "soon"}, "load_timeout"),
    "max_concurrent_loads": ({"max_concurrent_loads": 0}, "max_concurrent_loads"),
    "max_abandoned_loads": ({"max_abandoned_loads": -1}, "max_abandoned_loads"),
    "share": ({"share": "sometimes"}, "share"),
    "groups": ({"exclusive_groups": ["a"]}, "exclusive_groups"),
    "a_group": ({"exclusive_groups": {"a": 1}}, "exclusive_groups.a"),
    "argument": ({"argument": "both"}, "argument"),
    "timeout": (
        {"backend_priority": [{"type": "LOCAL"}, {"type": "LOCAL", "timeout": -1}]},
        "backend_priority[1].timeout",
    ),
    "stall_timeout": (
        {"backend_priority": [{"type": "LOCAL", "stall_timeout": "long"}]},
        "backend_priority[0].stall_timeout",
    ),
}


class TestConfig:
    @pytest.mark.parametrize(("config", "place"), WRONG.values(), ids=WRONG)
    def test_a_wrong_value(self, world: World, config: dict[str, Any], place: str) -> None:
        """A value that cannot be used is a ConfigError that names its place."""
        error = world.tries(lambda: world.made_from(config)).error
        assert isinstance(error, ConfigError)
        assert error.source == "model_management.initializers.default.config"
        assert [problem.where for problem in error.problems] == [place]

    def test_several_wrong_values(self, world: World) -> None:
        """All of them are told at once."""
        config = {"on_error": "stop", "share": 3, "load_timeout": -1}
        error = world.tries(lambda: world.made_from(config)).error
        assert isinstance(error, ConfigError)
        assert {problem.where for problem in error.problems} == set(config)

    @pytest.mark.parametrize(
        ("key", "meant"),
        [("load_timout", "; did you mean 'load_timeout'?"), ("color", "")],
    )
    def test_an_unknown_key(
        self, world: World, caplog: pytest.LogCaptureFixture, key: str, meant: str
    ) -> None:
        """A key that nobody knows is ignored, as by caikit, and logged."""
        with caplog.at_level(logging.WARNING, "anyload.caikit"):
            world.made_from({key: 1})
        text = f"the key {key!r} is unknown and ignored{meant}"
        assert [record.getMessage() for record in caplog.records] == [
            f"model_management.initializers.default.config: {text}"
        ]

    def test_an_unknown_key_of_a_backend(
        self, world: World, caplog: pytest.LogCaptureFixture
    ) -> None:
        """So is one in an entry of the backends, of which caikit has two."""
        with caplog.at_level(logging.WARNING, "anyload.caikit"):
            world.made_from({"backend_priority": [{"type": "LOCAL", "config": {}, "timout": 1}]})
        text = "the key 'timout' is unknown and ignored; did you mean 'timeout'?"
        assert [record.getMessage() for record in caplog.records] == [
            f"model_management.initializers.default.config.backend_priority[0]: {text}"
        ]

    def test_known_keys(self, world: World, caplog: pytest.LogCaptureFixture) -> None:
        """Of the others nothing is said."""
        world.made_from({"backend_priority": [{"type": "LOCAL", "timeout": None}], "share": False})
        assert not caplog.records


WITHOUT = """
import sys

class Without:
    def find_spec(self, name, *rest):
        if name == "caikit":
            raise ModuleNotFoundError("No module named 'caikit'", name="caikit")

sys.meta_path.insert(0, Without())
import anyload.caikit
"""


def test_without_caikit() -> None:
    """Where caikit is not installed, the error says what to install."""
    run = subprocess.run(
        [sys.executable, "-c", WITHOUT], capture_output=True, text=True, check=False
    )
    assert run.returncode == 1
    assert "MissingExtraError" in run.stderr
    assert "pip install 'anyload[caikit]'" in run.stderr
