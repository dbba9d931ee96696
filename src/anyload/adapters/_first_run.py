"""The first run of a model, on an input that was made up for it: what may go wrong in it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from .. import report_warning
from .._load.stacks import forget_frames
from .._out_of_memory import ran_out_of_memory
from ..errors import AnyloadError
from ._framework import one_line, says

DEVICE_FAILS = (
    *("cuda error", "cuda failure", "cuda driver", "cudaerror", "not compiled with cuda"),
    *("no kernel image", "device-side assert", "cudnn", "cublas", "cufft", "cusolver", "cusparse"),
    *("hip error", "could not run 'aten::", "could not run 'quantized::"),
)
"""What frameworks say where a device cannot run a model, or no longer runs anything."""


@contextmanager
def first_run() -> Iterator[None]:
    """Let the first run of a model fail: what was made up for it may be no valid input.

    Then it is a warning in the report of the load.

    Raises:
        Exception: the input is not the reason: memory ran out, the device cannot run the model, or
            something is not there that it needs. The next backend may do.
    """
    try:
        yield
    except Exception as error:
        if not _may_be_the_input(error):
            forget_frames(error)  # so that the release that follows gives back all of it
            raise
        what = f"{type(error).__name__}: {one_line(error)}"
        report_warning(f"its first run, on an input that was made up, failed with {what}")


def _may_be_the_input(error: Exception) -> bool:
    """Return whether an error of a first run can be about its input."""
    if isinstance(error, AnyloadError | ImportError | OSError) or ran_out_of_memory(error):
        return False
    # torch's type, without an import of torch.
    return type(error).__name__ != "AcceleratorError" and not says(error, DEVICE_FAILS)
