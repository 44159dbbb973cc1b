"""TCP sequence arithmetic (RFC 9293 §3.4): 32-bit numbers that wrap.

Two ways to live with the wrap are offered. The modular helpers (`add`, `diff`, `lt`, `leq`) work on
wire numbers. `unwrap` turns a wire number into an unbounded Python integer near a reference, after
which ordinary comparison is right for the life of a stream: stateful cores keep unwrapped numbers
inside and wrap only when they write a header.
"""

from typing import Final

MOD: Final = 1 << 32
MASK: Final = MOD - 1
HALF: Final = 1 << 31


def add(a: int, b: int) -> int:
    """`a + b` modulo 2^32; `b` may be negative."""
    return (a + b) & MASK


def diff(a: int, b: int) -> int:
    """`a - b` as a signed 32-bit distance: positive when `a` is after `b`."""
    return ((a - b + HALF) & MASK) - HALF


def lt(a: int, b: int) -> bool:
    """True when `a` comes before `b` in sequence space."""
    return diff(a, b) < 0


def leq(a: int, b: int) -> bool:
    """True when `a` is at or before `b` in sequence space."""
    return diff(a, b) <= 0


def unwrap(wire: int, near: int) -> int:
    """The integer congruent to `wire` modulo 2^32 that lies closest to `near`."""
    return near + ((wire - near + HALF) & MASK) - HALF
