"""Asking the admission, which is somebody else's code, under the lock."""

from __future__ import annotations

from collections.abc import Callable

from ..contracts import Admission
from ..errors import describe
from .flight import Flight
from .outbox import Outbox


class Gatekeeper:
    """Asks an admission about loads, and survives what it raises.

    Args:
        admission: the admission; None admits everything.
        outbox: takes what is to be logged.
    """

    def __init__(self, admission: Admission | None, outbox: Outbox) -> None:
        self._admission = admission
        self._outbox = outbox

    @property
    def asks(self) -> bool:
        """Whether there is anybody to ask."""
        return self._admission is not None

    def may_start(self, flight: Flight) -> bool:
        """Return whether a load may start now; not, where the admission raises."""
        if self._admission is None:
            return True
        return bool(self._call(self._admission.may_start, flight))

    def started(self, flight: Flight) -> None:
        """Tell it that a load has started."""
        if self._admission is not None:
            self._call(self._admission.started, flight)

    def ended(self, flight: Flight) -> None:
        """Tell it that a load's thread has left it; there must be one."""
        assert self._admission is not None
        self._call(self._admission.ended, flight)

    def _call(self, method: Callable[..., object], flight: Flight) -> object:
        assert flight.config is not None
        try:
            return method(flight.config, flight.size)
        except BaseException as error:
            # The transition that asks has decided other things already, which must be done.
            self._outbox.warn(f"admission.{method.__name__} raised {describe(error)}")
            return None
