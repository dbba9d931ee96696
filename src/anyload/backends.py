"""The backend that is always there: this process, wherever the module puts its model."""

from __future__ import annotations

from .contracts import Backend


class LocalBackend(Backend):
    """Loads in this process, on whatever device the module chooses."""

    backend_type = "LOCAL"
