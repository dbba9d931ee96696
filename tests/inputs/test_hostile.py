"""Bad inputs beyond the table: what somebody thinks of who means harm."""

from __future__ import annotations

import logging
import os
import pickle
import sys
import textwrap
import traceback
import tracemalloc
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from refusals import config_refusal, load_refusal, registry, text_of

from anyload import (
    AnyloadError,
    Backend,
    ConfigError,
    Initializer,
    IntegrityError,
    ModelConfig,
    ModelNotFoundError,
    Registry,
    UnsafeArchiveError,
)
from anyload.config import BackendConfig, load_catalogue, load_config
from anyload.testing import FakeModel

FORGED = "x\nERROR root: forged\x1b[2J\u2028\u202e"


# Names


@pytest.mark.parametrize(
    "name",
    [
        "\uff4d",  # a full-width m, which some normalise to m
        "m\u0301",
        "\u202em",
        "m\u200b",
        "m\x1b[2J",
        "m\r",
        "m ",
        "~",
        "$HOME",
        "m/config.yml/..",
        "file:///etc",
        "//m",
        "m\u2215..",
        "\udcff",
    ],
    ids=ascii,
)
def test_a_name_that_looks_like_another(name: str, tmp_path: Path) -> None:
    """Nothing is normalised, expanded or decoded."""
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "config.yml").write_text("module_id: m\n")
    load_refusal(name, ModelNotFoundError, ConfigError, model_root=str(tmp_path))


@pytest.mark.parametrize(
    "model", [None, 3, b"m", ["m"], True, object()], ids=lambda m: str(type(m))
)
def test_what_is_no_name(model: Any) -> None:
    """It is a mistake of the caller's, and told as one."""
    load_refusal(model, TypeError)


def test_a_name_that_is_almost_one_of_very_many() -> None:
    """It costs nobody a second, and the error does not list ten thousand."""
    models = {f"model-{number}-large": {"module_id": "m"} for number in range(10_000)}
    for options in ({}, {"catalogue_only": True}):
        load_refusal("model-77-lorge", ModelNotFoundError, models=models, **options)


@pytest.mark.parametrize("made", ["loop", "loop.zip", "fifo", "fifo.zip", "socket"])
def test_a_path_of_something_else(made: str, tmp_path: Path) -> None:
    """A link to itself, a FIFO, with the name of an archive or without."""
    path = tmp_path / made
    if "loop" in made:
        path.symlink_to(path)
    else:
        os.mkfifo(path)
    load_refusal(str(path), ModelNotFoundError, ConfigError, IntegrityError)


# Configurations that code gives

ITSELF: dict[str, Any] = {}
ITSELF["models"] = ITSELF
DEEP: dict[str, Any] = {}
for _ in range(5000):
    DEEP = {"models": DEEP}


class Broken(int):
    def __repr__(self) -> str:
        raise ZeroDivisionError


CONFIGS: dict[str, tuple[Mapping[Any, Any], str]] = {
    "a mapping in itself": (ITSELF, "limits: deeper than 64 levels"),
    "a deep mapping": (DEEP, "limits: deeper than 64 levels"),
    "a deep list": ({"models": {"a": {"module_id": "m", "x": [DEEP]}}}, "limits: deeper"),
    "a value without a repr": ({"max_concurrent_loads": Broken(5000)}, "not a Broken"),
    "an integer without an end": ({"load_timeout": 10**5000}, "thousands of digits"),
    "a path that cannot be one": ({"model_root": "\ud800"}, "expected a path, not '\\ud800'"),
    "a key that is no text": ({"\ud800": 1}, "['\\ud800']  key must be valid text"),
    "a key in a list that is no text": (
        {"backend_priority": [{"type": "LOCAL", "\udcff": 1}]},
        "backend_priority[0]['\\udcff']  key must be valid text",
    ),
    "a type that is no text": (
        {"backend_priority": [{"type": "\ud800"}]},
        "backend_priority[0].type  expected valid text, not '\\ud800'",
    ),
    "a key that forges a line": ({FORGED: 1}, "unknown key"),
    "a type that forges a line": ({"backend_priority": [{"type": FORGED}]}, "unknown backend type"),
    "a module that forges a line": ({"modules": {FORGED: "os:getcwd"}}, "a module is a class"),
    "very many backends": (
        {"backend_priority": [{"type": "LOCAL"}] * 10_000},
        "expected a list of at most 1024 backends",
    ),
    "an import path without an end": (
        {"modules": {"m": "a." * 5000 + "b:C"}},
        "modules.m  'a.a.",
    ),
}


