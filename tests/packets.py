r"""One packet as a line of text: the grammar that scenario files, playbooks and parity scripts share.

::

    tcp 10.0.0.2:80>10.0.0.9:5000 PA seq 1000 ack 500 "ABCDEFGHIJ"
    PA 1000 500 "ABCDEFGHIJ"                      the same: tcp and the usual flow are the default,
                                                  the first bare number is seq, the second ack
    A seq 101 ack 1001 ts 6:7000 sack 2000-3000,4000-5000
    SA seq 999 ack 500 mss 1460 ws 7 sackok
    udp 10.0.0.2:53>10.0.0.9:5353 "answer"        icmp reply id 7 seq 1 "ping"
    ip 47 "payload"      arp      eth 0x88cc "lldp"      raw 00112233

Words of TCP: flags (letters of `FSRPAUEC`), `seq ack win urg N`, `ts VALUE:ECHO`, `sack L-R[,L-R]`, `mss N`, `ws N`,
`sackok`, `opt HEX` (raw, in front of the other options), `off N` (a wrong data offset). Payload: `"text"` (Python
escapes), `+N` (pattern bytes), `hex HEX`. IP: `ttl tos id N`, `ipopt HEX`, `ext` (a destination options header),
`vlan N[,N]`, `mac MAC` (source). Frame: `pad N` (to N bytes), `cut N` (only the first N bytes of the Ethernet frame),
`mtu N` (in fragments), `sum N` (a checksum wrong by N), `nosum` (UDP without one), `partial` and `gso N` (offloads).

A *form* puts the same packet into another kind of frame: IPv6, tags, IP options, offloads; `10.0.0.2` becomes
`fd00::2`.
"""

import ast
import re
from dataclasses import dataclass, replace
from ipaddress import ip_address
from struct import pack, pack_into, unpack_from

import craft
from checksums import l4_checksum_ok, needs_csum
from colo_proto.checksum import internet_checksum
from colo_proto.frame import ETH, GSO_NONE, NO_OFFLOAD
from colo_proto.net import packet as p
from colo_proto.net.tcp import options, segment
from craft import VnetHdr

FORMS = ("v4", "v4-options", "v4-vlan", "v4-qinq", "v4-gso", "v6", "v6-extension", "v6-gso")
LETTERS = "FSRPAUEC"
CLIENT, GUEST = "10.0.0.9", "10.0.0.2"
CLIENT_MAC, GUEST_MAC = bytes.fromhex("020000000009"), bytes.fromhex("020000000002")
PORTS = {"tcp": (5000, 80), "udp": (5000, 53), "sctp": (5000, 80)}
_TAGS = {"v4-vlan": (0x6005,), "v4-qinq": (7, 5)}
M32 = 0xFFFFFFFF
SEGMENT = 1448


