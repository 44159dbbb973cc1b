"""How held segments leave: by position, once only, and with no older timestamp than what has left before."""

from colo_compare.tcp.reference import LOWEST
from colo_compare.tcp.state import FORMER, Connection, Held, by_start
from colo_compare.unit import Unit
from colo_proto.net.shorten import shorten
from colo_proto.net.stamp import NO_STAMP, tsval, with_tsval
from colo_proto.seq import HALF, MASK


def client_may_be_at(flow: Connection, start: int) -> bool:
    """May the client be at `start`? Then it remembers the timestamp of what begins there (RFC 7323 §4.3)."""
    if start <= flow.committed or flow.adopted:
        return True
    # In shadow mode more than what was compared has left.
    return bool(flow.data) and flow.data[0].out


def outrun(flow: Connection, buf: bytes, l4: int, data: int) -> None:
    """A segment leaves before others that are older: from now on these may not leave with an older timestamp."""
    stamp = tsval(buf, l4, data)
    last = max((held.start for held in flow.waiting), default=LOWEST)
    if flow.data:
        last = max(last, flow.data[-1].start)
    if stamp == NO_STAMP or last == LOWEST:
        return
    if flow.stamp == NO_STAMP:
        flow.stamp, flow.stamp_until = stamp, LOWEST
    elif (stamp - flow.stamp) & MASK < HALF:
        flow.stamp = stamp
    flow.stamp_until = max(flow.stamp_until, last)


def part(flow: Connection, held: Held, start: int, end: int) -> bytes:
    """What `held`, which is one frame and no SYN, has from `start` to `end`, with no older timestamp than what has
    left.

    The client drops a segment whose timestamp is older than the newest one that it has accepted (RFC 7323 §5), and the
    guest would have to send it again. If the guest sent it now, it would have a newer timestamp.
    """
    buf = held.buf
    if start > held.start or end < held.end:
        stop = held.data + held.stop - held.start
        keep = min(end, held.stop) - held.start
        buf = shorten(buf, held.l4, held.data, stop, keep, start - held.start, fin=end >= held.end)
    if flow.stamp == NO_STAMP:
        return buf
    until = flow.stamp_until
    if held.start > until and not any(queue and queue[0].start <= until for queue in (flow.data, flow.waiting)):
        # All that were older have left.
        flow.stamp = NO_STAMP
        return buf
    own = tsval(buf, held.l4, held.data)
    if own == NO_STAMP or (own - flow.stamp) & MASK < HALF:
        return buf
    flow.ledger.counters["restamped"] += 1
    return with_tsval(buf, held.l4, held.data, flow.stamp)


def _in_turn(flow: Connection, held: Held) -> Unit:
    """What of `held` has not left yet, when everything that is held leaves by position."""
    if held.syn or isinstance(held.unit, tuple):
        return held.unit
    flow.stamp_until = -LOWEST
    rest = part(flow, held, held.left, held.end)
    own = tsval(rest, held.l4, held.data)
    if own != NO_STAMP:
        # It is at least as new as what left before it.
        flow.stamp = own
    return rest


def flush(flow: Connection, *, copied: bool) -> None:
    """A checkpoint is done. With `copied` the secondary is a copy of the primary, so everything held may leave."""
    began = next((held.start for held in flow.data if not held.syn), LOWEST)
    if flow.rivals and began > LOWEST:
        flow.choose_isn(began & MASK)
    everything = sorted(flow.held(), key=by_start)
    if copied:
        _copied(flow, everything)
    flow.clear_queues()
    flow.forget_reference("checkpoint")
    if copied and LOWEST < flow.p_fin < flow.committed:
        # The copy has ended its stream where the primary did, wherever the secondary had ended it before.
        flow.ref.fin = flow.p_fin
        flow.closed = True
    for held in everything:
        flow.ledger.unhold(held)
        if not held.out:
            flow.ledger.passed(_in_turn(flow, held), "checkpoint")
    flow.diverged = False
    flow.wanted = 0.0
    flow.unprotected = not copied


def _copied(flow: Connection, everything: list[Held]) -> None:
    """The secondary now has received, sent and offers what the primary does, whatever it did before."""
    flow.s_rst = False
    flow.next_syn = None
    top = max([flow.p_top, *(held.end for held in everything)])
    if top == LOWEST:
        # The primary has not sent anything here, and what is known was said by a secondary that no longer exists.
        ack_base = flow.ack_base
        flow.blank()
        flow.ack_base = ack_base
        return
    flow.committed = top
    if not flow.rivals:
        flow.unproven = LOWEST
    offers = [
        (held.ack, -held.win if held.syn else held.win)
        for held in everything
        if held.ack > LOWEST and held.start != FORMER
    ]
    if flow.p_ack > LOWEST:
        offers.append((flow.p_ack, flow.p_win))
    flow.s_wire_ack = flow.s_win = -1
    if flow.s_first is None and not flow.rivals:
        flow.s_first = flow.committed
    if flow.p_syn is not None and flow.isn is not None:
        flow.s_syn, flow.s_isn = flow.p_syn, flow.isn & MASK
        flow.p_scale = flow.s_scale = flow.p_syn.wscale or 0
    if offers:
        flow.s_ack = max(ack for ack, _ in offers)
        flow.s_edge = max(ack - win if win < 0 else ack + (win << flow.p_scale) for ack, win in offers)
        flow.s_plain = max(ack + abs(win) for ack, win in offers)


def let_out(flow: Connection, cause: str) -> None:
    """Send what is held but keep it for comparing (shadow mode begins)."""
    for held in sorted(flow.held(), key=by_start):
        if not held.out:
            flow.ledger.let_out(flow, held, cause, _in_turn(flow, held))
