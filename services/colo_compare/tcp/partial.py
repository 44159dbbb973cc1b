"""Parts of held segments leave by themselves, because two guests need not cut their bytes or probe in the same way.

::

    primary    [ 60,000 bytes ............................. ]    held, for the secondary
    secondary  [ s0 ][ s1 ][ s2 ]                                may send no more before it sees an ACK
    leaves     [ the equal part ]                                after a moment without progress
                                 [ the rest ............... ]    once that is equal, too

What has left does not leave again, unless a guest sends it again.
"""

from typing import Final

from colo_compare.tcp.departure import outrun, part
from colo_compare.tcp.reference import LOWEST
from colo_compare.tcp.state import Connection, Held, by_arrival
from colo_compare.tcp.window import emit
from colo_proto.net.window import window_update
from colo_proto.seq import MASK

HEAD_WAIT: Final = 0.05
"""Seconds without progress after which the equal part of a held segment is released: less than any stack's
retransmission timeout (200 ms and more)."""


def judge(flow: Connection, now: float) -> None:
    """A primary segment is equal in part: release that part when there was no progress for a moment.

    The secondary may have to wait for an ACK before it sends more (a smaller congestion window, shorter segments), and
    there will be no ACK as long as the primary's longer segment is held: both would wait for ever.
    """
    if flow.advanced_at > now - HEAD_WAIT and flow.data:
        flow.ledger.stuck[flow] = flow.advanced_at + HEAD_WAIT
    else:
        release_head(flow)


def release_head(flow: Connection, start: int = LOWEST, stop: int = LOWEST) -> None:
    """Release what is equal of a segment that is not equal to its end, and has not left yet.

    From `start` to `stop` the secondary repeats itself. That part may have been lost on the way to the client, so it
    leaves again.
    """
    held = None if flow.diverged else _half_equal(flow)
    if held is None:
        return
    begin, again = held.left, max(start, held.start)
    if again < min(stop, begin):
        if stop >= begin:
            begin = again
        else:
            _release_part(flow, held, again, stop)
    if begin < held.equal:
        _release_part(flow, held, begin, held.equal)


def _half_equal(flow: Connection) -> Held | None:
    """The newest segment that is equal in part and begins where the client is, or before.

    The client is where the last head ended, or where the first of these segments begins: what came before has left.
    """
    found: Held | None = None
    data = flow.data
    client = max(flow.head_end, data[0].start) if data else LOWEST
    for held in data:
        if held.start > client:
            break
        if (
            held.start < held.equal < held.end
            and held.ack <= flow.s_ack
            and (found is None or held.at >= found.at)
            and not (held.out or held.syn or isinstance(held.unit, tuple))
        ):
            found = held
    return found


def _release_part(flow: Connection, held: Held, start: int, end: int) -> None:
    frame = part(flow, held, start, end)
    flow.ledger.counters["synthesized"] += 1
    flow.ledger.counters["heads_released"] += 1
    if end > held.left:
        flow.head_end = end
        for other in flow.data:
            if other.start >= end:
                break
            # Copies of these bytes need not leave as well: if they are lost, a guest sends them again.
            if not (other.syn or isinstance(other.unit, tuple)):
                other.left = max(other.left, min(end, other.equal))
    outrun(flow, held.buf, held.l4, held.data)
    emit(flow, frame, frame, held.l4, held.data, end, held.ack, held.win)


def release_probe(flow: Connection) -> None:
    """The secondary probes the client's window with an empty segment one byte back, while the primary's bytes are held.

    The held bytes may be the primary's own probe, because that may carry a byte (RFC 9293 §3.8.6.1). Then neither probe
    would reach the client, and the window update that got lost would never be sent again. So the probe is released, in
    the primary's words.
    """
    if flow.diverged:
        return
    newest_first = reversed(flow.data)
    whole = (h for h in newest_first if not (h.syn or h.out or h.ack > flow.s_ack or type(h.unit) is tuple))
    held = max(whole, key=by_arrival, default=None)
    if held is None or flow.committed < 0:
        return
    at = flow.committed - 1
    frame = part(flow, held, held.start, held.end)
    probe = window_update(frame, held.l4, held.data, at & MASK, held.ack & MASK, held.win)
    flow.ledger.counters["synthesized"] += 1
    flow.ledger.counters["probes_released"] += 1
    outrun(flow, held.buf, held.l4, held.data)
    emit(flow, probe, probe, held.l4, len(probe), at, held.ack, held.win)
