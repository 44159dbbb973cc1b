"""Does in software what a network card does with a frame that has offloads: checksums and segmentation.

Inside the proxy frames stay whole (`frame`). They are finished only where the next hop takes plain Ethernet: a tap
without IFF_VNET_HDR, a chardev without `vnet_hdr`, a capture. The result is that of Linux: `skb_checksum_help`, TCP and
UDP segmentation offload, and (for old virtio guests) UFO.
"""

from struct import Struct
from typing import Final
from zlib import crc32

from colo_proto.checksum import internet_checksum, ones_sum, pseudo_sum
from colo_proto.frame import (
    ETH,
    F_NEEDS_CSUM,
    GSO_ECN,
    GSO_NONE,
    GSO_TCPV4,
    GSO_TCPV6,
    GSO_UDP,
    GSO_UDP_L4,
    VNET_HDR,
    Buffer,
)
from colo_proto.net.packet import PROTO_FRAGMENT, PROTO_TCP, PROTO_UDP, Kind, Packet, dissect, set_length
from colo_proto.net.tcp import CSUM_AT, CWR, FIN, FLAGS_AT, PSH, SEQ_AT, Segment, segment, write32

_U16: Final = Struct("!H")
_MORE_V4: Final = 0x2000
_NOTHING: Final = b"\0\0"


def to_plain(frame: Buffer) -> list[bytes]:
    """The Ethernet frames, without `virtio_net_hdr`, that `frame` stands for.

    This is one frame if there is at most a checksum to finish, and none if the header contradicts the frame (the kernel
    refuses such a frame as well).
    """
    if frame[:2] == _NOTHING:
        return [bytes(frame[ETH:])]
    flags, gso_type, _, gso_size, start, offset = VNET_HDR.unpack_from(frame)
    gso = gso_type & ~GSO_ECN
    if gso == GSO_NONE:
        if not flags & F_NEEDS_CSUM:
            return [bytes(frame[ETH:])]
        return _checksum(frame, start, offset)
    packet = dissect(frame)
    if packet.kind is not Kind.IP or not gso_size:
        return []
    if packet.proto == PROTO_TCP and gso == (GSO_TCPV4 if packet.version == 4 else GSO_TCPV6):
        seg = segment(frame, packet.l4, packet.end)
        return [] if seg is None else _tcp(packet, seg, gso_size)
    if packet.proto == PROTO_UDP and packet.end - packet.l4 >= 8:
        if gso == GSO_UDP_L4:
            return _udp(packet, gso_size)
        if gso == GSO_UDP:
            return _fragments(packet, gso_size & ~7)
    return []


def _checksum(frame: Buffer, start: int, offset: int) -> list[bytes]:
    out = bytearray(frame[ETH:])
    if start + offset + 2 > len(out):
        return []
    # The field holds the sum of the pseudo-header already, and is summed with the rest. To UDP, zero would mean "none".
    value = internet_checksum(out[start:]) or 0xFFFF
    _U16.pack_into(out, start + offset, value)
    return [bytes(out)]


def _tcp(packet: Packet, seg: Segment, size: int) -> list[bytes]:
    frame, data, end = packet.frame, seg.data, packet.end
    header = bytearray(frame[ETH:data])
    at = packet.l4 - ETH
    out = []
    for index, begin in enumerate(range(data, max(end, data + 1), size)):
        upto = min(begin + size, end)
        # CWR belongs to the first segment, FIN and PSH to the last.
        keep = 0xFF if not index else 0xFF & ~CWR
        if upto < end:
            keep &= ~(FIN | PSH)
        write32(header, at + SEQ_AT, (seg.seq + begin - data) & 0xFFFFFFFF)
        header[at + FLAGS_AT] = seg.flags & keep
        out.append(_finish(packet, header, at + CSUM_AT, bytes(frame[begin:upto]), index))
    return out


def _udp(packet: Packet, size: int) -> list[bytes]:
    frame, data, end = packet.frame, packet.l4 + 8, packet.end
    header = bytearray(frame[ETH:data])
    at = packet.l4 - ETH
    out = []
    for index, begin in enumerate(range(data, max(end, data + 1), size)):
        payload = bytes(frame[begin : min(begin + size, end)])
        _U16.pack_into(header, at + 4, 8 + len(payload))
        out.append(_finish(packet, header, at + 6, payload, index))
    return out


def _finish(packet: Packet, header: bytearray, csum_at: int, payload: bytes, index: int) -> bytes:
    """One segment. Lengths, IPv4 identification and both checksums are written to `header`, which is used again."""
    l3, l4 = packet.l3 - ETH, packet.l4 - ETH
    length = len(header) - l4 + len(payload)
    if packet.version == 4:
        _U16.pack_into(header, l3 + 4, (packet.ident + index) & 0xFFFF)
    set_length(header, l3, l4, l4 + length)
    _U16.pack_into(header, csum_at, 0)
    start = ones_sum(header[l4:], pseudo_sum(packet.src, packet.dst, packet.proto, length))
    _U16.pack_into(header, csum_at, internet_checksum(payload, start) or 0xFFFF)
    return bytes(header) + payload


def _fragments(packet: Packet, size: int) -> list[bytes]:
    """UFO: one datagram with a complete checksum, cut into IP fragments of `size` bytes of payload."""
    if not size:
        return []
    body = bytearray(packet.frame[packet.l4 : packet.end])
    _U16.pack_into(body, 6, 0)
    start = pseudo_sum(packet.src, packet.dst, PROTO_UDP, len(body))
    _U16.pack_into(body, 6, internet_checksum(body, start) or 0xFFFF)
    l3 = packet.l3 - ETH
    header = bytearray(packet.frame[ETH : packet.l4])
    if packet.version == 6:
        if len(header) != l3 + 40:
            return []
        header[l3 + 6] = PROTO_FRAGMENT
    ident = crc32(bytes(header) + bytes(body[:8]))
    out = []
    for offset in range(0, len(body), size):
        piece = bytes(body[offset : offset + size])
        more = offset + size < len(body)
        extension = b""
        if packet.version == 4:
            _U16.pack_into(header, l3 + 6, offset >> 3 | (_MORE_V4 if more else 0))
        else:
            extension = bytes((PROTO_UDP, 0)) + _U16.pack(offset | more) + ident.to_bytes(4, "big")
        set_length(header, l3, len(header), len(header) + len(extension) + len(piece))
        out.append(bytes(header) + extension + piece)
    return out
