"""Dissection: every layer found where it is, nothing ever raised, and the same as an independent parser says."""

from ipaddress import ip_address
from struct import pack

import dpkt
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import craft
from colo_proto.frame import ETH, NO_OFFLOAD
from colo_proto.net import packet as p
from colo_proto.net.packet import Kind, dissect, dissect_quoted

A4, B4 = "10.0.0.1", "10.0.0.2"
A6, B6 = "fd00::1", "fd00::2"
PAIRS = {4: (A4, B4), 6: (A6, B6)}
ESP, AH, NO_NEXT_HEADER = 50, 51, 59


def packed(text: str) -> bytes:
    return ip_address(text).packed


def key(proto, src, dst, sport=0, dport=0, tags=b""):
    return bytes([proto]) + packed(src) + packed(dst) + pack("!HH", sport, dport) + tags


class TestLayers:
    def test_ipv4_tcp(self):
        packet = dissect(craft.tcp(A4, B4, 80, 5000, 1, 2, 16, b"hello"))
        assert (packet.kind, packet.version, packet.proto) == (Kind.IP, 4, p.PROTO_TCP)
        assert (packet.l3, packet.l4, packet.end) == (ETH + 14, ETH + 34, ETH + 34 + 25)
        assert (packet.src, packet.dst) == (packed(A4), packed(B4))
        assert packet.key == key(6, A4, B4, 80, 5000)
        assert packet.payload()[20:] == b"hello"

    def test_ipv6_udp(self):
        packet = dissect(craft.udp(A6, B6, 53, 5000, b"hello"))
        assert (packet.kind, packet.version, packet.proto) == (Kind.IP, 6, p.PROTO_UDP)
        assert (packet.l3, packet.l4, packet.end) == (ETH + 14, ETH + 54, ETH + 54 + 13)
        assert packet.key == key(17, A6, B6, 53, 5000)

    @pytest.mark.parametrize("version", [4, 6])
    @pytest.mark.parametrize(
        ("tags", "key_tags"),
        [((), b""), ((5,), b"\0\x05"), ((0xE005,), b"\0\x05"), ((100, 0xFFFF), b"\0\x64\x0f\xff"), ((0,), b"\0\0")],
    )
    def test_vlan_tags(self, version, tags, key_tags):
        src, dst = PAIRS[version]
        packet = dissect(craft.tcp(src, dst, 1, 2, 0, 0, 2, tags=tags))
        assert packet.kind is Kind.IP
        assert packet.l3 == ETH + 14 + 4 * len(tags)
        # Priority and drop bits name no flow.
        assert packet.tags == key_tags
        assert packet.key == key(6, src, dst, 1, 2, key_tags)

    def test_a_third_tag_is_not_followed(self):
        packet = dissect(craft.tcp(A4, B4, 1, 2, 0, 0, 2, tags=(1, 2, 3)))
        assert (packet.kind, packet.ethertype, len(packet.tags)) == (Kind.OTHER, p.ETH_8021Q, 4)

    @pytest.mark.parametrize("length", [1, 4, 39, 40])
    def test_ipv4_options(self, length):
        packet = dissect(craft.udp(A4, B4, 1, 2, b"x", options=b"\x01" * length))
        assert packet.kind is Kind.IP
        assert packet.l4 - packet.l3 == 20 + (length + 3) // 4 * 4
        assert packet.key == key(17, A4, B4, 1, 2)

    @pytest.mark.parametrize(
        "extensions",
        [
            [(p.PROTO_HOPOPTS, b"\1\4\0\0\0\0")],
            [(p.PROTO_DSTOPTS, b""), (p.PROTO_ROUTING, bytes(20))],
            [(p.PROTO_HOPOPTS, b""), (p.PROTO_ROUTING, b""), (p.PROTO_DSTOPTS, bytes(100)), (p.PROTO_MOBILITY, b"")],
        ],
    )
    def test_ipv6_extension_headers(self, extensions):
        frame = craft.tcp(A6, B6, 1, 2, 0, 0, 2, b"data", extensions=extensions)
        packet = dissect(frame)
        assert (packet.kind, packet.proto) == (Kind.IP, p.PROTO_TCP)
        assert frame[packet.l4 : packet.l4 + 4] == b"\0\1\0\2"
        assert packet.payload()[20:] == b"data"
        assert packet.key == key(6, A6, B6, 1, 2)

    def test_a_chain_of_extension_headers_has_a_bound(self):
        def chain(length):
            return dissect(craft.udp(A6, B6, 1, 2, extensions=[(p.PROTO_DSTOPTS, b"")] * length))

        assert chain(p.MAX_EXTENSIONS - 1).kind is Kind.IP
        longer = chain(p.MAX_EXTENSIONS + 1)
        assert (longer.kind, longer.why) == (Kind.MALFORMED, "ipv6_extension")

    @pytest.mark.parametrize("proto", [ESP, AH, NO_NEXT_HEADER, p.PROTO_IGMP, 47, 255])
    @pytest.mark.parametrize("version", [4, 6])
    def test_other_protocols_have_no_ports(self, version, proto):
        src, dst = PAIRS[version]
        packet = dissect(craft.ip(src, dst, proto, b"\1\2\3\4\5\6"))
        assert (packet.kind, packet.key) == (Kind.IP, key(proto, src, dst))

    @pytest.mark.parametrize("proto", sorted(p.WITH_PORTS))
    def test_protocols_with_ports(self, proto):
        packet = dissect(craft.ip(A4, B4, proto, pack("!HH", 7, 8) + bytes(8)))
        assert packet.key == key(proto, A4, B4, 7, 8)

    def test_no_two_flows_share_a_key(self):
        keys = set()
        for version, (src, dst) in PAIRS.items():
            for tags in ((), (1,), (1, 2), (0,), (0, 1)):
                for ports in ((1, 2), (2, 1)):
                    keys.add(dissect(craft.tcp(src, dst, *ports, 0, 0, 2, tags=tags)).key)
                    keys.add(dissect(craft.udp(dst, src, *ports, tags=tags)).key)
            assert len(keys) == (20 if version == 4 else 40)

    def test_what_is_not_ip(self):
        for frame in (
            craft.arp_request(A4, B4),
            craft.rarp_announcement(craft.MAC_A),
            craft.ethernet(0x88CC, b"lldp"),
            craft.ethernet(0x0003, b"llc"),
            craft.ethernet(0x9999, b""),
        ):
            packet = dissect(frame)
            assert (packet.kind, packet.key, packet.version) == (Kind.OTHER, b"", 0)

    def test_padding_belongs_to_nobody(self):
        frame = craft.udp(A4, B4, 1, 2, b"x", pad=60)
        assert len(frame) == ETH + 60
        packet = dissect(frame)
        assert packet.end == ETH + 14 + 20 + 8 + 1
        assert packet.payload()[8:] == b"x"

    @pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
    def test_any_buffer(self, kind):
        for frame in (craft.tcp(A4, B4, 1, 2, 3, 4, 16, b"x"), craft.udp(A6, B6, 1, 2, tags=(7,))):
            packet, plain = dissect(kind(frame)), dissect(frame)
            assert (packet.key, packet.l4, packet.end, packet.tags) == (plain.key, plain.l4, plain.end, plain.tags)
            assert type(packet.key) is bytes
            assert hash(packet.key) == hash(plain.key)