@pytest.mark.parametrize("case", CONFIGS)
def test_a_configuration(case: str) -> None:
    """Whatever it is made of, it is refused in our words."""
    data, says = CONFIGS[case]
    assert says in config_refusal(data)


@pytest.mark.parametrize("path", ["/dev/zero", "/proc/self/mem", "/etc", "a\0", "x" * 5000, FORGED])
def test_the_file_of_a_configuration(path: str) -> None:
    """It may be anything."""
    config_refusal(path)


# The environment

ENVIRONMENTS: dict[str, dict[str, str]] = {
    "a name that forges a line": {f"ANYLOAD__{FORGED}": "hunter2"},
    "a very long name": {"ANYLOAD__" + "A" * 1_000_000: "hunter2"},
    "a deep name": {"ANYLOAD" + "__A" * 30_000: "hunter2"},
    "a deep free field": {"ANYLOAD__MODELS__A" + "__A" * 30_000: "hunter2"},
    "an undecodable name": {"ANYLOAD__\udcff": "hunter2"},
    "very many names": {f"ANYLOAD__K{number}": "hunter2" for number in range(100_000)},
    "many names": {f"ANYLOAD__K{number}": "[hunter2" for number in range(1000)},
    "a very long value": {"ANYLOAD__LOAD_TIMEOUT": "hunter2" * 1_000_000},
    "a tag": {"ANYLOAD__LOAD_TIMEOUT": "!!python/object/apply:os.system [hunter2]"},
    "an index of another alphabet": {"ANYLOAD__BACKEND_PRIORITY__\u0660__TYPE": "hunter2"},
    "an index far away": {"ANYLOAD__BACKEND_PRIORITY__999999999": "hunter2"},
    "a catalogue entry outside": {"ANYLOAD__MODELS__A/../B__MODULE_ID": "hunter2"},
    "a path": {"ANYLOAD__MODEL_ROOT": "hunter2\x1b"},
    "a type": {"ANYLOAD__BACKEND_PRIORITY__0": "hunter2"},
    "a module": {"ANYLOAD__MODULES__M": "hunter2"},
}


@pytest.mark.parametrize("case", ENVIRONMENTS)
def test_the_environment(case: str) -> None:
    """No variable takes long, and no value of one is told."""
    assert "hunter2" not in config_refusal({}, environ=ENVIRONMENTS[case])


# Import paths


@pytest.mark.parametrize(
    ("code", "says"),
    [
        ("import sys; sys.exit(3)", "SystemExit: 3"),
        ("raise ValueError('x\\nERROR forged')", "ValueError: x\\nERROR forged"),
        ("class Panic(BaseException): pass\nraise Panic('in Rust')", "Panic: in Rust"),
        ("class Model(metaclass=M): pass", "NameError"),
        ("a = \0", "null bytes"),
        ("Model = __import__('os').getcwd", "a module is a class"),
        ("def __getattr__(name): raise SystemExit(name)", "SystemExit: Model"),
        ("class Model:\n  load = property(lambda self: 1 / 0)", "it has no load"),
    ],
)
def test_an_import_path(
    code: str, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is imported may do anything but end the server."""
    (tmp_path / "hostile_module.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "hostile_module", raising=False)
    error = config_refusal({"modules": {"a": "hostile_module:Model"}})
    assert says in error
    monkeypatch.delitem(sys.modules, "hostile_module", raising=False)
    config_refusal({"backend_types": {"GPU": "hostile_module:Model"}})


def test_an_import_that_is_interrupted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C comes out, as ever."""
    (tmp_path / "hostile_module.py").write_text("raise KeyboardInterrupt")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "hostile_module", raising=False)
    with pytest.raises(KeyboardInterrupt):
        Initializer.from_config({"modules": {"a": "hostile_module:Model"}}, registry=Registry())


