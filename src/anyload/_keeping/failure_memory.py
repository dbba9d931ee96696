"""What is remembered of a load that failed: what kind of failure it was, and until when.

A permanent failure is remembered until the catalogue entry or the model's files change; any other
for its cool-down. When that is over, one request probes.

What could not be read for a moment, for want of file descriptors say, is not permanent, whatever
error tells of it; nor is what failed while its files changed.
"""

from __future__ import annotations

import errno
import math
from collections.abc import Callable

from .._out_of_memory import ran_out_of_memory
from ..errors import (
    AnyloadError,
    ConfigError,
    IntegrityError,
    LoadError,
    MissingExtraError,
    ModelNotFoundError,
    UnsafeArchiveError,
    UnsafePickleError,
    WrongTypeError,
    describe,
)
from .cool_down import CoolDown

PERMANENT = (
    ConfigError,
    IntegrityError,
    MissingExtraError,
    ModelNotFoundError,
    UnsafeArchiveError,
    UnsafePickleError,
    WrongTypeError,
)

PASSING = frozenset(
    getattr(errno, name, errno.EIO)  # where a platform lacks one
    for name in (
        *("EMFILE", "ENFILE", "ENOMEM", "EIO", "EINTR", "EAGAIN", "EBUSY"),
        # Of a file system that is elsewhere.
        *("ESTALE", "ETIMEDOUT", "ENOTCONN", "EHOSTDOWN", "ENETUNREACH", "EHOSTUNREACH"),
    )
)
"""What the system says when it cannot read a file now, and may a moment later."""


def is_permanent(error: Exception) -> bool:
    """Return whether a load would fail likewise if it were tried again."""
    if not isinstance(error, LoadError):
        return _would_recur(error)
    # Every backend was skipped, or refused the files for good.
    return all(
        attempt.outcome == "skipped" or _would_recur(attempt.error) for attempt in error.attempts
    ) and bool(error.attempts)


def _would_recur(error: BaseException | None) -> bool:
    return isinstance(error, PERMANENT) and not any(map(_passes, _causes(error)))


def _passes(cause: BaseException) -> bool:
    if isinstance(cause, OSError):
        return cause.errno in PASSING
    return isinstance(cause, MemoryError)


def _causes(error: BaseException) -> list[BaseException]:
    """Return what an error comes from, and what that does; each once, should they go in circles."""
    causes: dict[int, BaseException] = {}
    cause = error.__cause__
    while cause is not None and id(cause) not in causes:
        causes[id(cause)] = cause
        cause = cause.__cause__
    return list(causes.values())


def is_for_memory(error: Exception) -> bool:
    """Return whether an attempt of a load failed because memory ran out."""
    attempts = error.attempts if isinstance(error, LoadError) else ()
    raised = (attempt.error for attempt in attempts if attempt.error is not None)
    return any(map(ran_out_of_memory, raised))


class FailureMemory:
    """What is remembered of one model's failures.

    Args:
        first: how long the first failure is remembered, in seconds.
        most: how long any is at most.
        jitter: returns a number between 0 and 1, another each time.
    """

    __slots__ = ("_cool_down", "error", "permanent", "until")

    def __init__(self, first: float, most: float, jitter: Callable[[], float]) -> None:
        self._cool_down = CoolDown(first, most, jitter)
        self.forget()

    def forget(self) -> None:
        """Forget: it has loaded, or what it is made of has changed."""
        self._cool_down.start_over()
        self.error: AnyloadError | None = None
        self.permanent = False
        self.until = -math.inf

    def remember(
        self,
        error: AnyloadError,
        now: float,
        back_at: float | None = None,
        *,
        changed: bool = False,
    ) -> None:
        """Take note of a failure.

        Args:
            error: what it was.
            now: when it was.
            back_at: when a backend is back that was left out of the load, if one was.
            changed: whether the files changed meanwhile: then it says nothing of what they are now.
        """
        self.error = error
        for_good = is_permanent(error) and not changed
        self.permanent = for_good and back_at is None
        if not for_good:
            self.until = self._cool_down.begin(now)
        else:
            # The others will not do any better: that one is all there is to wait for.
            self.until = math.inf if back_at is None else back_at

    def retry_after(self, now: float) -> float | None:
        """Return for how many seconds it is no use to try, or None if one may.

        It is infinite for a permanent failure.
        """
        return self.until - now if self.until > now else None


def first_line(error: BaseException) -> str:
    """Return the first line of what an error says."""
    return describe(error).partition("\n")[0]
