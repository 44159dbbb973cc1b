"""Frames of every kind for tests, the fuzzer and benchmarks; the proxy's own few are in `colo_proto.net.craft`.

Every builder returns a frame (`colo_proto.frame`): the 10-byte virtio_net_hdr, then Ethernet. Addresses are
text and decide the family. Checksums are right, or partial where `partial=True` (F_NEEDS_CSUM: the field holds
the pseudo-header's sum, as a guest with checksum offload sends it).
"""

from collections.abc import Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address
from struct import pack, pack_into
from typing import Final, NamedTuple

from colo_proto.checksum import internet_checksum, pseudo_sum
from colo_proto.frame import ETH, F_NEEDS_CSUM, GSO_NONE, GSO_TCPV4, GSO_TCPV6, NO_OFFLOAD, VNET_HDR, Buffer
from colo_proto.net import packet as p

MAC_A: Final = bytes.fromhex("02c010000002")
MAC_B: Final = bytes.fromhex("02c010000001")
BROADCAST: Final = b"\xff" * 6

_ICMP_CSUM_AT: Final = 2


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


def mac(text: str) -> bytes:
    """`02:00:00:00:00:01` as bytes."""
    return bytes.fromhex(text.replace(":", ""))


def ethernet(
    ethertype: int, body: bytes, *, src: bytes = MAC_A, dst: bytes = MAC_B, tags: Sequence[int] = (), pad: int = 0
) -> bytes:
    """A frame around `body`. Two tags are QinQ, outer first; `pad` is the least length without the vnet header."""
    head = b""
    for at, tag in enumerate(tags):
        tpid = p.ETH_8021AD if len(tags) > 1 and not at else p.ETH_8021Q
        head += pack("!HH", tpid, tag)
    frame = dst + src + head + pack("!H", ethertype) + body
    return NO_OFFLOAD + frame.ljust(pad, b"\0")


