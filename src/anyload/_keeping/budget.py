"""How much memory there may be in use on each device, and who has how much of it. Pure.

Who holds memory is put down with `hold`, before it takes any, and let off with `drop`, after it
has given it back. What is asked for fits only if all that is held and it stay within the limits.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType

Sizes = Mapping[str, int]
"""Bytes by device."""

NOTHING: Sizes = MappingProxyType({})


class Budget:
    """The budget of each device that has one, and what is held of it.

    A device without a limit takes whatever comes.

    Args:
        limits: bytes by device.
    """

    def __init__(self, limits: Sizes) -> None:
        self.limits = dict(limits)
        self._held: dict[object, Sizes] = {}
        self._used: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._held)

    def hold(self, holder: object, sizes: Sizes) -> None:
        """Put down what somebody holds from now on, in place of what it held before."""
        self.drop(holder)
        self._held[holder] = sizes
        for device, size in sizes.items():
            self._used[device] = self._used.get(device, 0) + size

    def drop(self, holder: object) -> None:
        """Let somebody off, who holds nothing any more."""
        for device, size in self._held.pop(holder, NOTHING).items():
            self._used[device] -= size

    def used(self, device: str) -> int:
        """Return the bytes that are held on a device."""
        return self._used.get(device, 0)

    @property
    def devices(self) -> Iterable[str]:
        """The devices on which anything was ever held."""
        return list(self._used)

    def room(self) -> dict[str, int]:
        """Return the free bytes of each device that has a limit; less than none is possible."""
        return {device: limit - self.used(device) for device, limit in self.limits.items()}


def fits(need: Sizes, room: Sizes) -> bool:
    """Return whether there is room for this; where no limit is known, there is."""
    return all(size <= room[device] for device, size in need.items() if device in room)


def short_of(need: Sizes, room: Sizes) -> Sizes:
    """Return what is missing for a need, on the devices on which something is."""
    return {
        device: size - room[device]
        for device, size in need.items()
        if device in room and size > room[device]
    }


def plus(sizes: Iterable[Sizes]) -> dict[str, int]:
    """Return the sum of these, by device."""
    total: dict[str, int] = {}
    for one in sizes:
        for device, size in one.items():
            total[device] = total.get(device, 0) + size
    return total


def minus(room: Sizes, sizes: Sizes) -> dict[str, int]:
    """Return what is left of a room once this is taken from it."""
    return {device: size - sizes.get(device, 0) for device, size in room.items()}


def added(room: Sizes, sizes: Sizes) -> dict[str, int]:
    """Return a room once this is given back to it."""
    return {device: size + sizes.get(device, 0) for device, size in room.items()}
