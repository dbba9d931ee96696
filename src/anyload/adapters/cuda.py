"""The backend type ``CUDA``: an NVIDIA card, for every adapter that can use one."""

from __future__ import annotations

import os
from typing import ClassVar

from .._cards import card_count, visible_cards
from ..config import BackendConfig, Count
from ..contracts import Backend


class CudaBackend(Backend):
    """One card, by its number; what is on it is the framework's own affair.

    It is skipped, with the reason, where there is no driver or no such card.
    """

    backend_type: ClassVar[str] = "CUDA"

    class Config(BackendConfig):
        """What ``config:`` of this backend may say.

        Args:
            device: the number of the card, counted as CUDA counts: among the visible ones.
        """

        device: Count = 0

    config: Config

    @property
    def device(self) -> str:
        """The card as frameworks spell it."""
        return f"cuda:{self.config.device}"

    def available(self) -> str | None:
        """Return why this card cannot be used here, or None if it can."""
        visible, cards = os.environ.get("CUDA_VISIBLE_DEVICES"), card_count()
        count = len(visible_cards(visible, cards))
        if count > self.config.device:
            return None
        if visible is not None and cards:
            return f"there is no {self.device} among CUDA_VISIBLE_DEVICES={visible}"
        return f"there is no {self.device}: {count} NVIDIA cards on this machine"
