"""Filling the page cache: what is read, and what is not because it is there already."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from anyload._load import read_ahead as module
from anyload._load.read_ahead import CHUNK, free_memory, read_ahead

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="there is no sendfile to /dev/null")


def always() -> bool:
    return True


@pytest.fixture
def cached(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Make the system say which portions are cached, by the place of a page."""

    def patch(says: Callable[[int], bool]) -> None:
        def preadv(descriptor: int, buffers: Sequence[Any], offset: int, flags: int) -> int:
            assert flags == os.RWF_NOWAIT
            if not says(offset):
                raise BlockingIOError(errno.EAGAIN, "not there")
            return 1

        monkeypatch.setattr(os, "preadv", preadv)

    return patch


def test_what_is_not_cached_is_read(tmp_path: Path, cached: Callable[..., None]) -> None:
    """Every byte of every file, in order, and of an empty one none."""
    cached(lambda place: False)
    sizes = [CHUNK + 5, 0, 3]
    for number, size in enumerate(sizes):
        (tmp_path / str(number)).write_bytes(bytes(size))
    assert read_ahead([str(tmp_path / str(number)) for number in range(3)], always) == sum(sizes)


def test_what_is_cached_is_not(tmp_path: Path, cached: Callable[..., None]) -> None:
    """A portion of 8 MiB is there if a few pages of it are, its last byte among them."""
    path = tmp_path / "weights"
    path.write_bytes(bytes(2 * CHUNK))
    cached(lambda place: place < CHUNK)
    assert read_ahead([str(path)], always) == CHUNK
    cached(lambda place: place != CHUNK - 1)
    assert read_ahead([str(path)], always) == CHUNK
    cached(lambda place: True)
    assert read_ahead([str(path)], always) == 0


def test_what_the_system_really_says(tmp_path: Path) -> None:
    """A file that was just written is in the cache: there is nothing to be read."""
    path = tmp_path / "weights"
    path.write_bytes(bytes(100_000))
    try:
        descriptor = os.open(path, os.O_RDONLY)
        os.preadv(descriptor, [bytearray(1)], 0, os.RWF_NOWAIT)
    except OSError as error:
        pytest.skip(f"this file system does not say: {error}")
    finally:
        os.close(descriptor)
    assert read_ahead([str(path)], always) == 0


def test_no_more_than_memory_holds(
    tmp_path: Path, cached: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file may be larger than was known when room was made for it, and full of holes."""
    cached(lambda place: False)
    path = tmp_path / "weights"
    path.write_bytes(b"")
    os.truncate(path, 1 << 40)
    monkeypatch.setattr(module, "free_memory", lambda: CHUNK + 5)
    assert read_ahead([str(path)], always) == CHUNK + 5


def test_nobody_wants_it_any_more(tmp_path: Path, cached: Callable[..., None]) -> None:
    """It is asked before each portion is looked at, and before each is read."""
    cached(lambda place: False)
    path = tmp_path / "weights"
    path.write_bytes(bytes(3 * CHUNK))
    answers = iter([*3 * [True], True, True, False])
    assert read_ahead([str(path)], lambda: next(answers)) == 2 * CHUNK


def test_a_file_that_is_cut_meanwhile(tmp_path: Path, cached: Callable[..., None]) -> None:
    """It ends where it ends now."""
    cached(lambda place: False)
    path = tmp_path / "weights"
    path.write_bytes(bytes(2 * CHUNK))

    def cut() -> bool:
        os.truncate(path, CHUNK // 2)
        return True

    assert read_ahead([str(path)], cut) == CHUNK // 2


def test_a_file_system_that_cannot_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Then it is read; another error is one."""
    path = tmp_path / "weights"
    path.write_bytes(bytes(10))

    def fails(error: int) -> Callable[..., int]:
        def preadv(*_: object) -> int:
            raise OSError(error, os.strerror(error))

        return preadv

    monkeypatch.setattr(os, "preadv", fails(errno.EOPNOTSUPP))
    assert read_ahead([str(path)], always) == 10
    monkeypatch.setattr(os, "preadv", fails(errno.EIO))
    with pytest.raises(OSError, match="Input/output error"):
        read_ahead([str(path)], always)


def test_what_is_no_file(tmp_path: Path) -> None:
    """It is not waited for: nobody writes to that FIFO."""
    os.mkfifo(tmp_path / "fifo")
    assert read_ahead([str(tmp_path / "fifo")], always) == 0
    with pytest.raises(FileNotFoundError):
        read_ahead([str(tmp_path / "absent")], always)


def test_free_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the system says is available; nothing, if it does not say."""
    assert 0 < free_memory() < 2**50
    (tmp_path / "meminfo").write_text("MemTotal: 5 kB\nMemAvailable:    3 kB\n")
    monkeypatch.setattr(module, "MEMORY", str(tmp_path / "meminfo"))
    assert free_memory() == 3 * 1024
    (tmp_path / "meminfo").write_text("MemTotal: 5 kB\n")
    assert free_memory() == 0
