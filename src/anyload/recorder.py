"""A hook that keeps what it hears, and makes a timeline, a picture or a trace of it."""

from __future__ import annotations

import json
import os
import time
from collections import deque

from ._drawing.page import timeline_page
from ._drawing.trace import chrome_trace
from ._probes import Heartbeat
from ._retelling import timeline_of
from .events import Event, Progress
from .timeline import Gap, Timeline

LATE_SECONDS = 0.005
"""From this long on, a gap of the event loop is part of the picture."""


class Recorder:
    """Hears of every load, and tells as a timeline what went on.

    ::

        recorder = Recorder()
        async with Initializer(registry, hooks=[recorder]) as initializer:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(recorder.watch_loop)
                await initializer.init_many(names)
                tasks.cancel_scope.cancel()
        recorder.write_html("boot.html")

    It may be the hook of several initializers. It holds no models.

    Args:
        most_events: how many events it keeps, about four for each load; then it forgets the
            first ones.
    """

    def __init__(self, *, most_events: int = 100_000) -> None:
        self._events: deque[Event] = deque(maxlen=most_events)
        self._gaps: deque[Gap] = deque(maxlen=most_events)
        self._watched = False
        self._cut = False

    def __call__(self, event: Event) -> None:
        """Keep an event; initializers call this, on any thread."""
        if isinstance(event, Progress):
            return
        if len(self._events) == self._events.maxlen:
            self._cut = True
        self._events.append(event)

    async def watch_loop(self) -> None:
        """Notice when the event loop that this runs on is kept from running, until cancelled.

        It wakes the loop a thousand times a second.
        """
        self._watched = True
        await Heartbeat(self._ticked).beat()

    def _ticked(self, now: float, gap: float) -> None:
        if gap >= LATE_SECONDS:
            self._gaps.append((now - gap, now))

    def timeline(self) -> Timeline:
        """Return what went on so far; what has not ended goes on until now."""
        return timeline_of(
            self._events.copy(),
            until=time.monotonic(),
            gaps=self._gaps.copy(),
            watched=self._watched,
            cut=self._cut,
        )

    def write_html(self, path: str | os.PathLike[str], *, title: str = "Timeline") -> None:
        """Write a picture of it: one HTML file that needs nothing else. It blocks.

        Raises:
            OSError: the file cannot be written.
        """
        with open(path, "w", encoding="utf-8") as file:
            file.write(timeline_page(title, self.timeline()))

    def write_trace(self, path: str | os.PathLike[str]) -> None:
        """Write it as Chrome trace events, for Perfetto or ``chrome://tracing``. It blocks.

        Raises:
            OSError: the file cannot be written.
        """
        with open(path, "w", encoding="utf-8") as file:
            json.dump(chrome_trace(self.timeline()), file)
