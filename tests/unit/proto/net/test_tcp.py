"""The TCP header and its options, hand-made, mangled, and against an independent parser."""

from struct import pack

import dpkt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import craft
from colo_proto.net import packet as p
from colo_proto.net import tcp
from colo_proto.net.tcp import ACK, FIN, SYN, SynOptions, options, segment, syn_options, timestamps_at

A, B = "10.0.0.1", "10.0.0.2"


def raw(opts=b"", payload=b"", offset=None, flags=ACK):
    """A TCP header alone, at 0, with options as they are given (padded with zeros)."""
    opts += b"\0" * (-len(opts) % 4)
    size = 5 + len(opts) // 4 if offset is None else offset
    return pack("!HHIIBBHHH", 80, 5000, 0xFFFFFFF0, 7, size << 4, flags, 500, 0, 0) + opts + payload


def listed(opts):
    data = raw(opts)
    return [(kind, data[at : at + length]) for kind, at, length in options(data, 0, len(data))]


class TestSegment:
    def test_fields(self):
        frame = craft.tcp(A, B, 80, 5000, 1000, 2000, FIN | ACK, b"hello", window=77, options=craft.timestamps(1, 2))
        packet = p.dissect(frame)
        found = segment(frame, packet.l4, packet.end)
        assert (found.seq, found.ack, found.flags, found.window) == (1000, 2000, FIN | ACK, 77)
        assert frame[found.data : found.end] == b"hello"
        assert found.data == packet.l4 + 32

    @pytest.mark.parametrize(
        ("flags", "payload", "length"),
        [
            (ACK, b"", 0),
            (SYN, b"", 1),
            (FIN, b"", 1),
            (SYN | FIN, b"ab", 4),
            (ACK | FIN, b"abc", 4),
            (tcp.RST, b"x", 1),
        ],
    )
    def test_length_in_sequence_space(self, flags, payload, length):
        data = raw(payload=payload, flags=flags)
        assert segment(data, 0, len(data)).length == length

    @pytest.mark.parametrize("offset", range(5))
    def test_a_data_offset_below_five(self, offset):
        data = raw(offset=offset)
        assert segment(data, 0, len(data)) is None

    def test_a_data_offset_beyond_the_packet(self):
        data = raw(offset=15)
        assert segment(data, 0, len(data)) is None
        assert segment(data + bytes(40), 0, 60).data == 60

    @pytest.mark.parametrize("size", range(20))
    def test_truncated(self, size):
        assert segment(raw(), 0, size) is None

    def test_padding_behind_the_end_is_no_payload(self):
        data = raw(payload=b"ab") + bytes(10)
        assert segment(data, 0, 22).length == 2


