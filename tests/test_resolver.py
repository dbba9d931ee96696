"""Names, paths and model directories, as an initializer meets them."""

from __future__ import annotations

import os
import shutil
import socket
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from anyio import create_task_group
from calls import GPU_THEN_LOCAL, Calls, Gpu, error_of
from scenes import model_on_disk, registry_of

from anyload import (
    ConfigError,
    Initializer,
    LoadCancelled,
    ModelConfig,
    ModelNotFoundError,
    Registry,
)
from anyload._load.resolver import Resolver
from anyload._reading.trees import size_on_disk
from anyload.testing import FakeModel, Gate, returns_at_once, settled


def registry() -> Registry:
    return registry_of(m=FakeModel)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    directory = tmp_path / "root"
    directory.mkdir()
    model_on_disk(directory)
    model_on_disk(tmp_path, "m", "outside")
    return directory


async def refusal(initializer: Initializer, model: Any) -> str:
    """Return why there is no such model, which must be said at once and leave nothing behind."""
    began = time.monotonic()
    error = await error_of(initializer, model)
    assert time.monotonic() - began < 1
    assert isinstance(error, ModelNotFoundError), error
    assert error.model == (str(model) if isinstance(model, ModelConfig) else os.fspath(model))
    assert initializer.statistics().loaded == 0
    return error.reason


@pytest.mark.parametrize(
    "name", ["../outside", "..", "/etc/passwd", "a/../../outside", "../root_too", "absent/../.."]
)
async def test_a_name_that_leaves_the_root_is_refused(root: Path, name: str) -> None:
    """Where models are confined, no spelling leads out, whether or not something is there."""
    async with Initializer(registry(), model_root=str(root)) as initializer:
        assert await refusal(initializer, name) == f"it lies outside the model root {root}"
        assert await refusal(initializer, Path(name)) == f"it lies outside the model root {root}"
        config = ModelConfig("m", name)
        assert await refusal(initializer, config) == f"it lies outside the model root {root}"


def test_a_root_that_is_not_there_yet_is_told_of(tmp_path: Path) -> None:
    """A volume may be mounted later; until then it is said that not only the model is missing."""
    root = tmp_path / "later"
    with Initializer(registry(), model_root=str(root)) as initializer:
        for name, what in (("m", "there is no such directory"), ("m.zip", "no such archive")):
            with pytest.raises(ModelNotFoundError, match=f"{what}; nor is there the model root"):
                initializer.init_sync(name)
        root.mkdir()
        model_on_disk(root)
        assert type(initializer.init_sync("m")) is FakeModel


@pytest.mark.parametrize("key", ["model_root", "archives.directory"])
def test_a_file_where_a_directory_has_to_be(key: str, tmp_path: Path) -> None:
    """It is refused when the initializer is made; a value of the environment is not told."""
    file = tmp_path / "file"
    file.write_bytes(b"")
    given: dict[str, Any] = {"model_root": str(file)}
    if key != "model_root":
        given = {"archives": {"directory": str(file)}}
    with pytest.raises(ConfigError) as caught:
        Initializer(registry(), **given)
    assert caught.value.problems == ((key, f"expected a directory, not {str(file)!r}"),)
    variable = f"ANYLOAD__{key.replace('.', '__').upper()}"
    with pytest.raises(ConfigError) as caught:
        Initializer.from_config({}, registry=registry(), environ={variable: str(file)})
    assert caught.value.problems == ((variable, f"{key}: expected a directory"),)


async def test_a_link_out_of_the_root_is_refused(root: Path) -> None:
    """A link to a model outside is no way out; one to a model inside is a model."""
    (root / "out").symlink_to(root.parent / "outside")
    (root / "in").symlink_to(root / "m")
    async with Initializer(registry(), model_root=str(root)) as initializer:
        assert await refusal(initializer, "out") == f"it lies outside the model root {root}"
        config = ModelConfig("m", "out")
        assert await refusal(initializer, config) == f"it lies outside the model root {root}"
        assert (await initializer.init("in")).config.model_path == str(root / "in")


async def test_a_link_that_is_turned_outwards_is_refused_the_next_time(root: Path) -> None:
    """What was inside once is looked at again at every load."""
    (root / "link").symlink_to(root / "m")
    async with Initializer(registry(), model_root=str(root)) as initializer:
        await initializer.init("link")
        (root / "link").unlink()
        (root / "link").symlink_to(root.parent / "outside")
        error = await error_of(initializer, "link")
        assert isinstance(error, ModelNotFoundError)
        assert "outside the model root" in error.reason


