"""`colo check`: every table of a configuration file, resolved, or everything that is wrong with it."""

from collections.abc import Mapping
from typing import Any

from colo_proto.config import Option, unknown
from colo_proto.errors import ConfigError
from colo_runtime.options import gather, load
from colo_runtime.service import Service, anywhere, check, services


def check_file(path: str, environ: Mapping[str, str]) -> tuple[dict[str, dict[str, dict[str, Any]]], list[str]]:
    """Resolved settings by role and id, and one line for each error. An unreadable file is a `ConfigError`."""
    content = load(path)
    known = anywhere()
    resolved: dict[str, dict[str, dict[str, Any]]] = {}
    errors: list[str] = []
    defaults = _good(content.get("defaults", {}), known, f"{path}: [defaults]", errors)
    for role, section in content.items():
        if role == "defaults":
            continue
        service = services().get(role)
        if service is None:
            errors.append(f"{path}: {unknown(role, ['defaults', *services()], 'table')}")
            continue
        table = service.table()
        names = [name for name, value in section.items() if isinstance(value, dict)] if _is_table(section) else []
        rows = {name: value for name, value in section.items() if name not in names} if names else section
        own = _good(rows, table, f"{path}: [{role}]", errors)
        for name in names or [""]:
            mine = {name: _good(section[name], table, f"{path}: [{role}.{name}]", errors)} if name else {}
            clean = {"defaults": defaults, role: own | mine}
            try:
                resolved.setdefault(role, {})[name or role] = _one(service, name, path, clean, environ)
            except ConfigError as error:
                errors.append(str(error) if str(error).startswith(path) else f"{path}: [{role}.{name}]: {error}")
    return resolved, list(dict.fromkeys(errors))


def _is_table(value: object) -> bool:
    return isinstance(value, dict)


def _good(rows: Any, table: Mapping[str, Option], where: str, errors: list[str]) -> dict[str, Any]:
    """Those rows that are options with a fitting value; what is wrong with the others goes to `errors`."""
    if not _is_table(rows):
        errors.append(f"{where}: a table is expected")
        return {}
    good = {}
    for name, value in rows.items():
        one = table.get(name.replace("-", "_"))
        if one is None:
            errors.append(f"{where}: {unknown(name, table)}")
            continue
        try:
            one.parse(value, f"{where} {name}")
        except ConfigError as error:
            errors.append(str(error))
        else:
            good[name] = value
    return good


def _one(
    service: Service, name: str, path: str, content: Mapping[str, Any], environ: Mapping[str, str]
) -> dict[str, Any]:
    table = service.table()
    flags = {"config": path, **({"id": name} if name else {})}
    settings = gather(service.role, table, flags, environ, anywhere(), content)
    check(service, table, settings)
    out: dict[str, Any] = {}
    for key, one in table.items():
        if key == "config":
            continue
        value = one.parse(settings.values[key], settings.where[key]) if key in settings.values else one.default
        out[key] = list(value) if isinstance(value, tuple) else value
    return out


def render(resolved: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> str:
    """As TOML that could be given again."""
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
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return "[" + ", ".join(map(_toml, value)) + "]"
    if isinstance(value, str):
        text = value.replace("\\", "\\\\").replace('"', '\\"')
        return '"' + "".join(c if c.isprintable() else f"\\u{ord(c):04x}" for c in text) + '"'
    return str(value)
