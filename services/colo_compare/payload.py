"""What has to be equal of a packet that is no TCP segment, and which flow it belongs to.

==================  =====================================  ==========================================================
protocol            compared                               left out, and why
==================  =====================================  ==========================================================
UDP                 the payload                            ports are the flow's; the length is the payload's; the
                                                           checksum may be partial on one side
ICMP, ICMPv6        type, code, all behind the checksum    the checksum covers the quote, see below
ICMP errors         the same, within the flow that they    of a quoted TCP header what the rewriter changes on the
                    are about                              way to the secondary; a quoted UDP checksum
ICMP timestamps     the same, up to the originate time     receive and transmit time: each guest's own clock
SCTP, GRE, ESP, …   everything behind the IP header        nothing: tunnels are opaque
==================  =====================================  ==========================================================
"""

from typing import Final

from colo_proto.frame import Buffer
from colo_proto.net import packet as p
from colo_proto.net.flow import error_key, reverse

_NEIGHBOUR_TYPES: Final = frozenset(
    {130, 131, 132, 133, 134, 135, 136, 137, 141, 142, 143, 148, 149, 151, 152, 153}
)  # fmt: skip
"""ICMPv6 of the link itself (MLD, RFC 2710/3810; Neighbor Discovery, RFC 4861, 3122, 3971; Multicast Router Discovery,
RFC 4286). Each guest's own timers decide when it is sent, and nobody's state depends on the other replica's."""

_ROUTER_TYPES: Final = frozenset({9, 10})
"""ICMP of the link itself (Router Discovery, RFC 1256), likewise."""

_TIMESTAMP_REPLY: Final = 14
"""RFC 792: identifier, sequence number, originate, receive and transmit time."""

UNCOMPARED: Final = b""
"""The key of what is released uncompared."""


def payload(key: bytes, proto: int, tags: bytes, buf: Buffer, l4: int, end: int) -> tuple[bytes, bytes]:
    """`(flow key, what has to be equal)` of a packet whose L4 header is at `l4` of `buf`; `UNCOMPARED` as the key
    of IGMP, MLD, Neighbor and Router Discovery.
    """
    if proto == p.PROTO_UDP:
        return key, bytes(buf[l4 + 8 : end])
    if proto == p.PROTO_IGMP:
        return UNCOMPARED, b""
    if proto in {p.PROTO_ICMP, p.PROTO_ICMPV6} and end > l4:
        return _icmp(key, proto, tags, buf, l4, end)
    return key, bytes(buf[l4:end])


def _icmp(key: bytes, proto: int, tags: bytes, buf: Buffer, l4: int, end: int) -> tuple[bytes, bytes]:
    kind = buf[l4]
    if kind in (_ROUTER_TYPES if proto == p.PROTO_ICMP else _NEIGHBOUR_TYPES):
        return UNCOMPARED, b""
    body = bytes(buf[l4 : l4 + 2]) + bytes(buf[l4 + 4 : end])
    if p.is_error(buf, l4, end, proto):
        quoted = p.error_quote(buf, l4, end, proto, tags)
        if quoted is None:
            # What it quotes is cut short, or is a later fragment: then it is only about the two hosts.
            return error_key(key, reverse(key)), body
        return error_key(key, quoted.key), _same(body, quoted, quoted.l4 - l4 - 2)
    if kind == _TIMESTAMP_REPLY and proto == p.PROTO_ICMP:
        return key, body[:10] + body[18:]
    return key, body


def _same(body: bytes, quoted: p.Packet, at: int) -> bytes:
    """The body of an error without what may differ of the header that it quotes at `at`."""
    if quoted.proto == p.PROTO_UDP:
        return body[: at + 6] + body[at + 8 :]
    if quoted.proto != p.PROTO_TCP or len(body) <= at + 12:
        return body[: at + 8] if quoted.proto == p.PROTO_TCP else body
    # The first 8 bytes are the ports and the sequence number. The rewriter changes ACK, checksum and options.
    return body[: at + 8] + body[at + (body[at + 12] >> 4) * 4 :]