class TestFragments:
    @pytest.mark.parametrize("version", [4, 6])
    def test_first_middle_last(self, version):
        src, dst = PAIRS[version]
        frame = craft.udp(src, dst, 1, 2, bytes(range(250)) * 12, ident=77, dont_fragment=False)
        pieces = [dissect(piece) for piece in craft.fragments(frame, 1280)]
        assert [one.kind for one in pieces] == [Kind.FRAGMENT] * 3
        assert [one.more for one in pieces] == [True, True, False]
        assert {one.proto for one in pieces} == {p.PROTO_UDP}
        assert len({one.ident for one in pieces}) == 1
        # Only the first knows its ports.
        assert [one.key for one in pieces] == [key(17, src, dst, 1, 2)] + [key(17, src, dst)] * 2
        position = 0
        for one in pieces:
            assert one.frag_offset == position
            position += one.end - one.l4
        assert b"".join(one.payload() for one in pieces) == dissect(frame).payload()

    def test_an_atomic_fragment_is_whole(self):
        inner = craft.udp(A6, B6, 1, 2, b"data")
        body = inner[ETH + 54 :]
        frame = craft.ip(A6, B6, p.PROTO_FRAGMENT, pack("!BBHI", p.PROTO_UDP, 0, 0, 99) + body)
        packet = dissect(frame)
        assert (packet.kind, packet.proto, packet.key) == (Kind.IP, p.PROTO_UDP, key(17, A6, B6, 1, 2))
        assert packet.payload() == body

    def test_extension_headers_behind_the_first_fragment_header(self):
        chain = pack("!BBHI", p.PROTO_DSTOPTS, 0, 1, 5) + bytes((p.PROTO_UDP, 0)) + bytes(6)
        first = dissect(craft.ip(A6, B6, p.PROTO_FRAGMENT, chain + pack("!HHHH", 1, 2, 100, 0)))
        assert (first.kind, first.key) == (Kind.FRAGMENT, key(17, A6, B6, 1, 2))
        # In a later one those bytes are data.
        later = pack("!BBHI", p.PROTO_DSTOPTS, 0, 0x0AA8 | 1, 5) + bytes(16)
        packet = dissect(craft.ip(A6, B6, p.PROTO_FRAGMENT, later))
        assert (packet.kind, packet.frag_offset, packet.proto) == (Kind.FRAGMENT, 0x0AA8, p.PROTO_DSTOPTS)
        assert len(packet.payload()) == 16

    def test_a_first_fragment_without_room_for_ports(self):
        packet = dissect(craft.ip(A4, B4, p.PROTO_TCP, b"", more=True))
        assert (packet.kind, packet.key) == (Kind.FRAGMENT, key(6, A4, B4))


