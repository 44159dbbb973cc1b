"""Frames of the primary that have found no counterpart in time: held ones, and in shadow mode those that have left."""

from typing import Final

from colo_compare.tcp.commit import advance
from colo_compare.tcp.explain import explain
from colo_compare.tcp.lateness import may_come_later
from colo_compare.tcp.reference import LOWEST
from colo_compare.tcp.state import FORMER, Connection, Held, by_arrival
from colo_proto.messages import Reason
from colo_proto.seq import MASK

RESET_GRACE: Final = 1000
"""Milliseconds after a client's reset in which a guest may still send."""


def timed_out(flow: Connection, now: float) -> None:
    """Drop old frames where that is legal, and ask for a checkpoint for what is still too old.

    Dropping is loss on a wire: the frames come again in time. It is done while bytes are still found equal, because the
    primary is then merely ahead (its congestion window is larger, or the client's network slow), and while the
    secondary may be merely late (`lateness`).
    """
    limit = now - flow.ledger.timeout
    # The secondary has not reset the connection before, so the client will be told by the secondary's answer.
    former = [held for held in flow.resets if held.start == FORMER and held.at < limit and not held.out]
    _drop(flow, flow.resets, former, "replaced")
    # With a number of no byte that the primary could send, it answers a stray segment, which the secondary has answered
    # with an ACK: its window may end elsewhere (RFC 9293 §3.10.7.4). It says nothing of the connection.
    stray = [held for held in flow.resets if _elsewhere(flow, held) and held.at < limit and not held.out]
    _drop(flow, flow.resets, stray, "stale")
    if flow.closed and flow.s_rst:
        # Both have reset it, and the primary's RST has overtaken what both had sent before.
        _drop_old(flow, limit, flow.s_reset, "reset")
    if flow.advanced_at > limit or may_come_later(flow, now):
        _drop_old(flow, limit, -LOWEST, "stale")
    late = [held for held in flow.held() if not held.out and held.at < limit]
    if late:
        _report(flow, min(late, key=by_arrival), now)


def _elsewhere(flow: Connection, held: Held) -> bool:
    return flow.isn is not None and not flow.isn <= held.start <= flow.p_top + flow.ledger.max_stream_bytes


def _report(flow: Connection, held: Held, now: float) -> None:
    """`held` has found no counterpart in time: that is a difference."""
    if flow.rivals and not held.syn and held in flow.data:
        flow.choose_isn(held.start & MASK)
    position = max(held.equal, held.start)
    detail = explain(flow, position, held, now)
    detail["waits_for"] = "bytes" if held in flow.data else "ack" if held in flow.waiting else "rst"
    flow.ledger.want(flow, Reason.TIMEOUT, flow.offset(position), detail, now)


def _drop_old(flow: Connection, limit: float, end: int, reason: str) -> None:
    """Drop what came before `limit` and lies before `end`."""
    old = [held for held in flow.data if held.at < limit and held.end <= end and not held.out]
    _drop(flow, flow.data, old, reason)


def _drop(flow: Connection, queue: list[Held], gone: list[Held], reason: str) -> None:
    for held in gone:
        queue.remove(held)
        flow.ledger.drop(held, reason)


# -- what left before it was compared -----------------------------------------------------------------


def expire(flow: Connection, limit: float, now: float) -> None:
    """Report what was sent at or before `limit` and has found no equal.

    Nothing else of a stream expires: what the client has not acknowledged is sent again or compared. A secondary that
    still sends is merely behind. So is one whose bytes were lost on the way to compare: nobody makes it send them
    again, because the client has the primary's.
    """
    if flow.closed:
        # Both have ended the stream. Which guest still remembers it when something late comes, is a matter of time.
        _drop(flow, flow.resets, [held for held in flow.resets if held.out and held.at <= limit], "reset")
    late = [held for held in flow.held() if held.out and held.at <= limit]
    if not late or flow.wanted or flow.advanced_at > limit or _client_reset(flow, late) or _skip_missing(flow, now):
        return
    flow.ledger.counters["miscompares"] += 1
    _report(flow, min(late, key=by_arrival), now)


def _client_reset(flow: Connection, late: list[Held]) -> bool:
    """Did the client reset the connection? How far a guest had come before it heard of that is no difference."""
    if any(held.at * 1000 > flow.client_reset + RESET_GRACE for held in late):
        return False
    for queue in (flow.data, flow.waiting, flow.resets):
        _drop(flow, queue, [held for held in queue if held in late], "reset")
    flow.closed = True
    return True


def _skip_missing(flow: Connection, now: float) -> bool:
    """Is the secondary evidently past what is missing of it? Then continue behind that, and count the bytes that were
    not compared.
    """
    ref, base = flow.ref, flow.committed
    upto = max(flow.s_top, LOWEST if ref.fin is None else ref.fin)
    if ref.pending():
        upto = ref.pieces[ref.first].start
    # What has not left yet has to be compared, and nothing counts as equal that the primary has not even sent.
    upto = min(upto, next((one.start for one in flow.data if not one.out), flow.p_top))
    if base < 0 or upto <= base or not flow.data:
        return False
    flow.ledger.counters["secondary_unseen"] += upto - base
    flow.committed, flow.advanced_at = upto, now
    advance(flow, now)
    return True
