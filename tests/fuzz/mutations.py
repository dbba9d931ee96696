"""Inputs for the fuzz tests: valid ones that were damaged, and ones made of dangerous parts."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

PARTS = [
    *(b"&a ", b"*a", b"<<: ", b"!!python/object/apply:os.system ", b"!!binary ", b"? ", b"- "),
    *(
        b"[",
        b"]",
        b"{",
        b"}",
        b": ",
        b", ",
        b"\n",
        b"\t",
        b"  ",
        b"---\n",
        b"...\n",
        b"%YAML 9.9\n",
    ),
    *(b"\0", b"\xff", b"\xed\xa0\x80", b"\xc2\x85", b"\xe2\x80\xa8", b"\xef\xbb\xbf", b"\x1b[2J"),
    *(b"'", b'"', b'"\\x00"', b'"\\ud800"', b'"\\U00110000"', b"|\n", b">-\n", b"#", b"@", b"`"),
    *(b"null", b"yes", b".nan", b".inf", b"1e400", b"0x" + b"f" * 99, b"9" * 5000, b"1:" * 99),
    *(b"module_id", b"model_path", b"..", b"/", b"\\", b"[" * 99, b"{a: " * 99, b"0" * 64),
]
"""What a mutation inserts."""

WORDS = [
    *("backend_priority", "type", "config", "timeout", "stall_timeout", "load_timeout", "models"),
    *("module_id", "model_path", "model_backend", "modules", "backend_types", "archives", "strict"),
    *("max_concurrent_loads", "max_abandoned_loads", "on_error", "warmup", "guard", "model_root"),
    *("model_management", "initializers", "default", "catalogue_only", "manifests", "max_files"),
]
"""Keys that mean something."""

HOSTILE_TEXT = st.one_of(
    st.text(max_size=20),
    st.sampled_from(
        [
            *("LOCAL", "m", "", ".", "..", "../x", "/", "a/../b", "a\nb", "\0", "\ud800", "\u202e"),
            *(
                "os:getcwd",
                "os.path:join",
                "no.such:Thing",
                "x" * 5000,
                "check",
                "next",
                "{}",
                "%s",
            ),
        ]
    ),
)

SCALARS = st.one_of(
    HOSTILE_TEXT,
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.sampled_from([10**30, 10**400, -1, 0, 1, 4, 0.5, float("nan"), 5e-324]),
)

KEYS = st.one_of(st.sampled_from(WORDS), HOSTILE_TEXT)

VALUES: st.SearchStrategy[Any] = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(KEYS, inner, max_size=5),
    ),
    max_leaves=15,
)


@st.composite
def damaged(draw: st.DrawFn, *valid: bytes) -> bytes:
    """Take a valid input, and cut, repeat, exchange or insert parts of it."""
    content = draw(st.sampled_from(valid))
    for _ in range(draw(st.integers(1, 6))):
        low, high = sorted(draw(st.tuples(*[st.integers(0, len(content))] * 2)))
        part = content[low:high]
        content = draw(
            st.sampled_from(
                [
                    content[:low] + content[high:],
                    content[:low] + part * 2 + content[high:],
                    content[:high] + content[low:],
                ]
            )
            if draw(st.booleans())
            else st.one_of(st.sampled_from(PARTS), st.binary(max_size=8)).map(
                lambda new, low=low, high=high, content=content: (  # type: ignore[misc]
                    content[:low] + new + content[high if len(new) % 2 else low :]
                )
            )
        )
    return content
