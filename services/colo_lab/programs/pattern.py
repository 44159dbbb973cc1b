"""Bytes that depend on nothing but their place: what the server sends and the clients check.

The period is a prime, so that a block lost or repeated at any power of two shows at once.
"""

import hashlib
from typing import Final

PERIOD: Final = 1_048_573

_once = b"".join(hashlib.sha256(n.to_bytes(4, "big")).digest() for n in range(PERIOD // 32 + 1))[:PERIOD]
# Twice over, so that any slice of up to one period is contiguous.
_TWICE: Final = _once + _once


def piece(offset: int, size: int) -> memoryview:
    """`size` bytes (at most one period) that stand at `offset`."""
    start = offset % PERIOD
    return memoryview(_TWICE)[start : start + size]


def first_difference(offset: int, data: bytes) -> int | None:
    """The place where `data`, received at `offset`, first differs from the pattern; None when it does not differ."""
    for at in range(0, len(data), PERIOD):
        part = data[at : at + PERIOD]
        start = (offset + at) % PERIOD
        want = _TWICE[start : start + len(part)]
        if part != want:
            return offset + at + next(i for i, (a, b) in enumerate(zip(part, want, strict=True)) if a != b)
    return None
