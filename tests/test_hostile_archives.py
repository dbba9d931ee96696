"""Archives that are made to keep a reader busy, or to crash it: each is refused within a second."""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import socket
import struct
import tarfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from made_archives import CONFIG, MODEL, tar_member, write_archive

from anyload import IntegrityError, LoadCancelled, UnsafeArchiveError
from anyload._reading.archives import look_through, unpack
from anyload._reading.members import ArchiveLimits

SECOND = 1.0
BLOCK = tarfile.BLOCKSIZE
END = bytes(2 * BLOCK)


def header(name: str, size: int, kind: bytes) -> bytes:
    """Return the header of a member, which may be one that `tarfile` itself would not write."""
    info, _ = tar_member(name, type=kind)
    raw = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    raw[124:136] = number(size)
    raw[148:156] = b"        "
    raw[148:156] = b"%06o\0 " % sum(raw)
    return bytes(raw)


def number(value: int) -> bytes:
    """Return a number as a header has it: in octal digits, or in base 256."""
    if 0 <= value < 8**11:
        return b"%011o\0" % value
    return (b"\x80" if value > 0 else b"\xff") + (value % 256**11).to_bytes(11, "big")


def blocks(content: bytes) -> bytes:
    return content + bytes(-len(content) % BLOCK)


def member(name: str, content: bytes, kind: bytes = tarfile.REGTYPE) -> bytes:
    return header(name, len(content), kind) + blocks(content)


CONFIG_MEMBER = member("config.yml", CONFIG)
PAX, LONG = tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME


def pax(*records: tuple[str, str]) -> bytes:
    """Return an extended header."""
    content = b""
    for key, value in records:
        text = f" {key}={value}\n".encode()
        length = len(text)
        while len(str(length)) + len(text) != length:
            length = len(str(length)) + len(text)
        content += str(length).encode() + text
    return member("pax", content, PAX)


def sparse_map() -> bytes:
    """Return a member whose map of holes, in its content, never ends."""
    fields = [("GNU.sparse.major", "1"), ("GNU.sparse.minor", "0"), ("GNU.sparse.name", "x")]
    return (
        pax(*fields, ("GNU.sparse.realsize", "1")) + header("x", 10**6, tarfile.REGTYPE) + b"9" * 9
    )


TARS: dict[str, bytes] = {
    "a size below nothing": header("x", -BLOCK, tarfile.REGTYPE) * 3,
    "a long name of a size below nothing": header("x", -BLOCK, LONG) * 3,
    "an extended header of a size below nothing": header("x", -2 * BLOCK, PAX) * 3,
    "an unknown kind of a size below nothing": header("x", -2 * BLOCK, b"Z") * 3,
    "a size beyond all": header("x", 256**10, tarfile.REGTYPE),
    "a long name of a terabyte": header("x", 10**12, LONG),
    "a long name of many megabytes": header("x", 10**7, LONG) + bytes(10**7),
    "headers on headers": pax(("comment", "x")) * 5000,
    "long names on long names": member("x", b"name", LONG) * 5000,
    "a header of digits": header("pax", 10**6, PAX) + b"1" * 10**6,
    "a short header of digits": member("pax", b"1" * 16_000, PAX) * 3,
    "many lines in many headers": member("pax", b"7 a=bc\n" * 2300, PAX) * 9,
    "a line that is read again and again": member("pax", b"2 " * 7500 + b"a=", PAX) * 3,
    "a line that ends in its name": member("pax", b"5 a\n\n6 b=c\n", PAX),
    "a line without its end": member("pax", b"6 a=bc\n", PAX),
    "a line of no length": member("pax", b"0" * 60 + b"1 a=\n", PAX),
    "a size in an extended header": pax(("size", "-1024")) + CONFIG_MEMBER,
    "a size that is none": pax(("size", "x")) + CONFIG_MEMBER,
    "a size of 5000 digits": pax(("size", "9" * 5000)) + CONFIG_MEMBER,
    "a time of 400 digits": pax(("mtime", "9" * 400)) + CONFIG_MEMBER,
    "a map of holes without an end": sparse_map(),
    "holes in holes": header("x", 1, tarfile.GNUTYPE_SPARSE) + (b"\xff" * BLOCK) * 5000,
    "a global header that names a member": member("g", b"14 path=../x\n", tarfile.XGLTYPE)
    + CONFIG_MEMBER,
    "no header": b"\xff" * BLOCK,
    "many directories": b"".join(
        member(f"{number}/" + "d/" * 30, b"", tarfile.DIRTYPE) for number in range(400)
    ),
    "the same directory again and again": member("./", b"", tarfile.DIRTYPE) * 10_001,
    "many members": b"".join(member(str(number), b"") for number in range(10_001)),
}


