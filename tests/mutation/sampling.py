"""Some of the mutants that mutmut makes, drawn by a seed, with the survivors that are accepted.

A survivor that has been looked at, and that no test can notice, stands in ``accepted.diff`` with
its reason, under the file and the function that it is in. A reason whose mutant is not made any
more has to go: the core has changed.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

from .blocks import Block, read_blocks
from .made import CORE, Change, Made, changes
from .mutants import Mutant

ACCEPTED = Path(__file__).with_name("accepted.diff")


def sampled(
    read: Callable[[str], str], words: Collection[str], size: int | None, seed: int
) -> Iterator[Mutant | str]:
    """Yield mutants, or what is wrong with a survivor that is accepted.

    Args:
        read: returns the text of a file of the core.
        words: only what is in functions whose place has one of these; all, if there are none.
        size: how many are drawn; None is all of them.
        seed: which are drawn.
    """
    if size == 0:
        return
    places: dict[str, list[Change]] = {}
    for file in CORE:
        for change in changes(file, read(file)):
            places.setdefault(change.place, []).append(change)
    reasons = {}
    for block in read_blocks(ACCEPTED.read_text()):
        made = [change.made() for change in places.get(block.heading, ())]
        if not any(mutant is not None and _is(block, mutant) for mutant in made):
            yield f"{ACCEPTED.name}: {block.heading}: no mutant is like this: {block.right}"
        reasons[block[0], block.right, block.wrong] = block.unseen
    drawn = [
        change
        for place, inside in places.items()
        if not words or any(word in place for word in words)
        for change in inside
    ]
    if size is not None and size < len(drawn):
        drawn = random.Random(seed).sample(drawn, size)
    for change in drawn:
        mutant = change.made()
        if mutant is not None:
            unseen = reasons.get((mutant.place, mutant.right, mutant.wrong), "")
            yield Mutant(change.file, _written(mutant), mutant.text, unseen)


def _is(block: Block, mutant: Made) -> bool:
    return (block.heading, block.right, block.wrong) == mutant[:3]


def _written(mutant: Made) -> str:
    right = [f"-{line}" for line in mutant.right]
    wrong = [f"+{line}" for line in mutant.wrong]
    return "\n".join([mutant.place, *right, *wrong])
