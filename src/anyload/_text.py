"""Text that somebody else wrote, made fit for an error or a log."""

from __future__ import annotations

LONGEST_NAME = 1024
LONGEST_TEXT = 4096
LONGEST_LINE = 2 * LONGEST_TEXT
"""Room for a text that was cut, and for what is said around it."""


def one_line(text: str, longest: int = LONGEST_LINE) -> str:
    """Return a text as one line, cut: what cannot be printed is escaped.

    So a newline in a name forges no line of a log, and an escape sequence does nothing to a
    terminal.
    """
    text = str.__str__(text)  # which may be of a class of its own
    cut = text[:longest]
    if not cut.isprintable():
        cut = "".join(each if each.isprintable() else repr(each)[1:-1] for each in cut)
    return f"{cut}..." if len(text) > longest else cut


def quoted(name: str) -> str:
    """Return the repr of a name or a path, cut."""
    name = str.__str__(name)
    text = repr(name[:LONGEST_NAME])
    return f"{text}..." if len(name) > LONGEST_NAME else text
