"""Options from four places: defaults < file < environment < flags.

* the file (`--config FILE`, TOML): `[defaults]` for every process, `[mirror]` for every mirror,
  `[mirror.m0]` for the mirror whose id is m0;
* the environment: `COLO_MIRROR_OUTDEV` for mirrors, `COLO_LOG_LEVEL` for every process (an endpoint of a
  filter port needs the role in front; `COLO_NETDEV` is netdev's socket);
* flags, with `-` or `_`.

All names come from the option tables (`colo_proto.config`); a name that is in none is refused.
"""

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from colo_proto.config import MAX_BYTES, Option, option, options, unknown
from colo_proto.errors import ConfigError
from colo_runtime.logs import FORMATS, LEVELS

NETDEV_SOCKET = "/run/colo/netdev.sock"
CONTROL = "ipc:///run/colo/control.sock"


@dataclass(frozen=True, slots=True)
class CommonConfig:
    """What every filter process is told beside its own options."""

    id: str = option(
        "",
        help="name of this process: its routing id, in logs, metrics, and the frame's table; {hostname} stands in it",
    )
    frame: str = option("", kind="endpoint", help="control link to the COLO frame of this host")
    http: str = option("", kind="host_port", help="serve /metrics, /health and /ready at HOST:PORT")
    log_level: str = option("info", choices=LEVELS, help="least level of log lines")
    log_format: str = option("auto", choices=FORMATS, help="auto: for people on a terminal, else JSON lines")
    config: str = option("", kind="path", help="TOML file with [defaults], [ROLE] and [ROLE.ID] tables")
    netdev_socket: str = option(NETDEV_SOCKET, kind="path", help="socket of netdev, for tap:// endpoints")
    queue_bytes: int = option(
        8 << 20, unit="bytes", least=65536, most=MAX_BYTES, help="per output: what waits above ZeroMQ's own 64 batches"
    )
    ring_bytes: int = option(
        64 << 20, unit="bytes", least=65536, most=MAX_BYTES, help="per reliable output: what can be replayed"
    )
    curve_secret: str = option("", kind="path", help="our CURVE key pair (colo keygen), for every tcp:// link")
    curve_peers: str = option(
        "", kind="path", help="public keys that are let in and connected to: a directory of *.key, or a file; SIGHUP"
    )
    insecure: bool = option(False, help="let links between hosts do without keys: anybody may read and write them")
    drain_timeout: float = option(2.0, unit="s", least=0, most=60, help="how long to drain after SIGTERM")


@dataclass(frozen=True, slots=True)
class NotifyConfig:
    """Of compare alone."""

    notify_dev: str = option(
        "", kind="endpoint", help="control link to the COLO frame; on a chardev, QEMU's notify_dev words"
    )


@dataclass(frozen=True, slots=True)
class FrameLinksConfig:
    """Of the frame process alone."""

    listen: str = option(kind="endpoint", help="where the processes of this host find the frame")
    peer: str = option("", kind="endpoint", help="link to the other host's frame (?server=on on one of the two)")


@dataclass(frozen=True, slots=True)
class Settings:
    """Values by option name, and where each came from (for error texts)."""

    values: dict[str, Any] = field(default_factory=dict)
    where: dict[str, str] = field(default_factory=dict)

    def put(self, name: str, value: Any, where: str) -> None:
        """A later source overrules an earlier one."""
        self.values[name] = value
        self.where[name] = where


def merge(*tables: Sequence[Option]) -> dict[str, Option]:
    """One table out of several; the first to name an option defines it."""
    out: dict[str, Option] = {}
    for table in tables:
        for one in table:
            out.setdefault(one.name, one)
    return out


