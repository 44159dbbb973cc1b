"""Segments with SYN, FIN or RST, and all segments of connections that are not simply being compared: whose beginning is
not known yet, in which a difference was found, or which are unprotected.
"""

from colo_compare.arrival import Arrival
from colo_compare.tcp import opening
from colo_compare.tcp.commit import advance, compare_new, hold, hold_reset, reset, secondary_advanced, unblock, wait
from colo_compare.tcp.intake import remember, store
from colo_compare.tcp.partial import release_head
from colo_compare.tcp.reference import LOWEST
from colo_compare.tcp.state import Connection, Held
from colo_compare.tcp.window import emit, secondary_says
from colo_proto.net.tcp import ACK, FIN, PSH, RST, SYN, syn_options
from colo_proto.seq import MASK


def primary(flow: Connection, arrival: Arrival, now: float) -> None:
    """Such a segment of the primary."""
    ledger, flags, seq = flow.ledger, arrival.flags, arrival.seq
    if flags & SYN and not flags & RST and (flow.isn is None or flow.isn & MASK != seq):
        number = flow.unwrap_ack(arrival.ack) if flags & ACK else LOWEST
        opening.open_connection(flow, seq, number, syn_options(arrival.buf, arrival.l4, arrival.data), now)
    if ledger.strangers and flow.p_first is None and flow.committed < 0 and not flow.unprotected:
        opening.leave_stranger(flow)
    syn, fin = flags >> 1 & 1, flags & 1
    start = flow.position(seq)
    stop = start + arrival.end - arrival.data + syn
    number = flow.unwrap_ack(arrival.ack) if flags & ACK else flow.s_ack
    if not flags & RST:
        # A checkpoint that copies state continues from here, whatever became of these frames.
        flow.p_top = max(flow.p_top, stop + fin)
        if fin:
            flow.p_fin = stop
        if flags & ACK:
            flow.p_ack, flow.p_wire_ack, flow.p_win = number, arrival.ack, -arrival.win if syn else arrival.win
    if flow.unprotected:
        flow.closed |= bool(flags & (FIN | RST))
        ledger.passed(arrival.unit, "unprotected")
        return
    held = Held(arrival, start, stop, number, now)
    held.data -= syn
    held.syn, held.fin = syn, fin
    held.end = stop + fin
    if flags & RST:
        if flow.s_rst:
            reset(flow, held)
        else:
            hold_reset(flow, held)
        return
    if syn:
        flow.p_syn = syn_options(arrival.buf, arrival.l4, arrival.data)
        flow.opener = not flags & ACK and bool(flow.p_syn.wscale)
    if flow.p_first is None:
        flow.p_first = start
        opening.adopt(flow, now)
    if flow.diverged or flow.committed < 0 or held.end > held.start:
        hold(flow, held)
        compare_new(flow, start, stop, now)
    elif number <= flow.s_ack:
        emit(flow, held.unit, held.buf, held.l4, held.data, start, number, held.win)
    else:
        wait(flow, held)


def secondary(flow: Connection, arrival: Arrival, now: float) -> None:
    """Such a segment of the secondary."""
    ledger, flags = flow.ledger, arrival.flags
    if flow.unprotected and not flags & SYN:
        ledger.secondary_gone(1, "unprotected")
        return
    if flags & SYN:
        opening.secondary_syn(flow, arrival, now)
        return
    if flow.isn is not None and flow.s_syn is None:
        # The primary opened a new connection here; this still belongs to the one before.
        ledger.secondary_gone(1, "overtaken")
        if flags & RST and flow.resets:
            opening.release_former_resets(flow)
        return
    size = arrival.end - arrival.data
    if flow.s_rst and not flags & RST:
        number = flow.unwrap_ack(arrival.ack) if flags & ACK else LOWEST
        sends_after_reset(flow, flow.position(arrival.seq) + size + (flags & FIN), number)
    if flags & ACK and secondary_says(flow, arrival.ack, arrival.win) and flow.waiting and not flow.diverged:
        unblock(flow)
    if flags & RST:
        ledger.secondary_compared += 1
        _secondary_reset(flow, arrival, now)
        return
    if flow.rivals:
        flow.choose_isn(arrival.seq)
    start = flow.position(arrival.seq)
    stop = start + size
    if flow.s_first is None:
        flow.s_first = start
        opening.adopt(flow, now)
    base = flow.committed
    if flags & FIN and flow.ref.fin is None and (stop >= base or stop < flow.unproven):
        # A FIN that lies before `committed` is stale: a checkpoint has passed it, or both would have sent it.
        flow.ref.fin = stop
    if not size:
        ledger.secondary_compared += 1
        if ledger.shadow:
            flow.s_top = max(flow.s_top, start)
    elif base >= stop:
        repeats(flow, arrival, start, stop, now)
    else:
        store(flow, start, stop, arrival, base)
    if flow.data:
        compare_new(flow, start, stop, now)
    secondary_advanced(flow)


def _secondary_reset(flow: Connection, arrival: Arrival, now: float) -> None:
    """A RST of the secondary, or of the rewriter in shadow mode."""
    if arrival.flags & FIN and flow.ledger.ahead(flow):
        # No guest sends FIN and RST together. The rewriter does, to say that the client has reset the connection, or
        # (with PSH) that not all of what the client sent got through to the guest.
        if arrival.flags & PSH:
            flow.ledger.give_up(flow)
        else:
            flow.client_reset = int(now * 1000)
        return
    flow.s_rst = True
    flow.s_reset = max(flow.position(arrival.seq), flow.committed, flow.ref.end)
    if flow.resets:
        reset(flow, None)


def sends_after_reset(flow: Connection, stop: int, ack: int) -> None:
    """The secondary, which has sent RST, sends a segment. If it says something new, the RST was about a stray segment
    and the connection continues; otherwise it was sent before, and the RST has overtaken it.
    """
    if stop > flow.s_reset or ack > flow.s_ack:
        flow.s_rst = False


def repeats(flow: Connection, arrival: Arrival, start: int, stop: int, now: float) -> None:
    """The secondary repeats what is committed: either it waits for an ACK, or this is new after an adoption."""
    flow.repeated_at = int(now * 1000)
    flow.ledger.secondary_gone(1, "overtaken")
    if start < flow.unproven:
        remember(flow, arrival, start, stop)
        if flow.data:
            advance(flow, now)
    elif flow.data:
        release_head(flow, start, stop)
