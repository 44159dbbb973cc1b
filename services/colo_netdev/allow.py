"""Which user may have which tap (`--allow`).

The kernel says who is at the other end of a Unix socket (SO_PEERCRED: user and group when it connected); what a request
says of itself proves nothing. Where all processes have the same user, nothing tells them apart. Without any `--allow`
everybody who can connect to the socket may have everything.

The kernel can neither restrict the descriptor of a tap to reading or writing, nor take it back. So `lease=on` is a
promise that a filter makes when it asks (its tap's link then keeps it, frame by frame). Here it only decides who gets
the descriptor without making that promise.
"""

from collections.abc import Iterable

from colo_netdev.config import Grant
from colo_proto.netdev import Request


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
