"""Releasing segments, and the flow control of the pair.

The right edge of the window that a released segment offers never passes the one that the secondary offers. Otherwise a
client could overrun a slower secondary, and would then wait for its own retransmission timeouts. When hundreds of
clients send at once, it also does not pass the connection's share of what all may have under way (`colo_proto.share`),
because the mirror keeps that until the secondary has it.

::

    the primary's edge      what its newest segment offers that may leave by its ACK        p_ack, p_win
    the secondary's edge    the farthest that it has offered                                s_edge
    the client's edge       the farthest that has left                                      edge
                            the farthest that has left since a window was lowered           clamped.edge

While the client's edge is behind the primary's, `clamped` is set, and when the secondary's edge moves on, the client is
told with a window update that compare makes.
"""

from struct import Struct
from typing import Final

from colo_compare.tcp.departure import flush as flush_held
from colo_compare.tcp.departure import let_out as let_held_out
from colo_compare.tcp.reference import LOWEST
from colo_compare.tcp.state import Connection, Held, LoweredWindow
from colo_compare.unit import Unit
from colo_proto.frame import Buffer
from colo_proto.net.stamp import NO_STAMP, tsval, with_tsval
from colo_proto.net.tcp import WINDOW_AT, read32, timestamps_at, update_checksum
from colo_proto.net.window import window_update
from colo_proto.seq import HALF, MASK
from colo_proto.share import AMPLE, LEAST

_U16: Final = Struct("!H")


def emit(flow: Connection, unit: Unit, buf: bytes, l4: int, data: int, end: int, ack: int, win: int) -> None:
    """Release a segment that ends at position `end`."""
    scale = flow.p_scale
    if flow.s_scale >= 0 and win > _largest_field(flow, ack, scale) and _may_clamp(flow, unit):
        unit = _clamp(flow, buf, l4, data, end, ack, win, scale)
    else:
        if flow.clamped is not None:
            _told(flow, buf, l4, data, end, ack, win, win)
        if ack + (win << scale) > flow.edge:
            _moved(flow, ack + (win << scale))
    flow.ledger.sink.append(unit)


def emit_syn(flow: Connection, held: Held) -> None:
    """Release a SYN. Its window is never scaled (RFC 7323 §2.2). An opening one has no ACK, and offers nothing yet."""
    unit, ack, win = held.unit, held.ack, held.win
    data = held.data + held.syn
    if ack > LOWEST and flow.s_edge > LOWEST and ack + win > flow.s_edge:
        unit = _clamp(flow, held.buf, held.l4, data, held.end, ack, win, 0) if _may_clamp(flow, unit) else unit
    elif flow.clamped is not None:
        _told(flow, held.buf, held.l4, data, held.end, ack, -win, win)
    if ack > LOWEST:
        flow.edge = max(flow.edge, ack + win)
    flow.ledger.sink.append(unit)


def secondary_says(flow: Connection, wire_ack: int, win: int) -> bool:
    """Take over an ACK and window of the secondary. True when either moved on."""
    flow.s_win = win
    if wire_ack == flow.s_wire_ack:
        ack = flow.s_last_ack
    else:
        ack = flow.unwrap_ack(wire_ack)
        flow.s_wire_ack, flow.s_last_ack = wire_ack, ack
    moved = False
    if ack > flow.s_ack:
        flow.s_ack = flow.ack_base = ack
        moved = True
    scale = flow.s_scale
    if scale >= 0 and ack + (win << scale) > flow.s_edge:
        flow.s_edge = ack + (win << scale)
        moved = True
    if flow.opener and ack + win > flow.s_plain:
        flow.s_plain = ack + win
        moved = True
    return moved


def _largest_field(flow: Connection, ack: int, scale: int) -> int:
    """The largest window field that passes neither the secondary's right edge nor the connection's share of what all
    may have under way, as far as the client has not been told more already.
    """
    if flow.opener:
        return min(max(flow.s_edge - ack, 0) >> scale, max(flow.s_plain - ack, 0))
    edge, share = flow.s_edge, flow.ledger.share.bytes
    if share < AMPLE and flow.edge > LOWEST:
        edge = min(edge, max(flow.edge, ack + share))
    return max(edge - ack, 0) >> scale


