"""Which user may have which tap (`--allow`).

The kernel says who is at the other end of a Unix socket (SO_PEERCRED: user and group when it connected); what a request
says of itself proves nothing. Where all processes have the same user, nothing tells them apart. Without any `--allow`
everybody who can connect to the socket may have everything.

The kernel can neither restrict the descriptor of a tap to reading or writing, nor take it back. So `lease=on` is a
promise that a filter makes when it asks (its tap's link then keeps it, frame by frame). Here it only decides who gets
the descriptor without making that promise.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from typing import Final

from colo_netdev.pairs import Parser, names, number, on_off, parse_pairs
from colo_proto.errors import ConfigError
from colo_proto.netdev import Request

MAX_USER: Final = (1 << 32) - 2
"""The number above it is the kernel's "none"."""
user_number: Final = partial(number, 0, MAX_USER)
"""Parses the number of a user or a group."""
_KEYS: Final[dict[str, Parser]] = {"user": user_number, "tap": names, "netns": names, "lease": on_off}


@dataclass(frozen=True, slots=True)
class Grant:
    """One `--allow`."""

    user: int
    taps: tuple[str, ...] = ()
    lease: bool = False
    """Those taps with `lease=on` only."""
    netns: tuple[str, ...] = ()
    """Namespaces that it may offer."""


def parse_allow(text: str) -> Grant:
    """Parse `user=UID,tap=NAME[+NAME][,lease=on]` or `user=UID,netns=NAME[+NAME]`."""
    what = f"--allow {text[:80]}"
    given = parse_pairs(what, text.split(","), _KEYS)
    if "user" not in given or not given.keys() & {"tap", "netns"}:
        raise ConfigError(f"{what}: a user, and names of taps (tap=) or of namespaces (netns=) expected")
    if "lease" in given and "tap" not in given:
        raise ConfigError(f"{what}: lease goes with tap")
    return Grant(given["user"], given.get("tap", ()), given.get("lease", False), given.get("netns", ()))


class Allowed:
    """All grants together."""

    def __init__(self, grants: Iterable[Grant]) -> None:
        self.grants = tuple(grants)

    def refusal(self, user: int, request: Request) -> str:
        """Why `user` may not have what is asked for; empty when it may."""
        name = request.tap
        own = [one for one in self.grants if one.user == user]
        if not self.grants:
            return ""
        if request.verb == "netns":
            offers = any(name in one.netns for one in own)
            return "" if offers else f"user {user} may not offer the namespace {name[:40]}"
        of_tap = [one for one in own if name in one.taps]
        if not of_tap:
            return f"user {user} may not have tap {name[:40]}"
        if request.verb == "get" and not request.lease and all(one.lease for one in of_tap):
            return f"user {user} may have tap {name[:40]} with lease=on only"
        return ""

    def status(self) -> list[str]:
        """For `colo status`."""
        return [
            f"user {one.user}: {', '.join((*one.taps, *(f'netns {name}' for name in one.netns)))}"
            + (" (lease=on)" if one.lease else "")
            for one in self.grants
        ]
