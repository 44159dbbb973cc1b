"""What one process of the pipeline is made of, and the way from its settings to its running shell.

Each service declares itself in its `__main__.py` as a `Service`. `pyproject.toml` lists those under the entry point
group `colo.services`, and that is where all of them are found: this package knows none of them by name.

::

    defaults, file, environment, flags --resolve--> Resolved --make_shell--> shell --run--> exit status
"""

import importlib
import os
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from functools import cache
from importlib.metadata import entry_points
from typing import Any, Final, Protocol

from colo_proto.config import Option, build, options
from colo_proto.endpoint import Endpoint, parse_endpoint
from colo_proto.errors import ConfigError
from colo_runtime import curve
from colo_runtime.link import keep_safe
from colo_runtime.logs import configure
from colo_runtime.options import CommonConfig, Settings, gather, merge, values_for
from colo_runtime.rulesfile import check_rules

GROUP: Final = "colo.services"
HOSTNAME: Final = "{hostname}"


class Process(Protocol):
    """A shell, as far as whoever starts it is concerned."""

    def run(self) -> int:
        """Run it to its end. The exit status."""
        ...


@dataclass(frozen=True, slots=True)
class Service:
    """One kind of process. Parts are named as `module:name` and imported when they are needed: a filter starts fast,
    and the list of all services costs nothing.
    """

    role: str
    help: str
    config: str
    """Its frozen dataclass of options."""
    core: str
    """The class of its core, made from the config."""
    make: str = "colo_runtime.filtershell:make"
    """A function `(Resolved, log, ZeroMQ context or None) -> Process`: the core in its shell."""
    check: str = ""
    """A function `(Resolved) -> None` that raises `ConfigError` for what only this service can know to be wrong."""
    extra: tuple[type[Any], ...] = ()
    """More classes of options, which the shell uses."""

    def config_class(self) -> type[Any]:
        """Its frozen dataclass."""
        found: type[Any] = self.load(self.config)
        return found

    def core_class(self) -> type[Any]:
        """Its core."""
        found: type[Any] = self.load(self.core)
        return found

    def classes(self) -> tuple[type[Any], ...]:
        """All config classes whose options it takes."""
        return (self.config_class(), *self.extra, CommonConfig)

    def table(self) -> dict[str, Option]:
        """All its options: ports that its config does not mention first, then its own, then the common ones."""
        own = merge(options(self.config_class()), *(options(cls) for cls in self.extra))
        ports = tuple(
            Option(port.name, str, "", port.doc, kind="endpoint")
            for port in getattr(self.core_class(), "ports", ())
            if port.name not in own
        )
        return merge(ports, tuple(own.values()), options(CommonConfig))

    def load(self, path: str) -> Any:
        """What `path` (`module:name`) names. `ConfigError` when this installation does not have it."""
        module, _, name = path.partition(":")
        try:
            return getattr(importlib.import_module(module), name)
        except ModuleNotFoundError as error:
            if error.name is None or not module.startswith(error.name):
                raise
            raise ConfigError(f"{self.role}: this installation has no {module}") from None


@cache
def services() -> dict[str, Service]:
    """All services of this installation, by role."""
    return {one.name: one.load() for one in entry_points(group=GROUP)}


def anywhere() -> dict[str, Option]:
    """The options of all services, by name: what `[defaults]` of a file may hold."""
    table: dict[str, Option] = {}
    for service in services().values():
        table |= service.table()
    return table


class _Lazy(dict[str, Any]):
    """`anywhere()`, computed when a name is looked up in it: most files need only the service's own names."""

    def _fill(self) -> None:
        if not len(self):
            self.update(anywhere())

    def __contains__(self, key: object) -> bool:
        self._fill()
        return super().__contains__(key)


@dataclass(frozen=True, slots=True)
class Resolved:
    """A process with all its settings checked."""

    service: Service
    settings: Settings
    common: CommonConfig
    config: Any
    endpoints: Mapping[str, str]
    """By port; the control link is in `common`."""

    def parsed(self) -> dict[str, Endpoint]:
        """The endpoints as values."""
        return {name: parse_endpoint(text) for name, text in self.endpoints.items()}

    @property
    def keys(self) -> bool:
        """Has it keys for links between hosts?"""
        return bool(self.common.curve_secret or self.common.curve_peers)


def resolve(
    service: Service, table: Mapping[str, Option], flags: Mapping[str, Any], environ: Mapping[str, str]
) -> Resolved:
    """Everything from everywhere, checked. `ConfigError` names what is wrong."""
    return check(service, table, gather(service.role, table, flags, environ, anywhere=_Lazy()))


def check(service: Service, table: Mapping[str, Option], settings: Settings) -> Resolved:
    """Turn settings into config objects. `ConfigError` names what is wrong."""
    for name in settings.values:
        table[name].parse(settings.values[name], settings.where[name])
    common = build(CommonConfig, values_for(CommonConfig, settings), settings.where)
    cls = service.config_class()
    config = build(cls, values_for(cls, settings), settings.where)
    has_id = any(spec.name == "id" for spec in fields(cls))
    if not common.id:
        common = replace(common, id=(config.id if has_id else "") or service.role)
    # Containers that are scaled out have one command line: the host's name tells them apart.
    common = replace(common, id=common.id.replace(HOSTNAME, socket.gethostname()))
    if has_id:
        config = replace(config, id=common.id)
    if len(common.id.encode()) > 64 or common.id in ("peer", "*"):
        raise ConfigError(f"--id {common.id}: at most 64 bytes, and neither 'peer' nor '*'")
    endpoints = {
        name: table[name].parse(value, settings.where[name])
        for name, value in settings.values.items()
        if table[name].kind == "endpoint" and value and name != "frame"
    }
    check_rules(table, settings)
    found = Resolved(service, settings, common, config, endpoints)
    _safe(found)
    if service.check:
        service.load(service.check)(found)
    for extra in service.extra:
        build(extra, values_for(extra, settings), settings.where)
    return found


def _safe(found: Resolved) -> None:
    """Keys can be read, and links between hosts have some."""
    common = found.common
    if found.keys:
        curve.load(common.curve_secret, common.curve_peers)
    for name, text in {**found.endpoints, "frame": common.frame}.items():
        if text:
            option = "--" + name.replace("_", "-")
            keep_safe(option, parse_endpoint(text), keys=found.keys, insecure=common.insecure)


def run_service(service: Service, table: Mapping[str, Option], flags: Mapping[str, Any]) -> int:
    """Resolve, build the core and its shell, and run it to its end. The exit status."""
    found = resolve(service, table, flags, os.environ)
    log = configure(found.common.log_level, found.common.log_format, role=service.role, id=found.common.id)
    return make_shell(found, log).run()


def make_shell(found: Resolved, log: Callable[..., None], zmq_context: Any = None) -> Process:
    """The core of a service in its shell, not yet open. Shells of one process may share a ZeroMQ context."""
    made: Process = found.service.load(found.service.make)(found, log, zmq_context)
    return made
