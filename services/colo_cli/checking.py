"""`colo check`: every table of a configuration file with all values resolved, or everything that is wrong with it."""

import json
from collections.abc import Mapping
from typing import Any

from colo_proto.config import unknown
from colo_proto.errors import ConfigError
from colo_runtime.options import Settings, Table, gather, load, read_table, tables_of
from colo_runtime.service import anywhere, check, services


def check_file(path: str, environ: Mapping[str, str]) -> tuple[dict[str, dict[str, dict[str, Any]]], list[str]]:
    """The resolved values by role, id and option name, and one line for each error.

    `ConfigError` when the file cannot be read at all.
    """
    content = load(path)
    resolved: dict[str, dict[str, dict[str, Any]]] = {}
    errors: list[str] = []
    read_table(content.get("defaults", {}), f"{path}: [defaults]", anywhere(), errors.append)
    for role, section in content.items():
        if role == "defaults":
            continue
        service = services().get(role)
        if service is None:
            errors.append(f"{path}: {unknown(role, ['defaults', *services()], 'table')}")
            continue
        table = service.table()
        for name in tables_of(section) or [""]:
            flags = {"config": path, "id": name or None}
            try:
                settings = gather(role, table, flags, environ, anywhere, content, errors.append)
                check(service, table, settings)
                resolved.setdefault(role, {})[name or role] = _values(table, settings)
            except ConfigError as error:
                errors.append(str(error) if str(error).startswith(path) else f"{path}: [{role}.{name}]: {error}")
    # What is wrong in a shared table was found once for each process.
    return resolved, list(dict.fromkeys(errors))


def _values(table: Table, settings: Settings) -> dict[str, Any]:
    values = {name: settings[name].value if name in settings else one.default for name, one in table.items()}
    return {name: list(one) if isinstance(one, tuple) else one for name, one in values.items() if name != "config"}


def render(resolved: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> str:
    """The values as TOML, which `--config` accepts again."""
    lines = []
    for role, tables in resolved.items():
        for name, values in tables.items():
            lines.append(f"[{role}.{_key(name)}]")
            lines += [f"{key} = {_toml(value)}" for key, value in values.items() if key != "id"]
            lines.append("")
    return "\n".join(lines).rstrip()


def _key(name: str) -> str:
    return name if name.isascii() and name.replace("-", "").replace("_", "").isalnum() else _toml(name)


def _toml(value: Any) -> str:
    """TOML writes text, numbers, truth values and lists as JSON does, except that DEL has to be escaped as well. What
    is no text in the environment (it is a surrogate here) cannot be written in either.
    """
    text = json.dumps(value, ensure_ascii=False).encode(errors="backslashreplace").decode()
    return text.replace("\x7f", "\\u007f")