class TestOptions:
    def test_all_that_are_known(self):
        opts = craft.mss(1460) + craft.wscale(7) + craft.sack_permitted() + craft.timestamps(5, 6) + craft.sack((1, 2))
        assert listed(opts[:40]) == [
            (2, b"\2\4\x05\xb4"),
            (3, b"\3\3\7"),
            (4, b"\4\2"),
            (8, b"\x08\x0a" + pack("!II", 5, 6)),
            (5, b"\5\x0a" + pack("!II", 1, 2)),
        ]

    def test_unknown_ones_are_listed_too(self):
        assert listed(b"\xfe\4ab\x22\2") == [(0xFE, b"\xfe\4ab"), (0x22, b"\x22\2")]

    def test_end_ends(self):
        assert listed(b"\1\0\2\4\x05\xb4") == []

    @pytest.mark.parametrize("bad", [b"\2\0\5\xb4", b"\2\1\5\xb4", b"\1\1\1\2", b"\x08\x0aabcd", b"\2\xff\5\xb4"])
    def test_a_malformed_one_ends_the_walk_and_those_before_count(self, bad):
        assert listed(b"\3\3\7\1" + bad) == [(3, b"\3\3\7")]

    @given(st.binary(max_size=40))
    @settings(deadline=None)
    def test_any_bytes_stay_inside(self, opts):
        data = raw(opts)
        position = 20
        for kind, at, length in options(data, 0, len(data)):
            assert at >= position
            assert length >= 2
            assert data[at] == kind
            position = at + length
        assert position <= len(data)
        syn_options(data, 0, len(data))
        stamps = timestamps_at(data, 0, len(data))
        assert stamps is None or stamps + 8 <= len(data)

    option = st.one_of(
        st.just(b"\1"),
        st.integers(0, 65535).map(craft.mss),
        st.integers(0, 255).map(lambda n: bytes((3, 3, n))),
        st.just(b"\4\2"),
        st.tuples(st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1)).map(lambda t: b"\x08\x0a" + pack("!II", *t)),
        st.lists(st.integers(0, 2**32 - 1), min_size=2, max_size=6)
        .filter(lambda e: not len(e) % 2)
        .map(lambda e: bytes((5, 2 + 4 * len(e))) + pack(f"!{len(e)}I", *e)),
        st.binary(max_size=5).map(lambda b: bytes((0xFD, len(b) + 2)) + b),
    )

    @given(st.lists(option, max_size=8).map(b"".join).filter(lambda o: len(o) <= 40))
    @settings(deadline=None)
    def test_the_same_as_an_independent_parser(self, opts):
        data = raw(opts)
        other = dpkt.tcp.TCP(data)
        theirs = [(kind, body) for kind, body in dpkt.tcp.parse_opts(other.opts) if kind > 1]
        found = segment(data, 0, len(data))
        assert (found.seq, found.ack, found.flags, found.window) == (other.seq, other.ack, other.flags, other.win)
        assert found.data == 4 * other.off
        assert [(kind, body[2:]) for kind, body in listed(opts)] == theirs
        by_kind = dict(theirs)
        syn = syn_options(data, 0, len(data))
        assert syn.mss == (int.from_bytes(by_kind[2], "big") if 2 in by_kind else None)
        assert syn.wscale == (min(by_kind[3][0], 14) if 3 in by_kind else None)
        assert (syn.sack_permitted, syn.timestamps) == (4 in by_kind, 8 in by_kind)


class TestSyn:
    def read(self, opts):
        data = raw(opts, flags=SYN)
        return syn_options(data, 0, len(data))

    def test_nothing(self):
        assert self.read(b"") == SynOptions()

    def test_all(self):
        opts = craft.mss(1460) + craft.sack_permitted() + craft.timestamps(1, 0) + craft.wscale(7)
        assert self.read(opts) == SynOptions(1460, 7, sack_permitted=True, timestamps=True)

    def test_a_shift_above_fourteen_is_fourteen(self):
        assert self.read(craft.wscale(255)).wscale == 14

    @pytest.mark.parametrize("opts", [b"\2\3\5", b"\3\4\7\7", b"\4\3\1", b"\x08\x06abcd"])
    def test_a_wrong_length_is_not_understood(self, opts):
        assert self.read(opts) == SynOptions()


class TestTimestamps:
    def test_the_usual_layout(self):
        data = raw(craft.timestamps(5, 6))
        at = timestamps_at(data, 0, len(data))
        assert (tcp.read32(data, at), tcp.read32(data, at + 4)) == (5, 6)

    def test_another_layout(self):
        data = raw(craft.mss(1) + b"\x08\x0a" + pack("!II", 5, 6))
        at = timestamps_at(data, 0, len(data))
        assert (tcp.read32(data, at), tcp.read32(data, at + 4)) == (5, 6)

    def test_none(self):
        data = raw(craft.sack((1, 2)))
        assert timestamps_at(data, 0, len(data)) is None
        assert timestamps_at(raw(), 0, 20) is None

    def test_payload_is_not_taken_for_options(self):
        data = raw(payload=craft.timestamps(5, 6))
        assert timestamps_at(data, 0, 20) is None


def test_words_are_read_and_written_in_network_order():
    frame = bytearray(8)
    tcp.write32(frame, 2, 0x01020304)
    assert frame == b"\0\0\1\2\3\4\0\0"
    assert tcp.read32(frame, 2) == 0x01020304
