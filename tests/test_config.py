"""What an operator may configure, how it is read, and how a mistake in it is told."""

import enum
import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, Field, Secret, SecretStr

from anyload._reading.model_fields import parse_model_fields
from anyload._reading.names import wrong_with_name
from anyload._reading.problems import shown
from anyload.config import (
    BackendConfig,
    BackendEntry,
    InitializerConfig,
    check_backend_types,
    load_config,
    validate_backend_config,
)
from anyload.errors import ConfigError


def problems(source: Any, **options: Any) -> dict[str, str]:
    """Return what is wrong, by where."""
    with pytest.raises(ConfigError) as caught:
        load_config(source, **options)
    return dict(caught.value.problems)


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "models.yml"
    path.write_text(text)
    return path


FLAT = """
backend_priority:
  - {type: GPU, timeout: 30, config: {device: 0}}
  - {type: LOCAL, config: }
load_timeout: null
max_concurrent_loads: 2
on_error: raise
modules:
  sentiment: "my_server.modules:Sentiment"
  topics: {GPU: "my_server.gpu:Topics.Fast", LOCAL: "my_server.cpu:Topics"}
backend_types:
  GPU: "my_server.backends:Gpu"
models:
  language-id: {module_id: fasttext, model_path: lid.176.ftz, labels: [en, de]}
  team/absolute: {module_id: fasttext, model_path: /srv/lid.ftz, model_backend: GPU}
  bare: {module_id: fasttext}
"""