def _moved(flow: Connection, edge: int) -> None:
    """The client has been told of a farther right edge. A connection on which it moves is one that clients send on."""
    share = flow.ledger.share
    flow.edge = edge
    if edge - flow.counted >= LEAST:
        if flow.mark != share.tick and flow.counted > LOWEST:
            flow.mark = share.tick
            share.count()
        flow.counted = edge


def _may_clamp(flow: Connection, unit: Unit) -> bool:
    if flow.ledger.shadow:
        return False
    if isinstance(unit, tuple):
        flow.ledger.counters["window_unclamped"] += 1
        return False
    return True


def _clamp(flow: Connection, buf: bytes, l4: int, data: int, end: int, ack: int, win: int, scale: int) -> Unit:
    """The segment with its window lowered, so that its right edge does not pass the secondary's."""
    window = _largest_field(flow, ack, scale)
    patched = bytearray(buf)
    _U16.pack_into(patched, l4 + WINDOW_AT, window)
    update_checksum(patched, l4, window - win)
    flow.ledger.counters["windows_lowered"] += 1
    _told(flow, patched, l4, data, end, ack, win if scale else -win, window)
    return patched


# -- what the client has been told -------------------------------------------------------------------


def _told(flow: Connection, buf: Buffer, l4: int, data: int, end: int, ack: int, win: int, window: int) -> None:
    """A segment leaves with the window field `window`; the primary's own was `win` (negative: not scaled).

    Segments do not leave in the order in which they came. So for the client's edge the farthest counts, and for the
    primary's what came last. A window update has to be newer than all that has left, so it is made from the segment
    with the newest timestamp.
    """
    told = flow.clamped
    edge = _edge(flow, ack, window if win >= 0 else -window)
    if edge > flow.edge:
        _moved(flow, edge)
    if told is None:
        told = LoweredWindow(bytes(buf[:data]), l4, end, edge, ack + window, ack, win)
    else:
        if _newer(buf, l4, data, told):
            told.head, told.l4 = bytes(buf[:data]), l4
        told.end = max(told.end, end)
        told.edge = max(told.edge, edge)
        told.plain_edge = max(told.plain_edge, ack + window)
        if ack > told.ack or (ack == told.ack and _edge(flow, ack, win) > _edge(flow, ack, told.win)):
            told.ack, told.win = ack, win
    # Does the primary offer more than the client has been told, in either reading of an opener's windows?
    ack, win = _newest(flow, told, flow.s_ack)
    owes = _edge(flow, ack, win) > told.edge or (flow.opener and ack + abs(win) > told.plain_edge)
    flow.clamped = told if owes else None


def _newer(buf: Buffer, l4: int, data: int, told: LoweredWindow) -> bool:
    """Is the timestamp of this segment no older than that of the head in `told`? True if one has no timestamp."""
    at, before = timestamps_at(buf, l4, data), timestamps_at(told.head, told.l4, len(told.head))
    return at is None or before is None or (read32(buf, at) - read32(told.head, before)) & MASK < HALF


def _edge(flow: Connection, ack: int, win: int) -> int:
    """The right edge that an ACK offers with a window field, which is negative where it is not scaled."""
    return ack - win if win < 0 else ack + (win << flow.p_scale)


def _scaled_field(flow: Connection, win: int) -> int:
    """The window field of a segment that offers what `win` does, which is negative where it is not scaled."""
    return -win >> flow.p_scale if win < 0 else win


def _newest(flow: Connection, told: LoweredWindow, limit: int) -> tuple[int, int]:
    """The newest ACK and window of the primary that do not wait for an ACK of the secondary, whose own is `limit`.

    What waits will offer its window itself when it leaves. Were it offered before, the segments that wait with it
    would take it back. An ACK that is older than what has left was overtaken on its way here, and says nothing about
    now.

    The pair is always one that the primary sent. What it would offer with an ACK between two of its own is not known
    where it is not known whether windows are scaled (see `opener`).
    """
    return (flow.p_ack, flow.p_win) if told.ack <= flow.p_ack <= limit else (told.ack, told.win)


