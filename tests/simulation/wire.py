"""Frames of the simulated hosts. The proxy's own packet code is not used here, because it is what is tested.

A frame is a 10-byte virtio_net_hdr and an Ethernet frame (see `colo_proto.frame`). Sums are computed modulo 65535,
as the definition of the Internet checksum allows (RFC 1071).
"""

from struct import Struct

TCP, UDP, ICMP, ICMP6 = 6, 17, 1, 58
FIN, SYN, RST, PSH, ACK = 1, 2, 4, 8, 16

_PLAIN = bytes(10)
_VNET = Struct("<BBHHHH")
_V4 = Struct("!BBHHHBBH4s4s")
_V6 = Struct("!IHBB16s16s")
_TCP = Struct("!HHIIBBHHH")
_U16 = Struct("!H")
_U32 = Struct("!I")

M32 = 0xFFFFFFFF


def total(data):
    """Sum of 16-bit words modulo 65535, in 1..65535."""
    if len(data) & 1:
        data = bytes(data) + b"\0"
    return int.from_bytes(data, "big") % 65535 or 65535


class Route:
    """One direction between two hosts. Builds frames of any protocol for it."""

    __slots__ = ("dport", "dst", "eth", "ident", "ports", "proto", "sport", "src", "sum4", "tag", "v6")

    def __init__(self, proto, src, dst, sport, dport, macs, tag=None):
        self.proto, self.src, self.dst, self.sport, self.dport = proto, src, dst, sport, dport
        self.v6 = len(src) == 16
        self.tag = tag
        vlan = b"" if tag is None else b"\x81\x00" + _U16.pack(tag)
        self.eth = macs[1] + macs[0] + vlan + (b"\x86\xdd" if self.v6 else b"\x08\x00")
        self.ports = _U16.pack(sport) + _U16.pack(dport)
        self.ident = 1
        self.sum4 = 0 if self.v6 else total(_V4.pack(0x45, 0, 0, 0, 0x4000, 64, proto, 0, src, dst))

    def key(self):
        return (self.proto, self.src, self.dst, self.sport, self.dport)

    def packet(self, l4, csum_at, partial=False, gso=0, header=0):
        """A frame around `l4` (a bytearray whose checksum field is zero)."""
        size = len(l4)
        pseudo = total(self.src + self.dst + _U32.pack(size) + _U32.pack(self.proto))
        if self.proto == ICMP:
            pseudo = 0
        if partial or gso:
            _U16.pack_into(l4, csum_at, pseudo)
        else:
            value = 65535 - ((total(l4) + pseudo) % 65535 or 65535)
            _U16.pack_into(l4, csum_at, value if value or self.proto != UDP else 65535)
        if self.v6:
            ip = _V6.pack(6 << 28, size, self.proto, 64, self.src, self.dst)
        else:
            self.ident = ident = (self.ident + 1) & 0xFFFF
            csum = 65535 - ((self.sum4 + 20 + size + ident) % 65535 or 65535)
            ip = _V4.pack(0x45, 0, 20 + size, ident, 0x4000, 64, self.proto, csum, self.src, self.dst)
        vnet = _PLAIN
        if partial or gso:
            start = len(self.eth) + len(ip)
            kind = 0 if not gso else 4 if self.v6 else 1
            vnet = _VNET.pack(1, kind, start + header if gso else 0, gso, start, csum_at)
        return b"".join((vnet, self.eth, ip, l4))

    def tcp(self, seq, ack, flags, window, options, payload, partial=False, gso=0):
        size = 20 + len(options)
        l4 = bytearray(_TCP.pack(self.sport, self.dport, seq & M32, ack & M32, size << 2, flags, window, 0, 0))
        l4 += options
        l4 += payload
        return self.packet(l4, 16, partial, gso, size)

    def udp(self, payload, partial=False):
        l4 = bytearray(self.ports + _U16.pack(8 + len(payload)) + b"\0\0" + payload)
        return self.packet(l4, 6, partial)

    def icmp(self, kind, code, body):
        return self.packet(bytearray(bytes((kind, code, 0, 0)) + body), 2)


def stamps(value, echo):
    return b"\x01\x01\x08\x0a" + _U32.pack(value & M32) + _U32.pack(echo & M32)


def sack_option(blocks):
    return (
        b"\x01\x01\x05"
        + bytes((2 + 8 * len(blocks),))
        + b"".join(_U32.pack(a & M32) + _U32.pack(b & M32) for a, b in blocks)
    )


class Packet:
    """What a host reads from a frame. `ok`: every checksum is right."""

    __slots__ = ("dport", "dst", "end", "frame", "l3", "l4", "macs", "ok", "proto", "sport", "src", "tag")


