"""Where the value of an option comes from: the default < the file < the environment < the command line.

* the file (`--config FILE`, TOML): `[defaults]` for every process, `[mirror]` for every mirror,
  `[mirror.m0]` for the mirror whose id is m0;
* the environment: `COLO_MIRROR_OUTDEV` for mirrors, `COLO_LOG_LEVEL` for every process (the endpoint of a
  filter's port needs the role in its name; `COLO_NETDEV` is the socket of netdev);
* the command line, with `-` or `_` in names.

All names come from the option tables (`colo_proto.config`); a name that is in none of them is refused.

click's `auto_envvar_prefix` and `default_map` were considered for this. They know one variable for each option and
no tables of a file, and neither names the key of the file nor the variable that a wrong value came from, nor do they
refuse unknown names. With all of that added around them there was no less code. pydantic-settings has the same gaps,
and importing it takes longer than a filter takes to start.
"""

import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple, NoReturn

from colo_proto.config import MAX_BYTES, Option, build, option, options, unknown
from colo_proto.errors import ConfigError
from colo_proto.topology import PENDING_BYTES, REPLAY_BYTES
from colo_runtime.logs import FORMATS, LEVELS

NETDEV_SOCKET: Final = "/run/colo/netdev.sock"
CONTROL: Final = "ipc:///run/colo/control.sock"


@dataclass(frozen=True, slots=True)
class CommonConfig:
    """The options that every process has beside its own."""

    id: str = option(
        "",
        help="name of this process: its routing id, in logs, metrics, and the frame's table; {hostname} is replaced",
    )
    frame: str = option("", kind="endpoint", help="control link to the COLO frame of this host")
    http: str = option("", kind="host_port", help="serve /metrics, /health and /ready at HOST:PORT")
    log_level: str = option("info", choices=LEVELS, help="least level of log lines")
    log_format: str = option("auto", choices=FORMATS, help="auto: for people on a terminal, else JSON lines")
    config: str = option("", kind="path", help="TOML file with [defaults], [ROLE] and [ROLE.ID] tables")
    netdev_socket: str = option(NETDEV_SOCKET, kind="path", help="socket of netdev, for tap:// endpoints")
    queue_bytes: int = option(
        PENDING_BYTES, unit="bytes", least=65536, most=MAX_BYTES,
        help="per output: what waits above ZeroMQ's own 64 batches",
    )  # fmt: skip
    ring_bytes: int = option(
        REPLAY_BYTES, unit="bytes", least=65536, most=MAX_BYTES, help="per reliable output: what can be replayed"
    )
    curve_secret: str = option("", kind="path", help="our CURVE key pair (colo keygen), for every tcp:// link")
    curve_peers: str = option(
        "", kind="path", help="public keys that are let in and connected to: a directory of *.key, or a file; SIGHUP"
    )
    insecure: bool = option(False, help="allow links between hosts without keys: anybody may read and write them")
    drain_timeout: float = option(2.0, unit="s", least=0, most=60, help="how long to drain after SIGTERM")


class Setting(NamedTuple):
    """A value, and where it came from, for error texts; `where` is empty for the command line."""

    value: Any
    where: str


Settings = dict[str, Setting]
"""By the name of the option."""
Table = Mapping[str, Option]
Refuse = Callable[[str], object]
"""What is done with an error text: raise it, or collect it."""


def fail(message: str) -> NoReturn:
    """Raise the text as a `ConfigError`."""
    raise ConfigError(message)


