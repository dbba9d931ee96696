"""``import anyload`` is cheap, and its names come when they are asked for."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = ("numpy", "pydantic", "rich", "trio", "yaml")


def output_of(program: str) -> list[str]:
    """Run the program in a fresh interpreter and return the words it prints."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_import_loads_nothing_heavy() -> None:
    """``import anyload`` alone imports none of the heavy packages."""
    loaded = output_of("import sys, anyload; print(*sys.modules)")
    assert "anyload" in loaded
    assert not set(HEAVY).intersection(loaded)


def test_every_public_name_resolves_in_a_fresh_interpreter() -> None:
    """Each name of ``__all__`` can be had where nothing else has been imported."""
    program = (
        "import anyload\n"
        "for name in anyload.__all__:\n"
        "    getattr(anyload, name)\n"
        "print(*anyload.__all__)"
    )
    assert output_of(program)


def test_all_and_dir_agree() -> None:
    """``dir(anyload)`` lists every public name, before and after it has been asked for."""
    import anyload

    assert len(set(anyload.__all__)) == len(anyload.__all__)
    assert set(anyload.__all__) <= set(dir(anyload))
    for name in anyload.__all__:
        getattr(anyload, name)
    assert set(anyload.__all__) <= set(dir(anyload))


def test_an_unknown_name_is_an_attribute_error() -> None:
    """A name anyload does not have is an AttributeError that repeats it, as for any module."""
    import anyload

    with pytest.raises(AttributeError, match="no_such_name"):
        anyload.no_such_name  # noqa: B018
