"""Starting the processes of a lab: which command each has, with which options, in which namespace.

What is started is in the table of processes and links (`colo_proto.topology`), so the lab runs the same commands as two
real hosts do. Whether something that was started is ready yet is another matter (`colo_lab.ready`).
"""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from colo_lab import elevate, guests
from colo_lab.children import Child
from colo_lab.config import GUEST4, GUEST6, GUEST_MAC, HOST_P, HOST_S, LabConfig
from colo_lab.crew import Crew
from colo_lab.spaces import BRIDGE, GUEST_IF, Spaces
from colo_proto.topology import SIDES, ProcessSpec, Side, Site, plan
from colo_runtime.curve import write_pair
from colo_runtime.secretfile import write_secret

IMPAIR: Final = "impair"
LAN_WATCH: Final = "lan"
LAN_FILE: Final = "lan.json"

_ROLES: Final = ("netdev", "frame", "mirror", "redirector", "compare", "rewriter")
_PYTHON: Final = (sys.executable, "-P", "-m")


def control(directory: str, side: Side) -> str:
    """The endpoint at which the frame of a host listens."""
    return f"ipc://{directory}/{side[0]}/control.sock"


def client_environment() -> dict[str, str]:
    """The environment of a client: where the guest is."""
    return {**os.environ, "COLO_GUEST": GUEST4, "COLO_GUEST6": GUEST6}


def start_guard(directory: str, spaces: Spaces) -> "subprocess.Popen[bytes]":
    """Start the process that clears up should the lab be killed (`colo_lab.guard`)."""
    inodes = [str(inode) for inode in spaces.inodes()]
    return subprocess.Popen(
        [sys.executable, "-I", "-S", str(Path(__file__).with_name("guard.py")), directory, *inodes],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


class Launcher:
    """See the module. `directory` is the lab's own, for sockets, keys and logs."""

    def __init__(self, config: LabConfig, directory: str, spaces: Spaces, crew: Crew) -> None:
        self._config = config
        self._directory = directory
        self._spaces = spaces
        self._crew = crew
        self._sites: dict[Side, Site] = {}

    # -- filters --------------------------------------------------------------------------------

    def filters(self) -> None:
        """Start all processes of both hosts."""
        extra = self._options()
        for side in SIDES if self._config.curve else ():
            write_pair(self._directory, side)
        for side in SIDES:
            site = self._sites[side] = self._site(side, extra)
            for spec in plan(side, self._config.wiring, self._config.workers, site):
                self._filter(spec, f"host-{side[0]}")

    def compares(self, workers: int) -> None:
        """Start those of so many compares that do not run yet."""
        running = {one.id for one in self._crew.children.values() if one.role == "compare" and not one.retired}
        for spec in plan("primary", self._config.wiring, workers, self._sites["primary"]):
            if spec.role == "compare" and spec.id not in running:
                self._crew.revive(spec.id)
                self._filter(spec, "host-p")

    def _filter(self, spec: ProcessSpec, host: str) -> None:
        argv = [*_PYTHON, f"colo_{spec.role}", *spec.argv[1:]]
        child = Child(spec.role, spec.id, host, argv, self._spaces.fds[host], log=self._log(spec.id))
        child.endpoints = {
            key: value for key, value in spec.options.items() if isinstance(value, str) and "://" in value
        }
        self._crew.start(child)

    def _options(self) -> dict[str, dict[str, str]]:
        """Options by role or id: the lab's own, and above them what the command line says."""
        config = self._config
        common = {"log-level": config.log_level}
        extra = {role: {**common, **config.extra.get(role, {})} for role in (*_ROLES, *config.extra)}
        for role in ("compare", "frame"):
            extra[role] = {"mode": config.mode, **extra[role]}
        # The claims are sealed with a real secret, as between real hosts.
        extra["frame"] = {"pair-secret": str(write_secret(self._directory, "lab")), **extra["frame"]}
        if config.failover is not None:
            extra["frame"] = {"failover": "auto", **extra["frame"]}
        return extra

    def _site(self, side: Side, extra: dict[str, dict[str, str]]) -> Site:
        """What the processes of one host must know of the machine."""
        letter, spaces = side[0], self._spaces
        directory = f"{self._directory}/{letter}"
        Path(directory).mkdir(mode=0o700)
        links = self._links(side)
        return Site(
            directory=directory,
            bind=HOST_P if side == "primary" else HOST_S,
            peer=HOST_S if side == "primary" else HOST_P,
            taps={
                "lan": f"lan-{letter},netns={spaces.path('client')},bridge={BRIDGE}",
                "guest": f"guest-{letter},netns={spaces.path(f'guest-{letter}')},ifname={GUEST_IF},mac={GUEST_MAC}",
            },
            extra={role: {**links, **options} for role, options in extra.items()},
        )

    def _links(self, side: Side) -> dict[str, str]:
        """What the links between the hosts need: keys of this lab alone, or the word that they do without."""
        if not self._config.curve:
            # They never leave this machine, and with keys both hosts' cipher runs on the same cores.
            return {"insecure": "on"}
        other = "secondary" if side == "primary" else "primary"
        return {
            "curve-secret": f"{self._directory}/{side}.key_secret",
            "curve-peers": f"{self._directory}/{other}.key",
        }

    # -- guests and the client's LAN ------------------------------------------------------------

    def guests(self) -> None:
        """Start the guest's command in both guests, if there is one."""
        config = self._config
        if not config.guest:
            return
        own_processes = elevate.pid_namespaces()
        commands = {"primary": config.guest, "secondary": config.secondary_guest or config.guest}
        for side in SIDES:
            name = f"guest-{side[0]}"
            scratch = Path(self._directory, name)
            scratch.mkdir(mode=0o700)
            argv = guests.argv(commands[side], str(scratch), own_processes=own_processes)
            env = guests.environment(side, os.environ)
            self._crew.start(Child("guest", name, name, argv, self._spaces.fds[name], env=env, log=self._log(name)))

    def impairment(self) -> None:
        """Start what makes a bad LAN between the client and the hosts."""
        config = self._config
        words = [f"{config.loss:g}", f"{config.reorder:g}", str(config.seed)]
        self._in_client_space("impair", IMPAIR, [*_PYTHON, "colo_lab.impair", *words])

    def lan_watch(self) -> None:
        """Start a capture on the client LAN."""
        self._in_client_space("watch", LAN_WATCH, [*_PYTHON, "colo_lab.lanwatch", f"{self._directory}/{LAN_FILE}"])

    def _in_client_space(self, role: str, name: str, argv: Sequence[str]) -> None:
        self._crew.start(Child(role, name, "client", argv, self._spaces.fds["client"], log=self._log(name)))

    def _log(self, name: str) -> str:
        if self._config.logs:
            Path(self._config.logs).mkdir(parents=True, exist_ok=True)
        return f"{self._config.logs or self._directory}/{name}.log"
