"""The rules of the core that keep concurrent loads apart, each to be broken on its own.

They stand in ``rules/``, in a file for each file of ``anyload/_load``: what is broken, behind an
``@``, and the lines that are taken away and put in, as a diff has them. Where no test can notice,
as nothing that anybody sees is different, the reason stands behind a ``~``.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

RULES = Path(__file__).with_name("rules")


class Rule(NamedTuple):
    """One rule.

    Args:
        file: the file of the core that it is in, without suffix.
        breaks: what is not so any more without it.
        right: its lines.
        wrong: the lines that a mutant has in their place.
        unseen: why no test can notice; empty where one has to.
    """

    file: str
    breaks: str
    right: str
    wrong: str
    unseen: str

    def __str__(self) -> str:
        return f"{self.file}: {self.breaks}"

    def broken(self, text: str) -> str:
        """Return the text of its file without it.

        Raises:
            ValueError: the rule is not there as it is written down, or is there twice.
        """
        times = text.count(f"\n{self.right}")
        if times != 1:
            raise ValueError(f"{self}: its lines are there {times} times, not once")
        return text.replace(f"\n{self.right}", f"\n{self.wrong}")


def read_rules() -> list[Rule]:
    """Return every rule."""
    rules = []
    for file in sorted(RULES.glob("*.diff")):
        for block in file.read_text().removeprefix("@ ").split("\n@ "):
            breaks, *lines = block.rstrip("\n").split("\n")
            unseen = lines.pop(0)[2:] if lines[0].startswith("~ ") else ""
            right = [line[1:] for line in lines if line[:1] != "+"]
            wrong = [line[1:] for line in lines if line[:1] != "-"]
            rules.append(Rule(file.stem, breaks, _text(right), _text(wrong), unseen))
    return rules


def _text(lines: list[str]) -> str:
    return "".join(f"{line}\n" for line in lines)
