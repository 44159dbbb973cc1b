"""Makes a pure ACK from a segment: the window update that the proxy itself must send.

Compare lowers the window of a released segment to what the secondary offers. When the secondary opens its window later,
the primary says nothing to the client, because its own window was open all the time. So compare must tell the client.
The rewriter makes ACKs for its guest in the same way.
"""

from struct import Struct
from typing import Final

from colo_proto.checksum import internet_checksum, pseudo_sum
from colo_proto.frame import ETH, NO_OFFLOAD, Buffer
from colo_proto.net.packet import PROTO_TCP, network_at, set_length
from colo_proto.net.tcp import ACK, CSUM_AT, OPTIONS_AT, SEQ_AT, timestamps_at

_U16: Final = Struct("!H")
_FIELDS: Final = Struct("!IIBBHHH")
"""Sequence and acknowledgement number, data offset (upper half), flags, window, checksum, urgent pointer."""


def window_update(
    frame: Buffer, l4: int, data: int, seq: int, ack: int, window: int, more: bytes = b"", flags: int = ACK
) -> bytes:
    """A pure ACK with the headers of `frame` (TCP at `l4`, payload from `data`), IPv4 or IPv6.

    `seq`, `ack` and the raw `window` field are wire values. Only the timestamps are kept of the options: the last ones
    may be repeated (RFC 7323). Options of a SYN do not belong here, and SACK blocks would mean something else beside
    another ACK (RFC 2883). `more` are additional options, and `flags` other flags.
    """
    stamps = timestamps_at(frame, l4, data)
    out = bytearray(frame[: l4 + OPTIONS_AT])
    if stamps is not None:
        out += b"\x01\x01\x08\x0a" + frame[stamps : stamps + 8]
    out += more
    data = len(out)
    out[:ETH] = NO_OFFLOAD
    _FIELDS.pack_into(out, l4 + SEQ_AT, seq, ack, (data - l4) << 2, flags, window, 0, 0)
    l3 = network_at(out)
    set_length(out, l3, l4, data)
    at, width = (l3 + 12, 4) if out[l3] >> 4 == 4 else (l3 + 8, 16)
    start = pseudo_sum(out[at : at + width], out[at + width : at + 2 * width], PROTO_TCP, data - l4)
    _U16.pack_into(out, l4 + CSUM_AT, internet_checksum(out[l4:data], start))
    return bytes(out)
