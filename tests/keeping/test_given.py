"""What is given to a repository is checked before anything begins."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from keeping import Shelf, emptied, quiet

from anyload import ModelRepository, Registry

Call = Callable[[ModelRepository, Any], object]

BY_NAME: dict[str, Call] = {
    "lease": lambda models, name: models.lease(name),
    "try_lease": lambda models, name: models.try_lease(name),
    "lease_sync": lambda models, name: models.lease_sync(name),
    "load": lambda models, name: models.load(name),
    "load_preloaded": lambda models, name: models.load_preloaded(["a", name]),
    "unload": lambda models, name: models.unload(name),
    "swap": lambda models, name: models.swap(name),
    "pin": lambda models, name: models.pin(name),
    "unpin": lambda models, name: models.unpin(name),
    "forget_failure": lambda models, name: models.forget_failure(name),
    "report_failure": lambda models, name: models.report_failure(name, None, "broken"),
    "status": lambda models, name: models.status(name),
}

PRIORITIES: dict[str, Call] = {
    "lease": lambda models, priority: models.lease("a", priority=priority),
    "lease_sync": lambda models, priority: models.lease_sync("a", priority=priority),
    "load": lambda models, priority: models.load("a", priority=priority),
}

NO_TIMES = [-1.0, float("nan"), True, "1", 10**400, []]


async def made(call: Call, models: ModelRepository, given: Any) -> None:
    """Call a method, in whatever way it is called."""
    value = call(models, given)
    if isinstance(value, Awaitable):
        await value


@pytest.mark.parametrize("name", [None, 5, b"a", [], object()], ids=repr)
@pytest.mark.parametrize("method", BY_NAME)
async def test_a_name_that_is_no_text(method: str, name: Any) -> None:
    """It is a TypeError that says so, and nothing is begun."""
    shelf = Shelf()
    async with shelf.repository("a") as models:
        with pytest.raises(TypeError, match="the name of a model is text, not"):
            await made(BY_NAME[method], models, name)
        assert shelf.loads == []
        assert quiet(models)


async def test_a_name_of_a_class_of_its_own() -> None:
    """What is text is a name, whatever its class."""

    class Name(str):
        __slots__ = ()

    async with Shelf().repository("a") as models, models.lease(Name("a")):
        lease = models.try_lease(Name("a"))
        assert lease is not None
        lease.release()


@pytest.mark.parametrize("priority", [None, "x", 1.5, float("nan"), True], ids=repr)
@pytest.mark.parametrize("method", PRIORITIES)
async def test_a_priority_that_is_no_whole_number(method: str, priority: Any) -> None:
    """It is a TypeError, and who asks next has the model loaded."""
    shelf = Shelf()
    async with shelf.repository("a") as models:
        with pytest.raises(TypeError, match="priority is a whole number, not"):
            await made(PRIORITIES[method], models, priority)
        assert models.status("a").phase == "known"
        async with models.lease("a", priority=1):
            pass


@pytest.mark.parametrize("timeout", NO_TIMES[1:], ids=lambda timeout: str(timeout)[:10])
def test_a_timeout_that_is_no_time(timeout: Any) -> None:
    """It is a ValueError, and nothing is begun."""
    shelf = Shelf()
    with shelf.repository("a") as models:
        with pytest.raises(ValueError, match="timeout is a number of seconds or None, not"):
            models.lease_sync("a", timeout=timeout)
        assert shelf.loads == []


@pytest.mark.parametrize("limit", NO_TIMES, ids=lambda limit: str(limit)[:10])
async def test_a_drain_timeout_that_is_no_time(limit: Any) -> None:
    """It is a ValueError, and the model stays."""
    async with Shelf().repository("a") as models:
        await models.load("a")
        wrong = "drain_timeout is a number of seconds, 0 or more, or None, not"
        with pytest.raises(ValueError, match=wrong):
            await models.unload("a", drain_timeout=limit)
        assert models.status("a").state == "READY"


@pytest.mark.parametrize("grace", [None, *NO_TIMES], ids=lambda grace: str(grace)[:10])
async def test_a_grace_that_is_no_time(grace: Any) -> None:
    """It is a ValueError, and the repository is as open as before."""
    models = Shelf().repository("a")
    await models.load("a")
    with pytest.raises(ValueError, match="grace is a number of seconds, 0 or more, not"):
        await models.aclose(grace)
    with pytest.raises(ValueError, match="grace is a number of seconds, 0 or more, not"):
        models.close(grace)
    async with models.lease("a"):
        pass
    await models.aclose()
    await emptied(models)


@pytest.mark.parametrize("names", [5, "a", b"a"], ids=repr)
async def test_one_name_where_many_are_asked_for(names: Any) -> None:
    """It is a TypeError: a name is not the list of its letters."""
    shelf = Shelf()
    async with shelf.repository("a") as models:
        with pytest.raises(TypeError, match="many models are a list of them, not"):
            await models.load_preloaded(names)
        assert shelf.loads == []


async def test_names_that_come_one_by_one() -> None:
    """They are taken before anything begins: what they raise leaves nothing behind."""
    shelf = Shelf()
    async with shelf.repository("a", "b") as models:
        with pytest.raises(ZeroDivisionError):
            await models.load_preloaded(("a", 1 // 0)[0] for _ in range(1))
        assert shelf.loads == []
        assert set(await models.load_preloaded(iter(["a", "b"]))) == {"a", "b"}


@pytest.mark.parametrize("error", [5, None, ValueError], ids=repr)
async def test_a_report_of_no_failure(error: Any) -> None:
    """It is a TypeError, and the model goes on serving."""
    async with Shelf().repository("a") as models, models.lease("a") as model:
        with pytest.raises(TypeError, match="the error is an exception or text, not"):
            models.report_failure("a", model, error)
        assert models.status("a").state == "READY"


async def test_what_is_needed_that_is_no_sizes() -> None:
    """A need is bytes by the names of devices."""
    async with Shelf().repository("a") as models:
        needed: Any
        for needed in (5, ["cpu"]):
            with pytest.raises(TypeError, match="what is needed is bytes by device, not"):
                models.plan_eviction(needed)
        needed = {5: 1}
        with pytest.raises(TypeError, match="the name of a device is text, not 5"):
            models.plan_eviction(needed)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: ModelRepository(5), "registry is an anyload.Registry, not 5"),  # type: ignore[arg-type]
        (lambda: ModelRepository(Registry(), hooks=5), "hooks are a list"),  # type: ignore[arg-type]
        (
            lambda: ModelRepository.from_config({}, registry=5),  # type: ignore[arg-type]
            "registry is an anyload.Registry, not 5",
        ),
        (
            lambda: ModelRepository.from_config({}, registry=Registry(), environ={"A": 5}),  # type: ignore[dict-item]
            "'A' in environ is a int, not text",
        ),
    ],
)
def test_what_a_repository_is_made_of(make: Callable[[], object], says: str) -> None:
    """It is checked as an initializer's parts are."""
    with pytest.raises(TypeError, match=says):
        make()
