"""Asking the admission, which is somebody else's code, under the lock."""

from __future__ import annotations

from ..contracts import Admission
from ..errors import describe
from .flight import Flight
from .outbox import Outbox


class Gatekeeper:
    """Asks an admission about loads, and survives what it raises.

    Args:
        admission: the admission.
        outbox: takes what is to be logged.
    """

    def __init__(self, admission: Admission, outbox: Outbox) -> None:
        self._admission = admission
        self._outbox = outbox

    def may_start(self, flight: Flight) -> bool:
        """Return whether a load may start now; not, where the admission raises."""
        return self._call("may_start", flight)

    def started(self, flight: Flight) -> None:
        """Tell it that a load has started."""
        self._call("started", flight)

    def ended(self, flight: Flight) -> None:
        """Tell it that a load's thread has left it."""
        self._call("ended", flight)

    def _call(self, name: str, flight: Flight) -> bool:
        assert flight.config is not None
        try:
            return bool(getattr(self._admission, name)(flight.config, flight.size))
        except BaseException as error:
            # The transition that asks has decided other things already, which must be done.
            self._outbox.warn(f"admission.{name} raised {describe(error)}")
            return False