class Panic(BaseException):
    """As Rust's panics are, through PyO3."""


@pytest.mark.parametrize("raised", [SystemExit(3), Panic(3)], ids=repr)
def test_a_backend_that_ends_the_process(raised: BaseException) -> None:
    """Making it is no time to do so."""

    class Exits(Backend):
        backend_type = "EXITS"

        def __init__(self, config: BackendConfig) -> None:
            raise raised

    known = Registry()
    known.backend_type(Exits)
    with pytest.raises(ConfigError, match=r"backend EXITS cannot be made: \w+: 3"):
        Initializer(known, backend_priority=[{"type": "EXITS"}])


def test_a_models_own_config_imports_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only the operator names what is imported."""
    (tmp_path / "imported_by_a_model.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    text = "module_id: 'imported_by_a_model:Model'\nmodule: 'imported_by_a_model:Model'\n"
    (tmp_path / "config.yml").write_text(text)
    assert "is not registered" in load_refusal(str(tmp_path), ConfigError)
    assert "imported_by_a_model" not in sys.modules


# Plug-ins


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Registry]:
    """Return what installs a package with these entry points, and discovers all there are."""

    def install(entry_points: bytes, code: str = "") -> Registry:
        information = tmp_path / "hostile_plugin-1.0.dist-info"
        information.mkdir()
        (information / "METADATA").write_text("Metadata-Version: 2.1\nName: hostile-plugin\n")
        (information / "entry_points.txt").write_bytes(entry_points)
        (tmp_path / "hostile_plugin.py").write_text(textwrap.dedent(code))
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.delitem(sys.modules, "hostile_plugin", raising=False)
        return Registry.discover()

    return install


@pytest.mark.parametrize(
    ("code", "says"),
    [
        ("import sys; sys.exit(3)", "SystemExit: 3"),
        ("raise OSError('no such device')", "OSError: no such device"),
        ("class Panic(BaseException): pass\nraise Panic('in Rust')", "Panic: in Rust"),
        ("raise RuntimeError('x\\nERROR: forged')", "RuntimeError: x\\nERROR: forged"),
        ("plugin = 3", "TypeError: 'int' object is not callable"),
        ("class plugin: pass", "it has no load classmethod"),
        ("def plugin(registry): raise SystemExit", "SystemExit"),
    ],
)
def test_a_plugin(code: str, says: str, plugin: Callable[..., Registry]) -> None:
    """One that is broken is listed, and stops nothing."""
    known = plugin(b"[anyload.modules]\nhostile = hostile_plugin:plugin\n", code)
    [broken] = known.broken_plugins
    assert (broken.group, broken.name) == ("anyload.modules", "hostile")
    assert says in broken.reason
    assert broken.reason.isprintable()
    assert {"sklearn", "torch", "onnx"} <= set(known.modules)


def test_a_plugin_that_is_interrupted(plugin: Callable[..., Registry]) -> None:
    """Ctrl-C comes out, as ever."""
    with pytest.raises(KeyboardInterrupt):
        plugin(b"[anyload.modules]\nzz = hostile_plugin:plugin\n", "raise KeyboardInterrupt")


def test_a_plugin_that_breaks_half_way(plugin: Callable[..., Registry]) -> None:
    """Nothing of it is registered; and it may not take away what others have."""
    code = """
        from anyload import Backend
        from anyload.testing import FakeModel
        class Gpu(Backend):
            backend_type = "HOSTILE"
        def plugin(registry):
            registry.module("half")(FakeModel)
            registry.backend_type(Gpu)
            registry.module("torch")(FakeModel)
    """
    known = plugin(b"[anyload.modules]\nzz = hostile_plugin:plugin\n", code)
    [broken] = known.broken_plugins
    assert "module 'torch' on LOCAL is already implemented" in broken.reason
    assert "half" not in known.modules
    assert "HOSTILE" not in known.backend_types


@pytest.mark.parametrize("entry_points", [b"[anyload.modules]\njunk\n", b"\xff\xfe"])
def test_a_package_whose_metadata_is_broken(
    entry_points: bytes,
    plugin: Callable[..., Registry],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It is listed for each group; the plug-ins of the others are there, of each the first."""
    shadowed = tmp_path / "behind" / "anyload-0.0.dist-info"
    shadowed.mkdir(parents=True)
    (shadowed / "METADATA").write_text("Metadata-Version: 2.1\nName: anyload\n")
    (shadowed / "entry_points.txt").write_text("[anyload.modules]\nshadowed = os:getcwd\n")
    monkeypatch.setattr(sys, "path", [*sys.path, str(shadowed.parent)])
    known = plugin(entry_points)
    assert [broken.name for broken in known.broken_plugins] == ["hostile-plugin"] * 2
    assert {"sklearn", "torch", "onnx"} <= set(known.modules)
    assert "shadowed" not in known.modules
    assert "CUDA" in known.backend_types


