"""TCP sequence arithmetic (RFC 9293 §3.4): 32-bit numbers that wrap."""

from typing import Final

MOD: Final = 1 << 32
MASK: Final = MOD - 1
HALF: Final = 1 << 31


def diff(a: int, b: int) -> int:
    """`a - b` as a signed 32-bit distance: positive when `a` is after `b`."""
    return ((a - b + HALF) & MASK) - HALF
