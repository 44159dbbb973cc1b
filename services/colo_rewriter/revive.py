"""After a failover: getting connections going again at once, instead of at their next retransmission timeout.

While the primary was dead and the secondary not yet promoted, both ends of a connection sent into nothing, and
doubled their timeout each time (RFC 6298 §5.5): after a silence of two seconds the next try may be two
seconds away. RFC 6069 has the remedy, which Linux implements: an ICMP "host unreachable" that quotes the
first unacknowledged segment tells its sender that the path was at fault, and the doubling is taken
back; if the shorter timeout is over already, it sends at once. Where nothing waits, nothing happens.

::

    to the guest     ICMP unreachable, quoting the guest's last segment (a retransmission, if it waits)
    to the client    the guest's last ACK once more, then ICMP unreachable, quoting the segment behind it

All three follow from the guest's last segment, whose header each connection keeps (`Flow.last`).
"""

from collections.abc import Sequence
from typing import Final

from colo_proto.net import craft
from colo_proto.net.packet import dissect
from colo_proto.net.tcp import ACK, FIN, OPT_TIMESTAMPS, SYN, options
from colo_rewriter.flow import Flow, State

AT: Final[Sequence[float]] = (0.05, 0.3, 0.8)
"""Seconds after the promotion: the first leaves the other filters time to swap, the others are for what got lost."""
MOST: Final = 4096
"""Connections revived at a time, the last used first."""

_NET: Final = {4: (3, 1), 6: (1, 0)}
"""ICMP host unreachable (RFC 792); ICMPv6 no route (RFC 4443): the codes of RFC 6069 §3."""

Revival = tuple[bytes, bytes, bytes, int]
"""For the guest; the ACK for the client, in the guest's own numbers; for the client; where the ACK's TCP header is."""


def worth(flow: Flow) -> bool:
    """Could the connection wait for anything?"""
    return flow.last is not None and flow.state in (State.OPEN, State.CLOSING)


def revive(flow: Flow) -> Revival | None:
    """The three frames for one connection, or None when its last segment cannot be read."""
    if flow.last is None:
        return None
    last, l4, length = flow.last
    guest, client, sport, dport, tags = flow.parties()
    to_client, to_guest = last[10:16], last[16:22]
    seq, ack = (int.from_bytes(last[at : at + 4], "big") for at in (l4 + 4, l4 + 8))
    flags, window = last[l4 + 13], int.from_bytes(last[l4 + 14 : l4 + 16], "big")
    after = (seq + length + bool(flags & SYN) + bool(flags & FIN)) & 0xFFFFFFFF
    kept = b""
    for option, start, size in options(last, l4, len(last)):
        if option == OPT_TIMESTAMPS and size == 10:
            kept = b"\x01\x01" + last[start : start + 10]
    kind, code = _NET[6 if ":" in guest else 4]
    again = craft.tcp(
        guest, client, sport, dport, after, ack, ACK, window=window, options=kept, macs=(to_guest, to_client), tags=tags
    )
    sent = craft.tcp(guest, client, sport, dport, seq, ack, ACK)
    behind = craft.tcp(client, guest, dport, sport, ack, 0, ACK)
    return (
        craft.icmp_error(client, guest, sent, kind, code, macs=(to_client, to_guest), tags=tags),
        again,
        craft.icmp_error(guest, client, behind, kind, code, macs=(to_guest, to_client), tags=tags),
        dissect(again).l4,
    )
