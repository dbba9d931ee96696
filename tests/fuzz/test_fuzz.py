"""Whatever is read, only our own errors come out, soon, and no text of one forges a line."""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fuzzing import fine_or_refused, fuzzed
from hypothesis import example, given
from hypothesis import strategies as st
from mutations import HOSTILE_TEXT, SCALARS, VALUES, WORDS, damaged
from refusals import registry, text_of

from anyload import Initializer, LoadError, Registry
from anyload.testing import at_rest

FILE = b"""\
backend_priority:
  - {type: LOCAL, timeout: 30, config: {}}
load_timeout: 60.5
max_concurrent_loads: 4
on_error: next
archives: {max_files: 10}
modules: {other: "os:getcwd"}
models:
  a/b: {module_id: m, model_path: x, labels: [1, 2.5, yes, "text"]}
"""
NESTED = b"""\
log: {level: info}
model_management:
  initializers:
    default: {type: LOCAL, config: {warmup: true}}
"""
CONFIG = b"module_id: m\nmodel_backend: LOCAL\nlabels: &l [a, b]\nmore: {x: *l, y: 'z'}\n"
SUM = hashlib.sha256(b"weights").hexdigest().encode()
MANIFEST = b"%s  config.yml\n%s *weights.bin\n" % (hashlib.sha256(CONFIG).hexdigest().encode(), SUM)

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}(/[A-Za-z0-9][A-Za-z0-9._-]{0,127}){0,7}")


def configured(source: Any, **options: Any) -> bool:
    """Return whether a configuration can be used."""
    options.setdefault("environ", {})
    known = registry()
    fine = fine_or_refused(lambda: Initializer.from_config(source, registry=known, **options))
    assert set(known.modules) == {"m"}
    return fine


@pytest.fixture(scope="module")
def directory() -> Iterator[Path]:
    """Return a directory that the examples share."""
    with tempfile.TemporaryDirectory() as made:
        yield Path(made)


@pytest.fixture(scope="module")
def initializer(directory: Path) -> Iterator[Initializer]:
    """Return an initializer that has seen everything, and still is at rest at the end."""
    with Initializer(registry(), model_root=str(directory)) as made:
        yield made
        assert at_rest(made.statistics())


@fuzzed
@given(content=st.one_of(damaged(FILE, NESTED), st.binary(max_size=100)))
def test_the_file_of_a_configuration(content: bytes, directory: Path) -> None:
    """It is damaged, or anything."""
    file = directory / "models.yml"
    file.write_bytes(content)
    configured(file)


@fuzzed
@given(data=st.dictionaries(st.one_of(st.sampled_from(WORDS), HOSTILE_TEXT), VALUES, max_size=6))
@example(data={"modules": {"m": "os:getcwd"}, "models": {"a": {"module_id": "m", "x": {}}}})
def test_a_configuration_of_code(data: dict[str, Any]) -> None:
    """It is made of keys that mean something, and of values that do not."""
    configured(data)


@fuzzed
@given(
    entry=st.fixed_dictionaries({}, optional=dict.fromkeys(WORDS, VALUES)),
    where=st.sampled_from(["backend_priority", "models", "archives", "modules", "backend_types"]),
)
def test_an_entry_of_a_configuration(entry: dict[str, Any], where: str) -> None:
    """Each section is looked into."""
    configured({where: [entry] if where == "backend_priority" else {"a": entry}})
    configured({where: entry})


@fuzzed
@given(
    environ=st.dictionaries(
        st.lists(st.one_of(st.sampled_from([*WORDS, "0", "1"]), HOSTILE_TEXT), max_size=6).map(
            lambda names: "__".join(["ANYLOAD", *names])
        ),
        st.one_of(SCALARS.filter(lambda value: not isinstance(value, int)).map(str), HOSTILE_TEXT),
        max_size=6,
    )
)
def test_the_environment(environ: dict[str, str]) -> None:
    """Names of any depth, and values of any kind."""
    configured({"backend_priority": [{"type": "LOCAL"}]}, environ=environ)


@fuzzed
@given(name=st.one_of(HOSTILE_TEXT, st.from_regex(NAME), st.from_regex(NAME, fullmatch=True)))
def test_a_name_of_the_catalogue(name: str) -> None:
    """What is accepted is just what the rule says, and leads nowhere out of a directory."""
    fine = configured({"models": {name: {"module_id": "m"}}})
    assert fine == bool(NAME.fullmatch(name))
    if fine:
        assert os.path.normpath(f"/root/{name}").startswith("/root/")


@fuzzed
@given(name=st.one_of(HOSTILE_TEXT, st.lists(HOSTILE_TEXT, max_size=8).map("/".join)))
def test_a_name_of_a_model(name: str, initializer: Initializer) -> None:
    """It is refused: nothing here has a config.yml."""
    assert not fine_or_refused(lambda: initializer.init_sync(name, timeout=60))


@fuzzed
@given(content=st.one_of(damaged(CONFIG), st.binary(max_size=100)))
def test_a_models_config(content: bytes, directory: Path, initializer: Initializer) -> None:
    """It loads, or it is refused."""
    model = directory / "model"
    model.mkdir(exist_ok=True)
    (model / "config.yml").write_bytes(content)
    fine_or_refused(lambda: initializer.init_sync(str(model), timeout=60))


@fuzzed
@given(content=damaged(MANIFEST), weights=st.sampled_from([b"weights", b"weight"]))
@example(content=MANIFEST, weights=b"weights")
@example(content=MANIFEST, weights=b"weight")
def test_a_manifest(
    content: bytes, weights: bytes, directory: Path, initializer: Initializer
) -> None:
    """No damage to it makes another file acceptable."""
    model = directory / "listed"
    model.mkdir(exist_ok=True)
    (model / "config.yml").write_bytes(CONFIG)
    (model / "weights.bin").write_bytes(weights)
    (model / "SHA256SUMS").write_bytes(content)
    fine = fine_or_refused(lambda: initializer.init_sync(str(model), timeout=60))
    assert not (fine and weights != b"weights")
    assert fine or content != MANIFEST or weights != b"weights"


@fuzzed
@given(text=HOSTILE_TEXT, other=HOSTILE_TEXT)
def test_what_a_module_raises(text: str, other: str) -> None:
    """Its text is told in one line."""

    class Raises:
        @classmethod
        def load(cls, config: Any) -> Any:
            raise ValueError(text)

    known = Registry()
    known.module("m")(Raises)
    with Initializer(known, models={"a": {"module_id": "m", "x": other}}) as made:
        with pytest.raises(LoadError) as caught:
            made.init_sync("a", timeout=60)
        assert len(text_of(caught.value).split("\n")) == 2
