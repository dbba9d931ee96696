"""A model's files, made fit for its load: permitted, unpacked, as their manifest says."""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from .._reading.archives import stem, unpack
from .._reading.manifests import Stamp, check_manifest, check_unchanged, manifest_path
from .._reading.members import ArchiveLimits
from .._reading.trees import files_of
from ..errors import IntegrityError
from ..model_config import ModelConfig
from .call import check_cancelled


@dataclass(frozen=True)
class Care:
    """What an operator wants done with a model's files before its module sees them.

    Args:
        manifests: whether a manifest is checked where there is one, has to be there, or is not
            looked for.
        strict: whether files that everybody may write to are refused.
        limits: how much an archive may hold.
        unpack_directory: where archives are unpacked; None for the system's place for such things.
    """

    manifests: str = "check"
    strict: bool = False
    limits: ArchiveLimits = field(default_factory=ArchiveLimits)
    unpack_directory: str | None = None

    @property
    def none(self) -> bool:
        """Whether nothing is to be done for what is no archive."""
        return self.manifests == "off" and not self.strict


class PlainFiles:
    """A directory or a file, where it is.

    Args:
        care: what is to be done with it.
        read: what of it has been read before, and what that was then.
    """

    in_place = True

    def __init__(self, care: Care, read: Mapping[str, Stamp]) -> None:
        self._care = care
        self._read = read

    @contextmanager
    def opened(
        self, config: ModelConfig, between: Callable[[], object] | None = None
    ) -> Iterator[ModelConfig]:
        """Yield the config once its files are found to be fit; for the time of the load.

        It reads all of them where there is a manifest, and looks at them again afterwards.

        Args:
            config: what is known of the model.
            between: called from time to time, what it raises ends this; by default it is asked
                whether the load that this belongs to is still wanted.

        Raises:
            IntegrityError: they are not, or they were changed meanwhile.
            LoadCancelled: the load is no longer wanted.
        """
        model = os.fspath(config)
        between = between or check_cancelled
        if self._care.strict:
            require_private(model, between)
        stamps = _compared(model, self._care.manifests, self._read, between)
        yield config
        check_unchanged(stamps)


class PackedFiles:
    """An archive, unpacked into a directory of its own for each load.

    It may have a manifest beside it, inside, or both; where one is required, either will do.

    Args:
        care: what is to be done with it.
        base: the directory in it that is the model's.
        read: what it was when it was looked through.
    """

    in_place = False

    def __init__(self, care: Care, base: str, read: Mapping[str, Stamp]) -> None:
        self._care = care
        self._base = base
        self._read = read

    @contextmanager
    def opened(
        self, config: ModelConfig, between: Callable[[], object] | None = None
    ) -> Iterator[ModelConfig]:
        """Yield the config of the unpacked model; the directory is gone afterwards.

        It belongs to the thread, which removes it when it really leaves the load, also if nobody
        waits for that any more.

        Args:
            config: what is known of the model.
            between: as in `PlainFiles.opened`.

        Raises:
            UnsafeArchiveError: the archive is another one than was looked through.
            IntegrityError: likewise; or as in `PlainFiles.opened`.
            OSError: it could not be written.
            LoadCancelled: the load is no longer wanted.
        """
        archive = os.fspath(config)
        between = between or check_cancelled
        if self._care.strict:
            require_private(archive, between)
        beside = "off" if self._care.manifests == "off" else "check"
        stamps = _compared(archive, beside, self._read, between)
        care = replace(self._care, manifests=beside) if stamps else self._care
        # Nobody else may enter it. No finalizer removes it, as one of TemporaryDirectory would: a
        # forked child would run that too, while the load goes on in its parent.
        made = tempfile.mkdtemp(prefix="anyload-", dir=self._care.unpack_directory)
        directory = os.path.realpath(made)
        try:
            # Under its name only once it is whole: what is left behind by a process that was
            # killed is not taken for a model.
            unfinished = os.path.join(directory, "unfinished")
            finished = os.path.join(directory, stem(archive))
            os.mkdir(unfinished)
            unpack(archive, self._care.limits, unfinished, between)
            check_unchanged(stamps)
            os.rename(unfinished, finished)
            model = config.at(os.path.normpath(os.path.join(finished, self._base)))
            with _naming(archive, finished), PlainFiles(care, {}).opened(model, between) as fit:
                yield fit
        finally:
            shutil.rmtree(directory, ignore_errors=True)


def _compared(
    model: str, manifests: str, read: Mapping[str, Stamp], between: Callable[[], object]
) -> dict[str, Stamp]:
    """Compare a model with its manifest, and return what each of its files was then."""
    manifest = manifest_path(model)
    if manifests != "off" and os.path.lexists(manifest):
        stamps = check_manifest(model, manifest, between)
        check_unchanged(read)
        return stamps
    if manifests == "require":
        raise IntegrityError(manifest, "the model has no manifest, and one is required")
    return {}


@contextmanager
def _naming(archive: str, directory: str) -> Iterator[None]:
    """Say of what was unpacked where in the archive it is: its directory is soon gone."""
    try:
        yield
    except IntegrityError as error:
        if not error.path.startswith(directory + os.sep):
            raise
        path = archive + error.path.removeprefix(directory)
        raise IntegrityError(path, error.reason) from error.__cause__


def require_private(model: str, between: Callable[[], object]) -> None:
    """Raise for a model that everybody may change: it, what is in it, or a directory above it.

    Who may write to a directory can put another file where one was; but not in a directory like
    ``/tmp``, whose sticky bit keeps that to the owner.

    Args:
        model: a directory, or an archive.
        between: called for each file and directory; what it raises ends this.

    Raises:
        IntegrityError: naming the first such file or directory.
    """
    if os.name == "nt":  # pragma: no cover  # modes say nothing there
        return
    real = Path(os.path.realpath(model))
    inside = files_of(str(real), "", between).values() if real.is_dir() else ()
    directories = {Path(path).parent for path in inside}
    for path in (*real.parents, real, *sorted(directories), *map(Path, inside)):
        between()
        try:
            mode = path.stat().st_mode
        except OSError as error:
            raise IntegrityError(str(path), f"unreadable: {error.strerror}") from error
        sticky = stat.S_ISDIR(mode) and mode & stat.S_ISVTX
        if mode & stat.S_IWOTH and not sticky:
            what = f"an insecure path: everybody may write to it (mode {stat.S_IMODE(mode):o})"
            raise IntegrityError(str(path), what)