def reopen(flow: Connection, told: LoweredWindow) -> None:
    """The secondary's window grew after the primary's was lowered: tell the client, which waits for it.

    The primary never closed its window, so it will not announce a larger one by itself. Without this the client would
    wait until its persist timer fires.
    """
    if flow.ledger.shadow:
        return
    scale = flow.p_scale
    ack, win = _newest(flow, told, flow.s_ack)
    full = _scaled_field(flow, win)
    window = min(full, _largest_field(flow, ack, scale))
    if window <= 0:
        # What came last offers nothing beyond what has been acknowledged.
        return
    edge = ack + (window << scale)
    if not (
        _worth_an_update(flow, ack, edge, told.edge, _edge(flow, ack, win), whole=window == full)
        or (
            flow.opener and _worth_an_update(flow, ack, ack + window, told.plain_edge, ack + full, whole=window == full)
        )
    ):
        return
    _announce(flow, told, ack, window)
    told.win = full
    if window == full:
        flow.clamped = None


def _worth_an_update(flow: Connection, ack: int, edge: int, known: int, offered: int, *, whole: bool) -> bool:
    """Should the client be told of a right edge `edge`, when it knows of `known` and the primary offers `offered`?
    Always when that is all of it (`whole`).

    The rest is receiver-side silly window avoidance (RFC 9293 §3.8.6.2.2). The secondary does that as well, so a client
    that has not even room for one segment left is told once the new part is the greater part of what there is.
    """
    gain = edge - known
    if gain <= 0 or whole:
        return gain > 0
    mss = (flow.p_syn.mss if flow.p_syn else None) or 536
    if gain >= min(2 * mss, (offered - ack) // 2):
        return True
    return known - ack < mss and (edge - ack >= mss or 2 * gain >= edge - ack)


def _announce(flow: Connection, told: LoweredWindow, ack: int, window: int) -> None:
    """Send a window update. It has the sequence number of the primary's next byte, so that the client accepts it."""
    told.ack = ack
    told.edge = max(told.edge, _edge(flow, ack, window))
    flow.edge = max(flow.edge, told.edge)
    told.plain_edge = max(told.plain_edge, ack + window)
    seq = flow.p_top if flow.p_top > LOWEST else told.end
    flow.ledger.synthesize(window_update(told.head, told.l4, len(told.head), seq & MASK, ack & MASK, window))


def unbound(flow: Connection) -> None:
    """Nothing lowers this connection's windows any more: tell the client what was kept from it."""
    told = flow.clamped
    if told is None:
        return
    flow.clamped = None
    ack, win = _newest(flow, told, flow.p_ack)
    window = _scaled_field(flow, win)
    beyond = ack + (window << flow.p_scale) > told.edge or (flow.opener and ack + window > told.plain_edge)
    if window > 0 and beyond:
        _announce(flow, told, ack, window)


# -- everything that is held leaves ------------------------------------------------------------------


def flush(flow: Connection, *, copied: bool) -> None:
    """A checkpoint is done: the secondary offers what the primary does, or the flow is not compared any more."""
    leaving = _leaving(flow)
    flush_held(flow, copied=copied)
    _tell_all(flow, leaving)
    unbound(flow)
    flow.edge = LOWEST


def let_out(flow: Connection, cause: str) -> None:
    """Send what is held but keep it for comparing (shadow mode begins)."""
    leaving = _leaving(flow)
    let_held_out(flow, cause)
    _tell_all(flow, leaving)
    flow.edge = LOWEST


def _leaving(flow: Connection) -> list[Held]:
    """What leaves when all that is held does, if that matters for what the client has been told."""
    return [held for held in (*flow.data, *flow.waiting) if not held.out] if flow.clamped is not None else []


def _tell_all(flow: Connection, leaving: list[Held]) -> None:
    for held in leaving:
        win = -held.win if held.syn else held.win
        _told(flow, held.buf, held.l4, held.data + held.syn, held.end, held.ack, win, held.win)
    told, stamp = flow.clamped, flow.stamp
    if told is not None and stamp != NO_STAMP and (tsval(told.head, told.l4, len(told.head)) - stamp) & MASK >= HALF:
        # They left with newer timestamps than their own.
        told.head = with_tsval(told.head, told.l4, len(told.head), stamp)
    flow.stamp = NO_STAMP