# Model directories


@pytest.mark.parametrize(
    "text",
    [
        'module_id: "x\\nERROR forged"',
        f"module_id: {'x' * 100_000}",
        'module_id: m\nmodel_backend: "X\\nERROR forged"',
        '"x\\nERROR forged": !!tag 1',
        f"module_id: m\nx: {'9' * 5000}",
        "module_id: m\nx: " + "[" * 5000,
    ],
    ids=lambda text: text[:30],
)
def test_a_models_config(text: str, tmp_path: Path) -> None:
    """It forges no line, and makes no error without an end."""
    (tmp_path / "config.yml").write_text(text)
    load_refusal(str(tmp_path))


@pytest.mark.parametrize(
    "text", ["self: 1", "cls: 2", "from_operator: true", "__class__: 3", "fields: 4", "at: 5"]
)
def test_a_field_with_a_name_of_ours(text: str, tmp_path: Path) -> None:
    """It is a field, and changes nothing of the config."""
    (tmp_path / "config.yml").write_text(f"module_id: m\n{text}\n")
    with Initializer(registry()) as initializer:
        config = initializer.init_sync(str(tmp_path)).config
    assert type(config) is ModelConfig
    assert config.from_operator is False
    assert config[text.partition(":")[0]] is not None


ZEROS = b"0" * 64


@pytest.mark.parametrize(
    ("manifest", "files"),
    [
        (ZEROS + b"  config.yml\n", ["x\nERROR forged"]),
        (ZEROS + b"  ../../../etc/passwd\n", []),
        (ZEROS + b"  " + b"x" * 1_000_000, []),
        (ZEROS + b"  x\x1b[2J\n", []),
        (b"\\" + ZEROS + b"  x\\ny\n", []),
        (b"\xff", []),
        (b"", []),
        (b"\n" * 100_000, []),
        (b"x" * 5_000_000, []),
    ],
    ids=lambda value: ascii(value)[:40],
)
def test_a_manifest(manifest: bytes, files: list[str], tmp_path: Path) -> None:
    """Nor do names in a manifest, or beside one."""
    (tmp_path / "config.yml").write_text("module_id: m\n")
    (tmp_path / "SHA256SUMS").write_bytes(manifest)
    for name in files:
        (tmp_path / name).touch()
    load_refusal(str(tmp_path), IntegrityError)


