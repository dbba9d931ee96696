"""Loading what the configuration wants to be there before anybody asks for it."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial

from .._load.failures import anew
from ..errors import AnyloadError, BulkLoadError, ClosedError, ModelUnavailableError
from ..reports import LoadReport
from .core import KeepingCore
from .records import Version
from .waiting import become


async def load_preloaded(core: KeepingCore, names: Iterable[str] | None) -> dict[str, LoadReport]:
    """Load every preload, and wait for all; see `ModelRepository.load_preloaded`."""
    versions, errors = _begin(core, names)
    reports: dict[str, LoadReport] = {}
    for name, version in versions.items():
        await become(core, version, over)
        if version.report is not None:
            reports[name] = version.report
        else:
            errors[name] = why_not(version)
    if errors:
        wanted = len(errors) + len(reports)
        message = f"{len(errors)} of {wanted} models did not load"
        raise BulkLoadError(message, list(errors.values()), reports, errors)
    return reports


def _begin(
    core: KeepingCore, names: Iterable[str] | None
) -> tuple[dict[str, Version], dict[str, Exception]]:
    """Have every preload loaded; return the versions to wait for, and what cannot be tried."""
    versions: dict[str, Version] = {}
    errors: dict[str, Exception] = {}
    with core.step() as todo, core.lock:
        if core.house.closed:
            raise ClosedError("the preloads")
        if names is None:
            entries = core.house.each()
            names = [one.name for one in entries if one.kept.preload or one.kept.required]
        for name in sorted(dict.fromkeys(names), key=partial(_urgency, core)):
            try:
                versions[name] = core.wishes.preload(name, todo)
            except AnyloadError as error:
                errors[name] = error
    return versions, errors


def _urgency(core: KeepingCore, name: str) -> int:
    """Return what is lower for what goes first."""
    entry = core.house.tables.entries.get(name)
    return 0 if entry is None else -entry.kept.priority


def over(version: Version) -> bool:
    """Whether a load has its outcome."""
    return version.life.state not in ("UNKNOWN", "LOADING")


def why_not(version: Version) -> AnyloadError:
    """Return why a load that is over gave no model: for each who asks an error of its own."""
    if version.error is not None:
        return anew(version.error)
    return ModelUnavailableError(version.entry.name, version.life.reason, 0.0)
