"""Segmentation and checksums against a plain reference, and against the kernel's rules."""

from struct import pack, pack_into, unpack_from

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from colo_proto.frame import F_NEEDS_CSUM, GSO_ECN, GSO_TCPV4, GSO_TCPV6, GSO_UDP, GSO_UDP_L4, NO_OFFLOAD
from colo_proto.net.offload import to_plain
from craft import VnetHdr

MACS = b"\x02\0\0\0\0\x01\x02\0\0\0\0\x02"
V4 = (b"\x0a\0\0\x01", b"\x0a\0\0\x02")
V6 = (bytes(15) + b"\x01", bytes(15) + b"\x02")
FIN, SYN, PSH, ACK, CWR = 1, 2, 8, 16, 128


def words(data: bytes) -> int:
    """RFC 1071, word by word."""
    total = sum(unpack_from("!H", data + b"\0", at)[0] for at in range(0, len(data), 2))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total


def pseudo(src: bytes, dst: bytes, proto: int, length: int) -> bytes:
    return src + dst + pack("!II", length, proto)


def packet(version: int, proto: int, l4: bytes, tags: bytes = b"", ident: int = 0x1234) -> bytes:
    src, dst = V4 if version == 4 else V6
    if version == 4:
        ip = bytearray(pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(l4), ident, 0x4000, 64, proto, 0, src, dst))
        pack_into("!H", ip, 10, ~words(bytes(ip)) & 0xFFFF)
        return MACS + tags + b"\x08\0" + bytes(ip) + l4
    return MACS + tags + b"\x86\xdd" + pack("!IHBB", 6 << 28, len(l4), proto, 64) + src + dst + l4


def tcp(version: int, payload: bytes, flags: int = ACK | PSH, seq: int = 1000, partial: bool = True) -> bytes:
    """A TCP header whose checksum field holds the pseudo-header's sum (what an offloading kernel writes)."""
    src, dst = V4 if version == 4 else V6
    head = bytearray(
        pack("!HHIIBBHHH", 80, 5000, seq, 77, 0x80, flags, 500, 0, 0) + bytes.fromhex("0101080a0000000100000002")
    )
    whole = bytes(head) + payload
    start = pseudo(src, dst, 6, len(whole))
    pack_into("!H", head, 16, words(start) if partial else ~words(start + whole) & 0xFFFF)
    return bytes(head) + payload


def check(frame: bytes, tags: int = 0) -> tuple[bytes, bytes]:
    """Verify lengths and checksums of a plain frame; its IP and L4 parts."""
    l3 = 14 + 4 * tags
    if frame[l3] >> 4 == 4:
        assert words(frame[l3 : l3 + 20]) == 0xFFFF
        (total,) = unpack_from("!H", frame, l3 + 2)
        assert l3 + total == len(frame)
        l4, proto, ends = l3 + 20, frame[l3 + 9], frame[l3 + 12 : l3 + 20]
    else:
        (length,) = unpack_from("!H", frame, l3 + 4)
        assert l3 + 40 + length == len(frame)
        l4, proto, ends = l3 + 40, frame[l3 + 6], frame[l3 + 8 : l3 + 40]
    body = frame[l4:]
    assert words(ends + pack("!II", len(body), proto) + body) == 0xFFFF
    return frame[l3:l4], body


def test_a_frame_without_offloads_loses_its_header_only():
    frame = packet(4, 6, tcp(4, b"hello", partial=False))
    assert to_plain(NO_OFFLOAD + frame) == [frame]
    assert to_plain(bytearray(NO_OFFLOAD + frame)) == [frame]
    assert to_plain(memoryview(NO_OFFLOAD + frame)) == [frame]


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("size", [0, 1, 2, 1447, 1448])
def test_a_partial_checksum_is_finished(version, size):
    l4 = tcp(version, bytes(i & 255 for i in range(size)))
    start = 34 if version == 4 else 54
    hdr = VnetHdr(flags=F_NEEDS_CSUM, csum_start=start, csum_offset=16)
    (plain,) = to_plain(hdr.encode() + packet(version, 6, l4))
    check(plain)
    (whole,) = to_plain(NO_OFFLOAD + packet(version, 6, tcp(version, l4[32:], partial=False)))
    assert plain == whole


def test_a_udp_checksum_of_zero_is_sent_as_ffff():
    # Chosen so that the sum comes out as zero, which UDP would read as "no checksum".
    src, dst = V4
    body = pack("!HHHH", 1, 2, 10, 0)
    rest = 0xFFFF - words(pseudo(src, dst, 17, 10) + body)
    datagram = bytearray(body + pack("!H", rest))
    pack_into("!H", datagram, 6, words(pseudo(src, dst, 17, 10)))
    hdr = VnetHdr(flags=F_NEEDS_CSUM, csum_start=34, csum_offset=6)
    (plain,) = to_plain(hdr.encode() + packet(4, 17, bytes(datagram)))
    assert plain[40:42] == b"\xff\xff"


