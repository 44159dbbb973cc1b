"""`reference/metrics.md`: counters and gauges of every process.

What each means is said once, in the "Metrics" section of its README; the names in `/metrics` are made by the function
that makes them there (`colo_runtime.counting.metric`). `missing` compares the READMEs with what the code counts.
"""

import ast
import re
from collections.abc import Iterator
from os.path import relpath
from pathlib import Path
from typing import NamedTuple

from colo_runtime.counting import metric

HEAD = """# Metrics

Counters and gauges as reports, `colo status --json` and `colo lab --report` name them, and as `/metrics` does (option
`--http`). A dotted tail is the label `reason` there, a port the label `port`, a tap the label `tap`; capitals stand for
a name that is filled in. What each means comes from the README of the service.
"""

NAME = re.compile(r"\.?[a-z_]+(\.[A-Za-z_]+)*")
PREFIXES = ("link.", "tap.", "control.")


class Row(NamedTuple):
    """One counter or gauge, as a README has it."""

    kind: str
    name: str
    meaning: str


def page(services: Path) -> str:
    """The whole page."""
    parts = [HEAD]
    for folder in sorted(services.glob("colo_*")):
        rows = documented(folder)
        if not rows:
            continue
        role = folder.name.removeprefix("colo_")
        parts += [f"## {role}", ""]
        if role == "runtime":
            parts += ["Every filter has these beside its own; netdev, the frame and vote have those that fit them.", ""]
        for kind in ("counter", "gauge"):
            some = [row for row in rows if row.kind == kind]
            if some:
                parts += [f"| {kind} | in /metrics | meaning |", "| --- | --- | --- |"]
                parts += [f"| `{row.name}` | `{exported(role, row)}` | {_moved(row.meaning, folder)} |" for row in some]
                parts.append("")
    return "\n".join(parts)


def _moved(text: str, folder: Path) -> str:
    """Links of a README, for a page in `docs/reference`."""
    here = folder.parents[1] / "docs" / "reference"
    return re.sub(r"\]\((?=\.)([^)#]+)", lambda found: f"]({relpath(folder / found[1], here)}", text)


def exported(role: str, row: Row) -> str:
    """`link.PORT.dropped.REASON` of any role: `colo_ROLE_link_dropped_total{port=PORT, reason=REASON}`."""
    if row.name.startswith("colo_"):
        return row.name
    family, labels = metric(row.name)
    who = "ROLE" if role == "runtime" else role
    text = ", ".join(f"{name}={value}" for name, value in labels.items())
    return f"colo_{who}_{family}{'_total' if row.kind == 'counter' else ''}" + (f"{{{text}}}" if text else "")


# -- what the READMEs say ---------------------------------------------------------------------------


def documented(folder: Path) -> list[Row]:
    """The rows of a README's tables, and the names of its sentences that begin with "Counters:" or "Gauges:"."""
    readme = folder / "README.md"
    text = readme.read_text() if readme.exists() else ""
    found = re.search(r"^## Metrics\n(.*?)(?=^## |\Z)", text, flags=re.MULTILINE | re.DOTALL)
    rows: list[Row] = []
    for block in re.split(r"\n\n+", found[1] if found else ""):
        if block.lstrip().startswith("|"):
            rows += _table(block)
            continue
        for kind, sentence in re.findall(
            r"\b(Counters|Gauges)(?: of [a-z ]+)?: (.*?)(?=\bGauges: |\Z)", block, flags=re.DOTALL
        ):
            rows += _sentence(
                kind.lower().removesuffix("s"), re.split(r"\.(?: [A-Z]|$)", " ".join(sentence.split()))[0]
            )
    return rows


def _table(block: str) -> Iterator[Row]:
    head, _, *lines = block.strip().splitlines()
    kind = head.strip("| ").split("|")[0].strip()
    for line in lines:
        names, meaning = (cell.strip() for cell in re.split(r"(?<!\\)\|", line.strip().strip("|"))[:2])
        found = list(_whole(re.findall(r"`([^`]+)`", names)))
        yield from (
            Row("gauge" if kind == "gauge" else "counter", name, one)
            for name, one in zip(found, _shares(meaning, len(found)), strict=True)
        )


