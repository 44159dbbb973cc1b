"""Tells which connection a segment belongs to, and whether the guest would accept it (RFC 9293 §3.10.7.4, RFC 5961).

Anybody can send a SYN, RST or FIN with the addresses of a client, and a network may deliver an old one late. No such
segment may change what is known of an open connection. What the guest would do is derived from its last segment, which
tells the next byte that the guest expects, and the window that it offers.
"""

from typing import Final

from colo_proto.net.tcp import ACK, RST, SYN, Segment
from colo_proto.seq import MASK
from colo_rewriter.flow import Arrival, Flow, State, sender
from colo_rewriter.segments import offered_window

FIRST_FLIGHT: Final = 1 << 20
"""A client's segment this close after its SYN belongs to that handshake (first flight, GSO frames)."""

LATE: Final = 1 << 24
"""Bytes by which the sequence number of an old duplicate may lie behind."""

AHEAD: Final = 1 << 26
"""Bytes by which an acknowledgement may differ from the guest's last sequence number: the largest windows in use."""

UNSCALED: Final = 0xFFFF


def follows_syn(seq: int, flow: Flow) -> bool:
    """Does `seq` follow the client's SYN?"""
    return flow.client_isn is not None and (seq - flow.client_isn - 1) & MASK < FIRST_FLIGHT


def answers_syn(flow: Flow, number: int) -> bool:
    """Does an acknowledgement of `number` + 1 answer the client's SYN, and all, a part or nothing of its data?"""
    return flow.client_isn is not None and (number - flow.client_isn) & MASK <= flow.syn_data


def acks_own_syn(flow: Flow, seg: Segment) -> bool:
    """Does the segment acknowledge the SYN that the guest itself has sent, and perhaps data behind it?"""
    return flow.isn_secondary is not None and (seg.ack - flow.isn_secondary - 1) & MASK < FIRST_FLIGHT


def rcv_nxt(flow: Flow) -> int | None:
    """The next byte of the client that the guest expects, by its last segment; None if it is not known."""
    last = flow.last_segment()
    if last is not None and last.flags & ACK:
        return last.ack
    return None if flow.client_isn is None else (flow.client_isn + 1) & MASK


def guest_window(flow: Flow) -> int:
    """The window that the guest offered last, but at least the largest one that needs no scaling."""
    last = flow.last_segment()
    return UNSCALED if last is None else max(offered_window(flow, last), UNSCALED)


def accepts_reset(flow: Flow, seq: int) -> bool:
    """Would the guest accept a RST with this number?

    It does if this is exactly the number that it expects (RFC 5961 §3.2), or that of the client's FIN: a client that
    has closed answers so to what the guest sent before the FIN arrived, and Linux accepts that.
    """
    number = rcv_nxt(flow)
    if number is None or flow.client_isn is None or seq == number:
        return True
    return flow.client_fin == number and seq == (number - 1) & MASK


def accepts_fin(flow: Flow, after: int) -> bool:
    """Would the guest accept a FIN whose sequence number is `after` - 1?"""
    number = rcv_nxt(flow)
    return number is None or 0 < (after - number) & MASK <= guest_window(flow) + 1


def belongs_to(flow: Flow, seg: Segment) -> bool:
    """Could a segment with ACK belong to the connection that `flow` knows, and not to a newer one on its ports?"""
    if flow.state is State.HALF:
        primary = flow.isn_primary
        return primary is not None and follows_syn(seg.seq, flow) and (seg.ack - primary - 1) & MASK < FIRST_FLIGHT
    if flow.reset_by_guest:
        return False
    ack = (seg.ack + flow.offset) & MASK
    client_fin, guest_fin = flow.client_fin, flow.guest_fin
    if flow.guest_fin_acked and flow.client_fin_acked and client_fin is not None and guest_fin is not None:
        return (client_fin - seg.seq) & MASK < LATE and (guest_fin - ack) & MASK < LATE
    number, last = rcv_nxt(flow), flow.last_segment()
    if number is None or last is None:
        return False
    behind = (seg.seq - number + LATE) & MASK
    return behind <= LATE + guest_window(flow) and (ack - last.seq + AHEAD) & MASK < 2 * AHEAD


def belongs_to_successor(flow: Flow, seg: Segment) -> bool:
    """Does a segment belong to the connection whose SYN the guest has not answered yet?

    The first segment of that connection has exactly the number that follows the SYN's. A segment that also fits the
    present connection belongs to that one: a stray SYN may have any number, also that of the next byte.
    """
    successor = flow.successor
    if successor is None or successor.hold_expired or successor.client_isn is None:
        return False
    if seg.flags & (SYN | RST | ACK) != ACK:
        return False
    behind = (seg.seq - successor.client_isn - 1) & MASK
    primary = successor.isn_primary
    if primary is None:
        return behind <= successor.syn_data and not belongs_to(flow, seg)
    return behind < FIRST_FLIGHT and (seg.ack - primary - 1) & MASK < FIRST_FLIGHT and not belongs_to(flow, seg)


def belongs_to_predecessor(flow: Flow, seg: Segment) -> bool:
    """Does a segment with ACK, after a SYN that the guest has accepted, belong to the connection before on these ports?

    A stray SYN may open a connection at a guest that has closed the one before (RFC 9293 §3.10.7.2). The client has
    not sent it, and answers the SYN/ACK with an ACK that has the numbers of the old connection and teaches nothing
    about the new one. If the client itself opens a connection, both numbers lie beyond those of the old one (RFC 6528).
    """
    predecessor = flow.predecessor
    last = None if predecessor is None else predecessor.last_segment()
    if predecessor is None or last is None:
        return False
    seq = rcv_nxt(predecessor) if predecessor.client_fin is None else predecessor.client_fin
    ack = predecessor.guest_fin
    if ack is None:
        ack = (last.seq + last.end - last.data) & MASK
    return seq is not None and (seq - seg.seq) & MASK < LATE and (ack - seg.ack - predecessor.offset) & MASK < LATE


def refusal(flow: Flow, arrival: Arrival) -> bytes:
    """The RST with which a client that wants no connection answers this SYN/ACK of the guest (RFC 9293 §3.10.7.1)."""
    frame = arrival.frame
    return sender(flow.key_client, frame[10:16], frame[16:22]).tcp(arrival.segment.ack, 0, RST)


def reset(flow: Flow, arrival: Arrival, number: int) -> bytes:
    """The RST with sequence number `number` of the client that has sent this segment."""
    frame = arrival.frame
    return sender(flow.key_client, frame[16:22], frame[10:16]).tcp(number, 0, RST)
