"""``await anyload.caikit.load(...)``: what it finds, and what it raises, beside ``caikit.load``."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import caikit
import pytest
from caikit.core import MODEL_MANAGER
from caikit.core.model_management.local_model_initializer import LocalModelInitializer
from serving import Finder, Model, Site, both, configure, named, opened, ours, rests, zipped

import anyload.caikit
from anyload import LoadError
from anyload.testing import until


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with opened(tmp_path) as opened_site:
        yield opened_site


def given(model: Any) -> Any:
    """Return what a module was given, without the name of the directory of an archive."""
    assert isinstance(model, Model), model
    path = model.given.model_path
    shown = re.sub(r"/unpacked/\w+", "/unpacked/some", str(path))
    return type(model.given), {**model.given, "model_path": shown}, model.kwargs


def raised(error: Any) -> Any:
    """Return what an error says, the errors that it came from included."""
    chain = []
    while error is not None:
        assert isinstance(error, Exception), error
        text = re.sub(r"/unpacked/\w+|<_io.BytesIO object at \w+>", "some", str(error))
        chain.append((type(error), text))
        error = error.__cause__ or error.__context__
    return chain


class TestAModelIsFound:
    """Each of these gives the module what ``caikit.load`` gives it."""

    @pytest.mark.parametrize("spelling", ["{}", "{}/", "{}/.", "{}/../model"])
    async def test_in_a_directory(self, site: Site, spelling: str) -> None:
        """A directory is found however it is spelled."""
        path = site.model(site.module())
        theirs, mine = await both(spelling.format(path))
        assert given(mine) == given(theirs)
        assert mine is not theirs

    @pytest.mark.parametrize("form", ["path", "bytes", "BytesIO"])
    @pytest.mark.parametrize(
        "members",
        [
            ["config.yml"],
            ["config.yml", "data/weights"],
            ["inside/config.yml"],
            ["inside/config.yml", "__MACOSX/inside/config.yml", "notes.txt"],
        ],
        ids=", ".join,
    )
    async def test_in_an_archive(self, site: Site, form: str, members: list[str]) -> None:
        """It is at the top, or in the one directory; what tools leave behind does not count."""
        content = zipped(site.module(), *members)
        make: dict[str, Callable[[], Any]] = {
            "path": lambda: site.file(content),
            "bytes": lambda: content,
            "BytesIO": lambda: BytesIO(content),
        }
        theirs, mine = await both(make[form]())
        assert given(mine) == given(theirs)
        await until(lambda: site.unpacked() == [])

    async def test_below_the_load_path(self, site: Site) -> None:
        """A name that is no path is looked for below ``load_path``; a path is not."""
        path = site.model(site.module())
        configure(load_path=str(site.directory))
        for asked in ("model", path):
            theirs, mine = await both(asked)
            assert given(mine) == given(theirs)

    async def test_an_archive_below_the_load_path(self, site: Site) -> None:
        """So is an archive."""
        site.file(zipped(site.module(), "config.yml"))
        configure(load_path=str(site.directory))
        theirs, mine = await both("model.zip")
        assert given(mine) == given(theirs)

    @pytest.mark.parametrize("finder", ["default", "other"])
    async def test_by_a_finder_of_the_configuration(self, site: Site, finder: str) -> None:
        """A finder may be named."""
        theirs, mine = await both(site.model(site.module()), finder=finder)
        assert given(mine) == given(theirs)

    async def test_by_a_finder_of_the_callers(self, site: Site) -> None:
        """A finder may be given; it hears the keywords, as the module does after it."""
        module_id, heard = site.module(), []

        def find(asked: str, **kwargs: Any) -> Any:
            heard.append((asked, kwargs))
            return named(module_id, from_finder=True)

        theirs, mine = await both("a/./name", finder=Finder(find), revision=3)
        assert given(mine) == given(theirs)
        assert mine.given.from_finder
        assert mine.kwargs == {"revision": 3}
        assert heard == [("a/name", {"revision": 3})] * 2

    async def test_by_an_initializer_of_the_callers(self, site: Site) -> None:
        """An initializer may be given in place of a name; it need not be in the configuration."""
        initializer = ours()
        model = await anyload.caikit.load(site.model(site.module()), initializer=initializer)
        assert isinstance(model, Model)
        assert MODEL_MANAGER._initializers == {}
        await rests(initializer)

    async def test_by_the_default_initializer(self, site: Site) -> None:
        """Without a name it is the one called ``default``, which caikit.load uses too."""
        section = {"type": "ANYLOAD", "import_class": "anyload.caikit.AnyloadInitializer"}
        configure(model_management={"initializers": {"default": section}})
        path = site.model(site.module())
        assert isinstance(await anyload.caikit.load(path), Model)
        assert isinstance(caikit.load(path), Model)
        assert list(MODEL_MANAGER._initializers) == ["default"]

    async def test_loads_one_after_the_other_are_distinct(self, site: Site) -> None:
        """Nothing is kept that was not asked for as a singleton."""
        path = site.model(site.module())
        first = await anyload.caikit.load(path, initializer="ours")
        second = await anyload.caikit.load(path, initializer="ours")
        assert first is not second
        await rests()


def absent(site: Site) -> Any:
    return str(site.directory / "absent")


def fails(error: type[Exception]) -> Callable[[Any], None]:
    def body(given: Any) -> None:
        raise error(type(given).__name__)

    return body


CASES: dict[str, Callable[[Site], Any]] = {
    "no such path": absent,
    "an empty name": lambda site: "",
    "a directory without a config": lambda site: str(site.directory),
    "a file that is no archive": lambda site: site.file(b"not an archive"),
    "a config without a module id": lambda site: site.text("name: something\n"),
    "a config with a path": lambda site: site.text("module_id: some\nmodel_path: /\n"),
    "a config that is no mapping": lambda site: site.text("- some\n"),
    "a config that is no YAML": lambda site: site.text("module_id: [\n"),
    "an empty config": lambda site: site.text(""),
    "no such module": lambda site: site.model("absent"),
    "no such module, spelled otherwise": lambda site: site.model("absent") + "/.",
    "no such module in an archive": lambda site: site.file(zipped("absent", "config.yml")),
    "another backend's model": lambda site: site.model(site.module(backend="OTHER")),
    "an archive without a config": lambda site: zipped("", "notes.txt"),
    "an archive with a directory without": lambda site: zipped("", "inside/notes.txt"),
    "an archive with two directories": lambda site: zipped("", "a/config.yml", "b/config.yml"),
    "an archive with a config too deep": lambda site: zipped("", "a/b/config.yml"),
    "an archive by path without": lambda site: site.file(zipped("", "inside/notes.txt")),
    "an archive in memory without": lambda site: BytesIO(zipped("", "inside/notes.txt")),
    "an archive that is damaged": lambda site: zipped("some", "config.yml").replace(b"some", b"or"),
    "bytes that are no archive": lambda site: b"not an archive",
    "no bytes": lambda site: b"",
    "a number": lambda site: 1,
    "a Path": lambda site: site.directory,
    "None": lambda site: None,
    "a module that raises": lambda site: site.model(site.module(fails(ValueError))),
    "a module that returns a foreign type": lambda site: site.model(site.module(lambda given: 1)),
    "the same in an archive": lambda site: zipped(site.module(fails(ValueError)), "config.yml"),
}


def finds_nothing(asked: str, **kwargs: Any) -> None:
    """A finder that finds nothing."""


def finder_fails(asked: str, **kwargs: Any) -> None:
    raise RuntimeError("the catalogue is away")


ARGUMENTS: dict[str, dict[str, Any]] = {
    "a singleton, perhaps": {"load_singleton": "yes"},
    "no such finder": {"finder": "absent"},
    "a finder of a wrong type": {"finder": 1},
    "no such initializer": {"initializer": "absent"},
    "a finder that finds nothing": {"finder": Finder(finds_nothing)},
    "a finder that fails": {"finder": Finder(finder_fails)},
    "a keyword that the finder takes for its own": {"model_path": "twice"},
    "a keyword that the module takes for its own": {"given": "twice"},
}


class TestItFailsAsCaikitDoes:
    """The error is of the same type, says the same, and came from the same."""

    @pytest.mark.parametrize("singleton", [False, True], ids=["", "singleton"])
    @pytest.mark.parametrize("make", CASES.values(), ids=CASES)
    async def test_for_a_model(
        self, site: Site, make: Callable[[Site], Any], singleton: bool
    ) -> None:
        """Whatever is wrong with the model."""
        theirs, mine = await both(make(site), load_singleton=singleton)
        assert raised(mine) == raised(theirs)
        await until(lambda: site.unpacked() == [])
        await rests()

    @pytest.mark.parametrize("arguments", ARGUMENTS.values(), ids=ARGUMENTS)
    async def test_for_an_argument(self, site: Site, arguments: dict[str, Any]) -> None:
        """Whatever is wrong with the call."""
        theirs, mine = await both(site.model(site.module()), **arguments)
        assert raised(mine) == raised(theirs)
        await rests()

    async def test_for_a_model_below_the_load_path(self, site: Site) -> None:
        """Where it was found is in the error."""
        site.model("absent")
        configure(load_path=str(site.directory))
        theirs, mine = await both("model")
        assert raised(mine) == raised(theirs)
        await rests()


class TestItDiffersFromCaikit:
    """What the docstring of ``anyload.caikit._manager`` says, and no more."""

    @pytest.mark.parametrize(
        "initializer",
        ["caikits", LocalModelInitializer({}, "caikits"), object()],
        ids=["by name", "given", "something else"],
    )
    async def test_the_initializer_has_to_be_ours(self, site: Site, initializer: Any) -> None:
        """Another initializer has no threads to load in; the error says what to configure."""
        with pytest.raises(TypeError, match=r"needs an AnyloadInitializer, not .* type: ANYLOAD"):
            await anyload.caikit.load(site.model(site.module()), initializer=initializer)

    async def test_a_file_that_the_module_misses_is_not_a_missing_config(self, site: Site) -> None:
        """Caikit says that there is no config.yml where there is one."""

        def misses(given: Any) -> None:
            raise FileNotFoundError("no weights")

        theirs, mine = await both(site.model(site.module(misses)))
        assert raised(theirs)[0] != raised(mine)[0] == (FileNotFoundError, "no weights")

    @pytest.mark.parametrize(
        "error",
        [SystemExit, KeyboardInterrupt, asyncio.CancelledError, GeneratorExit, StopIteration],
    )
    async def test_what_would_end_the_server_is_a_load_error(
        self, site: Site, error: type[BaseException]
    ) -> None:
        """What is no Exception would end the loop, or pass for a cancelled caller."""

        def ends(given: Any) -> None:
            raise error("enough")

        path = site.model(site.module(ends))
        with pytest.raises(LoadError, match=f"{error.__name__}: enough") as caught:
            await anyload.caikit.load(path, initializer="ours")
        assert type(caught.value.__cause__) is error
        await rests()

    async def test_an_archive_can_be_a_singleton(self, site: Site) -> None:
        """By path; caikit forgets it with the directory that it unpacks it to."""
        path = site.file(zipped(site.module(), "config.yml"))
        first = await anyload.caikit.load(path, initializer="ours", load_singleton=True)
        again = await anyload.caikit.load(path, initializer="ours", load_singleton=True)
        assert first is again
