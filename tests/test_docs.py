"""Every Python example of the README and of the pages runs.

The examples of one page run in order, in one namespace, in an empty directory and a process of
their own. What stands around them is part of it:

- a fence with ``title="models.yml"`` is a file: it is written there first. A Python file also runs.
- a text fence with ``title="output"`` is what the block above it prints. Durations and ages may
  differ, and so may line numbers.
- ``<!-- not run: reason -->`` above a Python fence lets it out. It is compiled all the same.
"""

from __future__ import annotations

import contextlib
import io
import linecache
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]

FENCE = re.compile(
    r"(?:^[ ]*<!-- not run: (?P<reason>[^\n]*?) -->\n+)?"
    r"^(?P<indent>[ ]*)```(?P<language>\w+)?(?P<options>[^\n]*)\n"
    r"(?P<text>.*?)"
    r"^(?P=indent)```[ ]*$",
    re.MULTILINE | re.DOTALL,
)
TITLE = re.compile(r'title="([^"]+)"')
DURATION = re.compile(r"\d+(\.\d+)?(e-?\d+)? m?s\b")
LINE = re.compile(r"\.(py|md):\d+")


class Block(NamedTuple):
    """One fence of a page: ``line`` is where its text begins."""

    language: str
    title: str
    text: str
    line: int
    not_run: str | None


def blocks_of(page: Path) -> Iterator[Block]:
    """Yield the fences of a page, in order."""
    content = page.read_text(encoding="utf-8")
    for found in FENCE.finditer(content):
        title = TITLE.search(found["options"])
        indent = len(found["indent"])
        text = "".join(line[indent:] or "\n" for line in found["text"].splitlines(keepends=True))
        line = content.count("\n", 0, found.start("text")) + 1
        yield Block(found["language"] or "", title[1] if title else "", text, line, found["reason"])


def normal(output: str) -> str:
    """Return an output without what differs from run to run."""
    return LINE.sub(r".\1:N", DURATION.sub("T", output)).strip()


def run_page(page: Path) -> None:
    """Run the examples of a page here; the child process does this."""
    name = str(page.relative_to(ROOT))
    content = page.read_text(encoding="utf-8").splitlines(keepends=True)
    # Tracebacks and the stacks that anyload records then show the page's own lines.
    linecache.cache[name] = (sum(map(len, content)), None, content, name)
    namespace = {"__name__": "__main__"}
    printed = ""
    for block in blocks_of(page):
        is_output = block.title == "output"
        if block.title and not is_output:
            file = Path(block.title)
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(block.text, encoding="utf-8")
        if block.language == "python":
            code = compile("\n" * (block.line - 1) + block.text, name, "exec")
            if block.not_run is not None:
                continue
            with contextlib.redirect_stdout(io.StringIO()) as stdout:
                exec(code, namespace)
            printed = stdout.getvalue()
        elif is_output and normal(printed) != normal(block.text):
            raise AssertionError(
                f"{name}:{block.line} says\n{block.text}\nbut it printed\n{printed}"
            )


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_examples_run(page: Path, tmp_path: Path) -> None:
    """Every Python example runs as it stands, without a warning, and prints what the page says."""
    if not any(block.language == "python" for block in blocks_of(page)):
        return
    child = subprocess.run(
        [sys.executable, "-W", "error", __file__, str(page)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *filter(None, sys.path)])},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert child.returncode == 0, f"{child.stdout}\n{child.stderr}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_what_is_not_run_says_why(page: Path) -> None:
    """A Python example that is let out has a reason, and every mark stands above an example."""
    marks = page.read_text(encoding="utf-8").count("<!-- not run")
    reasons = [block.not_run for block in blocks_of(page) if block.not_run is not None]
    assert len(reasons) == marks
    assert all(reasons)


def test_every_page_is_there() -> None:
    """Every page of the navigation exists, and every link of the README leads somewhere."""
    nav = re.findall(r"^ +- .*?([\w-]+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.MULTILINE)
    assert {path.name for path in PAGES[1:]} == set(nav)
    links = re.findall(r"\]\(([^):#]+)(?:#[^)]*)?\)", PAGES[0].read_text(encoding="utf-8"))
    assert links
    assert not [link for link in links if not (ROOT / link).exists()]


def test_the_architecture_names_every_file() -> None:
    """A reader finds each file of the package there, and none that does not exist."""
    named = re.findall(
        r"`((?:\w+/)*\w+\.py)`", (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    )
    package = ROOT / "src" / "anyload"
    existing = {path.relative_to(package).as_posix() for path in package.rglob("*.py")}
    packages = {name for name in existing if name.endswith("/__init__.py")}
    rooms = {name for name in packages if name.startswith("_")} | {"adapters/__init__.py"}
    assert set(named) - {"tests/test_layers.py"} == existing - rooms


if __name__ == "__main__":
    run_page(Path(sys.argv[1]))
