"""The floors of the design hold: who may import whom, and where state may live.

A file imports from lower floors, or from a file listed above it on its own floor. Imports inside
functions and under ``TYPE_CHECKING`` count like any other. A new file goes into ``FLOORS``.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

import anyload

# Within a floor the order matters: a file sees only what is listed above it.
ADAPTERS = (
    *("lightgbm", "onnx", "safetensors", "sentence_transformers", "sklearn", "spacy"),
    *("torch", "transformers", "xgboost"),
)

FLOORS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("words", ("_text", "reports", "errors", "_out_of_memory", "_cards", "events")),
    (
        "contracts",
        (
            "_reading.__init__",
            "_reading.amounts",
            "_reading.files",
            "_reading.problems",
            "_reading.names",
            "_reading.yaml",
            "_reading.documents",
            "_reading.environment",
            "_reading.checks",
            "_reading.validation",
            "config",
            "_reading.model_fields",
            "_reading.model_files",
            "_reading.members",
            "_reading.zips",
            "_reading.tars",
            "_reading.packed",
            "_reading.archives",
            "_reading.trees",
            "_reading.manifests",
            "_reading.plugins",
            "model_config",
            "contracts",
            "backends",
            "guard",
            "_registration",
            "registry",
        ),
    ),
    (
        "one load",
        (
            "_load.__init__",
            "_load.errands",
            "_load.own_threads",
            "_load.alarms",
            "_load.stacks",
            "_load.keys",
            "_load.plan",
            "_load.flight",
            "_load.failures",
            "_load.key_table",
            "_load.result",
            "_load.outbox",
            "_load.todo",
            "_load.slots",
            "_load.queue",
            "_load.read_ahead",
            "_load.interpreter",
            "_load.process",
            "_load.lookups",
            "_load.obstacles",
            "_load.releases",
            "_load.preparations",
            "_load.prefetching",
            "_load.flights",
            "_load.admission",
            "_load.restoring",
            "_load.turns",
            "_load.observing",
            "_load.call",
            "_load.files",
            "_load.nested",
            "_load.parking",
            "_load.waiters",
            "_load.tasks",
            "_load.dispatch",
            "_load.workers",
            "_load.watchdog",
            "_load.closing",
            "_load.resolver",
            "_load.core",
            "_load.figures",
            "_load.callers",
            "_load.inside",
            "_load.ending",
            "_load.requests",
            "_load.exit",
        ),
    ),
    ("front door", ("_parts", "_setup", "_given", "bulk", "initializer")),
    (
        "keeping",
        (
            "_keeping.__init__",
            *(
                f"_keeping.{name}"
                for name in (
                    *("budget", "policies", "eviction", "cool_down", "failure_memory"),
                    *("left_out", "files", "meter", "states", "records", "seams", "rooms"),
                    *("house", "ways_out", "wishes", "switching", "keeper", "loading", "core"),
                    *("catalogue", "leases", "waiting", "index", "preloading", "closing"),
                )
            ),
            "repository",
        ),
    ),
    (
        "edges",
        (
            "_probes",
            "timeline",
            "_retelling",
            "_drawing.__init__",
            "_drawing.words",
            "_drawing.lanes",
            "_drawing.trace",
            "_drawing.chart",
            "_drawing.strips",
            "_drawing.page",
            "recorder",
            "__init__",
            "adapters.__init__",
            "adapters._framework",
            "adapters._memory",
            "adapters._first_run",
            "adapters.cuda",
            "adapters._directories",
            "adapters._hub",
            "adapters._torch",
            *(f"adapters.{name}" for name in ADAPTERS),
            *(
                f"caikit.{name}"
                for name in (
                    "_options",
                    "_modules",
                    "_found",
                    "_raising",
                    "_initializer",
                    "_manager",
                )
            ),
            "caikit.__init__",
            "_processes",
            "_children",
            "doctor",
            "_examination",
            "_tables",
            "_files",
            "_listing",
            "_bench.__init__",
            "_bench.statistics",
            "_bench.disk",
            "_bench.samples",
            "_bench.measuring",
            "_bench.advice",
            "_bench.findings",
            "bench",
            "_bench.comparison",
            "_bench.tables",
            "_bench.page",
            "_terminal",
            "_watching",
            "_bench.command",
            "_arguments",
            "cli",
            "__main__",
            "testing",
            "pytest_plugin",
        ),
    ),
)

# (file, imported file): why this one import may go up. An entry that is not needed is an error.
UPWARD: dict[tuple[str, str], str] = {
    ("_load.flight", "_load.flights"): "for types only: a Holder leads to its table of flights",
    ("_load.flight", "_load.queue"): "for types only: a flight leads to the lane it is queued in",
    ("_load.flight", "_load.turns"): "for types only: a Holder leads to its turns",
}

# What is not the standard library, and the only files that may import it; None means any file.
PACKAGES: dict[str, tuple[str, ...] | None] = {
    "anyio": None,
    "pydantic": ("config", "_reading.validation"),
    "yaml": ("_reading.yaml",),
    "rich": ("_terminal",),
    "trio": ("_load.waiters",),
    **{
        package: tuple(
            f"caikit.{name}"
            for name in ("_modules", "_found", "_initializer", "_manager", "__init__")
        )
        for package in ("aconfig", "caikit")
    },
    "pytest": ("pytest_plugin",),
    **{
        framework: tuple(f"adapters.{name}" for name in ("_directories", "_torch", *ADAPTERS))
        for framework in (
            *("joblib", "lightgbm", "numpy", "onnxruntime", "safetensors"),
            *("sentence_transformers", "sklearn", "skops", "spacy", "torch", "transformers"),
            "xgboost",
        )
    },
}

# The one file that may keep state at module level.
STATEFUL = ("_load.process",)

# Calls at module level whose results nobody can change, or whose state is per context or loop.
# Those that make a constant want an UPPER_CASE name.
CONSTANT_CALLS = (
    *("MappingProxyType", "compile", "frozenset", "object", "tuple"),
    *("Observed", "ProcessGlobal", "_stream"),  # frozen records of ours
)
OTHER_CALLS = (
    "ContextVar",
    "NewType",
    "ParamSpec",
    "RunVar",
    "TypeVar",
    "TypeVarTuple",
    "getLogger",
    "getattr",  # an alias of what is there
    "namedtuple",
)
# Decorators that put a growing table behind a function.
CACHES = ("cache", "lru_cache")

SOURCE = Path(anyload.__file__).parent


class Import(NamedTuple):
    """One imported module: ``name`` is a file of anyload, or a top-level package."""

    name: str
    ours: bool
    line: int


def files() -> dict[str, Path]:
    """Return every file of anyload by its dotted name inside the package."""
    return {
        ".".join(path.relative_to(SOURCE).with_suffix("").parts): path
        for path in sorted(SOURCE.rglob("*.py"))
    }


FILES = files()
LISTED = tuple(name for _, names in FLOORS for name in names)
RANK = {name: rank for rank, name in enumerate(LISTED)}
FLOOR = {name: floor for floor, names in FLOORS for name in names}


def file_of(dotted: str) -> str:
    """Return the file that the path ``dotted`` inside the package means: an __init__ or itself."""
    package = f"{dotted}.__init__".removeprefix(".")
    return package if package in FILES or not dotted else dotted


def imports_of(name: str, tree: ast.Module) -> Iterator[Import]:
    """Yield every import of the file ``name``, wherever in it."""
    package = name.split(".")[:-1]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield from _absolute(alias.name, (), node.lineno)
        elif isinstance(node, ast.ImportFrom):
            names = tuple(alias.name for alias in node.names)
            if node.level == 0:
                yield from _absolute(node.module or "", names, node.lineno)
            else:
                above = package[: len(package) - (node.level - 1)]
                inside = ".".join([*above, *(node.module or "").split(".")]).strip(".")
                yield from _own(inside, names, node.lineno)


def _absolute(dotted: str, names: tuple[str, ...], line: int) -> Iterator[Import]:
    top, _, rest = dotted.partition(".")
    if top == "anyload":
        yield from _own(rest, names, line)
    else:
        yield Import(top, ours=False, line=line)


def _own(inside: str, names: tuple[str, ...], line: int) -> Iterator[Import]:
    """Yield the files behind ``from anyload.<inside> import <names>``."""
    submodules = {f"{inside}.{name}".strip(".") for name in names}
    known = {name for name in submodules if name in FILES or f"{name}.__init__" in FILES}
    for name in sorted(known):
        yield Import(file_of(name), ours=True, line=line)
    if len(known) < len(submodules) or not names:
        yield Import(file_of(inside), ours=True, line=line)


def state_of(tree: ast.Module) -> Iterator[str]:
    """Yield what in a file is state of the module, as 'line n: why'."""
    for node in _module_level(tree.body):
        match node:
            case ast.Assign(targets=targets, value=value):
                for target in targets:
                    yield from _assigned(target, value)
            case ast.AnnAssign(target=target, value=ast.expr() as value):
                yield from _assigned(target, value)
            case ast.AugAssign() | ast.Delete():
                yield f"line {node.lineno}: changes a name of the module"
            case ast.Expr(value=ast.Call()):
                yield f"line {node.lineno}: a call for its effect, on import"
    for inner in ast.walk(tree):
        if isinstance(inner, ast.Global):
            yield f"line {inner.lineno}: global {', '.join(inner.names)}"
        elif isinstance(inner, ast.FunctionDef | ast.AsyncFunctionDef):
            for decorator in inner.decorator_list:
                called = decorator.func if isinstance(decorator, ast.Call) else decorator
                if _last_name(called) in CACHES:
                    yield f"line {inner.lineno}: {inner.name} keeps a cache"


def _module_level(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """Yield the statements that run on import, out of ``if``, ``try``, ``with`` and loops too."""
    for node in body:
        if isinstance(node, ast.If) and "__main__" in ast.unparse(node.test):
            continue  # runs as a program, not on import
        yield node
        if not isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            for name in ("body", "orelse", "finalbody"):
                yield from _module_level(getattr(node, name, []))
            for caught in getattr(node, "handlers", []):
                yield from _module_level(caught.body)


def _assigned(target: ast.expr, value: ast.expr) -> Iterator[str]:
    if not isinstance(target, ast.Name):
        if isinstance(target, ast.Attribute | ast.Subscript):
            yield f"line {target.lineno}: changes an object on import"
        return
    if target.id == "__all__" and isinstance(value, ast.List | ast.Tuple | ast.Call):
        return
    for part in _parts(value):
        if isinstance(part, ast.Call):
            call = _last_name(part.func)
            if call in OTHER_CALLS:
                continue
            if call in CONSTANT_CALLS:
                if target.id != target.id.upper():
                    yield f"line {target.lineno}: the constant {target.id} is not UPPER_CASE"
                continue
            yield f"line {target.lineno}: {target.id} is what {call}() returns"
        else:
            kind = type(part).__name__.lower()
            yield f"line {target.lineno}: {target.id} is a {kind}, which can be changed"


def _parts(value: ast.expr) -> Iterator[ast.expr]:
    """Yield the parts of a value that are calls, or can be changed."""
    match value:
        case ast.Call() | ast.List() | ast.Dict() | ast.Set():
            yield value
        case ast.ListComp() | ast.DictComp() | ast.SetComp() | ast.GeneratorExp():
            yield value
        case ast.Lambda() | ast.Subscript():  # a function; a type like dict[str, int]
            return
        case _:
            for child in ast.iter_child_nodes(value):
                if isinstance(child, ast.expr):
                    yield from _parts(child)


def _last_name(node: ast.expr) -> str:
    """Return ``c`` of ``a.b.c``."""
    return ast.unparse(node).rpartition(".")[2]


@pytest.fixture(params=[pytest.param(name, id=name) for name in FILES])
def name(request: pytest.FixtureRequest) -> str:
    found: str = request.param
    return found


@pytest.fixture
def tree(name: str) -> ast.Module:
    return ast.parse(FILES[name].read_text(encoding="utf-8"))


def test_every_file_has_a_floor() -> None:
    """The table lists every file once, and no file that does not exist."""
    assert sorted(LISTED) == sorted(FILES)


def test_imports_go_down(name: str, tree: ast.Module) -> None:
    """A file imports from lower floors, or from above itself on its own floor."""
    up = [
        f"line {found.line}: {found.name} ({FLOOR.get(found.name, 'no floor')})"
        for found in imports_of(name, tree)
        if found.ours
        and RANK.get(found.name, sys.maxsize) >= RANK.get(name, -1)
        and (name, found.name) not in UPWARD
    ]
    assert not up, f"{name} ({FLOOR.get(name, 'no floor')}) imports upward"


def test_every_exception_is_needed() -> None:
    """An entry of UPWARD stands for an import that exists, does go up, and has a reason."""
    needed = {
        (name, found.name)
        for name, path in FILES.items()
        for found in imports_of(name, ast.parse(path.read_text(encoding="utf-8")))
        if found.ours and RANK.get(found.name, sys.maxsize) >= RANK.get(name, -1)
    }
    assert set(UPWARD) <= needed
    assert all(UPWARD.values())


def test_packages_stay_where_they_belong(name: str, tree: ast.Module) -> None:
    """Besides the standard library a file imports only the packages it is listed for."""
    foreign = [
        f"line {found.line}: {found.name}"
        for found in imports_of(name, tree)
        if not found.ours
        and found.name not in sys.stdlib_module_names
        # A package that nobody is listed for is refused; None lets every file have it.
        and (where := PACKAGES.get(found.name, ())) is not None
        and name not in where
    ]
    assert not foreign


def test_no_module_keeps_state(name: str, tree: ast.Module) -> None:
    """State lives in objects with a lifetime; what the process shares lives in one file."""
    if name not in STATEFUL:
        assert not list(state_of(tree))


@pytest.mark.parametrize(
    "source",
    [
        "table = {}",
        "TABLE: dict[str, int] = {}",
        "PAIR = (1, [])",
        "names = [n for n in 'abc']",
        "lock = threading.Lock()",
        "limits = frozenset({1})",
        "COUNT = 0\nCOUNT += 1",
        "def f():\n    global count\n    count = 1",
        "import functools\n@functools.lru_cache(maxsize=None)\ndef f(): ...",
        "@cache\ndef f(): ...",
        "os.environ['A'] = 'b'",
        "register(1)",
        "if True:\n    seen = set()",
        "try:\n    pass\nexcept ValueError:\n    seen = []",
    ],
)
def test_state_is_found(source: str) -> None:
    """The check sees what it is for."""
    assert list(state_of(ast.parse(source)))


@pytest.mark.parametrize(
    "source",
    [
        "'''A docstring.'''",
        "__all__ = ['a', 'b']",
        "LIMIT = 3",
        "NAMES = ('a', ('b',), -1)",
        "NAMES = frozenset({'a'})",
        "_TABLE = MappingProxyType({'a': []})",
        "PATTERN = re.compile('a')",
        "logger = logging.getLogger(__name__)",
        "T = TypeVar('T')",
        "current: ContextVar[int] = ContextVar('current')",
        "Load = Callable[[str], dict[str, int]]",
        "Text = str | None",
        "class A:\n    def f(self):\n        seen = []",
    ],
)
def test_constants_are_not_state(source: str) -> None:
    """The check leaves constants, types and loggers alone."""
    assert not list(state_of(ast.parse(source)))


@pytest.mark.parametrize(
    ("source", "names"),
    [
        ("import json.decoder", {"json"}),
        ("from . import errors", {"errors"}),
        ("from . import errors, __version__", {"errors", "__init__"}),
        ("from .errors import LoadError", {"errors"}),
        ("import anyload.errors", {"errors"}),
        ("from anyload import LoadError", {"__init__"}),
        ("from anyload.errors import LoadError", {"errors"}),
        ("def f():\n    from . import errors", {"errors"}),
        ("if TYPE_CHECKING:\n    from .errors import LoadError", {"errors"}),
    ],
)
def test_imports_are_found(source: str, names: set[str]) -> None:
    """The check sees every way to import, at any depth."""
    assert {found.name for found in imports_of("events", ast.parse(source))} == names
