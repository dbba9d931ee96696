"""A model's files before its load: archives unpacked, manifests compared, paths found private."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from anyio import create_task_group
from calls import GPU_THEN_LOCAL, Calls, does, error_of
from made_archives import CONFIG, KINDS, MODEL, write_archive
from scenes import LIMIT, Caller, let_pass, registry_of, registry_of_two

from anyload import (
    ConfigError,
    Initializer,
    IntegrityError,
    LoadCancelled,
    LoadError,
    ModelConfig,
    ModelNotFoundError,
    UnsafeArchiveError,
    check_cancelled,
)
from anyload._reading.archives import Contents, look_through, unpack
from anyload._reading.members import ArchiveLimits
from anyload.testing import FakeModel, Gate, at_rest, settled, until, waits_at


class Reading(FakeModel):
    """A model that holds what its files held when it was loaded."""

    held: dict[str, bytes]
    place: str

    @classmethod
    def load(cls, config: ModelConfig, **kwargs: Any) -> Reading:
        model = cls(config, kwargs)
        root = Path(config)
        paths = [root] if root.is_file() else [one for one in root.rglob("*") if one.is_file()]
        model.held = {path.relative_to(root).as_posix(): path.read_bytes() for path in paths}
        model.place = os.fspath(config)
        return model


@pytest.fixture
def unpacking(tmp_path: Path) -> Path:
    """The directory that archives are unpacked in."""
    directory = tmp_path / "unpacking"
    directory.mkdir()
    return directory


def model_in(parent: Path, name: str = "model") -> Path:
    for path, content in MODEL.items():
        file = parent / name / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    return parent / name


def write_manifest(model: Path) -> Path:
    """Write what ``sha256sum`` would of a directory's files."""
    files = sorted(path for path in model.rglob("*") if path.is_file())
    lines = [
        f"{hashlib.sha256(path.read_bytes()).hexdigest()}  ./{path.relative_to(model).as_posix()}\n"
        for path in files
        if path.name != "SHA256SUMS"
    ]
    manifest = model / "SHA256SUMS"
    manifest.write_text("".join(lines))
    return manifest


async def unfit(initializer: Initializer, model: Any) -> IntegrityError | UnsafeArchiveError:
    """Return the error of a model that no backend is to see; nothing of it is left behind."""
    error = await error_of(initializer, model)
    assert isinstance(error, IntegrityError | UnsafeArchiveError), error
    await settled(initializer)
    assert at_rest(initializer.statistics())
    return error


