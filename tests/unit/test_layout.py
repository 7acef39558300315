"""The source keeps its shape: short files, short functions, a docstring on top, exports that are complete."""

from __future__ import annotations

import ast
from pathlib import Path
from types import ModuleType

import pytest

import persistasaurus
from persistasaurus import errors

SRC = Path(__file__).resolve().parents[2] / "src" / "persistasaurus"
MODULES = sorted(SRC.rglob("*.py"))
LONGEST_FILE = 400
LONGEST_FUNCTION = 40

Function = ast.FunctionDef | ast.AsyncFunctionDef

every_module = pytest.mark.parametrize(
    "module", [pytest.param(path, id=path.relative_to(SRC).as_posix()) for path in MODULES]
)


def test_the_source_is_found() -> None:
    """Without this, the tests below would pass by looking at nothing."""
    assert SRC / "__init__.py" in MODULES


@every_module
def test_a_file_has_at_most_400_lines(module: Path) -> None:
    """A file that outgrows this holds two ideas."""
    lines = len(module.read_text("utf-8").splitlines())

    assert lines <= LONGEST_FILE, f"{module} has {lines} lines. Find the two ideas in it and part them."


@every_module
def test_a_function_has_at_most_40_lines(module: Path) -> None:
    """Docstrings do not count; nested functions count in the one that holds them too."""
    functions = [node for node in ast.walk(_tree(module)) if isinstance(node, Function)]

    too_long = {f"{node.name} (line {node.lineno})": _lines(node) for node in functions}
    too_long = {where: lines for where, lines in too_long.items() if lines > LONGEST_FUNCTION}

    assert not too_long, f"{module} has functions of more than {LONGEST_FUNCTION} lines: {too_long}"


@every_module
def test_a_module_has_a_docstring(module: Path) -> None:
    """The first thing in a file says what the file is for."""
    assert ast.get_docstring(_tree(module)), f"{module} does not say what it is for."


def test_lines_of_a_function_are_counted_without_its_docstring() -> None:
    """The measure itself: signature and body count, each docstring inside does not."""
    source = '''
def outer(
    argument,
):
    """Two

    and more lines."""
    def inner():
        """One line."""
        return argument
    return inner
'''
    outer, inner = (node for node in ast.walk(ast.parse(source)) if isinstance(node, Function))

    assert (outer.name, _lines(outer)) == ("outer", 6)
    assert (inner.name, _lines(inner)) == ("inner", 2)


def test_the_exports_are_sorted_and_equal_the_public_names() -> None:
    """`from persistasaurus import *` gives what the package's namespace shows."""
    public = {
        name
        for name, value in vars(persistasaurus).items()
        if not name.startswith("_") and not isinstance(value, ModuleType) and name != "annotations"
    }

    assert persistasaurus.__all__ == sorted(persistasaurus.__all__)
    assert set(persistasaurus.__all__) == public


def test_every_error_is_exported() -> None:
    """Whoever catches an error finds it beside the names that raise it."""
    declared = {
        name
        for name, value in vars(errors).items()
        if isinstance(value, type) and issubclass(value, errors.PersistasaurusError)
    }

    assert declared <= set(persistasaurus.__all__)


def _tree(module: Path) -> ast.Module:
    return ast.parse(module.read_text("utf-8"))


def _lines(function: Function) -> int:
    """Return a function's lines from `def` to its end, without the docstrings in it."""
    assert function.end_lineno is not None
    docstrings = [
        node.body[0] for node in ast.walk(function) if isinstance(node, Function) and ast.get_docstring(node)
    ]
    spent = sum(node.end_lineno - node.lineno + 1 for node in docstrings if node.end_lineno is not None)
    return function.end_lineno - function.lineno + 1 - spent