@pytest.fixture(params=[None, gzip.compress, bz2.compress, lzma.compress], ids=str)
def compressed(request: pytest.FixtureRequest) -> Callable[[bytes], tuple[str, bytes]]:
    """Return a tar archive's kind and content."""
    compress = request.param
    kinds = {None: ".tar", gzip.compress: ".tgz", bz2.compress: ".tbz2", lzma.compress: ".txz"}
    return lambda content: (kinds[compress], compress(content) if compress else content)


def refused(archive: Path) -> IntegrityError | UnsafeArchiveError:
    """Return the error of an archive, which comes soon."""
    began = time.perf_counter()
    with pytest.raises((IntegrityError, UnsafeArchiveError)) as caught:
        look_through(str(archive), ArchiveLimits())
    assert time.perf_counter() - began < SECOND * 3  # three, as this may be a busy machine
    assert isinstance(caught.value, IntegrityError | UnsafeArchiveError)
    return caught.value


@pytest.mark.parametrize("case", TARS)
def test_a_tar(case: str, compressed: Callable[[bytes], tuple[str, bytes]], tmp_path: Path) -> None:
    """It is refused, whatever `tarfile` would make of it, first or last."""
    for place, content in enumerate((TARS[case] + CONFIG_MEMBER, CONFIG_MEMBER + TARS[case])):
        kind, packed = compressed(content + END)
        archive = tmp_path / f"{place}{kind}"
        archive.write_bytes(packed)
        refused(archive)


def test_a_tar_of_one_enormous_hole(tmp_path: Path) -> None:
    """Zeros without an end, behind one header: what is promised is weighed, not what is there."""
    archive = tmp_path / "model.tar.gz"
    with gzip.open(archive, "wb") as file:
        file.write(CONFIG_MEMBER + header("zeros", 10**8, tarfile.REGTYPE))
        for _ in range(100):
            file.write(bytes(10**6))
        file.write(END)
    assert "max_ratio" in str(refused(archive))


def entries(count: int, extra: bytes = b"") -> bytes:
    """Return the table of contents of a zip archive that has nothing else."""
    entry = struct.pack("<4s4B4H3L5H2L", b"PK\1\2", 20, 0, 20, 0, *[0] * 14) + b"x" + extra
    entry = entry[:28] + struct.pack("<2H", 1, len(extra)) + entry[32:]
    table = entry * count
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 0xFFFF, 0xFFFF, len(table), 0, 0)
    return table + end


def zipped(level: int = 9) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=level) as archive:
            archive.writestr("config.yml", CONFIG)
            archive.writestr("zeros", bytes(30_000_000))

    return write