class TestArchive:
    @pytest.mark.parametrize("kind", KINDS)
    async def test_is_a_model(self, kind: str, tmp_path: Path, unpacking: Path) -> None:
        """It loads from a private directory of its own name, which is gone with the load."""
        archive = write_archive(tmp_path / f"sentiment-2{kind}", MODEL)
        archives = {"directory": str(unpacking)}
        async with Initializer(registry_of(sentiment=Reading), archives=archives) as initializer:
            model = await initializer.init(archive)
            again = await initializer.init(str(archive))
        assert model.held == again.held == MODEL
        place = Path(model.place)
        assert place.name == "sentiment-2"
        assert place.parent.parent == unpacking
        assert place != Path(again.place)
        assert os.listdir(unpacking) == []

    async def test_is_unpacked_where_such_things_go(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, unpacking: Path
    ) -> None:
        """Nobody else may enter the directory there."""
        monkeypatch.setattr(tempfile, "tempdir", str(unpacking))
        modes = []
        module = does(lambda config: modes.append(Path(config).parent.stat().st_mode & 0o777))
        archive = write_archive(tmp_path / "model.zip", MODEL)
        async with Initializer(registry_of(sentiment=module)) as initializer:
            await initializer.init(archive)
        assert modes == [0o700]
        assert os.listdir(unpacking) == []

    async def test_is_read_again_when_it_is_another_one(self, tmp_path: Path) -> None:
        """One that was replaced by rename is; a link to it is followed."""
        link = tmp_path / "current.zip"
        link.symlink_to(tmp_path / "model.zip")
        write_archive(tmp_path / "model.zip", MODEL)
        async with Initializer(registry_of(sentiment=Reading, other=Reading)) as initializer:
            assert (await initializer.init(link)).config.module_id == "sentiment"
            files = {**MODEL, "config.yml": b"module_id: other\n"}
            write_archive(tmp_path / "next.zip", files).rename(tmp_path / "model.zip")
            assert (await initializer.init(link)).held == files

    async def test_keeps_its_directory_while_its_thread_is_in_it(
        self, tmp_path: Path, unpacking: Path
    ) -> None:
        """A load that was given up still finds its files; the next backend has its own."""
        gate, seen = Gate(), []

        def look(config: ModelConfig) -> None:
            gate.enter()
            seen.append((Path(config) / "weights" / "part.bin").read_bytes())

        registry = registry_of_two(does(look), Reading)
        archive = write_archive(tmp_path / "m.zip", {**MODEL, "config.yml": b"module_id: m\n"})
        priority = [{"type": "GPU", "timeout": LIMIT}, {"type": "LOCAL"}]
        archives = {"directory": str(unpacking)}
        async with (
            Initializer(registry, backend_priority=priority, archives=archives) as initializer,
            create_task_group() as tasks,
        ):
            caller = Caller(tasks, initializer, archive)
            await gate.entered()
            let_pass(initializer, 2 * LIMIT)
            model = await caller.result()
            assert len(os.listdir(unpacking)) == 1
            gate.open()
            await settled(initializer)
            assert os.listdir(unpacking) == []
            assert seen == [b"weights"]
            assert model.held["weights/part.bin"] == b"weights"

    async def test_is_shared(self, tmp_path: Path) -> None:
        """Two callers, and two spellings, share one load of it."""
        gate = Gate()
        archive = write_archive(tmp_path / "model.zip", MODEL)
        registry = registry_of(sentiment=waits_at(gate))
        async with Initializer(registry) as initializer, create_task_group() as tasks:
            first = Caller(tasks, initializer, archive)
            await gate.entered()
            second = Caller(tasks, initializer, f"{tmp_path}/../{tmp_path.name}/model.zip")
            await settled_to_wait(initializer, 2)
            gate.open()
            assert await first.result() is await second.result()
        assert gate.count == 1

    async def test_nobody_waits_for(self, tmp_path: Path, unpacking: Path) -> None:
        """What is no longer wanted is not unpacked to its end."""
        archive = write_archive(tmp_path / "model.zip", MODEL)
        gate = Gate()

        class Slow(FakeModel):
            @classmethod
            def prepare(cls) -> None:
                gate.enter()

        archives = {"directory": str(unpacking)}
        async with (
            Initializer(registry_of(sentiment=Slow), archives=archives) as initializer,
            create_task_group() as tasks,
        ):
            caller = Caller(tasks, initializer, archive)
            await gate.entered()
            await caller.cancel()
            gate.open()
            await settled(initializer)
            assert initializer.statistics().loaded == 0
        assert os.listdir(unpacking) == []

    async def test_nobody_waits_for_while_it_is_looked_through(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """That ends then, and its reader is free for others."""
        gate, ended = Gate(), []

        def slowly(path: str, limits: ArchiveLimits, between: Callable[[], object]) -> Contents:
            gate.enter()
            try:
                return look_through(path, limits, between)
            except LoadCancelled as error:
                ended.append(str(error))
                raise

        monkeypatch.setattr("anyload._load.resolver.look_through", slowly)
        archive = write_archive(tmp_path / "model.zip", MODEL)
        async with (
            Initializer(registry_of(sentiment=Reading)) as initializer,
            create_task_group() as tasks,
        ):
            caller = Caller(tasks, initializer, archive)
            await gate.entered()
            await caller.cancel()
            gate.open()
            await until(lambda: bool(ended))
            assert (await initializer.init(archive)).held == MODEL
        assert ended == ["nobody waits for it"]

    async def test_a_hostile_one(self, tmp_path: Path, unpacking: Path) -> None:
        """No backend is tried, and nothing is written."""
        archive = write_archive(tmp_path / "model.zip", {**MODEL, "../evil": b""})
        registry = registry_of(sentiment=Reading)
        registry.module("sentiment", "GPU")(Reading)
        async with Initializer(
            registry, backend_priority=GPU_THEN_LOCAL, archives={"directory": str(unpacking)}
        ) as initializer:
            error = await unfit(initializer, archive)
            assert str(error) == f"{archive}: member '../evil' leaves the archive's directory"
        assert os.listdir(unpacking) == []

    async def test_one_that_turns_hostile(self, tmp_path: Path, unpacking: Path) -> None:
        """It is checked again as it is unpacked: another one may be in its place."""
        archive = write_archive(tmp_path / "model.zip", MODEL)

        class Swapping(Reading):
            @classmethod
            def prepare(cls) -> None:
                write_archive(archive, {**MODEL, "../evil": b""})

        registry = registry_of(sentiment=Swapping)
        registry.module("sentiment", "GPU")(Reading)
        async with Initializer(
            registry,
            backend_priority=[{"type": "LOCAL"}, {"type": "GPU"}],
            archives={"directory": str(unpacking)},
        ) as initializer:
            error = await unfit(initializer, archive)
            assert isinstance(error, UnsafeArchiveError)
        assert os.listdir(unpacking) == []
        assert not (unpacking / "evil").exists()

    async def test_limits_are_configured(self, tmp_path: Path) -> None:
        """And say which key raises them."""
        archive = write_archive(tmp_path / "model.zip", MODEL)
        registry = registry_of(sentiment=Reading)
        async with Initializer(registry, archives={"max_files": 1}) as initializer:
            assert "at most 1, max_files" in str(await unfit(initializer, archive))

    async def test_where_it_cannot_be_unpacked(self, tmp_path: Path) -> None:
        """That is a failed attempt: it says what the system said."""
        archive = write_archive(tmp_path / "model.zip", MODEL)
        registry = registry_of(sentiment=Reading)
        archives = {"directory": str(tmp_path / "absent")}
        async with Initializer(registry, archives=archives) as initializer:
            error = await error_of(initializer, archive)
            assert isinstance(error, LoadError)
            assert "No such file or directory" in error.attempts[0].reason

    async def test_its_variant_is_told_by_its_files(self, tmp_path: Path) -> None:
        """A module that looks at them sees them unpacked, before the plan is made."""

        class Varying(Reading):
            @classmethod
            def variant(cls, config: ModelConfig) -> type[FakeModel]:
                return Other if (Path(config) / "weights").is_dir() else cls

        class Other(Varying):
            pass

        archive = write_archive(tmp_path / "model.zip", MODEL)
        async with Initializer(registry_of(sentiment=Varying)) as initializer:
            plan = await initializer.plan(archive)
            assert "Other" in plan.candidates[0].implementation.name
            assert type(await initializer.init(archive)) is Other

    async def test_nobody_waits_for_while_its_variant_is_told(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, unpacking: Path
    ) -> None:
        """It is unpacked no further then, though no load has begun."""
        gate, ended = Gate(), []

        def slowly(*args: Any) -> None:
            gate.enter()
            try:
                unpack(*args)
            except LoadCancelled as error:
                ended.append(str(error))
                raise

        class Varying(Reading):
            @classmethod
            def variant(cls, config: ModelConfig) -> type[FakeModel]:
                return cls

        monkeypatch.setattr("anyload._load.files.unpack", slowly)
        archive = write_archive(tmp_path / "model.zip", MODEL)
        async with (
            Initializer(
                registry_of(sentiment=Varying), archives={"directory": str(unpacking)}
            ) as initializer,
            create_task_group() as tasks,
        ):
            caller = Caller(tasks, initializer, archive)
            await gate.entered()
            await caller.cancel()
            gate.open()
            await until(lambda: bool(ended) and not os.listdir(unpacking))
        assert ended == ["nobody waits for it"]

    async def test_a_bad_config(self, tmp_path: Path) -> None:
        """It is named by its place in the archive."""
        archive = write_archive(tmp_path / "model.tar", {"m/config.yml": b"a: 1\n"})
        async with Initializer(registry_of(sentiment=Reading)) as initializer:
            error = await error_of(initializer, archive)
            assert isinstance(error, ConfigError)
            assert error.source == f"{archive}/m/config.yml"

    async def test_outside_the_root(self, tmp_path: Path) -> None:
        """It is not even looked through, by a link neither."""
        outside = write_archive(tmp_path / "model.zip", {"../evil": b""})
        root = tmp_path / "root"
        root.mkdir()
        (root / "link.zip").symlink_to(outside)
        registry = registry_of(sentiment=Reading)
        async with Initializer(registry, model_root=str(root)) as initializer:
            for name in ("../model.zip", "link.zip"):
                error = await error_of(initializer, name)
                assert isinstance(error, ModelNotFoundError)
                assert "outside the model root" in error.reason

    async def test_names(self, tmp_path: Path) -> None:
        """A directory of such a name is a directory; a file of another one is no model."""
        model_in(tmp_path, "model.zip")
        write_archive(tmp_path / "model.tar", MODEL).rename(tmp_path / "model.bin")
        async with Initializer(registry_of(sentiment=Reading)) as initializer:
            assert (await initializer.init(tmp_path / "model.zip")).held == MODEL
            error = await error_of(initializer, tmp_path / "model.bin")
            assert isinstance(error, ModelNotFoundError)

    async def test_that_is_not_there(self, tmp_path: Path) -> None:
        """It is no broken archive; nor is a link that leads nowhere, or one that is gone."""
        archive = write_archive(tmp_path / "model.zip", MODEL)
        (tmp_path / "link.zip").symlink_to("gone.zip")
        async with Initializer(
            registry_of(sentiment=Reading), models={"model": {"module_id": "sentiment"}}
        ) as initializer:
            await initializer.init(archive)
            archive.rename(tmp_path / "other")
            for model in (archive, tmp_path / "absent.zip", tmp_path / "link.zip"):
                error = await error_of(initializer, model)
                assert isinstance(error, ModelNotFoundError)
                assert error.reason == "there is no such archive"
            error = await error_of(initializer, "model.zip")
            assert isinstance(error, ModelNotFoundError)
            assert error.reason == "there is no such archive; the catalogue has model"

    async def test_of_an_operator_is_given_as_it_is(self, tmp_path: Path) -> None:
        """Whoever names the module for a file may have one that reads archives."""
        archive = write_archive(tmp_path / "model.zip", MODEL)
        models = {"a": {"module_id": "sentiment", "model_path": str(archive)}}
        async with Initializer(registry_of(sentiment=Reading), models=models) as initializer:
            assert (await initializer.init("a")).place == str(archive)
            config = ModelConfig("sentiment", archive)
            assert (await initializer.init(config)).place == str(archive)


async def settled_to_wait(initializer: Initializer, callers: int) -> None:
    """Wait until so many callers wait for one load; each begins one before they are found equal."""

    def settled_down() -> bool:
        now = initializer.statistics()
        return (now.waiters, now.flights) == (callers, 1)

    await until(settled_down)


@pytest.fixture(params=["directory", "archive"])
def packed(request: pytest.FixtureRequest) -> Callable[[Path], Path]:
    """Return what makes of a model directory what is loaded: itself, or an archive of it."""

    def pack(model: Path) -> Path:
        if request.param == "directory":
            return model
        files = {
            path.relative_to(model).as_posix(): path.read_bytes()
            for path in model.rglob("*")
            if path.is_file()
        }
        return write_archive(model.parent / "packed.tar.gz", files)

    return pack


class TestManifest:
    async def test_that_holds(self, tmp_path: Path, packed: Callable[[Path], Path]) -> None:
        """A model loads whose files are as its manifest says, and can be required to have one."""
        model = model_in(tmp_path)
        write_manifest(model)
        registry = registry_of(sentiment=Reading)
        async with Initializer(registry, manifests="require") as initializer:
            assert (await initializer.init(packed(model))).held.keys() == {*MODEL, "SHA256SUMS"}

    @pytest.mark.parametrize("name", MODEL)
    async def test_of_a_file_that_differs(
        self, name: str, tmp_path: Path, packed: Callable[[Path], Path]
    ) -> None:
        """The error has both digests; no backend is tried."""
        model = model_in(tmp_path)
        write_manifest(model)
        changed = MODEL[name] + b"\n"
        (model / name).write_bytes(changed)
        registry = registry_of(sentiment=Reading)
        registry.module("sentiment", "GPU")(Reading)
        async with Initializer(registry, backend_priority=GPU_THEN_LOCAL) as initializer:
            what = packed(model)
            error = await unfit(initializer, what)
        was, told = (hashlib.sha256(one).hexdigest() for one in (changed, MODEL[name]))
        assert str(error) == (
            f"{what}/{name}: its sha256 is {was} ({len(changed)} bytes); SHA256SUMS says {told}"
        )

    @pytest.mark.parametrize("change", ["more", "less"])
    async def test_of_other_files(
        self, change: str, tmp_path: Path, packed: Callable[[Path], Path]
    ) -> None:
        """Neither a file too many nor one too few is taken."""
        model = model_in(tmp_path)
        write_manifest(model)
        weights = model / "weights"
        if change == "more":
            for name in ("hook.py", "another.py"):
                (weights / name).write_bytes(b"")
            told = "weights/another.py: it is not in SHA256SUMS"
        else:
            (weights / "another.bin").write_bytes(b"")
            write_manifest(model)
            for path in weights.iterdir():
                path.unlink()
            told = "weights/another.bin: it is missing, and in SHA256SUMS"
        async with Initializer(registry_of(sentiment=Reading)) as initializer:
            what = packed(model)
            assert str(await unfit(initializer, what)) == f"{what}/{told}"

    async def test_of_names_that_are_printed_otherwise(self, tmp_path: Path) -> None:
        """A line ends where ``sha256sum`` ends it, with or without the CR of other systems."""
        model = model_in(tmp_path)
        for name in ("a\u2028b", "a\x85b", "a\x0cb", "a\x1cb"):
            (model / name).write_bytes(name.encode())
        manifest = write_manifest(model)
        async with Initializer(registry_of(sentiment=Reading)) as initializer:
            for ending in (b"\n", b"\r\n"):
                manifest.write_bytes(manifest.read_bytes().replace(b"\n", ending))
                assert len((await initializer.init(model)).held) == 7

    async def test_of_names_that_are_escaped(self, tmp_path: Path) -> None:
        """A name with a backslash or a line's end is written as ``sha256sum`` writes it."""
        model = model_in(tmp_path)
        lines = []
        for name, written in (("a\\nb", r"a\\nb"), ("c\nd", r"c\nd"), ("\\\re", r"./\\\re")):
            (model / name).write_bytes(name.encode())
            lines.append(f"\\{hashlib.sha256(name.encode()).hexdigest()}  {written}\n")
        others = ["config.yml", "weights/part.bin"]
        lines += [
            f"{hashlib.sha256((model / one).read_bytes()).hexdigest()}  {one}\n" for one in others
        ]
        (model / "SHA256SUMS").write_text("".join(lines))
        async with Initializer(registry_of(sentiment=Reading)) as initializer:
            assert (await initializer.init(model)).held.keys() > {"a\\nb", "c\nd", "\\\re"}

    async def test_that_is_missing(self, tmp_path: Path, packed: Callable[[Path], Path]) -> None:
        """Where one is required, that is an error, of a file too."""
        model = packed(model_in(tmp_path))
        file = tmp_path / "alone.bin"
        file.write_bytes(b"weights")
        registry = registry_of(sentiment=Reading)
        async with Initializer(registry, manifests="require") as initializer:
            assert "one is required" in str(await unfit(initializer, model))
            error = await unfit(initializer, ModelConfig("sentiment", file))
            assert str(error) == f"{file}.sha256: the model has no manifest, and one is required"

    async def test_that_nobody_asks_for(self, tmp_path: Path) -> None:
        """With ``manifests: off`` it is a file like others."""
        model = model_in(tmp_path)
        write_manifest(model).write_bytes(b"nonsense")
        async with Initializer(registry_of(sentiment=Reading), manifests="off") as initializer:
            assert (await initializer.init(model)).held["SHA256SUMS"] == b"nonsense"

    @pytest.mark.parametrize("named", ["  weights.bin", " *weights.bin", ""])
    async def test_beside_a_file(self, named: str, tmp_path: Path) -> None:
        """A model that is a file has it beside itself, with the name or without it."""
        file, beside = tmp_path / "weights.bin", tmp_path / "weights.bin.sha256"
        file.write_bytes(b"weights")
        beside.write_text(hashlib.sha256(b"weights").hexdigest().upper() + named + "\n")
        async with Initializer(registry_of(sentiment=Reading)) as initializer:
            assert (await initializer.init(ModelConfig("sentiment", file))).held
            file.write_bytes(b"other")
            error = await unfit(initializer, ModelConfig("sentiment", file))
            assert "; weights.bin.sha256 says" in str(error)

    async def test_beside_a_file_of_another_one(self, tmp_path: Path) -> None:
        """Both files are named."""
        file = tmp_path / "weights.bin"
        file.write_bytes(b"weights")
        (tmp_path / "weights.bin.sha256").write_text("0" * 64 + "  other.bin\n")
        async with Initializer(registry_of(sentiment=Reading)) as initializer:
            error = await unfit(initializer, ModelConfig("sentiment", file))
        other = tmp_path / "other.bin"
        assert str(error) == f"{other}: it is missing, and in weights.bin.sha256"

    async def test_beside_an_archive(self, tmp_path: Path, unpacking: Path) -> None:
        """It is compared before anything is unpacked; one that is required may be there only."""
        archive = write_archive(tmp_path / "model.tar.gz", MODEL)
        beside = tmp_path / "model.tar.gz.sha256"
        beside.write_text(hashlib.sha256(archive.read_bytes()).hexdigest() + "  model.tar.gz\n")
        registry, archives = registry_of(sentiment=Reading), {"directory": str(unpacking)}
        async with Initializer(registry, manifests="require", archives=archives) as initializer:
            assert (await initializer.init(archive)).held == MODEL
            os.rmdir(unpacking)
            write_archive(archive, {**MODEL, "more": b""})
            error = await unfit(initializer, archive)
            assert isinstance(error, IntegrityError)
            assert error.path == str(archive)
            assert "; model.tar.gz.sha256 says" in str(error)
        async with Initializer(registry, manifests="off") as initializer:
            await initializer.init(archive)

    async def test_beside_an_archive_and_inside(self, tmp_path: Path) -> None:
        """Both are compared."""
        model = model_in(tmp_path)
        write_manifest(model).write_text("0" * 64 + "  config.yml\n")
        files = {**MODEL, "SHA256SUMS": (model / "SHA256SUMS").read_bytes()}
        archive = write_archive(tmp_path / "model.zip", files)
        digest = hashlib.sha256(archive.read_bytes()).hexdigest()
        (tmp_path / "model.zip.sha256").write_text(digest)
        async with Initializer(registry_of(sentiment=Reading)) as initializer:
            error = await unfit(initializer, archive)
        assert str(error) == f"{archive}/weights/part.bin: it is not in SHA256SUMS"

    @pytest.mark.parametrize("when", ["before", "during"])
    async def test_beside_an_archive_that_changes(
        self, when: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """What was looked through, compared and unpacked is one and the same."""
        archive = tmp_path / "model.zip"

        def write(*files: str) -> None:
            write_archive(archive, {**MODEL, **dict.fromkeys(files, b"")})
            digest = hashlib.sha256(archive.read_bytes()).hexdigest()
            (tmp_path / "model.zip.sha256").write_text(digest)

        class Changing(Reading):
            @classmethod
            def prepare(cls) -> None:
                if when == "before":
                    write("more")

        def unpack_another(*args: Any) -> None:
            if when == "during":
                write("more")
            unpack(*args)

        write()
        monkeypatch.setattr("anyload._load.files.unpack", unpack_another)
        async with Initializer(registry_of(sentiment=Changing)) as initializer:
            error = await unfit(initializer, archive)
        assert str(error) == f"{archive}: it was changed while it was loaded"

    @pytest.mark.parametrize(
        ("text", "what"),
        [
            (b"", "the manifest is empty"),
            (b"\xff", "it is not UTF-8"),
            (b"0" * 64, "line 1: expected a sha256, two spaces and a name, not '000"),
            (b"0" * 64 + b"  \n", "line 1: expected a sha256, two spaces and a name"),
            (b"0" * 63 + b"  config.yml\n", "line 1: expected"),
            (b"\\" + b"0" * 64 + b"  a\\tb\n", "line 1: expected a sha256, two spaces and a name"),
            (b"\\" + b"0" * 64 + b"  a\\\n", "line 1: expected a sha256, two spaces and a name"),
            (b"\\" + b"0" * 64 + b"\n", "line 1: expected a sha256, two spaces and a name"),
            (b"\\" + b"0" * 64 + b"  ..\\\\a/..\n", "line 1: expected a plain relative name"),
            (b"\\" + b"0" * 64 + b"  ./a\\nb\n", "a\\nb: it is missing, and in SHA256SUMS"),
            ((b"0" * 64 + b"  config.yml\n") * 2, "line 2: 'config.yml' is there twice"),
            (b"0" * 64 + b"  ../config.yml\n", "line 1: expected a plain relative name, not '../"),
            (b"0" * 64 + b"  /etc/passwd\n", "line 1: expected a plain relative name, not '/etc/"),
            (b"0" * 64 + b"  .//config.yml\n", "line 1: expected a plain relative name, not './/c"),
            (b"0" * 64 + b"  ./SHA256SUMS\n", "line 1: a manifest cannot list itself"),
            (b"\n", "line 1: expected a sha256"),
        ],
    )
    async def test_that_cannot_be_used(self, text: bytes, what: str, tmp_path: Path) -> None:
        """The error says where and why."""
        model = model_in(tmp_path)
        (model / "SHA256SUMS").write_bytes(text)
        async with Initializer(registry_of(sentiment=Reading)) as initializer:
            assert what in str(await unfit(initializer, model))

    @pytest.mark.parametrize("name", ["SHA256SUMS", "weights/part.bin"])
    async def test_of_what_is_no_file(self, name: str, tmp_path: Path) -> None:
        """A FIFO in the place of a file does not hold the load up."""
        model = model_in(tmp_path)
        write_manifest(model)
        (model / name).unlink()
        os.mkfifo(model / name)
        async with Initializer(registry_of(sentiment=Reading)) as initializer:
            assert "not a regular file" in str(await unfit(initializer, model))

    async def test_of_a_disk_that_fails(self, tmp_path: Path) -> None:
        """The error names the file, or the directory. Address 0 of a process cannot be read."""
        model = model_in(tmp_path)
        write_manifest(model)
        (model / "weights" / "part.bin").unlink()
        (model / "weights" / "part.bin").symlink_to("/proc/self/mem")
        async with Initializer(registry_of(sentiment=Reading)) as initializer:
            assert "unreadable: Input/output error" in str(await unfit(initializer, model))

    async def test_of_a_directory_that_vanishes(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """While the files are looked for: it is named."""
        model = model_in(tmp_path)
        write_manifest(model)
        real = os.scandir

        def scandir(path: str) -> Any:
            if path.endswith("weights"):
                raise FileNotFoundError(2, "No such file or directory")
            return real(path)

        async with Initializer(registry_of(sentiment=Reading)) as initializer:
            await initializer.plan(model)
            with monkeypatch.context() as patched:
                patched.setattr("anyload._reading.manifests.os.scandir", scandir)
                error = await unfit(initializer, model)
            assert str(error) == f"{model / 'weights'}: unreadable: No such file or directory"

    async def test_of_links(self, tmp_path: Path) -> None:
        """A link to a file is the file; one to a directory may lead anywhere."""
        model = model_in(tmp_path)
        (tmp_path / "blob").write_bytes(b"weights")
        (model / "weights" / "part.bin").unlink()
        (model / "weights" / "part.bin").symlink_to(tmp_path / "blob")
        write_manifest(model)
        async with Initializer(registry_of(sentiment=Reading)) as initializer:
            await initializer.init(model)
            (model / "more").symlink_to(tmp_path)
            assert "a link to a directory" in str(await unfit(initializer, model))

    @pytest.mark.parametrize("name", ["weights/part.bin", "config.yml"])
    @pytest.mark.parametrize("change", ["write", "replace", "remove"])
    async def test_of_files_that_change_during_the_load(
        self, name: str, change: str, tmp_path: Path
    ) -> None:
        """What was loaded may be half the one and half the other: it is released."""
        model = model_in(tmp_path)
        write_manifest(model)

        def alter(config: ModelConfig) -> None:
            path = Path(config) / name
            content = path.read_bytes()
            if change != "write":
                path.rename(tmp_path / "old")
            if change != "remove":
                path.write_bytes(content)  # equal: when it was written tells

        module = does(alter)
        async with Initializer(registry_of(sentiment=module)) as initializer:
            error = await unfit(initializer, model)
        assert str(error) == f"{model / name}: it was changed while it was loaded"
        assert [made.released for made in module.made] == [True]

    async def test_of_a_config_that_changed_before_the_load(self, tmp_path: Path) -> None:
        """What was read of it must be what the manifest is about."""
        model = model_in(tmp_path)

        class Changing(Reading):
            @classmethod
            def prepare(cls) -> None:
                (model / "config.yml").write_bytes(CONFIG + b"labels: 1\n")
                write_manifest(model)

        async with Initializer(registry_of(sentiment=Changing)) as initializer:
            error = await unfit(initializer, model)
            assert "config.yml: it was changed while it was loaded" in str(error)
            assert (await initializer.init(model)).config.labels == 1

    async def test_everybody_gets_an_error_of_their_own(self, tmp_path: Path) -> None:
        """As of any load that is shared."""
        model = model_in(tmp_path)
        gate = Gate()

        def alter(config: ModelConfig) -> None:
            gate.enter()
            (model / "config.yml").write_bytes(b"")

        write_manifest(model)
        async with (
            Initializer(registry_of(sentiment=does(alter))) as initializer,
            create_task_group() as tasks,
        ):
            calls = Calls(tasks)
            for name in ("one", "two"):
                calls.start(name, initializer, model)
            await settled_to_wait(initializer, 2)
            await gate.entered()
            gate.open()
            one, two = await calls.result("one"), await calls.result("two")
            assert type(one) is type(two) is IntegrityError
            assert one is not two
            assert at_rest(initializer.statistics())

    async def test_nobody_waits_for(self, tmp_path: Path) -> None:
        """A load that is no longer wanted is not gone on with, and leaves its slot."""
        model = model_in(tmp_path)
        gate = Gate()

        def hold(config: ModelConfig) -> None:
            gate.enter()
            check_cancelled()

        write_manifest(model)
        async with (
            Initializer(registry_of(sentiment=does(hold))) as initializer,
            create_task_group() as tasks,
        ):
            caller = Caller(tasks, initializer, model)
            await gate.entered()
            await caller.cancel()
            (model / "config.yml").write_bytes(b"")
            gate.open()
            await settled(initializer)
            assert at_rest(initializer.statistics())

    async def test_is_not_read_on_for_nobody(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Between two portions of a file it is asked whether the load is wanted."""
        asked = []

        def cancelled() -> None:
            asked.append(1)
            raise LoadCancelled

        monkeypatch.setattr("anyload._load.files.check_cancelled", cancelled)
        model = model_in(tmp_path)
        write_manifest(model)
        async with Initializer(registry_of(sentiment=Reading)) as initializer:
            error = await error_of(initializer, model)
            assert isinstance(error, LoadError)
            assert [attempt.outcome for attempt in error.attempts] == ["cancelled"]
        assert asked == [1]


@pytest.mark.skipif(os.name == "nt", reason="modes say nothing there")
class TestStrict:
    @pytest.mark.parametrize(
        "name", ["model", "model/config.yml", "model/weights", "model/weights/part.bin", "."]
    )
    async def test_what_everybody_may_write_to(self, name: str, tmp_path: Path) -> None:
        """It is refused, wherever it is in the model, or above it."""
        root = tmp_path / "root"
        model = model_in(root)
        registry = registry_of(sentiment=Reading)
        async with Initializer(registry, strict=True) as initializer:
            assert (await initializer.init(model)).held == MODEL
            path = root / name
            path.chmod(path.stat().st_mode | 0o002)
            error = await unfit(initializer, model)
            assert isinstance(error, IntegrityError)
            assert error.path == str(path)
            assert "an insecure path: everybody may write to it (mode " in str(error)
        async with Initializer(registry) as initializer:
            await initializer.init(model)

    async def test_where_archives_are_unpacked(self, tmp_path: Path, unpacking: Path) -> None:
        """That directory is named as it is."""
        archive = write_archive(tmp_path / "model.zip", MODEL)
        os.chmod(unpacking, 0o777)
        async with Initializer(
            registry_of(sentiment=Reading), strict=True, archives={"directory": str(unpacking)}
        ) as initializer:
            error = await unfit(initializer, archive)
            assert str(error).startswith(f"{unpacking}: an insecure path")

    async def test_alone(self, tmp_path: Path) -> None:
        """It does not depend on manifests, nor they on it."""
        model = model_in(tmp_path)
        write_manifest(model).write_bytes(b"nonsense")
        registry = registry_of(sentiment=Reading)
        async with Initializer(registry, strict=True, manifests="off") as initializer:
            await initializer.init(model)
            model.chmod(0o777)
            assert "insecure path" in str(await unfit(initializer, model))

    async def test_a_sticky_directory_above(self, tmp_path: Path) -> None:
        """Only the owner may put another file where the model is: that is like ``/tmp``."""
        model = model_in(tmp_path / "shared")
        (tmp_path / "shared").chmod(0o1777)
        async with Initializer(registry_of(sentiment=Reading), strict=True) as initializer:
            await initializer.init(model)

    async def test_files_and_archives(self, tmp_path: Path) -> None:
        """They are looked at as directories are."""
        archive = write_archive(tmp_path / "model.zip", MODEL)
        file = tmp_path / "weights.bin"
        file.write_bytes(b"")
        async with Initializer(registry_of(sentiment=Reading), strict=True) as initializer:
            for model in (archive, ModelConfig("sentiment", file)):
                await initializer.init(model)
            for path, model in ((archive, archive), (file, ModelConfig("sentiment", file))):
                path.chmod(0o666)
                assert "insecure path" in str(await unfit(initializer, model))

    async def test_nobody_waits(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """The look at a directory, however large, ends with the load that it is for."""

        def cancelled() -> None:
            raise LoadCancelled("nobody waits")

        monkeypatch.setattr("anyload._load.files.check_cancelled", cancelled)
        model = model_in(tmp_path)
        async with Initializer(registry_of(sentiment=Reading), strict=True) as initializer:
            error = await error_of(initializer, model)
            assert [attempt.outcome for attempt in error.attempts] == ["cancelled"]

    async def test_what_is_not_there(self, tmp_path: Path) -> None:
        """A link that leads nowhere is named."""
        model = model_in(tmp_path)
        (model / "gone").symlink_to(tmp_path / "absent")
        async with Initializer(registry_of(sentiment=Reading), strict=True) as initializer:
            error = await unfit(initializer, model)
            assert str(error) == f"{model / 'gone'}: unreadable: No such file or directory"
