"""Reading one small file that somebody else may have put there."""

import os
import socket
from pathlib import Path

import pytest

from anyload._reading.files import FileRefused, read_regular_file


def refusal(path: str | Path, limit: int = 100, *, follow_links: bool = False) -> str:
    with pytest.raises(FileRefused) as caught:
        read_regular_file(path, limit=limit, follow_links=follow_links)
    return caught.value.reason


def test_content_and_stat_are_of_one_file(tmp_path: Path) -> None:
    """What is returned is the content, and the stat of the descriptor it was read from."""
    path = tmp_path / "config.yml"
    path.write_bytes(b"a: 1\r\n")
    content, status = read_regular_file(path, limit=6)
    assert content == b"a: 1\r\n"
    assert status.st_ino == path.stat().st_ino


def test_more_than_one_chunk_is_read_whole(tmp_path: Path) -> None:
    """A file longer than one read is read to its end."""
    path = tmp_path / "config.yml"
    path.write_bytes(b"x" * 200_000)
    assert len(read_regular_file(path, limit=200_000)[0]) == 200_000


def test_a_file_over_the_limit_is_too_large(tmp_path: Path) -> None:
    """One byte over the limit is refused."""
    path = tmp_path / "config.yml"
    path.write_bytes(b"x" * 101)
    assert refusal(path) == "too large: more than 100 bytes"


def test_an_absent_file_is_not_found(tmp_path: Path) -> None:
    """So is one below something that is no directory."""
    (tmp_path / "file").touch()
    assert refusal(tmp_path / "none") == "not found"
    assert refusal(tmp_path / "file" / "config.yml") == "not found"


def test_a_directory_is_named_as_one(tmp_path: Path) -> None:
    """A directory in the file's place is told from an unreadable file."""
    assert refusal(tmp_path) == "a directory, not a file"


def test_a_fifo_a_socket_and_a_device_are_refused_at_once(tmp_path: Path) -> None:
    """None of them is waited for."""
    os.mkfifo(tmp_path / "fifo")
    assert refusal(tmp_path / "fifo") == "not a regular file"
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(tmp_path / "socket"))
        assert refusal(tmp_path / "socket") == "not a regular file"
    assert refusal("/dev/null") == "not a regular file"


def test_a_link_is_followed_only_where_that_is_allowed(tmp_path: Path) -> None:
    """The last part of the path must be no link, unless the operator chose it."""
    (tmp_path / "file").write_bytes(b"x")
    (tmp_path / "link").symlink_to("file")
    assert refusal(tmp_path / "link") == "a symbolic link"
    assert read_regular_file(tmp_path / "link", limit=9, follow_links=True)[0] == b"x"
    (tmp_path / "fifo_link").symlink_to("fifo")
    os.mkfifo(tmp_path / "fifo")
    assert refusal(tmp_path / "fifo_link", follow_links=True) == "not a regular file"


def test_a_file_without_permission_is_unreadable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The system's reason is kept; the tests may run as root, so it is put there."""

    def denied(*args: object) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", denied)
    assert refusal(tmp_path / "config.yml") == "unreadable: Permission denied"


@pytest.mark.skipif(not os.path.exists("/proc/self/mem"), reason="needs a file that fails")
def test_a_failing_disk_is_unreadable_and_the_descriptor_is_closed() -> None:
    """An error while reading leaks nothing. There is nothing at the process's address 0."""
    before = os.listdir("/proc/self/fd")
    assert refusal("/proc/self/mem") == "unreadable: Input/output error"
    assert os.listdir("/proc/self/fd") == before


def test_a_path_with_nul_is_no_path() -> None:
    """It is refused as any other file is, not with a ValueError."""
    assert refusal("a\0b") == "not a valid path"