def ip(
    src: str,
    dst: str,
    proto: int,
    body: bytes,
    *,
    ident: int = 0,
    ttl: int = 64,
    tos: int = 0,
    options: bytes = b"",
    extensions: Sequence[tuple[int, bytes]] = (),
    more: bool = False,
    offset: int = 0,
    dont_fragment: bool = True,
    macs: tuple[bytes, bytes] = (MAC_A, MAC_B),
    tags: Sequence[int] = (),
    pad: int = 0,
) -> bytes:
    """An IPv4 or IPv6 packet. `options` are IPv4's; `extensions` are IPv6's as `(type, bytes from its third on)`."""
    a, b = ip_address(src), ip_address(dst)
    if isinstance(a, IPv4Address):
        options += b"\0" * (-len(options) % 4)
        length = 20 + len(options)
        flags = (0x2000 if more else 0) | (0x4000 if dont_fragment and not (more or offset) else 0) | offset // 8
        head = bytearray(
            pack(
                "!BBHHHBBH4s4s",
                0x40 | length // 4,
                tos,
                length + len(body),
                ident,
                flags,
                ttl,
                proto,
                0,
                a.packed,
                b.packed,
            )
        )
        head += options
        pack_into("!H", head, 10, internet_checksum(head))
        return ethernet(p.ETH_IPV4, bytes(head) + body, src=macs[0], dst=macs[1], tags=tags, pad=pad)
    chain, following = b"", proto
    if more or offset:
        chain = pack("!BBHI", proto, 0, offset | more, ident)
        following = p.PROTO_FRAGMENT
    for kind, content in reversed(extensions):
        # In units of 8 bytes, the first two included (RFC 8200 §4).
        padded = content.ljust(6 + max(0, -(-(len(content) - 6) // 8)) * 8, b"\0")
        chain = bytes((following, (len(padded) + 2) // 8 - 1)) + padded + chain
        following = kind
    head6 = pack("!IHBB16s16s", 6 << 28 | tos << 20, len(chain) + len(body), following, ttl, a.packed, b.packed)
    return ethernet(p.ETH_IPV6, head6 + chain + body, src=macs[0], dst=macs[1], tags=tags, pad=pad)


def tcp(
    src: str,
    dst: str,
    sport: int,
    dport: int,
    seq: int,
    ack: int,
    flags: int,
    payload: bytes = b"",
    *,
    window: int = 500,
    options: bytes = b"",
    urgent: int = 0,
    partial: bool = False,
    gso: int = 0,
    **more: object,
) -> bytes:
    """A TCP segment; `options` as the builders below make them. `gso`: a segment size, which implies `partial`."""
    options += b"\1" * (-len(options) % 4)
    segment = bytearray(
        pack("!HHIIBBHHH", sport, dport, seq, ack, (5 + len(options) // 4) << 4, flags, window, 0, urgent)
        + options
        + payload
    )
    partial = partial or gso > 0
    total = pseudo_sum(ip_address(src).packed, ip_address(dst).packed, p.PROTO_TCP, len(segment))
    pack_into("!H", segment, 16, total if partial else internet_checksum(segment, total))
    frame = ip(src, dst, p.PROTO_TCP, bytes(segment), **more)  # type: ignore[arg-type]
    if not partial:
        return frame
    at = p.dissect(frame).l4
    kind = GSO_NONE if not gso else GSO_TCPV4 if ":" not in src else GSO_TCPV6
    header = at + 20 + len(options) - ETH if gso else 0
    return VnetHdr(F_NEEDS_CSUM, kind, header, gso, at - ETH, 16).encode() + frame[ETH:]


def mss(size: int) -> bytes:
    """Maximum segment size (RFC 9293 §3.7.1)."""
    return pack("!BBH", 2, 4, size)


def wscale(shift: int) -> bytes:
    """Window scale with its customary NOP (RFC 7323)."""
    return bytes((1, 3, 3, shift))


def sack_permitted() -> bytes:
    """SACK-permitted with two NOPs (RFC 2018)."""
    return b"\1\1\4\2"


def timestamps(value: int, echo: int) -> bytes:
    """Timestamps in the layout of RFC 7323 appendix A."""
    return b"\1\1\x08\x0a" + pack("!II", value & 0xFFFFFFFF, echo & 0xFFFFFFFF)


def sack(*blocks: tuple[int, int]) -> bytes:
    """SACK blocks with two NOPs (RFC 2018 §3)."""
    body = b"".join(pack("!II", left & 0xFFFFFFFF, right & 0xFFFFFFFF) for left, right in blocks)
    return b"\1\1\5" + bytes((2 + len(body),)) + body


def udp(
    src: str,
    dst: str,
    sport: int,
    dport: int,
    payload: bytes = b"",
    *,
    partial: bool = False,
    no_checksum: bool = False,
    **more: object,
) -> bytes:
    """A UDP datagram."""
    datagram = bytearray(pack("!HHHH", sport, dport, 8 + len(payload), 0) + payload)
    if not no_checksum:
        total = pseudo_sum(ip_address(src).packed, ip_address(dst).packed, p.PROTO_UDP, len(datagram))
        pack_into("!H", datagram, 6, total if partial else internet_checksum(datagram, total) or 0xFFFF)
    frame = ip(src, dst, p.PROTO_UDP, bytes(datagram), **more)  # type: ignore[arg-type]
    if not partial:
        return frame
    return VnetHdr(F_NEEDS_CSUM, csum_start=p.dissect(frame).l4 - ETH, csum_offset=6).encode() + frame[ETH:]


def icmp(src: str, dst: str, kind: int, code: int, body: bytes, **more: object) -> bytes:
    """ICMP or ICMPv6, by the addresses; `body` follows the checksum."""
    a, b = ip_address(src), ip_address(dst)
    message = bytearray(bytes((kind, code, 0, 0)) + body)
    six = isinstance(a, IPv6Address)
    start = pseudo_sum(a.packed, b.packed, p.PROTO_ICMPV6, len(message)) if six else 0
    pack_into("!H", message, _ICMP_CSUM_AT, internet_checksum(message, start))
    return ip(src, dst, p.PROTO_ICMPV6 if six else p.PROTO_ICMP, bytes(message), **more)  # type: ignore[arg-type]


def icmp_echo(
    src: str, dst: str, ident: int = 1, seq: int = 1, payload: bytes = b"", *, reply: bool = False, **more: object
) -> bytes:
    """An echo request or reply of the addresses' family."""
    six = ":" in src
    kind = (129 if reply else 128) if six else (0 if reply else 8)
    return icmp(src, dst, kind, 0, pack("!HH", ident, seq) + payload, **more)


def icmp_error(src: str, dst: str, about: Buffer, kind: int | None = None, code: int = 3, **more: object) -> bytes:
    """An error about a frame (port unreachable by default) that quotes its IP packet as far as is customary."""
    packet = p.dissect(about)
    six = packet.version == 6
    quoted = bytes(about[packet.l3 : packet.end])[: 1232 if six else 548]
    number = kind if kind is not None else 1 if six else 3
    return icmp(src, dst, number, 4 if six and kind is None else code, bytes(4) + quoted, **more)


def neighbour_solicitation(src: str, target: str, *, src_mac: bytes = MAC_A, dst: str = "", **more: object) -> bytes:
    """A Neighbor Solicitation (RFC 4861 §4.3) with the source's link-layer address; `src` `::` makes it a DAD probe."""
    to = dst or solicited_node(target)
    option = b"" if src == "::" else b"\1\1" + src_mac
    more.setdefault("macs", (src_mac, multicast_mac(to) if to.lower().startswith("ff") else MAC_B))
    return icmp(src, to, 135, 0, bytes(4) + ip_address(target).packed + option, ttl=255, **more)


def neighbour_advertisement(
    src: str,
    dst: str,
    target: str,
    target_mac: bytes,
    *,
    solicited: bool = True,
    override: bool = True,
    router: bool = False,
    **more: object,
) -> bytes:
    """A Neighbor Advertisement (RFC 4861 §4.4) with the target's link-layer address."""
    flags = (0x80 if router else 0) | (0x40 if solicited else 0) | (0x20 if override else 0)
    more.setdefault("macs", (target_mac, multicast_mac(dst) if dst.lower().startswith("ff") else MAC_B))
    body = bytes((flags, 0, 0, 0)) + ip_address(target).packed + b"\2\1" + target_mac
    return icmp(src, dst, 136, 0, body, ttl=255, **more)


def solicited_node(address: str) -> str:
    """The solicited-node multicast address (RFC 4291 §2.7.1)."""
    low = int(ip_address(address)) & 0xFFFFFF
    return str(IPv6Address(int(IPv6Address("ff02::1:ff00:0")) | low))


def multicast_mac(address: str) -> bytes:
    """Ethernet address of an IPv6 multicast group (RFC 2464 §7)."""
    return b"\x33\x33" + ip_address(address).packed[12:]


def arp(
    operation: int, sender: str, sender_mac: bytes, target: str, target_mac: bytes, dst: bytes, **more: object
) -> bytes:
    """An ARP packet (RFC 826) for IPv4 over Ethernet."""
    body = pack(
        "!HHBBH6s4s6s4s",
        1,
        p.ETH_IPV4,
        6,
        4,
        operation,
        sender_mac,
        ip_address(sender).packed,
        target_mac,
        ip_address(target).packed,
    )
    return ethernet(p.ETH_ARP, body, src=sender_mac, dst=dst, **more)  # type: ignore[arg-type]


def arp_request(sender: str, target: str, *, sender_mac: bytes = MAC_A, **more: object) -> bytes:
    """Who has `target`? With `sender == target` it is the announcement of RFC 5227 §3."""
    return arp(1, sender, sender_mac, target, bytes(6), BROADCAST, **more)


def arp_reply(
    sender: str, target: str, *, sender_mac: bytes = MAC_A, target_mac: bytes = MAC_B, **more: object
) -> bytes:
    """`sender` is at `sender_mac`, says it to `target`."""
    return arp(2, sender, sender_mac, target, target_mac, target_mac, **more)


def rarp_announcement(address: bytes, **more: object) -> bytes:
    """The RARP request by which QEMU and other hypervisors tell switches where a MAC has moved."""
    body = pack("!HHBBH6s4s6s4s", 1, p.ETH_IPV4, 6, 4, 3, address, bytes(4), address, bytes(4))
    return ethernet(0x8035, body, src=address, dst=BROADCAST, pad=60, **more)  # type: ignore[arg-type]


def fragments(frame: Buffer, mtu: int) -> list[bytes]:
    """A frame's packet cut for `mtu` (bytes of IP packet); the frame itself when it fits. No offloads remain."""
    packet = p.dissect(frame)
    body = bytes(frame[packet.l4 : packet.end])
    head = packet.l4 - packet.l3
    if head + len(body) <= mtu:
        return [bytes(frame)]
    six = packet.version == 6
    step = (mtu - head - (8 if six else 0)) & ~7
    out = []
    for at in range(0, len(body), step):
        part = body[at : at + step]
        more = at + step < len(body)
        header = bytearray(frame[packet.l3 : packet.l4])
        if six:
            following = header[6]
            header[6] = p.PROTO_FRAGMENT
            header += pack("!BBHI", following, 0, at | more, packet.ident or 1)
            pack_into("!H", header, 4, len(header) - 40 + len(part))
        else:
            pack_into(
                "!HHHBBH",
                header,
                2,
                head + len(part),
                packet.ident,
                at // 8 | (0x2000 if more else 0),
                header[8],
                header[9],
                0,
            )
            pack_into("!H", header, 10, internet_checksum(header))
        out.append(NO_OFFLOAD + bytes(frame[ETH : packet.l3]) + bytes(header) + part)
    return out
