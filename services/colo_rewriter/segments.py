"""A client's segment as its guest can accept it: with another acknowledgement, window or timestamp (`pace`)."""

from struct import Struct
from typing import Final

from colo_proto.net.stamp import NO_STAMP, tsval, with_tsval
from colo_proto.net.tcp import ACK, ACK_AT, FIN, RST, SYN, WINDOW_AT, Segment, update_checksum, write32
from colo_proto.seq import MASK, diff
from colo_rewriter.flow import Arrival, Flow

_U16: Final = Struct("!H")


def guest_scale(flow: Flow) -> int:
    """By how many bits the guest's window fields are shifted (RFC 7323 §2.2: only if both ends offered it)."""
    return max(flow.guest_scale, 0) if flow.client_scale >= 0 else 0


def offered_window(flow: Flow, seg: Segment) -> int:
    """The window that the guest offers with this segment. That of a SYN is never scaled (RFC 7323 §2.2)."""
    return seg.window if seg.flags & SYN else seg.window << guest_scale(flow)


def raised_window(flow: Flow, seg: Segment, ack: int) -> int:
    """The window field that, with the smaller `ack`, has the right edge of the segment's own."""
    shift = max(flow.client_scale, 0) if flow.guest_scale >= 0 else 0
    lowered_by = max(diff(seg.ack, ack), 0) >> shift
    return min(0xFFFF, lowered_by + 1 if seg.flags & RST else seg.window + lowered_by)


def with_ack(arrival: Arrival, ack: int, window: int) -> Arrival:
    """The segment with another acknowledgement number and window field."""
    l4, seg = arrival.l4, arrival.segment
    out = bytearray(arrival.frame)
    write32(out, l4 + ACK_AT, ack)
    _U16.pack_into(out, l4 + WINDOW_AT, window)
    update_checksum(out, l4, ack - seg.ack + window - seg.window)
    return Arrival(bytes(out), arrival.key, l4, seg._replace(ack=ack, window=window), arrival.whole)


def not_older_than(arrival: Arrival, stamp: int) -> Arrival:
    """The segment with a timestamp that is not older than `stamp`."""
    frame, l4, data = arrival.frame, arrival.l4, arrival.segment.data
    own = tsval(frame, l4, data)
    if NO_STAMP in {own, stamp} or diff(stamp, own) <= 0:
        return arrival
    return arrival._replace(frame=with_tsval(frame, l4, data, stamp))


def sack_blocks(flow: Flow) -> bytes:
    """A SACK option (RFC 2018) for what the guest sent behind a gap, the newest block first; empty when there is none.

    With it the guest fills the gap at once.
    """
    pace = flow.pace
    if pace is None or not pace.gaps or not flow.sacks:
        return b""
    merged: list[tuple[int, int]] = []
    for start, stop in sorted(pace.gaps, key=lambda gap: diff(gap[0], pace.snd_nxt)):
        if merged and diff(start, merged[-1][1]) <= 0:
            merged[-1] = (merged[-1][0], stop if diff(stop, merged[-1][1]) > 0 else merged[-1][1])
        else:
            merged.append((start, stop))
    newest = pace.gaps[-1][0]
    merged.sort(key=lambda gap: not diff(gap[0], newest) <= 0 < diff(gap[1], newest))
    edges = [(edge - flow.offset) & MASK for gap in merged[:3] for edge in gap]
    return bytes((1, 1, 5, 2 + 4 * len(edges))) + b"".join(edge.to_bytes(4, "big") for edge in edges)


def is_pure_ack(arrival: Arrival) -> bool:
    """Is it an ACK without payload, SYN, FIN or RST?"""
    seg = arrival.segment
    return seg.flags & (ACK | SYN | FIN | RST) == ACK and seg.data == seg.end


def merged_ack(last: Arrival, arrival: Arrival) -> Arrival | None:
    """Of two pure ACKs, one behind the other, the one that acknowledges more; None when both are needed."""
    if not is_pure_ack(arrival) or not is_pure_ack(last) or last.segment.seq != arrival.segment.seq:
        return None
    return arrival if diff(arrival.segment.ack, last.segment.ack) >= 0 else last
