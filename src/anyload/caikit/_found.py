"""What a finder has found: a model's config, and what goes along with it, or the model itself."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import NamedTuple

from caikit.core import ModuleBase, ModuleConfig

from .._load.flight import Known
from ._modules import Loaded


class Found(NamedTuple):
    """What a finder has found.

    Args:
        config: the model's config.
        place: where it was, as an error says it.
        singleton: what keeps it, if anything does.
        files: what must be there until the load's thread has left it.
    """

    config: ModuleConfig
    place: object
    singleton: Singleton | None = None
    files: object = None


class Singleton(NamedTuple):
    """Where one model is kept.

    Args:
        models: all that are kept; it is looked into under the lock, which takes no time.
        name: the name of this one.
    """

    models: dict[str, ModuleBase]
    name: str

    @property
    def key(self) -> Hashable:
        """What is equal for all who ask for it.

        Not what their request has for a key until it is found: it would find itself under that.
        """
        return "singleton", self.name, "found"

    def known(self) -> Known | None:
        """Return the model, if it is there."""
        model = self.models.get(self.name)
        return None if model is None else Known(Loaded(model))

    def keep(self, loaded: Loaded) -> None:
        """Keep a model that was loaded, unless another initializer has landed one meanwhile.

        Then that is the model. Ours is not dropped here: its code would run under the lock.
        """
        kept = self.models.setdefault(self.name, loaded.model)
        if kept is not loaded.model:
            loaded.model, loaded.dropped = kept, loaded.model


Find = Callable[[], Found | Known]
"""What looks for a model, and may block."""
