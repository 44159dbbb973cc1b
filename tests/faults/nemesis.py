"""Carries out faults in a running lab, and ends those that last."""

import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

from colo_netdev import netns
from faults.plan import Fault
from pairlab import Lab

GUEST_IF = "eth0"


class Nemesis:
    """Each method returns a function that ends the fault, or None if the pair itself must recover."""

    def __init__(self, lab: Lab, namespaces: Any) -> None:
        self.lab = lab
        self.namespaces = namespaces

    def strike(self, fault: Fault) -> Callable[[], None] | None:
        """Carry out the fault now."""
        what: Callable[[str], Callable[[], None] | None] = getattr(self, f"_{fault.kind}")
        return what(fault.target)

    def _kill(self, target: str) -> None:
        self.lab.kill(target)

    def _pause(self, target: str) -> Callable[[], None]:
        child = self.lab.supervisor.children[target]
        starts = child.starts
        child.signal(signal.SIGSTOP)

        def resume() -> None:
            if child.starts == starts:
                child.signal(signal.SIGCONT)

        return resume

    def _cut(self, _target: str) -> Callable[[], None]:
        self.lab.cut()
        return lambda: self.lab.cut(cut=False)

    def _block(self, target: str) -> Callable[[], None]:
        # At the host that listens on it, in both directions, so that nothing passes on this link.
        port, _, host = target.partition("@")
        table = f"colo_{port}"
        self._nft(
            host,
            f"table inet {table} {{\n"
            f"chain in {{ type filter hook input priority 0; tcp dport {port} drop; }}\n"
            f"chain out {{ type filter hook output priority 0; tcp sport {port} drop; }}\n}}\n",
        )
        return lambda: self._nft(host, f"delete table inet {table}\n")

    def _nft(self, host: str, rules: str) -> None:
        with netns.inside(self.namespaces.fds[host]):
            subprocess.run(["nft", "-f", "-"], input=rules, text=True, check=True, capture_output=True)

    def _down(self, target: str) -> Callable[[], None]:
        if target.startswith("lan"):
            self._set("client", target, "down")
            return lambda: self._set("client", target, "up")
        # A guest whose interface is down forgets its half-open connections (Linux drops a request whose SYN/ACK it
        # cannot send) and resets them afterwards, with or without a proxy. So the cable is pulled.
        self._set(target, GUEST_IF, "carrier", "off")
        return lambda: self._set(target, GUEST_IF, "carrier", "on")

    def _set(self, space: str, ifname: str, *state: str) -> None:
        with netns.inside(self.namespaces.fds[space]):
            # A tap that is just being created again comes up by itself.
            subprocess.run(["ip", "link", "set", ifname, *state], check=False, capture_output=True)

    def _unlink(self, target: str) -> None:
        Path(self.lab.directory, target).unlink(missing_ok=True)


def sockets(lab: Lab) -> list[str]:
    """Socket files of both hosts, relative to the lab's folder."""
    found = []
    for folder, _, names in os.walk(lab.directory):
        for name in names:
            path = Path(folder, name)
            if path.is_socket():
                found.append(str(path.relative_to(lab.directory)))
    return sorted(found)
