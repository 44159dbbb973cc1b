"""`reference/events.md`: every log event that the code can write, with its level and fields, read from the source."""

import ast
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

HEAD = """# Log events

What the processes log, by package: the event's name, its level, and the fields that a line of it can have. Every line
has `event`, `level`, `timestamp`, `role` and `id` as well. With `--log-format json` a line is one JSON object. `*`
stands for a word that is put in while it runs; "others" for fields that depend on what has happened.

The README of each service says what its events mean. A filter's log also has the events of the
[runtime](#runtime), which is the same for all of them.
"""

LEVELS = ("debug", "info", "warning", "error")
MADE_BY = {
    "Log": (0, 1),
    "log": (0, 1),
    "_log": (0, 1),
    "complain": (None, 0),
    "_once": (None, 0),
    "_complain": (None, 0),
}
"""Calls that log: where level and event stand among the arguments. Without a level it is a warning."""
LEVEL_OF = {"_complain": "error"}
EVENT = re.compile(r"[a-z]+\.([a-z_]+|\*)")


@dataclass
class Event:
    """What is known of one event."""

    levels: set[str] = field(default_factory=set)
    fields: dict[str, None] = field(default_factory=dict)
    more: bool = False
    """Are there fields that only the running program knows?"""


def page(services: Path) -> str:
    """The whole page."""
    parts = [HEAD]
    for folder in sorted(services.glob("colo_*")):
        events = of_package(folder)
        if events:
            parts += [
                f"## {folder.name.removeprefix('colo_')}",
                "",
                "| event | level | fields |",
                "| --- | --- | --- |",
            ]
            for name, event in sorted(events.items()):
                levels = ", ".join(one for one in LEVELS if one in event.levels) or "info"
                names = [f"`{one}`" for one in event.fields] + (["others"] if event.more else [])
                parts.append(f"| `{name}` | {levels} | {', '.join(names)} |")
            parts.append("")
    return "\n".join(parts)


def of_package(folder: Path) -> dict[str, Event]:
    """Events of one package, by name."""
    found: dict[str, Event] = defaultdict(Event)
    for path in sorted(folder.rglob("*.py")):
        for scope in _scopes(ast.parse(path.read_text())):
            for call in _calls(scope):
                _read(call, scope, found)
    return dict(found)


def _scopes(tree: ast.Module) -> Iterator[ast.AST]:
    """Functions, each without those inside of it, and the module's own level."""
    yield from (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


def _calls(scope: ast.AST) -> Iterator[ast.Call]:
    inner = {
        id(below)
        for node in ast.walk(scope) if isinstance(node, ast.FunctionDef) and node is not scope
        for below in ast.walk(node)
    }  # fmt: skip
    for node in ast.walk(scope):
        if isinstance(node, ast.Call) and id(node) not in inner and _name(node.func) in MADE_BY:
            yield node


def _name(node: ast.AST) -> str:
    return node.id if isinstance(node, ast.Name) else getattr(node, "attr", "")


def _read(call: ast.Call, scope: ast.AST, found: dict[str, Event]) -> None:
    made_by = _name(call.func)
    level_at, event_at = MADE_BY[made_by]
    if len(call.args) <= event_at:
        return
    names = [one for one in _texts(call.args[event_at], scope) if EVENT.fullmatch(one)]
    levels = {LEVEL_OF.get(made_by, "warning")} if level_at is None else set(_texts(call.args[level_at], scope))
    for name in names:
        event = found[name]
        event.levels |= levels & set(LEVELS)
        fields = [
            *_keywords(call, scope),
            *(_keys(call.args[2], scope) if made_by == "Log" and len(call.args) > 2 else ()),
        ]
        event.more |= None in fields
        event.fields |= dict.fromkeys(one for one in fields if one)


def _texts(node: ast.AST, scope: ast.AST) -> Iterable[str]:
    """The texts that an expression can be, as far as they stand in the same function."""
    match node:
        case ast.Constant(value=str(text)):
            return [text]
        case ast.JoinedStr():
            return ["".join(str(one.value) if isinstance(one, ast.Constant) else "*" for one in node.values)]
        case ast.IfExp():
            return [*_texts(node.body, scope), *_texts(node.orelse, scope)]
        case ast.Name():
            return [text for value in _values(node.id, scope) for text in _texts(value, scope)]
        case ast.Call(func=ast.Attribute(attr="get"), args=[_, fallback]):
            # `_LEVEL.get(state, "info")`: the table is elsewhere in the module.
            return [*_texts(fallback, scope), "warning", "error"]
    return []


def _values(name: str, scope: ast.AST) -> Iterator[ast.expr]:
    """What is assigned to a name in a function."""
    for node in ast.walk(scope):
        match node:
            case ast.Assign(targets=targets, value=value):
                pass
            case ast.AnnAssign(target=target, value=ast.expr() as value):
                targets = [target]
            case _:
                continue
        if any(isinstance(one, ast.Name) and one.id == name for one in targets):
            yield value


def _keywords(call: ast.Call, scope: ast.AST) -> Iterator[str | None]:
    for keyword in call.keywords:
        yield from [keyword.arg] if keyword.arg else _keys(keyword.value, scope)


def _keys(node: ast.AST, scope: ast.AST) -> Iterator[str | None]:
    """Keys of a mapping: a literal, or a local variable with one and what is put into it. None: there may be more."""
    match node:
        case ast.Dict():
            for one, value in zip(node.keys, node.values, strict=True):
                if one is None:
                    yield from _keys(value, scope)
                else:
                    yield one.value if isinstance(one, ast.Constant) and isinstance(one.value, str) else None
        case ast.BinOp(op=ast.BitOr()):
            yield from _keys(node.left, scope)
            yield from _keys(node.right, scope)
        case ast.IfExp():
            yield from _keys(node.body, scope)
            yield from _keys(node.orelse, scope)
        case ast.Name():
            values = list(_values(node.id, scope))
            for value in values:
                yield from _keys(value, scope)
            for below in ast.walk(scope):
                match below:
                    case ast.Assign(
                        targets=[ast.Subscript(value=ast.Name(id=node.id), slice=ast.Constant(value=str(key)))]
                    ):
                        yield key
            if not values:
                yield None
        case ast.Constant(value=None):
            return
        case _:
            yield None
