"""Whatever an archive holds, it loads or an error of ours comes out, and nothing is left of it."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import tarfile
import tempfile
import warnings
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fuzzing import fine_or_refused, fuzzed
from hypothesis import given
from hypothesis import strategies as st
from made_archives import CONFIG, KINDS, ZIP, tar_member
from mutations import HOSTILE_TEXT
from refusals import registry

from anyload import Initializer
from anyload.testing import at_rest

COMPRESSED: dict[str, Callable[[bytes], bytes]] = {
    **dict.fromkeys((".tar.gz", ".tgz"), gzip.compress),
    **dict.fromkeys((".tar.bz2", ".tbz2"), bz2.compress),
    **dict.fromkeys((".tar.xz", ".txz"), lzma.compress),
}

NAMES = st.one_of(
    st.sampled_from(
        [
            *("weights/part.bin", "weights", "weights/", "model/config.yml", "config.yml/x"),
            *(
                "../evil",
                "/evil",
                "a/../../evil",
                "Config.yml",
                "A",
                "a",
                "a/./b",
                "a//b",
                "é",
                "é",
            ),
        ]
    ),
    HOSTILE_TEXT.filter(len).map(lambda text: text[:300]),
)
MEMBERS = st.lists(st.tuples(NAMES, st.binary(max_size=700)), max_size=4)
TAR_KINDS = [bytes([kind]) for kind in b"0123456757xgLKSV\0"]
NUMBERS = [
    value.to_bytes(width, order, signed=value < 0)
    for width in (2, 4, 8)
    for value in (0, 1, -1, 2 ** (8 * width - 1) - 1)
    for order in ("little", "big")
]
OCTAL = [b"00000000000\0", b"77777777777\0", b"00000001000\0", b"\x80" + b"\xff" * 11, b" " * 12]
MARKS = [b"PK\1\2", b"PK\3\4", b"PK\5\6", b"PK\6\6", b"PK\6\7", b"PK\7\x08", b"ustar\0" + b"00"]


def zipped(members: list[tuple[str, bytes]], draw: st.DrawFn) -> bytes:
    """Return a zip with these members, whose fields are odd now and then."""
    file = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(file, "w") as archive:
        warnings.simplefilter("ignore")  # a name that is there already
        for name, content in members:
            info = zipfile.ZipInfo("placeholder")
            info.filename = info.orig_filename = name.encode(errors="replace").decode()
            info.compress_type = draw(st.sampled_from([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED]))
            info.external_attr = draw(st.sampled_from([0, 0, 0o120777 << 16, 0o10644 << 16, 0x10]))
            info.extra = draw(st.sampled_from([b"", b"", b"\1\0\4\0abcd", b"up\6\0\1abcdx", b"\1"]))
            archive.writestr(info, content)
    return file.getvalue()


def tarred(members: list[tuple[str, bytes]], draw: st.DrawFn) -> bytes:
    """Return a tar with these members, whose kinds are odd now and then."""
    form = draw(st.sampled_from([tarfile.PAX_FORMAT, tarfile.GNU_FORMAT]))
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=form, errors="surrogateescape") as archive:
        for name, content in members:
            kind = draw(st.sampled_from([tarfile.REGTYPE, tarfile.REGTYPE, *TAR_KINDS]))
            text = name.encode(errors="replace").decode().replace("\0", "")
            info, _ = tar_member(text or "x", content, type=kind, linkname="../evil")
            archive.addfile(info, io.BytesIO(content))
    return file.getvalue()


def changed(whole: bytearray, draw: st.DrawFn) -> bytearray:
    """Set, cut, insert and repeat parts, often where a number or a mark is."""
    for _ in range(draw(st.integers(0, 4))):
        place: int = draw(st.integers(0, len(whole)))
        marks = [at for mark in MARKS if (at := whole.rfind(mark, 0, place)) >= 0]
        if draw(st.booleans()) and marks:
            place = draw(st.sampled_from(marks))
            place += draw(st.integers(0, 46))
        new = draw(st.one_of(st.sampled_from([*NUMBERS, *OCTAL, *MARKS]), st.binary(max_size=40)))
        match draw(st.sampled_from(["set", "set", "cut", "insert", "double"])):
            case "set":
                whole[place : place + len(new)] = new
            case "cut":
                del whole[place : place + draw(st.integers(1, 600))]
            case "insert":
                whole[place:place] = new
            case _:
                whole += whole[place : place + 1024]
    return whole


def with_right_sums(whole: bytearray) -> bytearray:
    """Make the sums of the headers of a tar right again, so that what they say is believed."""
    for at in range(0, len(whole) - 511, 512):
        if whole[at + 257 : at + 262] == b"ustar":
            whole[at + 148 : at + 156] = b" " * 8
            whole[at + 148 : at + 156] = b"%06o\0 " % sum(whole[at : at + 512])
    return whole


@st.composite
def archives(draw: st.DrawFn, kind: str) -> bytes:
    """Make an archive of a model, with members that nobody needs, and damage it."""
    members = [("config.yml", CONFIG.replace(b"sentiment", b"m")), *draw(MEMBERS)]
    if kind == ZIP:
        return bytes(changed(bytearray(zipped(members, draw)), draw))
    whole = changed(bytearray(tarred(members, draw)), draw)
    if draw(st.booleans()):
        whole = with_right_sums(whole)
    if kind in COMPRESSED:
        whole = bytearray(COMPRESSED[kind](bytes(whole)))
        if draw(st.booleans()):
            whole = changed(whole, draw)
    return bytes(whole)


@pytest.fixture(scope="module")
def directory() -> Iterator[Path]:
    """Return a directory that the examples share; in it is where archives are unpacked."""
    before = tempfile.tempdir
    with tempfile.TemporaryDirectory() as made:
        (Path(made) / "unpacked").mkdir()
        tempfile.tempdir = f"{made}/unpacked"
        try:
            yield Path(made)
        finally:
            tempfile.tempdir = before


@pytest.fixture(scope="module")
def initializer() -> Iterator[Initializer]:
    """Return an initializer that has seen everything, and still is at rest at the end."""
    with Initializer(registry()) as made:
        yield made
        assert at_rest(made.statistics())


@pytest.mark.parametrize("kind", KINDS)
@fuzzed
@given(data=st.data())
def test_an_archive(
    kind: str, data: st.DataObject, directory: Path, initializer: Initializer
) -> None:
    """It loads, or it is refused; either way nothing of it is left, here or elsewhere."""
    with tempfile.NamedTemporaryFile(suffix=kind, dir=directory) as archive:
        archive.write(data.draw(archives(kind)))
        archive.flush()
        fine_or_refused(lambda: initializer.init_sync(archive.name, timeout=60))
    assert [path.name for path in directory.iterdir()] == ["unpacked"]
    assert not list((directory / "unpacked").iterdir())
