"""Reading one YAML document into plain data, within limits."""

import contextlib
import time
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from anyload._reading import yaml as reader
from anyload._reading.yaml import read_yaml_mapping, read_yaml_scalar
from anyload.errors import ConfigError


def refusal(text: bytes | str) -> tuple[str, str]:
    """Return where and what."""
    with pytest.raises(ConfigError) as caught:
        read_yaml_mapping(text.encode() if isinstance(text, str) else text, "config.yml")
    assert caught.value.source == "config.yml"
    (problem,) = caught.value.problems
    return problem.where, problem.what


@pytest.fixture(params=["CSafeLoader", "SafeLoader"], autouse=True)
def _loader(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run every test with libyaml and without it."""
    monkeypatch.setattr(reader, "_Parser", getattr(yaml, request.param))


SAMPLE = """\
text: plain
quoted: "1"
single: 'yes'
block: |
  two
  lines
empty:
nothing: ~
numbers: [0, -7, +3, 12_000, 0x1F, 0b11, 017, 1:30, 1.5, -.5, 1e3, 1.0e+3, .inf]
words: [yes, No, ON, off, true, False, null]
near: [-, --, .., 1.2.3, 0o7, +, 08, "", 123456789012345678901]
nested: {a: {b: [{c: d}]}}
"""


def test_values_are_those_of_the_safe_loader() -> None:
    """The core types read as ``yaml.safe_load`` reads them."""
    assert read_yaml_mapping(SAMPLE.encode(), "s") == yaml.safe_load(SAMPLE)


@pytest.mark.parametrize("date", ["2024-01-31", "2024-01-31 10:00:00"])
def test_a_date_stays_the_text_it_is(date: str) -> None:
    """Free fields hold JSON's types only."""
    assert read_yaml_mapping(f"trained: {date}".encode(), "s") == {"trained": date}


def test_an_alias_repeats_what_its_anchor_names() -> None:
    """A few aliases are fine."""
    text = b"a: &a [1, 2]\nb: *a\nc: &k key\n*k : 3"
    assert read_yaml_mapping(text, "s") == {"a": [1, 2], "b": [1, 2], "c": "key", "key": 3}


def test_a_byte_order_mark_is_no_content() -> None:
    """Editors on Windows write it."""
    assert read_yaml_mapping(b"\xef\xbb\xbfa: 1", "s") == {"a": 1}


@pytest.mark.parametrize("text", ["", "# nothing\n", " \n"])
def test_an_empty_file_is_empty(text: str) -> None:
    """A file of comments is, too."""
    assert refusal(text) == ("", "empty")


@pytest.mark.parametrize(
    ("text", "what"), [("- a", "a list"), ("bare", "'bare'"), ("---\n", "None"), ("1", "1")]
)
def test_anything_but_a_mapping_is_refused(text: str, what: str) -> None:
    """The top is a mapping."""
    assert refusal(text) == ("", f"expected a mapping, not {what}")


@pytest.mark.parametrize(
    ("text", "where", "what"),
    [
        ("a: 1\nb: 2\na: 3", "a", "duplicate key 'a', line 3"),
        ("x:\n- {t: 1, 't': 2}", "x[0].t", "duplicate key 't', line 2"),
        ("a: 1\n---\nb: 2", "", "expected one document; another one starts, line 2"),
        ("{1: a, '1': b}", "", "key must be a string, not 1, line 1"),
        ("on: a", "", "key must be a string, not True, line 1"),
        ("a:\n  ? [b]\n  : c", "a", "key must be a string, not a list or a mapping, line 2"),
        ("a: &n 1\n*n : 2", "", "key must be a string, not 1, line 2"),
        (
            "a: !!python/object/apply:os.system [ls]",
            "a",
            "tag not allowed: '!!python/object/apply:os.system', line 1",
        ),
        ("a: !!str 1", "a", "tag not allowed: '!!str', line 1"),
        ("a: !mine {}", "a", "tag not allowed: '!mine', line 1"),
        ("!!str a: 1", "", "tag not allowed: '!!str', line 1"),
        ("a: &a {b: 1}\nc:\n  <<: *a", "c", "merge keys are not allowed, line 3"),
        ("a: *b", "a", "alias 'b' without an anchor before it, line 1"),
        ("a: &a [*a]", "a[0]", "alias 'a' without an anchor before it, line 1"),
    ],
)
def test_what_is_not_plain_data_is_refused_by_place_and_line(
    text: str, where: str, what: str
) -> None:
    """Duplicates, tags, merge keys and keys that are no text: each says where."""
    assert refusal(text) == (where, what)


def test_a_quoted_merge_key_is_a_key() -> None:
    """Only the plain one means a merge."""
    assert read_yaml_mapping(b"'<<': 1", "s") == {"<<": 1}


@pytest.mark.parametrize(
    ("text", "where"),
    [
        (b"a: 1\nb: x\xff", "line 2, column 5"),
        (b"a: 1\n\xc3\xa9: \x00", "line 2, column 4"),
        (b"a: \xef\xbb\xbf", "line 1, column 4"),
        (b"\xff\xfea\x00", "line 1, column 1"),
        (b"a:\n\tb: 1", "line 2, column 1"),
        (b"a: 1\nb: [1, 2\n", "line 3, column 1"),
        (b"a: b: c", "line 1, column 5"),
    ],
)
def test_what_is_no_yaml_is_refused_by_line_and_column(text: bytes, where: str) -> None:
    """Invalid UTF-8, a NUL and a tab that indents are shown to the place."""
    assert refusal(text)[0] == where


@pytest.mark.parametrize("code", ["00110000", "FFFFFFFF"])
def test_an_escape_beyond_unicode_is_refused(code: str) -> None:
    """The parser without libyaml raises something else than a YAMLError there."""
    assert refusal(f'a: "\\U{code}"')


@pytest.mark.parametrize(
    "number",
    [
        "9" * 5000,
        "1" + ":59" * 300_000,
        "1" + ":59" * 3000 + ".5",
        "0x" + "f" * 900_000,
        "0" + "7" * 900_000,
        "0b" + "1" * 900_000,
        "-1" + "_" * 900_000,
        "1" * 900_000 + ".0",
        "1.0e+" + "9" * 900_000,
    ],
    ids=lambda number: number[:6],
)
def test_a_very_long_number_is_refused_at_once(number: str) -> None:
    """To read one of a megabyte takes minutes, or Python itself refuses."""
    began = time.process_time()
    what = "limits: a number of more than 100 characters, line 2"
    assert refusal(f"a:\n- {number}") == ("a[0]", what)
    with pytest.raises(ConfigError):
        read_yaml_scalar(number, "ANYLOAD__LOAD_TIMEOUT")
    assert time.process_time() - began < 5  # without libyaml it takes a second


def test_a_long_number_is_read() -> None:
    """And what only begins as one is text, however long it is."""
    text = "1" + "0" * 99
    assert read_yaml_mapping(f"a: {text}\nb: {text} m".encode(), "s") == {
        "a": 10**99,
        "b": f"{text} m",
    }


@pytest.mark.parametrize("text", ["0x_", "-0b_"])
def test_a_number_without_digits_is_refused(text: str) -> None:
    """The safe loader takes it for one, and cannot read it."""
    assert refusal(f"a: {text}") == ("a", f"not a number that can be read: {text!r}, line 1")


def bomb(levels: int, width: int) -> str:
    lines = ["a0: &a0 [x]"]
    for level in range(1, levels):
        aliases = ", ".join([f"*a{level - 1}"] * width)
        lines.append(f"a{level}: &a{level} [{aliases}]")
    return "\n".join(lines)


@pytest.mark.parametrize(
    "text",
    [
        "[" * 500,
        "a: " + "[" * 100_000,
        "{a: " * 500,
        bomb(9, 9),
        f"a: &a 1\nb: [{'*a, ' * 65}]",
        bomb(22, 3),
        "a: &a " + f"[{'x, ' * 10_000}]\nb: [{'*a, ' * 60}]",
        "a: " + "x" * 1024 * 1024,
    ],
    ids=lambda text: text[:12],
)
def test_limits_end_a_bomb_at_once(text: str) -> None:
    """Depth, aliases, what aliases repeat, values and length are limited."""
    start = time.process_time()
    assert refusal(text)[1].startswith("limits: ")
    # Without libyaml it takes part of a second; what the limits prevent takes minutes.
    assert time.process_time() - start < 5


def test_a_flat_list_is_limited_too() -> None:
    """A megabyte of it is not read to its end."""
    assert refusal("a: [" + "x, " * 101_000 + "]")[1] == "limits: more than 100000 values, line 1"


def depth(value: Any) -> int:
    return 1 + depth(next(iter(value.values()))) if isinstance(value, dict) else 0


def test_sixty_four_levels_are_not_too_deep() -> None:
    """The limit is met only when it is passed."""
    assert depth(read_yaml_mapping(b"{a: " * 64 + b"1" + b"}" * 64, "s")) == 64
    assert refusal("{a: " * 65 + "1" + "}" * 65)[1] == "limits: deeper than 64 levels, line 1"


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)


