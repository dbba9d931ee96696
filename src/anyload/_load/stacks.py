"""Where a thread is, as text: frames themselves would keep a model alive."""

from __future__ import annotations

import sys
import traceback
from types import FrameType
from typing import Any

FRAMES = 12


def thread_stack(thread_id: int) -> str:
    """Return the innermost frames of a thread, newest last, as ``file.py:88 name`` lines.

    It is empty where the thread is unknown or has ended.
    """
    frame = sys._current_frames().get(thread_id)
    return "" if frame is None else _lines(list(traceback.walk_stack(frame))[:FRAMES][::-1])


def error_stack(error: BaseException) -> str:
    """Return the innermost frames an exception came through, newest last."""
    return _lines(list(traceback.walk_tb(_really(error, "__traceback__")))[-FRAMES:])


def innermost_frame(thread_id: int) -> str:
    """Return where a thread is, to be put into a sentence; empty where that is unknown."""
    stack = thread_stack(thread_id)
    return ", in " + stack.rsplit("\n", 1)[-1] if stack else ""


def forget_frames(error: BaseException | None) -> None:
    """Clear the local variables of every frame that an exception, or its causes, came through.

    They hold what a failed load had made so far: on a GPU, the memory that the next backend
    needs. The frames stay, so a traceback can still be printed.
    """
    seen: set[int] = set()
    pending = [error]
    while pending:
        current = pending.pop()
        if current is None or id(current) in seen:
            continue
        seen.add(id(current))
        traceback.clear_frames(_really(current, "__traceback__"))
        pending += [_really(current, "__cause__"), _really(current, "__context__")]
        if isinstance(current, BaseExceptionGroup):
            pending += _really(current, "exceptions", BaseExceptionGroup)


def _really(error: BaseException, name: str, cls: type[BaseException] = BaseException) -> Any:
    """Return an attribute as Python itself has it, whatever the error's own class makes of it."""
    return vars(cls)[name].__get__(error)


def _lines(frames: list[tuple[FrameType, int]]) -> str:
    return "\n".join(
        f"{frame.f_code.co_filename.replace(chr(92), '/').rsplit('/', 1)[-1]}:{line}"
        f" {frame.f_code.co_name}"
        for frame, line in frames
    )
