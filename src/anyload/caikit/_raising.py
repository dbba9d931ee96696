"""What a load has raised in its thread, raised to who has asked for the model."""

from __future__ import annotations

import sys
from typing import NoReturn

from .._load.failures import anew, put


def raise_again(raised: BaseException, *, shared: bool) -> NoReturn:
    """Raise what was raised in a worker thread as if it had been raised here.

    Args:
        raised: what was raised.
        shared: whether others may raise it too: then it is a copy, where it can be copied.
    """
    if shared:
        raised = _apart(raised)
    traceback, handled = raised.__traceback__, sys.exception()
    chain: dict[int, BaseException] = {}  # by identity: an error may be equal to others
    last = raised
    while id(last) not in chain:
        chain[id(last)] = last
        last = last.__context__ or last
    if handled is not None and last.__context__ is None and id(handled) not in chain:
        put(last, "__context__", handled)  # here its handler would have been around the load
    context = raised.__context__
    try:
        raise raised.with_traceback(traceback)
    finally:
        put(raised, "__context__", context)  # which `raise` has replaced
        del raised, chain, last  # they lead to this frame, so this would be a cycle


def _apart(raised: BaseException) -> BaseException:
    """Return a copy of an error and of its contexts, so that what is handled here stays here."""
    copied = last = anew(raised)
    seen = {id(raised)}
    while (context := last.__context__) is not None and id(context) not in seen:
        seen.add(id(context))
        fresh = anew(context)
        put(last, "__context__", fresh)
        last = fresh
    return copied