@given(st.dictionaries(st.text(), VALUES, max_size=4))
def test_plain_data_survives_a_round_trip(data: dict[str, Any]) -> None:
    """What ``safe_dump`` writes is read back, whatever the strings look like."""
    text = yaml.safe_dump(data, allow_unicode=False)
    if "&id" not in text:
        assert read_yaml_mapping(text.encode(), "s") == data


@given(st.binary(max_size=60))
def test_any_bytes_are_a_mapping_or_a_config_error(text: bytes) -> None:
    """Nothing else gets out."""
    with contextlib.suppress(ConfigError):
        assert isinstance(read_yaml_mapping(text, "s"), dict)


@pytest.mark.parametrize(
    ("text", "value"),
    [("30", 30), ("'30'", "30"), ("yes", True), ("", None), (" ", None), ("a.b:C", "a.b:C")],
)
def test_a_scalar_is_read_as_in_a_file(text: str, value: object) -> None:
    """A variable of the environment holds a YAML scalar."""
    assert read_yaml_scalar(text, "s") == value


@pytest.mark.parametrize("text", ["[1]", "a: 1", "'", "\udcff", "# only"])
def test_what_is_no_scalar_is_refused(text: str) -> None:
    """Lists, mappings and what is no YAML."""
    with pytest.raises(ConfigError):
        read_yaml_scalar(text, "s")
