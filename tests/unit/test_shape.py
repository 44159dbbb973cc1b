"""Every service folder has the same shape, and its README says what the code says.

The code is read, not a list: a new service, option, metric or log event is looked at as soon as it is there.
"""

import ast
import dataclasses
import re
import subprocess
import sys
from functools import cache
from importlib import import_module
from pathlib import Path

import pytest

from colo_lab.cli import lab as lab_command
from colo_proto.config import Option, options
from colo_runtime.options import CommonConfig
from colo_runtime.service import services

ROOT = Path(__file__).parents[2]
FOLDERS = sorted(path.parent for path in (ROOT / "services").glob("colo_*/__init__.py"))
FILTERS = [folder for folder in FOLDERS if folder.name.removeprefix("colo_") in services()]
HEADINGS = ("Name", "Synopsis", "Ports", "Options", "Metrics", "Log events", "Examples", "Differences from QEMU")

each_folder = pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
each_filter = pytest.mark.parametrize("folder", FILTERS, ids=lambda folder: folder.name)


@cache
def readme(folder: Path) -> str:
    return (folder / "README.md").read_text()


def sections(text: str) -> dict[str, str]:
    """Bodies of the second-level headings."""
    parts = re.split(r"^## (.+)$", text, flags=re.MULTILINE)
    return {title.strip(): body for title, body in zip(parts[1::2], parts[2::2], strict=True)}


def rows(body: str) -> list[list[str]]:
    """Cells of all table rows, the head and its rule left out."""
    lines = [line for line in body.splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]
    following = [*cells[1:], []][: len(cells)]
    return [row for row, after in zip(cells, following, strict=True) if not _rule(row) and not _rule(after)]


def _rule(row: list[str]) -> bool:
    return bool(row) and all(cell and set(cell) <= {"-", ":"} for cell in row)


def names(cell: str) -> list[str]:
    """`--compare-timeout` -> compare_timeout; several may share a cell."""
    return [name.lstrip("-").replace("-", "_") for name in re.findall(r"`([^`]+)`", cell)]


@cache
def literals(folder: Path) -> frozenset[str]:
    """Every string in the code of a service: constants, and the constant parts of f-strings and sums."""
    found = set()
    for path in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.add(node.value)
    return frozenset(found)


# -- files --------------------------------------------------------------------------------------


@each_folder
def test_the_man_page_is_there_in_order(folder):
    titles = list(sections(readme(folder)))
    assert [title for title in titles if title in HEADINGS] == list(HEADINGS)
    assert readme(folder).startswith(f"# {folder.name.removeprefix('colo_')}\n")


@each_folder
def test_the_package_says_what_it_is(folder):
    assert ast.get_docstring(ast.parse((folder / "__init__.py").read_text()))


@pytest.mark.parametrize("folder", [f for f in FOLDERS if f.name != "colo_runtime"], ids=lambda folder: folder.name)
def test_main_is_short(folder):
    text = (folder / "__main__.py").read_text()
    assert len(text.splitlines()) <= 20
    assert ast.get_docstring(ast.parse(text))


@pytest.mark.parametrize(
    "folder", [f for f in FOLDERS if f.name not in {"colo_runtime", "colo_cli"}], ids=lambda folder: folder.name
)
def test_options_are_one_frozen_dataclass(folder):
    module = import_module(f"{folder.name}.config")
    found = [
        value for value in vars(module).values()
        if isinstance(value, type) and value.__module__ == module.__name__ and value.__name__.endswith("Config")
    ]  # fmt: skip
    assert len(found) == 1
    assert dataclasses.is_dataclass(found[0])
    assert found[0].__dataclass_params__.frozen


@each_filter
def test_the_core_is_where_it_is_looked_for(folder):
    service = services()[folder.name.removeprefix("colo_")]
    assert service.config_class().__module__ == f"{folder.name}.config"
    assert service.core_class().__module__ == f"{folder.name}.{service.role}"


@each_filter
def test_help_works(folder):
    said = subprocess.run(
        [sys.executable, "-P", "-m", folder.name, "--help"], capture_output=True, text=True, check=True, timeout=120
    )
    assert said.stdout.startswith(f"Usage: colo {folder.name.removeprefix('colo_')} ")