def test_an_archive_whose_name_forges_a_line(tmp_path: Path) -> None:
    """The name of the file is told, in one line."""
    archive = tmp_path / "x\x1b[2J\u2028.zip"
    archive.write_bytes(b"")
    load_refusal(str(archive), IntegrityError, UnsafeArchiveError)


# Secrets


class Card(BackendConfig):
    token: SecretStr | None = None
    device: int = 0
    names: tuple[int, ...] = ()


class CardBackend(Backend):
    backend_type = "CARD"
    Config = Card


def with_card() -> Registry:
    known = registry()
    known.backend_type(CardBackend)
    return known


def everything_of(error: BaseException) -> str:
    """Return all that a log could have of an error: its text, its chain, its pickle."""
    frames = "".join(traceback.format_exception(error))
    return text_of(error) + repr(error) + frames + ascii(pickle.dumps(error))


PRIORITY = "ANYLOAD__BACKEND_PRIORITY__0__"


@pytest.mark.parametrize(
    "environ",
    [
        {"CONFIG__TOKEN": "[hunter2]"},
        {"CONFIG__DEVICE": "hunter2"},
        {"CONFIG__NAMES__0": "hunter2"},
        {"CONFIG": "hunter2"},
        {"CONFIG__OTHER": "hunter2"},
        {"TIMEOUT": "hunter2"},
    ],
    ids=lambda environ: next(iter(environ)),
)
def test_a_value_of_the_environment_is_in_no_error(environ: dict[str, str]) -> None:
    """Neither where we find it wrong, nor where the backend's own config does."""
    environ = {PRIORITY + name: value for name, value in environ.items()}
    data = {"backend_priority": [{"type": "CARD"}]}
    known = with_card()
    with pytest.raises(ConfigError) as caught:
        Initializer.from_config(data, registry=known, environ=environ)
    assert "hunter2" not in everything_of(caught.value)


def test_a_value_of_the_environment_stays_one_in_a_configuration_that_is_made() -> None:
    """What is made once may be used again; a key that the code gives instead is the code's."""
    environ = {PRIORITY + "CONFIG__DEVICE": "hunter2"}
    made = load_config({"backend_priority": [{"type": "CARD"}]}, environ=environ)
    changed: tuple[dict[str, Any], ...] = ({}, {"warmup": False})
    for overrides in changed:
        with pytest.raises(ConfigError) as caught:
            Initializer.from_config(made, registry=with_card(), **overrides)
        assert "hunter2" not in str(caught.value)
    mine = [{"type": "CARD", "config": {"device": "mine"}}]
    with pytest.raises(ConfigError, match="not 'mine'"):
        Initializer.from_config(made, registry=with_card(), backend_priority=mine)


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("MODULES__A", "hunter2:x"),
        ("MODULES__A", "os:hunter2"),
        ("MODULES__A__LOCAL", "collections:OrderedDict"),
        ("BACKEND_TYPES__X", "hunter2.y:x"),
        ("BACKEND_TYPES__X", "collections:OrderedDict"),
        ("BACKEND_TYPES__CARD", "anyload.backends:LocalBackend"),
        ("BACKEND_PRIORITY__0__TYPE", "HUNTER2"),
        ("BACKEND_PRIORITY__0__CONFIG__DEVISE", "hunter2"),
        ("MODELS__A__MODULE_ID", "hunter2"),
    ],
)
def test_an_error_names_the_variable_and_not_its_value(variable: str, value: str) -> None:
    """Also what the registry, an import or a backend finds; and of a configuration that is made."""
    environ = {f"ANYLOAD__{variable}": value}
    data = {"backend_priority": [{"type": "CARD"}]}
    for source in (data, load_config(data, environ=environ)):
        with pytest.raises(ConfigError) as caught:
            Initializer.from_config(source, registry=with_card(), environ=environ).init_sync("a")
        (problem,) = caught.value.problems
        assert problem.where == f"ANYLOAD__{variable}"
        told = everything_of(caught.value)
        assert value not in told
        assert "hunter2" not in told.lower()


