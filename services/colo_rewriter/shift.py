"""Shifts the numbers in a TCP header.

::

    towards the guest     ack += offset      SACK edges += offset      TSecr += ts_offset
    towards the client    seq -= offset                                TSval -= ts_offset

The checksum is updated by the changes alone, as in `colo_proto.net.tcp.update_checksum`.
"""

from collections.abc import Callable
from struct import Struct
from typing import Final

from colo_proto.checksum import update
from colo_proto.frame import F_NEEDS_CSUM
from colo_proto.net import tcp
from colo_proto.net.tcp import ACK, OPTIONS_AT
from colo_proto.seq import HALF, MASK
from colo_rewriter.flow import Flow

# Every frame passes here, and a call of a function of `colo_proto.net.tcp` would cost as much as what it does.
_read16: Final[Callable[[bytes, int], tuple[int]]] = Struct("!H").unpack_from
_write16: Final = Struct("!H").pack_into
_read32: Final[Callable[[bytes, int], tuple[int]]] = Struct("!I").unpack_from
_write32: Final = Struct("!I").pack_into
_read_pair: Final[Callable[[bytes, int], tuple[int, int]]] = Struct("!II").unpack_from
_write_pair: Final = Struct("!II").pack_into

# A header from its sequence number on, with the options NOP NOP timestamps(10): the layout of every modern stack
# for a segment without other options (RFC 7323 appendix A):
# seq, ack, offset/flags/window, checksum, urgent pointer, option head, TSval, TSecr
_STAMPED: Final = Struct("!IIIHHIII")
_read_stamped: Final[Callable[[bytes, int], tuple[int, int, int, int, int, int, int, int]]] = _STAMPED.unpack_from
_write_stamped: Final = _STAMPED.pack_into
_STAMPS: Final = 0x0101080A
_SACK: Final = b"\1\1\5"
"""What follows the timestamps if there are SACK blocks: NOP NOP SACK, as modern stacks send it."""


def toward_guest(frame: bytes, l4: int, data: int, flags: int, flow: Flow) -> bytes | bytearray:
    """A client's segment, its payload beginning at `data`, in the numbers of the secondary guest.

    Without the ACK flag, neither the acknowledgement number nor TSecr has a meaning, and both stay.
    """
    if not flags & ACK:
        return frame
    blocks = 0
    if (
        data > l4 + 32
        and (data - l4) & 7 == 4
        and frame[l4 + 32 : l4 + 35] == _SACK
        and frame[l4 + 35] == data - l4 - 34
    ):
        blocks = (data - l4 - 36) >> 3
    if data == l4 + 32 or blocks:
        seq, ack, window, csum, urgent, head, tsval, tsecr = _read_stamped(frame, l4 + 4)
        # A TSecr of zero echoes nothing (RFC 7323 §3.2), and stays zero.
        if head == _STAMPS and tsecr:
            note_echo(flow, tsecr)
            new = (ack + flow.offset) & MASK
            stamp = (tsecr + flow.ts_offset) & MASK
            buf = bytearray(frame)
            delta = new - ack + stamp - tsecr
            if blocks:
                delta += _shift_edges(frame, buf, l4 + 36, blocks, flow.offset)
            if not frame[0] & F_NEEDS_CSUM:
                csum = update(csum, delta)
            _write_stamped(buf, l4 + 4, seq, new, window, csum, urgent, head, tsval, stamp)
            return buf
    buf = bytearray(frame)
    ack = _read32(frame, l4 + 8)[0]
    new = (ack + flow.offset) & MASK
    _write32(buf, l4 + 8, new)
    delta = new - ack
    if data > l4 + OPTIONS_AT:
        delta += _options_toward_guest(frame, buf, l4, data, flow)
    if not frame[0] & F_NEEDS_CSUM:
        _write16(buf, l4 + 16, update(_read16(frame, l4 + 16)[0], delta))
    return buf


