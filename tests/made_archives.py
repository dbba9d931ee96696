"""Archives for tests: good ones, and ones that nobody should unpack."""

from __future__ import annotations

import io
import stat
import tarfile
import zipfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

CONFIG = b"module_id: sentiment\n"
MODEL = {"config.yml": CONFIG, "weights/part.bin": b"weights"}
ZIP, TARS = ".zip", (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")
KINDS = (ZIP, *TARS)

Files = Mapping[str, bytes]


def write_archive(path: Path, files: Files) -> Path:
    """Write files into an archive of the kind that its name says; their order is kept."""
    if path.suffix == ZIP:
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in files.items():
                archive.writestr(name, content)
        return path
    return write_tar(path, [tar_member(name, content) for name, content in files.items()])


def write_tar(
    path: Path, members: Iterable[tuple[tarfile.TarInfo, bytes]], form: int = tarfile.PAX_FORMAT
) -> Path:
    """Write a tar archive of these members, compressed as its name says."""
    name = path.name.replace(".tgz", ".gz").replace(".tbz2", ".bz2").replace(".txz", ".xz")
    compression = name.rpartition(".")[2]
    mode = "w" if compression == "tar" else f"w:{compression}"
    with tarfile.open(path, mode, format=form) as archive:  # type: ignore[call-overload]
        for info, content in members:
            archive.addfile(info, io.BytesIO(content))
    return path


def tar_member(
    name: str, content: bytes = b"", **attributes: object
) -> tuple[tarfile.TarInfo, bytes]:
    """Return a member of a tar archive; a name that ends in a slash is a directory's."""
    info = tarfile.TarInfo(name)
    info.size = len(content)
    if name.endswith("/"):
        info.type = tarfile.DIRTYPE
    for attribute, value in attributes.items():
        setattr(info, attribute, value)
    return info, content


def zip_of(**changes: object) -> Callable[[Path], Path]:
    """Return what writes a zip whose one other member has these attributes."""

    def write(path: Path) -> Path:
        info = zipfile.ZipInfo("evil")
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("config.yml", CONFIG)
            archive.writestr(info, b"evil")
            for attribute, value in changes.items():
                setattr(info, attribute, value)
        return path

    return write


def tar_of(name: str, content: bytes = b"", **attributes: object) -> Callable[[Path], Path]:
    """Return what writes a tar with one other member."""

    def write(path: Path) -> Path:
        member = tar_member(name, content, **attributes)
        return write_tar(path, [tar_member("config.yml", CONFIG), member])

    return write


def both_of(*names: str) -> dict[str, Callable[[Path], Path]]:
    """Return what writes a zip, and a tar, with members of these names."""

    def write(path: Path) -> Path:
        if path.suffix != ZIP:
            members = [tar_member(name) for name in names]
            return write_tar(path, [tar_member("config.yml", CONFIG), *members])
        with zipfile.ZipFile(path, "w") as archive:
            for name in ("config.yml", *names):
                info = zipfile.ZipInfo("placeholder")
                info.filename = info.orig_filename = name
                archive.writestr(info, CONFIG if name == "config.yml" else b"")
        return path

    return {".zip": write, ".tar": write}


SYMLINK = (stat.S_IFLNK | 0o777) << 16
FIFO = (stat.S_IFIFO | 0o644) << 16
