"""QEMU's framing: any pieces, exact limits, nothing left over from one connection to the next."""

from collections import Counter
from struct import pack

import pytest
from hypothesis import given
from hypothesis import strategies as st

from colo_proto.chardev import MAX_LENGTH, ChardevParser, WordParser, encode, word
from colo_proto.errors import WireError
from colo_proto.frame import MAX_FRAME, NO_OFFLOAD
from craft import VnetHdr

ETHERNET = bytes(range(64))
GSO_HDR = VnetHdr(flags=1, gso_type=1, hdr_len=54, gso_size=1448, csum_start=34, csum_offset=16).encode()


def off(payload: bytes) -> bytes:
    return pack("!I", len(payload)) + payload


def on(header: bytes, payload: bytes) -> bytes:
    return pack("!II", len(header) + len(payload), len(header)) + header + payload


def parser(**options) -> ChardevParser:
    return ChardevParser(Counter(), **options)


class TestOff:
    def test_a_frame_gets_an_empty_header(self):
        assert parser().feed(off(ETHERNET)) == [NO_OFFLOAD + ETHERNET]

    def test_byte_at_a_time(self):
        one = parser()
        stream = off(ETHERNET) + off(ETHERNET[:20])
        got = [frame for byte in stream for frame in one.feed(bytes([byte]))]
        assert got == [NO_OFFLOAD + ETHERNET, NO_OFFLOAD + ETHERNET[:20]]
        assert one.partial == 0

    @given(st.lists(st.binary(min_size=14, max_size=200), max_size=20), st.lists(st.integers(1, 300), min_size=1))
    def test_any_pieces(self, payloads, cuts):
        one = parser()
        stream = b"".join(map(off, payloads))
        got, at, turn = [], 0, 0
        while at < len(stream):
            size = cuts[turn % len(cuts)]
            got += one.feed(stream[at : at + size])
            at, turn = at + size, turn + 1
        assert got == [NO_OFFLOAD + payload for payload in payloads]

    def test_length_zero_is_skipped_and_counted(self):
        one = parser()
        assert one.feed(off(b"") + off(ETHERNET)) == [NO_OFFLOAD + ETHERNET]
        assert one.counters["empty"] == 1

    def test_the_longest_length_is_qemus(self):
        one = parser()
        assert one.feed(pack("!I", MAX_LENGTH)) == []
        one.check()
        # No frame of ours is that long: it is skipped, the stream goes on.
        assert one.feed(bytes(MAX_LENGTH) + off(ETHERNET)) == [NO_OFFLOAD + ETHERNET]
        assert one.counters["giant"] == 1

    @pytest.mark.parametrize("length", [MAX_LENGTH + 1, 0xFFFFFFFF])
    def test_a_longer_one_breaks_the_connection_after_the_frames_before_it(self, length):
        one = parser()
        assert one.feed(off(ETHERNET) + pack("!I", length) + bytes(100)) == [NO_OFFLOAD + ETHERNET]
        with pytest.raises(WireError, match="oversized"):
            one.check()

    def test_the_largest_frame_passes(self):
        payload = bytes(MAX_FRAME - 10)
        assert parser().feed(off(payload)) == [NO_OFFLOAD + payload]

    def test_runts_are_counted(self):
        one = parser()
        assert one.feed(off(bytes(13)) + off(bytes(14))) == [NO_OFFLOAD + bytes(14)]
        assert one.counters["runt"] == 1


class TestOn:
    def test_ten_bytes_are_kept(self):
        one = parser(vnet_hdr=True)
        assert one.feed(on(GSO_HDR, ETHERNET)) == [GSO_HDR + ETHERNET]
        assert one.vnet_hdr_len == 10

    @pytest.mark.parametrize("length", [12, 20])
    def test_longer_headers_are_cut_to_ten(self, length):
        one = parser(vnet_hdr=True)
        assert one.feed(on(GSO_HDR + bytes(length - 10), ETHERNET)) == [GSO_HDR + ETHERNET]
        assert one.vnet_hdr_len == length

    def test_no_header_means_zeros(self):
        one = parser(vnet_hdr=True)
        assert one.feed(on(b"", ETHERNET)) == [NO_OFFLOAD + ETHERNET]
        assert one.vnet_hdr_len == 0

    def test_a_header_of_another_length_passes_but_is_not_imitated(self):
        one = parser(vnet_hdr=True)
        assert one.feed(on(GSO_HDR + bytes(20), ETHERNET)) == [GSO_HDR + ETHERNET]
        assert one.vnet_hdr_len is None

    @pytest.mark.parametrize("claimed", [1, 9, 65, 75, 0xFFFFFFFF])
    def test_a_header_length_that_cannot_be_is_counted(self, claimed):
        one = parser(vnet_hdr=True)
        bad = pack("!II", len(ETHERNET), claimed) + ETHERNET
        assert one.feed(bad + on(GSO_HDR, ETHERNET)) == [GSO_HDR + ETHERNET]
        assert one.counters["vnet_hdr_len"] == 1

    @given(st.lists(st.binary(max_size=300)))
    def test_garbage_raises_nothing_but_wire_errors(self, pieces):
        for vnet_hdr in (False, True):
            one = parser(vnet_hdr=vnet_hdr)
            for piece in pieces:
                for frame in one.feed(piece):
                    assert 24 <= len(frame) <= MAX_FRAME
                try:
                    one.check()
                except WireError:
                    break


class TestEncode:
    @pytest.mark.parametrize("length", [10, 12, 20])
    def test_there_and_back_with_a_header(self, length):
        frame = GSO_HDR + ETHERNET
        (message,) = encode([frame], vnet_hdr=True, vnet_hdr_len=length)
        assert message[:8] == pack("!II", len(ETHERNET) + length, length)
        assert parser(vnet_hdr=True).feed(message) == [frame]

    def test_without_a_header_the_frame_is_plain(self):
        assert encode([NO_OFFLOAD + ETHERNET], vnet_hdr=False) == [off(ETHERNET)]
        assert encode([NO_OFFLOAD + ETHERNET], vnet_hdr=True, vnet_hdr_len=0) == [pack("!II", 64, 0) + ETHERNET]

    def test_bytearrays_and_views_are_frames_too(self):
        for frame in (bytearray(GSO_HDR + ETHERNET), memoryview(GSO_HDR + ETHERNET)):
            assert encode([frame], vnet_hdr=True) == [on(GSO_HDR, ETHERNET)]


class TestWords:
    def test_there_and_back(self):
        one = WordParser()
        assert one.feed(word(b"DO_CHECKPOINT") + word(b"COLO")[:5]) == [b"DO_CHECKPOINT"]
        assert one.feed(word(b"COLO")[5:]) == [b"COLO"]

    def test_with_the_extra_field(self):
        assert WordParser(vnet_hdr=True).feed(pack("!II", 4, 0) + b"COLO") == [b"COLO"]

    def test_empty_words_are_left_out(self):
        assert WordParser().feed(word(b"") + word(b"A")) == [b"A"]

    def test_a_long_one_is_refused(self):
        one = WordParser(limit=10)
        assert one.feed(word(b"A") + pack("!I", 11)) == [b"A"]
        with pytest.raises(WireError, match="oversized"):
            one.check()
