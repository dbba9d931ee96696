"""The clients of the simulation's repository: tasks of one trio run, and plain threads."""

from __future__ import annotations

import math
import random
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from typing import Any, Literal

import trio

from anyload import AnyloadError, ModelRepository
from anyload._keeping.records import Entry

from ..fibers import Machine
from .catalogue import ALIAS, SIZES, catalogue
from .checks import Checks
from .requests import Request
from .world import KeptWorld


class Clients:
    """Do what the requests say, and write down what comes of each.

    Args:
        machine: runs those that are threads.
        world: what there is in memory.
        checks: looks at what they get.
        models: the repository.
        requests: all requests.
    """

    def __init__(
        self,
        machine: Machine,
        world: KeptWorld,
        checks: Checks,
        models: ModelRepository,
        requests: list[Request],
    ) -> None:
        self._machine = machine
        self._world = world
        self._checks = checks
        self._models = models
        self._left = len(requests)
        self.all_ended = trio.Event()

    async def ask(self, request: Request) -> None:
        """Be one client, from when it comes to how it ends."""
        await trio.sleep_until(request.at)
        self._world.note("asks", request)
        if request.how.startswith("thread"):
            self._machine.spawn(partial(self._lease_in_a_thread, request))
            return
        with trio.move_on_after(request.patience) as scope:
            try:
                self._end(request, await self._do(request))
            except AnyloadError as error:
                self._fail(request, error)
        if scope.cancelled_caught:
            self._end(request, "cancelled")

    async def _do(self, request: Request) -> str:
        models, (name, other) = self._models, request.names
        match request.how:
            case "try":
                lease = models.try_lease(name)
                if lease is None:
                    return "nothing"
                with lease as model, self._use(request, model):
                    await trio.sleep(request.hold)
            case "pair":
                async with self._leased(request, name), self._leased(request, other):
                    await trio.sleep(request.hold)
            case "load":
                with self._waiting(request, "a lease"):
                    await models.load(name, priority=request.priority)
            case "unload":
                self._checks.goes(name)
                with self._waiting(request, "a version"):
                    await models.unload(name, drain_timeout=request.hold or None)
            case "swap":
                await self._swap(request)
            case "reload":
                await self._reload(request)
            case "pin":
                await self._pin(request)
            case "forget":
                models.forget_failure(name)
            case "report":
                async with self._leased(request, name) as model:
                    await trio.sleep(request.hold)
                    return self._report(name, model)
            case "preload":
                with self._waiting(request, "a version"):
                    await models.load_preloaded([name])
            case "look":
                self._look()
            case _:
                async with self._leased(request, name):
                    await trio.sleep(request.hold)
        return "done"

    async def _swap(self, request: Request) -> None:
        old = self._entry(request.names[0])
        version = None if old is None else old.current
        served = version is not None and version.ready
        model: Any = None if version is None else version.value
        try:
            with self._waiting(request, "a version"):
                await self._models.swap(request.names[0])
        except AnyloadError:
            if served:
                assert version is not None
                self._checks.still_serves(version)
            raise
        if served:
            model.gone_at = min(model.gone_at, self._machine.now())

    async def _reload(self, request: Request) -> None:
        dice = random.Random(f"{request.number} {request.at}")
        self._checks.pinned_at.clear()  # a catalogue that is read again says anew what is pinned
        change = await self._models.reload(catalogue(dice))
        self._checks.pinned_at.clear()
        self._world.note("reloaded", change.added, change.changed, change.removed)

    async def _pin(self, request: Request) -> None:
        name, models, pinned_at = request.names[0], self._models, self._checks.pinned_at
        models.pin(name)
        name = "small-1" if name == ALIAS else name
        pinned_at.setdefault(name, self._machine.now())
        try:
            await trio.sleep(2 + 2 * request.hold)
        finally:
            pinned_at.pop(name, None)
            if self._entry(name) is not None:
                models.unpin(name)

    def _look(self) -> None:
        models = self._models
        for status in models.statuses():
            failed = status.state in ("UNLOADING", "UNAVAILABLE")
            self._checks.expect(bool(status.reason) or not failed, f"K8: no reason in {status}")
        ready = {row["name"] for row in models.index(ready=True)}
        self._checks.expect(ready <= SIZES.keys(), f"K8: {ready} are ready")
        plan = models.plan_eviction({"cpu": 4096})
        pinned = [one for one in plan.victims if one in self._checks.pinned_at]
        self._checks.expect(not pinned, f"K10: {pinned} are pinned, and would be evicted")

    def _entry(self, name: str) -> Entry | None:
        return self._models._core.entries.get(name)

    def _lease_in_a_thread(self, request: Request) -> None:
        timeout = None if math.isinf(request.patience) else request.patience
        name, priority = request.names[0], request.priority
        try:
            with self._waiting(request, "a lease"):
                lease = self._models.lease_sync(name, priority=priority, timeout=timeout)
            with lease as model, self._use(request, model):
                self._machine.sleep(request.hold)
                report = request.how == "thread, report"
                said = self._report(name, model) if report else "done"
        except AnyloadError as error:
            self._fail(request, error)
        except TimeoutError:
            self._end(request, "cancelled")
        else:
            self._end(request, said)

    def _report(self, name: str, model: Any) -> str:
        if not self._models.report_failure(name, model, "it answers nonsense"):
            return "not the one that serves"
        model.gone_at = min(model.gone_at, self._machine.now())
        return "reported"

    @asynccontextmanager
    async def _leased(self, request: Request, name: str) -> AsyncIterator[Any]:
        lease, asked = self._models.lease(name, priority=request.priority), self._machine.now()
        with self._waiting(request, "a lease"):
            model = await lease.__aenter__()
        try:
            with self._use(request, model, asked):
                yield model
        finally:
            await lease.__aexit__(None, None, None)

    @contextmanager
    def _use(self, request: Request, model: Any, asked: float | None = None) -> Iterator[None]:
        self._checks.got(request, model, request.at if asked is None else asked)
        with self._world.used(model):
            yield

    @contextmanager
    def _waiting(self, request: Request, what: Literal["a lease", "a version"]) -> Iterator[None]:
        request.waits_for = what
        try:
            yield
        finally:
            request.waits_for = ""

    def _fail(self, request: Request, error: AnyloadError) -> None:
        self._checks.failed(request, error)
        self._end(request, type(error).__name__)

    def _end(self, request: Request, outcome: str) -> None:
        request.outcomes.append(outcome)
        self._world.note("ends", request, outcome)
        self._left -= 1
        if self._left == 0:
            self._machine.tell(self.all_ended)
