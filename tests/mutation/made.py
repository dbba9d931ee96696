"""Mutants that mutmut makes of the core: one small change each, wherever its operators find one.

mutmut rather than cosmic-ray, after a trial of both on these files. Of cosmic-ray's 2,538 mutants
1,829 put another operator in the place of the ``|`` of an annotation or of a comparison, and none
takes away a value that is assigned or an argument, of which a state machine consists; mutmut's
2,784 do. It also needs less beside it. Only its operators are used: its runner starts every test
anew, ours forks a process that is warm and knows which tests to ask first.

Three operators are ours, for what the issue of a lock, a flag or a check is about and no tool
takes away: a statement, a condition, and one side of an ``and`` or ``or``.

What cannot matter is left alone: annotations, decorators, what is asserted, texts for people (with
a space in them, or formatted), and whatever is not in a function.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import libcst as cst
from mutmut.mutation.mutators import mutation_operators

CORE = (
    *("admission", "alarms", "callers", "closing", "core", "dispatch", "flight", "flights"),
    *("inside", "key_table", "lookups", "nested", "obstacles", "plan", "preparations", "process"),
    *("queue", "releases", "restoring", "result", "slots", "turns"),
)
"""The files of which mutants are made: those that decide, under the lock."""

LEFT_ALONE = (cst.Annotation, cst.Decorator, cst.Assert, cst.FormattedString)

Operator = Callable[[Any], Iterable[cst.CSTNode]]


class Made(NamedTuple):
    """One mutant.

    Args:
        place: the file and the function that it is in.
        right: the lines that the core has there.
        wrong: the lines that the mutant has in their place.
        text: the whole of the broken file.
    """

    place: str
    right: tuple[str, ...]
    wrong: tuple[str, ...]
    text: str


def left_out(node: cst.BaseSmallStatement) -> Iterator[cst.CSTNode]:
    """Leave out a statement that does something to others than the function itself."""
    match node:
        case (
            cst.Expr(value=cst.Call())
            | cst.AugAssign()
            | cst.Del()
            | cst.Raise()
            | cst.Return(value=None)
            | cst.Assign(targets=[cst.AssignTarget(target=cst.Attribute() | cst.Subscript())])
        ):
            yield cst.Pass()


def turned_round(node: cst.If) -> Iterator[cst.CSTNode]:
    """Do what is done under a condition when it does not hold."""
    test = node.test.with_changes(lpar=[cst.LeftParen()], rpar=[cst.RightParen()])
    yield node.with_changes(test=cst.UnaryOperation(cst.Not(), test))


def one_side(node: cst.BooleanOperation) -> Iterator[cst.CSTNode]:
    """Ask one of two conditions only."""
    for side in (node.left, node.right):
        # The parentheses let it stand on several lines, as the whole does.
        yield side.with_changes(lpar=[cst.LeftParen()], rpar=[cst.RightParen()])


OPERATORS: list[tuple[type, Operator]] = [
    *mutation_operators,
    (cst.BaseSmallStatement, left_out),
    (cst.If, turned_round),
    (cst.BooleanOperation, one_side),
]


class Change(NamedTuple):
    """Something that can be changed in a file; the mutant is made when it is wanted."""

    file: str
    text: str
    module: cst.Module
    place: str
    node: cst.CSTNode
    changed: cst.CSTNode

    def made(self) -> Made | None:
        """Return the mutant, if it is one: None if it is no Python, or the same."""
        module = self.module.deep_replace(self.node, self.changed)
        assert isinstance(module, cst.Module)
        if module.code == self.text or not _is_python(module.code):
            return None
        right, wrong = _differences(self.text, module.code)
        return Made(self.place, right, wrong, module.code)


def changes(file: str, text: str) -> list[Change]:
    """Return everything that can be changed in a file of the core."""
    module = cst.MetadataWrapper(cst.parse_module(text)).module  # in which no node is there twice
    finder = _Finder(file)
    module.visit(finder)
    return [Change(file, text, module, *found) for found in finder.found]


class _Finder(cst.CSTVisitor):
    """Finds what can be changed, and to what."""

    def __init__(self, file: str) -> None:
        super().__init__()
        self._file = file
        self.found: list[tuple[str, cst.CSTNode, cst.CSTNode]] = []
        self._around: list[cst.ClassDef | cst.FunctionDef] = []

    def on_visit(self, node: cst.CSTNode) -> bool:
        if isinstance(node, LEFT_ALONE) or _is_text(node):
            return False
        if any(isinstance(outer, cst.FunctionDef) for outer in self._around):
            place = ".".join([self._file, *(outer.name.value for outer in self._around)])
            self.found += ((place, node, changed) for changed in _changed(node))
        if isinstance(node, (cst.ClassDef, cst.FunctionDef)):
            self._around.append(node)
        return True

    def on_leave(self, original_node: cst.CSTNode) -> None:
        if self._around and self._around[-1] is original_node:
            self._around.pop()


def _changed(node: cst.CSTNode) -> Iterator[cst.CSTNode]:
    changed = (
        other for kind, operator in OPERATORS if isinstance(node, kind) for other in operator(node)
    )
    match node:
        case cst.SimpleString():
            yield from [*changed][:1]  # the others are the same word in other letters
        case cst.Assign(targets=[cst.AssignTarget(cst.Subscript())], value=cst.Name("None")):
            yield cst.Pass()  # a dict without values, whose order counts
        case _:
            yield from changed


def _is_text(node: cst.CSTNode) -> bool:
    return isinstance(node, cst.SimpleString) and " " in node.value


def _is_python(text: str) -> bool:
    try:
        compile(text, "a mutant", "exec", dont_inherit=True)
    except SyntaxError:
        return False
    return True


def _differences(text: str, broken: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    right, wrong = text.split("\n"), broken.split("\n")
    while right and wrong and right[0] == wrong[0]:
        del right[0], wrong[0]
    while right and wrong and right[-1] == wrong[-1]:
        del right[-1], wrong[-1]
    return tuple(right), tuple(wrong)
