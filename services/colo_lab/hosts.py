"""The hosts of a lab as a whole: one dies with everything on it, and is started again with a fresh guest.

::

    fail      its processes and its guest get SIGKILL; its port on the LAN disappears with its netdev
    repair    once they have ended: a fresh namespace for the guest, and the processes are started
    attend    once the guest's tap is there: it gets its addresses, and the guest is started
"""

import signal
from collections.abc import Callable
from typing import Final

from colo_lab.children import Child
from colo_lab.cleanup import kill_inhabitants
from colo_lab.launch import control
from colo_lab.namespaces import GUEST_IF, Namespaces
from colo_lab.statuspoll import StatusPoll
from colo_lab.supervisor import Supervisor
from colo_proto.topology import Side

HOSTS: Final[dict[str, Side]] = {"host-p": "primary", "host-s": "secondary"}


class Hosts:
    """See the module. `directory` is the lab's own folder. `on_renewed` gets the inodes of a namespace that was
    replaced, the old one first.
    """

    def __init__(
        self,
        directory: str,
        namespaces: Namespaces,
        supervisor: Supervisor,
        statuses: StatusPoll,
        on_renewed: Callable[[int, int], None],
    ) -> None:
        self._directory = directory
        self._namespaces = namespaces
        self._supervisor = supervisor
        self._statuses = statuses
        self._on_renewed = on_renewed
        self._returning: dict[str, bool] = {}
        """Hosts that are being repaired; True once their processes were started."""

    def fail(self, name: str) -> None:
        """Let everything of `host-p` or `host-s` die. Nothing of it is started again until it is repaired."""
        self._returning.pop(name, None)
        self._statuses.poll()
        victims = [one for one in self._of(name) if one.running]
        for child in self._of(name):
            self._supervisor.end(child, signal.SIGKILL)
        self._statuses.forget(HOSTS[name])
        self._supervisor.on_event(f"{name} has died: {', '.join(one.id for one in victims)}")

    def repair(self, name: str) -> None:
        """Start a host again that has died. `attend` must be called until that is done."""
        self._returning[name] = False
        self.attend()

    def attend(self) -> list[str]:
        """Do what is due for the hosts that are being repaired. Returns those that are not up yet: a host is up when
        its processes and its guest run, ready or not.
        """
        for name, started in list(self._returning.items()):
            if started:
                self._start_guest(name)
            elif not any(one.running for one in self._of(name)):
                self._start_processes(name)
        return list(self._returning)

    def _start_processes(self, name: str) -> None:
        guest = _guest(name)
        # What the guest's command has left in the background.
        kill_inhabitants({self._namespaces.inode(guest)}, set())
        self._on_renewed(*self._namespaces.renew(guest))
        self._statuses.endpoints[HOSTS[name]] = control(self._directory, HOSTS[name])
        self._start(name)
        self._returning[name] = True
        self._supervisor.on_event(f"{name} was started again")

    def _start_guest(self, name: str) -> None:
        guest = _guest(name)
        if self._namespaces.has(guest, GUEST_IF):
            self._namespaces.address_guest(guest)
            self._start(guest)
            del self._returning[name]

    def _start(self, namespace: str) -> None:
        for child in list(self._supervisor.children.values()):
            if child.host == namespace and child.abandoned and not child.retired:
                child.abandoned = False
                self._supervisor.start(child)
        self._supervisor.on_change()

    def _of(self, name: str) -> list[Child]:
        return [one for one in self._supervisor.children.values() if one.host in (name, _guest(name))]


def _guest(host: str) -> str:
    return f"guest-{host[-1]}"