@dataclass(frozen=True)
class Packet:
    """One packet. `side` is its sender, `c` (client) or `g` (guest), which addresses and ports follow."""

    side: str = "g"
    flags: int = 16
    seq: int = 0
    ack: int = 0
    length: int = 0
    """Number of bytes of a pattern as payload, if there is no `payload`."""
    ts: tuple[int, int] | None = None
    sack: tuple[tuple[int, int], ...] = ()
    extra: bytes = b""
    """Raw TCP options in front of the others."""
    ports: tuple[int, int] = (5000, 80)
    """Client's, guest's."""
    spoil: int = 0
    """Added to the checksum to make it wrong."""
    payload: bytes | None = None
    proto: str = "tcp"
    client: str = CLIENT
    guest: str = GUEST
    win: int = 500
    urg: int = 0
    mss: int | None = None
    ws: int | None = None
    sackok: bool = False
    ttl: int = 64
    tos: int = 0
    id: int = 7
    ipopt: bytes = b""
    ext: bool = False
    vlan: tuple[int, ...] = ()
    mac: bytes = b""
    pad: int = 0
    cut: int = 0
    mtu: int = 0
    nosum: bool = False
    partial: bool = False
    gso: int = 0
    kind: int = 0
    """The ICMP type (with `code`), the number after `ip`, or the EtherType after `eth`."""
    code: int = 0
    raw: bytes = b""
    off: int = 0
    """A wrong TCP data offset."""

    def body(self):
        return bytes(i & 0xFF for i in range(self.length)) if self.payload is None else self.payload

    def options(self):
        out = self.extra
        if self.mss is not None:
            out += craft.mss(self.mss)
        if self.sackok:
            out += craft.sack_permitted()
        if self.ts is not None:
            stamps = craft.timestamps(*self.ts)
            out += stamps if not out or self.mss is not None else stamps[2:]
        if self.ws is not None:
            out += craft.wscale(self.ws)
        if self.sack:
            out += craft.sack(*self.sack)
        return out + b"\0" * (-len(out) % 4)

    def frame(self, form="v4"):
        """The bytes, with a virtio_net_hdr in front."""
        (one,) = self.frames(form)
        return one

    def frames(self, form="v4"):
        """The frame, or several if `mtu` fragments it."""
        frame = self._whole(form)
        if self.off:
            frame[p.dissect(bytes(frame)).l4 + 12] = self.off << 4
        if self.spoil:
            at = _sum_at(bytes(frame))
            pack_into("!H", frame, at, unpack_from("!H", frame, at)[0] + self.spoil & 0xFFFF)
        if self.cut:
            frame = frame[: ETH + self.cut]
        if self.mtu:
            return craft.fragments(frame, self.mtu)
        return [bytes(frame)]

    def _whole(self, form):
        six = form.startswith("v6")
        ends = [_six(end) if six and ":" not in end else end for end in (self.client, self.guest)]
        macs, ports = [CLIENT_MAC, GUEST_MAC], list(self.ports)
        if self.side == "g":
            for pair in (ends, macs, ports):
                pair.reverse()
        if self.mac:
            macs[0] = self.mac
        link = {"macs": tuple(macs), "tags": self.vlan or _TAGS.get(form, ()), "pad": self.pad}
        network = {"ident": self.id, "ttl": self.ttl, "tos": self.tos, **link}
        if ":" in ends[0] and (self.ext or form == "v6-extension"):
            network["extensions"] = ((p.PROTO_DSTOPTS, b"\x01\x04\0\0\0\0"),)
        body = self.body()
        if self.proto == "tcp":
            gso = form.endswith("gso")
            size = self.gso or (SEGMENT if gso and len(body) > SEGMENT else 0)
            frame = craft.tcp(
                *ends, *ports, self.seq & M32, self.ack & M32, self.flags, body, window=self.win, urgent=self.urg,
                options=self.options(), partial=gso or self.partial, gso=size, **network,
            )  # fmt: skip
        elif self.proto == "udp":
            partial = self.partial or form.endswith("gso")
            frame = craft.udp(*ends, *ports, body, partial=partial, no_checksum=self.nosum, **network)
        elif self.proto == "icmp":
            kind = {8: 128, 0: 129}.get(self.kind, self.kind) if ":" in ends[0] else self.kind
            head = pack("!HH", self.id, self.seq & 0xFFFF)
            frame = craft.icmp(*ends, kind, self.code, head + body, **{**network, "ident": 7})
        elif self.proto == "ip":
            frame = craft.ip(*ends, self.kind, body, **network)
        elif self.proto == "sctp":
            head = pack("!HHII", *ports, 1, 0)
            frame = craft.ip(*ends, p.PROTO_SCTP, head + body, **network)
        elif self.proto == "arp":
            frame = craft.arp_request(ends[0], ends[1], sender_mac=macs[0])
        elif self.proto == "eth":
            frame = craft.ethernet(self.kind, body, src=macs[0], dst=macs[1], tags=link["tags"], pad=self.pad)
        else:
            frame = NO_OFFLOAD + self.raw
        ip_options = self.ipopt or (b"\x94\x04\x00\x00" if form == "v4-options" else b"")
        return _with_ip_options(bytearray(frame), ip_options) if ip_options else bytearray(frame)


