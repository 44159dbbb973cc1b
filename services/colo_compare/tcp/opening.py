"""How a connection begins: with SYNs of both guests, in any order and number, or in the middle, when none was seen."""

from typing import Final

from colo_compare.arrival import Arrival
from colo_compare.tcp.commit import advance, confirm, queue, secondary_advanced, unblock
from colo_compare.tcp.history import cost
from colo_compare.tcp.intake import store
from colo_compare.tcp.reference import LOWEST
from colo_compare.tcp.state import FORMER, Connection, Held, NextSyn
from colo_proto.net.tcp import ACK, SynOptions, syn_options
from colo_proto.seq import MASK, MOD

SYN_MEMORY: Final = 60.0
"""Seconds that a secondary's SYN waits for the primary to open the same connection (RFC 9293 §3.8.3 gives up on a SYN
after a few minutes; common stacks after one).
"""
MAX_SYN_DATA: Final = 9000
"""Bytes of data on a SYN (Fast Open, RFC 7413) that one guest may acknowledge and the other not: a jumbo frame's."""
MAX_RIVALS: Final = 8
"""Numbers of SYN/ACKs that are remembered: a client repeats its SYN about so often."""


def open_connection(flow: Connection, seq: int, number: int, options: SynOptions, now: float) -> None:
    """The primary sent a SYN with a new initial sequence number `seq`: a new connection begins. `number` is its ACK."""
    ledger = flow.ledger
    fresh = flow.isn is None and flow.committed < 0
    pending = flow.next_syn
    if pending is not None and pending.ack != number:
        pending = None  # the answer to another SYN of the client
    rivals = _rivals_of(flow, seq, number)
    # With rivals, the secondary's earlier answer to this SYN is still its answer.
    if flow.s_syn is not None and fresh and _apart(flow.s_ack, number):
        # What a secondary has said of a connection before, which a mirror link replayed to it.
        fresh = False
    if flow.s_syn is not None and (fresh or (rivals and pending is None and flow.s_ack == number)):
        pending = NextSyn(flow.s_syn, flow.s_isn, flow.s_ack, flow.s_edge, now)
    ack_base = flow.ack_base
    resets = _take_former_resets(flow)
    for held in flow.held():
        ledger.drop(held, "replaced")
    flow.clear_queues()
    flow.resets = resets
    # Data on the secondary's SYN (RFC 7413) stands where `secondary_syn` has put it; what else there is, is older.
    early = flow.ref.pieces[0] if fresh and flow.s_syn is not None and flow.ref.pieces else None
    if early is not None and early.start != flow.s_isn + MOD + 1:
        early = None
    flow.forget_reference("overtaken")
    flow.blank()
    flow.ack_base = ack_base
    flow.next_syn = None
    if flow.diverged or flow.unprotected:
        ledger.protect(flow)
    flow.diverged = flow.unprotected = False
    flow.wanted = 0.0
    flow.origin = flow.isn = flow.committed = seq + MOD
    flow.p_first = flow.isn
    flow.advanced_at = now
    flow.p_syn = options
    if rivals:
        # Where the stream begins is not known yet: nothing before this place has been compared.
        flow.rivals, flow.unproven = rivals, flow.isn + 1
    if pending is not None and now - pending.at <= SYN_MEMORY:
        flow.s_syn, flow.s_isn, flow.s_ack, flow.s_edge, _ = pending
        ledger.telling.begun(flow.key, now)
        if early is not None:
            ledger.secondary_gone(-1, "overtaken", stored=True)
            flow.ref.insert(flow.isn + 1, flow.isn + 1 + early.stop - early.start, early.buffer, early.offset)
            ledger.secondary_bytes += cost(flow.ref.pieces)


def _take_former_resets(flow: Connection) -> list[Held]:
    """Take out the RSTs of the primary that still wait for the secondary's, because another connection begins.

    A SYN that came late, or a forged one, may open that other connection at a guest that has closed the first one
    (RFC 9293 §3.10.7.1). The client then knows nothing of it, and waits for the RST of the connection that it has.
    """
    if flow.diverged:
        return []
    kept = [held for held in flow.resets if not held.out]
    for held in kept:
        flow.resets.remove(held)
        held.start = held.stop = held.end = held.equal = held.left = FORMER
    return kept


def release_former_resets(flow: Connection) -> None:
    """The secondary has nothing left of the connection before, either: the primary's RSTs for it leave."""
    for held in [held for held in flow.resets if held.start == FORMER]:
        flow.resets.remove(held)
        flow.ledger.unhold(held)
        flow.ledger.sink.append(held.unit)


