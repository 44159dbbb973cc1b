"""The network namespaces of a lab. They have no names, and exist as long as their descriptors are open.

Whoever may read the lab's descriptors can enter a namespace by the path `/proc/LABPID/fd/N` (`path`):
`nsenter --net=/proc/…/fd/N`. Nothing has to be removed at the end: when the descriptor is closed and the last process
in the namespace has ended, the kernel removes the namespace with all its interfaces.
"""

import os
from typing import Any, Final

from colo_lab import config
from colo_netdev import netns

NAMES: Final = ("client", "guest-p", "guest-s", "host-p", "host-s")
GUEST_IF: Final = "eth0"
BRIDGE: Final = "br0"
IMPAIRED_IF: Final = "net0"
"""The client's interface on an impaired LAN (`colo_lab.impair`). Otherwise the bridge is its interface."""

_QUIET6 = {
    # The LAN of a lab has no router and no duplicate addresses, so the kernel need not send anything to look for them.
    "accept_ra": "0",
    "router_solicitations": "0",
    "autoconf": "0",
    "accept_dad": "0",
    "dad_transmits": "0",
    "addr_gen_mode": "1",
}


class Namespaces:
    """The five namespaces of one lab, with a netlink socket in each."""

    def __init__(self) -> None:
        self.fds: dict[str, int] = {}
        self.client_if = BRIDGE
        self._netlink: dict[str, Any] = {}
        self._pid = os.getpid()
        for name in NAMES:
            self.fds[name] = netns.new()

    def path(self, name: str) -> str:
        """A path by which the namespace can be opened while this process runs."""
        return f"/proc/{self._pid}/fd/{self.fds[name]}"

    def inode(self, name: str) -> int:
        """The inode number of a namespace, as in `net:[4026531840]`."""
        return os.fstat(self.fds[name]).st_ino

    def inodes(self) -> set[int]:
        """The inode numbers of all of them."""
        return set(map(self.inode, self.fds))

    def furnish(self, *, impaired: bool = False) -> None:
        """Set up everything that needs no tap: loopbacks, the client's bridge, the cable between the hosts. On an
        impaired LAN the bridge connects the hosts only, and the client gets an interface of its own later.
        """
        for name in self.fds:
            self._enter(name)
        client, host_p, host_s = (self._netlink[name] for name in ("client", "host-p", "host-s"))
        mac = {} if impaired else {"address": config.CLIENT_MAC}
        client.link("add", ifname=BRIDGE, kind="bridge", br_stp_state=0, br_mcast_snooping=0, **mac)
        self.client_if = IMPAIRED_IF if impaired else BRIDGE
        if impaired:
            _up(client, BRIDGE)
        else:
            self.address_client()
        host_p.link("add", ifname="repl", kind="veth", peer={"ifname": "repl", "net_ns_fd": self.fds["host-s"]})
        _up(host_p, "repl", (config.HOST_P, config.PREFIX_HOST))
        _up(host_s, "repl", (config.HOST_S, config.PREFIX_HOST))

    def _enter(self, name: str) -> None:
        """Make a netlink socket in the namespace, and set up what concerns no other one."""
        from pyroute2 import IPRoute  # noqa: PLC0415 - slow to import

        with netns.inside(self.fds[name]):
            self._netlink[name] = IPRoute()
            if name.startswith("host"):
                _sysctl("ipv6/conf/all/disable_ipv6", "1")
            for key, value in _QUIET6.items():
                _sysctl(f"ipv6/conf/default/{key}", value)
            # The ports of the client's bridge need no addresses of their own.
            _sysctl("ipv6/conf/default/disable_ipv6", "0" if name.startswith("guest") else "1")
        _up(self._netlink[name], "lo")

    def renew(self, name: str) -> tuple[int, int]:
        """Replace a guest's namespace by a fresh one under the same path: connections of the guest that died would
        otherwise live on in its kernel. Returns both inode numbers, the old one first.
        """
        old, fresh = self.inode(name), netns.new()
        self._netlink.pop(name).close()
        os.dup2(fresh, self.fds[name], inheritable=False)
        os.close(fresh)
        self._enter(name)
        return old, self.inode(name)

    def has(self, namespace: str, ifname: str) -> bool:
        """True when the interface is in the namespace and up."""
        found = self._netlink[namespace].get_links(ifname=ifname)
        return bool(found) and bool(found[0]["flags"] & 1)

    def address_client(self) -> None:
        """Give the client its addresses, once its interface exists."""
        with netns.inside(self.fds["client"]):
            _sysctl(f"ipv6/conf/{self.client_if}/disable_ipv6", "0")
        _up(self._netlink["client"], self.client_if, (config.CLIENT4, config.PREFIX4), (config.CLIENT6, config.PREFIX6))

    def address_guest(self, guest: str) -> None:
        """Give a guest its addresses, once its tap exists (the same in both guests)."""
        _up(self._netlink[guest], GUEST_IF, (config.GUEST4, config.PREFIX4), (config.GUEST6, config.PREFIX6))

    def remove_addresses(self) -> None:
        """Remove the addresses of the client and the guests, so that programs there can no longer send."""
        for name, ifname in (("client", self.client_if), ("guest-p", GUEST_IF), ("guest-s", GUEST_IF)):
            for link in self._netlink[name].get_links(ifname=ifname):
                self._netlink[name].flush_addr(index=link["index"])

    def close(self) -> None:
        """Close the sockets and descriptors; the kernel then removes namespaces without processes."""
        for netlink in self._netlink.values():
            netlink.close()
        self._netlink.clear()
        for fd in self.fds.values():
            os.close(fd)
        self.fds.clear()


def _up(netlink: Any, ifname: str, *addresses: tuple[str, int]) -> None:
    index = netlink.get_links(ifname=ifname)[0]["index"]
    for address, prefix in addresses:
        # With IFA_F_NODAD the address can be used at once, and the kernel sends no probe for duplicates.
        flags = {"flags": 0x02} if ":" in address else {}
        netlink.addr("replace", index=index, address=address, prefixlen=prefix, **flags)
    netlink.link("set", index=index, state="up")


def _sysctl(key: str, value: str) -> None:
    with open(f"/proc/sys/net/{key}", "w", encoding="ascii") as file:
        file.write(value)
