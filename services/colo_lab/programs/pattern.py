"""Bytes that depend only on their offset: the server sends them and the clients check them.

The period is a prime, so that a block that is lost or repeated at any power of two is noticed at once.
"""

import hashlib
from typing import Final

PERIOD: Final = 1_048_573

_once = b"".join(hashlib.sha256(n.to_bytes(4, "big")).digest() for n in range(PERIOD // 32 + 1))[:PERIOD]
# Two periods, so that any slice of up to one period is contiguous.
_TWICE: Final = _once + _once


def piece(offset: int, size: int) -> memoryview:
    """The `size` bytes (at most one period) at `offset`."""
    start = offset % PERIOD
    return memoryview(_TWICE)[start : start + size]


def first_difference(offset: int, data: bytes) -> int | None:
    """The offset at which `data`, received at `offset`, first differs from the pattern; None when it does not."""
    for at in range(0, len(data), PERIOD):
        part = data[at : at + PERIOD]
        start = (offset + at) % PERIOD
        want = _TWICE[start : start + len(part)]
        if part != want:
            return offset + at + next(i for i, (a, b) in enumerate(zip(part, want, strict=True)) if a != b)
    return None
