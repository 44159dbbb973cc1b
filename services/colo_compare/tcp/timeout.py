"""Frames that have waited longer than compare_timeout."""

from typing import Final

from colo_compare.tcp.explain import explain
from colo_compare.tcp.reference import LOWEST
from colo_compare.tcp.state import FORMER, Connection, Held, by_arrival
from colo_proto.messages import Reason
from colo_proto.seq import MASK

LOSS_TIMEOUTS: Final = 4
"""How many times `compare_timeout` a connection may stand still while frames are known to be lost: retransmission
timeouts double, and retransmissions get lost as well."""


def timed_out(flow: Connection, now: float) -> None:
    """Drop old frames where that is legal, and ask for a checkpoint for what is still too old.

    Dropping is loss on a wire: the frames come again in time. It is done

    * while bytes are still found equal: the primary is merely ahead, because its congestion window is larger or the
      client's network slow;
    * to frames that wait for bytes that were lost on the way to compare: guests send them again, though later each
      time;
    * to frames that wait for a secondary which repeats what has left: it may send no more until the client acknowledges
      that.
    """
    limit = now - flow.ledger.timeout
    for held in [one for one in flow.resets if one.start == FORMER and one.at < limit and not one.out]:
        # The secondary has not reset the connection before, so the client will be told by the secondary's answer.
        flow.resets.remove(held)
        flow.ledger.drop(held, "replaced")
    if flow.closed and flow.s_rst:
        # Both have reset it, and the primary's RST has overtaken what both had sent before.
        _drop_old(flow, limit, flow.s_reset, "reset")
    waits = flow.repeated_at > limit * 1000 or _lost(flow)
    if flow.advanced_at > limit or (waits and flow.advanced_at > now - LOSS_TIMEOUTS * flow.ledger.timeout):
        _drop_old(flow, limit, -LOWEST, "stale")
    late = [held for held in flow.held() if not held.out and held.at < limit]
    if late:
        report(flow, min(late, key=by_arrival), now)


def report(flow: Connection, held: Held, now: float) -> None:
    """`held` has found no counterpart in time: that is a difference."""
    if flow.rivals and not held.syn and held in flow.data:
        flow.choose_isn(held.start & MASK)
    position = max(held.equal, held.start)
    detail = explain(flow, position, held, now)
    detail["waits_for"] = "bytes" if held in flow.data else "ack" if held in flow.waiting else "rst"
    flow.ledger.want(flow, Reason.TIMEOUT, flow.offset(position), detail, now)


def _drop_old(flow: Connection, limit: float, end: int, reason: str) -> None:
    """Drop what came before `limit` and lies before `end`."""
    for held in [held for held in flow.data if held.at < limit and held.end <= end and not held.out]:
        flow.data.remove(held)
        flow.ledger.drop(held, reason)


def _lost(flow: Connection) -> bool:
    """Does what is held wait for bytes that a guest has sent, because they lie before others that have come? Then a
    frame of the one guest was dropped on the way, and not that of the other. In a connection that was adopted from the
    middle this is not certain: another compare may have released those bytes, and then nobody sends them again.
    """
    data, pieces, first = flow.data, flow.ref.pieces, flow.ref.first
    if not data or flow.diverged or flow.adopted:
        return False
    base, fin = flow.committed, flow.ref.fin
    return data[0].start > base or (pieces[first].start > base if first < len(pieces) else (fin or 0) > base)
