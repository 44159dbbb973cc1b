"""Consecutive TCP segments of one connection as one frame, as a network card's receive offload would hand them over.

A guest with many connections sends short frames, and each costs the next kernel as much as a long one. Segments that
stand in one batch leave as one frame with segmentation offload. Whoever puts it on a wire cuts it at the same places
again. Only what the kernel's own GRO would join is joined: segments with the same addresses, ports, ACK, window and
options, with consecutive bytes, of one size except for the last, and with checksums that are left to the device.

::

    [ a1 ][ b1 ][ a2 ][ a3 ][ b2 ]   -->   [ a1 a2 a3 ][ b1 b2 ]
"""

from collections.abc import Sequence
from struct import Struct
from typing import Final

from colo_proto.checksum import update
from colo_proto.frame import ETH, F_NEEDS_CSUM, GSO_NONE, GSO_TCPV4, GSO_TCPV6, VNET_HDR, Buffer
from colo_proto.net.packet import PROTO_TCP, glance
from colo_proto.net.tcp import ACK, CSUM_AT, FLAGS_AT, PSH

MAX_JOINED: Final = 65000
"""Bytes of a joined frame: an IP packet has at most 65,535."""
LONG_ENOUGH: Final = 32768
"""A frame of this size is not joined with those that follow it."""

_U16: Final = Struct("!H")
_U32: Final = Struct("!I")
_L3: Final = ETH + 14
_V4: Final = _L3 + 20
_V6: Final = _L3 + 40


class _Run:
    """Segments with consecutive bytes. `at` is the index of the first one in the result; `free` bytes more fit in."""

    __slots__ = ("at", "data", "follows", "free", "head", "l4", "parts", "push", "size")

    def __init__(self, at: int, head: bytes, l4: int, data: int, size: int, follows: int, free: int) -> None:
        self.at = at
        self.head = head
        self.l4 = l4
        self.data = data
        self.size = size
        self.follows = follows
        """The sequence number of the next segment; negative when none may be joined any more."""
        self.free = free
        self.push = 0
        self.parts: list[bytes] = []


def coalesce(frames: Sequence[Buffer]) -> Sequence[Buffer]:
    """The same frames, with segments joined where that is possible. The order within a connection is kept.

    A joined frame is `bytes`; the others are the objects that were given.
    """
    if len(frames) < 2:
        return frames
    out: list[Buffer] = []
    runs: dict[bytes, _Run] = {}
    joined: list[_Run] = []
    for one in frames:
        frame = one if type(one) is bytes else bytes(one)
        size = len(frame)
        if size < _V4 + 20 or not frame[0] & F_NEEDS_CSUM or frame[1] & 0x80:
            # Its connection is not looked for, so no segment of any connection may overtake it.
            runs.clear()
            out.append(one)
            continue
        proto, l4, end, key = glance(frame, size)
        if proto != PROTO_TCP or l4 not in (_V4, _V6) or end < l4 + 20:
            runs.clear()
            out.append(one)
            continue
        data = l4 + (frame[l4 + 12] >> 4 << 2)
        partial = frame[6] | frame[7] << 8 == l4 - ETH
        if not partial or data < l4 + 20 or data >= end or frame[l4 + FLAGS_AT] & ~PSH != ACK:
            runs.pop(key, None)
            out.append(one)
            continue
        seq: int = _U32.unpack_from(frame, l4 + 4)[0]
        length = end - data
        segment = length if frame[1] == GSO_NONE else frame[4] | frame[5] << 8
        run = runs.get(key)
        if run is not None and run.follows == seq and length <= run.free and _joins(run, frame, data, segment, length):
            if not run.parts:
                joined.append(run)
            run.parts.append(frame[data:end])
            run.free -= length
            run.push |= frame[l4 + FLAGS_AT] & PSH
            run.follows = -1 if length % run.size else (seq + length) & 0xFFFFFFFF
            continue
        if size < LONG_ENOUGH and segment and not length % segment:
            follows = (seq + length) & 0xFFFFFFFF
            runs[key] = _Run(len(out), frame[:end], l4, data, segment, follows, MAX_JOINED - end)
        elif run is not None:
            del runs[key]
        out.append(one)
    for run in joined:
        out[run.at] = _join(run)
    return out


def _joins(run: _Run, frame: bytes, data: int, segment: int, length: int) -> bool:
    """May the frame be joined? All but lengths, identification, checksums, sequence number and PSH must be the same."""
    head, l4 = run.head, run.l4
    if data != run.data or length < 1 or (segment != run.size and not (frame[1] == GSO_NONE and length < run.size)):
        return False
    if head[l4 + 8 : l4 + 13] != frame[l4 + 8 : l4 + 13] or head[l4 + 14 : l4 + 16] != frame[l4 + 14 : l4 + 16]:
        return False
    if head[l4 + 18 : data] != frame[l4 + 18 : data] or head[ETH : _L3 + 2] != frame[ETH : _L3 + 2]:
        return False
    if l4 == _V4:
        return head[_L3 + 6 : _L3 + 10] == frame[_L3 + 6 : _L3 + 10]
    return head[_L3 + 2 : _L3 + 4] == frame[_L3 + 2 : _L3 + 4] and head[_L3 + 6 : _L3 + 8] == frame[_L3 + 6 : _L3 + 8]


def _join(run: _Run) -> bytes:
    """One frame made of all segments."""
    head, l4, data = run.head, run.l4, run.data
    more = MAX_JOINED - len(head) - run.free
    new = bytearray(head)
    # A partial checksum field holds the sum of the pseudo-header, and the length is a part of that.
    total: int = _U16.unpack_from(head, l4 + CSUM_AT)[0] + more
    _U16.pack_into(new, l4 + CSUM_AT, (total & 0xFFFF) + (total >> 16))
    new[l4 + FLAGS_AT] |= run.push
    if l4 == _V4:
        length = len(head) - _L3 + more
        old: int = _U16.unpack_from(head, _L3 + 2)[0]
        csum: int = _U16.unpack_from(head, _L3 + 10)[0]
        _U16.pack_into(new, _L3 + 2, length)
        _U16.pack_into(new, _L3 + 10, update(csum, length - old))
        gso = GSO_TCPV4
    else:
        _U16.pack_into(new, _L3 + 4, len(head) - _V6 + more)
        gso = GSO_TCPV6
    VNET_HDR.pack_into(new, 0, head[0], gso, data - ETH, run.size, l4 - ETH, CSUM_AT)
    return b"".join([new, *run.parts])
