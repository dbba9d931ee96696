"""A process of its own for what is to leave a process broken, from one that has loaded nothing."""

from __future__ import annotations

import multiprocessing
import traceback
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from typing import Any

PATIENCE = 60.0
"""How long a scene may take, in seconds."""
PRELOAD = (
    "anyio._backends._asyncio",
    "anyio._backends._trio",
    "anyload.adapters.torch",
    "anyload.adapters.transformers",
    "anyload.testing",
    "torch._export.serde.serialize",
    "torch.export",
    "torch.fx.experimental.symbolic_shapes",
    "transformers.models.bert.modeling_bert",
    "transformers.models.gpt2.modeling_gpt2",
)
"""What every scene needs: imported once, in the process that the others are forked from."""


def play(scene: Callable[..., Any], *arguments: Any) -> Any:
    """Return what a scene returns, played in a clean process of its own.

    Raises:
        RuntimeError: it raised, died or hung.
    """
    forks = multiprocessing.get_context("forkserver")
    forks.set_forkserver_preload(list(PRELOAD))
    ours, theirs = forks.Pipe(duplex=False)
    process = forks.Process(target=_perform, args=(theirs, scene, arguments), daemon=True)
    process.start()
    theirs.close()
    try:
        if not ours.poll(PATIENCE):
            raise RuntimeError(f"{scene.__name__} takes over {PATIENCE} s")
        result, error = ours.recv()
    except EOFError:
        process.join(PATIENCE)
        died = f"the process of {scene.__name__} died with status {process.exitcode}"
        raise RuntimeError(died) from None
    finally:
        ours.close()
        process.kill()
        process.join()
    if error:
        raise RuntimeError(f"{scene.__name__} raised\n{error}")
    return result


def _perform(theirs: Connection, scene: Callable[..., Any], arguments: Sequence[Any]) -> None:
    import torch
    import transformers

    torch.set_num_threads(1)
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    try:
        theirs.send((scene(*arguments), None))
    except BaseException:
        theirs.send((None, traceback.format_exc()))
