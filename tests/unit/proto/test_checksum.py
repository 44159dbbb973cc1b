"""Internet checksums: the RFCs' own numbers, word by word as a reference, and the corner of minus zero."""

from struct import unpack_from

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from colo_proto.checksum import internet_checksum, ones_sum, pseudo_sum, update


def words(data: bytes, start: int = 0) -> int:
    """RFC 1071 §1, word by word."""
    data += b"\0" * (len(data) & 1)
    total = start + sum(unpack_from("!H", data, at)[0] for at in range(0, len(data), 2))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total


def test_the_example_of_rfc_1071():
    data = bytes.fromhex("0001f203f4f5f6f7")
    assert ones_sum(data) == 0xDDF2
    assert internet_checksum(data) == 0x220D
    assert internet_checksum(data + b"\x22\x0d") == 0


def test_a_known_ipv4_header():
    header = bytearray.fromhex("45000073000040004011 0000 c0a80001c0a800c7".replace(" ", ""))
    assert internet_checksum(header) == 0xB861
    header[10:12] = b"\xb8\x61"
    assert internet_checksum(header) == 0


def test_the_example_of_rfc_1624():
    # §4: the old equation gives 0xFFFF here, which is wrong; equation 3 gives 0.
    assert update(0xDD2F, 0x3285 - 0x5555) == 0x0000


@pytest.mark.parametrize(
    ("data", "total"),
    [
        (b"", 0), (b"\0\0", 0), (b"\xff\xff", 0xFFFF), (b"\xff\xff\0\0", 0xFFFF), (b"\xff\xfe\0\x01", 0xFFFF),
        (b"\x01", 0x0100), (b"\0\0\x01", 0x0100), (b"\xff\xff\xff\xff", 0xFFFF),
    ],
)  # fmt: skip
def test_zeros_and_odd_tails(data, total):
    assert ones_sum(data) == total == words(data)


@given(st.binary(max_size=300), st.integers(0, 0xFFFF))
def test_the_sum_is_that_of_the_words(data, start):
    assert ones_sum(data, start) == words(data, start)
    assert internet_checksum(data, start) == ~words(data, start) & 0xFFFF
    assert ones_sum(bytearray(data), start) == ones_sum(memoryview(data), start) == words(data, start)


@given(st.binary(max_size=100), st.binary(max_size=100))
def test_sums_of_parts(a, b):
    a += b"\0" * (len(a) & 1)
    assert ones_sum(b, ones_sum(a)) == ones_sum(a + b)


@given(st.binary(max_size=100).map(lambda d: d + b"\0" * (len(d) & 1)), st.binary(max_size=100))
def test_a_part_at_an_odd_offset_enters_swapped(a, b):
    b += b"\0" * (len(b) & 1)
    odd = b"\0" + b + b"\0"
    assert ones_sum(odd, ones_sum(a)) % 0xFFFF == ones_sum(a, ones_sum(b) << 8) % 0xFFFF


@pytest.mark.parametrize(("width", "proto"), [(4, 6), (4, 17), (16, 6), (16, 58)])
def test_pseudo_headers(width, proto):
    src, dst = bytes(range(1, width + 1)), bytes(range(101, width + 101))
    if width == 4:
        header = src + dst + bytes((0, proto)) + (1234).to_bytes(2, "big")
    else:
        header = src + dst + (1234).to_bytes(4, "big") + bytes((0, 0, 0, proto))
    assert pseudo_sum(src, dst, proto, 1234) == words(header)


class TestIncremental:
    @given(st.binary(min_size=2, max_size=60), st.data())
    def test_sixteen_bits(self, data, draw):
        data = bytearray(data + b"\0" * (len(data) & 1))
        at = 2 * draw.draw(st.integers(0, len(data) // 2 - 1))
        new = draw.draw(st.integers(0, 0xFFFF))
        before = internet_checksum(data)
        old = int.from_bytes(data[at : at + 2], "big")
        data[at : at + 2] = new.to_bytes(2, "big")
        # Only nothing but zeros has the sum +0; no packet is (the pseudo-header is not zero).
        assume(any(data) and before != 0xFFFF)
        assert update(before, new - old) == internet_checksum(data)

    @given(st.binary(min_size=4, max_size=60), st.data())
    def test_thirty_two_bits(self, data, draw):
        data = bytearray(data + b"\0" * (len(data) & 1))
        at = 2 * draw.draw(st.integers(0, len(data) // 2 - 2))
        new = draw.draw(st.integers(0, 0xFFFFFFFF))
        before = internet_checksum(data)
        old = int.from_bytes(data[at : at + 4], "big")
        data[at : at + 4] = new.to_bytes(4, "big")
        assume(any(data) and before != 0xFFFF)
        assert update(before, new - old) == internet_checksum(data)

    @given(st.integers(0, 0xFFFF), st.integers(0, 0xFFFFFFFF), st.integers(0, 0xFFFFFFFF))
    def test_thirty_two_bits_are_two_times_sixteen(self, csum, old, new):
        twice = update(update(csum, (new >> 16) - (old >> 16)), (new & 0xFFFF) - (old & 0xFFFF))
        assert twice % 0xFFFF == update(csum, new - old) % 0xFFFF

    @given(st.integers(0, 0xFFFF), st.integers(0, 0xFFFF), st.integers(0, 0xFFFF))
    def test_there_and_back(self, csum, old, new):
        back = update(update(csum, new - old), old - new)
        assert back % 0xFFFF == csum % 0xFFFF

    @given(st.binary(min_size=4, max_size=40), st.integers(1, 0xFFFE), st.integers(0, 0xFFFF))
    def test_a_wrong_checksum_stays_wrong_by_as_much(self, data, error, new):
        data = bytearray(data + b"\0" * (len(data) & 1))
        wrong = (internet_checksum(data) + error) % 0xFFFF
        old = int.from_bytes(data[:2], "big")
        data[:2] = new.to_bytes(2, "big")
        assert (update(wrong, new - old) - internet_checksum(data) - error) % 0xFFFF == 0

    @pytest.mark.parametrize(
        ("message", "new"),
        [
            ("1234edcb", 0x0001), ("1234edcb", 0x1235), ("ffff0000", 0x0001), ("0000ffff", 0xFFFF),
            ("ffffffff", 0x0000), ("00010000", 0xFFFF), ("00010001", 0xFFFE), ("fffeffff", 0x0001),
        ],
    )  # fmt: skip
    def test_minus_zero(self, message, new):
        # 0 and 0xFFFF mean the same to a receiver, but an update must give the form that a recomputation gives.
        message = bytes.fromhex(message)
        changed = new.to_bytes(2, "big") + message[2:]
        old = int.from_bytes(message[:2], "big")
        csum = internet_checksum(message)
        assert update(csum, new - old) == internet_checksum(changed)
        whole, rest = int.from_bytes(message, "big"), int.from_bytes(changed, "big")
        assert update(csum, rest - whole) == internet_checksum(changed)
