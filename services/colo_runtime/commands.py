"""The commands of services: option tables to click commands, settings to a running process."""

import importlib
import os
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, Final, NoReturn

import click

from colo_proto.config import Option, build, options
from colo_proto.endpoint import parse_endpoint
from colo_proto.errors import ConfigError
from colo_runtime.link import keep_safe
from colo_runtime.options import CommonConfig, FrameLinksConfig, NotifyConfig, Settings, gather, merge, values_for
from colo_runtime.rulesfile import RulesFile, check_rules
from colo_runtime.secretfile import SecretFile, read_secrets

if TYPE_CHECKING:
    import zmq

    from colo_runtime.shell import LogFn, Shell

HOSTNAME: Final = "{hostname}"

SETTINGS: Final = {
    "token_normalize_func": lambda text: text.replace("_", "-"),
    "help_option_names": ["-h", "--help"],
    "max_content_width": 110,
}


@dataclass(frozen=True, slots=True)
class Service:
    """Where a service's config and core live, and what QEMU calls it."""

    role: str
    config: str
    core: str
    help: str
    extra: tuple[type[Any], ...] = ()

    def config_class(self) -> type[Any]:
        """Its frozen dataclass."""
        return _load(self.config, self.role)

    def core_class(self) -> type[Any]:
        """Its core."""
        return _load(self.core, self.role)

    def classes(self) -> tuple[type[Any], ...]:
        """All config classes whose options it takes."""
        return (self.config_class(), *self.extra, CommonConfig)

    def table(self) -> dict[str, Option]:
        """All its options: its own first, then a port that its config does not mention, then the common ones."""
        own = merge(options(self.config_class()), *(options(cls) for cls in self.extra))
        ports = {}
        for port in getattr(self.core_class(), "ports", ()) if self.role != "frame" else ():
            if port.name not in own:
                ports[port.name] = Option(port.name, str, "", port.doc, kind="endpoint")
        return merge(tuple(ports.values()), tuple(own.values()), options(CommonConfig))


SERVICES: Final = {
    one.role: one
    for one in (
        Service("netdev", "colo_netdev.config:NetdevConfig", "colo_netdev.netdev:Netdev",
                "Open the taps and hand their descriptors to the filters (QEMU's -netdev tap)."),
        Service("mirror", "colo_mirror.config:MirrorConfig", "colo_mirror.mirror:Mirror",
                "Client frames to the guest, and a copy to the secondary (QEMU's filter-mirror)."),
        Service("redirector", "colo_redirector.config:RedirectorConfig", "colo_redirector.redirector:Redirector",
                "Frames out of the chain, or into it (QEMU's filter-redirector)."),
        Service("rewriter", "colo_rewriter.config:RewriterConfig", "colo_rewriter.rewriter:Rewriter",
                "The secondary's TCP numbers in terms of the primary's (QEMU's filter-rewriter)."),
        Service("compare", "colo_compare.config:CompareConfig", "colo_compare.compare:Compare",
                "Release what both guests agree on (QEMU's colo-compare).", (NotifyConfig,)),
        Service("frame", "colo_frame.config:FrameConfig", "colo_frame.frame:Frame",
                "Checkpoints, modes, heartbeat, worker table (the COLO frame).", (FrameLinksConfig,)),
    )
}  # fmt: skip


def _load(path: str, role: str) -> type[Any]:
    module, _, name = path.partition(":")
    try:
        found: type[Any] = getattr(importlib.import_module(module), name)
    except ModuleNotFoundError as error:
        if error.name is None or not module.startswith(error.name):
            raise
        raise ConfigError(f"{role}: this installation has no {module}") from None
    return found


def anywhere() -> dict[str, Option]:
    """The options of all roles, by name: what `[defaults]` of a file may hold."""
    table: dict[str, Option] = {}
    for service in SERVICES.values():
        table |= service.table()
    return table


def service_command(role: str) -> click.Command:
    """The click command of a service."""
    service = SERVICES[role]
    table = service.table()

    def callback(**given: Any) -> NoReturn:
        raise SystemExit(run_service(service, table, given))

    params: list[click.Parameter] = [_param(one) for one in table.values()]
    return click.Command(
        role, callback=callback, params=params, help=service.help, context_settings=dict(SETTINGS), epilog=_EPILOG
    )


_EPILOG = """Each option may also come from the environment (COLO_ROLE_OPTION or COLO_OPTION) or from --config FILE;
flags win over the environment, and the environment over the file."""


def _param(one: Option) -> click.Option:
    note = []
    if one.choices:
        note.append("|".join(one.choices))
    if one.required:
        note.append("required")
    elif one.default not in ("", ()):
        default = "on" if one.default is True else "off" if one.default is False else one.default
        note.append(f"default {default}" + (f" {one.unit}" if one.unit else ""))
    elif one.unit:
        note.append(one.unit)
    text = one.help + (f"  [{'; '.join(note)}]" if note else "")
    metavar = {"endpoint": "ENDPOINT", "path": "PATH", "rules": "FILE", "host_port": "HOST:PORT"}.get(one.kind)
    if metavar is None:
        metavar = "on|off" if one.type is bool else {int: "N", float: "X"}.get(one.type, "TEXT")
    if one.type is bool:
        # `--insecure` alone says on.
        return click.Option([one.flag, one.name], is_flag=False, flag_value="on", help=text, metavar=metavar)
    return click.Option([one.flag, one.name], multiple=one.many, help=text, metavar=metavar)