def _options_toward_guest(frame: bytes, buf: bytearray, l4: int, data: int, flow: Flow) -> int:
    delta = 0
    for kind, start, length in tcp.options(frame, l4, data):
        if kind == tcp.OPT_SACK and (length - 2) % 8 == 0:
            change = _shift_edges(frame, buf, start + 2, length >> 3, flow.offset)
            delta += change << 8 if (start - l4) & 1 else change
        elif kind == tcp.OPT_TIMESTAMPS and length == 10:
            echoed = _read32(frame, start + 6)[0]
            if echoed:
                note_echo(flow, echoed)
                delta += _add(frame, buf, l4, start + 6, flow.ts_offset)
    return delta


def _shift_edges(frame: bytes, buf: bytearray, at: int, blocks: int, offset: int) -> int:
    """Add to both edges of SACK blocks; returns by how much their sum changed."""
    change = 0
    for block in range(at, at + 8 * blocks, 8):
        left, right = _read_pair(frame, block)
        new_left = (left + offset) & MASK
        new_right = (right + offset) & MASK
        _write_pair(buf, block, new_left, new_right)
        change += new_left - left + new_right - right
    return change


def _add(frame: bytes, buf: bytearray, l4: int, at: int, amount: int) -> int:
    """Add to the field at `at`; returns the change to the one's complement sum."""
    old = _read32(frame, at)[0]
    new = (old + amount) & MASK
    _write32(buf, at, new)
    return (new - old) << 8 if (at - l4) & 1 else new - old


def toward_client(frame: bytes, l4: int, data: int, flow: Flow, floor: bool) -> bytearray:
    """The secondary guest's segment in the numbers of the primary.

    With `floor` (after a failover) TSval does not fall behind the highest timestamp that the
    client has echoed. The clocks of the two hosts drift apart during a connection, and the client's
    PAWS check (RFC 7323 §5) would drop every segment of a survivor whose clock runs behind.
    """
    buf = bytearray(frame)
    if data == l4 + 32:
        seq, ack, window, csum, urgent, head, tsval, tsecr = _read_stamped(frame, l4 + 4)
        if head == _STAMPS:
            if floor:
                _raise_floor(flow, tsval)
            new = (seq - flow.offset) & MASK
            stamp = (tsval - flow.ts_offset) & MASK
            if not frame[0] & F_NEEDS_CSUM:
                csum = update(csum, new - seq + stamp - tsval)
            _write_stamped(buf, l4 + 4, new, ack, window, csum, urgent, head, stamp, tsecr)
            return buf
    seq = _read32(frame, l4 + 4)[0]
    new = (seq - flow.offset) & MASK
    _write32(buf, l4 + 4, new)
    delta = new - seq
    if data > l4 + OPTIONS_AT:
        for kind, start, length in tcp.options(frame, l4, data):
            if kind == tcp.OPT_TIMESTAMPS and length == 10:
                if floor:
                    _raise_floor(flow, _read32(frame, start + 2)[0])
                delta += _add(frame, buf, l4, start + 2, -flow.ts_offset)
    if not frame[0] & F_NEEDS_CSUM:
        _write16(buf, l4 + 16, update(_read16(frame, l4 + 16)[0], delta))
    return buf


def _raise_floor(flow: Flow, tsval: int) -> None:
    echo = flow.echo
    if echo is not None and (tsval - flow.ts_offset - echo) & MASK >= HALF:
        flow.ts_offset = (tsval - echo) & MASK


def note_echo(flow: Flow, tsecr: int) -> None:
    """Note that the client has echoed `tsecr`. The highest one counts."""
    if flow.echo is None or (tsecr - flow.echo) & MASK < HALF:
        flow.echo = tsecr


def timestamps(frame: bytes, l4: int, data: int) -> tuple[int, int] | None:
    """TSval and TSecr of a segment, or None when it carries no well-formed timestamps option."""
    at = tcp.timestamps_at(frame, l4, data)
    return None if at is None else _read_pair(frame, at)


def window_scale(frame: bytes, l4: int, data: int) -> int:
    """The window scale that a SYN offers, or -1."""
    scale = tcp.syn_options(frame, l4, data).wscale
    return -1 if scale is None else scale


def has_cookie(frame: bytes, l4: int, data: int) -> bool:
    """Does a SYN/ACK carry a new Fast Open cookie? A server that refuses the data sends one (RFC 7413 §4.2.2)."""
    return any(kind == tcp.OPT_FAST_OPEN for kind, _, _ in tcp.options(frame, l4, data))
