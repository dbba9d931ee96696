"""How the fuzz tests run, and what they all hold: it works, or it ends soon with an error of ours.

``FUZZ`` in the environment is how many examples each test tries; ``make torture`` tries many.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable

from hypothesis import HealthCheck, settings
from refusals import SECONDS, text_of

from anyload import AnyloadError

fuzzed = settings(
    max_examples=int(os.environ.get("FUZZ", "60")),
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)


def fine_or_refused(call: Callable[[], object]) -> bool:
    """Return whether a call comes back; if not, it ends with an error of ours, and soon."""
    began = time.perf_counter()
    try:
        call()
    except AnyloadError as error:
        text_of(error)
        return False
    finally:
        assert time.perf_counter() - began < SECONDS
    return True
