"""Starting the processes of a lab: the command of each, its options, and the namespace that it runs in.

The table of processes and links (`colo_proto.topology`) says what is started, so the lab runs the same commands as two
real hosts do.
"""

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from colo_lab import privileges
from colo_lab.children import Child
from colo_lab.config import GUEST4, GUEST6, GUEST_MAC, HOST_P, HOST_S, LabConfig
from colo_lab.namespaces import BRIDGE, GUEST_IF, Namespaces
from colo_lab.supervisor import Supervisor
from colo_proto.topology import SIDES, ProcessSpec, Side, Site, plan
from colo_runtime.curve import write_pair
from colo_runtime.secretfile import write_secret

IMPAIR: Final = "impair"
LAN_WATCH: Final = "lan"
LAN_FILE: Final = "lan.json"
QUIET: Final = 0.5
"""Seconds without a frame from a host's port after which the guest may be heard from it again, where the leadership
can come back. Two hosts that write at the same time are not silent for so long.
"""

_ROLES: Final = ("netdev", "frame", "vote", "mirror", "redirector", "compare", "rewriter")
_PYTHON: Final = (sys.executable, "-P", "-m")


PRIVATE: Final = ("run", "tmp")
"""Folders that two hosts would not share. `/tmp` comes last, because the scratch folder may be in it."""

_PRIVATE_FOLDERS: Final = (
    'scratch=$1; command=$2; mount -t tmpfs -o mode=0700 tmpfs "$scratch" || exit 1; '
    f"for name in {' '.join(PRIVATE)}; do "
    'mkdir "$scratch/$name" "$scratch/$name.work"; chmod "$(stat -c %a "/$name")" "$scratch/$name"; '
    'mount -t overlay overlay -o "lowerdir=/$name,upperdir=$scratch/$name,workdir=$scratch/$name.work" "/$name" || '
    'echo "colo lab: both guests share /$name, because an overlay could not be mounted there" >&2; done; '
    'exec sh -c "$command"'
)
"""Each guest writes into an overlay of its own over `/run` and `/tmp`. It still sees the machine's files there, because
the program that it runs may be one of them.
"""


def control(directory: str, side: Side) -> str:
    """The endpoint at which the COLO frame of a host listens."""
    return f"ipc://{directory}/{side[0]}/control.sock"


def client_environment() -> dict[str, str]:
    """The environment of a client, which holds the addresses of the guest."""
    return {**os.environ, "COLO_GUEST": GUEST4, "COLO_GUEST6": GUEST6}


