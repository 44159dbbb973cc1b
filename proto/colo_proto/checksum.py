"""The Internet checksum (RFC 1071) and its incremental update (RFC 1624).

All sums are unsigned 16-bit one's complement values in host integers. Incremental update keeps a
wrong checksum wrong, which is what a middlebox must do: it may not vouch for bytes it did not check.
"""

from colo_proto.frame import Buffer


def ones_sum(data: Buffer, start: int = 0) -> int:
    """One's complement sum of `data` as big-endian 16-bit words (an odd tail is padded with zero).

    A big integer is congruent to the sum of its 16-bit digits modulo 65535, so one `int.from_bytes`
    and one modulo do in C what a loop over words would do here.
    """
    raw = bytes(data)
    if len(raw) & 1:
        raw += b"\0"
    total = int.from_bytes(raw, "big")
    if total == 0:
        return start
    folded = (total + start) % 0xFFFF
    return folded or 0xFFFF


def internet_checksum(data: Buffer, start: int = 0) -> int:
    """RFC 1071 checksum of `data`, with `start` (a `ones_sum`, such as a pseudo-header) added in."""
    return ~ones_sum(data, start) & 0xFFFF


def pseudo_sum(src: Buffer, dst: Buffer, proto: int, length: int) -> int:
    """Sum of the pseudo-header of IPv4 (RFC 9293 §3.1) or IPv6 (RFC 8200 §8.1): the addresses decide."""
    return ones_sum(bytes(src) + bytes(dst) + length.to_bytes(4, "big") + proto.to_bytes(4, "big"))


def update16(csum: int, old: int, new: int) -> int:
    """Checksum after one aligned 16-bit word changed from `old` to `new` (RFC 1624 equation 3)."""
    total = (~csum & 0xFFFF) + (~old & 0xFFFF) + new
    total = (total & 0xFFFF) + (total >> 16)
    total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def update32(csum: int, old: int, new: int) -> int:
    """Checksum after one aligned 32-bit field changed from `old` to `new` (RFC 1624 equation 3)."""
    total = (~csum & 0xFFFF) + (~(old >> 16) & 0xFFFF) + (~old & 0xFFFF) + (new >> 16) + (new & 0xFFFF)
    total = (total & 0xFFFF) + (total >> 16)
    total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def swap16(value: int) -> int:
    """A 16-bit word with its bytes swapped: how a word at an odd offset enters the sum."""
    return (value >> 8) | ((value & 0xFF) << 8)
