"""How frameworks, and libraries below them, say that memory ran out: few have a type for it."""

from __future__ import annotations

from .errors import describe

WORDS = (
    *("out of memory", "out_of_memory", "not enough memory", "can't allocate memory"),
    *("failed to allocate memory", "bad_alloc", "bad allocation", "alloc_failed"),
)


def ran_out_of_memory(error: BaseException) -> bool:
    """Return whether an error is about memory, of the processor or of a card."""
    # torch's type, without an import of torch.
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    text = describe(error).lower()
    return any(words in text for words in WORDS)
