"""Writing pcapng (draft-ietf-opsawg-pcapng): a few frames on named interfaces, with comments.

The file has one Section Header Block, one Interface Description Block for each name (Ethernet, nanoseconds), and one
Enhanced Packet Block for each frame. It is little-endian; options are padded to 32 bits.
"""

from struct import pack
from typing import NamedTuple

from colo_proto.frame import ETH, Buffer

LINKTYPE_ETHERNET = 1
SNAPLEN = 262144


class Shown(NamedTuple):
    """One frame of a capture."""

    interface: int
    when: float
    """Seconds on the clock of the core."""
    frame: Buffer
    comment: str = ""


class Capture(NamedTuple):
    """A complete file."""

    interfaces: tuple[str, ...]
    frames: tuple[Shown, ...]
    comment: str = ""


MAX_COMMENT = 60000
"""Bytes; the length of an option has 16 bits."""


def _option(code: int, value: bytes) -> bytes:
    return pack("<HH", code, len(value)) + value + bytes(-len(value) % 4)


def _block(kind: int, body: bytes) -> bytes:
    length = len(body) + 12
    return pack("<II", kind, length) + body + pack("<I", length)


def encode(capture: Capture, offset: float = 0.0) -> bytes:
    """The bytes of a file. `offset` is the time of day (seconds since 1970) minus the clock of the core. The
    virtio_net_hdr of each frame is left out: a GSO frame appears as one large packet.
    """
    comment = _option(1, capture.comment.encode()[:MAX_COMMENT]) if capture.comment else b""
    head = pack("<IHHq", 0x1A2B3C4D, 1, 0, -1) + comment + _option(4, b"colo compare") + _option(0, b"")
    out = [_block(0x0A0D0D0A, head)]
    for name in capture.interfaces:
        described = _option(2, name.encode()) + _option(9, b"\x09") + _option(0, b"")
        out.append(_block(1, pack("<HHI", LINKTYPE_ETHERNET, 0, SNAPLEN) + described))
    for one in capture.frames:
        data = bytes(one.frame[ETH:])
        stamp = int((one.when + offset) * 1e9)
        body = pack("<IIIII", one.interface, stamp >> 32 & 0xFFFFFFFF, stamp & 0xFFFFFFFF, len(data), len(data))
        body += data + bytes(-len(data) % 4)
        if one.comment:
            body += _option(1, one.comment.encode()[:MAX_COMMENT]) + _option(0, b"")
        out.append(_block(6, body))
    return b"".join(out)
