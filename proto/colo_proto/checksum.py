"""The Internet checksum (RFC 1071) and its incremental update (RFC 1624).

All sums are unsigned 16-bit one's complement values in host integers. Incremental update keeps a
wrong checksum wrong, as a middlebox must: it may not confirm bytes that it did not check.
"""

from colo_proto.frame import Buffer


def ones_sum(data: Buffer, start: int = 0) -> int:
    """One's complement sum of `data` as big-endian 16-bit words (an odd tail is padded with zero).

    A big integer is congruent to the sum of its 16-bit digits modulo 65535. So one `int.from_bytes` and one modulo,
    which run in C, replace a loop over words.
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
    """Sum of the pseudo-header of IPv4 (RFC 9293 §3.1) or IPv6 (RFC 8200 §8.1), by the length of the addresses."""
    return ones_sum(bytes(src) + bytes(dst) + length.to_bytes(4, "big") + proto.to_bytes(4, "big"))


def update(csum: int, change: int) -> int:
    """Checksum after its 16-bit words changed by `change` in sum (RFC 1624 equation 3).

    A 32-bit field is congruent to the sum of its two words modulo 65535, so its `new - old` is right as well.
    A field at an odd offset enters shifted left by 8 bits.
    """
    return (((csum ^ 0xFFFF) + change) % 0xFFFF or 0xFFFF) ^ 0xFFFF