@pytest.mark.parametrize(
    ("link", "leads_to"),
    [
        ("m/weights", "../../outside/config.yml"),
        ("m/weights", "/etc/passwd"),
        ("m/weights", "/absent"),
        ("m/more", "../../outside"),
        ("shared/weights", "../../outside/config.yml"),
    ],
)
async def test_a_link_in_a_model_out_of_the_root_is_refused(
    root: Path, link: str, leads_to: str
) -> None:
    """Whether of a file or of a directory, there or not; where nothing is confined it is fine."""
    (root / "shared").mkdir()
    (root / "m" / "shared").symlink_to(root / "shared")
    (root / link).symlink_to(leads_to)
    async with Initializer(registry(), model_root=str(root)) as initializer:
        for model in ("m", ModelConfig("m", root / "m")):
            reason = await refusal(initializer, model)
            assert reason == f"its link {Path(link).name} leads outside the model root {root}"
    async with Initializer(registry()) as initializer:
        await initializer.init(str(root / "m"))


async def test_links_in_a_model_that_stay_in_the_root(root: Path) -> None:
    """As caches have them; what they lead to counts, once, and no circle is without an end."""
    (root / "blobs").mkdir()
    (root / "blobs" / "x").write_bytes(b"x" * 5)
    (root / "m" / "weights").symlink_to("../blobs/x")
    (root / "m" / "all").symlink_to("../blobs")
    (root / "m" / "again").symlink_to("../blobs")
    (root / "m" / "loop").symlink_to(".")
    (root / "m" / "self").symlink_to("self")
    sizes = Sizes()
    async with Initializer(registry(), model_root=str(root), admission=sizes) as initializer:
        await initializer.init("m")
    config = (root / "m" / "config.yml").stat().st_size
    assert sizes.heard == [config + 5 + 5]


