"""How the tests of bad inputs look at a refusal: soon, one of our errors, and nothing left over."""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from anyload import AnyloadError, Initializer, Registry
from anyload.testing import FakeModel, at_rest

SECONDS = 3.0
"""What is promised is one; this may be a busy machine."""

MANY = 20_000
"""Characters that no error's text has."""


def registry() -> Registry:
    """Return a registry with the module ``m``."""
    known = Registry()
    known.module("m")(FakeModel)
    return known


def text_of(error: BaseException) -> str:
    """Return the text of an error, which has an end, and of which no line is forged."""
    text = str(error)
    assert len(text) < MANY
    assert all(line.isprintable() for line in text.split("\n"))
    for line in text.split("\n")[1:]:
        assert line.startswith("  "), text
    return text


def refusal(call: Callable[[], object], *kinds: type[Exception]) -> str:
    """Return the text of the error that a call ends with, soon."""
    began = time.perf_counter()
    with pytest.raises(kinds or AnyloadError) as caught:
        call()
    assert time.perf_counter() - began < SECONDS
    return text_of(caught.value)


def load_refusal(model: Any, *kinds: type[Exception], **options: Any) -> str:
    """Return the text of the error that loading a model ends with; nothing is left of the load."""
    known = options.pop("registry", None) or registry()
    kwargs = options.pop("load_kwargs", {})
    with Initializer(known, **options) as initializer:
        text = refusal(lambda: initializer.init_sync(model, timeout=60, **kwargs), *kinds)
        figures = initializer.statistics()
        assert (figures.loaded, figures.discarded) == (0, 0)
        assert at_rest(figures)
    return text


def config_refusal(source: Any, **options: Any) -> str:
    """Return the text of the error that a configuration ends with; it starts nothing."""
    known = registry()
    options.setdefault("environ", {})
    threads = set(threading.enumerate())
    text = refusal(lambda: Initializer.from_config(source, registry=known, **options))
    gc.collect()
    assert set(threading.enumerate()) <= threads
    assert set(known.modules) == {"m"}
    assert set(known.backend_types) == {"LOCAL"}
    return text