# -- options ------------------------------------------------------------------------------------


def documented(folder: Path) -> dict[str, list[str]]:
    """Rows of the options table by option."""
    table = rows(sections(readme(folder))["Options"])
    return {name: row for row in table if len(row) == 4 for name in names(row[0])}


def same_default(cell: str, option: Option) -> bool:
    said = cell.strip("` ")
    if option.required:
        return said == "required"
    if option.default in ("", (), None):
        return said in ("", "none", "empty")
    if isinstance(option.default, bool):
        return said == ("on" if option.default else "off")
    if isinstance(option.default, int | float):
        return said.replace(",", "").replace(".", "", 1).isdigit() and float(said.replace(",", "")) == option.default
    return said == option.default


def check_options(folder: Path, table: list[Option]) -> list[str]:
    wrong = []
    rows_ = documented(folder)
    for one in table:
        row = rows_.get(one.name)
        if row is None:
            wrong.append(f"{one.flag} is not in the options table")
        elif one.unit and row[1] != one.unit:
            wrong.append(f"{one.flag}: unit {one.unit!r}, the README says {row[1]!r}")
        elif not same_default(row[2], one):
            wrong.append(f"{one.flag}: default {one.default!r}, the README says {row[2]!r}")
    gone = set(rows_) - {one.name for one in table} - {one.name for one in options(CommonConfig)}
    return wrong + [f"{name} is in the options table and no option" for name in sorted(gone)]


@each_filter
def test_the_options_table_is_the_code(folder):
    service = services()[folder.name.removeprefix("colo_")]
    # Endpoints are ports, and stand among those.
    table = [one for one in options(service.config_class()) if one.kind != "endpoint"]
    assert check_options(folder, table) == []


def test_the_common_options_table_is_the_code():
    assert check_options(ROOT / "services" / "colo_runtime", list(options(CommonConfig))) == []


def test_the_labs_options_table_is_the_command_line():
    said = documented(ROOT / "services" / "colo_lab")
    table = {
        max(p.opts, key=len).lstrip("-").replace("-", "_"): p
        for p in lab_command.params
        if p.param_type_name == "option"
    }
    assert set(said) == set(table)
    for name, param in table.items():
        default = param.default is True if param.is_flag else param.default
        if not isinstance(default, str | int | float | bool):
            default = ""
        # What is not given may depend on something else: then the cell is a phrase.
        phrase = " " in said[name][2] and default in ("", False)
        assert phrase or same_default(said[name][2], Option(name, type(default), default)), name


@each_filter
def test_every_port_is_in_the_ports_table(folder):
    service = services()[folder.name.removeprefix("colo_")]
    text = sections(readme(folder))["Ports"]
    said = {name for row in rows(text) for name in names(row[0])} | set(names(text))
    core = getattr(service.core_class(), "ports", ())
    ports = {port.name for port in core if hasattr(port, "name")} if not isinstance(core, property) else set()
    own = {one.name for one in service.table().values() if one.kind == "endpoint"} - {"frame"}
    assert ports | own <= said


# -- metrics and log events -----------------------------------------------------------------------


def metric_names(folder: Path) -> set[str]:
    """What the metrics section names: words in backticks; REASON, CAUSE, PORT stand for anything."""
    body = sections(readme(folder))["Metrics"]
    body = re.sub(r"\*\*.*?\*\*", "", body)
    found = set()
    for code in re.findall(r"`([^`]+)`", body):
        if re.fullmatch(r"[a-z_]+(\.[a-z_A-Z]+)*", code):
            found.add(code)
    return found


def in_code(name: str, known: frozenset[str]) -> bool:
    """`dropped.queue_full` is there whole, or as `dropped.` and `queue_full`."""
    if name.startswith(("link.", "tap.")) and name.count(".") > 1:
        return in_code(name.split(".", 2)[2], known)
    head, dot, tail = name.partition(".")
    if not dot:
        # Alone it may be the first part of a name, or its last: a reason.
        parts = (text for text in known if text.endswith("_") and name.startswith(text))
        return (
            name in known
            or any(text.startswith(name + ".") or text.endswith("." + name) for text in known)
            or any(name.removeprefix(part) in known for part in parts)
        )
    if tail.isupper():
        return any(text.startswith(head + ".") for text in known)
    return name in known or (any(text.startswith(head + ".") for text in known) and tail in known)