def _with_ip_options(frame, added):
    """An IPv4 packet with options between its header and the rest."""
    at = p.dissect(frame).l3
    if frame[at] != 0x45:
        return frame
    frame[at + 20 : at + 20] = added
    frame[at] += len(added) // 4
    pack_into("!H", frame, at + 2, unpack_from("!H", frame, at + 2)[0] + len(added))
    pack_into("!H", frame, at + 10, 0)
    pack_into("!H", frame, at + 10, internet_checksum(frame[at : at + 20 + len(added)]))
    vnet = VnetHdr.of(frame)
    if vnet.flags:
        header = vnet.hdr_len + len(added) if vnet.hdr_len else 0
        frame[:ETH] = vnet._replace(hdr_len=header, csum_start=vnet.csum_start + len(added)).encode()
    return frame


def _six(address):
    """`10.0.0.9` is `fd00::9` where the form is IPv6."""
    return str(ip_address((0xFD00 << 112) + (int(ip_address(address)) & 0xFFFFFF)))


def _sum_at(frame):
    packet = p.dissect(frame)
    return packet.l4 + {p.PROTO_TCP: 16, p.PROTO_UDP: 6}.get(packet.proto, 2)


_TOKEN = re.compile(r'"(?:\\.|[^"\\])*"|\S+')
_FLOW = re.compile(r"(?P<a>\[[^]]+\]|[0-9.]+)(?::(?P<ap>\d+))?>(?P<b>\[[^]]+\]|[0-9.]+)(?::(?P<bp>\d+))?$")
_NUMBERS = (
    "win",
    "urg",
    "mss",
    "ws",
    "ttl",
    "tos",
    "id",
    "pad",
    "cut",
    "mtu",
    "gso",
    "code",
    "seq",
    "ack",
    "type",
    "off",
)
_SWITCHES = ("sackok", "ext", "nosum", "partial")
_BYTES = {"opt": "extra", "ipopt": "ipopt", "hex": "payload", "mac": "mac"}
PROTOCOLS = ("tcp", "udp", "icmp", "sctp", "ip", "arp", "eth", "raw")


def tokens(text):
    """The words of a line. Text in quotes is one word, and `#` begins a comment."""
    found = []
    for word in _TOKEN.findall(text):
        if word.startswith("#"):
            break
        found.append(word)
    return found


def parse(words, side="g"):
    """The packet that these words describe; `ValueError` names a word that is not known."""
    words = list(words)
    packet = Packet(side)
    if words and words[0] in PROTOCOLS:
        proto = words.pop(0)
        packet = replace(packet, proto=proto, ports=PORTS.get(proto, (0, 0)))
        if proto in {"ip", "eth"}:
            packet = replace(packet, kind=int(words.pop(0), 0))
        elif proto == "raw":
            packet = replace(packet, raw=bytes.fromhex(words.pop(0)))
        elif proto == "icmp" and words and words[0] in {"reply", "echo"}:
            packet = replace(packet, kind=0 if words.pop(0) == "reply" else 8)
    return change(packet, words, fresh=True)


def change(packet, words, *, fresh=False):
    """`packet` with what `words` name changed."""
    words = list(words)
    bare = ["seq", "ack"] if fresh else []
    new = {}
    while words:
        word = words.pop(0)
        if flow := _FLOW.match(word):
            ends = [flow["a"].strip("[]"), flow["b"].strip("[]")]
            ports = [int(flow["ap"] or 0), int(flow["bp"] or 0)]
            if packet.side == "g":
                ends.reverse()
                ports.reverse()
            new |= {"client": ends[0], "guest": ends[1], "ports": tuple(ports)}
        elif word.startswith('"'):
            new["payload"] = ast.literal_eval("b" + word)
        elif word.startswith("+"):
            new |= {"length": int(word), "payload": None}
        elif word in _NUMBERS:
            new["kind" if word == "type" else word] = int(words.pop(0), 0)
        elif word in _SWITCHES:
            new[word] = True
        elif word in _BYTES:
            new[_BYTES[word]] = bytes.fromhex(words.pop(0).replace(":", ""))
        elif word == "ts":
            value, _, echo = words.pop(0).partition(":")
            new["ts"] = (int(value), int(echo))
        elif word == "sack":
            blocks = (block.split("-") for block in words.pop(0).split(","))
            new["sack"] = tuple((int(a), int(b)) for a, b in blocks)
        elif word == "vlan":
            new["vlan"] = tuple(int(tag, 0) for tag in words.pop(0).split(","))
        elif word == "sum":
            new["spoil"] = int(words.pop(0), 0)
        elif bare and word.isdigit():
            new[bare.pop(0)] = int(word)
        elif all(letter in LETTERS for letter in word):
            new["flags"] = sum(1 << LETTERS.index(letter) for letter in word)
        else:
            raise ValueError(f"{word!r} is no word of a packet")
    return replace(packet, **new)


