"""What a frame is, everywhere inside the proxy.

::

    +----------------------+-----------------------------+
    | virtio_net_hdr (10)  | Ethernet frame without FCS  |
    +----------------------+-----------------------------+

A frame is one `bytes` object that *always* begins with the 10-byte legacy `virtio_net_hdr`
(virtio 1.2 §5.1.6, little-endian), all zeros when the frame needs no offload. So GSO frames stay
whole from tap to tap, no second object travels beside the bytes, and every offset below is a
constant. The edges (taps without IFF_VNET_HDR, QEMU chardevs, captures) convert; the cores never do.
"""

from struct import Struct
from typing import Final, NamedTuple

Buffer = bytes | bytearray | memoryview
"""Bytes-like. Cores return `bytes` or `bytearray` and never change a frame that was handed to them."""

VNET_HDR_LEN: Final = 10
NO_OFFLOAD: Final = bytes(VNET_HDR_LEN)
ETH: Final = VNET_HDR_LEN
"""Offset of the Ethernet header inside a frame."""

# struct virtio_net_hdr: flags, gso_type, hdr_len, gso_size, csum_start, csum_offset
VNET_HDR: Final = Struct("<BBHHHH")

F_NEEDS_CSUM: Final = 1
"""Flag: the L4 checksum field holds only the pseudo-header sum; `csum_start`/`csum_offset` say where."""
F_DATA_VALID: Final = 2

GSO_NONE: Final = 0
GSO_TCPV4: Final = 1
GSO_UDP: Final = 3
GSO_TCPV6: Final = 4
GSO_UDP_L4: Final = 5
GSO_ECN: Final = 0x80

MIN_FRAME: Final = VNET_HDR_LEN + 14
MAX_FRAME: Final = VNET_HDR_LEN + 18 + 8 + 65535
"""Largest frame accepted on any link: header, Ethernet with two tags, and an IP packet of 65,535."""


class VnetHdr(NamedTuple):
    """Decoded `virtio_net_hdr`; lengths and offsets count from the start of the Ethernet header."""

    flags: int = 0
    gso_type: int = GSO_NONE
    hdr_len: int = 0
    gso_size: int = 0
    csum_start: int = 0
    csum_offset: int = 0

    @classmethod
    def of(cls, frame: Buffer) -> "VnetHdr":
        """Decode the header in front of `frame` (at least 10 bytes)."""
        return cls._make(VNET_HDR.unpack_from(frame))

    def encode(self) -> bytes:
        """The 10 bytes of this header."""
        return VNET_HDR.pack(*self)


def needs_csum(frame: Buffer) -> bool:
    """True when the L4 checksum of `frame` is partial (pseudo-header only)."""
    return bool(frame[0] & F_NEEDS_CSUM)


def plain(ethernet: Buffer) -> bytes:
    """A frame without offloads around raw Ethernet bytes."""
    return NO_OFFLOAD + bytes(ethernet)
