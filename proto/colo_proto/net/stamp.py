"""The time at which a TCP segment was sent, as it says itself (TSval, RFC 7323 §3.2).

A receiver drops a segment whose TSval is older than that of a segment which it has accepted already (PAWS, RFC 7323
§5). So a segment that is sent later than it was made may need a newer one.
"""

from struct import Struct
from typing import Final

from colo_proto.checksum import update
from colo_proto.frame import F_NEEDS_CSUM, Buffer
from colo_proto.net.tcp import CSUM_AT, read32, timestamps_at, write32

_U16: Final = Struct("!H")
NO_STAMP: Final = -1


def tsval(frame: Buffer, l4: int, data: int) -> int:
    """TSval of the segment at `l4` with its payload from `data`; `NO_STAMP` when it has none."""
    at = timestamps_at(frame, l4, data)
    return NO_STAMP if at is None else read32(frame, at)


def with_tsval(frame: Buffer, l4: int, data: int, value: int) -> bytes:
    """The segment with another TSval. The checksum is updated by the change (RFC 1624); a partial one stays."""
    at = timestamps_at(frame, l4, data)
    if at is None:
        return bytes(frame)
    out = bytearray(frame)
    change = value - read32(frame, at)
    if (at - l4) & 1:
        change <<= 8
    write32(out, at, value)
    if not out[0] & F_NEEDS_CSUM:
        csum = _U16.unpack_from(frame, l4 + CSUM_AT)[0]
        _U16.pack_into(out, l4 + CSUM_AT, update(csum, change))
    return bytes(out)
