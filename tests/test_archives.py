"""Reading archives that somebody else made: what is unpacked, and what is refused unwritten."""

from __future__ import annotations

import bz2
import errno
import gzip
import io
import lzma
import random
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import pytest
from made_archives import (
    CONFIG,
    FIFO,
    KINDS,
    MODEL,
    SYMLINK,
    TARS,
    both_of,
    tar_member,
    tar_of,
    write_archive,
    write_tar,
    zip_of,
)

from anyload import IntegrityError, LoadCancelled, UnsafeArchiveError
from anyload._reading.archives import Contents, is_archive, look_through, stem, unpack
from anyload._reading.members import DEEPEST, ArchiveLimits
from anyload._reading.tars import _Forward

LIMITS = ArchiveLimits()
COMPRESSED = {".tar.gz": gzip.compress, ".tar.bz2": bz2.compress, ".tar.xz": lzma.compress}
Write = Callable[[Path], Path]


def nothing() -> None:
    """Come between, and let it go on."""


def files_below(directory: Path) -> dict[str, bytes]:
    paths = [path for path in directory.rglob("*") if path.is_file()]
    return {path.relative_to(directory).as_posix(): path.read_bytes() for path in paths}


def unpacked(archive: Path, limits: ArchiveLimits = LIMITS) -> dict[str, bytes]:
    directory = archive.parent / "unpacked"
    directory.mkdir()
    unpack(str(archive), limits, str(directory), nothing)
    return files_below(directory)


