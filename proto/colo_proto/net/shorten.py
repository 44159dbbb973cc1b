"""The first bytes of a TCP segment as a segment of their own.

For compare: where the primary's segment is longer than all that the secondary may send before it hears an
ACK, the part that both have produced has to reach the client, or neither would ever be acknowledged.
"""

from struct import Struct
from typing import Final

from colo_proto.checksum import internet_checksum, ones_sum, swap16
from colo_proto.frame import ETH, F_NEEDS_CSUM, GSO_NONE, VNET_HDR, VNET_HDR_LEN, Buffer
from colo_proto.net.tcp import CSUM_AT, FIN, FLAGS_AT, OFFSET_AT, PSH

_U16: Final = Struct("!H")


def shorten(frame: Buffer, l4: int, data: int, end: int, keep: int) -> bytes:
    """The segment at `l4` of an unfragmented packet that ends at `end`, cut after `keep` bytes of payload.

    FIN and PSH belong to the last byte and go. The checksum follows from what changes alone (RFC 1624), so
    a wrong one stays wrong; a partial one stays partial. A GSO frame that now fits one segment is one.
    """
    out = bytearray(frame[: data + keep])
    vnet = list(VNET_HDR.unpack_from(out))
    if vnet[3] and keep <= vnet[3]:
        vnet[1], vnet[2], vnet[3] = GSO_NONE, 0, 0
        out[:VNET_HDR_LEN] = VNET_HDR.pack(*vnet)
    gone = end - data - keep
    l3 = ETH + 14
    while (out[l3 - 2] << 8 | out[l3 - 1]) in (0x8100, 0x88A8):
        l3 += 4
    at = l3 + (2 if out[l3] >> 4 == 4 else 4)
    _U16.pack_into(out, at, _U16.unpack_from(out, at)[0] - gone)
    if out[l3] >> 4 == 4:
        _U16.pack_into(out, l3 + 10, 0)
        _U16.pack_into(out, l3 + 10, internet_checksum(out[l3:l4]))
    before = _U16.unpack_from(out, l4 + OFFSET_AT)[0]
    out[l4 + FLAGS_AT] &= ~(FIN | PSH) & 0xFF
    csum = _U16.unpack_from(out, l4 + CSUM_AT)[0]
    if out[0] & F_NEEDS_CSUM:
        # The pseudo-header's sum, of which the length is a part.
        total = (csum - gone) % 0xFFFF or 0xFFFF
    else:
        tail = ones_sum(frame[data + keep : end])
        if (data + keep - l4) & 1:
            tail = swap16(tail)
        flags = before - _U16.unpack_from(out, l4 + OFFSET_AT)[0]
        total = (((csum ^ 0xFFFF) - gone - tail - flags) % 0xFFFF or 0xFFFF) ^ 0xFFFF
    _U16.pack_into(out, l4 + CSUM_AT, total)
    return bytes(out)