def test_an_error_names_no_variable_of_another_entry(tmp_path: Path) -> None:
    """Of an entry, or a file, that happens to say the same; what that is remains untold."""
    (tmp_path / "config.yml").write_text("module_id: hunter2\n")
    environ = {"ANYLOAD__MODELS__A__MODULE_ID": "hunter2"}
    data = {"models": {"b": {"module_id": "hunter2"}}}
    with Initializer.from_config(data, registry=Registry(), environ=environ) as initializer:
        for model in ("b", str(tmp_path), ModelConfig("hunter2")):
            with pytest.raises(ConfigError) as caught:
                initializer.init_sync(model)
            (problem,) = caught.value.problems
            assert problem.where == "module_id"
            assert problem.what.startswith("not registered; ")


def test_a_value_of_the_environment_is_not_told_when_the_catalogue_is_read_again() -> None:
    """Each entry's problems name the variable, and go without its value."""
    environ = {
        "ANYLOAD__REPOSITORY__MODELS__a__MEMORY": "hunter2",
        "ANYLOAD__MODELS__b__MODULE_ID": "m",
        "ANYLOAD__MODELS__b__MODEL_BACKEND": "2",
    }
    _, _, errors = load_catalogue({}, environ=environ)
    assert {error.problems for error in errors.values()} == {
        (
            (
                "ANYLOAD__REPOSITORY__MODELS__a__MEMORY",
                "repository.models.a.memory: expected a size, such as 2147483648 or 2GiB",
            ),
        ),
        (
            (
                "ANYLOAD__MODELS__b__MODEL_BACKEND",
                "models.b.model_backend: expected a non-empty string",
            ),
        ),
    }


SECRET = "hunter2"
"""By this name, as a traceback shows the source of the test too."""


class Raises(FakeModel):
    @classmethod
    def load(cls, config: ModelConfig, **kwargs: Any) -> Any:
        raise ValueError("broken weights")


async def test_no_secret_is_told(caplog: pytest.LogCaptureFixture) -> None:
    """Not by errors, events, logs or reprs: of backends' configs, fields, load kwargs."""
    known = with_card()
    known.module("m", "CARD")(Raises)
    known.module("broken")(Raises)
    events: list[Any] = []
    caplog.set_level(logging.DEBUG)
    options: dict[str, Any] = {
        "backend_priority": [{"type": "CARD", "config": {"token": SECRET}}, {"type": "LOCAL"}],
        "models": {"a": {"module_id": "m", "api_key": SECRET}},
    }
    async with Initializer.from_config(
        {}, registry=known, environ={}, hooks=[events.append], **options
    ) as initializer:
        model = await initializer.init("a", password=SECRET)
        assert model.config.api_key == SECRET
        broken = ModelConfig("broken", api_key=SECRET)
        with pytest.raises(AnyloadError) as caught:
            await initializer.init(broken, password=SECRET)
        seen = [repr(initializer), repr(broken), repr(initializer.backends), caplog.text]
        seen += [repr(await initializer.plan("a")), str(load_config(options))]
    seen += [everything_of(caught.value), *map(str, events), *map(repr, events)]
    assert len(events) > 5
    assert not [text for text in seen if SECRET in text]


@pytest.mark.parametrize("name", ["x" * 4_000_000, "\\n" * 2_000_000])
def test_a_manifest_of_one_endless_name(name: str, tmp_path: Path) -> None:
    """It takes some times its own size, and not hundreds of times."""
    (tmp_path / "config.yml").write_text("module_id: m\n")
    (tmp_path / "SHA256SUMS").write_text("\\" + "0" * 64 + "  " + name)
    given = Registry()
    given.module("m")(FakeModel)
    tracemalloc.start()
    try:
        with Initializer(given) as initializer, pytest.raises(IntegrityError):
            initializer.init_sync(str(tmp_path))
        assert tracemalloc.get_traced_memory()[1] < 100_000_000
    finally:
        tracemalloc.stop()