class TestMalformed:
    @pytest.mark.parametrize("size", range(ETH + 14))
    def test_runts(self, size):
        packet = dissect(bytes(size))
        assert (packet.kind, packet.why) == (Kind.MALFORMED, "runt")

    @pytest.mark.parametrize(
        "frame",
        [
            craft.tcp(A4, B4, 1, 2, 3, 4, 16, b"hello", options=craft.timestamps(1, 2)),
            craft.tcp(A6, B6, 1, 2, 3, 4, 16, b"hello"),
            craft.udp(A4, B4, 1, 2, b"x", options=b"\1" * 8, tags=(1,)),
            craft.udp(
                A6, B6, 1, 2, b"x", extensions=[(p.PROTO_HOPOPTS, b""), (p.PROTO_DSTOPTS, bytes(20))], tags=(1, 2)
            ),
            craft.icmp_echo(A6, B6),
            craft.fragments(craft.udp(A6, B6, 1, 2, bytes(3000)), 1280)[1],
        ],
    )
    def test_truncation_anywhere(self, frame):
        whole = dissect(frame)
        for size in range(len(frame)):
            packet = dissect(frame[:size])
            if size >= whole.l3:
                assert packet.kind is Kind.MALFORMED, size
            # A cut inside the EtherTypes can look like a frame of another kind; one inside the IP packet cannot.
            assert packet.kind in (Kind.MALFORMED, Kind.OTHER)
            assert packet.key == b""

    @pytest.mark.parametrize(
        ("offset", "value", "why"),
        [
            (0, 0x35, "ipv4_header"), (0, 0x44, "ipv4_header"), (0, 0x4F, "ipv4_header"), (2, 0xFF, "ipv4_header"),
            (3, 19, "ipv4_header"),
        ],
    )  # fmt: skip
    def test_ipv4_headers_that_contradict_themselves(self, offset, value, why):
        frame = bytearray(craft.udp(A4, B4, 1, 2))
        frame[ETH + 14 + offset] = value
        packet = dissect(frame)
        assert (packet.kind, packet.why) == (Kind.MALFORMED, why)

    @pytest.mark.parametrize(("offset", "value"), [(0, 0x50), (4, 0xFF)])
    def test_ipv6_headers_that_contradict_themselves(self, offset, value):
        frame = bytearray(craft.udp(A6, B6, 1, 2))
        frame[ETH + 14 + offset] = value
        packet = dissect(frame)
        assert (packet.kind, packet.why) == (Kind.MALFORMED, "ipv6_header")

    def test_an_extension_header_longer_than_the_packet(self):
        frame = bytearray(craft.udp(A6, B6, 1, 2, extensions=[(p.PROTO_DSTOPTS, b"")]))
        frame[ETH + 54 + 1] = 200
        packet = dissect(frame)
        assert (packet.kind, packet.why) == (Kind.MALFORMED, "ipv6_extension")

    @pytest.mark.parametrize("version", [4, 6])
    @pytest.mark.parametrize("room", range(4))
    def test_no_room_for_ports(self, version, room):
        packet = dissect(craft.ip(*PAIRS[version], p.PROTO_TCP, bytes(room)))
        assert (packet.kind, packet.why) == (Kind.MALFORMED, "ports_truncated")

    @given(st.binary(max_size=120), st.sampled_from([b"\x08\0", b"\x86\xdd", b"\x81\0\0\1\x08\0", b"\x88\xa8", b""]))
    @settings(deadline=None, max_examples=500)
    def test_garbage_never_raises_and_offsets_stay_inside(self, body, ethertype):
        for first in (b"", b"\x45", b"\x60"):
            frame = NO_OFFLOAD + bytes(12) + ethertype + first + body
            packet = dissect(frame)
            if packet.kind in (Kind.IP, Kind.FRAGMENT):
                assert ETH + 14 < packet.l3 + 20 <= packet.l4 <= packet.end <= len(frame)
                assert packet.payload() == frame[packet.l4 : packet.end]
            else:
                assert packet.key == b""


