"""Imports run down: five floors, no circle, and no import from a lower floor to a higher one, also not for types alone.

ARCHITECTURE.md draws the floors, and says which file a change goes to: both are held against the files here.
"""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FLOORS = (
    {"colo_proto"},
    {"colo_runtime"},
    {"colo_netdev", "colo_mirror", "colo_redirector", "colo_rewriter", "colo_compare", "colo_frame", "colo_vote"},
    {"colo_lab"},
    {"colo_cli"},
)
PACKAGES = {path.parent.name for base in ("proto", "services") for path in (ROOT / base).glob("colo_*/__init__.py")}
ARCHITECTURE = (ROOT / "ARCHITECTURE.md").read_text()


@cache
def modules():
    """Every module of ours, by its dotted name."""
    found = {}
    for base in ("proto", "services"):
        for path in (ROOT / base).rglob("*.py"):
            parts = path.relative_to(ROOT / base).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


@cache
def tree(path):
    return ast.parse(path.read_text())


@cache
def imports():
    """Module -> modules of ours that it imports, wherever in the file it does so."""
    graph = {}
    for name, path in modules().items():
        graph[name] = set()
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.Import):
                asked = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                assert not node.level, f"{name}: relative"
                inside = [f"{node.module}.{alias.name}" for alias in node.names]
                asked = [one if one in modules() else node.module for one in inside]
            else:
                continue
            graph[name] |= {one for one in asked if one in modules() and one != name}
    return graph


def floor(module):
    return next(number for number, packages in enumerate(FLOORS) if module.partition(".")[0] in packages)


def circles(graph):
    """Sets of modules that need each other (strongly connected components, by Kosaraju's two walks)."""
    order, seen = [], set()

    def walk(start, edges, out):
        stack = [(start, iter(sorted(edges[start])))]
        seen.add(start)
        while stack:
            node, rest = stack[-1]
            following = next((one for one in rest if one not in seen), None)
            if following is None:
                out.append(node)
                stack.pop()
            else:
                seen.add(following)
                stack.append((following, iter(sorted(edges[following]))))

    for node in sorted(graph):
        if node not in seen:
            walk(node, graph, order)
    back = {node: set() for node in graph}
    for node, targets in graph.items():
        for target in targets:
            back[target].add(node)
    seen.clear()
    found = []
    for node in reversed(order):
        if node not in seen:
            together = []
            walk(node, back, together)
            if len(together) > 1:
                found.append(sorted(together))
    return found


def test_circles_are_found():
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": {"a", "d"}}) == [["b", "c"]]


def test_every_package_stands_on_a_floor():
    assert set().union(*FLOORS) == PACKAGES
    assert sum(map(len, FLOORS)) == len(PACKAGES)


def test_no_import_goes_up():
    up = [
        f"{name} imports {one}"
        for name, targets in imports().items()
        for one in targets
        if floor(one) > floor(name)
    ]  # fmt: skip
    assert up == []


def test_services_do_not_know_each_other():
    """What two of them share lies lower."""
    roles = FLOORS[2]
    across = [
        f"{name} imports {one}"
        for name, targets in imports().items()
        for one in targets
        if name.partition(".")[0] in roles and one.partition(".")[0] in roles - {name.partition(".")[0]}
    ]
    assert across == []


def test_the_runtime_names_no_service():
    """Neither by an import nor by a name that it would import later."""
    for name, path in modules().items():
        if floor(name) <= 1:
            for node in ast.walk(tree(path)):
                if isinstance(node, ast.Constant) and isinstance(node.value, str):
                    above = set(re.findall(r"\bcolo_[a-z]+(?=[.:])", node.value)) & set().union(*FLOORS[2:])
                    assert not above or "\n" in node.value or " " in node.value, f"{name}: {node.value!r}"


def test_there_is_no_circle():
    assert circles(imports()) == []


# -- ARCHITECTURE.md ---------------------------------------------------------------------------------------------------


def test_the_floors_are_drawn_as_they_are():
    drawn = re.findall(r"^(\d)  (?:services|proto)/(colo_[a-z]+|colo_<role>)/", ARCHITECTURE, re.MULTILINE)
    assert [number for number, _ in drawn] == ["5", "4", "3", "2", "1"]
    for number, package in drawn:
        assert package == "colo_<role>" or package in FLOORS[int(number) - 1]


@pytest.mark.parametrize("heading", ["One packet's journey", "To change something"])
def test_the_files_that_tables_name_are_there(heading):
    body = ARCHITECTURE.partition(f"## {heading}\n")[2].partition("\n## ")[0]
    rows = [line for line in body.splitlines() if line.startswith("|")][2:]
    assert len(rows) >= 10
    for row in rows:
        for path in re.findall(r"`((?:services|proto|compose|tests)/[^`<]*)`", row):
            assert (ROOT / path).exists(), row
