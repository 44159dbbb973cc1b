"""The windows of clients, lowered so that both guests together with their queues can keep what is under way.

What a guest may send is bounded by the window that the client offers (RFC 9293 §3.8). The mirror is where all frames of
the clients pass before they are copied, so both guests see the same window::

    client's edge     what the client offers: its ACK and its window
    told              the farthest edge that the guests have been told; it never moves back
    a frame leaves with the window that ends at     min(client's edge, max(told, ACK + share))

A frame is changed only while the share (`colo_proto.share`) is smaller than what clients offer, which takes more than
five active downloads. A window is scaled if both ends have said so in their SYN (RFC 7323 §2.2), and the mirror does
not see the guest's. A client that opens shows it by the window of its first segment after the SYN: it is near that of
the SYN in one of the two readings only. Connections whose beginning the mirror has not seen are left alone.
"""

from collections import Counter
from struct import Struct
from typing import Final

from colo_proto.frame import Buffer
from colo_proto.net.packet import PROTO_TCP, glance
from colo_proto.net.tcp import ACK, FIN, RST, SYN, WINDOW_AT, syn_options, update_checksum
from colo_proto.seq import HALF, MASK
from colo_proto.share import AMPLE, LEAST, Share

MAX_FLOWS: Final = 65536
UNKNOWN: Final = -1

_FIELDS: Final = Struct("!IBBH")
"""Acknowledgement number, data offset (upper half), flags, window."""
_ACK_AT: Final = 8
_U16: Final = Struct("!H")


class _Flow:
    """What the guests have been told on one connection."""

    __slots__ = ("ack", "counted", "edge", "mark", "scale", "shift", "syn_window")

    def __init__(self, shift: int, syn_window: int) -> None:
        self.shift = shift
        """The client's window scale, as its SYN says; it counts if the guest's SYN has one as well."""
        self.syn_window = syn_window
        self.scale = UNKNOWN
        """The scale that is used."""
        self.ack = 0
        """The client's newest ACK, on the wire."""
        self.edge = 0
        """The farthest right edge that the guests were told, on the wire."""
        self.counted = 0
        """The client's ACK when the connection was last counted as active, in the tick `mark`."""
        self.mark = 0


class Windows:
    """See the module. `budget` is in bytes; 0: every window is passed on as it is. It counts in `counters`."""

    def __init__(self, budget: int, counters: Counter[str]) -> None:
        self.share = Share(budget)
        self._counters = counters
        self._flows: dict[bytes, _Flow] = {}

    @property
    def flows(self) -> int:
        """How many connections are known."""
        return len(self._flows)

    def lower(self, frame: Buffer) -> Buffer:
        """The frame of a client as the guests may see it: mostly the same object."""
        proto, l4, end, key = glance(frame, len(frame))  # type: ignore[arg-type]
        if proto != PROTO_TCP or not l4 or end < l4 + 20:
            return frame
        ack, _, flags, window = _FIELDS.unpack_from(frame, l4 + _ACK_AT)
        if flags & (SYN | FIN | RST):
            self._changes(frame, l4, end, key, flags, window)
            return frame
        flow = self._flows.get(key)
        if flow is None or not flags & ACK:
            return frame
        scale = flow.scale
        if scale == UNKNOWN:
            if not window:
                # It is the same in both readings.
                return frame
            flow.scale = scale = _used(flow.shift, flow.syn_window, window)
            flow.ack = flow.counted = ack
            flow.edge = (ack + (window << scale)) & MASK
            return frame
        ahead = (ack - flow.ack) & MASK
        if ahead >= HALF:
            # Older than what the guests have seen.
            return frame
        share = self.share
        if ahead:
            flow.ack = ack
            if flow.mark != share.tick and (ack - flow.counted) & MASK >= LEAST:
                flow.mark, flow.counted = share.tick, ack
                share.count()
        room = (flow.edge - ack) & MASK
        if room >= HALF:
            room = 0
        offered = window << scale
        if offered <= room:
            return frame
        allowed = share.bytes
        if offered <= allowed or allowed >= AMPLE:
            flow.edge = (ack + offered) & MASK
            return frame
        if room >= allowed or (not ahead and 2 * room >= allowed):
            # The guests know of this much already. A repeated ACK says the same again, or it would not be one.
            allowed = room
        field = min((allowed + (1 << scale) - 1) >> scale, window)
        flow.edge = (ack + (field << scale)) & MASK
        return self._with_window(frame, l4, window, field)

    def _with_window(self, frame: Buffer, l4: int, window: int, field: int) -> Buffer:
        if field == window:
            return frame
        self._counters["windows_lowered"] += 1
        lowered = bytearray(frame)
        _U16.pack_into(lowered, l4 + WINDOW_AT, field)
        update_checksum(lowered, l4, field - window)
        return lowered

    def _changes(self, frame: Buffer, l4: int, end: int, key: bytes, flags: int, window: int) -> None:
        """A connection begins or ends."""
        known = self._flows.get(key)
        data = l4 + (frame[l4 + 12] >> 4) * 4
        shift = syn_options(frame, l4, min(data, end)).wscale if flags & SYN else None
        if known is not None:
            if shift != known.shift or known.scale != UNKNOWN:
                # It ends; or a SYN came that anybody may have sent (RFC 5961), and then nothing is sure any more.
                del self._flows[key]
            return
        if shift is None:
            # Without this option no window is more than 64 KiB.
            return
        if len(self._flows) >= MAX_FLOWS:
            del self._flows[next(iter(self._flows))]
            self._counters["windows_forgotten"] += 1
        self._flows[key] = flow = _Flow(shift, window)
        if flags & ACK:
            # The client answers with this option only if the guest had it in its SYN.
            flow.scale = shift
            flow.ack = flow.counted = int.from_bytes(frame[l4 + _ACK_AT : l4 + _ACK_AT + 4], "big")
            flow.edge = (flow.ack + window) & MASK


def _used(shift: int, syn_window: int, window: int) -> int:
    """The scale that the field `window` of the first segment after a SYN shows: `shift`, or 0. In which of the two
    readings is the window nearer to that of the SYN, which is never scaled, by their ratio?
    """
    wide, plain, first = (max(number, 1) for number in (window << shift, window, syn_window))
    far = max(wide, first) / min(wide, first)
    return shift if far <= max(plain, first) / min(plain, first) else 0
