"""Models that are kept until somebody ends it, while what changes of them is shown."""

from __future__ import annotations

import json
import signal
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple, TextIO

import anyio

from ._keeping.waiting import Watching
from ._listing import LISTING_COLUMNS, aligned, change_document, change_row, listing_rows
from ._load.waiters import current_bell
from ._terminal import drawn_on, live_table, write_line
from .errors import BulkLoadError
from .events import Event, StateChanged
from .reports import StuckLoad
from .repository import ModelRepository


class Show(NamedTuple):
    """What shows the changes.

    Args:
        changes: is called with those since the last time.
        every: after how many seconds it is called though nothing has changed; None for never.
    """

    changes: Callable[[Sequence[StateChanged]], None]
    every: float | None = None


class Changes:
    """A hook that keeps the changes of models until the task that shows them takes them."""

    def __init__(self) -> None:
        self._changes: deque[StateChanged] = deque()
        self._seat: Watching | None = None

    def __call__(self, event: Event) -> None:
        """Keep an event, on whichever thread it comes."""
        if isinstance(event, StateChanged):
            self._changes.append(event)  # first: who is woken looks for it
            if self._seat is not None:
                self._seat.wake()

    async def wait(self, seconds: float | None) -> None:
        """Wait until something has changed, or for so many seconds."""
        if self._seat is None:
            self._seat = Watching(current_bell())
        if not self._changes:
            with anyio.move_on_after(seconds):
                await self._seat.wait()

    def take(self) -> list[StateChanged]:
        """Return what has changed since the last time, in order."""
        return [self._changes.popleft() for _ in range(len(self._changes))]


@contextmanager
def showing(
    models: ModelRepository, names: Sequence[str], out: TextIO, *, as_json: bool
) -> Iterator[Show]:
    """Yield what shows each change of models, or, where that can be drawn, all that there is.

    Args:
        models: the repository.
        names: the names of its models.
        out: where it is shown.
        as_json: whether each change is a JSON document.
    """
    if not as_json and drawn_on(out):
        with live_table(out, LISTING_COLUMNS) as draw:
            yield Show(lambda changes: draw(listing_rows(models.statuses())), every=1.0)
        return
    began = time.monotonic()

    def each(changes: Sequence[StateChanged]) -> None:
        statuses = models.statuses()
        for change in changes:
            if as_json:
                write_line(out, json.dumps(change_document(change, statuses, began)))
            else:
                write_line(out, aligned(change_row(change, statuses), names))

    if not as_json:
        write_line(out, aligned(LISTING_COLUMNS, names))
    yield Show(each)


async def watch(
    models: ModelRepository,
    names: Sequence[str],
    changes: Changes,
    show: Show,
    landed: Callable[[BulkLoadError | None], None],
    grace: float,
) -> tuple[StuckLoad, ...]:
    """Load models and keep them until SIGINT or SIGTERM; then close.

    Args:
        models: the repository.
        names: what to load.
        changes: its hook.
        show: is given what has changed.
        landed: is called when all loads have ended, with what is wrong if some failed.
        grace: how long leases may stay out and loads run at the end, in seconds.

    Returns:
        The loads that never ended.
    """

    async def load() -> None:
        try:
            await models.load_preloaded(names)
        except BulkLoadError as error:
            landed(error)
        else:
            landed(None)

    async def show_changes() -> None:
        while True:
            await changes.wait(show.every)
            show.changes(changes.take())

    try:
        with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(show_changes)
                async with anyio.create_task_group() as loading:
                    loading.start_soon(load)
                    async for _ in signals:
                        loading.cancel_scope.cancel()
                        break
                abandoned = await models.aclose(grace)
                tasks.cancel_scope.cancel()
    except BaseException:
        await models.aclose(grace=0)
        raise
    show.changes(changes.take())
    return abandoned
