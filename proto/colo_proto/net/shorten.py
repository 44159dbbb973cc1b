"""Makes a segment of a part of a TCP segment.

Compare needs it where the primary's segment is longer than everything that the secondary may send before it hears an
ACK. The part that both have produced has to reach the client, or the client would never acknowledge anything. The rest
of the segment follows when the secondary has produced that as well. The rewriter needs it where the secondary's window
allows only a part of a client's segment.
"""

from struct import Struct
from typing import Final

from colo_proto.checksum import ones_sum, update
from colo_proto.frame import F_NEEDS_CSUM, GSO_NONE, VNET_HDR, VNET_HDR_LEN, Buffer
from colo_proto.net.packet import network_at, set_length
from colo_proto.net.tcp import CSUM_AT, FIN, FLAGS_AT, PSH, SEQ_AT, URG, URGENT_AT, read32, write32
from colo_proto.seq import MASK

_U16: Final = Struct("!H")


def shorten(frame: Buffer, l4: int, data: int, end: int, keep: int, skip: int = 0, *, fin: bool = True) -> bytes:
    """The segment at `l4` of an unfragmented packet that ends at `end`, with only the bytes `skip` to `keep` of its
    payload.

    FIN and PSH belong to the last byte and go with it, FIN only if `fin`. The urgent pointer still points to the same
    place. The checksum is updated by the changes alone (RFC 1624), so a wrong one stays wrong, and a partial one stays
    partial. A GSO frame that now fits into one segment becomes an ordinary frame.
    """
    out = bytearray(frame[:data]) + frame[data + skip : data + keep]
    vnet = list(VNET_HDR.unpack_from(out))
    if vnet[3] and keep - skip <= vnet[3]:
        vnet[1], vnet[2], vnet[3] = GSO_NONE, 0, 0
        out[:VNET_HDR_LEN] = VNET_HDR.pack(*vnet)
    gone = end - data - keep + skip
    set_length(out, network_at(out), l4, len(out))
    if keep < end - data:
        out[l4 + FLAGS_AT] &= ~(FIN | PSH) & 0xFF
    elif not fin:
        out[l4 + FLAGS_AT] &= ~FIN & 0xFF
    if skip:
        write32(out, l4 + SEQ_AT, (read32(out, l4 + SEQ_AT) + skip) & MASK)
        urgent = _U16.unpack_from(out, l4 + URGENT_AT)[0]
        if out[l4 + FLAGS_AT] & URG and urgent <= skip:
            out[l4 + FLAGS_AT] &= ~URG & 0xFF
        _U16.pack_into(out, l4 + URGENT_AT, max(urgent - skip, 0))
    csum = _U16.unpack_from(out, l4 + CSUM_AT)[0]
    if out[0] & F_NEEDS_CSUM:
        # The pseudo-header's sum, of which the length is a part.
        total = (csum - gone) % 0xFFFF or 0xFFFF
    else:
        # The sum of all changes, the length in the pseudo-header being one; the field itself stands in both sums.
        change = ones_sum(out[l4:]) - ones_sum(frame[l4:end]) - gone
        total = update(csum, change)
    _U16.pack_into(out, l4 + CSUM_AT, total)
    return bytes(out)