async def test_without_a_root_paths_lead_anywhere(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Relative paths begin where the initializer was made, wherever the process goes later."""
    monkeypatch.chdir(root)
    async with Initializer(registry()) as initializer:
        monkeypatch.chdir("/")
        loaded = await initializer.init("../outside")
        assert Path(loaded.config.model_path) == root / "../outside"


@pytest.mark.parametrize("confined", [False, True])
@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("", "the name is empty"),
        (".", "the directory has no config.yml"),
        ("a\0b", "a path cannot hold a NUL or a newline"),
        ("a\nb", "a path cannot hold a NUL or a newline"),
        ("absent", "there is no such directory"),
        ("-rf", "there is no such directory"),
        ("a\\..\\b", "there is no such directory"),
        ("%2e%2e/outside", "there is no such directory"),
        ("m/config.yml", "a file, not a model directory"),
        ("a/" * 1900, "there is no such directory"),
    ],
)
async def test_a_name_of_nothing_says_what_is_missing(
    root: Path, monkeypatch: pytest.MonkeyPatch, confined: bool, name: str, reason: str
) -> None:
    """A name that is no model directory is refused at once, with what was looked for."""
    monkeypatch.chdir(root)
    options: dict[str, Any] = {"model_root": str(root)} if confined else {}
    async with Initializer(registry(), **options) as initializer:
        assert await refusal(initializer, name) == reason


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("sentimnet", "there is no such directory; the catalogue has sentiment"),
        ("topics", "there is no such directory; nor is it in the catalogue"),
        ("models/sentiment", "there is no such directory"),
    ],
)
async def test_a_name_that_is_mistyped_is_told_what_it_may_be(name: str, reason: str) -> None:
    """The catalogue is where a name without a slash was meant to be found."""
    models = {"sentiment": {"module_id": "m"}}
    async with Initializer(registry(), models=models) as initializer:
        assert await refusal(initializer, name) == reason


async def test_a_name_that_is_too_long_is_refused(root: Path) -> None:
    """Whoever asked for it is told so: it is no fault of a configuration."""
    async with Initializer(registry(), model_root=str(root)) as initializer:
        for name in ("x" * 300, "a/" * 2500, "x" * 10_000_000, "\u00e9" * 200, "\u00e9/" * 1500):
            assert await refusal(initializer, name) == "the name is too long"
        for length in range(3900, 4110):
            await refusal(initializer, ("a/" * length)[:length])
        name = os.fsdecode(b"\xff" * 255)
        assert await refusal(initializer, name) == "there is no such directory"


@pytest.mark.parametrize("confined", [False, True])
@pytest.mark.parametrize("path", ["a\0b", "\ud800"])
async def test_a_config_with_a_path_that_is_none_is_refused(
    root: Path, confined: bool, path: str
) -> None:
    """A NUL or a lone surrogate cannot be in a path; no ValueError gets through."""
    options: dict[str, Any] = {"model_root": str(root)} if confined else {}
    async with Initializer(registry(), **options) as initializer:
        assert await refusal(initializer, ModelConfig("m", path)) == "not a valid path"


@pytest.mark.parametrize("raised", [SystemExit, OSError])
async def test_what_reading_raises_ends_that_load_only(
    root: Path, raised: type[BaseException]
) -> None:
    """What a user's path object raises in the reader thread is the cause of its load's error."""
    here = str(root / "m")

    class Odd(os.PathLike[str]):
        def __fspath__(self) -> str:
            if threading.current_thread() is not threading.main_thread():
                raise raised("out of __fspath__")
            return here

    async with Initializer(registry()) as initializer:
        with pytest.raises(ModelNotFoundError, match="out of __fspath__") as caught:
            await initializer.init(Odd())
        assert isinstance(caught.value.__cause__, raised)
        assert await initializer.init(here) is not None
        await settled(initializer)


async def test_a_confined_name_that_is_no_path_is_refused(root: Path) -> None:
    """A lone surrogate in a name is refused as well."""
    async with Initializer(registry(), model_root=str(root)) as initializer:
        assert await refusal(initializer, "\ud800") == "not a valid path"


# The catalogue


def catalogue(**paths: str) -> dict[str, Any]:
    return {name: {"module_id": "m", "model_path": path} for name, path in paths.items()}


async def test_a_catalogue_alone_refuses_every_path(root: Path) -> None:
    """With catalogue_only, a name that is not configured is refused, be it a path that exists."""
    options: dict[str, Any] = {
        "model_root": str(root),
        "catalogue_only": True,
        "models": catalogue(b="m", a="m"),
    }
    async with Initializer(registry(), **options) as initializer:
        known = "the catalogue has a, b, and paths are refused"
        for model in ("m", str(root / "m"), Path("m"), Path("a"), "../outside", "a\0b", ""):
            assert await refusal(initializer, model) == known
        assert (await initializer.init("a")).config.model_path == str(root / "m")


async def test_a_catalogue_cannot_lead_out_of_the_root(root: Path) -> None:
    """An entry with a path outside is refused, and so is one with nothing there."""
    (root / "out").symlink_to(root.parent / "outside")
    models = catalogue(linked="out", gone="absent")
    options: dict[str, Any] = {"model_root": str(root), "catalogue_only": True, "models": models}
    async with Initializer(registry(), **options) as initializer:
        assert "outside the model root" in await refusal(initializer, "linked")
        assert await refusal(initializer, "gone") == f"there is no {root / 'absent'}"


async def test_a_catalogue_alone_takes_the_configs_of_code(root: Path) -> None:
    """catalogue_only refuses names that are paths; a ModelConfig is the operator's own code."""
    async with Initializer(registry(), catalogue_only=True) as initializer:
        for config in (ModelConfig("m", root / "m"), ModelConfig("m")):
            assert (await initializer.init(config)).config.module_id == "m"
    options: dict[str, Any] = {"model_root": str(root), "catalogue_only": True}
    async with Initializer(registry(), **options) as initializer:
        config = ModelConfig("m", "../outside")
        assert await refusal(initializer, config) == f"it lies outside the model root {root}"


async def test_an_empty_catalogue_says_so(root: Path) -> None:
    """Nothing can be loaded by name then."""
    async with Initializer(registry(), catalogue_only=True) as initializer:
        reason = await refusal(initializer, str(root / "m"))
        assert reason == "the catalogue has nothing, and paths are refused"


async def test_a_name_of_the_catalogue_goes_before_a_path(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A text is a name first; a Path is always a path."""
    monkeypatch.chdir(root)
    async with Initializer(registry(), models={"m": {"module_id": "m"}}) as initializer:
        assert (await initializer.init("m")).config.model_path is None
        assert (await initializer.init(Path("m"))).config.model_path == str(root / "m")


# config.yml


async def config_refusal(root: Path) -> str:
    async with Initializer(registry(), model_root=str(root)) as initializer:
        began = time.monotonic()
        error = await error_of(initializer, "m")
        assert time.monotonic() - began < 1
        assert isinstance(error, ConfigError), error
        assert error.source == str(root / "m" / "config.yml")
        assert initializer.statistics().loaded == 0
        return error.problems[0].what


@pytest.mark.parametrize("kind", ["fifo", "socket", "link", "directory"])
async def test_a_config_that_is_no_regular_file_is_refused_at_once(
    root: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """Nobody waits for a FIFO, and no link is followed to a file elsewhere."""
    file = root / "m" / "config.yml"
    file.unlink()
    if kind == "fifo":
        os.mkfifo(file)
    elif kind == "socket":
        monkeypatch.chdir(root / "m")
        with socket.socket(socket.AF_UNIX) as server:
            server.bind("config.yml")
    elif kind == "link":
        file.symlink_to(root.parent / "outside" / "config.yml")
    else:
        file.mkdir()
    expected = {"link": "a symbolic link", "directory": "a directory, not a file"}
    assert await config_refusal(root) == expected.get(kind, "not a regular file")


async def test_a_config_that_cannot_be_read_is_refused(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The system's reason is kept; the tests may run as root, so it is put there."""
    really_open = os.open

    def denied(path: Any, *args: Any, **kwargs: Any) -> int:
        if str(path).endswith("config.yml"):
            raise PermissionError(13, "Permission denied")
        return really_open(path, *args, **kwargs)

    monkeypatch.setattr(os, "open", denied)
    assert await config_refusal(root) == "unreadable: Permission denied"


async def test_an_unknown_module_names_those_that_are_known(root: Path) -> None:
    """The error says what is registered, for a path and for a config."""
    model_on_disk(root, "other")
    async with Initializer(registry(), model_root=str(root)) as initializer:
        for model in ("other", ModelConfig("other")):
            error = await error_of(initializer, model)
            assert isinstance(error, ConfigError)
            assert error.problems[0].where == "module_id"
            assert error.problems[0].what.endswith("registered; registered modules are m")
    async with Initializer(Registry()) as initializer:
        error = await error_of(initializer, ModelConfig("other"))
        assert "registered modules are none" in str(error)


async def test_a_config_that_was_changed_is_read_again(root: Path) -> None:
    """A model directory is read once, and again when its config.yml is another."""
    async with Initializer(registry(), model_root=str(root)) as initializer:
        first = (await initializer.init("m")).config
        same = (await initializer.init("m")).config
        assert same is first
        (root / "m" / "config.yml").write_text("module_id: m\nlabels: [new]\n")
        assert (await initializer.init("m")).config.labels == ["new"]
        (root / "m" / "config.yml").unlink()
        error = await error_of(initializer, "m")
        assert error.reason == "the directory has no config.yml"


async def test_a_config_with_the_time_of_the_old_one_is_read_again(root: Path) -> None:
    """What ``cp -p`` or ``tar`` put there is seen, though size, place and time are as before."""
    file = root / "m" / "config.yml"
    times = (file.stat().st_atime_ns, 1_000_000_000)
    async with Initializer(registry(), model_root=str(root)) as initializer:
        for label in ("old", "new"):
            before = file.stat().st_ctime_ns
            while file.stat().st_ctime_ns == before:  # as fine as the clock of the disk
                file.write_text(f"module_id: m\nlabel: {label}\n")
                os.utime(file, ns=times)
            assert (await initializer.init("m")).config.label == label


class Contents(FakeModel):
    """Holds what its weights file says, and waits at the gate of its class before it reads."""

    gate: Gate

    @classmethod
    def load(cls, config: ModelConfig, **kwargs: Any) -> Any:
        cls.gate.enter()
        return cls(config, {"weights": Path(config, "weights").read_text()})


def weights(directory: Path, text: str) -> None:
    directory.mkdir(parents=True)
    (directory / "config.yml").write_text("module_id: m\n")
    (directory / "weights").write_text(text)


@pytest.mark.parametrize("below", ["", "/model"])
async def test_a_model_that_was_moved_is_not_the_one_that_took_its_place(
    tmp_path: Path, below: str
) -> None:
    """A link follows a model that is renamed; what is published in its place is another model."""
    weights(Path(f"{tmp_path}/v1{below}"), "old")
    (tmp_path / "current").symlink_to("v1")
    current, new = f"{tmp_path}/current{below}", f"{tmp_path}/v1{below}"
    Contents.gate = Gate(open=True)
    async with Initializer(registry_of(m=Contents)) as initializer:
        await initializer.init(current)
        (tmp_path / "v1").rename(tmp_path / "v1-old")
        (tmp_path / "current").unlink()
        (tmp_path / "current").symlink_to("v1-old")
        weights(Path(new), "new")
        Contents.gate = Gate()
        async with create_task_group() as tasks:
            calls = Calls(tasks)
            calls.start("current", initializer, current)
            await Contents.gate.entered()
            calls.start("new", initializer, new)
            await Contents.gate.entered(2)
            Contents.gate.open()
            found = [(await calls.result(name)).kwargs["weights"] for name in ("current", "new")]
        assert found == ["old", "new"]
        await settled(initializer)


async def test_what_is_gone_is_forgotten_when_it_is_asked_for(root: Path) -> None:
    """Nothing is remembered of a model that was deleted, once that has been noticed."""
    async with Initializer(registry(), model_root=str(root)) as initializer:
        resolver = initializer._resolver
        await initializer.init("m")
        assert (len(resolver._directories), len(resolver._places)) == (1, 1)
        shutil.rmtree(root / "m")
        assert await error_of(initializer, "m")
        assert (len(resolver._directories), len(resolver._places)) == (0, 0)


async def test_no_more_is_remembered_than_there_is_room_for(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many models there were, what is remembered of them stays below a limit."""
    monkeypatch.setattr("anyload._load.resolver.MOST_CACHED", 3)
    names = [model_on_disk(root, "m", f"model-{number}") for number in range(8)]
    async with Initializer(registry()) as initializer:
        resolver = initializer._resolver
        for _ in range(2):
            models = await initializer.init_many(names)
            assert [model.config.model_path for model in models.values()] == names
            assert 1 <= len(resolver._directories) <= 3
            assert 1 <= len(resolver._places) <= 3


async def test_a_config_that_is_written_meanwhile_is_read(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A config.yml that comes between the look at it and the reading is read, now and again."""
    real, missed = os.lstat, list[str]()

    def lstat(path: Any, **kwargs: Any) -> os.stat_result:
        if str(path).endswith("config.yml") and not missed:
            missed.append(path)
            raise FileNotFoundError(path)
        return real(path, **kwargs)

    async with Initializer(registry(), model_root=str(root)) as initializer:
        monkeypatch.setattr(os, "lstat", lstat)
        first = (await initializer.init("m")).config
        assert missed
        again = (await initializer.init("m")).config
        assert (again is first, again.module_id) == (False, "m")


# Backends that are not there


class Moody(Gpu):
    mood: str | Exception | None = None

    def available(self) -> str | None:
        if isinstance(self.mood, Exception):
            raise self.mood
        return self.mood


async def test_a_backend_is_asked_before_every_load(root: Path) -> None:
    """What it says skips it, an error of it too, and the next time it may be back."""
    known = Registry()
    known.backend_type(Moody)
    known.module("m", "GPU")(type("OnGpu", (FakeModel,), {}))
    known.module("m")(FakeModel)
    async with Initializer(known, backend_priority=GPU_THEN_LOCAL) as initializer:
        moody: Any = initializer.backends[0]
        for model in (str(root / "m"), ModelConfig("m")):
            for mood, reason in (
                ("no card", "no card"),
                (OSError("bus"), "available() raised OSError: bus"),
            ):
                moody.mood = mood
                plan = await initializer.plan(model)
                assert [skip.reason for skip in plan.skipped] == [reason]
                assert type(await initializer.init(model)) is FakeModel
            moody.mood = None
            assert (await initializer.plan(model)).skipped == ()
            assert type(await initializer.init(model)).__name__ == "OnGpu"


# Sizes


def test_the_size_of_a_directory_is_that_of_its_files(tmp_path: Path) -> None:
    """Files at every depth count, and those that links name; linked directories do not."""
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "b").mkdir()
    (tmp_path / "weights").write_bytes(b"x" * 5)
    (tmp_path / "a" / "b" / "more").write_bytes(b"x" * 7)
    (tmp_path / "link").symlink_to("weights")
    (tmp_path / "loop").symlink_to(tmp_path)
    (tmp_path / "broken").symlink_to("nowhere")
    loop = (tmp_path / "loop").stat().st_size
    assert size_on_disk(str(tmp_path)) == 5 + 7 + 5 + loop


def test_a_directory_that_cannot_be_listed_has_no_size(tmp_path: Path) -> None:
    """What cannot be read is left to the load to complain of."""
    assert size_on_disk(str(tmp_path / "absent")) == 0


def test_the_look_at_a_large_directory_can_be_broken_off(tmp_path: Path) -> None:
    """Nobody reads on for what nobody waits for: a model may be all that there is on a disk."""
    for number in range(9):
        (tmp_path / str(number)).mkdir()
    times = 0

    def cancelled() -> None:
        nonlocal times
        times += 1
        if times == 5:
            raise LoadCancelled

    resolver = Resolver(registry(), (), {}, str(tmp_path))
    with pytest.raises(LoadCancelled):
        resolver.resolve(ModelConfig("m", "."), {}, shared=True, between=cancelled)


async def test_a_directory_that_cannot_be_listed_is_still_a_model(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever may enter a directory but not list it can load a model from it."""

    def denied(path: Any) -> Any:
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(os, "scandir", denied)
    async with Initializer(registry(), model_root=str(root)) as initializer:
        assert (await initializer.init("m")).config.module_id == "m"


async def test_a_deep_directory_is_no_harm(root: Path) -> None:
    """Directories nested deeper than Python recurses are counted too."""
    deep = "/".join("d" * 1200)
    os.makedirs(root / "m" / deep[:1000])
    os.makedirs(root / "m" / deep)
    (root / "m" / deep / "weights").write_bytes(b"x" * 9)
    found = size_on_disk(str(root / "m"))
    assert found == 9 + (root / "m" / "config.yml").stat().st_size
    # What comes after us may remove directories recursively.
    (root / "m" / deep / "weights").unlink()
    while deep:
        (root / "m" / deep).rmdir()
        deep = deep[:-2]


class Sizes:
    """An admission that keeps the sizes it hears of."""

    def __init__(self) -> None:
        self.heard: list[int] = []

    def may_start(self, config: ModelConfig, size: int) -> bool:
        return True

    def started(self, config: ModelConfig, size: int) -> None:
        self.heard.append(size)

    def ended(self, config: ModelConfig, size: int) -> None: ...


async def test_the_size_of_a_model_is_that_of_its_directory_or_file(root: Path) -> None:
    """A file, a directory, and a path with nothing there each have a size."""
    (root / "file.bin").write_bytes(b"x" * 9)
    sizes = Sizes()
    async with Initializer(registry(), model_root=str(root), admission=sizes) as initializer:
        await initializer.init("m")
        for path in ("file.bin", "file.bin", "absent"):
            await initializer.init(ModelConfig("m", path))
    assert sizes.heard == [(root / "m" / "config.yml").stat().st_size, 9, 9, 0]


async def test_a_read_that_hangs_keeps_no_other_waiting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where it began after the reads that were being watched, which have come back since."""
    first, hang, really = Gate(), Gate(), Resolver.resolve
    at = {model_on_disk(tmp_path, name="first"): first, model_on_disk(tmp_path, name="hang"): hang}

    def resolve(self: Resolver, model: Any, *args: Any, **kwargs: Any) -> Any:
        if model in at:
            at[model].enter()
        return really(self, model, *args, **kwargs)

    monkeypatch.setattr(Resolver, "resolve", resolve)
    other = model_on_disk(tmp_path, name="other")
    async with Initializer(registry_of(m=returns_at_once())) as initializer:
        async with create_task_group() as tasks:
            calls = Calls(tasks)
            calls.start("first", initializer, next(iter(at)))
            await first.entered()
            calls.start("hang", initializer, list(at)[1])
            calls.start("other", initializer, other)
            first.open()
            await hang.entered()
            assert isinstance(await calls.result("other"), FakeModel)
            hang.open()
        await settled(initializer)