@pytest.mark.parametrize("kind", KINDS)
class TestGood:
    def test_is_unpacked(self, kind: str, tmp_path: Path) -> None:
        """Every file comes out as it went in."""
        archive = write_archive(tmp_path / f"model{kind}", MODEL)
        assert look_through(str(archive), LIMITS) == Contents("", CONFIG)
        assert unpacked(archive) == MODEL

    def test_its_one_directory_may_be_the_model(self, kind: str, tmp_path: Path) -> None:
        """What tools leave beside that directory is no second one."""
        files = {f"model/{name}": content for name, content in MODEL.items()}
        beside = {"__MACOSX/._model": b"", "README": b""}
        archive = write_archive(tmp_path / f"model{kind}", {**files, **beside})
        assert look_through(str(archive), LIMITS) == Contents("model", CONFIG)

    def test_a_config_at_the_top_goes_first(self, kind: str, tmp_path: Path) -> None:
        """A config.yml in a directory is then one of the model's files."""
        files = {"a/config.yml": b"module_id: other\n", "config.yml": CONFIG}
        archive = write_archive(tmp_path / f"model{kind}", files)
        assert look_through(str(archive), LIMITS) == Contents("", CONFIG)

    def test_has_a_config(self, kind: str, tmp_path: Path) -> None:
        """Not where there are two directories, nor deeper."""
        for number, names in enumerate((["a/config.yml", "b/x"], ["a/b/config.yml"], ["x"], [])):
            path = tmp_path / f"{number}{kind}"
            archive = write_archive(path, dict.fromkeys(names, CONFIG))
            with pytest.raises(IntegrityError, match=r"no config\.yml at its top or in the one"):
                look_through(str(archive), LIMITS)

    def test_a_name_in_capitals(self, kind: str, tmp_path: Path) -> None:
        """Is an archive's too, and what it is called has no ending."""
        path = str(tmp_path / f"Model{kind.upper()}")
        assert is_archive(path)
        assert stem(path) == "Model"
        assert stem(kind) == "model"

    def test_cut_short_anywhere(self, kind: str, tmp_path: Path) -> None:
        """It is a broken archive, whatever Python's readers say; a tar may lack its last block."""
        whole = write_archive(tmp_path / f"whole{kind}", MODEL).read_bytes()
        archive = tmp_path / f"model{kind}"
        paths = []
        for size in (*range(0, len(whole), max(1, len(whole) // 60)), len(whole) - 1):
            archive.write_bytes(whole[:size])
            try:
                look_through(str(archive), LIMITS)
                (tmp_path / str(size)).mkdir()
                unpack(str(archive), LIMITS, str(tmp_path / str(size)), nothing)
            except IntegrityError as error:
                paths.append(error.path)
            else:
                assert kind == ".tar"
                assert files_below(tmp_path / str(size)) == MODEL
        assert set(paths) == {str(archive)}

    def test_is_another_file(self, kind: str, tmp_path: Path) -> None:
        """What is no archive of its kind is broken."""
        archive = tmp_path / f"model{kind}"
        archive.write_bytes(b"GGUF" * 500)
        with pytest.raises(IntegrityError, match=r"a broken archive|no config\.yml"):
            look_through(str(archive), LIMITS)

    def test_a_config_that_is_too_long(self, kind: str, tmp_path: Path) -> None:
        """It is not read into memory."""
        archive = write_archive(tmp_path / f"model{kind}", {"config.yml": b"#" * 1_048_577})
        with pytest.raises(IntegrityError, match="has 1048577 bytes: at most 1048576"):
            look_through(str(archive), ArchiveLimits(max_ratio=10_000))

    def test_limits(self, kind: str, tmp_path: Path) -> None:
        """Too many members, too many bytes, or too many for the size of the archive."""
        files = {**MODEL, "zeros": b"\0" * 3_000_000}
        archive = str(write_archive(tmp_path / f"model{kind}", files))
        for limits, what in (
            (ArchiveLimits(max_files=3), "'zeros' is one too many: at most 3, max_files"),
            (ArchiveLimits(max_bytes=2_999_999), "3000028 bytes: at most 2999999, max_bytes"),
            (ArchiveLimits(max_ratio=1), "packed ones: at most 1 for one, max_ratio"),
        ):
            if kind == ".tar" and limits.max_ratio == 1:
                continue  # it is not compressed
            with pytest.raises(UnsafeArchiveError, match=what):
                look_through(archive, limits)
        look_through(archive, ArchiveLimits(max_ratio=10**6))

    def test_is_broken_off(self, kind: str, tmp_path: Path) -> None:
        """What comes between the members can end it."""
        archive = write_archive(tmp_path / f"model{kind}", MODEL)

        def cancelled() -> None:
            raise LoadCancelled

        with pytest.raises(LoadCancelled):
            look_through(str(archive), LIMITS, cancelled)
        (tmp_path / "unpacked").mkdir()
        with pytest.raises(LoadCancelled):
            unpack(str(archive), LIMITS, str(tmp_path / "unpacked"), cancelled)

    def test_a_directory_that_cannot_be_written_to(self, kind: str, tmp_path: Path) -> None:
        """That is no fault of the archive's."""
        archive = write_archive(tmp_path / f"model{kind}", MODEL)
        with pytest.raises(OSError, match=r"No such file or directory|Not a directory"):
            unpack(str(archive), LIMITS, "/dev/null/x", nothing)


@pytest.mark.parametrize("kind", TARS)
def test_a_tar_of_a_directory(kind: str, tmp_path: Path) -> None:
    """What ``tar -C model .`` writes, directories too, and files that fill their blocks."""
    blocks = {f"part-{number}": bytes([number]) * 8192 for number in range(4)}
    members = [tar_member(name) for name in ("./", "./empty/", "./weights/")]
    members += [tar_member(f"./weights/{name}", content) for name, content in blocks.items()]
    members.append(tar_member("./config.yml", CONFIG))
    archive = write_tar(tmp_path / f"model{kind}", members)
    assert look_through(str(archive), LIMITS) == Contents("", CONFIG)
    files = {f"weights/{name}": content for name, content in blocks.items()}
    assert unpacked(archive) == {**files, "config.yml": CONFIG}
    assert (tmp_path / "unpacked" / "empty").is_dir()


def tarred(files: dict[str, bytes]) -> bytes:
    """Return a tar of these files, not compressed."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for name, content in files.items():
            info, _ = tar_member(name, content)
            archive.addfile(info, io.BytesIO(content))
    return file.getvalue()


@pytest.mark.parametrize(("kind", "compress"), COMPRESSED.items())
class TestCompressed:
    def test_is_read_to_its_end(
        self, kind: str, compress: Callable[[bytes], bytes], tmp_path: Path
    ) -> None:
        """Of the sums at its end not a byte may be missing, though all of the tar is there."""
        whole = compress(tarred(MODEL))
        archive = tmp_path / f"model{kind}"
        for less in range(1, 9):
            archive.write_bytes(whole[:-less])
            with pytest.raises(IntegrityError, match="broken archive: EOFError: it is cut short"):
                look_through(str(archive), LIMITS)

    def test_what_is_behind_it(
        self, kind: str, compress: Callable[[bytes], bytes], tmp_path: Path
    ) -> None:
        """Zeros are padding, and another stream goes on with it; anything else is damage."""
        tar = tarred(MODEL)
        archive = tmp_path / f"model{kind}"
        half, rest = compress(tar[:700]), compress(tar[700:])
        for good in (
            half + rest + bytes(300_000),
            half + bytes(512) + rest,
            half + bytes(512) + compress(b"") + rest,
        ):
            archive.write_bytes(good)
            assert look_through(str(archive), LIMITS) == Contents("", CONFIG)
        for bad in (half + rest + b"junk" * 20, half + rest + bytes(512) + b"\x1f"):
            archive.write_bytes(bad)
            with pytest.raises(IntegrityError, match="a broken archive"):
                look_through(str(archive), LIMITS)

    def test_what_is_behind_the_tar_in_it(
        self, kind: str, compress: Callable[[bytes], bytes], tmp_path: Path
    ) -> None:
        """It may be filled up; much more than that is none of the tar's."""
        archive = tmp_path / f"model{kind}"
        archive.write_bytes(compress(tarred(MODEL) + bytes(1_000_000)))
        assert unpacked(archive) == MODEL
        archive.write_bytes(compress(tarred(MODEL) + bytes(2_000_000)))
        with pytest.raises(IntegrityError, match="it goes on behind its end"):
            look_through(str(archive), LIMITS)

    def test_is_broken_off_within_a_member(
        self, kind: str, compress: Callable[[bytes], bytes], tmp_path: Path
    ) -> None:
        """One that is large is gone over in steps."""
        archive = tmp_path / f"model{kind}"
        archive.write_bytes(compress(tarred({**MODEL, "zeros": bytes(8_000_000)})))
        times = 0

        def cancelled() -> None:
            nonlocal times
            times += 1
            if times == 20:
                raise LoadCancelled

        with pytest.raises(LoadCancelled):
            look_through(str(archive), ArchiveLimits(max_ratio=10**6), cancelled)


def test_a_tar_whose_content_is_damaged(tmp_path: Path) -> None:
    """The sum of what packs it is compared, also where its packing would unpack to anything."""
    packed = bytearray(gzip.compress(tarred(MODEL), 0))
    where = packed.rindex(b"weights")  # what the member holds
    packed[where : where + 7] = b"WEIGHTS"
    archive = tmp_path / "model.tar.gz"
    archive.write_bytes(packed)
    (tmp_path / "unpacked").mkdir()
    with pytest.raises(IntegrityError, match="incorrect data check"):
        unpack(str(archive), LIMITS, str(tmp_path / "unpacked"), nothing)


def test_a_tar_that_is_packed_well(tmp_path: Path) -> None:
    """Much of the same, behind what hardly gets smaller, is within the limits: so it loads."""
    archive = tmp_path / "model.tar.gz"
    zeros = bytes(1_000_000)
    with tarfile.open(archive, "w:gz", compresslevel=6) as file:
        for name, content in (
            ("config.yml", CONFIG),
            ("random", random.Random(1).randbytes(1_000_000)),
            *((f"zeros-{number}", zeros) for number in range(180)),
        ):
            info, _ = tar_member(name, content)
            file.addfile(info, io.BytesIO(content))
    assert look_through(str(archive), LIMITS) == Contents("", CONFIG)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["", ".", ".."])
def test_a_name_that_would_lead_elsewhere(name: str, kind: str) -> None:
    """An archive that is called so is unpacked under another name."""
    assert stem(f"/models/{name}{kind}") == "model"
    assert stem(f"/models/...{kind}") == "..."


def test_a_zip_of_a_directory(tmp_path: Path) -> None:
    """What ``zip -r`` writes, directories too."""
    files = {"weights/": b"", "empty/": b"", **MODEL}
    archive = write_archive(tmp_path / "model.zip", files)
    assert look_through(str(archive), LIMITS) == Contents("", CONFIG)
    assert unpacked(archive) == MODEL
    assert (tmp_path / "unpacked" / "empty").is_dir()


def test_a_tar_is_read_from_front_to_back() -> None:
    """No header leads back, where a decompressor would begin anew, for ever."""
    forward = _Forward(io.BytesIO(bytes(3000)))
    forward.read(1000)
    forward.seek(500)
    with pytest.raises(ValueError, match="backwards"):
        forward.read(512)


NAMES: dict[str, tuple[str, ...]] = {
    "leaves the archive's directory": ("../evil",),
    "leaves the archive's": ("weights/../../evil",),
    "leaves the": ("..",),
    "an absolute name": ("/etc/passwd",),
    "a backslash or a colon": ("..\\evil",),
    "a backslash or a": ("C:evil",),
    "cannot be printed": ("a\nb",),
    "cannot be": ("a\x1b[2Jb",),
    "an empty segment": ("a//b",),
    "empty segment": ("a/./b",),
    "ends in a dot or a space": ("config.yml.",),
    "ends in a dot or": ("a /b",),
    f"too deep: more than {DEEPEST} segments": ("/".join("a" * (DEEPEST + 1)),),
    "more than 255 bytes": ("\N{GREEK SMALL LETTER ALPHA}" * 128,),
    "a name of more than 2048 bytes": ("/".join(["a" * 200] * 11),),
    "is there twice": ("a", "a"),
    "is there": ("config.yml",),
    "in case or accents only": ("Weights", "weights"),
    "in case or accents": ("\N{LATIN SMALL LETTER E WITH ACUTE}", "e\N{COMBINING ACUTE ACCENT}"),
    "in case or": ("A/b", "a/c"),
    "makes 'a' a file and a directory": ("a", "a/b"),
    "a file and a directory": ("a/b", "a"),
}

BAD: dict[str, tuple[str, str, Write]] = {
    **{
        f"{kind}, {', '.join(names)[:30]!a}": (kind, what, write)
        for what, names in NAMES.items()
        for kind, write in both_of(*names).items()
    },
    "zip, link": (".zip", "neither a file nor a directory", zip_of(external_attr=SYMLINK)),
    "zip, FIFO": (".zip", "neither a file nor a directory", zip_of(external_attr=FIFO)),
    "zip, encrypted": (".zip", "is encrypted", zip_of(flag_bits=1)),
    "zip, AES": (".zip", "compressed by method 99", zip_of(compress_type=99)),
    "zip, bzip2": (
        ".zip",
        "compressed by bzip2: only stored and deflated ones are read",
        zip_of(compress_type=zipfile.ZIP_BZIP2),
    ),
    "zip, LZMA": (".zip", "compressed by LZMA", zip_of(compress_type=zipfile.ZIP_LZMA)),
    "zip, NUL": (".zip", "cannot be printed", both_of("config.yml\0.txt")[".zip"]),
    "zip, empty name": (".zip", "an empty segment", both_of("")[".zip"]),
    "tar, link": (".tar", "neither", tar_of("evil", type=tarfile.SYMTYPE, linkname="/etc")),
    "tar, hard link": (
        ".tar",
        "neither",
        tar_of("evil", type=tarfile.LNKTYPE, linkname="config.yml"),
    ),
    "tar, FIFO": (".tar", "neither a file nor a directory", tar_of("evil", type=tarfile.FIFOTYPE)),
    "tar, device": (".tar", "neither a file nor a directory", tar_of("evil", type=tarfile.CHRTYPE)),
    "tar, unknown": (".tar", "neither a file nor a directory", tar_of("evil", type=b"Z")),
    "tar, sparse": (
        ".tar",
        "neither a file nor a directory",
        tar_of("evil", pax_headers={"GNU.sparse.map": "0,1", "GNU.sparse.size": "9" * 12}),
    ),
    "tar, not UTF-8": (".tar", "cannot be printed", tar_of("\udcff")),
}


@pytest.mark.filterwarnings("ignore:Duplicate name:UserWarning")
@pytest.mark.parametrize("case", BAD)
def test_a_member_that_must_not_be_extracted(case: str, tmp_path: Path) -> None:
    """It is named, and nothing at all is written, by either pass."""
    kind, what, write = BAD[case]
    archive = write(tmp_path / f"model{kind}")
    with pytest.raises(UnsafeArchiveError, match=what) as caught:
        look_through(str(archive), LIMITS)
    assert caught.value.archive == str(archive)
    (tmp_path / "in" / "side").mkdir(parents=True)
    with pytest.raises(UnsafeArchiveError, match=what):
        unpack(str(archive), LIMITS, str(tmp_path / "in" / "side"), nothing)
    written = {path.name for path in (tmp_path / "in").rglob("*") if path.is_file()}
    assert written <= {
        "config.yml",
        "a",
        "b",
        "weights",
        "Weights",
        "\N{LATIN SMALL LETTER E WITH ACUTE}",
    }
    assert {path.name for path in tmp_path.iterdir()} == {archive.name, "in"}


@pytest.mark.parametrize("raised", [MemoryError(), OSError(errno.EIO, "Input/output error")])
def test_what_the_machine_lacks_is_no_fault_of_the_archive(
    raised: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is unreadable then, which may pass, and not broken."""

    def members(*args: object) -> NoReturn:
        raise raised

    archive = write_archive(tmp_path / "model.zip", MODEL)
    monkeypatch.setattr("anyload._reading.archives.zip_members", members)
    with pytest.raises(IntegrityError, match=f"unreadable: {type(raised).__name__}") as caught:
        look_through(str(archive), LIMITS)
    assert caught.value.__cause__ is raised
