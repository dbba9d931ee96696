"""The callers of the simulation: tasks of one trio run, plain threads, and loads inside loads."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import trio

from anyload import AnyloadError, BulkLoadError, Initializer, LoadCancelled, LoadError

from .checks import Checks
from .fibers import TICK, Machine
from .requests import FOR_EVER, Request, draw
from .world import Made, Visit, World


class Callers:
    """Make the requests, and write down what comes of each.

    Args:
        machine: runs those that are threads.
        world: what there is to load.
        checks: looks at what they get.
        homes: the initializers.
        root: where the models are.
        requests: all requests; the nested ones are added as they come.
    """

    def __init__(
        self,
        machine: Machine,
        world: World,
        checks: Checks,
        homes: Mapping[str, Initializer],
        root: Path,
        requests: list[Request],
    ) -> None:
        self._machine = machine
        self._world = world
        self._checks = checks
        self._homes = homes
        self._root = root
        self._requests = requests
        self._left = len(requests)
        self.all_ended = trio.Event()

    def _names(self, request: Request) -> list[str]:
        return [str(self._root / request.home / model) for model in request.models]

    async def ask(self, request: Request) -> None:
        """Be one caller, from when it comes to how it ends."""
        await trio.sleep_until(request.at)
        self._world.note("asks", request)
        if request.how == "thread":
            self._machine.spawn(partial(self._load_sync, request, suppress=True))
            return
        with trio.move_on_after(request.patience) as scope:
            try:
                request.waiting = True
                await self._call(request)
            except AnyloadError as error:
                self._end(request, self._told(error))
            finally:
                request.waiting = False
        if scope.cancelled_caught:
            self._end(request, "cancelled")

    async def _call(self, request: Request) -> None:
        initializer, names = self._homes[request.home], self._names(request)
        options: dict[str, Any] = {"priority": request.priority}
        if request.variant:
            options["variant"] = request.variant
        match request.how:
            case "plan":
                await initializer.plan(names[0])
                self._end(request, "a plan")
            case "many" | "fail fast":
                fail_fast = request.how == "fail fast"
                got = await initializer.init_many(names, fail_fast=fail_fast, **options)
                self._take(*got.values())
                self._checks.expect(list(got) == names, f"I22: {request} came in another order")
                self._end(request, "all")
            case "each" | "some":
                came = []
                async with initializer.init_each(names, **options) as outcomes:
                    async for outcome in outcomes:
                        came.append(str(outcome.model))
                        if outcome.value is not None:
                            self._take(outcome.value)
                        await trio.sleep(TICK)
                        if request.how == "some" and len(came) == 2:
                            break
                    else:
                        whole = sorted(came) == sorted(names)
                        self._checks.expect(whole, f"I22: {request} came to {came}")
                self._end(request, "outcomes")
            case _:
                self._take(value := await initializer.init(names[0], **options))
                self._end(request, f"loaded on {getattr(value, 'backend', None)}")

    def nest(self, visit: Visit, dice: random.Random) -> None:
        """Load another model inside a load."""
        (request,) = draw(dice.getrandbits(32), 1)
        request.number, request.at, request.how = len(self._requests), self._machine.now(), "nested"
        del request.models[1:]
        if dice.random() < 0.5:  # one that is being loaded, perhaps the very same
            other = dice.choice(list(self._world.visits))
            request.home, request.models = other.home, [other.path.name]
            request.variant = other.variant
        request.patience = dice.choice([FOR_EVER, FOR_EVER, 1.0])
        self._requests.append(request)
        self._world.note("inside", visit.name, "asks", request)
        self._load_sync(request, suppress=dice.random() < 0.5)

    def _load_sync(self, request: Request, *, suppress: bool) -> None:
        initializer, (name,) = self._homes[request.home], self._names(request)
        kwargs = {"variant": request.variant} if request.variant else {}
        timeout = None if math.isinf(request.patience) else request.patience
        request.waiting = True
        try:
            value = initializer.init_sync(name, timeout=timeout, **kwargs)
        except AnyloadError as error:
            self._end(request, self._told(error))
            if not suppress:
                raise
        except (TimeoutError, LoadCancelled):
            self._end(request, "cancelled")
            if not suppress:
                raise
        else:
            self._take(value)
            self._end(request, f"loaded on {getattr(value, 'backend', None)}")
        finally:
            request.waiting = False

    def _take(self, *values: Any) -> None:
        for value in values:
            made = isinstance(value, Made)
            self._checks.expect(made, f"I4: a caller got {value!r}")
            if made:
                value.given += 1
                self._checks.expect(not value.late, f"I10: a caller got {value}, which came late")

    def _told(self, error: AnyloadError) -> str:
        if isinstance(error, BulkLoadError):
            self._take(*error.models.values())
        tried = ""
        if isinstance(error, LoadError):
            tried = " ".join(f"{one.backend} {one.outcome}" for one in error.attempts)
        return f"{type(error).__name__} {tried}".strip()

    def _end(self, request: Request, outcome: str) -> None:
        request.waiting = False
        request.outcomes.append(outcome)
        request.ended_at = self._machine.now()
        self._world.note("ends", request, outcome)
        self._left -= request.how != "nested"
        if self._left == 0:
            self._machine.tell(self.all_ended)
