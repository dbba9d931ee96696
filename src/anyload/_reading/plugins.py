"""The plug-ins that are installed: entry points, also where somebody's metadata is broken."""

from __future__ import annotations

from collections.abc import Iterable
from importlib import metadata

from ..errors import describe


def installed(group: str) -> tuple[list[metadata.EntryPoint], list[tuple[str, str]]]:
    """Return the entry points of a group by name, and the packages whose cannot be read.

    Args:
        group: the group, such as ``anyload.modules``.

    Returns:
        The entry points, and for each broken package its name and what is wrong with it.
    """
    found: Iterable[metadata.EntryPoint]
    broken: list[tuple[str, str]] = []
    try:
        found = metadata.entry_points(group=group)
    except Exception:  # of any kind, for one package that need not have to do with us
        found, broken = _one_by_one(group)
    return sorted(found, key=lambda point: point.name), broken


def _one_by_one(group: str) -> tuple[list[metadata.EntryPoint], list[tuple[str, str]]]:
    found: list[metadata.EntryPoint] = []
    broken = []
    seen = set()
    for package in metadata.distributions():
        name = "a package"
        try:
            name = package.metadata["Name"]
            if name not in seen:  # the first of a name on the path is the one that is imported
                seen.add(name)
                found += package.entry_points.select(group=group)
        except Exception as error:
            broken.append((str(name), describe(error)))
    return found, broken
