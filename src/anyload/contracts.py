"""What modules, backends and admission look like to anyload: the seams of the library."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Protocol, runtime_checkable

from .config import BackendConfig
from .model_config import ModelConfig


class Module(Protocol):
    """A class whose ``load`` makes a model. Nothing needs to inherit from this.

    These may be added, and are found by name; like ``load``, none is async::

        exclusive_group: str            # loads of one group never overlap in the process
        holds_gil: bool                 # load keeps the GIL: one such load at a time
        pauses_gc: bool                 # no garbage collection in the process while it loads
        supported_load_backends: ...    # backend types whose models this class can load
        process_globals: ...            # what its loads may leave changed; see anyload.guard

        @classmethod
        def variant(cls, config): ...   # the subclass that loads this config, where that depends
        @classmethod
        def weight_files(cls, config): ...  # the files that load reads: they are read ahead
        @classmethod
        def prepare(cls): ...           # heavy imports, run once, never two at the same time
        def warmup(self): ...           # the last step of a load, inside its limit
        def release(self): ...          # give memory back; also called for discarded results
        def memory_bytes(self): ...     # how much memory the loaded model holds: a whole number
                                        # of bytes, 0 to 2**63-1; the log warns of anything else
        device: object                  # where the loaded model is; goes into the report as text
    """

    @classmethod
    def load(cls, config: ModelConfig, /, **kwargs: Any) -> Any:
        """Load a model; plain blocking code that runs in a worker thread.

        Args:
            config: the model's config. Where this parameter is annotated ``str`` or ``Path``,
                the model's path is passed instead.
            kwargs: what the caller gave to ``init``; ``load_backend``, where the signature names
                it, is the backend that the load runs on.

        Returns:
            An instance of a class registered for this module id, or None to decline, so that
            the next backend is tried.
        """
        ...


class Backend:
    """Something configured that a load runs on: a device, a runtime, a pool.

    It is made together with the initializer, so making it must be cheap and do no I/O.

    Args:
        config: the ``config`` of this backend's entry in ``backend_priority``, checked against
            the class's own ``Config``.
    """

    backend_type: ClassVar[str]
    Config: ClassVar[type[BackendConfig]] = BackendConfig

    def __init__(self, config: BackendConfig) -> None:
        self.config = config

    def register_config(self, overrides: Mapping[str, Any]) -> None:
        """Take what a module wants changed in this backend's config, before anything loads."""
        merged = {**self.config.model_dump(), **overrides}
        self.config = type(self).Config.model_validate(merged)

    def available(self) -> str | None:
        """Return why this backend cannot be used here, or None if it can.

        It is asked off the event loop, before every load, so it should be quick.
        """
        return None

    def start(self) -> None:
        """Get ready; called once, in a worker thread, before the first load."""

    def stop(self) -> None:
        """Let go; called at close, in a worker thread, if the backend was started."""

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.backend_type}>"


@runtime_checkable
class Admission(Protocol):
    """Decides which queued loads may start; a memory budget, for example.

    None is async. All three are called under the lock of the initializer: they must neither block
    nor call the initializer. After the answer of ``may_start`` may have changed for a reason that
    no load's start or end tells of, call ``Initializer.reconsider()``.
    """

    def may_start(self, config: ModelConfig, size: int) -> bool:
        """Return whether this load may start now; ``size`` is its size on disk in bytes."""
        ...

    def started(self, config: ModelConfig, size: int) -> None:
        """A load has started. Every start is followed by exactly one end."""
        ...

    def ended(self, config: ModelConfig, size: int) -> None:
        """A load's thread has left it: not before that, even where the load was abandoned."""
        ...
