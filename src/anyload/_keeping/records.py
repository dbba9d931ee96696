"""The records of the repository: a model of the catalogue, its versions, and their loads.

Everything here is changed under the process lock only, by `keeper.py` and `rooms.py`.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Literal, Protocol

from .._load.alarms import Alarm
from .._load.flight import Sleeper
from .budget import NOTHING, Sizes
from .failure_memory import FailureMemory
from .left_out import LeftOut
from .states import Lifecycle

if TYPE_CHECKING:
    from ..config import KeptModel
    from ..errors import AnyloadError
    from ..model_config import ModelConfig
    from ..reports import LoadReport


class Asking(Sleeper, Protocol):
    """One who waits for a lease: it is granted a version, or told why not, and then woken."""

    entry: Entry | None
    granted: Version | None
    failure: Callable[[], Exception] | None


class Entry:
    """One model of the catalogue.

    Args:
        name: its name.
        config: what is loaded.
        kept: how it is kept.
        keep_alive: for how many seconds it is kept while nobody uses it.
        failures: what is remembered of its failures.
        left_out: the backends that it does without for a while.
    """

    __slots__ = (
        "config",
        "current",
        "failures",
        "generation",
        "hits",
        "incoming",
        "keep_alive",
        "kept",
        "left_out",
        "load_seconds",
        "measured",
        "name",
        "pinned",
        "retired",
        "stamp",
        "threads",
        "waiting",
    )

    def __init__(
        self,
        name: str,
        config: ModelConfig,
        kept: KeptModel,
        keep_alive: float,
        failures: FailureMemory,
        left_out: LeftOut,
    ) -> None:
        self.name = name
        self.config = config
        self.kept = kept
        self.keep_alive = keep_alive
        self.failures = failures
        self.left_out = left_out
        self.generation = 1
        # Leases that were there at once; counted without the lock, so one may be missed.
        self.hits = 0
        self.pinned = kept.pin or kept.required
        self.current = Version(self, config, kept)
        # The one that is to take the place of the current one, and those that had it.
        self.incoming: Version | None = None
        self.retired: dict[Version, None] = {}
        self.waiting: dict[Asking, None] = {}
        # What it held on each backend, by place in the priority; that of the last load is last.
        self.measured: dict[int, Sizes] = {}
        self.load_seconds = 0.0
        # Threads that are in a load of it, those past their limit included.
        self.threads = 0
        # What its files were when the load began that failed last.
        self.stamp: object = None

    @property
    def stays(self) -> bool:
        """Whether it is kept however long nobody uses it."""
        return self.pinned or self.keep_alive == math.inf

    def version(self, config: ModelConfig, kept: KeptModel) -> Version:
        """Return another version of it, or another try at the same."""
        return Version(self, config, kept)

    def describes(self, version: Version) -> bool:
        """Return whether the catalogue still says what it said of a version when it was made."""
        return version.config is self.config and version.kept.memory == self.kept.memory

    def again(self, version: Version) -> Version:
        """Return another instance of a version that is loaded; it bears the same name."""
        other = Version(self, version.config, version.kept)
        other.life.version = version.life.version
        return other


class Version:
    """One version of a model, from one load to the end of it.

    Args:
        entry: the model.
        config: what is loaded.
        kept: how it is kept.
    """

    __slots__ = (
        "__weakref__",
        "alarm",
        "calm",
        "candidate",
        "config",
        "doomed",
        "entry",
        "error",
        "idle_since",
        "improvable",
        "kept",
        "life",
        "load_seconds",
        "loaded_at",
        "order",
        "out",
        "place",
        "probe",
        "ready",
        "report",
        "sizes",
        "value",
        "watchers",
    )

    def __init__(self, entry: Entry, config: ModelConfig, kept: KeptModel) -> None:
        self.entry = entry
        self.config = config
        self.kept = kept
        self.life = Lifecycle(entry.name, kept.version or str(entry.generation))
        self.order: Order | None = None
        self.value: Any = None
        # What loaded it, which has to release it.
        self.candidate: Any = None
        self.report: LoadReport | None = None
        self.error: AnyloadError | None = None
        # The place of its backend in the priority, and whether one before it could load it some
        # time; when that is looked at again.
        self.place = 0
        self.improvable = False
        self.probe: Alarm | None = None
        # Its leases, one item each; whether more are given; whether nothing follows when the last
        # is back. They are looked at without the lock: see `ways_out.py`.
        self.out: list[None] = []
        self.ready = False
        self.calm = False
        self.sizes: Sizes = NOTHING
        self.loaded_at = 0.0
        self.idle_since = 0.0
        self.load_seconds = 0.0
        self.alarm: Alarm | None = None
        # Why it is to go as soon as it has come.
        self.doomed = ""
        self.watchers: list[Sleeper] = []

    @property
    def declared(self) -> Sizes:
        """What the operator says that it holds; empty if nothing is said."""
        memory = self.kept.memory
        return {self.kept.device: memory} if isinstance(memory, int) else memory or NOTHING

    @property
    def leases(self) -> int:
        """How many leases of it are out."""
        return len(self.out)


Purpose = Literal["request", "preload", "swap", "upgrade"]


class Order:
    """One load of a version, asked of the initializer.

    Args:
        version: the version.
        number: its place in the order of arrival.
        priority: higher goes first.
        purpose: who it is for: somebody who asks, a preload, the place of another version, or a
            better backend.
        left_out: the places in the backend priority that it does without, and why.
        before: the place that it has to come before; None if any will do.
        retry: whether it is the second try, after memory ran out.
    """

    __slots__ = (
        "__weakref__",
        "after",
        "alarm",
        "before",
        "changed",
        "config",
        "entered",
        "landing",
        "left",
        "left_out",
        "need",
        "number",
        "priority",
        "purpose",
        "retry",
        "seat",
        "settled",
        "shares",
        "stamp",
        "threads",
        "version",
    )

    def __init__(
        self,
        version: Version,
        number: int,
        priority: int,
        purpose: Purpose,
        left_out: Mapping[int, str],
        *,
        before: int | None = None,
        retry: bool = False,
    ) -> None:
        self.version = version
        self.number = number
        self.priority = priority
        self.purpose = purpose
        self.left_out = left_out
        self.before = before
        self.retry = retry
        # The initializer tells its admission of a load by its config: so each has one of its own.
        self.config = copy.copy(version.config)
        self.need: Sizes | None = None
        # What its files were before it; whether they were others when it had failed.
        self.stamp: object = None
        self.changed = False
        # Threads that are in an attempt of it, those past their limit included; and how many times
        # it has what it needs. That is never less, and until it has an outcome it gets no less:
        # a thread that ends may be a late one, or the one whose model is on its way. A late model
        # takes its share with it.
        self.threads = 0
        self.shares = 0
        self.entered = False
        # Whether its outcome is on its way to the keeper, or is there; and whether it was left.
        self.landing = False
        self.settled = False
        self.left = False
        # What has to be gone before it may start.
        self.after: dict[Version, None] = {}
        self.alarm: Alarm | None = None
        self.seat: Any = None

    @property
    def rank(self) -> tuple[int, int]:
        """Whose turn it is first, where memory is short: the lower."""
        return -self.priority, self.number

    @property
    def asked_for(self) -> bool:
        """Whether anybody waits for it, so that others may be evicted for it."""
        return self.purpose == "swap" or bool(self.version.entry.waiting)

    def may_use(self, place: int) -> bool:
        """Return whether it may try the backend at a place of the priority."""
        return place not in self.left_out and (self.before is None or place < self.before)

    @property
    def begun(self) -> bool:
        """Whether it has entered a thread at any time: from then on it runs to its end."""
        return self.entered or self.landing


class Tables:
    """What there is at this moment.

    ``entries`` are the models by name and alias, ``active`` the versions that are loaded,
    ``draining`` those that go when their last lease is back, ``releasing`` those that are being
    released, ``orders`` the loads without an outcome.
    """

    def __init__(self) -> None:
        self.entries: dict[str, Entry] = {}
        self.active: dict[Version, None] = {}
        self.draining: dict[Version, None] = {}
        self.releasing: dict[Version, None] = {}
        self.orders: dict[Order, None] = {}
