"""The module ``spacy``: pipelines of spaCy."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import made_tabular as make
import pytest
from loading import Loader

from anyload import IntegrityError, ModelConfig
from anyload.adapters.spacy import SpacyModel


@pytest.fixture(scope="session")
def model(made: Path) -> Path:
    return make.spacy_pipeline(made / "spacy")


@pytest.fixture
def copy(model: Path, tmp_path: Path) -> Path:
    """A pipeline that a test may break."""
    return Path(shutil.copytree(model, tmp_path / "pipeline"))


async def test_a_pipeline_loads_reads_and_is_released(loader: Loader, model: Path) -> None:
    """One text is read; the report says where it is and what it holds."""
    loaded, report = await loader.load("spacy", model)
    assert isinstance(loaded, SpacyModel)
    (doc,) = loaded.pipe(["a good film. a bad one."])
    assert set(doc.cats) == {"GOOD", "BAD"}
    assert len(list(doc.sents)) == 2
    observed = report.observed
    size = sum(file.stat().st_size for file in model.rglob("*") if file.is_file())
    assert (observed.device, observed.memory_bytes) == ("cpu", size)
    assert (observed.changes, observed.warnings) == ((), ())
    loaded.release()
    with pytest.raises(RuntimeError, match="this model was released"):
        loaded.pipe(["more"])


async def test_its_own_config_may_say_what_runs(loader: Loader, copy: Path) -> None:
    """A config.yml beside what spaCy wrote."""
    (copy / "config.yml").write_text("module_id: spacy\nexclude: [textcat]\ntrim_memory: false\n")
    async with loader.initializer() as initializer:
        loaded = await initializer.init(copy)
    assert loaded.nlp.component_names == ["sentencizer"]
    loaded.release()


@pytest.mark.parametrize(
    ("fields", "runs", "has"),
    [
        ({}, ["sentencizer", "textcat"], ["sentencizer", "textcat"]),
        ({"disable": ["textcat"]}, ["sentencizer"], ["sentencizer", "textcat"]),
        ({"enable": ["textcat"]}, ["textcat"], ["sentencizer", "textcat"]),
        ({"exclude": ["sentencizer"]}, ["textcat"], ["textcat"]),
    ],
)
async def test_components_are_chosen(
    fields: dict[str, Any], runs: list[str], has: list[str], loader: Loader, model: Path
) -> None:
    """As spaCy does it: what is disabled can be enabled, what is excluded is not there."""
    loaded, _ = await loader.load("spacy", model, **fields)
    assert (loaded.nlp.pipe_names, loaded.nlp.component_names) == (runs, has)


@pytest.mark.parametrize("field", ["disable", "exclude", "enable"])
async def test_a_component_that_is_not_there_is_told(
    field: str, loader: Loader, model: Path
) -> None:
    """Most of them would be taken without a word."""
    reason = await loader.error("spacy", model, **{field: ["sentencizer", "nosuch"]})
    assert reason.startswith("ConfigError")
    assert f"{field}[1]  the pipeline has no 'nosuch'" in reason
    assert "its components are sentencizer, textcat" in reason


async def test_choices_that_contradict_each_other_are_told(loader: Loader, model: Path) -> None:
    """That is nothing that is wrong with the files."""
    reason = await loader.error("spacy", model, enable=["textcat"], disable=["textcat"])
    assert reason.startswith("ValueError: [E1042]")


async def test_a_component_that_nothing_installed_makes_is_told(loader: Loader, copy: Path) -> None:
    """Nor is this: a package is missing."""
    config = copy / "config.cfg"
    config.write_text(config.read_text().replace('factory = "sentencizer"', 'factory = "nosuch"'))
    assert (await loader.error("spacy", copy)).startswith("ValueError: [E002]")


@pytest.mark.parametrize("name", ["meta.json", "config.cfg"])
@pytest.mark.parametrize(
    "content",
    [
        lambda whole: None,
        lambda whole: b"",
        lambda whole: whole[: len(whole) // 2],
        lambda whole: b"hello",
        lambda whole: b"\x89PNG\r\n\x1a\n",
    ],
)
def test_a_description_that_is_broken_is_named(content: Any, name: str, copy: Path) -> None:
    """Missing, empty, cut short, of another kind: the error names the file."""
    damage(copy / name, content)
    SpacyModel.prepare()
    with pytest.raises(IntegrityError) as caught:
        SpacyModel.load(ModelConfig("spacy", copy))
    # What is a valid file, and not what spaCy needs, is told only of the directory.
    assert caught.value.path in (str(copy / name), str(copy))


@pytest.mark.parametrize("name", ["textcat/model", "tokenizer", "vocab/strings.json"])
@pytest.mark.parametrize(
    "content",
    [
        lambda whole: None,
        lambda whole: b"",
        lambda whole: whole[: len(whole) // 2],
        lambda whole: b"hello",
    ],
)
def test_a_part_that_is_broken_is_an_error(content: Any, name: str, copy: Path) -> None:
    """The framework does not always say which part it is; the directory is named."""
    damage(copy / name, content)
    SpacyModel.prepare()
    with pytest.raises(IntegrityError) as caught:
        SpacyModel.load(ModelConfig("spacy", copy))
    assert caught.value.path == str(copy)


def damage(file: Path, content: Any) -> None:
    changed = content(file.read_bytes())
    if changed is None:
        file.unlink()
    else:
        file.write_bytes(changed)


async def test_what_is_no_pipeline_is_an_error(loader: Loader, tmp_path: Path) -> None:
    """An empty directory, and a file; a name is never taken for a package."""
    assert "meta.json: there is no such file" in await loader.error("spacy", tmp_path)
    file = tmp_path / "model.txt"
    file.write_text("hello")
    assert "a spaCy pipeline is a directory" in await loader.error("spacy", file)


async def test_an_unknown_field_is_told_with_what_was_meant(loader: Loader, model: Path) -> None:
    """The fields of a model config are checked like those of a configuration."""
    assert "did you mean 'disable'?" in await loader.error("spacy", model, disabled=["textcat"])


@pytest.mark.filterwarnings("ignore:.*W095")
async def test_the_version_of_a_pipeline_is_reported(loader: Loader, copy: Path) -> None:
    """If it was made for others than this one; spaCy itself only warns."""
    import spacy

    meta = copy / "meta.json"
    fields = json.loads(meta.read_text())
    meta.write_text(json.dumps({**fields, "spacy_version": ">=2.0.0,<2.1.0"}))
    _, report = await loader.load("spacy", copy)
    assert report.observed.warnings == (
        f"saved for spaCy >=2.0.0,<2.1.0, loaded with {spacy.__version__}",
    )


@pytest.mark.parametrize("source", ["en_core_web_sm", "/models/other", "../other"])
async def test_a_component_from_elsewhere_is_refused(
    source: str, loader: Loader, copy: Path
) -> None:
    """It would be a package that is imported, or another directory."""
    config = copy / "config.cfg"
    text = config.read_text().replace('factory = "sentencizer"', f'source = "{source}"')
    config.write_text(text)
    reason = await loader.error("spacy", copy)
    assert reason.startswith(f"IntegrityError: {config}: its component 'sentencizer' has a source")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ([], "its document is not an object"),
        ({"lang": 1}, "its 'lang' is not a text"),
        ({"spacy_version": [3, 8]}, "its 'spacy_version' is not a text"),
        ({"vectors": []}, "its 'vectors' is not an object"),
        ({"_sourced_vectors_hashes": 1}, "its '_sourced_vectors_hashes' is not an object"),
    ],
)
async def test_a_description_of_a_wrong_shape_is_told(
    content: object, says: str, loader: Loader, copy: Path
) -> None:
    """It is valid JSON, and none that spaCy writes."""
    (copy / "meta.json").write_text(json.dumps(content))
    reason = await loader.error("spacy", copy)
    assert reason == f"IntegrityError: {copy / 'meta.json'}: {says}"


@pytest.mark.parametrize(
    ("written", "instead", "says"),
    [
        ("pipeline = ", "pipeline = 1\nold = ", "its nlp.pipeline is not a list of names"),
        ("pipeline = ", "pipeline = [1]\nold = ", "its nlp.pipeline is not a list of names"),
        ("[components]", "[components]\nother = 1", "its component 'other' is not a section"),
        ("[components.textcat]", "[components]", "section 'components' already exists"),
        ("batch_size = ", "batch_size = ${nosuch.thing}\nold = ", "Config validation error"),
    ],
)
async def test_components_of_a_wrong_shape_are_told(
    written: str, instead: str, says: str, loader: Loader, copy: Path
) -> None:
    """Nothing is guessed."""
    config = copy / "config.cfg"
    assert written in config.read_text()
    config.write_text(config.read_text().replace(written, instead))
    reason = await loader.error("spacy", copy)
    assert reason.startswith("IntegrityError: ")
    assert says in reason


class TestFunctions:
    """A config.cfg names functions, which are called as the pipeline is made."""

    READS = '@readers = "srsly.read_json.v1"\npath = "{}"'

    @pytest.fixture
    def elsewhere(self, tmp_path: Path) -> Path:
        """A path that is not in the pipeline, where nothing is."""
        return tmp_path / "elsewhere.json"

    @pytest.mark.parametrize(
        ("section", "content", "named"),
        [
            ("components.sentencizer.punct_chars", READS, "@readers = 'srsly.read_json.v1'"),
            ("nlp.after_creation", READS, "@readers = 'srsly.read_json.v1'"),
            (
                "nlp.after_creation",
                '@callbacks = "spacy.copy_from_base_model.v1"\ntokenizer = "{}"',
                "@callbacks = 'spacy.copy_from_base_model.v1'",
            ),
            (
                "nlp.after_creation",
                '@loggers = "spacy.ConsoleLogger.v3"\noutput_file = "{}"',
                "@loggers = 'spacy.ConsoleLogger.v3'",
            ),
            (
                "components.sentencizer.punct_chars",
                '@misc = "spacy.KBFromFile.v1"\nkb_path = "{}"',
                "@misc = 'spacy.KBFromFile.v1'",
            ),
        ],
    )
    async def test_that_read_or_write_elsewhere_are_refused(
        self, section: str, content: str, named: str, loader: Loader, copy: Path, elsewhere: Path
    ) -> None:
        """They are not called: what they would say of a missing file is not what is said."""
        add(copy, section, content.format(elsewhere))
        reason = await loader.error("spacy", copy)
        assert reason.startswith(f"IntegrityError: {copy / 'config.cfg'}: its {named} may read or")
        assert not elsewhere.exists()

    async def test_of_another_section_are_seen_where_it_is_used(
        self, loader: Loader, copy: Path, elsewhere: Path
    ) -> None:
        """A value may stand for a section that a load does not look at."""
        add(copy, "corpora.other", self.READS.format(elsewhere))
        await loader.load("spacy", copy)
        config = copy / "config.cfg"
        text = config.read_text().replace("punct_chars = null", "punct_chars = ${corpora.other}")
        config.write_text(text)
        assert "its @readers = 'srsly.read_json.v1'" in await loader.error("spacy", copy)


def add(pipeline: Path, section: str, content: str) -> None:
    """Put a section into a pipeline's config.cfg, for the value that was there."""
    config = pipeline / "config.cfg"
    above, _, name = section.rpartition(".")
    head, start, rest = config.read_text().partition(f"[{above}]\n")
    lines = [line for line in rest.splitlines() if not line.startswith(f"{name} = null")]
    config.write_text(f"{head}{start}" + "\n".join([*lines, f"[{section}]", content, ""]))


async def test_a_component_is_not_named_as_a_place_elsewhere(loader: Loader, copy: Path) -> None:
    """The framework reads the directory of that name."""
    config = copy / "config.cfg"
    config.write_text(config.read_text().replace("textcat", "/models/other"))
    reason = await loader.error("spacy", copy)
    assert reason == f"IntegrityError: {config}: its component '/models/other' leaves the directory"