class TestQuoted:
    def about(self, frame, room=1000):
        packet = dissect(frame)
        quoted = bytes(frame[packet.l3 : packet.end])[:room]
        error = bytes(50) + quoted
        return dissect_quoted(error, 50, len(error), packet.ethertype, packet.tags), packet

    @pytest.mark.parametrize("version", [4, 6])
    @pytest.mark.parametrize("room", [8, 100])
    def test_eight_bytes_of_the_l4_header_are_enough(self, version, room):
        src, dst = PAIRS[version]
        for frame in (craft.udp(src, dst, 1, 2, b"payload", tags=(3,)), craft.tcp(src, dst, 1, 2, 3, 4, 2)):
            quoted, packet = self.about(frame, (20 if version == 4 else 40) + room)
            assert (quoted.kind, quoted.key) == (Kind.IP, packet.key)

    def test_options_are_skipped(self):
        quoted, packet = self.about(craft.udp(A4, B4, 1, 2, options=b"\1" * 12))
        assert quoted.key == packet.key

    def test_protocols_without_ports(self):
        quoted, packet = self.about(craft.icmp_echo(A4, B4))
        assert quoted.key == packet.key

    @pytest.mark.parametrize("version", [4, 6])
    def test_truncated_everywhere(self, version):
        frame = craft.udp(*PAIRS[version], 1, 2)
        for room in range((20 if version == 4 else 40) + 4):
            quoted, _ = self.about(frame, room)
            assert (quoted.kind, quoted.key, quoted.why) == (Kind.MALFORMED, b"", "quote_truncated")

    def test_a_header_length_that_cannot_be(self):
        frame = bytearray(craft.udp(A4, B4, 1, 2))
        frame[ETH + 14] = 0x44
        quoted = dissect_quoted(frame, ETH + 14, len(frame), p.ETH_IPV4, b"")
        assert (quoted.kind, quoted.key) == (Kind.MALFORMED, b"")

    def test_a_later_fragment_has_no_ports_to_quote(self):
        later = craft.ip(A4, B4, p.PROTO_UDP, bytes(range(16)), offset=64)
        quoted, _ = self.about(later)
        assert (quoted.kind, quoted.key, quoted.why) == (Kind.MALFORMED, b"", "quote_fragment")

    @given(st.binary(max_size=80), st.sampled_from([p.ETH_IPV4, p.ETH_IPV6, 0]))
    @settings(deadline=None)
    def test_garbage_never_raises(self, data, ethertype):
        for first in (b"", b"\x45", b"\x4f", b"\x60"):
            frame = first + data
            quoted = dissect_quoted(frame, 0, len(frame), ethertype, b"")
            assert quoted.kind in (Kind.IP, Kind.MALFORMED)


addresses4 = st.ip_addresses(v=4).map(str)
addresses6 = st.ip_addresses(v=6).map(str)
port = st.integers(0, 65535)
extension = st.tuples(st.sampled_from([p.PROTO_HOPOPTS, p.PROTO_ROUTING, p.PROTO_DSTOPTS]), st.binary(max_size=30))


def independent(frame):
    """What dpkt says: family, addresses, protocol, L4 bytes, VLAN identifiers."""
    eth = dpkt.ethernet.Ethernet(bytes(frame[ETH:]))
    tags = b"".join((tag.id & 0xFFF).to_bytes(2, "big") for tag in getattr(eth, "vlan_tags", ()))
    ip = eth.data
    if isinstance(ip, dpkt.ip.IP):
        body = ip.data if isinstance(ip.data, bytes) else bytes(ip.data)
        return 4, ip.src, ip.dst, ip.p, body, tags
    assert isinstance(ip, dpkt.ip6.IP6)
    body = ip.data if isinstance(ip.data, bytes) else bytes(ip.data)
    return 6, ip.src, ip.dst, ip.p, body, tags