class TestReading:
    def test_defaults(self) -> None:
        """An empty mapping is the default configuration."""
        config = load_config({})
        assert config == InitializerConfig()
        assert config.backend_priority == (BackendEntry(type="LOCAL"),)
        assert (config.max_concurrent_loads, config.max_abandoned_loads) == (4, 4)
        assert config.load_timeout is config.prepare_timeout is config.release_timeout is None
        assert (config.on_error, config.warmup, config.catalogue_only) == ("next", True, False)
        assert config.model_root is None

    def test_a_flat_file(self, tmp_path: Path) -> None:
        """Every section of the design's example is read."""
        config = load_config(written(tmp_path, FLAT))
        gpu, local = config.backend_priority
        assert (gpu.type, gpu.timeout, gpu.config) == ("GPU", 30.0, {"device": 0})
        assert (local.type, local.timeout, local.config) == ("LOCAL", None, {})
        assert config.on_error == "raise"
        assert config.modules["sentiment"] == {"LOCAL": "my_server.modules:Sentiment"}
        assert config.modules["topics"]["GPU"] == "my_server.gpu:Topics.Fast"
        assert config.backend_types == {"GPU": "my_server.backends:Gpu"}
        assert config.models["language-id"].model_extra == {"labels": ["en", "de"]}

    def test_a_path_in_a_file_is_relative_to_the_file(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Whatever the working directory is when it is used."""
        written(tmp_path, FLAT + "model_root: store")
        monkeypatch.chdir(tmp_path)
        config = load_config("models.yml")
        assert config.models["language-id"].model_path == str(tmp_path / "lid.176.ftz")
        assert config.models["team/absolute"].model_path == "/srv/lid.ftz"
        assert config.models["bare"].model_path is None
        assert config.model_root == tmp_path / "store"

    def test_a_path_in_a_mapping_stays_as_given(self) -> None:
        """There is no file that it could be relative to."""
        models = {"a": {"module_id": "m", "model_path": Path("x/y")}}
        config = load_config({"models": models, "model_root": Path("store")})
        assert config.models["a"].model_path == "x/y"
        assert config.model_root == Path("store")

    def test_a_made_configuration_is_returned(self) -> None:
        """Only keys of the code change it; the environment does not."""
        made = InitializerConfig(max_concurrent_loads=2)
        assert load_config(made, environ={"ANYLOAD__MAX_CONCURRENT_LOADS": "3"}) is made
        changed = load_config(made, overrides={"warmup": False})
        assert (changed.max_concurrent_loads, changed.warmup) == (2, False)
        assert problems(made, known_types=["GPU"]) == {
            "backend_priority[0].type": "unknown backend type 'LOCAL'; registered types are GPU"
        }

    def test_the_callers_mapping_is_not_changed(self) -> None:
        """The environment is laid over a copy."""
        given = {"backend_priority": ({"type": "GPU"},)}
        config = load_config(given, environ={"ANYLOAD__BACKEND_PRIORITY__0__TIMEOUT": "3"})
        assert config.backend_priority[0].timeout == 3
        assert given == {"backend_priority": ({"type": "GPU"},)}

    def test_a_configuration_cannot_be_changed(self) -> None:
        """It is frozen."""
        with pytest.raises(ValueError, match="frozen"):
            InitializerConfig().warmup = False

    def test_it_describes_itself(self) -> None:
        """The JSON schema names every key, for editors."""
        schema = InitializerConfig.model_json_schema()
        assert schema["properties"].keys() == InitializerConfig.model_fields.keys()
        assert schema["properties"]["backend_priority"]["minItems"] == 1

    @pytest.mark.parametrize("make", ["absent", "directory", "empty", "list"])
    def test_a_file_that_cannot_be_used(self, tmp_path: Path, make: str) -> None:
        """The file is named, and what it is."""
        path = tmp_path / "models.yml"
        if make == "directory":
            path.mkdir()
        elif make != "absent":
            path.write_text({"empty": "", "list": "- a"}[make])
        with pytest.raises(ConfigError) as caught:
            load_config(path)
        assert caught.value.source == str(path)
        what = {
            "absent": "not found",
            "directory": "a directory, not a file",
            "empty": "empty",
            "list": "expected a mapping, not a list",
        }
        assert caught.value.problems == (("", what[make]),)

    def test_a_path_of_nothing(self) -> None:
        """It is shown."""
        with pytest.raises(ConfigError, match=r"^'': not found$"):
            load_config("")

    def test_a_link_to_the_operators_file_is_followed(self, tmp_path: Path) -> None:
        """A mounted ConfigMap is a link."""
        (tmp_path / "link.yml").symlink_to(written(tmp_path, "warmup: false"))
        assert load_config(tmp_path / "link.yml").warmup is False


class TestCaikit:
    FILE = """
log: {level: info}
runtime: {port: 8085}
model_management:
  finders: {default: {type: LOCAL}}
  initializers:
    default:
      type: LOCAL
      config:
        backend_priority: [{type: GPU, config: {device: 0}}, {type: LOCAL}]
    second: {type: LOCAL}
"""

    def test_a_caikit_file_is_read_unchanged(self, tmp_path: Path) -> None:
        """Its other sections and the initializer's type are not ours."""
        config = load_config(written(tmp_path, self.FILE))
        assert [entry.type for entry in config.backend_priority] == ["GPU", "LOCAL"]

    def test_another_initializer(self, tmp_path: Path) -> None:
        """It is chosen by name; without a config it has the defaults."""
        assert load_config(written(tmp_path, self.FILE), name="second") == load_config({})

    def test_an_initializer_that_is_not_there(self, tmp_path: Path) -> None:
        """The names that are there are told."""
        assert problems(written(tmp_path, self.FILE), name="third") == {
            "model_management.initializers.third": "missing; it has 'default', 'second'"
        }
        assert problems({"model_management": {}}) == {"model_management.initializers": "missing"}

    def test_a_section_that_is_no_mapping(self) -> None:
        """Each step of the way is checked."""
        section: Any = {"initializers": {"default": {"config": [1]}}}
        where = "model_management.initializers.default.config"
        assert problems({"model_management": section}) == {where: "expected a mapping, not a list"}
        where = "model_management.initializers"
        section = {"initializers": 3}
        assert problems({"model_management": section}) == {where: "expected a mapping, not 3"}

    def test_what_caikit_takes_no_notice_of_is_no_error(self) -> None:
        """Its LOCAL has no config, whatever a file says; the same of another backend is read."""
        entries: list[dict[str, Any]] = [
            {"type": "LOCAL", "config": {"x": 1}, "timeout": 3},
            {"type": "LOCAL"},
        ]
        config: dict[str, Any] = {
            "backend_priority": [*entries, {"type": "GPU", "config": {"x": 1}}]
        }
        document = {"model_management": {"initializers": {"default": {"config": config}}}}
        local, other, gpu = load_config(document).backend_priority
        assert (local.config, local.timeout) == (other.config, 3.0) == ({}, 3.0)
        assert gpu.config == {"x": 1}
        assert "config" in entries[0]
        config["backend_priority"] = 3
        where = "model_management.initializers.default.config.backend_priority"
        assert problems(document) == {where: "expected a list with at least one backend, not 3"}

    def test_a_problem_has_its_whole_place(self) -> None:
        """The place is the one in the file; a key of the code has none there."""
        config = {"backend_priority": [{"type": "LOCAL", "timout": 3}]}
        document = {"model_management": {"initializers": {"default": {"config": config}}}}
        assert problems(document, overrides={"warmup": 1}) == {
            "model_management.initializers.default.config.backend_priority[0].timout": (
                "unknown key; did you mean 'timeout'?"
            ),
            "warmup": "expected true or false, not 1",
        }


SECONDS = "expected a positive number of seconds, not "
PRIORITY = "expected a list with at least one backend, not "
IMPORT = "expected an import path, 'package.module:Class', not "


class TestMistakes:
    @pytest.mark.parametrize("value", [True, 0, -1, "3", 10**400, [1]])
    def test_a_duration(self, value: object) -> None:
        """It is a positive number of seconds, whatever pydantic could make of it."""
        wrong = f"{SECONDS}{shown(value)}"
        assert problems({"load_timeout": value}) == {"load_timeout": wrong}
        entry = {"type": "LOCAL", "stall_timeout": value}
        where = "backend_priority[0].stall_timeout"
        assert problems({"backend_priority": [entry]}) == {where: wrong}

    @pytest.mark.parametrize("text", ["yes", "0", "-1", ".nan", ".inf", "-.inf", '"30"', "1e400"])
    def test_a_duration_in_a_file(self, tmp_path: Path, text: str) -> None:
        """YAML's other words for a number are refused, too."""
        found = problems(written(tmp_path, f"load_timeout: {text}"))
        assert found["load_timeout"].startswith(SECONDS)

    @pytest.mark.parametrize("value", [2.5, True, 10**30, 10**5000, 0, 1025, "4", None], ids=shown)
    def test_a_number_of_loads(self, value: object) -> None:
        """It is an integer of a stated range."""
        found = problems({"max_concurrent_loads": value})["max_concurrent_loads"]
        assert found.startswith("expected an integer 1..1024, not ")
        assert len(found) < 200

    def test_no_abandoned_load_is_allowed(self) -> None:
        """0 means never abandon."""
        assert load_config({"max_abandoned_loads": 0}).max_abandoned_loads == 0
        found = problems({"max_abandoned_loads": -1})
        assert found == {"max_abandoned_loads": "expected an integer 0..1024, not -1"}

    def test_backends_without_an_end(self) -> None:
        """What is of the right kind is not said to be of another."""
        found = problems({"backend_priority": [{"type": "LOCAL"}] * 1025})
        assert found == {"backend_priority": "expected a list of at most 1024 backends"}
        found = problems({"backend_priority": {}})
        assert found == {"backend_priority": f"{PRIORITY}a mapping"}

    @pytest.mark.parametrize(
        ("data", "where", "what"),
        [
            ({"backend_priority": []}, "backend_priority", PRIORITY.removesuffix(", not ")),
            ({"backend_priority": None}, "backend_priority", f"{PRIORITY}None"),
            ({"backend_priority": ["GPU"]}, "backend_priority[0]", "expected a mapping, not 'GPU'"),
            (
                {"backend_priority": [{"type": "A"}, {"type": "B", "config": 3}]},
                "backend_priority[1].config",
                "expected a mapping, not 3",
            ),
            ({"backend_priority": [{}]}, "backend_priority[0].type", "missing"),
            (
                {"backend_priority": [{"type": ""}]},
                "backend_priority[0].type",
                "expected a non-empty string, not ''",
            ),
            ({"on_error": "skip"}, "on_error", "expected 'next' or 'raise', not 'skip'"),
            ({"warmup": "no"}, "warmup", "expected true or false, not 'no'"),
            ({"model_root": ""}, "model_root", "expected a path, not ''"),
            ({"model_root": "a\0"}, "model_root", "expected a path, not 'a\\x00'"),
            ({"model_root": 3}, "model_root", "expected a path, not 3"),
            ({"modules": {"a": "b"}}, "modules.a", f"{IMPORT}'b'"),
            ({"modules": {"a": {"GPU": "b.c:"}}}, "modules.a.GPU", f"{IMPORT}'b.c:'"),
            ({"modules": {"a": 3}}, "modules.a", "expected a mapping, not 3"),
            ({"modules": {1: "b:c"}}, "modules[1]", "expected a non-empty string"),
            ({"backend_types": {"G": "a b:c"}}, "backend_types.G", f"{IMPORT}'a b:c'"),
            ({"models": ["a"]}, "models", "expected a mapping, not a list"),
            ({"models": {"a": {}}}, "models.a.module_id", "missing"),
            ({"models": {"a/../x": {"module_id": "m"}}}, "models['a/../x']", "outside the root"),
            ({"models": {"a\n": {"module_id": "m"}}}, "models['a\\n']", "invalid name"),
            (
                {"models": {"a": {"module_id": "m", "model_path": 3}}},
                "models.a.model_path",
                "expected a path, not 3",
            ),
            ({3: 4}, "[3]", "key must be a string"),
            ({"lode_timeout": 3}, "lode_timeout", "unknown key; did you mean 'load_timeout'?"),
            ({"zzz": 3}, "zzz", "unknown key"),
        ],
    )
    def test_each_is_told_by_its_place(self, data: Any, where: str, what: str) -> None:
        """The key and the value are named."""
        assert problems(data) == {where: what}

    def test_all_are_told_at_once(self) -> None:
        """Unknown keys, missing keys and unknown types come in one error."""
        data = {
            "backend_priority": [{"type": "TPU", "timout": 3}, {"config": {}}],
            "backend_types": {"GPU": "a:B"},
        }
        assert problems(data, known_types=["LOCAL"]) == {
            "backend_priority[0].type": (
                "unknown backend type 'TPU'; registered types are GPU, LOCAL"
            ),
            "backend_priority[0].timout": "unknown key; did you mean 'timeout'?",
            "backend_priority[1].type": "missing; registered types are GPU, LOCAL",
        }

    def test_types_of_what_is_no_entry_are_not_checked(self) -> None:
        """What is no list or no mapping is told once, and nothing breaks on it."""
        options: Any = {"known_types": ["LOCAL"]}
        assert problems({"backend_priority": "GPU"}, **options).keys() == {"backend_priority"}
        data = {"backend_priority": ["GPU"], "backend_types": 3}
        assert problems(data, **options).keys() == {"backend_priority[0]", "backend_types"}

    def test_a_known_type_is_no_problem(self) -> None:
        """The check passes."""
        assert load_config({}, known_types=["LOCAL"]) == InitializerConfig()

    def test_long_values_and_many_problems_are_cut(self) -> None:
        """An error is read by a person."""
        found = problems({"on_error": "x" * 10_000})["on_error"]
        assert found.endswith("xxx'...")
        assert len(found) < 200
        many = problems({f"key{n}": 1 for n in range(100_000)})
        assert len(many) == 21
        assert many[""] == "and 99980 more problems"
        assert len(next(iter(problems({"k" * 5000: 1})))) < 200

    def test_a_backends_config_is_never_shown(self) -> None:
        """It may hold secrets."""
        entry = {"type": "GPU", "config": {"token": "hunter2"}, "timeout": 0}
        with pytest.raises(ConfigError) as caught:
            load_config({"backend_priority": [entry, {"config": {"token": "hunter2"}}]})
        assert "hunter2" not in str(caught.value)
        assert "hunter2" not in repr(BackendEntry(type="GPU", config={"token": "hunter2"}))


class TestEnvironment:
    def test_a_variable_names_a_key_or_an_index(self) -> None:
        """At any depth, in any case, and with an underscore for a hyphen."""
        config = load_config(
            {
                "backend_priority": [{"type": "GPU"}, {"type": "LOCAL"}],
                "models": {"language-id": {"module_id": "m", "labels": ["a", "b"]}},
            },
            environ={
                "PATH": "/bin",
                "ANYLOAD__LOAD_TIMEOUT": "30",
                "ANYLOAD__warmup": "off",
                "ANYLOAD__BACKEND_PRIORITY__0__TIMEOUT": "1.5",
                "ANYLOAD__BACKEND_PRIORITY__1__CONFIG__DEVICE": "0",
                "ANYLOAD__MODELS__LANGUAGE_ID__LABELS__1": "'7'",
                "ANYLOAD__MODULES__SENTIMENT__GPU": "a.b:C",
                "ANYLOAD__BACKEND_TYPES__GPU": "a.b:D",
                "ANYLOAD__MODELS__NEW__MODULE_ID": "m",
            },
        )
        gpu, local = config.backend_priority
        assert (gpu.timeout, local.config) == (1.5, {"device": 0})
        assert (config.load_timeout, config.warmup) == (30, False)
        assert config.models["language-id"].model_extra == {"labels": ["a", "7"]}
        assert config.models["new"].module_id == "m"
        assert config.modules == {"sentiment": {"GPU": "a.b:C"}}
        assert config.backend_types == {"GPU": "a.b:D"}

    def test_the_default_entry_can_be_named(self) -> None:
        """A file without a priority list has one entry, LOCAL."""
        config = load_config({}, environ={"ANYLOAD__BACKEND_PRIORITY__0__TIMEOUT": "30"})
        assert config.backend_priority == (BackendEntry(type="LOCAL", timeout=30),)

    def test_entries_are_added_in_order(self) -> None:
        """One past the end adds an entry; ten comes after nine."""
        types = {f"ANYLOAD__BACKEND_PRIORITY__{n}__TYPE": f"T{n}" for n in range(12)}
        config = load_config({"backend_priority": None}, environ=types)
        assert [entry.type for entry in config.backend_priority] == [f"T{n}" for n in range(12)]

    def test_precedence(self, tmp_path: Path) -> None:
        """Code, environment, file, default."""
        path = written(tmp_path, "load_timeout: 1\nprepare_timeout: 1\nrelease_timeout: 1")
        config = load_config(
            path,
            environ={"ANYLOAD__LOAD_TIMEOUT": "2", "ANYLOAD__PREPARE_TIMEOUT": "2"},
            overrides={"load_timeout": 3},
        )
        assert config.load_timeout == 3
        assert config.prepare_timeout == 2
        assert config.release_timeout == 1
        assert config.max_concurrent_loads == 4

    @pytest.mark.parametrize(
        ("key", "value", "what"),
        [
            ("LODE_TIMEOUT", "3", "lode_timeout: unknown key; did you mean 'load_timeout'?"),
            (
                "BACKEND_PRIORITY__0__TIMOUT",
                "3",
                "backend_priority[0].timout: unknown key; did you mean 'timeout'?",
            ),
            ("BACKEND_PRIORITY__2__TYPE", "3", "backend_priority has no entry '2'"),
            ("BACKEND_PRIORITY__X__TYPE", "3", "backend_priority has no entry 'X'"),
            ("BACKEND_PRIORITY__0__TYPE__X", "3", "backend_priority[0].type has no keys"),
            ("LOAD_TIMEOUT", "hunter2", "load_timeout: expected a positive number of seconds"),
            ("LOAD_TIMEOUT", "[hunter2]", "expected a YAML scalar"),
            ("LOAD_TIMEOUT", "*hunter2", "expected a YAML scalar"),
            ("", "3", "an empty key"),
            ("MODELS____X", "3", "an empty key"),
            ("ON_ERROR", "hunter2", "on_error: expected 'next' or 'raise'"),
            ("LOAD_TIMEOUT__X", "3", "load_timeout: expected a positive number of seconds"),
            ("MODELS__0__MODULE_ID__X", "3", "models.0.module_id: expected a non-empty string"),
            ("MODELS__../X__MODULE_ID", "m", "models['../x']: outside the root"),
            ("BACKEND_PRIORITY__1__TIMEOUT", "3", "backend_priority[1].type: missing"),
            ("LOAD_TIMEOUT\udcff", "3", "its name cannot be printed: no key is like that"),
        ],
    )
    def test_a_problem_names_the_variable_and_not_its_value(
        self, key: str, value: str, what: str
    ) -> None:
        """An environment holds secrets."""
        assert problems({}, environ={f"ANYLOAD__{key}": value}) == {f"ANYLOAD__{key}": what}

    def test_names_that_are_numbers(self) -> None:
        """What somebody named so is in a mapping, and no list is made of it."""
        environ = {
            "ANYLOAD__MODELS__0__MODULE_ID": "m",
            "ANYLOAD__MODELS__0__SIZES__0": "3",
            "ANYLOAD__MODULES__1__LOCAL": "a:B",
            "ANYLOAD__REPOSITORY__MODELS__0__PIN": "true",
        }
        config = load_config({}, environ=environ)
        assert config.models["0"].module_id == "m"
        assert config.models["0"].model_extra == {"sizes": [3]}
        assert config.modules == {"1": {"LOCAL": "a:B"}}
        assert config.repository.models["0"].pin

    def test_two_variables_for_one_key(self) -> None:
        """Neither wins by chance."""
        environ = {"ANYLOAD__LOAD_TIMEOUT": "1", "ANYLOAD__load_timeout": "2"}
        what = "names the same key as ANYLOAD__LOAD_TIMEOUT"
        assert problems({}, environ=environ) == {"ANYLOAD__load_timeout": what}

    def test_a_key_of_the_code_hides_what_the_environment_said(self) -> None:
        """The problem is then the code's."""
        environ = {"ANYLOAD__LOAD_TIMEOUT": "1"}
        found = problems({}, environ=environ, overrides={"load_timeout": 0})
        assert found == {"load_timeout": f"{SECONDS}0"}


class Colour(enum.Enum):
    RED = "red"


class Inner(BaseModel):
    password: SecretStr = SecretStr("")
    size: int = 0


class Gpu(BackendConfig):
    device: int = 0
    token: SecretStr | None = None
    pin: Secret[int] | None = None
    inner: Inner | None = None
    named: dict[str, Inner] = Field(default_factory=dict)
    sizes: dict[str, list[int]] = Field(default_factory=dict)
    cache: Path = Path()
    colour: Colour = Colour.RED
    name: str = Field("a", pattern="^a")


class TestBackendConfig:
    def wrong(self, values: dict[str, Any]) -> dict[str, str]:
        with pytest.raises(ConfigError) as caught:
            validate_backend_config(Gpu, values, where="backend_priority[0].config", source="f")
        assert caught.value.source == "f"
        assert "hunter2" not in str(caught.value)
        prefix = "backend_priority[0].config"
        assert all(where.startswith(prefix) for where, _ in caught.value.problems)
        return {where[len(prefix) :]: what for where, what in caught.value.problems}

    def test_a_files_values_become_the_fields_types(self) -> None:
        """Strict, but a path, an enum and a secret can be written in YAML."""
        values = {"cache": "/tmp", "colour": "red", "token": "hunter2"}
        made = validate_backend_config(Gpu, values, where="w", source="s")
        assert (made.cache, made.colour) == (Path("/tmp"), Colour.RED)
        assert "hunter2" not in repr(made)

    def test_values_of_the_code_are_taken_as_they_are(self) -> None:
        """A secret that is one already stays one."""
        made = validate_backend_config(Gpu, {"token": SecretStr("x")}, where="w", source="s")
        assert made.token.get_secret_value() == "x"

    def test_problems_are_told_by_their_place(self) -> None:
        """Below the entry's own config."""
        assert self.wrong(
            {"device": "0", "devise": 1, "sizes": {"a": [1, "b"]}, "name": "x", "colour": "blue"}
        ) == {
            ".device": "expected an integer, not '0'",
            ".devise": "unknown key; did you mean 'device'?",
            ".sizes.a[1]": "expected an integer, not 'b'",
            ".name": "String should match pattern '^a', not 'x'",
            ".colour": "expected 'red', not 'blue'",
        }

    def test_a_secret_is_never_shown(self) -> None:
        """Neither its value, nor that of a key that may be misspelled."""
        found = self.wrong(
            {
                "token": ["hunter2"],
                "tokem": "hunter2",
                "pin": "hunter2",
                "inner": {"password": {"a": "hunter2"}, "size": "big"},
                "named": {"a": {"password": ["hunter2"]}, "b": "hunter2"},
            }
        )
        assert found[".pin"] == "expected an integer"
        assert found[".inner.size"].endswith(", not 'big'")
        assert found[".named.b"].startswith("expected")

    def test_a_problem_of_the_whole(self) -> None:
        """It has the place of the config."""

        class Picky(BackendConfig):
            def model_post_init(self, context: object) -> None:
                raise ValueError("no")

        with pytest.raises(ConfigError) as caught:
            validate_backend_config(Picky, {}, where="w", source="s")
        assert caught.value.problems == (("w", "no"),)

    @pytest.mark.parametrize("error", [KeyError("hunter2"), SystemExit("hunter2")])
    def test_a_check_that_is_broken(self, error: BaseException) -> None:
        """What pydantic does not take for an objection is one of the config all the same."""

        class Picky(BackendConfig):
            def model_post_init(self, context: object) -> None:
                raise error

        with pytest.raises(ConfigError) as caught:
            validate_backend_config(Picky, {}, where="w", source="s")
        ((where, what),) = caught.value.problems
        assert where == "w"
        assert what.endswith(f"Picky raised {type(error).__name__}")

    def test_an_interrupt_in_a_check(self) -> None:
        """It is the person's who starts the server."""

        class Slow(BackendConfig):
            def model_post_init(self, context: object) -> None:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            validate_backend_config(Slow, {}, where="w", source="s")


def test_check_backend_types() -> None:
    """Each unknown type is named with its index."""
    config = load_config({"backend_priority": [{"type": "LOCAL"}, {"type": "gpu"}]})
    check_backend_types(config, {"LOCAL", "gpu"}, "f")
    with pytest.raises(ConfigError) as caught:
        check_backend_types(config, {"LOCAL", "GPU"}, "f")
    what = "unknown backend type 'gpu'; registered types are GPU, LOCAL"
    assert caught.value.problems == (("backend_priority[1].type", what),)


class TestModelFields:
    def test_fields(self) -> None:
        """The module id, the optional backend, and the module's own."""
        text = b"module_id: sentiment\nmodel_backend:\nlabels: [a, b]"
        fields = {"module_id": "sentiment", "model_backend": None, "labels": ["a", "b"]}
        assert parse_model_fields(text, "config.yml") == fields

    @pytest.mark.parametrize(
        ("text", "found"),
        [
            ("labels: []", {"module_id": "missing"}),
            ("module_id: ''", {"module_id": "expected a non-empty string, not ''"}),
            ("module_id:", {"module_id": "expected a non-empty string, not None"}),
            (
                "{module_id: 3, model_backend: [a], model_path: x}",
                {
                    "module_id": "expected a non-empty string, not 3",
                    "model_backend": "expected a non-empty string, not a list",
                    "model_path": (
                        "reserved; the path of a model is the directory its config.yml is in"
                    ),
                },
            ),
        ],
    )
    def test_mistakes(self, text: str, found: dict[str, str]) -> None:
        """All of them are told at once."""
        with pytest.raises(ConfigError) as caught:
            parse_model_fields(text.encode(), "config.yml")
        assert dict(caught.value.problems) == found


@pytest.mark.parametrize("name", ["a", "language-id", "team/model.v1/2", "x" * 128, "a/" * 7 + "a"])
def test_names(name: str) -> None:
    """Segments of letters, digits, dot, underscore and hyphen."""
    assert wrong_with_name(name) is None


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("../x", "outside the root"),
        ("..", "outside the root"),
        ("/etc/passwd", "outside the root"),
        ("a/../../x", "outside the root"),
        ("", "empty segment"),
        (".", "empty segment"),
        ("a//b", "empty segment"),
        ("a\0", "invalid name"),
        ("a\n", "invalid name"),
        ("-rf", "invalid name"),
        ("a\\..\\b", "invalid name"),
        ("%2e%2e/x", "invalid name"),
        ("é", "invalid name"),
        ("x" * 300, "too long: a segment of more than 128 characters"),
        ("a/" * 1999 + "a", "too deep: more than 8 segments"),
    ],
)
def test_wrong_names(name: str, wrong: str) -> None:
    """What is wrong is said in a few words."""
    assert wrong_with_name(name) == wrong


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "None"),
        (1.5, "1.5"),
        ({"a": 1}, "a mapping"),
        ((1,), "a list"),
        (b"x\n", "b'x\\n'"),
        ("x" * 81, f"'{'x' * 80}'..."),
        (10**100, f"1{'0' * 79}..."),
        (10**5000, "an integer of thousands of digits"),
        (Path(), f"a {type(Path()).__name__}"),
    ],
    ids=shown,
)
def test_values_are_shown_short(value: object, text: str) -> None:
    """A list, a mapping and an unknown object only by what they are."""
    assert shown(value) == text


def test_a_configuration_can_be_dumped_as_json() -> None:
    """So that a server can log what it runs with, names only."""
    assert json.loads(InitializerConfig().model_dump_json())["max_concurrent_loads"] == 4