def overlapping(path: Path) -> None:
    """Write many members that are all the same bytes."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("config.yml", CONFIG)
        archive.writestr("0", bytes(1_000_000))
        shared = archive.infolist()[-1]
        for number in range(1, 1000):
            info = zipfile.ZipInfo(str(number))
            info.compress_type = shared.compress_type
            for name in ("header_offset", "CRC", "compress_size", "file_size"):
                setattr(info, name, getattr(shared, name))
            archive.filelist.append(info)


ZIPS: dict[str, tuple[str, Callable[[Path], object]]] = {
    "a bomb": ("max_ratio", zipped()),
    "overlapping members": ("max_ratio", overlapping),
    "340,000 entries": (
        "member 'x' is one too many: at most 10000, max_files",
        lambda path: path.write_bytes(entries(340_000)),
    ),
    "400,000 entries": ("at most 16777216", lambda path: path.write_bytes(entries(400_000))),
    "a million extra fields": (
        "its table of contents has 4258800 bytes of extra fields: at most 1048576",
        lambda path: path.write_bytes(entries(65, struct.pack("<2H", 0xCAFE, 0) * 16_380)),
    ),
    "no entries but a table of a gigabyte": (
        "broken",
        lambda path: path.write_bytes(entries(1)[:-10] + struct.pack("<2LH", 2**30, 0, 0)),
    ),
}


@pytest.mark.parametrize("case", ZIPS)
def test_a_zip(case: str, tmp_path: Path) -> None:
    """It is refused before much of it is read."""
    what, write = ZIPS[case]
    write(tmp_path / "model.zip")
    assert what in str(refused(tmp_path / "model.zip"))


@pytest.mark.parametrize(
    ("kind", "packed", "what"),
    [
        (".tgz", gzip.compress(b"") * 200_000, "packed in too many pieces"),
        (".tbz2", bz2.compress(b"") * 200_000, "packed in too many pieces"),
        (".txz", lzma.compress(b"") * 100_000, "packed in too many pieces"),
        (".tgz", gzip.compress(b"x" * 1000) * 50_000, "broken"),
        (".tgz", gzip.compress(b"")[:10] + b"\0\0\0\xff\xff" * 6_000_000, "cut short"),
        (".tgz", b"\x1f\x8b\x08\x08\0\0\0\0\0\xff" + b"x" * 30_000_000, "cut short"),
        (
            ".tgz",
            gzip.compress(b"") + b"\x1f\x8b\x08\x10\0\0\0\0\0\xff" + b"x" * 30_000_000,
            "cut short",
        ),
    ],
    ids=["gzip", "bzip2", "xz", "of little", "empty blocks", "a name", "a comment"],
)
def test_a_tar_in_very_many_pieces(kind: str, packed: bytes, what: str, tmp_path: Path) -> None:
    """What packs it, and unpacks to nothing or little, is not read for long."""
    archive = tmp_path / f"model{kind}"
    archive.write_bytes(packed)
    assert what in str(refused(archive))


def test_a_zip_of_what_unpacks_to_nothing(tmp_path: Path) -> None:
    """It can be broken off before its end, though nothing comes of it."""
    archive, nothing = tmp_path / "model.zip", b"\0\0\0\xff\xff" * 2_000_000
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("config.yml", nothing)
        file.infolist()[0].compress_type = zipfile.ZIP_DEFLATED
        file.infolist()[0].file_size = 20
    times = 0

    def cancelled() -> None:
        nonlocal times
        times += 1
        if times == 10:
            raise LoadCancelled

    with pytest.raises(LoadCancelled):
        look_through(str(archive), ArchiveLimits(), cancelled)


def test_a_tar_of_as_much_as_there_may_be(tmp_path: Path) -> None:
    """Headers of the usual length are none too many, whatever is in their names."""
    archive = tmp_path / "model.tar.gz"
    usual = pax(*((f"SCHILY.xattr.user.{letter}", "x" * 100) for letter in "abcdef"))
    long_name = member("long", b"x" * 156 + tarfile.XHDTYPE, LONG)
    with gzip.open(archive, "wb", compresslevel=1) as file:
        file.write(CONFIG_MEMBER)
        for number in range(9_000):
            file.write((long_name if number == 0 else usual) + member(f"{number}", b""))
        file.write(END)
    assert look_through(str(archive), ArchiveLimits()).config == CONFIG


def test_a_zip_of_zips(tmp_path: Path) -> None:
    """The table of contents of a member is not the archive's."""
    archive = tmp_path / "model.zip"
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("config.yml", CONFIG)
        file.writestr("more.zip", entries(20))
    (tmp_path / "unpacked").mkdir()
    unpack(str(archive), ArchiveLimits(max_files=2), str(tmp_path / "unpacked"), lambda: None)
    assert (tmp_path / "unpacked" / "more.zip").read_bytes() == entries(20)


def test_a_zip_that_is_shorter_than_it_says(tmp_path: Path) -> None:
    """What it promised of a member and does not hold is missed when it is unpacked."""
    archive = write_archive(tmp_path / "model.zip", MODEL)
    raw = archive.read_bytes()
    where = raw.rindex(b"PK\1\2") + 24  # the size of the last entry
    archive.write_bytes(raw[:where] + struct.pack("<L", 1000) + raw[where + 4 :])
    look_through(str(archive), ArchiveLimits())
    (tmp_path / "unpacked").mkdir()
    with pytest.raises(IntegrityError, match=r"weights/part\.bin is cut short|broken archive"):
        unpack(str(archive), ArchiveLimits(), str(tmp_path / "unpacked"), lambda: None)


def test_what_is_no_file(tmp_path: Path) -> None:
    """It is refused at once: opening a FIFO would wait for ever."""
    fifo, listening = tmp_path / "fifo.zip", tmp_path / "socket.tar"
    os.mkfifo(fifo)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(listening))
        for path in (fifo, listening):
            assert "not a regular file" in str(refused(path))
    assert "not found" in str(refused(tmp_path / "gone.zip"))
