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
from typing import Final

from colo_proto.config import shown
from colo_proto.errors import ConfigError
from colo_proto.netdev import Request

MAX_USER: Final = (1 << 32) - 2
"""The number above it is the kernel's "none"."""
_KEYS: Final = ("user", "tap", "netns", "lease")


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
    given: dict[str, str] = {}
    for pair in text.split(","):
        key, sep, value = pair.partition("=")
        if key not in _KEYS or not sep or key in given:
            raise ConfigError(f"--allow {text}: {', '.join(_KEYS)} expected, each once, as in user=7,tap=lan+guest")
        given[key] = value
    try:
        user = user_number(given.get("user", ""))
    except ValueError as error:
        raise ConfigError(f"--allow {text[:80]}: user {error}") from None
    taps, netns = (tuple(given[key].split("+")) if key in given else () for key in ("tap", "netns"))
    if not all(taps + netns) or not taps + netns:
        raise ConfigError(f"--allow {text}: names of taps (tap=) or of namespaces (netns=) expected")
    lease = given.get("lease", "off")
    if lease not in ("on", "off") or ("lease" in given and not taps):
        raise ConfigError(f"--allow {text}: lease is on or off, and goes with tap")
    return Grant(user, taps, lease == "on", netns)


def number(least: int, most: int, text: str) -> int:
    """The number that `text` is. A `ValueError` that goes on after the name of what it should be, when it is none."""
    if not text.isascii() or not text.isdigit() or len(text) > 10 or not least <= int(text) <= most:
        raise ValueError(f"is a number from {least} to {most}, not {shown(text)}")
    return int(text)


def user_number(text: str) -> int:
    """A user's or group's number. `ValueError` when it is none."""
    return number(0, MAX_USER, text)


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