def gather(
    role: str,
    table: Table,
    flags: Mapping[str, Any],
    environ: Mapping[str, str],
    anywhere: Callable[[], Table],
    content: Mapping[str, Any] | None = None,
    refuse: Refuse = fail,
) -> Settings:
    """The parsed values that file, environment and flags have for one process.

    `anywhere` gives the options of all roles, which may stand in `[defaults]`. `content` is the content of the file
    when it was loaded before. Errors in the file go to `refuse`; any other is a `ConfigError`.
    """
    outside = environment(role, table, environ)
    outside |= {name: Setting(value, "") for name, value in flags.items() if value is not None and value != ()}
    settings: Settings = {}
    path = outside["config"].value if "config" in outside else ""
    if path:
        content = load(path) if content is None else content
        who = (outside["id"].value if "id" in outside else "") or only(content, role)
        section = content.get(role, {})
        names = tables_of(section)
        shared = {name: value for name, value in section.items() if name not in names} if names else section
        settings = read_table(content.get("defaults", {}), f"{path}: [defaults]", table, refuse, anywhere)
        settings |= read_table(shared, f"{path}: [{role}]", table, refuse)
        if who in names:
            settings |= read_table(section[who], f"{path}: [{role}.{who}]", table, refuse)
        if who:
            settings["id"] = Setting(who, f"{path}: [{role}.{who}]")
    return settings | {name: Setting(table[name].parse(*one), one.where) for name, one in outside.items()}


def environment(role: str, table: Table, environ: Mapping[str, str]) -> Settings:
    """The texts of `COLO_<ROLE>_<OPTION>`, else of `COLO_<OPTION>`. `ConfigError` when a variable of the role names no
    option.
    """
    found: Settings = {}
    prefix = f"COLO_{role.upper()}_"
    for name, one in table.items():
        variables = [prefix + name.upper()]
        if one.kind != "endpoint" or name == "frame":
            variables.append("COLO_" + name.upper())
        if name == "netdev_socket":
            variables.append("COLO_NETDEV")
        variable = next(filter(environ.get, variables), None)
        if variable is not None:
            value = environ[variable]
            found[name] = Setting(value.split() if one.many else value, variable)
    for variable in environ:
        if variable.startswith(prefix):
            name = variable.removeprefix(prefix).lower()
            if name not in table and variable.removeprefix("COLO_").lower() not in table:
                raise ConfigError(f"environment {variable}: {unknown(name, table)}")
    return found


def load(path: str) -> dict[str, Any]:
    """The content of a TOML file. `ConfigError` names the file."""
    try:
        with Path(path).open("rb") as file:
            return tomllib.load(file)
    except OSError as error:
        raise ConfigError(f"--config {path}: {error.strerror}") from None
    except RecursionError:
        raise ConfigError(f"--config {path}: tables or arrays are nested too deep") from None
    except ValueError as error:
        # An error of tomllib, text that is not UTF-8, or a number of thousands of digits.
        raise ConfigError(f"--config {path}: {error}") from None


def tables_of(section: object) -> list[str]:
    """The names of the tables inside the table of a role: the ids of its processes."""
    return [name for name, value in section.items() if isinstance(value, dict)] if isinstance(section, dict) else []


def only(content: Mapping[str, Any], role: str) -> str:
    """The id of the only table of a role; empty when there are none or several."""
    names = tables_of(content.get(role))
    return names[0] if len(names) == 1 else ""


def read_table(
    rows: Any, title: str, table: Table, refuse: Refuse, anywhere: Callable[[], Table] | None = None
) -> Settings:
    """The parsed values of one table of a file. `title` names it in errors, with the path of the file in front."""
    found: Settings = {}
    if not isinstance(rows, dict):
        refuse(f"{title}: a table is expected")
        return found
    for name, value in rows.items():
        one = table.get(name.replace("-", "_"))
        where = f"{title} {name}"
        if one is not None:
            try:
                found[one.name] = Setting(one.parse(value, where), where)
            except ConfigError as error:
                refuse(str(error))
        elif anywhere is None:
            refuse(f"{title}: {unknown(name, table)}")
        elif name.replace("-", "_") not in anywhere():
            refuse(f"{title}: {unknown(name, anywhere())}")
    return found


def build_from(cls: type[Any], settings: Settings) -> Any:
    """A `cls` from those settings that are its options."""
    return build(cls, {one.name: settings[one.name].value for one in options(cls) if one.name in settings})
