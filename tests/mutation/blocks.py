"""How a mutant is written down: as a heading, perhaps a reason, and the lines of a diff.

The heading stands behind an ``@``. Where no test can notice, as nothing that anybody sees is
different, the reason stands behind a ``~`` on the next line.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple


class Block(NamedTuple):
    """One mutant as it is written down.

    Args:
        heading: what it is about.
        unseen: why no test can notice it; empty where one has to.
        right: the lines that the core has.
        wrong: the lines that the mutant has in their place.
    """

    heading: str
    unseen: str
    right: tuple[str, ...]
    wrong: tuple[str, ...]


def read_blocks(text: str) -> Iterator[Block]:
    """Yield the blocks of a file."""
    for block in filter(None, text.removeprefix("@ ").split("\n@ ")):
        heading, *lines = block.rstrip("\n").split("\n")
        unseen = lines.pop(0)[2:] if lines[0].startswith("~ ") else ""
        right = tuple(line[1:] for line in lines if line[:1] != "+")
        wrong = tuple(line[1:] for line in lines if line[:1] != "-")
        yield Block(heading, unseen, right, wrong)