def _shares(meaning: str, number: int) -> list[str]:
    """`reliable inputs: sent again; twice` for two names: each has its part, and what both begin with."""
    parts = meaning.split("; ")
    if len(parts) != number:
        return [meaning] * number
    common = re.match(r"(?:[a-z ]|`[^`]*`)+: ", meaning)
    return [parts[0], *((common[0] if common else "") + part for part in parts[1:])]


def _whole(names: list[str]) -> Iterator[str]:
    """Names of one cell or clause: `.repeated` continues the one before, and links' names go without their prefix."""
    prefix = before = ""
    for name in names:
        if not NAME.fullmatch(name):
            continue
        if name.startswith("."):
            name = before.rpartition(".")[0] + name  # noqa: PLW2901
        elif name.startswith("link.PORT."):
            prefix = "link.PORT."
        elif not name.startswith(PREFIXES):
            name = prefix + name  # noqa: PLW2901
        before = name
        yield name


def _sentence(kind: str, text: str) -> Iterator[Row]:
    """`a`, `b` (what it counts), `c`: names with what stands in brackets behind them."""
    for clause in re.split(r";(?![^(]*\))", text):
        items = [(name, meaning) for name, meaning in _named(clause) if NAME.fullmatch(name)]
        whole = list(_whole([name for name, _ in items]))
        yield from (Row(kind, name, meaning) for name, (_, meaning) in zip(whole, items, strict=True))


def _named(clause: str) -> Iterator[tuple[str, str]]:
    at = 0
    while (found := re.compile(r"`([^`]+)`").search(clause, at)) is not None:
        at, meaning = found.end(), ""
        if clause[at : at + 2] == " (":
            end = _closing(clause, at + 1)
            meaning, at = clause[at + 2 : end], end + 1
        yield found[1], meaning


def _closing(text: str, at: int) -> int:
    depth = 0
    for index in range(at, len(text)):
        depth += {"(": 1, ")": -1}.get(text[index], 0)
        if not depth:
            return index
    raise AssertionError(f"a bracket stays open: {text[at : at + 60]}")


# -- what the code counts ---------------------------------------------------------------------------


def counted(folder: Path) -> set[str]:
    """Names in `counters[NAME]` where it is set or added to; `*` stands for what is put in at run time."""
    found = set()
    for path in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            target = node.targets[0] if isinstance(node, ast.Assign) else getattr(node, "target", None)
            if isinstance(node, ast.Assign | ast.AugAssign) and isinstance(target, ast.Subscript):
                owner = target.value.id if isinstance(target.value, ast.Name) else getattr(target.value, "attr", "")
                if owner.strip("_") in ("counters", "mine"):
                    found |= set(_patterns(target.slice))
    return found - {"*"}


def levels(folder: Path) -> set[str]:
    """Keys of the mappings that functions called `gauges` return."""
    found = set()
    for path in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef) and node.name == "gauges":
                for below in ast.walk(node):
                    keys = (
                        below.keys
                        if isinstance(below, ast.Dict)
                        else [below.key]
                        if isinstance(below, ast.DictComp)
                        else []
                    )
                    if isinstance(below, ast.Assign) and isinstance(below.targets[0], ast.Subscript):
                        keys = [below.targets[0].slice]
                    found |= {pattern for key in keys if key is not None for pattern in _patterns(key)}
    return found


def _patterns(node: ast.expr) -> Iterator[str]:
    match node:
        case ast.Constant(value=str(text)):
            yield text
        case ast.IfExp():
            yield from _patterns(node.body)
            yield from _patterns(node.orelse)
        case ast.BinOp(op=ast.Add()):
            yield from (left + right for left in _patterns(node.left) for right in _patterns(node.right))
        case ast.JoinedStr():
            yield "".join(str(one.value) if isinstance(one, ast.Constant) else "*" for one in node.values)
        case _:
            yield "*"


def missing(names: set[str], rows: list[Row]) -> list[str]:
    """What is counted and in no README. A link's or tap's counter is known by the last part of its name."""
    bare = {re.sub(r"^(link\.PORT|tap\.[A-Z]+|control)\.", "", row.name) for row in rows} | {row.name for row in rows}
    return sorted(name for name in names if not any(_covers(known, name.lstrip("*")) for known in bare))


def _covers(known: str, name: str) -> bool:
    name = re.sub(r"^((link|tap)\.\*|control)\.", "", name)
    head, _, tail = known.partition(".")
    if tail.isupper():
        return name == head or name.startswith(head + ".")
    return known == name or (name.endswith("*") and known.startswith(name[:-1]))
