"""The form of a frame, everywhere inside the proxy.

::

    +----------------------+-----------------------------+
    | virtio_net_hdr (10)  | Ethernet frame without FCS  |
    +----------------------+-----------------------------+

A frame is one `bytes` object that *always* begins with the 10-byte legacy `virtio_net_hdr`
(virtio 1.2 §5.1.6, little-endian), which is all zeros when the frame needs no offload. So GSO frames stay
whole from tap to tap, no second object travels beside the bytes, and the offsets below are
constants. Links convert it where needed (taps without IFF_VNET_HDR, QEMU chardevs, captures); the cores never do.
"""

from struct import Struct
from typing import Final

Buffer = bytes | bytearray | memoryview
"""A frame as it is passed on. Cores return `bytes` or `bytearray`, and never change a frame that was given to them."""

VNET_HDR_LEN: Final = 10
NO_OFFLOAD: Final = bytes(VNET_HDR_LEN)
ETH: Final = VNET_HDR_LEN
"""Offset of the Ethernet header inside a frame."""

# struct virtio_net_hdr: flags, gso_type, hdr_len, gso_size, csum_start, csum_offset
VNET_HDR: Final = Struct("<BBHHHH")

F_NEEDS_CSUM: Final = 1
"""Flag: the L4 checksum field holds only the pseudo-header sum; `csum_start`/`csum_offset` say where."""

GSO_NONE: Final = 0
GSO_TCPV4: Final = 1
GSO_UDP: Final = 3
GSO_TCPV6: Final = 4
GSO_UDP_L4: Final = 5
GSO_ECN: Final = 0x80

MIN_FRAME: Final = VNET_HDR_LEN + 14
MAX_FRAME: Final = VNET_HDR_LEN + 18 + 8 + 65535
"""Largest frame accepted on any link: header, Ethernet with two tags, and an IP packet of 65,535."""


def plain(ethernet: Buffer) -> bytes:
    """A frame without offloads around raw Ethernet bytes."""
    return NO_OFFLOAD + bytes(ethernet)
