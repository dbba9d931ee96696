"""One initializer of the model test: its core, on fakes of all that has a thread or a clock."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from played_modules import PlayedAdmission, PlayedResolver, make_choices
from played_threads import Watchdog, Workers

from anyload._load.callers import Callers
from anyload._load.core import Core
from anyload._load.ending import Ending
from anyload._load.inside import Inside
from anyload._load.requests import Requests
from anyload._load.slots import Limits
from anyload._load.waiters import ThreadSeat
from anyload.events import Event

if TYPE_CHECKING:
    from world import World

Limit = float | None


@dataclass(frozen=True)
class Settings:
    """What is configured, for every initializer of a world."""

    slots: int = 2
    abandoned: int = 1
    load_timeout: Limit = None
    prepare_timeout: Limit = None
    release_timeout: Limit = None
    gpu: tuple[Limit, Limit] = (None, None)
    local: tuple[Limit, Limit] = (None, None)
    next_on_error: bool = True
    warmup: bool = True
    admission: bool = True


class Home:
    """One initializer: its core, and what the world knows of it."""

    def __init__(self, world: World, number: int, settings: Settings) -> None:
        self.number = number
        self.limits = Limits(
            settings.slots,
            settings.abandoned,
            settings.load_timeout,
            settings.prepare_timeout,
            settings.release_timeout,
            settings.next_on_error,
            settings.warmup,
            "off",
        )
        choices = make_choices(world.registry, {"GPU": settings.gpu, "LOCAL": settings.local})
        resolver: Any = PlayedResolver(world.stage, world.registry, choices)
        self.admission = PlayedAdmission()
        self.events: list[Event] = []
        admission = self.admission if settings.admission else None
        core = Core(world.process, self.limits, (self.events.append,), admission, world.clock)
        self.core = core
        self.workers = Workers(self, world.numbers)
        self.watchdog = Watchdog(core)
        fakes: tuple[Any, Any] = self.workers, self.watchdog
        core.workers, core.watchdog = fakes
        self.callers = Callers(core)
        self.inside = Inside(core, self.callers)
        self.ending = Ending(core)
        self.requests = Requests(core, resolver)
        self.resolver = resolver
        self.asks_admission = settings.admission
        self.closed = False
        self.grace_ends: float | None = None
        self.out_of_grace = False
        self.left = False
        self.stopping_since: float | None = None
        self.closer: ThreadSeat | None = None
        self.could_not_start = False

    @property
    def closer_woken(self) -> bool:
        """Whether who closes it has something to look at."""
        return self.closer is not None and not self.closer._parked._asleep.locked()
