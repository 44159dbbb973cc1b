"""The time at which a TCP segment was sent, as it says itself (TSval, RFC 7323 §3.2).

A receiver drops a segment whose TSval is older than that of a segment which it has accepted already (PAWS, RFC 7323
§5). So a segment that is sent later than it was made may need a newer one.
"""

from typing import Final

from colo_proto.frame import Buffer
from colo_proto.net.tcp import read32, timestamps_at, update_checksum, write32

NO_STAMP: Final = -1


def tsval(frame: Buffer, l4: int, data: int) -> int:
    """TSval of the segment at `l4` with its payload from `data`; `NO_STAMP` when it has none."""
    at = timestamps_at(frame, l4, data)
    return NO_STAMP if at is None else read32(frame, at)


def with_tsval(frame: Buffer, l4: int, data: int, value: int) -> bytes:
    """The segment with another TSval."""
    at = timestamps_at(frame, l4, data)
    if at is None:
        return bytes(frame)
    out = bytearray(frame)
    change = value - read32(frame, at)
    write32(out, at, value)
    update_checksum(out, l4, change << 8 if (at - l4) & 1 else change)
    return bytes(out)