def read(frame):
    """The packet in a frame, or None for protocols that the simulated hosts do not know (ARP, fragments)."""
    p = Packet()
    p.frame = frame
    at = 22
    kind = frame[at : at + 2]
    p.tag = None
    p.macs = (bytes(frame[10:16]), bytes(frame[16:22]))
    if kind == b"\x81\x00":
        p.tag = _U16.unpack_from(frame, at + 2)[0]
        at += 4
        kind = frame[at : at + 2]
    at += 2
    p.l3 = at
    if kind == b"\x08\x00":
        first, _, length, _, fragment, _, p.proto, _, p.src, p.dst = _V4.unpack_from(frame, at)
        p.l4 = at + (first & 15) * 4
        p.end = at + length
        p.ok = total(frame[at : p.l4]) == 65535
        if fragment & 0x3FFF:
            return None
    elif kind == b"\x86\xdd":
        _, length, p.proto, _, p.src, p.dst = _V6.unpack_from(frame, at)
        p.l4 = at + 40
        p.end = p.l4 + length
        p.ok = True
    else:
        return None
    p.sport = p.dport = 0
    if p.proto in (TCP, UDP):
        p.sport, p.dport = _U16.unpack_from(frame, p.l4)[0], _U16.unpack_from(frame, p.l4 + 2)[0]
    size = p.end - p.l4
    pseudo = total(p.src + p.dst + _U32.pack(size) + _U32.pack(p.proto)) if p.proto != ICMP else 0
    csum_at = {TCP: 16, UDP: 6, ICMP: 2, ICMP6: 2}[p.proto]
    if frame[0] & 1:
        p.ok = p.ok and _U16.unpack_from(frame, p.l4 + csum_at)[0] % 65535 == pseudo % 65535
    else:
        p.ok = p.ok and (total(frame[p.l4 : p.end]) + pseudo) % 65535 == 0
    return p


class Segment:
    """A TCP header, options included, and its payload."""

    __slots__ = ("ack", "flags", "mss", "payload", "sack_ok", "sacks", "seq", "tsecr", "tsval", "window", "wscale")

    def __init__(self, p):
        frame, l4 = p.frame, p.l4
        _, _, self.seq, self.ack, offset, self.flags, self.window, _, _ = _TCP.unpack_from(frame, l4)
        data = l4 + (offset >> 4) * 4
        self.payload = bytes(frame[data : p.end])
        self.mss = self.wscale = self.tsval = self.tsecr = None
        self.sack_ok = False
        self.sacks = ()
        at = l4 + 20
        while at < data:
            kind = frame[at]
            if kind == 1:
                at += 1
                continue
            if kind == 0:
                break
            size = frame[at + 1]
            if kind == 2:
                self.mss = _U16.unpack_from(frame, at + 2)[0]
            elif kind == 3:
                self.wscale = frame[at + 2]
            elif kind == 4:
                self.sack_ok = True
            elif kind == 5:
                self.sacks = tuple(
                    (_U32.unpack_from(frame, i)[0], _U32.unpack_from(frame, i + 4)[0])
                    for i in range(at + 2, at + size, 8)
                )
            elif kind == 8:
                self.tsval, self.tsecr = _U32.unpack_from(frame, at + 2)[0], _U32.unpack_from(frame, at + 6)[0]
            at += size


_NAMES = ((SYN, "S"), (FIN, "F"), (RST, "R"), (PSH, "P"), (ACK, "."))


def show(frame):
    """A frame as a line of text."""
    try:
        return _show(frame)
    except Exception as error:  # noqa: BLE001  a trace shows what it can
        return f"unreadable frame ({error!r})"


def _show(frame):
    p = read(frame)
    if p is None:
        return f"{len(frame) - 10} bytes, not read"
    ends = f"{_address(p.src)}:{p.sport} > {_address(p.dst)}:{p.dport}"
    if p.proto != TCP:
        name = {UDP: "udp", ICMP: "icmp", ICMP6: "icmp6"}[p.proto]
        body = bytes(frame[p.l4 + (8 if p.proto == UDP else 4) : p.end])
        return f"{name} {ends} {len(body)} bytes {body[:8].hex()}"
    s = Segment(p)
    flags = "".join(letter for bit, letter in _NAMES if s.flags & bit)
    more = f" sack {','.join(f'{a}-{b}' for a, b in s.sacks)}" if s.sacks else ""
    stamp = f" ts {s.tsval}/{s.tsecr}" if s.tsval is not None else ""
    size = len(s.payload)
    return f"tcp {ends} {flags} seq {s.seq}+{size} ack {s.ack} win {s.window}{stamp}{more}"


def _address(raw):
    if len(raw) == 4:
        return ".".join(map(str, raw))
    return "[" + ":".join(f"{_U16.unpack_from(raw, i)[0]:x}" for i in range(0, 16, 2)) + "]"
