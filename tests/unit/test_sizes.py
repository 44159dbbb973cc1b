"""A file is one thing, a function fits on a screen, and what takes many arguments takes a value in their place.

What is larger stands here with its reason, and leaves this list when it becomes smaller.
"""

import ast
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FILE, FUNCTION, PARAMETERS = 400, 60, 8
CODE = sorted(path for base in ("proto", "services") for path in (ROOT / base).rglob("*.py"))

_HOT = "every frame passes it, and a call costs compiled code more than what it would do"
LARGE_FILES = {}
LONG_FUNCTIONS = {
    "services/colo_compare/tcp/flow.py primary": _HOT,
    "services/colo_compare/tcp/commit.py _match": _HOT,
    "services/colo_compare/tcp/state.py blank": "a list of fields and what each means",
    "services/colo_rewriter/flow.py __init__": "a list of fields and what each means",
}
MANY_PARAMETERS = {}


@cache
def functions():
    return [
        (f"{path.relative_to(ROOT)} {node.name}", node)
        for path in CODE
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]


def parameters(node):
    args = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
    return len(args) - (args[0].arg in {"self", "cls"} if args else 0)


def large_files():
    return {str(path.relative_to(ROOT)) for path in CODE if len(path.read_text().splitlines()) > FILE}


def long_functions():
    return {name for name, node in functions() if node.end_lineno - node.lineno + 1 > FUNCTION}


def many_parameters():
    return {name for name, node in functions() if parameters(node) > PARAMETERS}


@pytest.mark.parametrize(
    ("found", "known"),
    [(large_files, LARGE_FILES), (long_functions, LONG_FUNCTIONS), (many_parameters, MANY_PARAMETERS)],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_what_is_large_has_a_reason(found, known):
    large = found()
    assert large - set(known) == set(), "cut it where it is two things"
    assert set(known) - large == set(), "it is smaller now"
