"""The soak in its small size; ``make soak`` runs the large one, which watches the memory too."""

from __future__ import annotations

import sys

import pytest

from .run import LOOPS, Soak

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="it reads /proc")


def test_a_server_for_a_while() -> None:
    """Loads that fail in every way, on one loop after the other: nothing is left over."""
    soak = Soak(seed=2)
    for loop in LOOPS:
        soak.on(loop, seconds=0.8)
    assert soak.done[1] > 100
    assert "released once" in soak.close()