@dataclass(frozen=True, slots=True)
class Resolved:
    """A process with all its settings checked."""

    service: Service
    settings: Settings
    common: CommonConfig
    config: Any
    endpoints: Mapping[str, str]


def resolve(
    service: Service, table: Mapping[str, Option], flags: Mapping[str, Any], environ: Mapping[str, str]
) -> Resolved:
    """Everything from everywhere, checked. `ConfigError` names what is wrong."""
    return check(service, table, gather(service.role, table, flags, environ, anywhere=_Lazy()))


class _Lazy(dict[str, Any]):
    """`anywhere()`, computed when a name is looked up in it: most files need only the role's own names."""

    def _fill(self) -> None:
        if not len(self):
            self.update(anywhere())

    def __contains__(self, key: object) -> bool:
        self._fill()
        return super().__contains__(key)


def check(service: Service, table: Mapping[str, Option], settings: Settings) -> Resolved:
    """Turn settings into config objects. `ConfigError` names what is wrong."""
    for name in settings.values:
        table[name].parse(settings.values[name], settings.where[name])
    common = build(CommonConfig, values_for(CommonConfig, settings), settings.where)
    cls = service.config_class()
    config = build(cls, values_for(cls, settings), settings.where)
    if not common.id:
        own = getattr(config, "id", "")
        common = replace(common, id=own or service.role)
    # Containers that are scaled out have one command line: the host's name tells them apart.
    common = replace(common, id=common.id.replace(HOSTNAME, socket.gethostname()))
    if any(spec.name == "id" for spec in fields(cls)):
        config = replace(config, id=common.id)
    if len(common.id.encode()) > 64 or common.id in ("peer", "*"):
        raise ConfigError(f"--id {common.id}: at most 64 bytes, and neither 'peer' nor '*'")
    endpoints = {
        name: table[name].parse(value, settings.where[name])
        for name, value in settings.values.items()
        if table[name].kind == "endpoint" and value and name != "frame"
    }
    check_rules(table, settings)
    _safe(common, endpoints)
    _secret(service, common, config, endpoints)
    for extra in service.extra:
        build(extra, values_for(extra, settings), settings.where)
    return Resolved(service, settings, common, config, endpoints)


def _safe(common: CommonConfig, endpoints: Mapping[str, str]) -> None:
    """Keys can be read, and links between hosts have some."""
    keys = bool(common.curve_secret or common.curve_peers)
    if keys:
        from colo_runtime.curve import load as load_keys  # noqa: PLC0415

        load_keys(common.curve_secret, common.curve_peers)
    for name, text in {**endpoints, "frame": common.frame}.items():
        if text:
            option = "--" + name.replace("_", "-")
            keep_safe(option, parse_endpoint(text), keys=keys, insecure=common.insecure)


def _secret(service: Service, common: CommonConfig, config: Any, endpoints: Mapping[str, str]) -> None:
    """The frames of a pair that has keys have a secret as well: by that they know each other on the client LAN."""
    if service.role != "frame":
        return
    if config.pair_secret:
        read_secrets(config.pair_secret)
    elif endpoints.get("peer") and (common.curve_secret or common.curve_peers):
        raise ConfigError("--pair-secret: required with keys (colo keygen --pair makes it, one file for both hosts)")


def run_service(service: Service, table: Mapping[str, Option], flags: Mapping[str, Any]) -> int:
    """Resolve, build the core and its shell, and run it to its end. The exit status."""
    from colo_runtime.logs import configure  # noqa: PLC0415

    found = resolve(service, table, flags, os.environ)
    log = configure(found.common.log_level, found.common.log_format, role=service.role, id=found.common.id)
    return make_shell(found, log).run()


def make_shell(found: Resolved, log: "LogFn", context: "zmq.Context[Any] | None" = None) -> "Shell":
    """The core of a service in its shell, not yet open. Shells of one process may share a ZeroMQ `context`."""
    service, common = found.service, found.common
    endpoints = {name: parse_endpoint(text) for name, text in found.endpoints.items()}
    if service.role == "netdev":
        from colo_netdev.shell import NetdevShell  # noqa: PLC0415

        return NetdevShell(service.core_class()(found.config), common, log)
    if service.role == "frame":
        from colo_runtime.frameshell import FrameShell  # noqa: PLC0415
        from colo_runtime.shell import incarnation  # noqa: PLC0415

        start = incarnation()
        core = service.core_class()(found.config, incarnation=start, now=time.monotonic())
        links = {name: one for name, one in endpoints.items() if name in ("listen", "peer")}
        frame = FrameShell(core, links, common, log, incarnation=start, context=context)
        frame.rules = RulesFile(found.config.rules, core)
        frame.secret = SecretFile(found.config.pair_secret, core)
        return frame
    from colo_runtime.filtershell import FilterShell  # noqa: PLC0415

    core = service.core_class()(found.config)
    notify = endpoints.pop("notify_dev", None)
    shell = FilterShell(service.role, core, endpoints, common, log, notify_dev=notify, context=context)
    shell.rules = RulesFile(getattr(found.config, "rules", ""), core)
    return shell
