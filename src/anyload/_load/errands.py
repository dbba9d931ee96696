"""Code of modules and backends that runs outside of a load, and must not wait for one.

A ``prepare``, a backend's ``start`` and ``available``, a ``release``: other loads wait for their
threads, so one that waited for a load could wait for ever. Inside a ``load`` it is another matter:
there who waits for whom is known (`nested`).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from ..errors import ReentrantLoadError

_current_errand: ContextVar[str] = ContextVar("anyload.errand", default="")


@contextmanager
def errand(what: str) -> Iterator[None]:
    """Name what this thread runs until the end of the block."""
    token = _current_errand.set(what)
    try:
        yield
    finally:
        _current_errand.reset(token)


def refuse_in_errand(model: object) -> None:
    """Raise if this code must not wait for the load of a model.

    Raises:
        ReentrantLoadError: naming what it is in.
    """
    what = _current_errand.get()
    if what:
        raise ReentrantLoadError(str(model), (what, str(model)))