@pytest.mark.parametrize("folder", FILTERS, ids=lambda folder: folder.name)
def test_the_metrics_listed_exist(folder):
    # What several share (links, the splitter, reasons) is the runtime's and the library's.
    known = literals(folder) | literals(ROOT / "services" / "colo_runtime") | literals(ROOT / "proto")
    # Options and ports may be spoken of as well.
    table = services()[folder.name.removeprefix("colo_")].table()
    missing = sorted(n for n in metric_names(folder) if n not in table and not in_code(n, known))
    assert not missing, f"{folder.name}/README.md lists metrics that the code does not have: {missing}"


def events_in_code(folder: Path) -> set[str]:
    """Events that are logged: the second argument of `Log(level, event, …)` and `log(level, event, …)`."""
    found = set()
    for path in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call):
                continue
            name = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
            at = {"Log": 1, "log": 1, "_log": 1, "complain": 0}.get(name)
            if at is None or len(node.args) <= at:
                continue
            values = node.args[at]
            branches = [values.body, values.orelse] if isinstance(values, ast.IfExp) else [values]
            for one in branches:
                if (
                    isinstance(one, ast.Constant)
                    and isinstance(one.value, str)
                    and re.fullmatch(r"\w+\.\w+", one.value)
                ):
                    found.add(one.value)
    return found


@pytest.mark.parametrize("folder", [f for f in FOLDERS if f.name != "colo_lab"], ids=lambda folder: folder.name)
def test_the_log_events_listed_are_those_of_the_code(folder):
    body = sections(readme(folder))["Log events"]
    said = set(re.findall(r"`([a-z]+\.[a-z_]+)`", body))
    real = events_in_code(folder)
    assert real - said == set(), "not in the README"
    # A core's Log may be made elsewhere, or its name put together.
    assert {event for event in said - real if not in_code(event, literals(folder))} == set(), "not in the code"


# -- documents ------------------------------------------------------------------------------------


def test_every_process_is_in_the_readme():
    text = (ROOT / "README.md").read_text()
    missing = [role for role in services() if f"[`{role}`](services/colo_{role}/README.md)" not in text]
    assert missing == []


# -- the rule of pure cores -----------------------------------------------------------------------

IMPURE = (
    "socket", "select", "selectors", "ssl", "subprocess", "threading", "multiprocessing", "concurrent.futures",
    "asyncio", "signal", "os", "pathlib", "shutil", "tempfile", "fcntl", "mmap", "time", "datetime", "random",
    "secrets", "uuid", "logging", "urllib.request", "http.client", "zmq", "structlog", "pyroute2", "pytun",
)  # fmt: skip


def lint(code: str, filename: str) -> str:
    ruff = Path(sys.executable).parent / "ruff"
    command = [str(ruff), "check", "--no-cache", "--output-format", "concise", "--stdin-filename", filename, "-"]
    return subprocess.run(
        command, input=code, capture_output=True, text=True, check=False, cwd=ROOT, timeout=120
    ).stdout


@pytest.mark.parametrize(
    "folder", ["services/colo_compare", "services/colo_mirror", "proto/colo_proto", "proto/colo_proto/net"]
)
def test_a_core_that_does_io_fails_lint(folder):
    code = "".join(f"import {name}\n" for name in IMPURE) + "print(open('/etc/passwd'))\n"
    said = lint(code, f"{folder}/new.py")
    reported = set(re.findall(r"TID251 `([\w.]+)` is banned", said))
    assert {name for name in IMPURE if not {name, name.partition(".")[0]} & reported} == set()
    # `open` and `print` have rules of their own.
    assert "T201" in said
    assert "PTH123" in said


@pytest.mark.parametrize("folder", ["colo_runtime", "colo_netdev", "colo_lab"])
def test_the_shells_may(folder):
    assert "TID251" not in lint("".join(f"import {name}\n" for name in IMPURE), f"services/{folder}/new.py")
