"""What every kind of mutant is to those who run the tests against it."""

from __future__ import annotations

from typing import NamedTuple


class Mutant(NamedTuple):
    """A file of the core that has one thing broken.

    Args:
        file: the file, without suffix.
        change: where what is broken, on as many lines as it takes.
        text: the whole of the broken file.
        unseen: why no test can notice; empty where one has to.
    """

    file: str
    change: str
    text: str
    unseen: str

    def __str__(self) -> str:
        return " ".join(self.change.split())
