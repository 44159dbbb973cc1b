"""The TCP header (RFC 9293 §3.1) and its options (RFC 7323, RFC 2018), read in place."""

from collections.abc import Callable
from struct import Struct
from typing import Final, NamedTuple

from colo_proto.checksum import update
from colo_proto.frame import F_NEEDS_CSUM, Buffer

FIN, SYN, RST, PSH, ACK, URG, ECE, CWR = 1, 2, 4, 8, 16, 32, 64, 128

OPT_END, OPT_NOP, OPT_MSS, OPT_WSCALE, OPT_SACK_PERMITTED, OPT_SACK, OPT_TIMESTAMPS = 0, 1, 2, 3, 4, 5, 8
OPT_FAST_OPEN = 34

SEQ_AT, ACK_AT, OFFSET_AT, FLAGS_AT, WINDOW_AT, CSUM_AT, URGENT_AT, OPTIONS_AT = 4, 8, 12, 13, 14, 16, 18, 20

_FIELDS: Final = Struct("!IIBBH")
_read16: Final[Callable[[Buffer, int], tuple[int]]] = Struct("!H").unpack_from
_write16: Final = Struct("!H").pack_into
_read32: Final[Callable[[Buffer, int], tuple[int]]] = Struct("!I").unpack_from
_write32: Final = Struct("!I").pack_into


class Segment(NamedTuple):
    """The fixed fields of one segment; `data` is the absolute offset of the payload in the frame."""

    seq: int
    ack: int
    flags: int
    window: int
    data: int
    end: int

    @property
    def length(self) -> int:
        """Length in sequence space: payload bytes plus one each for SYN and FIN."""
        return self.end - self.data + (self.flags & 1) + (self.flags >> 1 & 1)


class SynOptions(NamedTuple):
    """What a SYN negotiates; None or False when the option is absent."""

    mss: int | None = None
    wscale: int | None = None
    sack_permitted: bool = False
    timestamps: bool = False


def segment(frame: Buffer, l4: int, end: int) -> Segment | None:
    """Read the header at `l4` of a packet that ends at `end`; None when it is malformed."""
    if end - l4 < 20:
        return None
    seq, ack, offset, flags, window = _FIELDS.unpack_from(frame, l4 + SEQ_AT)
    data = l4 + (offset >> 4) * 4
    if offset < 0x50 or data > end:
        return None
    return Segment(seq, ack, flags, window, data, end)


def options(frame: Buffer, l4: int, data: int) -> list[tuple[int, int, int]]:
    """Options between the fixed header and the payload as `(kind, offset, length)`, NOP and END left out.

    The list ends at a malformed option; the options before it still count, as they do for receivers.
    """
    found: list[tuple[int, int, int]] = []
    at = l4 + OPTIONS_AT
    while at < data:
        kind = frame[at]
        if kind == OPT_END:
            break
        if kind == OPT_NOP:
            at += 1
            continue
        if at + 1 >= data:
            break
        length = frame[at + 1]
        if length < 2 or at + length > data:
            break
        found.append((kind, at, length))
        at += length
    return found


def timestamps_at(frame: Buffer, l4: int, data: int) -> int | None:
    """Offset of TSval of a well-formed timestamps option (TSecr follows at +4), or None."""
    # First look for the layout that every modern stack uses (RFC 7323 appendix A): NOP NOP TS(10).
    at = l4 + OPTIONS_AT
    if data >= at + 12 and frame[at : at + 4] == b"\x01\x01\x08\x0a":
        return at + 4
    for kind, at, length in options(frame, l4, data):
        if kind == OPT_TIMESTAMPS and length == 10:
            return at + 2
    return None


def syn_options(frame: Buffer, l4: int, data: int) -> SynOptions:
    """MSS, window scale (capped at 14, RFC 7323 §2.3), SACK-permitted and timestamps of a SYN."""
    mss = wscale = None
    sack = stamps = False
    for kind, at, length in options(frame, l4, data):
        if kind == OPT_MSS and length == 4:
            mss = (frame[at + 2] << 8) | frame[at + 3]
        elif kind == OPT_WSCALE and length == 3:
            wscale = min(frame[at + 2], 14)
        elif kind == OPT_SACK_PERMITTED and length == 2:
            sack = True
        elif kind == OPT_TIMESTAMPS and length == 10:
            stamps = True
    return SynOptions(mss, wscale, sack, stamps)


def read32(frame: Buffer, at: int) -> int:
    """The 32-bit big-endian field at `at`."""
    return _read32(frame, at)[0]


def write32(frame: bytearray, at: int, value: int) -> None:
    """Store a 32-bit big-endian field at `at`."""
    _write32(frame, at, value)


def update_checksum(frame: bytearray, l4: int, change: int) -> None:
    """The header at `l4` changed by `change` in sum, so its checksum does (RFC 1624). A wrong one stays wrong.

    With `NEEDS_CSUM` the field holds only the sum of the pseudo-header. No field of the TCP header is a part of that,
    so it is left alone.
    """
    if not frame[0] & F_NEEDS_CSUM:
        _write16(frame, l4 + CSUM_AT, update(_read16(frame, l4 + CSUM_AT)[0], change))