def show(frame):
    """A frame as a line of this grammar, with the fields that people need; other frames as `raw`."""
    packet = p.dissect(frame)
    if packet.kind == p.Kind.MALFORMED or packet.version == 0:
        return f"raw {bytes(frame[ETH:]).hex()}"
    sport, dport = unpack_from("!HH", packet.key, 1 + 2 * len(packet.src))
    ends = [f"[{ip_address(end)}]" if len(end) == 16 else str(ip_address(end)) for end in (packet.src, packet.dst)]
    with_ports = packet.proto in p.WITH_PORTS
    flow = f"{ends[0]}:{sport}>{ends[1]}:{dport}" if with_ports else f"{ends[0]}>{ends[1]}"
    words = [flow]
    if packet.kind == p.Kind.FRAGMENT:
        words = [f"ip {packet.proto}", flow, f"fragment at {packet.frag_offset}{' more' if packet.more else ''}"]
        body = packet.payload()
    elif packet.proto == p.PROTO_TCP and (seg := segment(frame, packet.l4, packet.end)) is not None:
        flags = "".join(letter for at, letter in enumerate(LETTERS) if seg.flags >> at & 1)
        words = ["tcp", flow, flags, f"seq {seg.seq} ack {seg.ack} win {seg.window}", *_options(frame, packet, seg)]
        body = bytes(frame[seg.data : seg.end])
    elif packet.proto == p.PROTO_UDP and packet.end - packet.l4 >= 8:
        words.insert(0, "udp")
        body = bytes(frame[packet.l4 + 8 : packet.end])
    elif packet.proto in {p.PROTO_ICMP, p.PROTO_ICMPV6} and packet.end - packet.l4 >= 8:
        kind, code, _, ident, number = unpack_from("!BBHHH", frame, packet.l4)
        words = ["icmp", flow, f"type {kind} code {code} id {ident} seq {number}"]
        body = bytes(frame[packet.l4 + 8 : packet.end])
    else:
        words.insert(0, f"ip {packet.proto}")
        body = packet.payload()
    if packet.tags:
        tags = unpack_from(f"!{len(packet.tags) // 2}H", packet.tags)
        words.append("vlan " + ",".join(map(str, tags)))
    vnet = VnetHdr.of(frame)
    if vnet.gso_type != GSO_NONE:
        words.append(f"gso {vnet.gso_size}")
    elif needs_csum(frame):
        words.append("partial")
    if not l4_checksum_ok(frame):
        words.append("(wrong checksum)")
    if body:
        text = repr(body[:40])[1:].replace('"', '\\"')
        words.append(f'"{text[1:-1]}"' + (f" …{len(body)} bytes" if len(body) > 40 else ""))
    return " ".join(word for word in words if word)


def _options(frame, packet, seg):
    for kind, at, length in options(frame, packet.l4, seg.data):
        if kind == 2 and length == 4:
            yield f"mss {unpack_from('!H', frame, at + 2)[0]}"
        elif kind == 3 and length == 3:
            yield f"ws {frame[at + 2]}"
        elif kind == 4:
            yield "sackok"
        elif kind == 5:
            edges = unpack_from(f"!{(length - 2) // 4}I", frame, at + 2)
            yield "sack " + ",".join(f"{a}-{b}" for a, b in zip(edges[::2], edges[1::2], strict=False))
        elif kind == 8 and length == 10:
            yield "ts {}:{}".format(*unpack_from("!II", frame, at + 2))
        else:
            yield f"opt {bytes(frame[at : at + length]).hex()}"
