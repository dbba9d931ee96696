"""Short ways to load one model with the adapters, and to allow what must be."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest

from anyload import Initializer, LoadError, LoadReport, ModelConfig, Registry


class Loader:
    """Loads with the adapters as they are discovered, one model at a time."""

    def __init__(self) -> None:
        self.registry = Registry.discover()

    def initializer(self, *backend_types: str, **options: Any) -> Initializer:
        """Return an initializer with these backends in priority order; by default LOCAL."""
        priority = [{"type": one} for one in backend_types or ("LOCAL",)]
        return Initializer(self.registry, **{"backend_priority": priority, **options})

    async def load(
        self, module_id: str, path: Any, *backend_types: str, **fields: Any
    ) -> tuple[Any, LoadReport]:
        """Return the model and the report of its load."""
        config = ModelConfig(module_id, path, **fields)
        async with (
            self.initializer(*backend_types) as initializer,
            initializer.init_each([config]) as outcomes,
        ):
            (outcome,) = [outcome async for outcome in outcomes]
        if outcome.error is not None:
            raise outcome.error
        return outcome.value, outcome.report

    async def error(self, module_id: str, path: Any, *backend_types: str, **fields: Any) -> str:
        """Return what the only attempt raised, as text."""
        with pytest.raises(LoadError) as caught:
            await self.load(module_id, path, *backend_types, **fields)
        return caught.value.attempts[-1].reason


def allowed(path: Path, **fields: Any) -> dict[str, Any]:
    """Return the fields that allow this very file."""
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return {"allow_pickle": True, "sha256": digest, **fields}
