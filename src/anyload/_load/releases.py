"""Models that nobody can use any more, on their way to ``release``."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Literal, Protocol

from ..events import Abandoned, Discarded
from .alarms import Alarm, Alarms
from .outbox import Outbox
from .process import Process
from .slots import Slots
from .stacks import thread_stack
from .todo import Todo

if TYPE_CHECKING:
    from .flight import Flight
    from .plan import Candidate


class Release:
    """One discarded model and the call of its ``release``.

    It holds the module's exclusive group while it runs, like a load: giving memory back can
    touch the same process-wide state as taking it.
    """

    __slots__ = (
        "__weakref__",
        "alarm",
        "candidate",
        "gone",
        "holds",
        "model",
        "phase",
        "root",
        "started",
        "thread_id",
        "value",
    )

    def __init__(self, model: str, candidate: Candidate, value: Any) -> None:
        self.model = model
        self.candidate = candidate
        self.value = value
        self.phase: Literal["queued", "running", "abandoned"] = "queued"
        # Told under the lock that it is over; a line that waits for nothing.
        self.gone: Callable[[], object] | None = None
        self.root = self
        self.holds: list[str] = []
        self.alarm: Alarm | None = None
        self.started = 0.0
        self.thread_id = 0

    @property
    def resources(self) -> tuple[str, ...]:
        """The module's group. Giving memory back does not hold the GIL as loading may."""
        group = self.candidate.implementation.exclusive_group
        return self.candidate.resources[:1] if group else ()

    @property
    def stuck(self) -> bool:
        """Whether it is past its limit and its thread still runs."""
        return self.phase == "abandoned"

    @property
    def label(self) -> str:
        """What it is, for the error of somebody it stands in the way of."""
        return f"the release of {self.model!r}"

    def awaited(self) -> Iterator[Flight]:
        """Yield nothing: nothing is loaded inside a release."""
        return iter(())

    def run(self) -> None:
        """Call ``release`` and let the model go, in the thread that should pay for that."""
        value, self.value = self.value, None
        release = getattr(value, "release", None)
        if callable(release):
            release()


class Groups(Protocol):
    """Whoever waits for groups."""

    def changed_hands(self, todo: Todo) -> None: ...


class Releases:
    """The discarded models of one initializer, on their way.

    Args:
        process: who holds which group.
        alarms: the deadlines.
        clock: the monotonic clock.
        timeout: the limit of each release, in seconds; None means off.
        slots: counts a release that is past it as abandoned.
        outbox: takes the events.
        groups: hears when a release has let go of its group.
    """

    def __init__(
        self,
        process: Process,
        alarms: Alarms,
        clock: Callable[[], float],
        timeout: float | None,
        slots: Slots,
        outbox: Outbox,
        groups: Groups,
    ) -> None:
        self._process = process
        self._alarms = alarms
        self._clock = clock
        self._timeout = timeout
        self._slots = slots
        self._outbox = outbox
        self._groups = groups
        self.discarded = 0
        self.queued: deque[Release] = deque()
        self.running: dict[Release, None] = {}
        self.hung: dict[Release, None] = {}

    def add(
        self, flight: Flight, candidate: Candidate, value: Any, reason: str, todo: Todo
    ) -> None:
        """Discard a model of a flight: nobody can use it."""
        assert self._process.lock.mine()
        self.discarded += 1
        if self._outbox.wanted:
            event = Discarded(flight.model, self._clock(), candidate.backend_type, reason)
            self._outbox.put(event)
        release = Release(flight.model, candidate, value)
        if flight.discarded is not None:
            release.gone = flight.discarded()
        self.queued.append(release)
        todo.worker = True

    @property
    def waiting(self) -> bool:
        """Whether one may begin: no more run at once than loads may."""
        return bool(self.queued) and len(self.running) < self._slots.total

    def first(self) -> Release | None:
        """Return a release whose group is free."""
        if not self.waiting:
            return None
        free = (r for r in self.queued if self._process.obstacle(r.resources) is None)
        return next(free, None)

    def began(self, release: Release, thread_id: int) -> None:
        """A thread has taken a release: its clock starts."""
        assert self._process.lock.mine()
        self.queued.remove(release)
        self.running[release] = None
        release.phase = "running"
        release.thread_id = thread_id
        self._process.entered(release)
        self._process.hold(release.resources, release)
        if self._timeout is not None:
            release.alarm = self._alarms.set(self._clock() + self._timeout, self._hangs, release)

    def ended(self, release: Release, todo: Todo) -> None:
        """A thread has left a release."""
        assert self._process.lock.mine()
        self.running.pop(release, None)
        self.hung.pop(release, None)
        self._process.left(release)
        self._slots.abandoned.pop(release, None)
        self._alarms.cancel(release.alarm)
        if self._process.let_go(release):
            self._groups.changed_hands(todo)
        if release.gone is not None:
            release.gone()

    def _hangs(self, release: Release, todo: Todo) -> None:
        release.phase = "abandoned"
        del self.running[release]
        self.hung[release] = None
        self._slots.abandoned[release] = None
        backend, stack = release.candidate.backend_type, thread_stack(release.thread_id)
        self._outbox.put(Abandoned(release.model, self._clock(), backend, stack))
        self._groups.changed_hands(todo)
