"""Frames that we build, read by an independent parser; their sums are right, their fields where they belong."""

from ipaddress import ip_address
from struct import unpack_from

import dpkt
import pytest

import craft
from checksums import ip_checksum_ok, l4_checksum_ok
from colo_proto.frame import ETH, F_NEEDS_CSUM, GSO_TCPV4, GSO_TCPV6, NO_OFFLOAD
from colo_proto.net import packet as p
from craft import VnetHdr

PAIRS = {4: ("10.0.0.1", "10.0.0.2"), 6: ("fd00::1", "fd00::2")}
both = pytest.mark.parametrize("version", [4, 6])


def read(frame):
    assert frame[:ETH] == NO_OFFLOAD
    assert ip_checksum_ok(frame)
    assert l4_checksum_ok(frame)
    return dpkt.ethernet.Ethernet(frame[ETH:])


@both
def test_tcp(version):
    src, dst = PAIRS[version]
    eth = read(craft.tcp(src, dst, 80, 5000, 1000, 2000, 0x12, b"hello", window=77, options=craft.mss(1460), urgent=3))
    assert (eth.src, eth.dst) == (craft.MAC_A, craft.MAC_B)
    assert (eth.data.src, eth.data.dst) == (ip_address(src).packed, ip_address(dst).packed)
    tcp = eth.data.data
    assert (tcp.sport, tcp.dport, tcp.seq, tcp.ack, tcp.flags, tcp.win, tcp.urp) == (80, 5000, 1000, 2000, 0x12, 77, 3)
    assert (tcp.opts, tcp.data) == (craft.mss(1460), b"hello")


@both
def test_udp(version):
    udp = read(craft.udp(*PAIRS[version], 53, 5000, b"hello")).data.data
    assert (udp.sport, udp.dport, udp.ulen, udp.data) == (53, 5000, 13, b"hello")


def test_ipv4_fields():
    ip = read(craft.udp(*PAIRS[4], 1, 2, ident=77, ttl=9, tos=0x2E, options=b"\x94\4\0\0")).data
    assert (ip.id, ip.ttl, ip.tos, ip.df, ip.mf, ip.opts) == (77, 9, 0x2E, 1, 0, b"\x94\4\0\0")
    piece = read(craft.ip(*PAIRS[4], 17, bytes(16), more=True, offset=64)).data
    assert (piece.df, piece.mf, piece.offset) == (0, 1, 8)


def test_ipv6_fields():
    ip = read(craft.udp(*PAIRS[6], 1, 2, ttl=9, tos=0x2E)).data
    assert (ip.hlim, ip.fc, ip.flow, ip.plen) == (9, 0x2E, 0, 8)
    extended = read(craft.udp(*PAIRS[6], 1, 2, b"x", extensions=[(0, b"\5\2\0\0\0\0"), (60, bytes(20))])).data
    assert list(extended.extension_hdrs) == [0, 60]
    assert bytes(extended.data.data) == b"x"
    first = read(craft.ip(*PAIRS[6], 17, bytes(16), more=True, ident=99)).data
    piece = first.extension_hdrs[44]
    assert (piece.nxt, piece.frag_off, piece.m_flag, piece.id) == (17, 0, 1, 99)


@both
@pytest.mark.parametrize(("kinds", "reply"), [({4: 8, 6: 128}, False), ({4: 0, 6: 129}, True)])
def test_echo(version, kinds, reply):
    message = read(craft.icmp_echo(*PAIRS[version], 7, 9, b"data", reply=reply)).data.data
    assert (message.type, message.code) == (kinds[version], 0)
    assert unpack_from("!HH", bytes(message), 4) == (7, 9)
    assert bytes(message)[8:] == b"data"


@both
def test_an_error_quotes_the_packet(version):
    src, dst = PAIRS[version]
    about = craft.udp(dst, src, 5000, 53, b"question", tags=(5,))
    frame = craft.icmp_error(src, dst, about)
    message = read(frame).data.data
    assert (message.type, message.code) == ((3, 3) if version == 4 else (1, 4))
    packet = p.dissect(about)
    assert bytes(message)[8:] == about[packet.l3 : packet.end]
    assert p.dissect_quoted(frame, p.dissect(frame).l4 + 8, len(frame), packet.ethertype, packet.tags).key == packet.key
    assert len(bytes(read(craft.icmp_error(src, dst, craft.udp(dst, src, 1, 2, bytes(2000)))).data.data)) <= 1240


def test_tags():
    eth = read(craft.udp(*PAIRS[4], 1, 2, tags=(5,)))
    assert [(t.type, t.id) for t in eth.vlan_tags] == [(p.ETH_IPV4, 5)]
    frame = craft.udp(*PAIRS[4], 1, 2, tags=(100, 0x2005))
    assert frame[ETH + 12 : ETH + 22] == bytes.fromhex("88a8 0064 8100 2005 0800")
    assert [t.id for t in read(frame).vlan_tags] == [100, 5]


def test_padding():
    frame = craft.udp(*PAIRS[4], 1, 2, b"x", pad=60)
    assert len(frame) == ETH + 60
    assert read(frame).data.data.data == b"x"