def _rivals_of(flow: Connection, seq: int, number: int) -> tuple[int, ...]:
    """The initial sequence numbers with which the primary has answered this SYN of the client before.

    With SYN cookies the answer to a repeated SYN has another number once the secret has changed, and the client may
    take either. They are rivals only while the primary has sent nothing but SYN/ACKs: then it does not know the
    connection itself.
    """
    if flow.isn is None or number == LOWEST or flow.p_ack != number or flow.p_win >= 0 or flow.unprotected:
        return ()
    known = (flow.isn & MASK, *(isn for isn in flow.rivals if isn not in {seq, flow.isn & MASK}))
    return known[:MAX_RIVALS]


def secondary_syn(flow: Connection, arrival: Arrival, now: float) -> None:
    """A SYN of the secondary: the counterpart of the primary's, or of one that the primary has yet to send."""
    ledger, seq, data, end = flow.ledger, arrival.seq, arrival.data, arrival.end
    options = syn_options(arrival.buf, arrival.l4, data)
    number = edge = LOWEST
    if arrival.flags & ACK:
        number = flow.unwrap_ack(arrival.ack)
        edge = number + arrival.win
    ours = flow.s_isn == seq or (flow.s_syn is None and (flow.isn is not None or flow.committed < 0))
    if flow.s_syn is not None and flow.isn is not None and (seq == flow.isn & MASK or seq in flow.rivals):
        # Repeated, and in the primary's numbers, because the rewriter knows the connection by now.
        ledger.secondary_compared += 1
        return
    if flow.unprotected or not ours or _answers_another(flow, number):
        # Another connection, which the primary has not opened yet.
        flow.next_syn = NextSyn(options, seq, number, edge, now)
        ledger.secondary_compared += 1
        return
    flow.s_syn, flow.s_isn, flow.s_rst = options, seq, False
    if flow.isn is not None:
        ledger.telling.begun(flow.key, now)
    flow.s_ack = max(flow.s_ack, number)
    flow.s_edge = max(flow.s_edge, edge)
    if end > data and not flow.ref.pieces:
        # Data on a SYN (RFC 7413) follows the SYN in whichever space. A secondary that is first waits in its own.
        after = (flow.isn if flow.isn is not None else seq + MOD) + 1
        store(flow, after, after + end - data, arrival, -1)
    else:
        ledger.secondary_compared += 1
    if flow.data:
        advance(flow, now)
    secondary_advanced(flow)


def _answers_another(flow: Connection, number: int) -> bool:
    """Does a SYN/ACK of the secondary with this ACK answer another SYN of the client than the primary's that waits?

    A SYN that came late, or a forged one, may have opened a connection at the one guest and not at the other.
    """
    held = next((one for one in flow.data if one.syn), None)
    return held is not None and _apart(held.ack, number)


def _apart(ack: int, other: int) -> bool:
    """Do these answer two different SYNs? One guest may acknowledge data on a SYN, and the other not."""
    if LOWEST in {ack, other}:
        return False
    apart = (other - ack) & MASK
    return min(apart, MOD - apart) > MAX_SYN_DATA


def leave_stranger(flow: Connection) -> None:
    """The connection was open before this secondary came, which therefore does not have it: do not compare it."""
    flow.unprotected = True
    flow.ledger.unprotected.add(flow.key)
    flow.ledger.telling.lost(flow.key)
    flow.ledger.counters["strangers"] += 1
    flow.forget_reference("unprotected")


def adopt(flow: Connection, now: float) -> None:
    """Once both sides are known, but by position only (compare was restarted): continue at the later position.

    A guest that sends at a position has produced everything before it, so both guests are past the maximum of the two
    first positions. What they sent before and the client has not acknowledged, both will send again. It is released
    when it was compared here, and not because it lies behind (`unproven`).
    """
    if flow.committed >= 0 or flow.p_first is None or flow.s_first is None:
        return
    flow.committed = flow.unproven = max(flow.p_first, flow.s_first)
    flow.adopted = True
    flow.ledger.counters["adopted"] += 1
    confirm(flow, flow.committed)
    for held in [one for one in flow.data if one.start == one.end]:
        # A pure ACK obeys only the ACK rule, wherever it is.
        flow.data.remove(held)
        held.overtakes = bool(flow.data)
        queue(flow, held)
    # They came before whatever bytes are found equal now.
    unblock(flow)
    advance(flow, now)