def start_cleanup(directory: str, namespaces: Namespaces) -> "subprocess.Popen[bytes]":
    """Start the process that clears up if the lab is killed (`colo_lab.cleanup`)."""
    inodes = [str(inode) for inode in namespaces.inodes()]
    return subprocess.Popen(
        [sys.executable, "-I", "-S", str(Path(__file__).with_name("cleanup.py")), directory, *inodes],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def guest_argv(command: str, scratch: str, *, own_processes: bool) -> list[str]:
    """The command line that starts `command`, a line for the shell. `scratch` is an empty folder for this guest only.

    With `own_processes` the guest gets a process id namespace, so that everything the command starts ends with it.
    """
    processes = ["--pid", "--fork", "--kill-child=KILL", "--mount-proc"] if own_processes else []
    unshare = ["unshare", "--mount", "--propagation", "private", *processes, "--"]
    return [*unshare, "sh", "-c", _PRIVATE_FOLDERS, "sh", scratch, command]


class Launcher:
    """See the module. `directory` is the lab's own folder, for sockets, keys and logs."""

    def __init__(self, config: LabConfig, directory: str, namespaces: Namespaces, supervisor: Supervisor) -> None:
        self._config = config
        self._directory = directory
        self._namespaces = namespaces
        self._supervisor = supervisor
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
        """Start those of `workers` compare workers that do not run yet."""
        running = {one.id for one in self._supervisor.children.values() if one.role == "compare" and not one.retired}
        for side in SIDES:
            for spec in plan(side, self._config.wiring, workers, self._sites[side]):
                if spec.role == "compare" and spec.id not in running:
                    self._filter(spec, f"host-{side[0]}")

    def _filter(self, spec: ProcessSpec, host: str) -> None:
        argv = [*_PYTHON, f"colo_{spec.role}", *spec.argv[1:]]
        # The store is none of the two hosts: `colo vote` reaches it as this machine does, whatever the lab cuts.
        child = self._start(spec.role, spec.id, host, argv, here=spec.role == "vote")
        child.endpoints = {
            key: value for key, value in spec.options.items() if isinstance(value, str) and "://" in value
        }

    def _options(self) -> dict[str, dict[str, str]]:
        """Options by role or id: the lab's own, which those of the command line override."""
        config = self._config
        own = {who: {"log-level": config.log_level} for who in (*_ROLES, *config.extra)}
        own["compare"]["mode"] = own["frame"]["mode"] = config.mode
        # The claims are sealed with a secret, as between real hosts.
        own["frame"]["pair-secret"] = str(write_secret(self._directory, "lab"))
        if config.failovers:
            own["frame"]["failover"] = "auto"
        if config.wiring == "symmetric":
            # A host that was repaired becomes the standby without an order.
            own["frame"]["resync"] = "auto"
        return {who: {**options, **config.extra.get(who, {})} for who, options in own.items()}

    def _site(self, side: Side, extra: dict[str, dict[str, str]]) -> Site:
        """Everything about the machine that the command lines of one host's processes depend on."""
        letter, namespaces = side[0], self._namespaces
        directory = f"{self._directory}/{letter}"
        Path(directory).mkdir(mode=0o700)
        links = self._links(side)
        return Site(
            directory=directory,
            bind=HOST_P if side == "primary" else HOST_S,
            peer=HOST_S if side == "primary" else HOST_P,
            taps={
                "lan": f"lan-{letter},netns={namespaces.path('client')},bridge={BRIDGE}",
                "guest": f"guest-{letter},netns={namespaces.path(f'guest-{letter}')},ifname={GUEST_IF},mac={GUEST_MAC}",
            },
            extra={role: {**links, **options} for role, options in extra.items()},
            vote=self._config.vote,
        )

    def _links(self, side: Side) -> dict[str, str]:
        """Options of the links between the hosts: keys that this lab has made, or permission to have none."""
        if not self._config.curve:
            # These links do not leave this machine, and encryption for both hosts would run on the same cores.
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
        own_processes = privileges.pid_namespaces()
        commands = {"primary": config.guest, "secondary": config.secondary_guest or config.guest}
        for side in SIDES:
            name = f"guest-{side[0]}"
            scratch = Path(self._directory, name)
            scratch.mkdir(mode=0o700)
            argv = guest_argv(commands[side], str(scratch), own_processes=own_processes)
            # COLO_SIDE tells the guest which replica it is.
            self._start("guest", name, name, argv, {**os.environ, "COLO_SIDE": side})

    def impairment(self) -> None:
        """Start the process that loses and reorders frames between the client and the hosts."""
        config = self._config
        words = [f"{config.loss:g}", f"{config.reorder:g}", str(config.seed)]
        self._start("impair", IMPAIR, "client", [*_PYTHON, "colo_lab.impair", *words])

    def lan_watch(self) -> None:
        """Start a capture on the client LAN."""
        quiet = [f"{QUIET:g}"] if self._config.wiring == "symmetric" else []
        argv = [*_PYTHON, "colo_lab.lanwatch", f"{self._directory}/{LAN_FILE}", *quiet]
        self._start("watch", LAN_WATCH, "client", argv)

    def _start(
        self,
        role: str,
        name: str,
        namespace: str,
        argv: Sequence[str],
        env: Mapping[str, str] | None = None,
        *,
        here: bool = False,
    ) -> Child:
        logs = Path(self._config.logs or self._directory)
        logs.mkdir(parents=True, exist_ok=True)
        fd = -1 if here else self._namespaces.fds[namespace]
        child = Child(role, name, namespace, argv, fd, env=env, log=f"{logs}/{name}.log")
        self._supervisor.start(child)
        return child
