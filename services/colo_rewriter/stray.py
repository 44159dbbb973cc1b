"""Which connection a segment belongs to, and whether the guest would believe it (RFC 9293 §3.10.7.4, RFC 5961).

Anybody can send a SYN, RST or FIN with the addresses of a client, and a network may deliver an old one late. Nothing of
that kind may change what is known of an open connection. What the guest itself would do is followed as far as its last
segment shows it: that names the next byte which the guest expects, and the window that it offers.
"""

from struct import Struct
from typing import Final

from colo_proto.net.tcp import ACK, ACK_AT, FLAGS_AT, RST, SEQ_AT, SYN, WINDOW_AT, Segment
from colo_rewriter.flow import Arrival, Flow, State, sender

_MASK: Final = 0xFFFFFFFF
_U16: Final = Struct("!H")
_U32: Final = Struct("!I")

FIRST_FLIGHT: Final = 1 << 20
"""A client's segment this close after its SYN belongs to that handshake (first flight, GSO frames)."""

LATE: Final = 1 << 24
"""Bytes by which an old duplicate may lie behind."""

AHEAD: Final = 1 << 26
"""Bytes by which an acknowledgement may be away from the guest's last segment: the largest windows in use."""

UNSCALED: Final = 0xFFFF


def close_after(seq: int, flow: Flow, flight: int = FIRST_FLIGHT) -> bool:
    """Does `seq` follow the client's SYN?"""
    return flow.client_isn is not None and (seq - flow.client_isn - 1) & _MASK < flight


def answers(flow: Flow, number: int) -> bool:
    """Does an acknowledgement of `number` + 1 answer the client's SYN, with all, a part or nothing of its data?"""
    return flow.client_isn is not None and (number - flow.client_isn) & _MASK <= flow.early


def expected(flow: Flow) -> int | None:
    """The next byte of the client that the guest expects, by its last segment; None when that is not known."""
    if flow.last is not None:
        header, l4, _ = flow.last
        if header[l4 + FLAGS_AT] & ACK:
            number: int = _U32.unpack_from(header, l4 + ACK_AT)[0]
            return number
    return None if flow.client_isn is None else (flow.client_isn + 1) & _MASK


def window(flow: Flow) -> int:
    """The window that the guest offered last, and never less than one that needs no scaling."""
    if flow.last is None:
        return UNSCALED
    header, l4, _ = flow.last
    offered: int = _U16.unpack_from(header, l4 + WINDOW_AT)[0]
    scale = flow.guest_scale if flow.client_scale >= 0 and not header[l4 + FLAGS_AT] & SYN else 0
    return max(offered << max(scale, 0), UNSCALED)


def resets(flow: Flow, seq: int) -> bool:
    """Would the guest believe a RST with this number? Only with exactly the one that it expects (RFC 5961 §3.2), or the
    one of the client's FIN: so a client answers that has closed, to what was sent before its FIN came; Linux takes it.
    """
    number = expected(flow)
    if number is None or flow.client_isn is None or seq == number:
        return True
    return flow.client_fin == number and seq == (number - 1) & _MASK


def ends(flow: Flow, after: int) -> bool:
    """Would the guest believe a FIN before `after`?"""
    number = expected(flow)
    return number is None or 0 < (after - number) & _MASK <= window(flow) + 1


def fits(flow: Flow, seg: Segment) -> bool:
    """Could a segment with ACK belong to the connection that `flow` knows, and not to a newer one on its ports?"""
    if flow.state is State.HALF:
        primary = flow.isn_primary
        return primary is not None and close_after(seg.seq, flow) and (seg.ack - primary - 1) & _MASK < FIRST_FLIGHT
    if flow.reset_by_guest:
        return False
    ack = (seg.ack + flow.offset) & _MASK
    fin, last = flow.client_fin, flow.guest_fin
    if flow.guest_fin_acked and flow.client_fin_acked and fin is not None and last is not None:
        return (fin - seg.seq) & _MASK < LATE and (last - ack) & _MASK < LATE
    number = expected(flow)
    if number is None or flow.last is None:
        return False
    header, l4, _ = flow.last
    sent = _U32.unpack_from(header, l4 + SEQ_AT)[0]
    return (seg.seq - number + LATE) & _MASK <= LATE + window(flow) and (ack - sent + AHEAD) & _MASK < 2 * AHEAD


def of_successor(flow: Flow, seg: Segment) -> bool:
    """Does a segment belong to the connection whose SYN the guest has not answered yet?

    Its first one has exactly the number behind the SYN's. What also fits the connection that stands is that one's: a
    stray SYN may have any number, that of the next byte included.
    """
    successor = flow.successor
    if successor is None or successor.gave_up or seg.flags & (SYN | RST | ACK) != ACK or successor.client_isn is None:
        return False
    behind = (seg.seq - successor.client_isn - 1) & _MASK
    primary = successor.isn_primary
    if primary is None:
        return behind <= successor.early and not fits(flow, seg)
    return behind < FIRST_FLIGHT and (seg.ack - primary - 1) & _MASK < FIRST_FLIGHT and not fits(flow, seg)


def of_former(flow: Flow, seg: Segment) -> bool:
    """Does a segment with ACK, behind a SYN that the guest has taken, belong to the connection before on these ports?

    A stray SYN may open a connection at a guest that has closed the one before (RFC 9293 §3.10.7.2). The client, who
    has not sent it, answers the SYN/ACK by an ACK in the numbers of the old one, which says nothing of the new one's.
    Of a connection that the client itself has opened, both numbers lie beyond those of the old one (RFC 6528).
    """
    former = flow.former
    if former is None or former.last is None:
        return False
    seq = expected(former) if former.client_fin is None else former.client_fin
    ack = former.guest_fin
    if ack is None:
        header, l4, length = former.last
        ack = (_U32.unpack_from(header, l4 + SEQ_AT)[0] + length) & _MASK
    return seq is not None and (seq - seg.seq) & _MASK < LATE and (ack - seg.ack - former.offset) & _MASK < LATE


def refusal(flow: Flow, arrival: Arrival) -> bytes:
    """The RST with which a client that wants no connection answers this SYN/ACK of the guest (RFC 9293 §3.10.7.1)."""
    frame = arrival.frame
    return sender(flow.key_client, frame[10:16], frame[16:22]).tcp(arrival.segment.ack, 0, RST)


def reset_of(flow: Flow, arrival: Arrival, number: int) -> bytes:
    """The RST with sequence number `number` of the client that has sent this segment."""
    frame = arrival.frame
    return sender(flow.key_client, frame[16:22], frame[10:16]).tcp(number, 0, RST)