@pytest.mark.slow
class TestAgainstAnotherParser:
    @given(st.data(), st.booleans(), port, port, st.binary(max_size=200), st.lists(st.integers(1, 4094), max_size=2))
    @settings(deadline=None, max_examples=300)
    def test_tcp_and_udp(self, data, six, sport, dport, payload, tags):
        address = addresses6 if six else addresses4
        src, dst = data.draw(address), data.draw(address)
        if data.draw(st.booleans()):
            options = b"" if six else b"\1" * data.draw(st.integers(0, 40))
            frame = craft.udp(src, dst, sport, dport, payload, tags=tags, options=options)
        else:
            options = data.draw(st.sampled_from([b"", craft.mss(1460), craft.timestamps(5, 6), craft.sack((1, 2))]))
            frame = craft.tcp(src, dst, sport, dport, 1, 2, 16, payload, options=options, tags=tags)
        packet = dissect(frame)
        version, src_, dst_, proto, body, tags_ = independent(frame)
        assert (packet.version, packet.src, packet.dst, packet.proto) == (version, src_, dst_, proto)
        assert packet.tags == tags_
        assert packet.payload() == body
        l4 = (dpkt.udp.UDP if proto == 17 else dpkt.tcp.TCP)(body)
        assert packet.key == bytes([proto]) + src_ + dst_ + pack("!HH", l4.sport, l4.dport) + tags_

    @given(addresses6, addresses6, st.lists(extension, min_size=1, max_size=3), st.binary(max_size=60))
    @settings(deadline=None)
    def test_extension_headers(self, src, dst, extensions, payload):
        kinds = [kind for kind, _ in extensions]
        # dpkt keeps one header of a kind.
        assume(len(set(kinds)) == len(kinds))
        frame = craft.udp(src, dst, 1, 2, payload, extensions=extensions)
        packet = dissect(frame)
        version, src_, dst_, _, body, _ = independent(frame)
        assert (packet.kind, packet.version, packet.src, packet.dst) == (Kind.IP, version, src_, dst_)
        assert packet.payload() == body

    @given(st.integers(0, 8191), st.booleans(), st.integers(0, 65535), st.binary(min_size=8, max_size=64))
    @settings(deadline=None)
    def test_ipv4_fragment_fields(self, units, more, ident, body):
        frame = craft.ip(A4, B4, 17, body, offset=8 * units, more=more, ident=ident)
        other = dpkt.ethernet.Ethernet(frame[ETH:]).data
        packet = dissect(frame)
        assert (packet.frag_offset, packet.more, packet.ident) == (8 * other.offset, bool(other.mf), other.id)
        assert (packet.kind is Kind.FRAGMENT) == bool(units or more)

    @given(st.binary(min_size=20, max_size=120), st.sampled_from([4, 6]), st.data())
    @settings(deadline=None, max_examples=400)
    def test_random_bytes_that_we_take_for_ip_are_the_same_ip_to_it(self, data, version, draw):
        data = bytearray(data.ljust(40, b"\0"))
        if version == 4:
            data[0] = 0x40 | draw.draw(st.integers(5, 8))
            data[2:4] = draw.draw(st.integers(0, len(data))).to_bytes(2, "big")
            data[9] = draw.draw(st.sampled_from([6, 17, 1, 132, data[9]]))
        else:
            data[0] = 0x60
            data[4:6] = draw.draw(st.integers(0, len(data) - 40)).to_bytes(2, "big")
            data[6] = draw.draw(st.sampled_from([6, 17, 58, 59, 200]))
        frame = NO_OFFLOAD + bytes(12) + (b"\x08\0" if version == 4 else b"\x86\xdd") + bytes(data)
        packet = dissect(frame)
        assume(packet.kind in (Kind.IP, Kind.FRAGMENT))
        # Layers above are none of our business here: dpkt parses some of them and may reject what it finds.
        if version == 4:
            other = dpkt.ip.IP.__new__(dpkt.ip.IP)
            dpkt.Packet.unpack(other, bytes(data))
            found = (other.src, other.dst, other.p, 8 * other.offset, bool(other.mf), other.id, other.hl * 4, other.len)
            ours = (packet.src, packet.dst, packet.proto, packet.frag_offset, packet.more, packet.ident)
            assert found == (*ours, packet.l4 - packet.l3, packet.end - packet.l3)
        else:
            other = dpkt.ip6.IP6.__new__(dpkt.ip6.IP6)
            dpkt.Packet.unpack(other, bytes(data))
            assert (other.src, other.dst, other.nxt) == (packet.src, packet.dst, packet.proto)
            assert other.plen == packet.end - packet.l4
