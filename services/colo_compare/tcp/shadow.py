"""Segments that left before they were compared (shadow mode, and flows under a `shadow` rule): when is it a difference
that the other guest has sent nothing like them yet?
"""

from typing import Final

from colo_compare.tcp.commit import advance
from colo_compare.tcp.reference import LOWEST
from colo_compare.tcp.state import Connection, Held, by_arrival
from colo_compare.tcp.timeout import report

RESET_GRACE: Final = 1000
"""Milliseconds after a client's reset in which a guest may still send."""


def expire(flow: Connection, limit: float, now: float) -> None:
    """Report what was sent at or before `limit` and has found no equal.

    Nothing else of a stream expires: what the client has not acknowledged is sent again or compared. A secondary that
    still sends is merely behind. So is one whose bytes were lost on the way to compare: nobody makes it send them
    again, because the client has the primary's.
    """
    if flow.closed:
        # Both have ended the stream. Which guest still remembers it when something late comes, is a matter of time.
        _drop(flow, [held for held in flow.resets if held.out and held.at <= limit])
    late = [held for held in flow.held() if held.out and held.at <= limit]
    if not late or flow.wanted or flow.advanced_at > limit or _client_reset(flow, late) or _skip_missing(flow, now):
        return
    flow.ledger.counters["miscompares"] += 1
    report(flow, min(late, key=by_arrival), now)


def _client_reset(flow: Connection, late: list[Held]) -> bool:
    """Did the client reset the connection? How far a guest had come before it heard of that is no difference."""
    if any(held.at * 1000 > flow.client_reset + RESET_GRACE for held in late):
        return False
    _drop(flow, late)
    flow.closed = True
    return True


def _drop(flow: Connection, late: list[Held]) -> None:
    for queue in (flow.data, flow.waiting, flow.resets):
        for held in [held for held in queue if held in late]:
            queue.remove(held)
            flow.ledger.drop(held, "reset")


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
