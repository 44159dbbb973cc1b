"""What one process of the pipeline is made of, and the way from its settings to its running shell.

Each service declares itself in its `__main__.py` as a `Service`. `pyproject.toml` lists these under the entry point
group `colo.services`, where all of them are found: this package does not know any of them by name.

::

    defaults, file, environment, flags --resolve--> Resolved --make_shell--> shell --run--> exit status
"""

import importlib
import os
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any, Final

from colo_proto.config import Option, flag, options
from colo_proto.endpoint import Endpoint, parse_endpoint
from colo_proto.errors import ConfigError
from colo_runtime import curve
from colo_runtime.logs import configure
from colo_runtime.options import CommonConfig, Settings, Table, build_from, gather
from colo_runtime.rulesfile import read_rules

if TYPE_CHECKING:
    from colo_runtime.shell import Shell

GROUP: Final = "colo.services"
HOSTNAME: Final = "{hostname}"


def load(path: str, user: str) -> Any:
    """The object that `path` (`module:name`) names.

    `ConfigError`, beginning with `user`, when the module is not a part of this installation.
    """
    module, _, name = path.partition(":")
    try:
        return getattr(importlib.import_module(module), name)
    except ModuleNotFoundError as error:
        if error.name is None or not module.startswith(error.name):
            raise
        raise ConfigError(f"{user}: this installation has no {module}") from None


@dataclass(frozen=True, slots=True)
class Service:
    """One kind of process, with its package `colo_<role>`. Its parts are imported only when they are needed, so that a
    filter starts fast and the list of all services costs nothing.
    """

    role: str
    help: str
    make: str = "colo_runtime.filtershell:make"
    """`module:name` of a function `(Resolved, log, ZeroMQ context or None) -> Shell`: it puts the core into its shell.
    """
    check: str = ""
    """`module:name` of a function `(Resolved) -> None`: it raises `ConfigError` for mistakes that only this service can
    recognise.
    """

    def config_class(self) -> type[Any]:
        """The frozen dataclass of its options: `RoleConfig` in `colo_role.config`."""
        found: type[Any] = load(f"colo_{self.role}.config:{self.role.title()}Config", self.role)
        return found

    def core_class(self) -> type[Any]:
        """The class of its core, made from the config: `Role` in `colo_role.role`."""
        found: type[Any] = load(f"colo_{self.role}.{self.role}:{self.role.title()}", self.role)
        return found

    def table(self) -> dict[str, Option]:
        """All its options: first the ports that its config does not mention, then its own, then the common ones."""
        own = options(self.config_class())
        ports = [
            Option(port.name, str, "", port.doc, kind="endpoint")
            for port in getattr(self.core_class(), "ports", ())
            if port.name not in {one.name for one in own}
        ]
        table: dict[str, Option] = {}
        for one in (*ports, *own, *options(CommonConfig)):
            table.setdefault(one.name, one)
        return table


@cache
def services() -> dict[str, Service]:
    """All services of this installation, by role."""
    return {one.name: one.load() for one in entry_points(group=GROUP)}


@cache
def anywhere() -> dict[str, Option]:
    """The options of all services, by name: `[defaults]` of a file may hold any of them."""
    return {name: one for service in services().values() for name, one in service.table().items()}


@dataclass(frozen=True, slots=True)
class Resolved:
    """A process with all its settings checked."""

    service: Service
    common: CommonConfig
    config: Any
    endpoints: Mapping[str, Endpoint]
    """By the name of the port; the control link is in `common`."""

    @property
    def keys(self) -> bool:
        """True when the process has keys for links between hosts."""
        return bool(self.common.curve_secret or self.common.curve_peers)


def resolve(service: Service, table: Table, flags: Mapping[str, Any], environ: Mapping[str, str]) -> Resolved:
    """Collect the settings from all sources and check them. `ConfigError` names what is wrong."""
    return check(service, table, gather(service.role, table, flags, environ, anywhere))


def check(service: Service, table: Table, settings: Settings) -> Resolved:
    """Turn settings into config objects. `ConfigError` names what is wrong."""
    common = build_from(CommonConfig, settings)
    config = build_from(service.config_class(), settings)
    # Containers that are scaled out share one command line; the name of the host tells them apart.
    name = (common.id or getattr(config, "id", "") or service.role).replace(HOSTNAME, socket.gethostname())
    if len(name.encode()) > 64 or name in ("peer", "*"):
        raise ConfigError(f"--id {name}: at most 64 bytes, and neither 'peer' nor '*'")
    common = replace(common, id=name)
    if hasattr(config, "id"):
        config = replace(config, id=name)
    endpoints = {}
    for option, (value, _) in settings.items():
        kind = table[option].kind
        if value and kind == "endpoint":
            endpoints[option] = parse_endpoint(value)
        elif value and kind == "rules":
            read_rules(value)
    found = Resolved(service, common, config, {port: one for port, one in endpoints.items() if port != "frame"})
    if found.keys:
        curve.load(common.curve_secret, common.curve_peers)
    for option, endpoint in endpoints.items():
        curve.require_keys(flag(option), endpoint, keys=found.keys, insecure=common.insecure)
    if service.check:
        load(service.check, service.role)(found)
    return found


def run_service(service: Service, table: Table, flags: Mapping[str, Any]) -> int:
    """Resolve the settings, build the core and its shell, and run until the process ends. Returns the exit status."""
    found = resolve(service, table, flags, os.environ)
    log = configure(found.common.log_level, found.common.log_format, role=service.role, id=found.common.id)
    return make_shell(found, log).run()


def make_shell(found: Resolved, log: Callable[..., None], zmq_context: Any = None) -> "Shell":
    """The core of a service in its shell, not yet open. Shells of one process may share a ZeroMQ context."""
    made: Shell = load(found.service.make, found.service.role)(found, log, zmq_context)
    return made
