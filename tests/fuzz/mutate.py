"""Mutations of bytes, of lengths inside frames, and of msgpack structures."""

from random import Random
from struct import pack_into
from typing import Any

import msgpack

from colo_proto.frame import MIN_FRAME

_WORDS = (0, 1, 2, 4, 7, 8, 20, 40, 0x7F, 0x80, 0xFF, 0x100, 0x1FFF, 0x2000, 0x7FFF, 0x8000, 0xFFF8, 0xFFFF)
_KINDS = (0x0800, 0x86DD, 0x8100, 0x88A8, 0x0806)


def frame(random: Random, one: bytes, other: bytes) -> bytes:
    """`one` with damage, mostly in the headers. It keeps at least the minimum length of a frame."""
    data = bytearray(one)
    for _ in range(1 + int(random.random() * 3)):
        how = random.random()
        size = len(data)
        near = min(size, 90) if random.random() < 0.8 else size
        at = int(random.random() * near)
        if how < 0.35:
            data[at] = random.getrandbits(8)
        elif how < 0.5:
            data[at] ^= 1 << random.getrandbits(3)
        elif how < 0.65:
            pack_into("!H", data, min(at, size - 2), _WORDS[int(random.random() * len(_WORDS))])
        elif how < 0.7:
            pack_into("!H", data, 22 + 4 * int(random.random() * 2) if size > 28 else 0, random.choice(_KINDS))
        elif how < 0.8:
            del data[max(at, MIN_FRAME) :]
        elif how < 0.85:
            del data[at : at + 1 + int(random.random() * 8)]
        elif how < 0.9:
            data[at:at] = bytes(1 + int(random.random() * 40))
        elif how < 0.95:
            data[at:] = other[at:]
        else:
            data[:10] = random.randbytes(10)
        if len(data) < MIN_FRAME:
            data += bytes(MIN_FRAME - len(data))
    return bytes(data)


def blob(random: Random, data: bytes) -> bytes:
    """Bytes of any length with damage anywhere."""
    out = bytearray(data)
    for _ in range(1 + int(random.random() * 4)):
        how = random.random()
        at = int(random.random() * (len(out) + 1))
        if how < 0.5 and at < len(out):
            out[at] = random.getrandbits(8)
        elif how < 0.65:
            del out[at:]
        elif how < 0.8:
            out[at:at] = random.randbytes(1 + random.getrandbits(3))
        elif how < 0.9:
            del out[at : at + 1 + random.getrandbits(4)]
        else:
            out[at:at] = out[: random.getrandbits(5)]
    return bytes(out)


_VALUES: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2, 5, 1023, 2**31, 2**63 - 1, 2**63, -(2**63), 2**64 - 1, 0.0, 1.5, float("nan"),
    float("inf"), "", "comp0", "x" * 70, "\u00e9", b"", b"\0" * 24, b"\xff" * 30, [], {}, [[]], {"": 0}, [0, "1"],
    {"a": {"b": [None]}},
)  # fmt: skip


def structure(random: Random, value: Any, depth: int = 0) -> Any:
    """A value for msgpack with one of its parts changed, removed, duplicated or moved."""
    if depth < 5 and random.random() < 0.8:
        if isinstance(value, list | tuple) and value:
            items = list(value)
            at = int(random.random() * len(items))
            how = random.random()
            if how < 0.7:
                items[at] = structure(random, items[at], depth + 1)
            elif how < 0.8:
                del items[at]
            elif how < 0.9:
                items.insert(at, items[at])
            else:
                items.insert(at, random.choice(_VALUES))
            return items
        if isinstance(value, dict) and value:
            items_by_name = dict(value)
            name = random.choice(list(items_by_name))
            how = random.random()
            if how < 0.7:
                items_by_name[name] = structure(random, items_by_name[name], depth + 1)
            elif how < 0.85:
                del items_by_name[name]
            else:
                items_by_name["more"] = random.choice(_VALUES)
            return items_by_name
    if isinstance(value, int) and not isinstance(value, bool) and random.random() < 0.5:
        return value + random.choice((-1, 1, 2**16, 2**32))
    return random.choice(_VALUES)


def packed(value: Any) -> bytes:
    """A structure as msgpack; invalid bytes if it cannot be packed."""
    try:
        found: bytes = msgpack.packb(value, use_bin_type=True)
    except (OverflowError, ValueError):
        return b"\xc1"
    return found
