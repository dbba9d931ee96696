"""What was noticed before, so that a run that was ended goes on where it was.

A mutant is known again by all the sources, with it in them. Only what was noticed is remembered:
the others are worth another try, as a test may have been written since.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from .mutants import Mutant


class Remembered:
    """The mutants that have been noticed.

    Args:
        file: where they are kept; None if they are not.
        sources: the sources without a mutant.
    """

    def __init__(self, file: Path | None, sources: Path) -> None:
        self._file = file
        texts = b"".join(source.read_bytes() for source in sorted(sources.rglob("*.py")))
        self._sources = hashlib.sha256(texts).hexdigest()
        lines = file.read_text().splitlines() if file is not None and file.exists() else []
        self._noticed = {digest: who for digest, _, who in (line.partition(" ") for line in lines)}

    def noticed_by(self, mutant: Mutant) -> str:
        """Return who has noticed a mutant before; nobody, if that is empty."""
        return self._noticed.get(self._digest(mutant), "")

    def add(self, mutant: Mutant, noticed_by: str) -> None:
        """Remember who has noticed a mutant, if anybody has."""
        if self._file is not None and noticed_by:
            with self._file.open("a") as file:
                file.write(f"{self._digest(mutant)} {noticed_by}\n")

    def _digest(self, mutant: Mutant) -> str:
        return hashlib.sha256(f"{self._sources}{mutant.file}{mutant.text}".encode()).hexdigest()