@given(st.sampled_from([4, 6]), st.binary(min_size=1, max_size=9000), st.integers(200, 1460), st.integers(0, 1))
@settings(max_examples=60, deadline=None)
def test_segments_are_the_stream(version, payload, mss, tags):
    tag = b"\x81\0\0\x05" * tags
    flags = ACK | PSH | FIN | CWR
    frame = packet(version, 6, tcp(version, payload, flags, seq=0xFFFFFF00), tag)
    gso = GSO_TCPV4 if version == 4 else GSO_TCPV6
    start = (34 if version == 4 else 54) + 4 * tags
    hdr = VnetHdr(F_NEEDS_CSUM, gso | GSO_ECN, start + 32, mss, start, 16)
    segments = to_plain(hdr.encode() + frame)
    assert len(segments) == -(-len(payload) // mss)
    stream = b""
    for index, segment in enumerate(segments):
        assert segment[: 12 + len(tag)] == MACS + tag
        ip, l4 = check(segment, tags)
        assert unpack_from("!I", l4, 4)[0] == (0xFFFFFF00 + len(stream)) & 0xFFFFFFFF
        assert unpack_from("!I", l4, 8)[0] == 77
        assert l4[20:32] == bytes.fromhex("0101080a0000000100000002")
        last = index == len(segments) - 1
        expected = ACK | ((PSH | FIN) if last else 0) | (CWR if not index else 0)
        assert l4[13] == expected
        assert last == (len(l4) - 32 < mss) or len(l4) - 32 == mss
        if version == 4:
            assert unpack_from("!H", ip, 4)[0] == 0x1234 + index
        stream += l4[32:]
    assert stream == payload


@pytest.mark.parametrize("version", [4, 6])
def test_udp_segments_are_datagrams(version):
    src, dst = V4 if version == 4 else V6
    payload = bytes(range(250)) * 10
    l4 = pack("!HHHH", 53, 5000, 8 + len(payload), words(pseudo(src, dst, 17, 8 + len(payload)))) + payload
    start = 34 if version == 4 else 54
    hdr = VnetHdr(F_NEEDS_CSUM, GSO_UDP_L4, start + 8, 1000, start, 6)
    got = b""
    for segment in to_plain(hdr.encode() + packet(version, 17, l4)):
        _, body = check(segment)
        assert unpack_from("!H", body, 4)[0] == len(body) <= 1008
        got += body[8:]
    assert got == payload


@pytest.mark.parametrize("version", [4, 6])
def test_ufo_becomes_fragments_of_one_datagram(version):
    src, dst = V4 if version == 4 else V6
    payload = bytes(range(256)) * 12
    l4 = pack("!HHHH", 53, 5000, 8 + len(payload), words(pseudo(src, dst, 17, 8 + len(payload)))) + payload
    start = 34 if version == 4 else 54
    hdr = VnetHdr(F_NEEDS_CSUM, GSO_UDP, start + 8, 1480, start, 6)
    whole, idents = b"", set()
    pieces = to_plain(hdr.encode() + packet(version, 17, l4))
    assert len(pieces) == 3
    for piece in pieces:
        if version == 4:
            assert words(piece[14:34]) == 0xFFFF
            total, ident, frag = unpack_from("!HHH", piece, 16)
            assert 14 + total == len(piece)
            offset, more, body = (frag & 0x1FFF) * 8, bool(frag & 0x2000), piece[34:]
        else:
            assert piece[20] == 44
            assert 54 + unpack_from("!H", piece, 18)[0] == len(piece)
            proto, _, field, ident = unpack_from("!BBHI", piece, 54)
            assert proto == 17
            offset, more, body = field & 0xFFF8, bool(field & 1), piece[62:]
        assert offset == len(whole)
        assert more == (piece is not pieces[-1])
        idents.add(ident)
        whole += body
    assert len(idents) == 1
    assert whole[8:] == payload
    assert words(pseudo(src, dst, 17, len(whole)) + whole) == 0xFFFF


@pytest.mark.parametrize(
    "hdr",
    [
        VnetHdr(flags=F_NEEDS_CSUM, csum_start=60000, csum_offset=16),
        VnetHdr(flags=F_NEEDS_CSUM, csum_start=34, csum_offset=60000),
        VnetHdr(gso_type=GSO_TCPV4, gso_size=0),
        VnetHdr(gso_type=GSO_TCPV6, gso_size=100),
        VnetHdr(gso_type=GSO_UDP_L4, gso_size=100),
        VnetHdr(gso_type=99, gso_size=100),
    ],
)
def test_a_header_that_contradicts_the_frame_gives_nothing(hdr):
    assert to_plain(hdr.encode() + packet(4, 6, tcp(4, b"hello"))) == []


@given(st.binary(max_size=200), st.binary(min_size=10, max_size=10))
def test_garbage_never_raises(body, header):
    for plain in to_plain(header + bytes(14) + body):
        assert isinstance(plain, bytes)
    for plain in to_plain(header + packet(4, 6, body)):
        assert isinstance(plain, bytes)
    for plain in to_plain(header + packet(6, 17, body)):
        assert isinstance(plain, bytes)
