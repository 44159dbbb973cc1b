"""`reference/options.md`: what every command of `colo` takes, read from the command tree and from the option tables.

The tree is that of the console script `colo`, wherever its module lives. A service's options come from its config class
and from those that all services share (`colo_runtime.options`), for these know units, bounds and environment variables.
"""

import dataclasses
import importlib
import sys
from collections.abc import Iterator, Sequence
from importlib.metadata import entry_points
from types import ModuleType
from typing import Any

import click

from colo_proto.config import Option, options
from colo_runtime import options as shared

HEAD = """# Options

What each command takes. A value comes from the command line, else from the environment, else from the file of
`--config`, else it is the default. `-` and `_` are the same in option names. `colo check --config FILE` prints what a
file comes to.

Where the environment is named, `ROLE` stands for the command's name in capitals. The more exact variable wins.
"""

COMMON = "`netdev`, the filters, `frame` and `vote` take these beside their own, which follow."

KINDS = {"endpoint": "endpoint", "path": "path", "rules": "file of rules", "host_port": "HOST:PORT"}


def page() -> str:
    """The whole page."""
    group = command_group()
    context = click.Context(group, info_name="colo")
    parts = [HEAD, "## Options of every process", "", COMMON, "", *_option_table("ROLE", _common())]
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None, f"colo lists {name} and does not have it"
        parts += ["", f"## colo {name}", "", _first_sentence(command), ""]
        parts += _service(name, command) if is_service(name) else _plain(command)
    return "\n".join(parts) + "\n"


def command_group() -> click.Group:
    """The command tree of the console script `colo`: what its function is, or what stands beside it."""
    (script,) = entry_points(group="console_scripts", name="colo")
    main = script.load()
    if isinstance(main, click.Group):
        return main
    groups = {id(one): one for one in vars(sys.modules[main.__module__]).values() if isinstance(one, click.Group)}
    assert len(groups) == 1, f"{main.__module__} has {len(groups)} command groups"
    return next(iter(groups.values()))


def is_service(name: str) -> bool:
    """Does a package with this command's name have a config class that is made of options?"""
    return any(one.help for cls in _config_classes(_module(f"colo_{name}.config")) for one in options(cls))


def _module(name: str) -> ModuleType | None:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not name.startswith(error.name):
            raise
        return None


def _config_classes(module: ModuleType | None) -> Iterator[type[Any]]:
    for value in vars(module).values() if module is not None else ():
        if isinstance(value, type) and dataclasses.is_dataclass(value) and value.__name__.endswith("Config"):
            yield value


def _common() -> list[Option]:
    return list(options(shared.CommonConfig))


def _service(name: str, command: click.Command) -> list[str]:
    known = {one.name: one for cls in _config_classes(shared) for one in options(cls)}
    known |= {one.name: one for cls in _config_classes(_module(f"colo_{name}.config")) for one in options(cls)}
    common = {one.name for one in _common()}
    table = []
    for param in command.params:
        if isinstance(param, click.Option) and param.name not in common:
            port = Option(str(param.name), str, "", param.help or "", kind="endpoint")
            table.append(known.get(str(param.name), port))
    return _option_table(name, table)


def _option_table(role: str, table: list[Option]) -> list[str]:
    rows = []
    for one in table:
        environment = ", ".join(f"`{name}`" for name in variables(role, one))
        rows.append((f"`{one.flag}`", kind_of(one), default_of(one), one.unit, environment, one.help))
    return _table(("option", "value", "default", "unit", "environment", "what it is for"), rows)


def kind_of(one: Option) -> str:
    """What a value looks like."""
    if one.choices:
        text = ", ".join(f"`{choice}`" for choice in one.choices)
    elif one.kind in KINDS:
        text = KINDS[one.kind]
    elif one.type is bool:
        text = "`on`, `off`"
    elif one.type in (int, float):
        text = "whole number" if one.type is int else "number"
        if one.least is not None and one.most is not None:
            text += f", {one.least:.15g} to {one.most:.15g}"
    else:
        text = "text"
    return text + (", may be repeated" if one.many else "")


def default_of(one: Option) -> str:
    """As on the command line."""
    if one.required:
        return "required"
    if one.default in ("", (), None):
        return ""
    if isinstance(one.default, bool):
        return "`on`" if one.default else "`off`"
    return f"`{one.default}`"


def variables(role: str, one: Option) -> list[str]:
    """Names of environment variables that set it: the candidates that the runtime really reads."""
    candidates = (f"COLO_{role.upper()}_{one.name.upper()}", f"COLO_{one.name.upper()}", "COLO_NETDEV")
    return [name for name in candidates if shared.environment(role, {one.name: one}, {name: "x"})]


def _plain(command: click.Command) -> list[str]:
    """Commands that are no service, as click knows them."""
    rows = []
    for param in command.params:
        if isinstance(param, click.Option):
            flags = ", ".join(f"`{flag}`" for flag in (*param.opts, *param.secondary_opts))
            rows.append((flags, _click_kind(param), _click_default(param), " ".join((param.help or "").split())))
        elif isinstance(param, click.Argument):
            name = str(param.name).upper() + ("..." if param.nargs == -1 else "")
            rows.append((f"`{name}`", _choices(param.type), "required" if param.required else "", "argument"))
    return _table(("option", "value", "default", "what it is for"), rows) if rows else ["It takes no options."]


def _click_kind(param: click.Option) -> str:
    if param.is_flag:
        return "flag"
    if isinstance(param.type, click.Choice):
        return _choices(param.type)
    numbers = {"integer": "whole number", "integer range": "whole number", "float": "number", "float range": "number"}
    text = ", ".join(filter(None, (f"`{param.metavar}`" if param.metavar else "", numbers.get(param.type.name, ""))))
    return text + (", may be repeated" if param.multiple and "repeated" not in (param.help or "") else "")


def _choices(kind: object) -> str:
    return ", ".join(f"`{one}`" for one in kind.choices) if isinstance(kind, click.Choice) else ""


def _click_default(param: click.Option) -> str:
    if param.is_flag and not isinstance(param.default, bool):
        return ""
    if param.is_flag:
        return "`on`" if param.default else ""
    known = isinstance(param.default, str | int | float) and param.default != ""
    return f"`{param.default}`" if known else ""


def _first_sentence(command: click.Command) -> str:
    return (command.help or "").strip().partition("\n\n")[0].replace("\n", " ")


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> list[str]:
    """A Markdown table; columns that are empty throughout are left out."""
    keep = [at for at in range(len(head)) if at == 0 or any(row[at] for row in rows)]
    lines = [[head[at] for at in keep], ["---"] * len(keep), *([_cell(row[at]) for at in keep] for row in rows)]
    return ["| " + " | ".join(line) + " |" for line in lines]


def _cell(text: str) -> str:
    """Pipes would end a cell; angle and square brackets, where they are no code, are something else in Markdown."""
    parts = text.replace("|", "\\|").split("`")
    parts[::2] = [one.replace("<", "&lt;").replace("[", "\\[").replace("]", "\\]") for one in parts[::2]]
    return "`".join(parts)
