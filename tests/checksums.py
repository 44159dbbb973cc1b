"""Are a frame's checksums right? For tests, the simulation and captures."""

from colo_proto.checksum import internet_checksum, pseudo_sum
from colo_proto.frame import F_NEEDS_CSUM, Buffer
from colo_proto.net import packet as p


def needs_csum(frame: Buffer) -> bool:
    """True when the L4 checksum of `frame` is partial (pseudo-header only)."""
    return bool(frame[0] & F_NEEDS_CSUM)


def ip_checksum_ok(frame: Buffer) -> bool:
    """True for a right IPv4 header checksum, and for everything that has none."""
    packet = p.dissect(frame)
    return packet.version != 4 or internet_checksum(frame[packet.l3 : packet.l4]) == 0


def l4_checksum_ok(frame: Buffer) -> bool:
    """True when the TCP, UDP or ICMP checksum is right; a partial one is right when it is the pseudo-header's sum."""
    packet = p.dissect(frame)
    at = {p.PROTO_TCP: 16, p.PROTO_UDP: 6, p.PROTO_ICMP: 2, p.PROTO_ICMPV6: 2}.get(packet.proto)
    if packet.kind != p.Kind.IP or at is None or packet.l4 + at + 2 > packet.end:
        return True
    start = 0
    if packet.proto != p.PROTO_ICMP:
        start = pseudo_sum(packet.src, packet.dst, packet.proto, packet.end - packet.l4)
    field = frame[packet.l4 + at] << 8 | frame[packet.l4 + at + 1]
    if needs_csum(frame):
        return field % 0xFFFF == start % 0xFFFF
    if packet.proto == p.PROTO_UDP and not field:
        return packet.version == 4
    return internet_checksum(frame[packet.l4 : packet.end], start) == 0


def tcp_checksum_ok(frame: Buffer) -> bool:
    """`l4_checksum_ok` of a TCP segment."""
    return p.dissect(frame).proto == p.PROTO_TCP and l4_checksum_ok(frame)
