"""The rules of the core that keep concurrent loads apart, each to be broken on its own.

They stand in ``rules/``, in a file for each file of ``anyload/_load``: what is broken, and the
lines that are taken away and put in.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from .blocks import Block, read_blocks
from .mutants import Mutant

RULES = Path(__file__).with_name("rules")


def broken_rules(read: Callable[[str], str]) -> Iterator[Mutant | str]:
    """Yield a mutant for each rule, or what is wrong with the rule.

    Args:
        read: returns the text of a file of the core.
    """
    for file in sorted(RULES.glob("*.diff")):
        text = read(file.stem)
        for rule in read_blocks(file.read_text()):
            times = text.count(_lines(rule.right))
            if times == 1:
                yield _broken(file.stem, text, rule)
            else:
                yield f"{file.stem}: {rule.heading}: its lines are there {times} times, not once"


def _broken(file: str, text: str, rule: Block) -> Mutant:
    broken = text.replace(_lines(rule.right), _lines(rule.wrong))
    return Mutant(file, f"{file}: {rule.heading}", broken, rule.unseen)


def _lines(lines: tuple[str, ...]) -> str:
    return "".join(f"\n{line}" for line in lines) + "\n"
