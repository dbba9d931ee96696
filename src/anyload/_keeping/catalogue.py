"""The models that a configuration names, as the repository has them, and what a new one changes."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from .._load.todo import Todo
from ..config import CatalogueEntry, InitializerConfig, KeptModel
from ..errors import ConfigError, Problem
from ..model_config import ModelConfig
from .core import KeepingCore
from .failure_memory import FailureMemory
from .left_out import LeftOut
from .records import Entry


@dataclass(frozen=True, slots=True)
class CatalogueChange:
    """What a reload of the catalogue has changed.

    Args:
        added: the names of new models.
        changed: the names of models that have another version now, loaded or to be loaded.
        removed: the names of models that are no longer there.
        errors: what is wrong with an entry, by its name; such a model stays as it was.
    """

    added: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    errors: Mapping[str, ConfigError] = field(default_factory=lambda: MappingProxyType({}))


class Catalogue:
    """The catalogue of one repository.

    Args:
        core: the core of the repository.
        config: the configuration; its catalogue is the first.
        jitter: returns a number between 0 and 1, another each time.

    Raises:
        ConfigError: a model is to be kept that the catalogue lacks, or a name is taken twice.
    """

    def __init__(
        self,
        core: KeepingCore,
        config: InitializerConfig,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._core = core
        self._config = config.repository
        self._jitter = jitter
        # As the initializer has it: a load that moves the working directory changes no path.
        self._root = os.path.abspath(config.model_root or os.curdir)
        self._written: dict[str, tuple[CatalogueEntry, KeptModel]] = {}
        wrong = list(_wrong(config.models, config.repository.models))
        if wrong:
            raise ConfigError("the configuration", wrong)
        with core.step() as todo, core.lock:
            for name, entry in config.models.items():
                self._put(name, entry, config.repository.models.get(name, KeptModel()), todo)
            self._name_all()

    def change(
        self,
        models: Mapping[str, CatalogueEntry],
        kept: Mapping[str, KeptModel],
        errors: Mapping[str, ConfigError],
    ) -> CatalogueChange:
        """Take over another catalogue; what is wrong in it stays as it was.

        Args:
            models: the entries that can be used.
            kept: how they are kept.
            errors: what is wrong with the others.

        Raises:
            ConfigError: names of the whole are taken twice; nothing has changed then.
        """
        added, changed = list[str](), list[str]()
        with self._core.step() as todo, self._core.lock:
            stays = {name: self._written[name] for name in errors if name in self._written}
            all_models = {**models, **{name: entry for name, (entry, _) in stays.items()}}
            all_kept = {**kept, **{name: how for name, (_, how) in stays.items()}}
            wrong = list(_wrong(all_models, all_kept))
            if wrong:
                raise ConfigError("the catalogue", wrong)
            for name, entry in models.items():
                before = self._written.get(name)
                if self._put(name, entry, kept.get(name, KeptModel()), todo):
                    (added if before is None else changed).append(name)
            removed = [name for name in self._written if name not in all_models]
            for name in removed:
                del self._written[name]
                self._core.keeper.remove(self._core.house.tables.entries[name], todo)
            self._name_all()
        return CatalogueChange(
            tuple(added), tuple(changed), tuple(removed), MappingProxyType(dict(errors))
        )

    def _put(self, name: str, written: CatalogueEntry, kept: KeptModel, todo: Todo) -> bool:
        """Take in one model; return whether what is loaded for it is another now."""
        before = self._written.get(name)
        self._written[name] = written, kept
        entry = self._core.house.tables.entries.get(name)
        if before is None or entry is None or entry.name != name:
            self._core.house.tables.entries[name] = self._entry(name, written, kept)
            return True
        entry.pinned = kept.pin or kept.required
        entry.keep_alive = self._keep_alive(kept)
        if kept.memory != before[1].memory:
            entry.measured.clear()
        entry.current.calm = False  # what follows when it is idle may be something else now
        if (before[0], before[1].version) == (written, kept.version):
            entry.kept = kept
            if kept.upgrade != before[1].upgrade:
                self._core.switching.look_later(entry.current)
            return False
        entry.generation += 1
        self._core.keeper.swap(entry, entry.version(self._model(written), kept), todo)
        return True

    def _entry(self, name: str, written: CatalogueEntry, kept: KeptModel) -> Entry:
        settings = self._config
        times = settings.cool_down, settings.max_cool_down, self._jitter
        model, keep_alive = self._model(written), self._keep_alive(kept)
        return Entry(name, model, kept, keep_alive, FailureMemory(*times), LeftOut(*times))

    def _keep_alive(self, kept: KeptModel) -> float:
        return self._config.keep_alive if kept.keep_alive is None else kept.keep_alive

    def _model(self, written: CatalogueEntry) -> ModelConfig:
        path = written.model_path
        return ModelConfig(
            written.module_id,
            None if path is None else os.path.join(self._root, path),
            written.model_backend,
            **(written.model_extra or {}),
        )

    def _name_all(self) -> None:
        """Let every model be found under its name and its aliases, and no other."""
        entries = self._core.house.tables.entries
        models = {name: entries[name] for name in self._written}
        aliases = {
            alias: models[name]
            for name, (_, kept) in self._written.items()
            for alias in kept.aliases
        }
        # In one step each, as names are looked up without the lock too.
        for name in set(entries) - models.keys() - aliases.keys():
            del entries[name]
        entries.update({**aliases, **models})


def _wrong(
    models: Mapping[str, CatalogueEntry], kept: Mapping[str, KeptModel]
) -> Iterator[Problem]:
    """Yield what is wrong with the names of a catalogue."""
    for name in kept:
        if name not in models:
            yield Problem(f"repository.models.{name}", "there is no such model in `models`")
    owners = {name: name for name in models}
    for name, how in kept.items():
        for alias in how.aliases:
            owner = owners.setdefault(alias, name)
            if owner != name or alias == name:
                where = f"repository.models.{name}.aliases"
                yield Problem(where, f"{alias!r} is a name of {owner!r} already")