def gather(
    role: str,
    table: Mapping[str, Option],
    flags: Mapping[str, Any],
    environ: Mapping[str, str],
    anywhere: Mapping[str, Any],
    content: Mapping[str, Any] | None = None,
) -> Settings:
    """What file, environment and flags say for one process. `anywhere` names options of any role: those may stand
    in `[defaults]`. `content` is what is in the file, when that is known.
    """
    settings = Settings()
    from_env = environment(role, table, environ)
    path = flags.get("config") or from_env.values.get("config")
    if path:
        content = load(str(path)) if content is None else content
        who = flags.get("id") or from_env.values.get("id") or only(content, role)
        from_file(settings, content, role, who, table, anywhere, str(path))
        if who:
            settings.put("id", who, f"{path}: [{role}.{who}]")
    for name, value in from_env.values.items():
        settings.put(name, value, from_env.where[name])
    for name, value in flags.items():
        if value is not None and value != ():
            settings.put(name, value, "")
    return settings


def environment(role: str, table: Mapping[str, Option], environ: Mapping[str, str]) -> Settings:
    """`COLO_<ROLE>_<OPTION>` before `COLO_<OPTION>`; a role's variable that names no option is refused."""
    found = Settings()
    mine = f"COLO_{role.upper()}_"
    for name, one in table.items():
        variables = [mine + name.upper()]
        if one.kind != "endpoint" or name == "frame":
            variables.append("COLO_" + name.upper())
        if name == "netdev_socket":
            variables.append("COLO_NETDEV")
        for variable in variables:
            value = environ.get(variable)
            if value:
                found.put(name, value.split() if one.many else value, variable)
                break
    for variable in environ:
        if variable.startswith(mine):
            name = variable.removeprefix(mine).lower()
            if name not in table and variable.removeprefix("COLO_").lower() not in table:
                raise ConfigError(f"environment {variable}: {unknown(name, table)}")
    return found


def load(path: str) -> dict[str, Any]:
    """A TOML file."""
    try:
        with Path(path).open("rb") as file:
            return tomllib.load(file)
    except OSError as error:
        raise ConfigError(f"--config {path}: {error.strerror}") from None
    except RecursionError:
        raise ConfigError(f"--config {path}: tables or arrays are nested too deep") from None
    except ValueError as error:
        # tomllib's own error, text that is no UTF-8, numbers of thousands of digits.
        raise ConfigError(f"--config {path}: {error}") from None


def only(content: Mapping[str, Any], role: str) -> str:
    """The id of the only table of a role; empty when there are none or several."""
    section = content.get(role, {})
    tables = [name for name, value in section.items() if isinstance(value, dict)] if isinstance(section, dict) else []
    return tables[0] if len(tables) == 1 else ""


def from_file(
    settings: Settings,
    content: Mapping[str, Any],
    role: str,
    who: str,
    table: Mapping[str, Option],
    anywhere: Mapping[str, Any],
    path: str,
) -> None:
    """Add what the file says for the process `who` of `role`."""
    defaults, section = content.get("defaults", {}), content.get(role, {})
    for title, rows in (("defaults", defaults), (role, section)):
        if not isinstance(rows, dict):
            raise ConfigError(f"{path}: {title}: a table is expected, as in [{title}]")
    for name, value in defaults.items():
        key = name.replace("-", "_")
        if key in table:
            settings.put(key, value, f"{path}: [defaults] {name}")
        elif key not in anywhere:
            raise ConfigError(f"{path}: [defaults]: {unknown(name, anywhere)}")
    own = section.get(who, {})
    for title, rows in ((f"[{role}]", section), (f"[{role}.{who}]", own if isinstance(own, dict) else {})):
        for name, value in rows.items():
            if isinstance(value, dict):
                if rows is section:
                    continue
                raise ConfigError(f"{path}: {title} {name}: a table is not expected here")
            key = name.replace("-", "_")
            if key not in table:
                raise ConfigError(f"{path}: {title}: {unknown(name, table)}")
            settings.put(key, value, f"{path}: {title} {name}")


def common_table() -> tuple[Option, ...]:
    """Options of every filter."""
    return options(CommonConfig)


def values_for(cls: type[Any], settings: Settings) -> dict[str, Any]:
    """Those settings that are options of `cls`."""
    names = {one.name for one in options(cls)}
    return {name: value for name, value in settings.values.items() if name in names}