@both
def test_partial_checksums_say_where(version):
    src, dst = PAIRS[version]
    for frame, at in (
        (craft.tcp(src, dst, 1, 2, 3, 4, 16, b"x", partial=True), 16),
        (craft.udp(src, dst, 1, 2, partial=True), 6),
    ):
        hdr = VnetHdr.of(frame)
        packet = p.dissect(frame)
        assert (hdr.flags, hdr.gso_type, hdr.csum_start, hdr.csum_offset) == (F_NEEDS_CSUM, 0, packet.l4 - ETH, at)
        assert l4_checksum_ok(frame)


@both
def test_gso(version):
    frame = craft.tcp(*PAIRS[version], 1, 2, 3, 4, 16, bytes(5000), gso=1400, options=craft.timestamps(1, 2), tags=(5,))
    hdr = VnetHdr.of(frame)
    packet = p.dissect(frame)
    assert hdr.gso_type == (GSO_TCPV4 if version == 4 else GSO_TCPV6)
    assert (hdr.gso_size, hdr.hdr_len) == (1400, packet.l4 + 32 - ETH)
    assert len(packet.payload()) == 5032


class TestNeighbours:
    def test_arp(self):
        arp = dpkt.ethernet.Ethernet(craft.arp_request("10.0.0.1", "10.0.0.2")[ETH:])
        assert arp.dst == craft.BROADCAST
        body = arp.data
        assert (body.op, body.sha, body.spa, body.tpa) == (1, craft.MAC_A, b"\x0a\0\0\1", b"\x0a\0\0\2")
        reply = dpkt.ethernet.Ethernet(craft.arp_reply("10.0.0.1", "10.0.0.2")[ETH:])
        assert (reply.dst, reply.data.op, reply.data.tha) == (craft.MAC_B, 2, craft.MAC_B)

    def test_rarp(self):
        frame = craft.rarp_announcement(craft.MAC_A)[ETH:]
        assert len(frame) == 60
        eth = dpkt.ethernet.Ethernet(frame)
        assert (eth.dst, eth.src, eth.type) == (craft.BROADCAST, craft.MAC_A, 0x8035)
        assert frame[20:22] == b"\0\3"

    def test_solicitation(self):
        frame = craft.neighbour_solicitation("fd00::1", "fd00::abcd:1234")
        eth = read(frame)
        assert eth.dst == bytes.fromhex("3333ffcd1234")
        assert eth.data.dst == ip_address("ff02::1:ffcd:1234").packed
        assert eth.data.hlim == 255
        body = bytes(eth.data.data)
        assert (body[0], body[8:24], body[24:]) == (135, ip_address("fd00::abcd:1234").packed, b"\1\1" + craft.MAC_A)
        probe = bytes(read(craft.neighbour_solicitation("::", "fd00::1")).data.data)
        assert len(probe) == 24

    def test_advertisement(self):
        eth = read(craft.neighbour_advertisement("fd00::1", "ff02::1", "fd00::1", craft.MAC_A, solicited=False))
        assert (eth.dst, eth.data.hlim) == (bytes.fromhex("333300000001"), 255)
        body = bytes(eth.data.data)
        assert (body[0], body[4], body[24:]) == (136, 0x20, b"\2\1" + craft.MAC_A)


@both
@pytest.mark.parametrize("mtu", [576, 1280, 1500])
def test_fragments_fit_and_join(version, mtu):
    frame = craft.udp(*PAIRS[version], 1, 2, bytes(range(256)) * 16, ident=5, dont_fragment=False, tags=(5,))
    whole = p.dissect(frame)
    pieces = craft.fragments(frame, mtu)
    assert len(pieces) > 1
    body = b""
    for piece in pieces:
        assert ip_checksum_ok(piece)
        packet = p.dissect(piece)
        assert packet.end == len(piece)
        assert packet.end - packet.l3 <= mtu
        assert packet.frag_offset == len(body)
        assert packet.more == (piece is not pieces[-1])
        body += packet.payload()
    assert body == whole.payload()
    assert craft.fragments(frame, 65535) == [frame]


def test_option_builders():
    opts = craft.mss(1460) + craft.sack_permitted() + craft.timestamps(1, 2**32 + 5) + craft.wscale(7)
    stamps = b"\0\0\0\1\0\0\0\5"
    assert dpkt.tcp.parse_opts(opts) == [
        (2, b"\x05\xb4"), (1, b""), (1, b""), (4, b""), (1, b""), (1, b""), (8, stamps), (1, b""), (3, b"\7"),
    ]  # fmt: skip
    assert dpkt.tcp.parse_opts(craft.sack((1, 2), (-1, 2**32)))[2] == (5, b"\0\0\0\1\0\0\0\2\xff\xff\xff\xff\0\0\0\0")


def test_addresses():
    assert craft.mac("02:c0:10:00:00:02") == craft.MAC_A
    assert craft.solicited_node("fd00::1:2") == "ff02::1:ff01:2"
    assert craft.multicast_mac("ff02::1:ff01:2") == bytes.fromhex("3333ff010002")
